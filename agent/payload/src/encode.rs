//! Encoders of secrets. Every intermediate lives in a wiped buffer of exact capacity: growing a vector
//! would leave an unwiped copy behind.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

pub type Secret = Zeroizing<Vec<u8>>;

/// Wiped copy of `bytes`.
pub fn copy(bytes: &[u8]) -> Secret {
    Zeroizing::new(bytes.to_vec())
}

/// A wiped buffer into which `capacity` bytes fit without a reallocation.
pub fn buffer(capacity: usize) -> Secret {
    Zeroizing::new(Vec::with_capacity(capacity))
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn digits(upper: bool) -> &'static [u8; 16] {
    if upper { UPPER } else { LOWER }
}

pub fn hex(bytes: &[u8], upper: bool) -> Secret {
    let table = digits(upper);
    let mut out = buffer(bytes.len() * 2);
    for byte in bytes {
        out.push(table[usize::from(byte >> 4)]);
        out.push(table[usize::from(byte & 15)]);
    }
    out
}

/// Percent-encodes all but ASCII letters, digits and `safe` (RFC 3986 section 2.1; `plus`: a space becomes
/// `+` as in application/x-www-form-urlencoded).
pub fn percent(bytes: &[u8], safe: &[u8], plus: bool, upper: bool) -> Secret {
    let table = digits(upper);
    let mut out = buffer(bytes.len() * 3);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            out.push(byte);
        } else if plus && byte == b' ' {
            out.push(b'+');
        } else {
            out.extend_from_slice(&[
                b'%',
                table[usize::from(byte >> 4)],
                table[usize::from(byte & 15)],
            ]);
        }
    }
    out
}

/// How a JSON writer treats what the grammar (RFC 8259 section 7) leaves to it.
#[derive(Clone, Copy)]
pub struct JsonStyle {
    /// Written as `\u00XX` although JSON does not ask for it.
    pub escaped: &'static [u8],
    /// `/` as `\/` (PHP).
    pub slash: bool,
    /// Everything beyond ASCII as `\uXXXX` (Python, .NET).
    pub ascii: bool,
    /// Case of the digits in `\uXXXX`.
    pub upper: bool,
}

/// The inside of a JSON string. Bytes that are not UTF-8 pass through as they are.
pub fn json(bytes: &[u8], style: JsonStyle) -> Secret {
    // The longest escape of one byte is six bytes long.
    let mut out = buffer(bytes.len() * 6);
    if style.ascii
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        for c in text.chars() {
            if c.is_ascii() {
                json_byte(&mut out, c as u8, style);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    json_unit(&mut out, *unit, style.upper);
                }
            }
        }
    } else {
        for &byte in bytes {
            json_byte(&mut out, byte, style);
        }
    }
    out
}

fn json_byte(out: &mut Secret, byte: u8, style: JsonStyle) {
    if style.escaped.contains(&byte) {
        return json_unit(out, u16::from(byte), style.upper);
    }
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'/' if style.slash => out.extend_from_slice(b"\\/"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        8 => out.extend_from_slice(b"\\b"),
        12 => out.extend_from_slice(b"\\f"),
        0..32 => json_unit(out, u16::from(byte), style.upper),
        _ => out.push(byte),
    }
}

fn json_unit(out: &mut Secret, unit: u16, upper: bool) {
    let table = digits(upper);
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(table[usize::from(unit >> shift & 15)]);
    }
}

/// How XML and HTML writers escape `"` and `'`: by name; both by number (Go); the rest in between (Python, PHP and
/// JavaScript, Java). `&`, `<` and `>` have names everywhere.
pub const XML: [(&[u8], &[u8]); 5] = [
    (b"&quot;", b"&apos;"),
    (b"&#34;", b"&#39;"),
    (b"&quot;", b"&#39;"),
    (b"&quot;", b"&#x27;"),
    (b"\"", b"'"),
];

/// The inside of an XML text or attribute.
pub fn xml(bytes: &[u8], (quote, apostrophe): (&[u8], &[u8])) -> Secret {
    let mut out = buffer(bytes.len() * 6);
    for byte in bytes {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(quote),
            b'\'' => out.extend_from_slice(apostrophe),
            _ => out.push(*byte),
        }
    }
    out
}

/// What is known of the character at one end of an encoded secret whose neighbours are not: the bits of
/// its 6-bit value that come from the secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// Bits that belong to the secret; 0: there is no such character.
    pub mask: u8,
    pub value: u8,
}

/// A secret in base64 when `alignment` (0 to 2) foreign bytes come before it in its group of three: the
/// characters it decides alone, and the partly decided ones at both ends. Together they hold every bit of it.
pub fn base64(bytes: &[u8], alignment: usize, url: bool) -> Option<(Edge, Secret, Edge)> {
    let mut padded = buffer(bytes.len() + 2);
    padded.resize(alignment, 0);
    padded.extend_from_slice(bytes);
    let engine = if url { &URL_SAFE } else { &STANDARD };
    let mut text = Zeroizing::new(vec![0; padded.len().div_ceil(3) * 4]);
    let written = engine.encode_slice(&padded[..], &mut text[..]).ok()?;
    // First character with all its six bits from the secret, and the partly decided one before it.
    let (first, mask) = [(0, 0), (2, 0b1111), (3, 0b11)][alignment];
    // Characters before the end that are full, and the secret's bits in the one after.
    let bits = padded.len() * 8;
    let full = bits / 6;
    let last_mask = [0, 0b11_0000, 0b11_1100][padded.len() % 3];
    if full <= first || written < full {
        return None;
    }
    let edge = |index: usize, mask: u8| -> Option<Edge> {
        if mask == 0 {
            return Some(Edge::default());
        }
        let value = sextet(*text.get(index)?)?;
        Some(Edge {
            mask,
            value: value & mask,
        })
    };
    let head = edge(first.saturating_sub(1), mask)?;
    let tail = edge(full, last_mask)?;
    let inner = copy(&text[first..full]);
    Some((head, inner, tail))
}

/// Value of a base64 character in either alphabet (RFC 4648 sections 4 and 5).
pub fn sextet(c: u8) -> Option<u8> {
    Some(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Value of a base32 character (RFC 4648 section 6), in either case: names of hosts have none.
pub const fn quintet(c: u8) -> Option<u8> {
    Some(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a',
        b'2'..=b'7' => c - b'2' + 26,
        _ => return None,
    })
}
