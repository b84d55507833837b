//! Which file of a crate takes names from which, as the code says it, and the circles among them.
//!
//! Paths are read from tokens, those inside macros included. A name that a module only hands on (`pub use`) counts as taken
//! from the file that defines it, and handing on is no use by itself. Code that is there for tests alone does not count.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files by their path below the crate's `src`, and whose names each takes.
pub type Arrows = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Of,
    Sign(char),
    Open,
    Close,
}

/// One name that a `use` brings.
#[derive(Clone, Debug)]
struct Import {
    path: Vec<String>,
    name: String,
    handed_on: bool,
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeMap<String, usize>,
    parent: Option<usize>,
    imports: Vec<Import>,
    /// Paths outside of `use`.
    paths: Vec<Vec<String>>,
    defined: BTreeSet<String>,
    /// How often each word stands outside of `use`.
    words: BTreeMap<String, usize>,
    /// Functions in which, or behind which, a `Result` has a text for its error.
    textual: BTreeSet<String>,
}

/// A crate's modules; the first is its root.
pub struct Crate(Vec<Module>);

impl Crate {
    /// Reads a crate from its root file.
    pub fn read(root: &Path) -> Self {
        let base = root.parent().unwrap().to_owned();
        let mut modules = vec![Module::default()];
        read(&mut modules, 0, root, &base, &base);
        Self(modules)
    }

    /// Functions in which, or behind which, an error is a `String`, with the file of each.
    pub fn textual(&self) -> BTreeSet<(PathBuf, String)> {
        let names = |module: &Module| {
            let file = module.file.clone();
            let names = module.textual.clone().into_iter();
            names.map(move |name| (file.clone(), name))
        };
        self.0.iter().flat_map(names).collect()
    }

    /// Who takes what from whom.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (id, module) in self.0.iter().enumerate() {
            let mut add = |path: &[String]| {
                if let Some((to, name)) = self.resolve(id, path, 0)
                    && self.0[to].file != module.file
                {
                    let from = arrows.entry(module.file.clone()).or_default();
                    let names: &mut BTreeSet<String> =
                        from.entry(self.0[to].file.clone()).or_default();
                    names.insert(name);
                }
            };
            for import in &module.imports {
                if !import.handed_on || module.words.contains_key(&import.name) {
                    add(&import.path);
                }
            }
            module.paths.iter().for_each(|path| add(path));
        }
        arrows
    }

    /// The module that defines what a path names, and the name; `None` for a module itself and for other crates.
    fn resolve(&self, at: usize, path: &[String], depth: usize) -> Option<(usize, String)> {
        let (first, mut rest) = path.split_first()?;
        let module = &self.0[at];
        let mut to = match first.as_str() {
            "crate" => 0,
            "self" => at,
            "super" => module.parent?,
            first => {
                if let Some(child) = module.children.get(first) {
                    *child
                } else {
                    let import = module.imports.iter().find(|import| import.name == first)?;
                    if depth > 8 || rest.is_empty() {
                        return None;
                    }
                    let whole: Vec<String> = import.path.iter().chain(rest).cloned().collect();
                    return self.resolve(at, &whole, depth + 1);
                }
            }
        };
        loop {
            let (next, after) = rest.split_first()?;
            if next == "super" {
                to = self.0[to].parent?;
            } else if let Some(child) = self.0[to].children.get(next) {
                to = *child;
            } else {
                return Some(self.defining(to, next, depth));
            }
            rest = after;
        }
    }

    /// Follows a name that a module hands on to where it is defined.
    fn defining(&self, at: usize, name: &str, depth: usize) -> (usize, String) {
        let module = &self.0[at];
        let here = (at, name.to_owned());
        if depth > 8 || module.defined.contains(name) {
            return here;
        }
        for import in &module.imports {
            if import.name == name {
                return self.resolve(at, &import.path, depth + 1).unwrap_or(here);
            }
            if import.name == "*" {
                let mut path = import.path.clone();
                path.pop();
                path.push(name.to_owned());
                if let Some((to, name)) = self.resolve(at, &path, depth + 1)
                    && self.0[to].defined.contains(&name)
                {
                    return (to, name);
                }
            }
        }
        here
    }
}

/// The same without the arrows from a module to what is below it: it puts its own parts together.
pub fn without_own_parts(mut arrows: Arrows) -> Arrows {
    for (file, takes) in &mut arrows {
        let is_folder = ["lib.rs", "main.rs", "mod.rs"]
            .iter()
            .any(|name| file.ends_with(name));
        let parts = if is_folder {
            file.parent().unwrap().to_owned()
        } else {
            file.with_extension("")
        };
        takes.retain(|from, _| !from.starts_with(&parts));
    }
    arrows
}

/// Files that reach each other, in groups of two and more.
pub fn circles(arrows: &Arrows) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&PathBuf> = arrows
            .get(from)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .collect();
        while let Some(next) = open.pop() {
            if seen.insert(next.clone()) {
                open.extend(arrows.get(next).into_iter().flat_map(BTreeMap::keys));
            }
        }
        seen
    };
    let all: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        arrows.keys().map(|file| (file, reached(file))).collect();
    let mut found = BTreeSet::new();
    for (file, reaches) in &all {
        if reaches.contains(*file) {
            let group: BTreeSet<PathBuf> = reaches
                .iter()
                .filter(|other| all.get(other).is_some_and(|back| back.contains(*file)))
                .cloned()
                .collect();
            found.insert(group);
        }
    }
    found.into_iter().collect()
}

fn read(modules: &mut Vec<Module>, id: usize, file: &Path, dir: &Path, base: &Path) {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let stream: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    modules[id].file = file.strip_prefix(base).unwrap().to_owned();
    let mut tokens = Vec::new();
    let mut children = Vec::new();
    flatten(stream, &mut tokens, &mut children);
    take_apart(&tokens, &mut modules[id]);
    for (name, path) in children {
        let child = modules.len();
        modules.push(Module {
            parent: Some(id),
            ..Module::default()
        });
        modules[id].children.insert(name.clone(), child);
        let (flat, deep) = (
            dir.join(format!("{name}.rs")),
            dir.join(&name).join("mod.rs"),
        );
        let file = match path {
            Some(path) => file.parent().unwrap().join(path),
            None if flat.exists() => flat,
            None => deep,
        };
        read(modules, child, &file, &dir.join(&name), base);
    }
}

/// Tokens without attributes and without what is for tests; and the modules that have files of their own.
fn flatten(
    stream: TokenStream,
    tokens: &mut Vec<Token>,
    children: &mut Vec<(String, Option<String>)>,
) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    let mut path = None;
    let mut skip = false;
    while let Some(tree) = trees.get(at) {
        at += 1;
        match tree {
            TokenTree::Punct(sign) if sign.as_char() == '#' => {
                if matches!(trees.get(at), Some(TokenTree::Punct(bang)) if bang.as_char() == '!') {
                    at += 1;
                }
                if let Some(TokenTree::Group(attribute)) = trees.get(at) {
                    let words = attribute.stream().to_string().replace(' ', "");
                    skip |= words == "cfg(test)" || words == "test";
                    if let Some(quoted) = words.strip_prefix("path=") {
                        path = Some(quoted.trim_matches('"').to_owned());
                    }
                    at += 1;
                }
                continue;
            }
            // The item behind the attribute: up to its body or its semicolon.
            _ if skip => {
                let ends = match tree {
                    TokenTree::Group(body) => body.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(sign) => sign.as_char() == ';',
                    _ => false,
                };
                skip = !ends;
                path = None;
                continue;
            }
            TokenTree::Ident(word) if *word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(end))) =
                    (trees.get(at), trees.get(at + 1))
                    && end.as_char() == ';'
                {
                    children.push((name.to_string(), path.take()));
                    at += 2;
                    continue;
                }
                tokens.push(Token::Word(word.to_string()));
            }
            TokenTree::Ident(word) => tokens.push(Token::Word(word.to_string())),
            TokenTree::Punct(sign) if sign.as_char() == ':' => {
                if matches!(trees.get(at), Some(TokenTree::Punct(second)) if second.as_char() == ':')
                {
                    at += 1;
                    tokens.push(Token::Of);
                } else {
                    tokens.push(Token::Sign(':'));
                }
            }
            TokenTree::Punct(sign) => tokens.push(Token::Sign(sign.as_char())),
            TokenTree::Group(group) => {
                tokens.push(Token::Open);
                flatten(group.stream(), tokens, children);
                tokens.push(Token::Close);
            }
            TokenTree::Literal(_) => tokens.push(Token::Sign('0')),
        }
        path = None;
    }
}

fn take_apart(tokens: &[Token], module: &mut Module) {
    let mut at = 0;
    let mut function = String::new();
    while let Some(token) = tokens.get(at) {
        let Token::Word(word) = token else {
            at += 1;
            continue;
        };
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        if word == "use"
            && matches!(tokens.get(at + 1), Some(Token::Word(_) | Token::Of))
            && before != Some(&Token::Sign('+'))
        {
            let handed_on = is_public(&tokens[..at]);
            at = use_tree(tokens, at + 1, &[], handed_on, &mut module.imports);
            continue;
        }
        if [
            "struct",
            "enum",
            "fn",
            "const",
            "static",
            "trait",
            "type",
            "union",
            "macro_rules",
        ]
        .contains(&word.as_str())
        {
            let name = tokens[at + 1..].iter().find_map(|token| match token {
                Token::Word(name)
                    if !["mut", "unsafe", "extern", "async", "fn"].contains(&name.as_str()) =>
                {
                    Some(name)
                }
                _ => None,
            });
            if word == "fn" {
                function = name.cloned().unwrap_or_default();
            }
            module.defined.extend(name.cloned());
        }
        let mut path = vec![word.clone()];
        let start = before != Some(&Token::Of) && before != Some(&Token::Sign('.'));
        at += 1;
        while tokens.get(at) == Some(&Token::Of)
            && let Some(Token::Word(next)) = tokens.get(at + 1)
        {
            path.push(next.clone());
            at += 2;
        }
        // `Result<`, `std::result::Result<` or `Result::<`.
        let of = at + usize::from(tokens.get(at) == Some(&Token::Of));
        if path.last().is_some_and(|last| last == "Result")
            && tokens.get(of) == Some(&Token::Sign('<'))
            && has_text_for_an_error(&tokens[of + 1..])
        {
            module.textual.insert(function.clone());
        }
        *module.words.entry(path[0].clone()).or_default() += 1;
        if start && path.len() > 1 {
            module.paths.push(path);
        }
    }
}

/// Does `pub`, or `pub(...)`, stand at the end?
fn is_public(before: &[Token]) -> bool {
    match before {
        [.., Token::Word(word)] => word == "pub",
        [
            ..,
            Token::Word(word),
            Token::Open,
            Token::Word(_),
            Token::Close,
        ] => word == "pub",
        _ => false,
    }
}

/// Is the second of the arguments of a `Result` a `String`?
fn has_text_for_an_error(arguments: &[Token]) -> bool {
    let (mut depth, mut angles) = (0, 1);
    let mut ends = Vec::new();
    for (at, token) in arguments.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::Sign('<') => angles += 1,
            Token::Sign('>') if at == 0 || arguments[at - 1] != Token::Sign('-') => angles -= 1,
            Token::Sign(',') if depth == 0 && angles == 1 => ends.push(at),
            _ => {}
        }
        if angles == 0 {
            ends.push(at);
            break;
        }
    }
    match ends.as_slice() {
        [first, second, ..] => arguments[first + 1..*second] == [Token::Word("String".to_owned())],
        _ => false,
    }
}

/// Reads `a::{b, c as d}` from `at` on; returns where it ends.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    handed_on: bool,
    into: &mut Vec<Import>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at) {
            Some(Token::Of) => at += 1,
            Some(Token::Word(word)) if word == "as" => {
                if let Some(Token::Word(name)) = tokens.get(at + 1) {
                    let name = name.clone();
                    into.push(Import {
                        path,
                        name,
                        handed_on,
                    });
                }
                return at + 2;
            }
            Some(Token::Word(word)) => {
                // `self` in braces is what stands before them.
                if word != "self" || path.is_empty() {
                    path.push(word.clone());
                }
                at += 1;
            }
            Some(Token::Sign('*')) => {
                path.push("*".to_owned());
                at += 1;
            }
            Some(Token::Open) => {
                at += 1;
                while !matches!(tokens.get(at), None | Some(Token::Close)) {
                    if tokens.get(at) == Some(&Token::Sign(',')) {
                        at += 1;
                    } else {
                        at = use_tree(tokens, at, &path, handed_on, into);
                    }
                }
                return at + 1;
            }
            _ => {
                if let Some(name) = path.last().cloned() {
                    into.push(Import {
                        path,
                        name,
                        handed_on,
                    });
                }
                return at;
            }
        }
    }
}
