//! One pass over a text decides which rules are tried, and where.

pub mod assign;
pub mod name;
pub mod pem;
pub mod prefilter;
pub mod token;
pub mod value;

use crate::api::Part;
use std::ops::Range;
use zeroize::Zeroizing;

/// Most findings of one text: a file made of keys must not exhaust memory.
pub const MAX_FINDINGS: usize = 4096;

/// A find before overlaps, pairs and doubles are settled.
#[derive(Debug, Default)]
pub struct Raw {
    /// Index of the rule.
    pub rule: usize,
    /// Replaces the rule's kind when the content proves a more exact one.
    pub kind: Option<&'static str>,
    /// Extent in the text: what overlaps are judged by.
    pub span: Range<usize>,
    pub parts: Vec<Part>,
    pub identifier: String,
    pub expires: Option<i64>,
    pub public: Vec<String>,
    pub confidence: f64,
    /// 3: parsed structure, 2: token format, 1: vendor word and shape, 0: generic.
    pub rank: u8,
}

/// The finds of one text, bounded.
#[derive(Debug, Default)]
pub struct Finds {
    pub list: Vec<Raw>,
    /// Some were left out because there were too many.
    pub truncated: bool,
}

impl Finds {
    pub fn push(&mut self, raw: Raw) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(raw);
        } else {
            self.truncated = true;
        }
    }

    pub fn full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }
}

pub fn part(name: &str, value: &[u8], span: Range<usize>) -> Part {
    Part {
        name: name.to_string(),
        value: Zeroizing::new(value.to_vec()),
        span,
    }
}

/// True when a token may begin at `at`: the byte before is no part of a longer word. Escapes (`\n`, `%3D`, `\u003d`) end words.
pub fn starts_word(text: &[u8], at: usize, head: &str) -> bool {
    let Some(i) = at.checked_sub(1) else {
        return true;
    };
    let b = text[i];
    let inside = match head {
        "any" => false,
        "b64" => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'/' | b'-'),
        _ => b.is_ascii_alphanumeric() || b == b'_',
    };
    if !inside {
        return true;
    }
    let before = |n: usize| at.checked_sub(n).map(|i| text[i]);
    // An escape sequence ends right before the token.
    if matches!(b, b'n' | b'r' | b't') && before(2) == Some(b'\\') {
        return true;
    }
    if b.is_ascii_hexdigit()
        && before(2).is_some_and(|c| c.is_ascii_hexdigit())
        && before(3) == Some(b'%')
    {
        return true;
    }
    // The default of a shell's parameter: ${NAME:-value}
    if b == b'-' && before(2) == Some(b':') {
        return true;
    }
    // ANSI colour: ESC [ 3 2 m
    b == b'm' && text[i.saturating_sub(6)..i].contains(&0x1b)
}

/// True when no further byte of a longer word stands at `at`.
pub fn ends_word(text: &[u8], at: usize, tail: &str) -> bool {
    let Some(&b) = text.get(at) else { return true };
    match tail {
        "any" => true,
        "b64" => !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'/' | b'=' | b'-')),
        _ => !(b.is_ascii_alphanumeric() || b == b'_'),
    }
}
