//! What a file is, by its first bytes: text, a store of credentials, or something that holds none.

use super::{Classifier, wide};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Empty,
    Text,
    /// Text in UTF-16, which the classifier decodes.
    Utf16,
    /// A binary format that holds credentials.
    Store,
    /// A format that never does, or only inside an archive.
    Harmless,
    /// Binary, of no format known here.
    Opaque,
}

/// Decides by structure: a format's magic counts with what must follow it, because a text may begin with the same
/// letters; what has no known format is text as long as nearly all of it can be read.
#[must_use]
pub fn form(head: &[u8]) -> Form {
    if head.is_empty() {
        return Form::Empty;
    }
    if wide::form(head).is_some() {
        return Form::Utf16;
    }
    if harmless(head) {
        return Form::Harmless;
    }
    if STORES.iter().any(|magic| head.starts_with(magic)) || der_key(head) {
        return Form::Store;
    }
    if readable(head) {
        Form::Text
    } else {
        Form::Opaque
    }
}

/// Zeroes in a row that no text has between its words: a hole, or blocks that were taken and not written.
pub const LONG_RUN: usize = 64;

/// Shortest text that counts beside zeroes: less may be a magic number.
const LEAST_TEXT: usize = 16;

/// Text, perhaps with zeroes in it: a terminator, separators as in an environment, holes, blocks that were taken
/// beforehand. Bytes that no text has are at most one in thirty-two, zeroes that separate at most one in eight.
#[must_use]
pub fn readable(head: &[u8]) -> bool {
    if memchr::memchr(0, head).is_none() {
        return true;
    }
    // What begins with a few zeroes begins with a number.
    if head.first() == Some(&0) && head.iter().take(LONG_RUN).any(|b| *b != 0) {
        return false;
    }
    let (mut text, mut zeroes, mut odd) = (0usize, 0usize, 0usize);
    let mut at = 0;
    while at < head.len() {
        let run = head[at..].iter().take_while(|b| **b == 0).count();
        // A run at the end goes on: what is here may be cut anywhere.
        if run > 0 && run < LONG_RUN && at + run < head.len() {
            zeroes += run;
        }
        at += run;
        let length = memchr::memchr(0, &head[at..]).unwrap_or(head.len() - at);
        let piece = &head[at..at + length];
        text += length;
        odd += unreadable(piece);
        at += length;
    }
    text >= LEAST_TEXT && odd * 32 <= text && zeroes * 8 <= text
}

/// Bytes that no text has: control characters other than those of lines, pages and terminals, and what is no UTF-8.
fn unreadable(piece: &[u8]) -> usize {
    piece
        .utf8_chunks()
        .map(|chunk| {
            let control = chunk
                .valid()
                .bytes()
                .filter(|b| {
                    *b == 0x7f
                        || *b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x08 | 0x0c | 0x1b)
                })
                .count();
            control + chunk.invalid().len()
        })
        .sum()
}

/// Keytab 1 and 2, credential caches 1 to 4, JKS, JCEKS, SQLite 3, GnuPG private key, MySQL login path (4 zero bytes and a key are no
/// magic: found by name).
const STORES: &[&[u8]] = &[
    b"\x05\x01",
    b"\x05\x02",
    b"\x05\x03",
    b"\x05\x04",
    b"\xfe\xed\xfe\xed",
    b"\xce\xce\xce\xce",
    b"SQLite format 3\0",
    b"(11:private-key",
    b"(21:protected-private-key",
    b"(20:shadowed-private-key",
];

/// Programs, pictures, sound, fonts, compiled code, archives and compressed data, packs, whose magic is none that a text
/// begins with.
const HARMLESS: &[&[u8]] = &[
    b"\x7fELF",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"\x00\x01\x00\x00\x00",
    b"\x1f\x8b",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"7z\xbc\xaf",
    b"\x04\x22\x4d\x18",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"\0asm",
    b"\xfftOc",
    b"\xed\xab\xee\xdb",
    b"\xde\x12\x04\x95",
    b"\x95\x04\x12\xde",
    b"BC\xc0\xde",
    b"LUKS\xba\xbe",
    b"rust\0\0\0",
];

/// A format that never holds credentials, or only inside an archive.
fn harmless(head: &[u8]) -> bool {
    HARMLESS.iter().any(|magic| head.starts_with(magic)) || lettered(head) || tar(head)
}

/// Formats whose magic is letters: what follows must be theirs.
fn lettered(head: &[u8]) -> bool {
    let at = |range: std::ops::Range<usize>| head.get(range).unwrap_or_default();
    let big = |at: usize| {
        head.get(at..at + 4)
            .and_then(|b| b.first_chunk())
            .map(|b| u32::from_be_bytes(*b))
    };
    match head {
        // The place of the second header; it stands behind the first.
        [b'M', b'Z', ..] => {
            at(0x3c..0x40)
                .first_chunk()
                .is_some_and(|b| (0x40..0x1_0000).contains(&u32::from_le_bytes(*b)))
                || at(2..0x40).contains(&0) && !readable(at(0..0x40))
        }
        [b'R', b'I', b'F', b'F', ..] => {
            matches!(
                at(8..12),
                b"WAVE" | b"AVI " | b"WEBP" | b"RMID" | b"ACON" | b"sfbk" | b"CDR6" | b"PAL "
            )
        }
        // Version 0, then flags of a page.
        [b'O', b'g', b'g', b'S', 0, flags, ..] => *flags < 8,
        [b'f', b'L', b'a', b'C', kind, ..] => kind & 0x7f == 0 && at(5..7) == [0, 0],
        [b'I', b'D', b'3', version, revision, ..] => *version < 5 && *revision < 0xff,
        // A count of tables, and what a search among them needs.
        [b'O', b'T', b'T', b'O', 0, tables, ..] => *tables > 0,
        [b'w', b'O', b'F', b'F' | b'2', ..] => {
            at(4..8) == b"OTTO" || at(4..8) == b"true" || big(4) == Some(0x0001_0000)
        }
        // Width, height, flags: some of it is no letter.
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => {
            at(6..13).iter().any(|b| !(0x20..0x7f).contains(b))
        }
        // The header of the first member ends so.
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n', ..] => {
            head.len() < 68 || at(66..68) == b"`\n"
        }
        // The level, then pi or the root of it.
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] => {
            rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90")
        }
        [b'P', b'A', b'C', b'K', ..] | [b'D', b'I', b'R', b'C', ..] => {
            matches!(big(4), Some(2..=4))
        }
        [b'%', b'P', b'D', b'F', b'-', major, b'.', minor, ..] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        // Thirteen fields of hexadecimal digits.
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => {
            head.len() >= 110 && at(6..110).iter().all(u8::is_ascii_hexdigit)
        }
        // Version 4.0.
        [b'h', b's', b'q', b's', ..] => at(28..32) == [4, 0, 0, 0],
        _ => false,
    }
}

/// An archive of tar: its checksum is that of its first header.
fn tar(head: &[u8]) -> bool {
    let Some(header) = head
        .first_chunk::<512>()
        .filter(|header| header[257..262] == *b"ustar")
    else {
        return false;
    };
    let stated = header[148..156]
        .iter()
        .filter(|b| matches!(b, b'0'..=b'7'))
        .fold(0u32, |sum, b| sum * 8 + u32::from(b - b'0'));
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    stated == sum(&header[..148]) + 8 * u32::from(b' ') + sum(&header[156..])
}

/// DER of a PKCS#1, SEC1, PKCS#8 or PKCS#12 private key: SEQUENCE { INTEGER 0, 1 or 3, ...}.
fn der_key(head: &[u8]) -> bool {
    let body = match head {
        [0x30, 0x82, _, _, body @ ..] | [0x30, 0x81, _, body @ ..] | [0x30, 0x80, body @ ..] => {
            body
        }
        [0x30, 0x20..=0x7f, body @ ..] => body,
        _ => return false,
    };
    matches!(body, [0x02, 0x01, 0x00 | 0x01 | 0x03, ..])
}

/// The names under which rules expect a credential even in a binary file, for absolute paths.
#[must_use]
pub fn expected_names(classifier: &Classifier) -> GlobSet {
    let globs: Vec<String> = classifier
        .watch_globs()
        .into_iter()
        .map(|w| w.glob)
        .collect();
    named(&globs)
}

/// A set of path globs; `~/` stands for any directory: which homes there are does not matter to a name.
#[must_use]
pub fn named(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = match glob.strip_prefix("~/") {
            Some(rest) => format!("**/{rest}"),
            None => glob.clone(),
        };
        if let Ok(glob) = GlobBuilder::new(&glob).literal_separator(true).build() {
            set.add(glob);
        }
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        assert_eq!(form(b""), Form::Empty);
        assert_eq!(form(b"key = value\n"), Form::Text);
        assert_eq!(form(b"\x7fELF\x02"), Form::Harmless);
        assert_eq!(form(b"\x05\x02\0\0\0"), Form::Store);
        assert_eq!(form(b"SQLite format 3\0\x10"), Form::Store);
        assert_eq!(form(&[0x30, 0x82, 4, 0xa3, 2, 1, 0, 2]), Form::Store);
        // A certificate: neither a key nor known by name.
        assert_eq!(form(&[0x30, 0x82, 4, 0xa3, 0x30, 0x82, 3, 0]), Form::Opaque);
        assert_eq!(form(b"ab\0"), Form::Opaque);
        assert_eq!(form(b"\xff\xfea\0"), Form::Utf16);
    }

    #[test]
    fn zeroes_in_a_text_and_what_only_begins_like_one() {
        let with = |tail: &[u8]| [b"PASSWORD=abc # 1\n".as_slice(), tail].concat();
        for text in [
            with(&[0; 100]),
            with(&[0]),
            with(b"\0TOKEN=abc\n"),
            with(&[&[0; 5000], b"TOKEN=abc\n".as_slice()].concat()),
            // As /proc shows an environment.
            b"HOME=/root\0LANG=C\0PATH=/usr/bin:/bin\0".to_vec(),
            // As a terminal was told to show it, and an author's name.
            with("\0\x1b[31mJos\u{e9}\x1b[0m\n".as_bytes()),
        ] {
            assert_eq!(form(&text), Form::Text, "{text:?}");
        }
        for data in [
            with(&[0, 0, 1, 0, 2, 0, 3, 0]),
            [b"PASSWORD\x01abcdefghij".as_slice(), &[0; 9], b"\x01\x02"].concat(),
            [b"a magic number".as_slice(), &[0; 100]].concat(),
            (0..=255u8).collect(),
            [[b'a', 0].as_slice(); 40].concat(),
        ] {
            assert_eq!(form(&data), Form::Opaque, "{data:?}");
        }
    }

    #[test]
    fn a_text_that_begins_with_a_formats_letters_is_a_text() {
        for letters in [
            "MZ", "RIFF", "OggS", "fLaC", "ID3", "OTTO", "wOFF", "wOF2", "BZh", "BZh9", "PACK",
            "DIRC", "%PDF", "%PDF-", "070701", "hsqs", "GIF8", "LUKS", "rust", "BC", "7z", "PK",
            "ustar",
        ] {
            for rest in [
                "AGECLOUD_TOKEN=abcdefgh12345678\n",
                "_KEY: x\n",
                "\n",
                " = \"a long value\"\n",
            ] {
                let mut text = format!("{letters}{rest}").into_bytes();
                assert_eq!(form(&text), Form::Text, "{letters}{rest}");
                text.extend(rest.repeat(300).bytes());
                assert_eq!(form(&text), Form::Text, "{letters}{rest}");
            }
        }
        let ustar = [" ".repeat(257).as_bytes(), b"ustar", &[b' '; 300]].concat();
        assert_eq!(form(&ustar), Form::Text);
    }

    #[test]
    fn formats_are_known_by_what_follows_their_letters() {
        let mut program = [
            b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec(),
            vec![0; 48],
        ]
        .concat();
        program[0x3c] = 0x80;
        let mut tar = vec![0u8; 512];
        tar[..8].copy_from_slice(b"etc/file");
        tar[257..262].copy_from_slice(b"ustar");
        let sum: u32 = tar.iter().map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let cpio = format!("070701{:0104}name", 0);
        for data in [
            program.as_slice(),
            &tar,
            cpio.as_bytes(),
            b"RIFF\x24\x08\0\0WAVEfmt ",
            b"RIFF\x24\x08\0\0WEBPVP8 ",
            b"OggS\0\x02\0\0",
            b"fLaC\0\0\0\x22",
            b"ID3\x04\0\0",
            b"OTTO\0\x0c\0\x80",
            b"wOFF\0\x01\0\0",
            b"wOF2OTTO",
            b"BZh91AY&SY",
            b"PACK\0\0\0\x02\0\0\0\x05",
            b"DIRC\0\0\0\x02",
            b"%PDF-1.7\n%\xe2\xe3",
        ] {
            assert_eq!(form(data), Form::Harmless, "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn any_head(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = form(&head);
        }
    }
}
