//! One pass over a text decides which rules are tried, and where.

pub mod assign;
mod digest;
pub mod name;
pub mod pem;
pub mod prefilter;
pub mod strings;
pub mod text;
pub mod token;
pub mod value;

use crate::api::{Limits, Part};
use crate::derive::x509;
use keytrail_model::PublicKey;
use std::ops::Range;
use zeroize::Zeroizing;

/// Most findings of one text: a file made of keys must not exhaust memory. Beyond it [`Limits::findings`] is set.
pub const MAX_FINDINGS: usize = 4096;

/// Bytes that expressions may inspect for each byte of a text, and for a text at least. Ordinary texts need less than
/// one; only one made to be slow needs more, and then [`Limits::work`] is set.
const WORK_PER_BYTE: usize = 64;
const WORK_BASE: usize = 256 * 1024;

/// A find before overlaps, pairs and duplicates are resolved.
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
    pub key: Option<PublicKey>,
    /// The user of a database.
    pub login: String,
    pub confidence: f64,
    /// 3: parsed structure, 2: token format, 1: vendor word and shape, 0: generic.
    pub rank: u8,
}

/// The finds of one text, bounded in number and in what looking for them may cost.
#[derive(Debug)]
pub struct Finds {
    pub list: Vec<Raw>,
    pub limits: Limits,
    /// Bytes that expressions may still inspect.
    work: usize,
    /// The first certificate of the text, once a key has asked for it.
    certificate: Option<Option<x509::Certificate>>,
}

impl Finds {
    pub fn of(text: &[u8]) -> Finds {
        Finds {
            list: Vec::new(),
            limits: Limits::default(),
            work: WORK_BASE.saturating_add(text.len().saturating_mul(WORK_PER_BYTE)),
            certificate: None,
        }
    }

    pub fn push(&mut self, raw: Raw) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(raw);
        } else {
            self.limits.findings = true;
        }
    }

    /// No more is taken; whoever asks has more to give.
    pub fn full(&mut self) -> bool {
        let full = self.list.len() >= MAX_FINDINGS;
        self.limits.findings |= full;
        full
    }

    /// Pays for inspecting `bytes` bytes; false when what the text may cost is used up.
    pub fn spend(&mut self, bytes: usize) -> bool {
        match self.work.checked_sub(bytes) {
            Some(left) => {
                self.work = left;
                true
            }
            None => {
                self.work = 0;
                self.limits.work = true;
                false
            }
        }
    }

    /// The first certificate of the text, looked for once.
    pub fn certificate(&mut self, text: &[u8]) -> Option<&x509::Certificate> {
        self.certificate
            .get_or_insert_with(|| x509::first_pem(text))
            .as_ref()
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
    ends_control(&text[..at])
}

/// Longest control sequence of a terminal that is looked for (`ESC [ 38;2;255;255;255;48;2;255;255;255 m`).
const MAX_CONTROL: usize = 48;

/// How a text ends that ends with a control sequence of a terminal (ECMA-48): `ESC [ 31 m`, `ESC ( B`, or written out as in
/// `\\033[31m`.
fn ends_control(text: &[u8]) -> bool {
    let Some((last, before)) = text.split_last() else {
        return false;
    };
    if !(0x40..0x7f).contains(last) {
        return matches!(before, [.., 0x1b, b'(' | b')']);
    }
    if matches!(before, [.., 0x1b, b'(' | b')']) {
        return true;
    }
    let parameters = before
        .iter()
        .rev()
        .take(MAX_CONTROL)
        .take_while(|b| matches!(b, b'0'..=b'9' | b';' | b':' | b'?'))
        .count();
    let Some(introducer) = before[..before.len() - parameters].strip_suffix(b"[") else {
        return false;
    };
    const WRITTEN: &[&[u8]] = &[
        b"\x1b", b"\\033", b"\\e", b"\\x1b", b"\\x1B", b"\\u001b", b"\\u001B", b"\\E", b"^[",
    ];
    WRITTEN.iter().any(|esc| introducer.ends_with(esc))
}

/// The length of the control sequences of a terminal that a text begins with.
pub fn controls(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix(b"\x1b[")) {
        let parameters = rest
            .iter()
            .take(MAX_CONTROL)
            .take_while(|b| matches!(b, b'0'..=b'9' | b';' | b':' | b'?'))
            .count();
        match rest.get(parameters) {
            Some(0x40..0x7f) => at += 2 + parameters + 1,
            _ => break,
        }
    }
    at
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
