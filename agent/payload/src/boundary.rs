//! Whether an identifier stands alone: the same characters inside a longer word are another word.
//!
//! Neighbours are inspected as the receiver will read them: behind an escape, and in base64 and hex decoded.

use super::encode::sextet;
use super::forms::Transform;
use std::ops::Range;

/// Bytes before a form that its surroundings are read from.
pub const CONTEXT: usize = 16;
/// Decoded neighbours that are inspected on each side: the longest escape.
const NEIGHBOURS: usize = 6;

/// How an identifier stands among its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A word of its own.
    Alone,
    /// A part of a longer word.
    Inside,
    /// It ends where the bytes end: what comes next decides.
    Open,
}

/// The spelling of an occurrence: its transform and the partly decided base64 characters at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    pub transform: Transform,
    pub head: u8,
    pub tail: u8,
}

/// How the occurrence at `range` of `data` stands. `joined`: the unseen byte before `data` may belong to a word.
pub fn standing(spelling: Spelling, data: &[u8], range: Range<usize>, joined: bool) -> Standing {
    let before = &data[range.start.saturating_sub(CONTEXT)..range.start];
    let unseen = joined && before.len() == range.start;
    let rest = &data[range.end..];
    let (inside, on) = match spelling.transform {
        Transform::Hex => {
            let left = hex_before(before);
            (
                // Half a byte before it: not the hex we take it for.
                left.is_none_or(|l| goes_into(l.bytes(), l.whole && unseen)),
                hex_after(rest).and_then(|r| r.decide()),
            )
        }
        Transform::Base64 | Transform::Base64Url => {
            let left = base64_before(before, data[range.start], spelling.head);
            let right = base64_after(rest, data[range.end - 1], spelling.tail);
            (
                goes_into(left.bytes(), left.whole && unseen),
                right.decide(),
            )
        }
        // As it is or escaped. What only names a layer around a text is no spelling of what stands in it.
        _ => (goes_into(before, unseen), goes_on(rest)),
    };
    match (inside, on) {
        (true, _) | (_, Some(true)) => Standing::Inside,
        (false, Some(false)) => Standing::Alone,
        (false, None) => Standing::Open,
    }
}

/// May these bytes go on with a word that ended right before them?
pub fn may_continue(bytes: &[u8]) -> bool {
    !bytes.is_empty() && goes_on(bytes) != Some(false)
}

/// May a word that ended these bytes go on in the next?
pub fn may_be_continued(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|&c| is_word(c) || is_joint(c))
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

/// Joins two words into one name: `deploy-key`, `my_user`, `example.com`.
fn is_joint(c: u8) -> bool {
    matches!(c, b'-' | b'_' | b'.')
}

/// Do these bytes lead into a word without an end of theirs? `unseen`: what comes before them may belong to a word.
fn goes_into(before: &[u8], unseen: bool) -> bool {
    let Some((&last, rest)) = before.split_last() else {
        return unseen;
    };
    if let Some(escaped) = escape_before(before) {
        return is_word(escaped) || is_joint(escaped);
    }
    is_word(last) || is_joint(last) && rest.last().map_or(unseen, |&c| is_word(c))
}

/// Do these bytes go on with the word before them? `None` when they end too early to tell.
fn goes_on(after: &[u8]) -> Option<bool> {
    let joins = |c: u8| is_word(c) || is_joint(c);
    match after {
        [] => None,
        [b'%', high, low, ..] => Some(hex_pair(*high, *low).is_some_and(joins)),
        [b'\\', b'u', a, b, high, low, ..] => {
            Some(unicode([*a, *b, *high, *low]).is_some_and(joins))
        }
        // An escape that is cut off.
        [b'%' | b'\\'] => None,
        [b'%', digits @ ..] | [b'\\', b'u', digits @ ..]
            if digits.iter().all(u8::is_ascii_hexdigit) =>
        {
            None
        }
        [first, ..] if is_word(*first) => Some(true),
        [joint, rest @ ..] if is_joint(*joint) => rest.first().map(|&c| is_word(c)),
        _ => Some(false),
    }
}

/// The character that an escape at the end of `before` stands for: `%3D`, `%253D`, `\n`, `\u003d`.
fn escape_before(before: &[u8]) -> Option<u8> {
    match before {
        [.., b'%', high, low] | [.., b'%', b'2', b'5', high, low] => hex_pair(*high, *low),
        [.., b'\\', b'b' | b'f' | b'n' | b'r' | b't'] => Some(b'\n'),
        [.., b'\\', b'u', a, b, high, low] => unicode([*a, *b, *high, *low]),
        _ => None,
    }
}

/// The character of a `\uXXXX`; beyond ASCII it is a letter of some language, as far as we know.
fn unicode([a, b, high, low]: [u8; 4]) -> Option<u8> {
    let page = hex_pair(a, b)?;
    let c = hex_pair(high, low)?;
    Some(if page == 0 && c.is_ascii() { c } else { b'a' })
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

/// Decoded neighbours.
struct Neighbours {
    buffer: [u8; NEIGHBOURS],
    len: usize,
    /// The encoded text reaches up to where the bytes end.
    whole: bool,
}

impl Neighbours {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn decide(&self) -> Option<bool> {
        // Where the encoded text has ended, the word has.
        goes_on(self.bytes()).or((!self.whole).then_some(false))
    }
}

/// The encoded characters before or after a form, nearest first, across one line break at most: an empty line ends
/// wrapped text. And whether they reach to the end of the bytes.
fn characters(
    bytes: impl Iterator<Item = u8>,
    is_one: impl Fn(u8) -> bool,
) -> ([u8; CONTEXT], usize, bool) {
    let mut out = [0; CONTEXT];
    let mut len = 0;
    let mut breaks = 0;
    for c in bytes {
        match c {
            b'\r' => {}
            b'\n' if breaks == 0 => breaks = 1,
            c if is_one(c) && len < CONTEXT => {
                out[len] = c;
                len += 1;
            }
            _ => return (out, len, false),
        }
    }
    (out, len, true)
}

/// `None` when the number of digits is odd.
fn hex_before(before: &[u8]) -> Option<Neighbours> {
    let (digits, len, whole) = characters(before.iter().rev().copied(), |c| c.is_ascii_hexdigit());
    if len % 2 == 1 && !whole {
        return None;
    }
    let len = (len / 2).min(NEIGHBOURS);
    let mut buffer = [0; NEIGHBOURS];
    for i in 0..len {
        buffer[len - 1 - i] = hex_pair(digits[2 * i + 1], digits[2 * i])?;
    }
    Some(Neighbours { buffer, len, whole })
}

fn hex_after(after: &[u8]) -> Option<Neighbours> {
    let (digits, len, whole) = characters(after.iter().copied().take(CONTEXT), |c| {
        c.is_ascii_hexdigit()
    });
    let len = (len / 2).min(NEIGHBOURS);
    let mut buffer = [0; NEIGHBOURS];
    for (i, slot) in buffer.iter_mut().take(len).enumerate() {
        *slot = hex_pair(digits[2 * i], digits[2 * i + 1])?;
    }
    Some(Neighbours { buffer, len, whole })
}

/// `first` is the first character of the occurrence, of which `mask` bits are its own.
fn base64_before(before: &[u8], first: u8, mask: u8) -> Neighbours {
    let (text, len, whole) = characters(before.iter().rev().copied(), |c| sextet(c).is_some());
    // Bits from the right, the nearest lowest.
    let mut bits = 0u64;
    let mut count = 0;
    if mask != 0 {
        count = 6 - mask.count_ones();
        bits = u64::from(sextet(first).unwrap_or(0) >> (6 - count));
    }
    for &c in text[..len].iter().take(8) {
        bits |= u64::from(sextet(c).unwrap_or(0)) << count;
        count += 6;
    }
    let len = (count as usize / 8).min(NEIGHBOURS);
    let mut buffer = [0; NEIGHBOURS];
    for i in 0..len {
        buffer[len - 1 - i] = (bits >> (8 * i)) as u8;
    }
    Neighbours { buffer, len, whole }
}

/// `last` is the last character of the occurrence, of which `mask` bits are its own.
fn base64_after(after: &[u8], last: u8, mask: u8) -> Neighbours {
    let (text, len, whole) =
        characters(after.iter().copied().take(CONTEXT), |c| sextet(c).is_some());
    let mut bits = 0u64;
    let mut count = 0;
    if mask != 0 {
        count = 6 - mask.count_ones();
        bits = u64::from(sextet(last).unwrap_or(0)) & ((1 << count) - 1);
    }
    for &c in text[..len].iter().take(8) {
        bits = bits << 6 | u64::from(sextet(c).unwrap_or(0));
        count += 6;
    }
    let len = (count as usize / 8).min(NEIGHBOURS);
    let mut buffer = [0; NEIGHBOURS];
    for (i, slot) in buffer.iter_mut().take(len).enumerate() {
        *slot = (bits >> (count as usize - 8 * (i + 1))) as u8;
    }
    Neighbours { buffer, len, whole }
}

/// Does a form that begins after `before` begin in the middle of an escape? Then its first character is none:
/// in `%20Ab` there is no `0Ab`, and in `\\nab` no `nab`.
pub fn splits_escape(transform: Transform, before: &[u8]) -> bool {
    match transform {
        Transform::Percent => match before {
            [.., b'%'] => true,
            [.., b'%', digit] => digit.is_ascii_hexdigit(),
            _ => false,
        },
        Transform::Json => {
            let digits = before
                .iter()
                .rev()
                .take(3)
                .take_while(|c| c.is_ascii_hexdigit())
                .count();
            let odd = |text: &[u8]| text.iter().rev().take_while(|&&c| c == b'\\').count() % 2 == 1;
            odd(before)
                || (0..=digits).any(|n| {
                    before[..before.len() - n]
                        .strip_suffix(b"u")
                        .is_some_and(odd)
                })
        }
        _ => false,
    }
}
