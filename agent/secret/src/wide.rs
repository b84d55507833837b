//! Texts in UTF-16, as Windows tools write them (`Out-File`, `>` in PowerShell, exports of the registry): the rules read
//! UTF-8, and places are reported in the bytes that were given.

use crate::api::Finding;
use std::ops::Range;
use zeroize::Zeroizing;

/// Units that decide whether a text without a mark is UTF-16.
const HEAD: usize = 4096;

/// Fewest units that tell a text without a mark: less may be a few numbers.
const LEAST: usize = 16;

/// Fewest different letters of such a text: a table of small numbers may repeat one.
const VARIETY: usize = 6;

/// How a text in UTF-16 begins, and whether its units are little-endian; `None` for every other text.
///
/// Text with a mark and without a single ASCII letter as UTF-16 writes it is taken for what its bytes are: there is no secret
/// in it that could be missed, and any other bytes may begin like that.
///
/// Without a byte order mark it is known only when nearly all of its beginning is ASCII with a zero after each letter, or
/// before each: no other format looks like this. The look ends at the second letter of an ordinary text.
#[must_use]
pub fn form(text: &[u8]) -> Option<(usize, bool)> {
    match text {
        // UTF-32 begins with the same two bytes.
        [0xff, 0xfe, 0, 0, ..] => None,
        [0xff, 0xfe, units @ ..] => has_ascii(units, 1).then_some((2, true)),
        [0xfe, 0xff, units @ ..] => has_ascii(units, 0).then_some((2, false)),
        _ if unmarked(text, 1) => Some((0, true)),
        _ => unmarked(text, 0).then_some((0, false)),
    }
}

/// Whether some unit is of ASCII; its high byte stands at `high`.
fn has_ascii(units: &[u8], high: usize) -> bool {
    units
        .chunks_exact(2)
        .any(|unit| unit[high] == 0 && unit[1 - high] != 0)
}

/// Units have their high byte at `high`.
fn unmarked(text: &[u8], high: usize) -> bool {
    let (mut plain, mut other) = (0usize, 0usize);
    let mut seen = 0u128;
    for unit in text.chunks_exact(2).take(HEAD) {
        match (unit[high], unit[1 - high]) {
            (0, letter @ (b'\t' | b'\n' | b'\r' | 0x20..=0x7e)) => {
                plain += 1;
                seen |= 1 << letter;
            }
            _ => other += 1,
        }
        // One in sixteen may be a letter beyond ASCII, and a few at the beginning.
        if other * 16 > plain + 48 {
            return false;
        }
    }
    plain >= LEAST && other * 8 <= plain && seen.count_ones() as usize >= VARIETY
}

/// UTF-16 to UTF-8, without a byte order mark; what is not a character becomes U+FFFD.
#[must_use]
pub fn decoded(units: &[u8], little: bool) -> Zeroizing<Vec<u8>> {
    let units = units.chunks_exact(2).filter_map(|pair| {
        let pair = <[u8; 2]>::try_from(pair).ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    });
    // Two bytes become three at most: taken once, growing would leave copies.
    let mut out = Zeroizing::new(Vec::with_capacity(units.size_hint().1.unwrap_or(0) * 3));
    for c in char::decode_utf16(units) {
        out.extend_from_slice(
            c.unwrap_or(char::REPLACEMENT_CHARACTER)
                .encode_utf8(&mut [0; 4])
                .as_bytes(),
        );
    }
    out
}

/// Turns places in the decoded text into places in the bytes it was decoded from, of which `start` are its mark.
pub(crate) fn place(findings: &mut [Finding], decoded: &[u8], start: usize) {
    let mut offsets: Vec<usize> = findings
        .iter_mut()
        .flat_map(places)
        .flat_map(|place| [place.start, place.end])
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    let (mut at, mut byte) = (0, start);
    let bytes: Vec<usize> = offsets
        .iter()
        .map(|offset| {
            byte += 2 * units(decoded.get(at..*offset).unwrap_or_default());
            at = *offset;
            byte
        })
        .collect();
    let of = |offset: usize| {
        let at = offsets.partition_point(|known| *known < offset);
        bytes.get(at).copied().unwrap_or(offset)
    };
    for place in findings.iter_mut().flat_map(places) {
        *place = of(place.start)..of(place.end);
    }
}

/// All places of a finding that are in the text: an empty one says that the value is not.
fn places(finding: &mut Finding) -> impl Iterator<Item = &mut Range<usize>> {
    let parts = finding.parts.iter_mut().map(|part| &mut part.span);
    finding
        .places
        .iter_mut()
        .chain(parts)
        .filter(|place| place.start < place.end)
}

/// How many units of UTF-16 a piece of UTF-8 has: one for each character, two beyond the first plane.
fn units(text: &[u8]) -> usize {
    text.iter()
        .map(|b| usize::from(b & 0xc0 != 0x80) + usize::from(*b >= 0xf0))
        .sum()
}

/// The 1-based line of the byte at `at`, whatever the text is written in.
#[must_use]
pub fn line(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    let breaks = match form(text) {
        Some((start, little)) => {
            let sign: &[u8] = if little { b"\n\0" } else { b"\0\n" };
            let units = before.get(start..).unwrap_or_default().chunks_exact(2);
            units.filter(|unit| *unit == sign).count()
        }
        None => memchr::memchr_iter(b'\n', before).count(),
    };
    breaks + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::template::expand;
    use crate::{Classifier, Origin};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

    fn little(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn big(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn bytes_that_begin_with_a_mark_are_not_utf_16_for_that() {
        let text = |mark: &[u8], rest: &[u8]| [mark, rest].concat();
        for (mark, units) in [(b"\xff\xfe", little("A=1")), (b"\xfe\xff", big("A=1"))] {
            assert!(form(&text(mark, &units)).is_some());
            assert_eq!(form(&text(mark, b"\x80 GITHUB_TOKEN=x")), None);
            assert_eq!(form(mark), None);
        }
        let token = expand("ghp_{base62:30}{crc32_base62}", 4).unwrap();
        let bytes = text(b"\xff\xfe\x80 ", token.as_bytes());
        let found = CLASSIFIER.classify(&bytes, Origin::File { path: "/srv/x" });
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn secrets_in_utf_16_are_found_where_they_stand() {
        let secret = expand("{base62:24}", 3).unwrap();
        let token = expand("ghp_{base62:30}{crc32_base62}", 4).unwrap();
        for (path, text, kinds, lines) in [
            (
                "/srv/.env",
                format!(
                    "# Jos\u{e9} \u{1f511}\r\nDB_PASSWORD={secret}\r\nGITHUB_TOKEN={token}\r\n"
                ),
                vec!["generic-password", "github-token"],
                vec![2, 3],
            ),
            (
                "/root/.databrickscfg",
                format!("[DEFAULT]\nhost = https://x\ntoken = {secret}\n"),
                vec!["databricks-token"],
                vec![3],
            ),
            (
                "/home/a/.docker/config.json",
                format!(
                    "{{\"auths\": {{\"h.x\": {{\n\"username\": \"u\", \"password\": \"{secret}\"}}}}}}"
                ),
                vec!["docker-registry-auth"],
                vec![2],
            ),
        ] {
            for (start, bytes) in [
                (0, little(&text)),
                (2, little(&format!("\u{feff}{text}"))),
                (2, big(&format!("\u{feff}{text}"))),
            ] {
                let found = CLASSIFIER.classify(&bytes, Origin::File { path });
                let said: Vec<&str> = found.iter().map(|f| f.kind.as_str()).collect();
                assert_eq!(said, kinds, "{text}");
                for (finding, line_of) in found.iter().zip(&lines) {
                    let value = String::from_utf8(finding.parts[0].value.to_vec()).unwrap();
                    assert!(value == secret || value == token, "{value}");
                    let at = start + 2 * text[..text.find(&value).unwrap()].encode_utf16().count();
                    assert_eq!(finding.span(), at..at + 2 * value.len());
                    assert_eq!(finding.parts[0].span, finding.span());
                    assert_eq!(line(&bytes, finding.span().start), *line_of);
                }
            }
        }
    }

    #[test]
    fn what_has_zeroes_and_is_no_utf_16() {
        for data in [
            &b"HOME=/root\0LANG=C\0A=b\0PASSWORD=abcdefgh12\0"[..],
            b"PASSWORD=abc\n",
            b"a\0b\0",
            b"\xff\xfe\0\0a\0\0\0",
            b"",
            &[[b'a', 0].as_slice(); 40].concat(),
            &[[0, b'a'].as_slice(); 40].concat(),
            &[[1, 0].as_slice(), [2, 0].as_slice()].concat().repeat(40),
            &[[0, 1].as_slice(), [0, 2].as_slice()].concat().repeat(40),
        ] {
            assert_eq!(form(data), None, "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(text in "\\PC{0,40}") {
            prop_assert_eq!(&**decoded(&little(&text), true), text.as_bytes());
            prop_assert_eq!(&**decoded(&big(&text), false), text.as_bytes());
            prop_assert_eq!(units(text.as_bytes()), text.encode_utf16().count());
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = form(&bytes);
            prop_assert!(decoded(&bytes, true).len() <= bytes.len() / 2 * 3);
            let _ = line(&bytes, bytes.len());
        }
    }
}
