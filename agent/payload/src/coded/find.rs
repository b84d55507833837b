//! Recognises what is encoded by its looks, at a small cost for what is not.
//!
//! A run of interest is longer than [`STRIDE`] and a word together, so it covers one of the words that are inspected,
//! eight bytes in every [`STRIDE`]; only where such a word fits is more of it inspected.

use super::kinds::{Encoding, Kind, is_between};
use super::zip::SIGNATURE;
use memchr::memmem;
use std::sync::LazyLock;

/// Bytes carried from one payload to the next: a run is recognised before it is that long.
pub const CARRY: usize = 48;
/// A word of eight bytes is inspected in every so many.
const STRIDE: usize = 16;
const WORD: usize = 8;
/// Escapes in a row that make a run.
const ESCAPES: usize = 7;
/// Characters of base64 that must decode to text, to be base64 of text: twelve bytes.
const QUADS: usize = 4;
/// Groups of eight characters of base32 that must decode to text: ten bytes.
const OCTETS: usize = 2;
/// Groups that are inspected to tell how they are aligned.
const LOOK_AHEAD: usize = 32;
/// Pairs of hexadecimal digits in a row that make a run (an address of Ethernet has six), and the longest way from one to the
/// next (`0x61, 0x62`).
const PAIRS: usize = 7;
const PAIR: usize = 6;
/// Characters of UTF-16 in a row that make a run.
const WIDE: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Run(Kind),
    Packed(Encoding),
}

static GZIP: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\x1f\x8b\x08"));
static ZIP: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(SIGNATURE));
static ZSTD: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\x28\xb5\x2f\xfd"));
/// The same in base64, at the beginning of a run.
static GZIP64: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"H4sI"));
static ZIP64: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"UEsDB"));
static ZSTD64: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"KLUv/"));
/// Beginnings of zlib's head in base64, as it packs by default and as small as it can.
static ZLIB64: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"eJ"));
static ZLIB64_BEST: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"eN"));
/// Characters of base64 that have to follow: the head is short.
const ZLIB64_LEN: usize = 20;

/// Builds the searchers. They are moved with what lay on the stack before, and live as long as the program.
#[inline(never)]
pub fn prepare() {
    for searcher in [
        &GZIP,
        &ZIP,
        &ZSTD,
        &GZIP64,
        &ZIP64,
        &ZSTD64,
        &ZLIB64,
        &ZLIB64_BEST,
    ] {
        LazyLock::force(searcher);
    }
}

/// The first thing encoded in `carry` and then `rest`, and where in both together it begins. `fresh`: a message begins.
pub fn first(carry: &[u8], rest: &[u8], fresh: bool) -> Option<(usize, Found)> {
    let offset = carry.len();
    // Across the border, with as much of the new bytes as a run needs to be recognised.
    let mut border = [0; 2 * CARRY];
    let more = rest.len().min(CARRY);
    let border = &mut border[..offset.min(CARRY) + more];
    let (old, new) = border.split_at_mut(offset.min(CARRY));
    old.copy_from_slice(&carry[offset - old.len()..]);
    new.copy_from_slice(&rest[..more]);
    let found = if offset > 0 || rest.len() < CARRY {
        within(border, fresh, WORD / 2)
    } else {
        None
    };
    zeroize::Zeroize::zeroize(border);
    found.or_else(|| in_windows(rest, fresh && offset == 0).map(|(at, f)| (offset + at, f)))
}

/// The first thing in a text, found without reading all that is behind it: of a text of beginnings that lead nowhere each
/// would cost as much as the whole.
fn in_windows(rest: &[u8], fresh: bool) -> Option<(usize, Found)> {
    const WINDOW: usize = 4096;
    let mut from = 0;
    loop {
        // With as much behind it as a run needs to be recognised.
        let to = rest.len().min(from + WINDOW + CARRY);
        if let Some((at, found)) = within(&rest[from..to], fresh && from == 0, STRIDE) {
            return Some((from + at, found));
        }
        if to == rest.len() {
            return None;
        }
        from += WINDOW;
    }
}

fn within(bytes: &[u8], fresh: bool, stride: usize) -> Option<(usize, Found)> {
    if fresh && is_zlib(bytes) {
        return Some((0, Found::Packed(Encoding::Zlib)));
    }
    let run = first_run(bytes, stride);
    // What begins before the run.
    let before = &bytes[..run.map_or(bytes.len(), |(at, _)| at)];
    let mut best = run.map(|(at, kind)| (at, Found::Run(kind)));
    let mut consider = |at: Option<usize>, found| {
        if let Some(at) = at
            && best.is_none_or(|(other, _)| at <= other)
        {
            best = Some((at, found));
        }
    };
    consider(GZIP.find(before), Found::Packed(Encoding::Gzip));
    consider(ZIP.find(before), Found::Packed(Encoding::Zip));
    consider(ZSTD.find(before), Found::Packed(Encoding::Zstd));
    let behind_break = |at: &usize| *at == 0 || !is_base64(before[at - 1]);
    consider(
        GZIP64.find(before).filter(behind_break),
        Found::Run(Kind::Base64),
    );
    consider(
        ZIP64.find(before).filter(behind_break),
        Found::Run(Kind::Base64),
    );
    consider(
        ZSTD64.find(before).filter(behind_break),
        Found::Run(Kind::Base64),
    );
    for searcher in [&ZLIB64, &ZLIB64_BEST] {
        consider(
            searcher.find_iter(before).find(|at| is_zlib64(before, *at)),
            Found::Run(Kind::Base64),
        );
    }
    best
}

/// Whether base64 of a zlib stream begins here. A `/` before it may be one of a path.
fn is_zlib64(bytes: &[u8], at: usize) -> bool {
    let begins = at == 0 || !is_base64(bytes[at - 1]) || bytes[at - 1] == b'/';
    let Some(run) = bytes.get(at..at + ZLIB64_LEN) else {
        return false;
    };
    // The second byte of the head is 9c or da.
    begins
        && matches!(
            run,
            [b'e', b'J', b'w'..=b'z', ..] | [b'e', b'N', b'o'..=b'r', ..]
        )
        && run.iter().all(|&c| is_base64(c))
}

/// The header of a zlib stream (RFC 1950 section 2.2) with a window of 32 KiB and no dictionary.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [0x78, flags, ..] if (0x7800 + u16::from(*flags)).is_multiple_of(31) && flags & 0x20 == 0)
}

fn first_run(bytes: &[u8], stride: usize) -> Option<(usize, Kind)> {
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<WORD>) {
        let word = u64::from_le_bytes(*word);
        let found = if suspicious(word) {
            closer(bytes, at, word)
        } else if paired(word) {
            hex_pairs(bytes, at)
        } else {
            None
        };
        if found.is_some() {
            return found;
        }
        at += stride;
    }
    None
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that is zero; of one above a zero byte it may be set as well.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

#[inline(always)]
fn has(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64))
}

/// Could these eight bytes be in the middle of a run?
#[inline(always)]
fn suspicious(word: u64) -> bool {
    let escape = has(word, b'%') | has(word, b'\\') | has(word, b'&');
    // Every other byte is zero.
    let wide = word & 0xff00_ff00_ff00_ff00 == 0 || word & 0x00ff_00ff_00ff_00ff == 0;
    // All between `+` and `z`: a superset of base64.
    let low = word.wrapping_sub(ONES * 0x2b) | word | (ONES * 0x7a).wrapping_sub(word);
    escape != 0 || wide || low & HIGH == 0
}

/// Could they be in the middle of pairs of digits with more between them than base64 has? Two blanks stand there as far from
/// each other as those of `61 62`, or there is the `x` of `0x61`. What else they could be need not be asked.
#[inline(always)]
fn paired(word: u64) -> bool {
    let blanks = has(word, b' ');
    let two = blanks & blanks >> 24;
    if two != 0 {
        let behind = word >> ((two.trailing_zeros() + 1) % 64);
        return (behind as u8).is_ascii_hexdigit() && ((behind >> 8) as u8).is_ascii_hexdigit();
    }
    // In either case.
    has(word | (ONES * 0x20), b'x') & has(word, b'0') << 8 != 0
}

/// Does any of what stands between pairs of digits, and may stand in other runs, stand there?
#[inline(always)]
fn parted(word: u64) -> bool {
    has(word, b':') | has(word, b'-') | has(word, b',') | has(word, b'.') | has(word, b';') != 0
}

#[cold]
#[inline(never)]
fn closer(bytes: &[u8], at: usize, word: u64) -> Option<(usize, Kind)> {
    // The word may be at the beginning of a run or at its end. Base32 first: its digits are digits of base64 as well.
    [0, 8, 16]
        .into_iter()
        .find_map(|back| base32_of_text(bytes, at.checked_sub(back)?))
        .map(|start| (start, Kind::Base32))
        .or_else(|| {
            [0, 4, 8]
                .into_iter()
                .find_map(|back| base64_of_text(bytes, at.checked_sub(back)?))
                .map(|start| (start, Kind::Base64))
        })
        .or_else(|| (parted(word) || paired(word)).then(|| hex_pairs(bytes, at))?)
        .or_else(|| wide(bytes, at))
        .or_else(|| (zeros(word) != 0).then(|| wider(bytes, at))?)
        .or_else(|| escapes(bytes, at))
}

pub fn is_base64(c: u8) -> bool {
    TABLE[usize::from(c)] & 0x80 != 0
}

/// Of each byte: bit 7 whether it is base64; bits 0 to 2 whether it may be at that place of a group of four of which
/// all bytes are below 128. (The last place says nothing.)
static TABLE: [u8; 256] = table();

const fn table() -> [u8; 256] {
    let mut out = [0; 256];
    let mut c = 0;
    while c < 256 {
        let value = match c as u8 {
            b'A'..=b'Z' => c as u8 - b'A',
            b'a'..=b'z' => c as u8 - b'a' + 26,
            b'0'..=b'9' => c as u8 - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => 255,
        };
        if value < 64 {
            let first = (value & 0b10_0000 == 0) as u8;
            let second = (value & 0b00_1000 == 0) as u8;
            let third = (value & 0b00_0010 == 0) as u8;
            out[c] = 0x80 | first | second << 1 | third << 2;
        }
        c += 1;
    }
    out
}

/// Where the run of base32 around `at` begins, if what is at `at` decodes to text. Its letters are of one case, which few
/// other runs are that long.
fn base32_of_text(bytes: &[u8], at: usize) -> Option<usize> {
    let sample = bytes.get(at..at + 8 * (OCTETS + 1))?;
    // Digits are of both cases, and letters of one.
    let mut case = CASES[usize::from(b'2')];
    // Which of the eight places of a group may the first of these characters have?
    let mut phases = 0xffu8;
    for (i, &c) in sample.iter().enumerate() {
        case &= CASES[usize::from(c)];
        if case == 0 {
            return None;
        }
        // The place of this character is (phase + i) % 8.
        phases &= PLACES[usize::from(c)].rotate_right(i as u32 % 8);
        if phases == 0 {
            return None;
        }
    }
    let mut texts = (0..8usize)
        .filter(|phase| phases >> phase & 1 == 1)
        .map(|phase| at + (8 - phase) % 8)
        .filter(|&first| {
            let mut groups = bytes[first..first + 8 * OCTETS].chunks_exact(8);
            groups.all(is_text_in_base32)
        });
    let any = texts.next()?;
    // Only where something was found, so that no byte is gone back over twice.
    let run = bytes[..at]
        .iter()
        .rposition(|&c| CASES[usize::from(c)] & case == 0)
        .map_or(0, |before| before + 1);
    let first = std::iter::once(any)
        .chain(texts)
        .find(|first| (first - run).is_multiple_of(8))
        .unwrap_or(any);
    Some(run + (first - run) % 8)
}

/// In which texts of base32 each byte is a digit: 1 in those of lower case, 2 in those of upper case.
static CASES: [u8; 256] = {
    let mut out = [0; 256];
    let mut c = 0;
    while c < 256 {
        out[c] = match c as u8 {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'2'..=b'7' => 3,
            _ => 0,
        };
        c += 1;
    }
    out
};

/// At which places of a group of eight characters of base32 each may be, if all bytes are below 128. (Places 2, 5 and 7
/// say nothing.)
static PLACES: [u8; 256] = {
    let mut out = [0; 256];
    let mut c = 0;
    while c < 256 {
        if let Some(value) = crate::encode::quintet(c as u8) {
            out[c] = 0b1010_0100
                | is_free(value, 4)
                | is_free(value, 1) << 1
                | is_free(value, 3) << 3
                | is_free(value, 0) << 4
                | is_free(value, 2) << 6;
        }
        c += 1;
    }
    out
};

/// Whether a bit that is the highest of a byte is none.
const fn is_free(value: u8, bit: u8) -> u8 {
    (value >> bit & 1 == 0) as u8
}

/// Do eight characters of base32 stand for five bytes of text?
fn is_text_in_base32(group: &[u8]) -> bool {
    let bits = group.iter().try_fold(0u64, |bits, &c| {
        Some(bits << 5 | u64::from(crate::encode::quintet(c)?))
    });
    bits.is_some_and(|bits| (0..5).all(|n| is_text_byte((bits >> (8 * n)) as u8)))
}

fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')
}

/// Where the run of base64 around `at` begins, if what is at `at` decodes to text.
fn base64_of_text(bytes: &[u8], at: usize) -> Option<usize> {
    let sample = bytes.get(at..at + 4 * QUADS)?;
    // Which of the four places of a group may the first of these characters have?
    let mut phases = 0b1111u8;
    for (i, &c) in sample.iter().enumerate() {
        let bits = TABLE[usize::from(c)];
        if bits & 0x80 == 0 {
            return None;
        }
        // The place of this character is (phase + i) % 4.
        let allowed = bits & 0b111 | 0b1000;
        let turn = i % 4;
        phases &= (allowed >> turn | allowed << (4 - turn)) & 0b1111;
        if phases == 0 {
            return None;
        }
    }
    // How long it goes on being text, by alignment.
    let texts = (0..4usize)
        .filter(|phase| phases >> phase & 1 == 1)
        .map(|phase| {
            let first = at + (4 - phase) % 4;
            let quads = bytes[first..].chunks_exact(4).take(LOOK_AHEAD);
            (quads.take_while(|quad| is_text(quad)).count(), first)
        })
        .filter(|&(length, _)| length >= QUADS - 1);
    let (_, longest) = texts.clone().max()?;
    // Only where something was found, so that no byte is gone back over twice.
    let run = bytes[..at]
        .iter()
        .rposition(|&c| !is_base64(c))
        .map_or(0, |before| before + 1);
    // Several may read as text. What begins a run is aligned with it, as a rule.
    let first = texts
        .map(|(_, first)| first)
        .find(|first| (first - run).is_multiple_of(4))
        .unwrap_or(longest);
    Some(run + (first - run) % 4)
}

/// Do four characters of base64 stand for three bytes of text, or of UTF-16?
fn is_text(quad: &[u8]) -> bool {
    let bits = quad.iter().try_fold(0u32, |bits, &c| {
        Some(bits << 6 | u32::from(crate::encode::sextet(c)?))
    });
    bits.is_some_and(|bits| {
        bits != 0
            && [bits >> 16, bits >> 8, bits]
                .iter()
                .all(|&byte| byte as u8 == 0 || is_text_byte(byte as u8))
    })
}

/// UTF-16 around `at`, of characters that are ASCII.
fn wide(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let is_one = |i: usize| {
        matches!(
            bytes.get(i..i + 2),
            Some([b' '..=b'~' | b'\n' | b'\r' | b'\t', 0])
        )
    };
    let mut start = [at, at + 1].into_iter().find(|&i| is_one(i))?;
    while start >= 2 && is_one(start - 2) {
        start -= 2;
    }
    // All but the last have to be followed by a zero, whichever byte comes first.
    if !(0..WIDE - 1).all(|i| is_one(start + 2 * i)) {
        return None;
    }
    // With a zero before the first character the other byte order reads the same, and the last character too.
    Some(match start.checked_sub(1).filter(|&i| bytes[i] == 0) {
        Some(start) => (start, Kind::Utf16Be),
        None => (start, Kind::Utf16Le),
    })
}

/// UTF-32 around `at`, of characters that are ASCII.
fn wider(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let is_one = |i: usize| {
        matches!(
            bytes.get(i..i + 4),
            Some([b' '..=b'~' | b'\n' | b'\r' | b'\t', 0, 0, 0])
        )
    };
    let mut start = (at..at + 4).find(|&i| is_one(i))?;
    while start >= 4 && is_one(start - 4) {
        start -= 4;
    }
    // As in `wide`.
    if !(0..WIDE - 1).all(|i| is_one(start + 4 * i)) {
        return None;
    }
    Some(match start.checked_sub(3) {
        Some(big) if bytes[big..start] == [0; 3] => (big, Kind::Utf32Be),
        _ => (start, Kind::Utf32Le),
    })
}

/// Pairs of hexadecimal digits around `at`, all with the same between them.
#[cold]
#[inline(never)]
fn hex_pairs(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let is_pair = |i: usize| {
        matches!(bytes.get(i..i + 2), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
            // In `0x61` the digits behind the sign are one.
            && !i.checked_sub(1).is_some_and(|i| bytes[i].is_ascii_hexdigit())
            && !bytes.get(i + 2).is_some_and(u8::is_ascii_hexdigit)
    };
    let mut start = (at..at + WORD).find(|&i| is_pair(i))?;
    let step = (3..=PAIR).find(|&n| is_pair(start + n))?;
    let between = &bytes[start + 2..start + step];
    let sign = between.strip_suffix(b"0x");
    let signs = sign.or(between.strip_suffix(b"0X")).unwrap_or(between);
    if signs.is_empty() || !signs.iter().all(|&c| is_between(c)) {
        return None;
    }
    let goes_on = |i: usize| is_pair(i) && bytes.get(i + 2..i + step) == Some(between);
    // Far enough to count them; all the way where they are enough, so that no byte is gone back over twice.
    let mut found = 1;
    for _ in 0..PAIRS {
        match start.checked_sub(step) {
            Some(before) if goes_on(before) => start = before,
            _ => break,
        }
        found += 1;
    }
    let first = start;
    found += (found..PAIRS)
        .take_while(|n| goes_on(first + (n - 1) * step) && is_pair(first + n * step))
        .count();
    if found < PAIRS {
        return None;
    }
    while start >= step && goes_on(start - step) {
        start -= step;
    }
    Some((start, Kind::HexPairs))
}

/// Escapes in a row around `at`.
fn escapes(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let from = at.saturating_sub(8);
    let begin =
        (from..bytes.len().min(at + WORD)).find(|&i| matches!(bytes[i], b'%' | b'\\' | b'&'))?;
    (begin..bytes.len().min(at + WORD)).find_map(|mut start| {
        let kind = Kind::of_escape(bytes.get(start..)?)?;
        let length = |i: usize| {
            bytes
                .get(i..)
                .and_then(|rest| kind.escape(rest))
                .map(|e| e.1)
        };
        // Back while one escape ends where the next begins.
        while let Some(before) = (3..=10)
            .filter(|&n| n <= start)
            .find(|&n| length(start - n) == Some(n))
        {
            start -= before;
        }
        let mut end = start;
        for _ in 0..ESCAPES {
            end += length(end)?;
        }
        Some((start, kind))
    })
}
