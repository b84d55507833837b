//! A text as it reads when what is encoded in it is decoded: escapes, pairs of hexadecimal digits with something between them,
//! and runs of such digits, base32 and base64, wherever they begin; also one in another. For what is shown to people; payloads are matched by the forms of each secret.

use super::coded::{Kind, is_between};
use super::encode::{Secret, buffer, quintet, sextet};
use std::ops::Range;

/// Shortest run that is decoded: less holds too few bytes to be a piece.
const LEAST_RUN: usize = 10;

/// Decoded bytes, and where each began in the text.
pub struct View {
    pub bytes: Secret,
    starts: Vec<usize>,
    /// Where the last byte ended.
    end: usize,
}

impl View {
    fn new(capacity: usize) -> View {
        View {
            bytes: buffer(capacity),
            starts: Vec::with_capacity(capacity),
            end: 0,
        }
    }

    fn push(&mut self, byte: u8, from: Range<usize>) {
        self.bytes.push(byte);
        self.starts.push(from.start);
        self.end = from.end;
    }

    /// The text's own bytes that a range of the decoded ones came from.
    pub fn origin(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.starts.get(range.start).copied().unwrap_or(self.end);
        let end = self.starts.get(range.end).copied().unwrap_or(self.end);
        start..end
    }

    /// A view of this view, as one of the text.
    fn within(mut self, outer: &View) -> View {
        let end = outer.origin(&(self.end..self.end)).start;
        for start in &mut self.starts {
            *start = outer.origin(&(*start..*start)).start;
        }
        self.end = end;
        self
    }
}

/// All views of a text but the text itself, of what is encoded once or twice. Their lengths together are at most some ten
/// times the text's, and as much again for each that is a text itself.
pub fn views(text: &[u8]) -> Vec<View> {
    let mut out = digits(text);
    let mut twice = Vec::new();
    for view in out.iter().filter(|view| is_text(&view.bytes)) {
        twice.extend(once(&view.bytes).into_iter().map(|v| v.within(view)));
    }
    if let Some(view) = escapes(text) {
        // Beside what is escaped may stand text of any script, and bytes.
        let inside = if is_text(&view.bytes) {
            once(&view.bytes)
        } else {
            runs(&view.bytes)
        };
        twice.extend(inside.into_iter().map(|v| v.within(&view)));
        out.push(view);
    }
    out.extend(twice);
    out
}

fn once(text: &[u8]) -> Vec<View> {
    let mut out = digits(text);
    out.extend(escapes(text));
    out
}

fn digits(text: &[u8]) -> Vec<View> {
    let mut out = runs(text);
    pairs(text, &mut out);
    out
}

/// Could it hold something that is encoded? Decoded from what is no encoding it does not look so.
fn is_text(bytes: &[u8]) -> bool {
    let shown = bytes
        .iter()
        .filter(|b| matches!(b, b' '..=b'~' | b'\n' | b'\t'))
        .count();
    bytes.len() >= LEAST_RUN && shown * 10 >= bytes.len() * 9
}

/// Without escapes (`%41`, `\x41`, `\u0041`, `&#65;`); `None` when there are none. As in forms of the web, `+` may stand for a
/// blank: no secret is told apart by that.
fn escapes(text: &[u8]) -> Option<View> {
    memchr::memchr3(b'%', b'\\', b'&', text)?;
    let mut view = View::new(text.len());
    let mut at = 0;
    let mut any = false;
    while let Some(&byte) = text.get(at) {
        let escaped = Kind::of_escape(&text[at..]).and_then(|kind| kind.escape(&text[at..]));
        // Beyond ASCII no secret is looked for.
        let (byte, length) = match escaped {
            Some((value, length)) => (u8::try_from(value).unwrap_or(b'?'), length),
            None => (byte, 1),
        };
        any |= length > 1;
        view.push(byte, at..at + length);
        at += length;
    }
    any.then_some(view)
}

/// Longest of what stands between two pairs of digits (`, 0x`), and fewest pairs: less holds too few bytes to be a piece.
const BETWEEN: usize = 4;
const LEAST_PAIRS: usize = 9;

/// Every run of pairs of hexadecimal digits with something between them.
fn pairs(text: &[u8], out: &mut Vec<View>) {
    let pair = |at: usize| match text.get(at..at + 2) {
        Some([high, low]) => Some(digit16(*high)? << 4 | digit16(*low)?),
        _ => None,
    };
    let mut at = 0;
    while at + 2 <= text.len() {
        let begin = at;
        let mut view = View::new(0);
        while let Some(byte) = pair(at) {
            view.push(byte, at..at + 2);
            at += 2;
            let rest = &text[at..];
            let signs = rest
                .iter()
                .take(BETWEEN)
                .take_while(|b| is_between(**b))
                .count();
            let more = usize::from(matches!(rest[signs..], [b'0', b'x' | b'X', ..])) * 2;
            if signs + more == 0 || signs + more > BETWEEN || pair(at + signs + more).is_none() {
                break;
            }
            at += signs + more;
        }
        if view.bytes.len() >= LEAST_PAIRS {
            out.push(view);
        }
        at = at.max(begin + 1);
    }
}

/// A notation: the value of a digit, the bits of one.
type Notation = (fn(u8) -> Option<u8>, u32);

const NOTATIONS: [Notation; 3] = [(digit16, 4), (quintet, 5), (sextet, 6)];

/// Every run of digits, decoded from each of the places at which its first byte may begin.
fn runs(text: &[u8]) -> Vec<View> {
    let mut out = Vec::new();
    for (digit, bits) in NOTATIONS {
        let mut at = 0;
        while at < text.len() {
            let length = text[at..]
                .iter()
                .take_while(|b| digit(**b).is_some())
                .count();
            if length >= LEAST_RUN {
                // Digits after which a byte begins where a digit does.
                let period = (8 / common(8, bits)) as usize;
                for shift in 0..period {
                    out.push(decoded(text, at + shift..at + length, digit, bits));
                }
            }
            at += length.max(1);
        }
    }
    out
}

fn common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common(b, a % b) }
}

fn decoded(text: &[u8], run: Range<usize>, digit: fn(u8) -> Option<u8>, bits: u32) -> View {
    let mut view = View::new(run.len() * bits as usize / 8);
    let (mut held, mut have, mut first) = (0u32, 0, run.start);
    for at in run {
        let Some(value) = text.get(at).and_then(|b| digit(*b)) else {
            break;
        };
        held = held << bits | u32::from(value);
        have += bits;
        if have >= 8 {
            have -= 8;
            view.push((held >> have) as u8, first..at + 1);
            // What is left of this digit begins the next byte.
            first = if have > 0 { at } else { at + 1 };
            held &= (1 << have) - 1;
        }
    }
    view
}

fn digit16(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where `text` shows `secret` when it is decoded.
    fn place(text: &str, secret: &str) -> Option<String> {
        views(text.as_bytes()).iter().find_map(|view| {
            let at = memchr::memmem::find(&view.bytes, secret.as_bytes())?;
            let origin = view.origin(&(at..at + secret.len()));
            Some(text[origin].to_owned())
        })
    }

    /// What stands beside it in an argument may be in any script, or bytes.
    #[test]
    fn what_is_encoded_twice_beside_other_scripts() {
        let name = "%E5%90%8D%E5%89%8D".repeat(8);
        let text = format!("q={name}&t=UzNjcmV0LVZhbHVl%2BREVG");
        assert_eq!(
            place(&text, "S3cret-Value").as_deref(),
            Some("UzNjcmV0LVZhbHVl")
        );
        let split = format!("q={name}&t=UzNj%63mV0LVZhbHVl");
        assert_eq!(
            place(&split, "S3cret-Value").as_deref(),
            Some("UzNj%63mV0LVZhbHVl")
        );
    }

    #[test]
    fn every_notation_from_wherever_it_begins() {
        for (text, shown) in [
            ("x=%53%33cret-%56alue", "%53%33cret-%56alue"),
            ("x=5333637265742d56616c7565", "5333637265742d56616c7565"),
            ("x=5333637265742D56616C7565.y", "5333637265742D56616C7565"),
            (
                "x=53:33:63:72:65:74:2d:56:61:6c:75:65.",
                "53:33:63:72:65:74:2d:56:61:6c:75:65",
            ),
            (
                "[0x53, 0x33, 0x63, 0x72, 0x65, 0x74, 0x2D, 0x56, 0x61, 0x6C, 0x75, 0x65]",
                "53, 0x33, 0x63, 0x72, 0x65, 0x74, 0x2D, 0x56, 0x61, 0x6C, 0x75, 0x65",
            ),
            (r"x=\x53\x33cret-\x56alue", r"\x53\x33cret-\x56alue"),
            (
                r"x=\u0053\u0033cret-\u0056alue",
                r"\u0053\u0033cret-\u0056alue",
            ),
            ("x=&#83;&#x33;cret-&#86;alue", "&#83;&#x33;cret-&#86;alue"),
            // One in another: percent twice, base64 and hexadecimal digits of escapes, base64 twice, digits of base64.
            ("x=%2553%2533cret-Value", "%2553%2533cret-Value"),
            ("x=JTUzM2NyZXQtVmFsdWU", "JTUzM2NyZXQtVmFsdWU"),
            ("x=VXpOamNtVjBMVlpoYkhWbA==", "VXpOamNtVjBMVlpoYkhWbA"),
            (
                "x=557a4e6a636d56304c565a686248566c",
                "557a4e6a636d56304c565a686248566c",
            ),
            ("z.kmzwg4tforwxi2lomuwwc3dffvuw4zy.y", ""),
        ] {
            let found = place(text, "S3cret-Value");
            if shown.is_empty() {
                assert_eq!(found, None, "{text}");
            } else {
                assert_eq!(found.as_deref(), Some(shown), "{text}");
            }
        }
        // Base32 and base64 of a secret with one to eight bytes before it.
        const B32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        for before in 0..8 {
            let bytes = ["u".repeat(before).as_bytes(), b"S3cret-Value"].concat();
            let mut text = String::new();
            let bits: Vec<u8> = bytes
                .iter()
                .flat_map(|b| (0..8).rev().map(move |i| b >> i & 1))
                .collect();
            for chunk in bits.chunks(5) {
                let value = chunk.iter().fold(0u8, |n, b| n << 1 | b) << (5 - chunk.len());
                text.push(B32[usize::from(value)] as char);
            }
            assert!(place(&text, "S3cret-Value").is_some(), "{text}");
            use base64::Engine as _;
            let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
            assert!(place(&text, "S3cret-Value").is_some(), "{text}");
            assert!(place(&text[before..], "t-Value").is_some(), "{text}");
        }
    }

    #[test]
    fn work_is_bounded_by_the_length() {
        let text = "a".repeat(10_000);
        let all: usize = views(text.as_bytes()).iter().map(|v| v.bytes.len()).sum();
        assert!(all <= 10 * text.len(), "{all}");
    }
}
