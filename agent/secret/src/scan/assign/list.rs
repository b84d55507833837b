//! Several values under one name: `KEYS=a,b`, `"keys": ["a", "b"]`, and the list of YAML.

use super::operator::{Operator, operator};
use super::{Assignment, skip_space};
use crate::scan::name;
use crate::scan::value::{self, Written};
use std::ops::Range;

/// Values of one list that are inspected, and bytes of it.
const MAX_VALUES: usize = 64;
const MAX_LIST: usize = 4096;

/// What reading a list costs, in bytes inspected.
pub const COST: usize = MAX_LIST;

/// The first value of a list ends within so many bytes.
const HEAD: usize = 128;

/// Whether a list may follow the name: cheaper than reading it.
pub fn may_follow(text: &[u8], name_end: usize) -> bool {
    let head = &text[name_end..text.len().min(name_end + HEAD)];
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    memchr::memchr2(b'[', b',', &head[..line]).is_some()
        || head[line..].trim_ascii_start().starts_with(b"- ")
}

/// Reads the values in a list under the name: only what can be no word is one.
pub fn read(text: &[u8], name: &Range<usize>) -> Vec<Assignment> {
    let Some((at, operator)) = operator(text, name) else {
        return Vec::new();
    };
    // A value that stands before its name is the one of its field.
    if !matches!(operator, Operator::Assign | Operator::Colon) || at < name.end {
        return Vec::new();
    }
    let label = &text[name.clone()];
    let Some(class) = name::classify(label) else {
        return Vec::new();
    };
    let limit = text.len().min(at + MAX_LIST);
    let start = skip_space(text, at.min(limit), limit);
    let text = &text[..limit];
    let (values, all) = match text.get(start) {
        Some(b'[') => (bracketed(text, start + 1), false),
        Some(b'\n' | b'\r') if operator == Operator::Colon => (dashed(text, start), false),
        _ => (between_commas(text, start), true),
    };
    let judged: Vec<Option<f64>> = values
        .iter()
        .map(|span| value::judge(class, label, &text[span.clone()], Written::Listed))
        .collect();
    // Commas are in prose and in records as well.
    if all && (values.len() < 2 || judged.iter().any(Option::is_none)) {
        return Vec::new();
    }
    values
        .into_iter()
        .zip(judged)
        .filter_map(|(value, confidence)| {
            Some(Assignment {
                name: name.clone(),
                value,
                class,
                confidence: confidence?,
            })
        })
        .collect()
}

/// One value from `at` on, in quotes or bare, and where it ends with its quotes.
fn item(text: &[u8], at: usize, ends: &[u8]) -> Option<(Range<usize>, usize)> {
    let rest = &text[at..];
    if let [quote @ (b'"' | b'\''), inside @ ..] = rest {
        let length = inside.iter().position(|b| b == quote || *b == b'\n')?;
        return (inside[length] == *quote).then_some((at + 1..at + 1 + length, at + length + 2));
    }
    let length = rest
        .iter()
        .position(|b| b.is_ascii_whitespace() || ends.contains(b))
        .unwrap_or(rest.len());
    (length > 0).then_some((at..at + length, at + length))
}

fn blanks(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.len() - rest.trim_ascii_start().len()
}

/// `"a", "b"]`, over any number of lines.
fn bracketed(text: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut values = Vec::new();
    let mut at = blanks(text, from);
    while values.len() < MAX_VALUES
        && let Some((value, end)) = text.get(at).and_then(|_| item(text, at, b",]"))
    {
        values.push(value);
        at = blanks(text, end);
        if text.get(at) != Some(&b',') {
            break;
        }
        at = blanks(text, at + 1);
    }
    values
}

/// `- a` on lines of their own.
fn dashed(text: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut values = Vec::new();
    let mut at = blanks(text, from);
    while values.len() < MAX_VALUES
        && text.get(at..).is_some_and(|rest| rest.starts_with(b"- "))
        && let Some((value, end)) = item(text, blanks(text, at + 2), b"#")
    {
        values.push(value);
        let rest = &text[end..];
        let line = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        at = blanks(text, end + line);
    }
    values
}

/// `a,b` as one word, or between quotes.
fn between_commas(text: &[u8], from: usize) -> Vec<Range<usize>> {
    let Some((whole, _)) = text.get(from).and_then(|_| item(text, from, b";")) else {
        return Vec::new();
    };
    let mut values = Vec::new();
    let mut at = whole.start;
    for part in text[whole].split(|b| *b == b',').take(MAX_VALUES) {
        let blank = part.len() - part.trim_ascii_start().len();
        let start = at + blank;
        values.push(start..start + part.trim_ascii().len());
        at += part.len() + 1;
    }
    // One at the end is a habit.
    values.retain(|value| !value.is_empty());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: &str) -> Vec<String> {
        let at = text.find(name).unwrap();
        let name = at..at + name.len();
        assert!(may_follow(text.as_bytes(), name.end), "{text}");
        read(text.as_bytes(), &name)
            .into_iter()
            .map(|found| text[found.value].to_owned())
            .collect()
    }

    #[test]
    fn values_of_lists_in_every_notation() {
        let (a, b) = ("k7Qw2mVx9sLd4RtY8pBn3Zc6", "Hj5Gf1Xe0Ua7Ko2Wi9Mq4Ts8");
        for text in [
            format!("API_KEYS={a},{b}\n"),
            format!("API_KEYS=\"{a}, {b}\"\n"),
            format!("API_KEYS='{a},{b},'\n"),
            format!("{{\"API_KEYS\": [\"{a}\", \"{b}\"]}}"),
            format!("{{\"API_KEYS\":[\n  \"{a}\",\n  \"{b}\"\n]}}"),
            format!("API_KEYS = ['{a}', '{b}']"),
            format!("API_KEYS: [{a}, {b}]\n"),
            format!("API_KEYS:\n  - {a}\n  - \"{b}\"\nname: x\n"),
            format!("API_KEYS:\r\n- {a} # the old one\r\n- {b}\r\n"),
        ] {
            assert_eq!(of(&text, "API_KEYS"), [a, b], "{text}");
        }
    }

    #[test]
    fn a_value_before_its_name_is_no_list() {
        for blanks in [1, 90, 4_085, 4_200, 8_000] {
            let text = format!(
                "[{{\"value\":\"{}\",\"name\":\"API_KEYS\"}},{{}}]",
                "x,".repeat(blanks / 2)
            );
            let at = text.find("API_KEYS").unwrap();
            assert!(read(text.as_bytes(), &(at..at + 8)).is_empty(), "{blanks}");
            let text = format!(
                "[{{\"value\":\"x\"{},\"name\":\"API_KEYS\"}},{{}}]",
                " ".repeat(blanks)
            );
            let at = text.find("API_KEYS").unwrap();
            assert!(read(text.as_bytes(), &(at..at + 8)).is_empty(), "{blanks}");
        }
    }

    #[test]
    fn words_are_no_values() {
        let a = "k7Qw2mVx9sLd4RtY8pBn3Zc6";
        for text in [
            "API_KEYS=one,two,three\n".to_owned(),
            format!("API_KEYS={a},name\n"),
            "API_KEYS: [\"user_id\", \"created_at\"]\n".to_owned(),
            "API_KEYS:\n  - production\n  - staging\n".to_owned(),
            format!("API_KEYS({a}, {a})\n"),
            format!("NAMES={a},{a}\n"),
            "API_KEYS=[".to_owned(),
            "API_KEYS=[\"".to_owned(),
            "API_KEYS=,\n".to_owned(),
        ] {
            let name = if text.starts_with("NAMES") {
                "NAMES"
            } else {
                "API_KEYS"
            };
            assert_eq!(of(&text, name), Vec::<String>::new(), "{text}");
        }
    }
}
