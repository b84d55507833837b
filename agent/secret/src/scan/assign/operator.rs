//! The sign between a name and its value.

use super::{at_line_start, skip_space};
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Assign,
    Colon,
    /// `==`, `!=`
    Compare,
    /// An argument of the name: `setName("value")`.
    Argument,
    /// Name and value as two arguments: `("NAME", "value")`.
    Pair,
    /// The word after it in a list.
    List,
    /// `<name>value</name>`
    Tag,
    /// `--name value`
    Flag,
    /// The same as two words of a list: `"--name", "value"`.
    FlagItem,
    /// The word after it, where nothing but a value can stand: `ENV NAME value`, `${NAME:-value}`.
    Word,
    /// `the password is "..."`
    Prose,
}

/// Where the value begins, and what says that it is one.
type Found = (usize, Operator);

/// Finds the sign after the name and where the value begins.
pub(super) fn operator(text: &[u8], name: &Range<usize>) -> Option<Found> {
    let mut gap = Gap::after(text, name);
    if let Some(after) = gap.closed_tag() {
        return Some((after, Operator::Tag));
    }
    gap.go_to_sign();
    if let Some(found) = gap.notation() {
        return Some(found);
    }
    if let Some(bare) = gap.command() {
        return gap.word_of_command(bare);
    }
    gap.field().or_else(|| gap.sign())
}

/// What stands between a name and its value.
#[derive(Clone, Copy)]
struct Gap<'t> {
    text: &'t [u8],
    name: &'t Range<usize>,
    /// No sign is looked for from here on.
    limit: usize,
    /// Closing quotes and brackets of the name, with their backslashes: "name", ['name'], \"name\".
    closers: usize,
    /// Blanks stand before the sign.
    spaced: bool,
    /// Behind the closers; then where the sign is.
    at: usize,
}

impl<'t> Gap<'t> {
    fn after(text: &'t [u8], name: &'t Range<usize>) -> Self {
        let mut gap = Self {
            text,
            name,
            limit: text.len().min(name.end + 96),
            closers: 0,
            spaced: false,
            at: name.end,
        };
        while gap.closers < 4 && matches!(gap.peek(0), b'"' | b'\'' | b'`' | b']' | b'\\') {
            gap.at += 1;
            gap.closers += 1;
        }
        // password[32] = "..."
        if gap.peek(0) == b'[' {
            let digits = text[gap.at + 1..gap.limit]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            if gap.peek(1 + digits) == b']' {
                gap.at += digits + 2;
            }
        }
        gap
    }

    /// The byte so far behind the present place; 0 beyond the limit.
    fn peek(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        if at < self.limit { self.text[at] } else { 0 }
    }

    fn name(&self) -> &'t [u8] {
        &self.text[self.name.clone()]
    }

    /// What stands before the name.
    fn before(&self) -> &'t [u8] {
        &self.text[..self.name.start]
    }

    /// Behind the `>` of an element that is called so, or that an attribute calls so.
    fn closed_tag(&self) -> Option<usize> {
        let is_tag = self.peek(0) == b'>'
            && match self.closers {
                0 => {
                    // <ns:name>; not Module::Name> of Perl's manuals.
                    matches!(self.before().last(), Some(b'<' | b':'))
                        && !self.before().ends_with(b"::")
                }
                // <entry key="name">value</entry>
                1 => named_element(self.before()),
                _ => false,
            };
        is_tag.then_some(self.at + 1)
    }

    fn go_to_sign(&mut self) {
        let sign = skip_space(self.text, self.at, self.limit);
        self.spaced = sign > self.at;
        self.at = sign;
        // name="x" value="..."
        if self.closers > 0
            && self.spaced
            && self.text[sign..self.limit].len() > 6
            && self.text[sign..sign + 5].eq_ignore_ascii_case(b"value")
        {
            self.at = skip_space(self.text, sign + 5, self.limit);
        }
    }

    /// Notations whose value stands elsewhere than behind the sign.
    fn notation(&self) -> Option<Found> {
        // variable "name" { ... default = "value"
        if self.closers == 1
            && self.peek(0) == b'{'
            && let Some(after) = block_default(self.text, self.name, self.at)
        {
            return Some((after, Operator::Assign));
        }
        // <key>name</key> and <string>value</string> on the next line: property lists.
        if self.closers == 0
            && let Some(after) = list_field(self.text, self.name, self.limit)
        {
            return Some((after, Operator::Tag));
        }
        // SetEnvironmentVariable('NAME', 'value', 'User')
        let sets = self.closers == 1 && self.peek(0) == b',' && sets_variable(self.text, self.name);
        sets.then_some((self.at + 1, Operator::Assign))
    }

    /// Whether a bare word is the value that a command gives the name; `None`: no command stands before it.
    fn command(&self) -> Option<bool> {
        if self.closers > 0 || !self.spaced || matches!(self.peek(0), b'=' | b':') {
            return None;
        }
        command(self.text, self.name.start)
    }

    /// `ENV NAME value`; with quotes alone where a bare word is a name: `#define NAME "value"`.
    fn word_of_command(&self, bare: bool) -> Option<Found> {
        // @"value" of Objective-C, -Value "value" of PowerShell
        let rest = self.text.get(self.at..self.limit).unwrap_or_default();
        let marked = if rest.starts_with(b"@\"") {
            1
        } else if rest.len() > 7 && rest[..7].eq_ignore_ascii_case(b"-value ") {
            7
        } else {
            0
        };
        let at = self.at + marked;
        match self.peek(marked) {
            // What is defined under a name that only says key is as likely the name of something.
            b'"' | b'\'' if !bare => Some((at, Operator::Argument)),
            _ => bare.then_some((at, Operator::Word)),
        }
    }

    /// Values that are fields or arguments of a name of their own.
    fn field(&self) -> Option<Found> {
        let Self { text, name, at, .. } = *self;
        // `name: X` and `value: ...` on the next line, `"name": "X", "value": "..."`: lists of variables.
        if let Some(after) =
            value_field(text, name, at, self.limit).or_else(|| value_before(text, name, at))
        {
            return Some((after, Operator::Assign));
        }
        // ('--name', default='value')
        if self.closers == 1
            && self.peek(0) == b','
            && self.name().starts_with(b"--")
            && let Some(after) = option_default(&text[at..self.limit])
        {
            return Some((at + after, Operator::Assign));
        }
        // getenv("NAME") or "value"
        if (1..=2).contains(&self.closers) && self.peek(0) == b')' {
            return self.otherwise().map(|after| (after, Operator::Assign));
        }
        None
    }

    /// The place behind what stands between a call that reads the name and the value that is taken where it reads none.
    fn otherwise(&self) -> Option<usize> {
        const WORDS: &[&[u8]] = &[
            b"or ",
            b"|| ",
            b"?? ",
            b"?: ",
            b".unwrap_or(",
            b".orElse(",
            b".getOrElse(",
        ];
        let at = skip_space(self.text, self.at + 1, self.limit);
        let rest = self.text.get(at..self.limit)?;
        let word = WORDS.iter().find(|word| rest.starts_with(word))?;
        let value = rest[word.len()..].trim_ascii_start();
        matches!(value.first(), Some(b'"' | b'\'')).then(|| at + word.len())
    }

    /// The sign itself, and whether it is one between this name and a value.
    fn sign(&self) -> Option<Found> {
        let bare = self.closers == 0;
        match self.peek(0) {
            b'=' if self.peek(1) == b'>' => Some((self.at + 2, Operator::Assign)),
            b'=' | b'!' if self.peek(1) == b'=' => {
                let three = usize::from(self.peek(2) == b'=');
                Some((self.at + 2 + three, Operator::Compare))
            }
            b'=' => Some((self.at + 1, Operator::Assign)),
            b':' => self.colon(),
            b'-' if self.peek(1) == b'>' => None,
            sign @ (b'|' | b'?')
                if self.peek(1) == sign || sign == b'|' && self.peek(1) == b'=' =>
            {
                // `||=` and `??=` assign.
                let assigns = self.peek(1) == sign && self.peek(2) == b'=';
                Some((self.at + 2 + usize::from(assigns), Operator::Assign))
            }
            b',' if !bare => Some((self.at + 1, self.comma())),
            // std::string password{"value"};
            b'{' if bare && !self.spaced && self.peek(1) == b'"' => {
                Some((self.at + 1, Operator::Argument))
            }
            // setPassword("value"); a macro in capitals takes names of things.
            b'(' if self.name().iter().any(u8::is_ascii_lowercase)
                // `test.pass("...")` says that something passed.
                && !self.name().ends_with(b".pass") =>
            {
                Some((self.at + 1, Operator::Argument))
            }
            b'"' | b'\'' if self.spaced && bare && self.takes_quoted() => {
                Some((self.at, Operator::Argument))
            }
            // One blank: more of them set the columns of a help text.
            _ if bare && self.at == self.name.end + 1 && self.is_flag() => {
                Some((self.at, Operator::Flag))
            }
            // `password value` and nothing else on the line: mail clients, brokers.
            _ if self.spaced && bare && alone(self.text, self.name, self.at) => {
                Some((self.at, Operator::Flag))
            }
            b'i' if self.spaced && self.peek(1) == b's' && self.peek(2) == b' ' => {
                Some((self.at + 3, Operator::Prose))
            }
            b if self.spaced && b.is_ascii_alphabetic() => self.typed(),
            _ => None,
        }
    }

    fn colon(&self) -> Option<Found> {
        match self.peek(1) {
            b'=' => Some((self.at + 2, Operator::Assign)),
            b':' => None,
            // ${NAME:?message} and ${NAME:+instead} hold no default.
            b'?' | b'+' if self.closers == 0 && self.before().ends_with(b"${") => None,
            // ${NAME:-value}
            b'-' if self.closers == 0 && self.before().ends_with(b"${") => {
                Some((self.at + 2, Operator::Word))
            }
            _ => {
                let after = after_type(self.text, self.at + 1, self.limit);
                Some((after, Operator::Colon))
            }
        }
    }

    /// ("NAME", "value"): the first of exactly two; a list of words goes on.
    fn comma(&self) -> Operator {
        if self.name().starts_with(b"--") {
            Operator::FlagItem
        } else if opens_pair(self.text, self.name) {
            Operator::Pair
        } else {
            Operator::List
        }
    }

    /// `password 'value'` stands on a line of its own, or is SQL.
    fn takes_quoted(&self) -> bool {
        at_line_start(self.text, self.name.start)
            || keyword(self.name())
            || parameter(self.name())
            || defined(self.text, self.name)
    }

    /// `--name value`, `-Name value`
    fn is_flag(&self) -> bool {
        self.text[self.name.start..].starts_with(b"--") || parameter(self.name())
    }

    /// Typed declarations: `password string = "..."`, `api_key text := '...'`.
    fn typed(&self) -> Option<Found> {
        const TYPES: &[&[u8]] = &[
            b"string",
            b"str",
            b"text",
            b"varchar",
            b"String",
            b"NSString",
            b"const",
        ];
        let word_at = |at: usize| {
            let rest = &self.text[at..self.limit];
            let length = rest
                .iter()
                .take(16)
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
            &rest[..length]
        };
        let mut sign = *self;
        // `Const Password As String = "..."` of Visual Basic
        if word_at(sign.at).eq_ignore_ascii_case(b"as") {
            sign.at = skip_space(self.text, sign.at + 2, self.limit);
        }
        let word = word_at(sign.at);
        sign.at = skip_space(self.text, sign.at + word.len(), self.limit);
        sign.at += usize::from(sign.peek(0) == b':');
        (TYPES.contains(&word) && sign.peek(0) == b'=').then_some((sign.at + 1, Operator::Assign))
    }
}

/// The name begins a line that holds one more word after one blank or tab, and is written in small letters.
fn alone(text: &[u8], name: &Range<usize>, value: usize) -> bool {
    let start = text[..name.start]
        .iter()
        .rev()
        .take(16)
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    let fresh = match (name.start - start).checked_sub(1) {
        Some(at) => text[at] == b'\n',
        None => true,
    };
    let rest = &text[value..text.len().min(value + 160)];
    let word = rest.iter().take_while(|b| !b.is_ascii_whitespace()).count();
    fresh
        && value == name.end + 1
        // `Pass` of mail clients; a word all in capitals is a heading.
        && !text[name.clone()].iter().skip(1).any(u8::is_ascii_uppercase)
        && word >= 6
        && matches!(rest.get(word), None | Some(b'\n' | b'\r'))
}

/// The place after `default=` in the arguments that follow an option's name.
fn option_default(rest: &[u8]) -> Option<usize> {
    let call = &rest[..rest.iter().position(|b| matches!(b, b')' | b'\n'))?];
    let at = memchr::memmem::find(call, b"default")? + b"default".len();
    let value = call[at..].trim_ascii_start().strip_prefix(b"=")?;
    matches!(value.trim_ascii_start().first(), Some(b'"' | b'\'')).then(|| call.len() - value.len())
}

/// Farthest that a value stands before the name of its variable.
const MAX_BEFORE: usize = 8300;

/// Before a name that is itself a field's value, the field that holds its value (`{"value": "...", "name": "X"}`); the
/// place after that field's colon.
fn value_before(text: &[u8], name: &Range<usize>, at: usize) -> Option<usize> {
    if !matches!(text.get(at), Some(b'}' | b',' | b'\n' | b'\r')) || at == name.end {
        return None;
    }
    let from = name.start.saturating_sub(MAX_BEFORE);
    let field = |before: &[u8], quoted: &[u8]| -> Option<usize> {
        let before = before.trim_ascii_end().strip_suffix(b":")?;
        let rest = before.trim_ascii_end().strip_suffix(quoted)?;
        Some(rest.len())
    };
    let before = text[from..name.start].strip_suffix(b"\"")?;
    let before = &before[..field(before, b"\"name\"").or_else(|| field(before, b"\"key\""))?];
    let before = before
        .trim_ascii_end()
        .strip_suffix(b",")?
        .trim_ascii_end()
        .strip_suffix(b"\"")?;
    let open = before.iter().rposition(|b| *b == b'"')?;
    field(&before[..open], b"\"value\"")?;
    Some(from + open)
}

/// A command before the name on its line that takes a name and a value; false when only a quoted one counts.
fn command(text: &[u8], name: usize) -> Option<bool> {
    let before = &text[name.saturating_sub(48)..name];
    if sets_item(before) {
        return Some(true);
    }
    if !matches!(before.last(), Some(b' ' | b'\t')) {
        return None;
    }
    let line = match before.iter().rposition(|b| *b == b'\n') {
        Some(at) => &before[at + 1..],
        None if name <= 48 => before,
        None => return None,
    };
    let line = line.trim_ascii();
    // The history of fish is YAML.
    let line = line.strip_prefix(b"- cmd: ").unwrap_or(line);
    if let Some(flags) = line.strip_prefix(b"set ") {
        // set -gx NAME value
        return flags
            .split(|b| *b == b' ')
            .all(|f| f.len() > 1 && f[0] == b'-' && f[1..].iter().all(|b| b"gxUlf-".contains(b)))
            .then_some(true);
    }
    match line {
        b"ENV" | b"setenv" | b"setx" | b"SETX" | b"SetEnv" | b"$ setenv" | b"% setenv" => {
            Some(true)
        }
        // nginx hands variables and headers on.
        b"fastcgi_param" | b"uwsgi_param" | b"scgi_param" | b"proxy_set_header"
        | b"grpc_set_header" => Some(true),
        b"#define" | b"# define" => Some(false),
        _ => None,
    }
}

/// `Set-Item env:NAME value` of PowerShell, whose names are of any case.
fn sets_item(before: &[u8]) -> bool {
    let line = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    let starts = |with: &[u8]| {
        line.get(..with.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(with))
    };
    line.last_chunk::<5>()
        .is_some_and(|end| end.eq_ignore_ascii_case(b" env:"))
        && (starts(b"Set-Item ") || starts(b"New-Item "))
}

/// Farthest that the default of a variable's block stands from its name.
const MAX_BLOCK: usize = 400;

/// The place after `default =` in the block of a Terraform variable.
fn block_default(text: &[u8], name: &Range<usize>, open: usize) -> Option<usize> {
    if !text[..name.start].ends_with(b"variable \"") {
        return None;
    }
    let mut at = open + 1;
    let block = &text[at..text.len().min(at + MAX_BLOCK)];
    for line in block.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b"}") {
            return None;
        }
        let field = line.trim_ascii_start();
        if let Some(rest) = field.strip_prefix(b"default")
            && let Some(value) = rest.trim_ascii_start().strip_prefix(b"=")
        {
            return Some(at + line.len() - value.len());
        }
        at += line.len();
    }
    None
}

/// The place after `<string>` in `<key>name</key> <string>`.
fn list_field(text: &[u8], name: &Range<usize>, limit: usize) -> Option<usize> {
    let rest = text.get(name.end..limit)?.strip_prefix(b"</key>")?;
    if !text[..name.start].ends_with(b"<key>") {
        return None;
    }
    let value = rest.trim_ascii_start().strip_prefix(b"<string>")?;
    Some(limit - value.len())
}

/// The quote before the name opens the arguments of PowerShell's and .NET's `SetEnvironmentVariable`.
fn sets_variable(text: &[u8], name: &Range<usize>) -> bool {
    let before = &text[name.start.saturating_sub(32)..name.start];
    let before = match before {
        [before @ .., b'"' | b'\''] => before,
        _ => return false,
    };
    before
        .trim_ascii_end()
        .strip_suffix(b"(")
        .is_some_and(|call| {
            let call = call.trim_ascii_end();
            const CALL: &[u8] = b"SetEnvironmentVariable";
            call.len() >= CALL.len() && call[call.len() - CALL.len()..].eq_ignore_ascii_case(CALL)
        })
}

/// After a name that is itself a field's value, the field that holds its value; the place after its colon.
fn value_field(text: &[u8], name: &Range<usize>, at: usize, limit: usize) -> Option<usize> {
    if !matches!(text.get(at), Some(b'\n' | b'\r' | b',')) {
        return None;
    }
    let before = text[name.start.saturating_sub(16)..name.start].trim_ascii_end();
    let before = before
        .strip_suffix(b"\"")
        .or_else(|| before.strip_suffix(b"'"))
        .unwrap_or(before)
        .trim_ascii_end()
        .strip_suffix(b":")?;
    let before = before.strip_suffix(b"\"").unwrap_or(before);
    let field = &before[before.len().saturating_sub(4)..];
    if !(field.eq_ignore_ascii_case(b"name") || field.ends_with(b"key") || field.ends_with(b"Key"))
    {
        return None;
    }
    let mut i = at;
    while i < limit
        && (text[i].is_ascii_whitespace() || matches!(text[i], b',' | b'"' | b'\'' | b'-'))
    {
        i += 1;
    }
    let rest = text.get(i..limit)?;
    let word = rest
        .iter()
        .take(6)
        .take_while(|b| b.is_ascii_alphabetic())
        .count();
    if !rest[..word].eq_ignore_ascii_case(b"value") && !rest[..word].eq_ignore_ascii_case(b"val") {
        return None;
    }
    let mut i = i + word;
    if matches!(text.get(i), Some(b'"' | b'\'')) {
        i += 1;
    }
    let i = skip_space(text, i, limit);
    (text.get(i) == Some(&b':')).then_some(i + 1)
}

/// Skips a type annotation: `: str = "x"`, `: Option<String> = "x"`.
fn after_type(text: &[u8], at: usize, limit: usize) -> usize {
    let i = skip_space(text, at, limit);
    let word = text[i..limit]
        .iter()
        .take(32)
        .take_while(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'&' | b'<' | b'>' | b'[' | b']' | b'*' | b'?' | b'\'')
        })
        .count();
    let j = skip_space(text, i + word, limit);
    // Only a name of a type is followed by a single equals sign.
    if word > 0
        && text.get(j) == Some(&b'=')
        && text.get(j + 1) != Some(&b'=')
        && j > i
        && text[i].is_ascii_alphabetic() | (text[i] == b'&')
        && j > i + word
    {
        j + 1
    } else {
        at
    }
}

/// The quote before the name follows an opening bracket.
fn opens_pair(text: &[u8], name: &Range<usize>) -> bool {
    let before = &text[name.start.saturating_sub(8)..name.start];
    let before = before.trim_ascii_end();
    let before = match before.last() {
        Some(b'"' | b'\'' | b'`') => &before[..before.len() - 1],
        _ => return false,
    };
    let before = match before.last() {
        Some(b'\\') => &before[..before.len() - 1],
        _ => before,
    };
    matches!(before.trim_ascii_end().last(), Some(b'(' | b'{'))
}

/// `PASSWORD` and `IDENTIFIED BY` of SQL, in capitals as manuals of databases write them.
fn keyword(name: &[u8]) -> bool {
    name == b"PASSWORD"
}

/// Lisp defines it so (`(setq name "value")`), or it is a key of a map of Clojure (`:name "value"`) or the second word of
/// an account (`user "name" password "value"`).
fn defined(text: &[u8], name: &Range<usize>) -> bool {
    const FORMS: &[&[u8]] = &[
        b"(setq ",
        b"(setq-default ",
        b"(setopt ",
        b"(defvar ",
        b"(defconst ",
        b"(defparameter ",
        b"(define ",
        b"(def ",
        b"{:",
        b" :",
        b"\" ",
    ];
    let before = &text[..name.start];
    FORMS.iter().any(|form| before.ends_with(form))
}

/// `-Password` of PowerShell.
fn parameter(name: &[u8]) -> bool {
    name.first() == Some(&b'-') && name.get(1).is_some_and(u8::is_ascii_uppercase)
}

/// What stands before a name is `key="` or `name="`.
fn named_element(before: &[u8]) -> bool {
    let before = before
        .strip_suffix(b"\"")
        .or_else(|| before.strip_suffix(b"'"))
        .and_then(|b| b.strip_suffix(b"="));
    before.is_some_and(|b| b.ends_with(b" key") || b.ends_with(b" name"))
}
