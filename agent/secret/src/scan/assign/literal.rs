//! The value after the sign, in quotes or bare.

use super::operator::Operator;
use super::{TextKind, at_line_start, skip_space};
use crate::scan::value::{self, Written};
use std::ops::Range;

/// Longest value: what is longer has a form of its own, and is found by that.
pub(super) const MAX_VALUE: usize = 8192;

/// Reads the literal at `at`.
pub(super) fn literal(
    text: &[u8],
    at: usize,
    operator: Operator,
    name: &Range<usize>,
    kind: TextKind,
) -> Option<(Range<usize>, Written)> {
    let config = kind == TextKind::Config;
    let limit = text.len().min(at + MAX_VALUE);
    let i = skip_space(text, at.min(limit), limit);
    if operator == Operator::Tag {
        let end = i + text[i..limit]
            .iter()
            .position(|b| matches!(b, b'<' | b'\n'))?;
        return (text.get(end) == Some(&b'<') && end > i).then_some((i..end, Written::Quoted));
    }
    // `name: |-` and one line that is set in: a block of YAML.
    if operator == Operator::Colon
        && i > at
        && let Some(line) = block(text, name, i, limit)
    {
        return Some((line, Written::Bare));
    }
    let i = if operator == Operator::Colon && i > at {
        i + properties(&text[i..limit])
    } else {
        i
    };
    let i = first_sign(&text[..limit], i, operator, config)?;
    if operator == Operator::Assign
        && !config
        && let Some(inside) = text[i..limit].strip_prefix(b"[[")
        && let Some(length) = memchr::memchr2(b']', b'\n', inside)
        && inside[length..].starts_with(b"]]")
    {
        // [[value]] of Lua
        return (length > 0).then_some((i + 2..i + 2 + length, Written::Quoted));
    }
    let wrapped = matches!(operator, Operator::Assign | Operator::Colon) && !config;
    let i = if wrapped {
        i + wrappers(&text[i..limit])
    } else {
        i
    };
    match quote(&text[..limit], i) {
        Some(quote) => quoted(text, quote, limit, operator, name),
        None => {
            let end = bare(text, i, limit, operator, config)?;
            if operator == Operator::Colon
                && i == at
                && (text[i..end].contains(&b':') || text[..name.start].ends_with(b":"))
            {
                // Fields between colons (`PSK:AES:CBC:128`) are a record.
                return None;
            }
            let written = written_bare(text, at, i..end, (operator, kind), name);
            Some((i..end, written))
        }
    }
}

/// Longest property of a node of YAML that is passed over.
const MAX_PROPERTY: usize = 40;

/// The length of what YAML says of a value before it: an anchor (`&name `) or the tag of a text (`!!str `).
fn properties(text: &[u8]) -> usize {
    if !text.starts_with(b"&") && !text.starts_with(b"!!str ") {
        return 0;
    }
    let word = text
        .iter()
        .skip(1)
        .take(MAX_PROPERTY)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'!'))
        .count();
    match text.get(word + 1..) {
        Some([b' ', b, ..]) if word > 0 && !b.is_ascii_whitespace() => word + 2,
        _ => 0,
    }
}

/// Where the value begins, on another line or in parentheses if the language lets it.
fn first_sign(text: &[u8], i: usize, operator: Operator, config: bool) -> Option<usize> {
    let mut i = i;
    let limit = text.len();
    // name = ("value"), over any number of lines.
    if operator == Operator::Assign && text.get(i) == Some(&b'(') && !config {
        let j = i
            + 1
            + text[i + 1..limit]
                .iter()
                .take(64)
                .take_while(|b| b.is_ascii_whitespace())
                .count();
        if j > i + 1 && matches!(text.get(j), Some(b'"' | b'\'')) {
            i = j;
        }
    }
    // A literal on the next line after `=` or `:` in code.
    if matches!(text.get(i), Some(b'\n' | b'\r'))
        && matches!(
            operator,
            Operator::Assign
                | Operator::Colon
                | Operator::Argument
                | Operator::Pair
                | Operator::FlagItem
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
    Some(i)
}

/// A quote that opens a literal.
struct Quote {
    sign: u8,
    /// Where it stands behind its backslashes, and how many these are.
    at: usize,
    escapes: usize,
}

/// The quote of a literal that begins at `i`, behind what may stand before it.
fn quote(text: &[u8], i: usize) -> Option<Quote> {
    // Prefixes of literals: b"", r'', @"", N'', u""; escaped quotes of a string within a string.
    let mut probe = i;
    if matches!(
        text.get(probe),
        Some(b'b' | b'r' | b'u' | b'B' | b'R' | b'U' | b'N' | b'@' | b'L')
    ) && matches!(text.get(probe + 1), Some(b'"' | b'\''))
    {
        probe += 1;
    }
    // In `"Password: " + x` the quote after the sign closes the string that the name stands in.
    let escapes = text[probe..]
        .iter()
        .take(4)
        .take_while(|b| **b == b'\\')
        .count();
    let at = probe + escapes;
    match text.get(at) {
        Some(&sign @ (b'"' | b'\'' | b'`')) => Some(Quote { sign, at, escapes }),
        _ => None,
    }
}

/// The value behind an opening quote.
fn quoted(
    text: &[u8],
    quote: Quote,
    limit: usize,
    operator: Operator,
    name: &Range<usize>,
) -> Option<(Range<usize>, Written)> {
    let Quote { sign, at, escapes } = quote;
    // In `"Password: " + x` the quote after the sign closes the string that the name stands in.
    if escapes == 0 && closes_string(text, name, sign) {
        return None;
    }
    let start = at + 1;
    // Triple quotes.
    let start = if text[start..limit].starts_with(&[sign, sign]) {
        start + 2
    } else {
        start
    };
    let end = close(text, start, limit, sign, escapes)?;
    if end == start {
        return None;
    }
    if operator == Operator::Pair && !closes_pair(text, end) {
        return None;
    }
    // NAME=`command with words`
    if sign == b'`' && text[start..end].contains(&b' ') && text[..at].ends_with(b"=") {
        return None;
    }
    let written = match operator {
        Operator::List => Written::Listed,
        Operator::Compare => Written::Compared,
        // Programs take names of things there, too.
        Operator::FlagItem => Written::Flag,
        _ => Written::Quoted,
    };
    Some((start..end, written))
}

/// The end of a bare value that begins at `i`; `None` where none may stand.
fn bare(text: &[u8], i: usize, limit: usize, operator: Operator, config: bool) -> Option<usize> {
    if matches!(
        operator,
        Operator::Argument | Operator::Pair | Operator::List | Operator::FlagItem | Operator::Prose
    ) {
        return None;
    }
    // `ENV NAME $OTHER`, `-Password $other`
    if matches!(operator, Operator::Word | Operator::Flag) && text.get(i) == Some(&b'$') {
        return None;
    }
    // Blanks belong to it.
    let app = text.get(i..i + value::APP_PASSWORD);
    if app.is_some_and(value::app_password)
        && text
            .get(i + value::APP_PASSWORD)
            .is_none_or(|b| matches!(b, b'\n' | b'\r' | b'"' | b'\''))
    {
        return Some(i + value::APP_PASSWORD);
    }
    // Bare: to white space or a sign that ends values everywhere; `;`, `&` and `,` end them outside configuration files.
    let end = i + text[i..limit]
        .iter()
        .position(|b| {
            b.is_ascii_whitespace()
                || matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\')
                || (!config && matches!(b, b';' | b'&' | b',' | b')' | b'}'))
                || *b < 0x20
        })
        .unwrap_or(limit - i);
    // Cut at the bound: not the value.
    if end == limit && limit < text.len() {
        return None;
    }
    // Dots that stand for the rest, or end a password.
    if text[i..end].ends_with(b"...") && operator != Operator::Compare {
        return (end > i + 3).then_some(end);
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
    Some(end)
}

/// How far a bare value is one by how it is written.
fn written_bare(
    text: &[u8],
    at: usize,
    value: Range<usize>,
    (operator, kind): (Operator, TextKind),
    name: &Range<usize>,
) -> Written {
    let Range { start: i, end } = value;
    let config = kind == TextKind::Config;
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
        || tight && set_by_flag(&text[..name.start])
        || operator == Operator::Word
        || operator == Operator::Colon && header(&text[..name.start])
        || (tight && (line_start || text[name.clone()].iter().all(|b| !b.is_ascii_lowercase())));
    // A whole line is the value in configuration files; trailing comments are not.
    if literal {
        Written::Bare
    } else if operator == Operator::Flag || tight && text[name.start..].starts_with(b"--") {
        Written::Flag
    } else if kind == TextKind::Other && (yaml || ini) {
        Written::Line
    } else {
        Written::Code
    }
}

/// The name is that of a value that Helm's `--set` gives, or one after it: `--set a=b,auth.password=...`.
fn set_by_flag(before: &[u8]) -> bool {
    let before = &before[before.len().saturating_sub(160)..];
    let words = before.rsplit(u8::is_ascii_whitespace);
    let mut words = words.map(|word| word.strip_prefix(b"\"").unwrap_or(word));
    let chain = words.next().unwrap_or_default();
    let flag = match chain.strip_prefix(b"--set=") {
        Some(_) => &b"--set"[..],
        None => words.next().unwrap_or_default(),
    };
    (chain.is_empty() || chain.ends_with(b",") || matches!(chain, b"'" | b"--set=" | b"--set='"))
        && matches!(flag, b"--set" | b"--set-string" | b"--set-literal")
}

/// The name stands in a header that a program is told to send: `curl -H "Name: value"`.
fn header(before: &[u8]) -> bool {
    let Some((b'"' | b'\'', before)) = before.split_last() else {
        return false;
    };
    [&b"-H "[..], b"-H", b"--header ", b"--header="]
        .iter()
        .any(|flag| before.ends_with(flag))
}

/// Calls that only wrap a literal: `String::from("value")`, `Field(default="value")`. Their length, when a quote follows.
fn wrappers(text: &[u8]) -> usize {
    const CALLS: &[&[u8]] = &[
        b"String::from(",
        b"Some(",
        b"Field(",
        b"SecretStr(",
        b"Secret::new(",
        b"SecretString::new(",
        b"SecretString::from(",
        b"SecureString(",
        b"new String(",
        b"String(",
        b"default=",
    ];
    let mut at = 0;
    for _ in 0..4 {
        let Some(call) = CALLS.iter().find(|call| text[at..].starts_with(call)) else {
            break;
        };
        at += call.len();
    }
    if matches!(text.get(at), Some(b'"' | b'\'')) {
        at
    } else {
        0
    }
}

/// The only line of a block that begins at `at` with `|` or `>`.
fn block(text: &[u8], name: &Range<usize>, at: usize, limit: usize) -> Option<Range<usize>> {
    if !matches!(text.get(at), Some(b'|' | b'>')) {
        return None;
    }
    let mut lines = text[at + 1..limit].split_inclusive(|b| *b == b'\n');
    let head = lines.next()?;
    if head.last() != Some(&b'\n')
        || !head
            .trim_ascii()
            .iter()
            .all(|b| matches!(b, b'-' | b'+' | b'1'..=b'9'))
    {
        return None;
    }
    let line = lines.next()?;
    let indent = line.len() - line.trim_ascii_start().len();
    let outer = text[..name.start]
        .iter()
        .rev()
        .take(64)
        .take_while(|b| **b == b' ')
        .count();
    let next = lines.next().unwrap_or_default();
    let deep = next.iter().take_while(|b| **b == b' ').count() >= indent;
    let value = line.trim_ascii();
    // More lines are a document of their own.
    if indent <= outer || value.is_empty() || deep && !next.trim_ascii().is_empty() {
        return None;
    }
    let start = at + 1 + head.len() + indent;
    (value.len() < MAX_VALUE).then(|| start..start + value.len())
}

/// What a template gives where nobody says otherwise: `{{ x | default('value') }}` of Jinja, `{{ .x | default "value" }}` of Helm.
pub(super) fn default(text: &[u8], value: &Range<usize>) -> Option<Range<usize>> {
    if !text[value.clone()].starts_with(b"{{") {
        return None;
    }
    let line = &text[value.start..text.len().min(value.start + MAX_TEMPLATE)];
    let line = &line[..memchr::memmem::find(line, b"}}")?];
    let word = memchr::memmem::find(line, b"default")? + b"default".len();
    let sign = word
        + line[word..]
            .iter()
            .take_while(|b| matches!(b, b'(' | b' '))
            .count();
    let quote = *line.get(sign).filter(|b| matches!(b, b'"' | b'\''))?;
    let length = memchr::memchr(quote, &line[sign + 1..])?;
    let start = value.start + sign + 1;
    (length > 0).then_some(start..start + length)
}

/// Longest expression of a template in which a default is looked for.
const MAX_TEMPLATE: usize = 256;

/// After the closing quote at `end` the call ends, too.
fn closes_pair(text: &[u8], end: usize) -> bool {
    let rest = &text[end..text.len().min(end + 12)];
    let rest: &[u8] = rest
        .iter()
        .position(|b| !matches!(b, b'"' | b'\'' | b'`' | b'\\') && !b.is_ascii_whitespace())
        .map_or(&[], |n| &rest[n..]);
    matches!(rest.first(), Some(b')' | b'}') | None)
}

/// The name stands inside a string that begins on its line.
pub(super) fn in_string(text: &[u8], name: &Range<usize>) -> bool {
    [b'"', b'\'', b'`']
        .into_iter()
        .any(|quote| closes_string(text, name, quote))
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

/// The closing quote on the same line, skipping escaped ones.
fn close(text: &[u8], start: usize, limit: usize, quote: u8, escapes: usize) -> Option<usize> {
    let mut i = start;
    while let Some(n) = text
        .get(i..limit)
        .and_then(|rest| memchr::memchr3(quote, b'\\', b'\n', rest))
    {
        i += n;
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
