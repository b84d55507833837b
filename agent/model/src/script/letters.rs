//! Options of one letter that stand together in one argument: `perl -lne CODE`, `python3 -Im NAME`.

/// What the letters of an interpreter mean.
pub(super) struct Letters {
    /// What follows, behind the letter or as the next argument, is the code.
    pub code: &'static str,
    /// What follows is a module.
    pub module: &'static str,
    /// What follows is a value.
    pub value: &'static str,
    /// The rest of the argument is a value, and no other argument is.
    pub rest: &'static str,
}

/// Of those that have no such letters, or whose letters are read elsewhere.
pub(super) const NONE: Letters = Letters {
    code: "",
    module: "",
    value: "",
    rest: "",
};

pub(super) const PYTHON: Letters = Letters {
    code: "c",
    module: "m",
    value: "WX",
    rest: "",
};

pub(super) const LUA: Letters = Letters {
    code: "e",
    module: "",
    value: "l",
    rest: "jOb",
};

/// What an argument of letters says.
pub(super) enum Bundle<'a> {
    Code,
    /// Its name, or nothing where that is the next argument.
    Module(&'a str),
    /// The next argument is a value.
    Value,
    Nothing,
}

impl Letters {
    pub fn of<'a>(&self, argument: &'a str) -> Bundle<'a> {
        let Some(letters) = argument.strip_prefix('-').filter(|l| !l.starts_with('-')) else {
            return Bundle::Nothing;
        };
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            if self.code.contains(letter) {
                return Bundle::Code;
            }
            if self.module.contains(letter) {
                return Bundle::Module(rest.as_str());
            }
            if self.value.contains(letter) {
                return if rest.as_str().is_empty() {
                    Bundle::Value
                } else {
                    Bundle::Nothing
                };
            }
            if self.rest.contains(letter) {
                return Bundle::Nothing;
            }
        }
        Bundle::Nothing
    }
}
