//! The secret part of a PEM text (RFC 7468): the base64 between its two boundary lines.
//!
//! Boundaries and line lengths change on the way (CRLF, YAML indentation, one line); the body does not.

use std::ops::Range;

/// Where the base64 body of the (private key's) block is, line breaks inside included, or `None`.
pub fn body(text: &[u8]) -> Option<Range<usize>> {
    let begin = match memchr::memmem::find(text, b"PRIVATE KEY-----") {
        Some(at) => memchr::memmem::rfind(&text[..at], b"-----BEGIN ")?,
        None => memchr::memmem::find(text, b"-----BEGIN ")?,
    };
    let label = begin + b"-----BEGIN ".len();
    let start = label + memchr::memmem::find(&text[label..], b"-----")? + 5;
    let end = start + memchr::memmem::find(&text[start..], b"-----END")?;
    let inside = &text[start..end];
    // Encrypted PKCS#1 keys (RFC 1421) have header lines, then an empty one.
    let skip = if inside.contains(&b':') {
        [&b"\n\n"[..], b"\r\n\r\n"]
            .iter()
            .find_map(|gap| memchr::memmem::find(inside, gap).map(|at| at + gap.len()))?
    } else {
        0
    };
    let lead = inside[skip..]
        .iter()
        .position(|c| !c.is_ascii_whitespace())?;
    let trail = inside.iter().rposition(|c| !c.is_ascii_whitespace())?;
    let range = start + skip + lead..start + trail + 1;
    let clean = text[range.clone()]
        .iter()
        .all(|&c| c == b'=' || is_break(c) || super::encode::sextet(c).is_some());
    clean.then_some(range)
}

/// Bytes that wrapped or indented base64 and hex may contain anywhere without meaning.
pub fn is_break(c: u8) -> bool {
    matches!(c, b'\n' | b'\r' | b' ' | b'\t')
}
