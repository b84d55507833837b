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

/// Finds the sign after the name and where the value begins.
pub(super) fn operator(text: &[u8], name: &Range<usize>) -> Option<(usize, Operator)> {
    let limit = text.len().min(name.end + 96);
    let mut i = name.end;
    let peek = |i: usize| if i < limit { text[i] } else { 0 };
    // Closing quotes and brackets of the name, with their backslashes: "name", ['name'], \"name\".
    let mut closers = 0;
    while closers < 4 && matches!(peek(i), b'"' | b'\'' | b'`' | b']' | b'\\') {
        i += 1;
        closers += 1;
    }
    // password[32] = "..."
    if peek(i) == b'[' {
        let digits = text[i + 1..limit]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if peek(i + 1 + digits) == b']' {
            i += digits + 2;
        }
    }
    if peek(i) == b'>' && closers == 0 {
        let open = name.start.checked_sub(1).map(|i| text[i]);
        if matches!(open, Some(b'<' | b':')) {
            return Some((i + 1, Operator::Tag));
        }
    }
    // <entry key="name">value</entry>
    if peek(i) == b'>' && closers == 1 && named_element(&text[..name.start]) {
        return Some((i + 1, Operator::Tag));
    }
    let spaces = skip_space(text, i, limit);
    let spaced = spaces > i;
    i = spaces;
    // name="x" value="..."
    if closers > 0
        && spaced
        && text[i..limit].len() > 6
        && text[i..i + 5].eq_ignore_ascii_case(b"value")
    {
        i = skip_space(text, i + 5, limit);
    }
    // variable "name" { ... default = "value"
    if closers == 1
        && peek(i) == b'{'
        && let Some(after) = block_default(text, name, i)
    {
        return Some((after, Operator::Assign));
    }
    // <key>name</key> and <string>value</string> on the next line: property lists.
    if closers == 0
        && let Some(after) = list_field(text, name, limit)
    {
        return Some((after, Operator::Tag));
    }
    // SetEnvironmentVariable('NAME', 'value', 'User')
    if closers == 1 && peek(i) == b',' && sets_variable(text, name) {
        return Some((i + 1, Operator::Assign));
    }
    // `ENV NAME value`; with quotes alone where a bare word is a name: `#define NAME "value"`.
    if closers == 0
        && spaced
        && !matches!(peek(i), b'=' | b':')
        && let Some(bare) = command(text, name.start)
    {
        // @"value" of Objective-C
        let i = i + usize::from(peek(i) == b'@' && peek(i + 1) == b'"');
        return match peek(i) {
            // What is defined under a name that only says key is as likely the name of something.
            b'"' | b'\'' if !bare => Some((i, Operator::Argument)),
            _ => bare.then_some((i, Operator::Word)),
        };
    }
    // `name: X` and `value: ...` on the next line, `"name": "X", "value": "..."`: lists of variables.
    if let Some(after) = value_field(text, name, i, limit).or_else(|| value_before(text, name, i)) {
        return Some((after, Operator::Assign));
    }
    // ('--name', default='value')
    if closers == 1
        && peek(i) == b','
        && text[name.clone()].starts_with(b"--")
        && let Some(after) = option_default(&text[i..limit])
    {
        return Some((i + after, Operator::Assign));
    }
    match peek(i) {
        b'=' => {
            if peek(i + 1) == b'>' {
                return Some((i + 2, Operator::Assign));
            }
            if peek(i + 1) == b'=' {
                return Some((
                    i + if peek(i + 2) == b'=' { 3 } else { 2 },
                    Operator::Compare,
                ));
            }
            Some((i + 1, Operator::Assign))
        }
        b'!' if peek(i + 1) == b'=' => Some((
            i + if peek(i + 2) == b'=' { 3 } else { 2 },
            Operator::Compare,
        )),
        b':' => {
            if matches!(peek(i + 1), b'=') {
                return Some((i + 2, Operator::Assign));
            }
            if peek(i + 1) == b':' {
                return None;
            }
            // ${NAME:-value}
            if peek(i + 1) == b'-' && closers == 0 && text[..name.start].ends_with(b"${") {
                return Some((i + 2, Operator::Word));
            }
            Some((after_type(text, i + 1, limit), Operator::Colon))
        }
        b'-' if peek(i + 1) == b'>' => None,
        sign @ (b'|' | b'?') if peek(i + 1) == sign || sign == b'|' && peek(i + 1) == b'=' => {
            // `||=` and `??=` assign.
            let assigns = peek(i + 1) == sign && peek(i + 2) == b'=';
            Some((i + 2 + usize::from(assigns), Operator::Assign))
        }
        // ("NAME", "value"): the first of exactly two; a list of words goes on.
        b',' if closers > 0 => Some((
            i + 1,
            if text[name.clone()].starts_with(b"--") {
                Operator::FlagItem
            } else if opens_pair(text, name) {
                Operator::Pair
            } else {
                Operator::List
            },
        )),
        // std::string password{"value"};
        b'{' if closers == 0 && !spaced && peek(i + 1) == b'"' => Some((i + 1, Operator::Argument)),
        // setPassword("value"); a macro in capitals takes names of things.
        b'(' if text[name.clone()].iter().any(u8::is_ascii_lowercase)
            // `test.pass("...")` says that something passed.
            && !text[name.clone()].ends_with(b".pass") =>
        {
            Some((i + 1, Operator::Argument))
        }
        // `password 'value'` stands on a line of its own, or is SQL.
        b'"' | b'\''
            if spaced
                && closers == 0
                && (at_line_start(text, name.start)
                    || keyword(&text[name.clone()])
                    || parameter(&text[name.clone()])
                    || defined(text, name)) =>
        {
            Some((i, Operator::Argument))
        }
        // One blank: more of them set the columns of a help text.
        _ if i == name.end + 1
            && closers == 0
            && (text[name.start..].starts_with(b"--") || parameter(&text[name.clone()])) =>
        {
            Some((i, Operator::Flag))
        }
        // `password value` and nothing else on the line: mail clients, brokers.
        _ if spaced && closers == 0 && alone(text, name, i) => Some((i, Operator::Flag)),
        b'i' if spaced && peek(i + 1) == b's' && peek(i + 2) == b' ' => {
            Some((i + 3, Operator::Prose))
        }
        // Typed declarations: `password string = "..."`, `api_key text := '...'`.
        b if spaced && b.is_ascii_alphabetic() => {
            let word = text[i..limit]
                .iter()
                .take(16)
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
            let j = skip_space(text, i + word, limit);
            const TYPES: &[&[u8]] = &[
                b"string",
                b"str",
                b"text",
                b"varchar",
                b"String",
                b"NSString",
                b"const",
            ];
            let after = if peek(j) == b':' { j + 1 } else { j };
            (TYPES.contains(&&text[i..i + word]) && peek(after) == b'=')
                .then_some((after + 1, Operator::Assign))
        }
        _ => None,
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
        b"#define" | b"# define" => Some(false),
        _ => None,
    }
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
