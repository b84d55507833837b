//! What a file is, by its first bytes: text, a store of credentials, or something that holds none.

use super::Classifier;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use zeroize::Zeroizing;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Empty,
    Text,
    /// UTF-16 with a byte order mark; true: little-endian.
    Utf16(bool),
    /// A binary format that holds credentials.
    Store,
    /// A format that never does, or only inside an archive.
    Harmless,
    /// Binary, of no format known here.
    Opaque,
}

/// Decides by magic bytes, then by the presence of NUL.
#[must_use]
pub fn form(head: &[u8]) -> Form {
    if head.is_empty() {
        return Form::Empty;
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Form::Utf16(head.starts_with(&[0xff, 0xfe]));
    }
    if HARMLESS.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
    {
        return Form::Harmless;
    }
    if STORES.iter().any(|magic| head.starts_with(magic)) || der_key(head) {
        return Form::Store;
    }
    if memchr::memchr(0, head).is_some() {
        Form::Opaque
    } else {
        Form::Text
    }
}

/// Shortest text that counts before zeroes: less may be a magic number.
const LEAST_TEXT: usize = 16;

/// Text and then only zeroes, to the end of what is here: a sparse file, a log whose blocks were taken beforehand, a text
/// with its terminator.
#[must_use]
pub fn padded(head: &[u8]) -> bool {
    let text = memchr::memchr(0, head).unwrap_or(head.len());
    let (text, rest) = head.split_at(text);
    text.len() >= LEAST_TEXT
        && !rest.is_empty()
        && text
            .iter()
            .all(|b| *b >= 0x20 && *b != 0x7f || matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b))
        && rest.iter().all(|b| *b == 0)
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

/// Programs, pictures, sound, fonts, compiled code, archives and compressed data, packs.
const HARMLESS: &[&[u8]] = &[
    b"\x7fELF",
    b"MZ",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\x00\x01\x00\x00\x00",
    b"OTTO",
    b"wOFF",
    b"wOF2",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"7z\xbc\xaf",
    b"\x04\x22\x4d\x18",
    b"!<arch>\n",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"\0asm",
    b"PACK",
    b"\xfftOc",
    b"DIRC",
    b"%PDF",
    b"\xed\xab\xee\xdb",
    b"070701",
    b"\xde\x12\x04\x95",
    b"\x95\x04\x12\xde",
    b"BC\xc0\xde",
    b"hsqs",
    b"LUKS\xba\xbe",
    b"rust\0\0\0",
];

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

/// UTF-16 to UTF-8; what is not a character becomes U+FFFD.
#[must_use]
pub fn from_utf16(bytes: &[u8], little: bool) -> Zeroizing<Vec<u8>> {
    let units = bytes.chunks_exact(2).skip(1).filter_map(|pair| {
        let pair = <[u8; 2]>::try_from(pair).ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    });
    // Two bytes become three at most: taken once, growing would leave copies.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() / 2 * 3 + 4));
    for c in char::decode_utf16(units) {
        out.extend_from_slice(
            c.unwrap_or(char::REPLACEMENT_CHARACTER)
                .encode_utf8(&mut [0; 4])
                .as_bytes(),
        );
    }
    out
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
        assert_eq!(form(b"\xff\xfea\0"), Form::Utf16(true));
    }

    #[test]
    fn text_before_zeroes_and_what_only_begins_like_it() {
        let with = |tail: &[u8]| [b"PASSWORD=abc # 1\n".as_slice(), tail].concat();
        assert!(padded(&with(&[0; 100])));
        assert!(padded(&with(&[0])));
        assert!(!padded(&with(&[])));
        assert!(!padded(&with(&[0, 0, 1])));
        assert!(!padded(
            &[b"PASSWORD\x01abcdefghij".as_slice(), &[0; 9]].concat()
        ));
        assert!(!padded(&[b"a magic number".as_slice(), &[0; 100]].concat()));
    }

    proptest! {
        #[test]
        fn utf16_round_trip(text in "\\PC{0,40}") {
            let little: Vec<u8> = [0xfeffu16].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            prop_assert_eq!(&**from_utf16(&little, true), text.as_bytes());
        }

        #[test]
        fn any_head(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = form(&head);
            let out = from_utf16(&head, head.len() % 2 == 0);
            prop_assert!(out.len() <= head.len() / 2 * 3 + 4);
        }
    }
}
