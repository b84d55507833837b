//! `name = value` in any notation: shell, INI, YAML, JSON, TOML, XML, properties, source code, command lines.

use super::name::{self, NameClass};
use super::value::{self, Written};
use std::ops::Range;

/// A secret-sounding name with a value that looks like a secret.
#[derive(Debug, PartialEq)]
pub struct Assignment {
    pub name: Range<usize>,
    pub value: Range<usize>,
    pub class: NameClass,
    pub confidence: f64,
}

const MAX_SPACE: usize = 48;
const MAX_VALUE: usize = 4096;
/// Longest bare value: what is longer has a form of its own, and is found by that.
const MAX_BARE: usize = 600;

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$')
}

/// The name around a word that was seen.
pub fn name_around(text: &[u8], word: &Range<usize>) -> Range<usize> {
    let before = text[..word.start]
        .iter()
        .rev()
        .take(64)
        .take_while(|b| name_byte(**b))
        .count();
    let after = text[word.end..]
        .iter()
        .take(48)
        .take_while(|b| name_byte(**b))
        .count();
    let mut start = word.start - before;
    // An escape (\n, \t) before the name belongs to the text around it.
    if start > 0
        && text[start - 1] == b'\\'
        && before > 0
        && matches!(text[start], b'n' | b't' | b'r')
    {
        start += 1;
    }
    start..word.end + after
}

/// What bare values are in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// A configuration file: literals.
    Config,
    /// Source code: names of things.
    Source,
    /// Unknown: what notation and place suggest.
    Other,
}

/// Reads the assignment to the name.
pub fn read(text: &[u8], name: Range<usize>, kind: TextKind) -> Option<Assignment> {
    let class = name::classify(
        text[name.clone()]
            .trim_ascii_start()
            .strip_prefix(b"--")
            .unwrap_or(&text[name.clone()]),
    )?;
    let (at, operator) = operator(text, &name)?;
    let (range, written) = literal(text, at, operator, &name, kind)?;
    // '"value"': quotes within quotes belong to the notation.
    let range = match &text[range.clone()] {
        [a @ (b'"' | b'\''), .., b] if a == b && range.len() > 2 => range.start + 1..range.end - 1,
        _ => range,
    };
    // What a call takes under a name that only says key is mostly a name itself.
    if class == NameClass::Key && operator == Operator::Argument {
        return None;
    }
    let confidence = value::judge(class, &text[name.clone()], &text[range.clone()], written)?;
    Some(Assignment {
        name,
        value: range,
        class,
        confidence,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
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
    /// `the password is "..."`
    Prose,
}

/// Finds the sign after the name and where the value begins.
fn operator(text: &[u8], name: &Range<usize>) -> Option<(usize, Operator)> {
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
    // `name: X` and `value: ...` on the next line, `"name": "X", "value": "..."`: lists of variables.
    if let Some(after) = value_field(text, name, i, limit) {
        return Some((after, Operator::Assign));
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
            Some((after_type(text, i + 1, limit), Operator::Colon))
        }
        b'-' if peek(i + 1) == b'>' => None,
        b'|' if peek(i + 1) == b'|' || peek(i + 1) == b'=' => Some((i + 2, Operator::Assign)),
        b'?' if peek(i + 1) == b'?' => Some((i + 2, Operator::Assign)),
        // ("NAME", "value"): the first of exactly two; a list of words goes on.
        b',' if closers > 0 => Some((
            i + 1,
            if opens_pair(text, name) {
                Operator::Pair
            } else {
                Operator::List
            },
        )),
        // setPassword("value"); a macro in capitals takes names of things.
        b'(' if text[name.clone()].iter().any(u8::is_ascii_lowercase) => {
            Some((i + 1, Operator::Argument))
        }
        // `password 'value'` stands on a line of its own, or is SQL.
        b'"' | b'\''
            if spaced
                && closers == 0
                && (at_line_start(text, name.start) || keyword(&text[name.clone()])) =>
        {
            Some((i, Operator::Argument))
        }
        // One blank: more of them set the columns of a help text.
        _ if i == name.end + 1 && closers == 0 && text[name.start..].starts_with(b"--") => {
            Some((i, Operator::Flag))
        }
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
    if rest.len() < 7 || !rest[..5].eq_ignore_ascii_case(b"value") {
        return None;
    }
    let mut i = i + 5;
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

fn skip_space(text: &[u8], from: usize, limit: usize) -> usize {
    from + text[from.min(limit)..limit]
        .iter()
        .take(MAX_SPACE)
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count()
}

/// Reads the literal at `at`.
fn literal(
    text: &[u8],
    at: usize,
    operator: Operator,
    name: &Range<usize>,
    kind: TextKind,
) -> Option<(Range<usize>, Written)> {
    let config = kind == TextKind::Config;
    let limit = text.len().min(at + MAX_VALUE);
    let mut i = skip_space(text, at.min(limit), limit);
    if operator == Operator::Tag {
        let end = i + text[i..limit]
            .iter()
            .position(|b| matches!(b, b'<' | b'\n'))?;
        return (text.get(end) == Some(&b'<') && end > i).then_some((i..end, Written::Quoted));
    }
    // A literal on the next line after `=` or `:` in code.
    if matches!(text.get(i), Some(b'\n' | b'\r'))
        && matches!(
            operator,
            Operator::Assign | Operator::Colon | Operator::Argument | Operator::Pair
        )
    {
        let j = i + text[i..limit]
            .iter()
            .take(64)
            .take_while(|b| b.is_ascii_whitespace())
            .count();
        if matches!(text.get(j), Some(b'"' | b'\'')) && j > i && !config {
            i = j;
        } else {
            return None;
        }
    }
    // Prefixes of literals: b"", r'', @"", N'', u"", String(" and the like; escaped quotes of a string within a string.
    let mut probe = i;
    if matches!(
        text.get(probe),
        Some(b'b' | b'r' | b'u' | b'B' | b'R' | b'U' | b'N' | b'@' | b'L')
    ) && matches!(text.get(probe + 1), Some(b'"' | b'\''))
    {
        probe += 1;
    }
    // In `"Password: " + x` the quote after the sign closes the string that the name stands in.
    let escapes = text[probe..limit]
        .iter()
        .take(4)
        .take_while(|b| **b == b'\\')
        .count();
    if let Some(&quote @ (b'"' | b'\'' | b'`')) = text.get(probe + escapes) {
        if escapes == 0 && closes_string(text, name, quote) {
            return None;
        }
        let start = probe + escapes + 1;
        // Triple quotes.
        let start = if text[start..limit].starts_with(&[quote, quote]) {
            start + 2
        } else {
            start
        };
        let end = close(text, start, limit, quote, escapes)?;
        if end == start {
            return None;
        }
        if operator == Operator::Pair && !closes_pair(text, end) {
            return None;
        }
        let written = match operator {
            Operator::List => Written::Listed,
            Operator::Compare => Written::Compared,
            _ => Written::Quoted,
        };
        return Some((start..end, written));
    }
    if matches!(
        operator,
        Operator::Argument | Operator::Pair | Operator::List | Operator::Prose
    ) {
        return None;
    }
    // Bare: to white space or a sign that ends values everywhere; `;`, `&` and `,` end them outside configuration files.
    let limit = limit.min(i + MAX_BARE);
    let end = i + text[i..limit]
        .iter()
        .position(|b| {
            b.is_ascii_whitespace()
                || matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\')
                || (!config && matches!(b, b';' | b'&' | b',' | b')' | b'}'))
                || *b < 0x20
        })
        .unwrap_or(limit - i);
    if end - i >= MAX_BARE {
        return None;
    }
    let mut end = end;
    while end > i && matches!(text[end - 1], b',' | b';' | b')' | b'}' | b'.') {
        end -= 1;
    }
    if end <= i {
        return None;
    }
    // The other side of a comparison is a name unless it is quoted.
    if operator == Operator::Compare {
        return None;
    }
    // NAME=value without spaces at the start of a line (or after export, set, -e, ENV, a quote) is a shell or env file.
    let line_start = at_line_start(text, name.start);
    let tight = text.get(name.end) == Some(&b'=') && i == at;
    // A field of a connection string.
    let field = tight
        && name.start > 0
        && text[name.start - 1] == b';'
        && matches!(text.get(end), None | Some(b';' | b'"' | b'\''));
    let yaml =
        operator == Operator::Colon && line_start && i > at && rest_of_line_is_value(text, end);
    let ini = operator == Operator::Assign
        && line_start
        && rest_of_line_is_value(text, end)
        && !text[name.clone()].iter().any(|b| matches!(b, b'$'));
    let literal = config
        || field
        || (tight && (line_start || text[name.clone()].iter().all(|b| !b.is_ascii_lowercase())));
    // A whole line is the value in configuration files; trailing comments are not.
    Some((
        i..end,
        if literal {
            Written::Bare
        } else if operator == Operator::Flag || tight && text[name.start..].starts_with(b"--") {
            Written::Flag
        } else if kind == TextKind::Other && (yaml || ini) {
            Written::Line
        } else {
            Written::Code
        },
    ))
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

/// After the closing quote at `end` the call ends, too.
fn closes_pair(text: &[u8], end: usize) -> bool {
    let rest = &text[end..text.len().min(end + 12)];
    let rest: &[u8] = rest
        .iter()
        .position(|b| !matches!(b, b'"' | b'\'' | b'`' | b'\\') && !b.is_ascii_whitespace())
        .map_or(&[], |n| &rest[n..]);
    matches!(rest.first(), Some(b')' | b'}') | None)
}

/// `PASSWORD` and `IDENTIFIED BY` of SQL, in capitals as manuals of databases write them.
fn keyword(name: &[u8]) -> bool {
    name == b"PASSWORD"
}

/// The name stands inside a string that this quote opened on the same line and that has not been closed yet.
fn closes_string(text: &[u8], name: &Range<usize>, quote: u8) -> bool {
    let before = &text[name.start.saturating_sub(160)..name.start];
    let line = before.rsplit(|b| *b == b'\n').next().unwrap_or(before);
    let mut open = false;
    let mut previous = b' ';
    for (i, &b) in line.iter().enumerate() {
        // An apostrophe within a word is no quote.
        let apostrophe = b == b'\''
            && previous.is_ascii_alphabetic()
            && line.get(i + 1).is_some_and(u8::is_ascii_alphabetic);
        if b == quote && previous != b'\\' && !apostrophe {
            open = !open;
        }
        previous = b;
    }
    let closers = text[name.end..]
        .iter()
        .take(4)
        .take_while(|b| matches!(b, b'"' | b'\'' | b'`' | b']' | b'\\'));
    for b in closers {
        if *b == quote {
            open = !open;
        }
    }
    open
}

fn rest_of_line_is_value(text: &[u8], end: usize) -> bool {
    let rest = &text[end..text.len().min(end + 64)];
    let rest = &rest[..rest
        .iter()
        .position(|b| matches!(b, b'\n'))
        .unwrap_or(rest.len())];
    let rest = rest.trim_ascii();
    rest.is_empty() || rest.starts_with(b"#") || rest == b"\\" || rest == b","
}

/// Only white space, comment signs, a dash of a list or `export` stand before the name on its line.
fn at_line_start(text: &[u8], name: usize) -> bool {
    let line = text[..name]
        .iter()
        .rev()
        .take(40)
        .take_while(|b| !matches!(b, b'\n'))
        .count();
    let before = text[name - line..name].trim_ascii();
    if line == 40 && !before.is_empty() {
        return false;
    }
    before.is_empty()
        || matches!(
            before,
            b"#" | b"//"
                | b"-"
                | b"export"
                | b"set"
                | b"SET"
                | b"ENV"
                | b"-e"
                | b"declare -x"
                | b"local"
                | b"env:"
                | b"$"
                | b"# export"
                | b"\""
                | b"'"
                | b"- \""
                | b"REM SET"
                | b";"
        )
}

/// The closing quote on the same line, skipping escaped ones.
fn close(text: &[u8], start: usize, limit: usize, quote: u8, escapes: usize) -> Option<usize> {
    let mut i = start;
    while i < limit {
        match text[i] {
            b'\n' => return None,
            b'\\' if escapes == 0 => i += 2,
            b if b == quote => {
                if escapes == 0 {
                    return Some(i);
                }
                // \"value\": the closing quote has as many backslashes.
                let n = text[start..i]
                    .iter()
                    .rev()
                    .take_while(|b| **b == b'\\')
                    .count();
                return (n >= escapes).then(|| i - escapes);
            }
            _ => i += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<&str> {
        let lower = text.to_ascii_lowercase();
        let word = ["password", "passwd", "pass", "token", "secret", "key"]
            .iter()
            .find_map(|w| lower.find(w).map(|i| i..i + w.len()))?;
        read(
            text.as_bytes(),
            name_around(text.as_bytes(), &word),
            TextKind::Other,
        )
        .map(|a| &text[a.value])
    }

    #[test]
    fn every_notation() {
        for (text, want) in [
            ("DB_PASSWORD=hunter2x", "hunter2x"),
            ("export DB_PASSWORD='hunter2x'", "hunter2x"),
            ("db.password = hunter2x", "hunter2x"),
            ("  password: hunter2x", "hunter2x"),
            ("\"password\": \"hunter2x\",", "hunter2x"),
            ("{\\\"password\\\": \\\"hunter2x\\\"}", "hunter2x"),
            (":password => 'hunter2x'", "hunter2x"),
            ("password := \"hunter2x\"", "hunter2x"),
            ("String password = \"hunter2x\";", "hunter2x"),
            ("password: str = \"hunter2x\"", "hunter2x"),
            ("var password string = \"hunter2x\"", "hunter2x"),
            ("config[\"password\"] = \"hunter2x\"", "hunter2x"),
            ("define('DB_PASSWORD', 'hunter2x');", "hunter2x"),
            ("setPassword(\"hunter2x\")", "hunter2x"),
            ("<password>hunter2x</password>", "hunter2x"),
            (
                "<add key=\"FromEmailPassword\" value=\"hunter2x\"/>",
                "hunter2x",
            ),
            ("if password == \"hunter2x\":", "hunter2x"),
            (
                "Server=a;User Id=b;Password=hunter2x;Database=c",
                "hunter2x",
            ),
            ("mysql --password=hunter2x", "hunter2x"),
            ("mysql --password hunter2x", "hunter2x"),
            ("the password is \"hunter2x\" and", "hunter2x"),
            ("char password[32] = \"hunter2x\";", "hunter2x"),
            ("password = b\"hunter2x\"", "hunter2x"),
        ] {
            assert_eq!(value(text), Some(want), "{text}");
        }
        for text in [
            "password = getpass()",
            "password: $PASSWORD",
            "if password == other:",
            "def login(self, password=None):",
            "token = self.token",
            "Password:",
            "password = request.form['password']",
            "<password></password>",
            "password_file = /etc/x",
            "tokens.push(key)",
            "std::pass::x",
            "sb.append(\"Password: \" + get() + \",\");",
            "echo 'password = '.$p['x']",
            "label: \"Password:\",next:\"Remember me\"",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
