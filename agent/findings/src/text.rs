//! Texts that others choose (paths, names of hosts), so short that many can be remembered.

use ring::digest::{SHA256, digest};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest text that is remembered whole, bytes.
const LONGEST: usize = 256;
/// Of a longer one: its beginning, and a hash of all of it.
const BEGINNING: usize = 200;
const MARK: &str = "…#";
const DIGITS: usize = 32;

/// A text as it is remembered: whole, or its beginning and a hash of all of it. So two texts are the same here exactly if
/// they are the same, whatever their length: a long one is known again, and none passes for another. What JSON would write as
/// several bytes each does not stand here, and neither does what looks like a shortened text without being one.
pub(crate) fn kept(text: &str) -> Cow<'_, str> {
    if fits(text) && !looks_shortened(text) {
        return Cow::Borrowed(text);
    }
    let mut end = text.len().min(BEGINNING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let beginning = text.get(..end).unwrap_or_default();
    let mut short = beginning.replace(|c: char| !is_plain(c), "?");
    short.push_str(MARK);
    for byte in digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .take(DIGITS / 2)
    {
        // Writing to a text does not fail.
        let _ = write!(short, "{byte:02x}");
    }
    Cow::Owned(short)
}

/// Whether a text that was remembered before is within the bounds; what went through [`kept`] is.
pub(crate) fn fits(text: &str) -> bool {
    text.len() <= LONGEST && text.chars().all(is_plain)
}

/// What only is told apart from others.
pub(crate) fn number(text: &str) -> u64 {
    let hash = digest(&SHA256, text.as_bytes());
    let bytes = hash.as_ref().first_chunk::<8>();
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn is_plain(c: char) -> bool {
    !c.is_control() && c != '"' && c != '\\'
}

fn looks_shortened(text: &str) -> bool {
    text.rsplit_once(MARK).is_some_and(|(_, hash)| {
        hash.len() == DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_stay_apart() {
        assert_eq!(kept("/usr/bin/cat"), "/usr/bin/cat");
        let long = format!("/srv/{}/cat", "ä/".repeat(2000));
        let other = format!("{long}2");
        let short = kept(&long).into_owned();
        assert!(fits(&short) && short.starts_with("/srv/ä/"), "{short}");
        assert_ne!(short, kept(&other), "the same beginning");
        assert_eq!(short, kept(&long));
        // Whoever gives a file the name under which a long one is remembered is not taken for it.
        assert_ne!(kept(&short), short);
        for escaped in ["/a\u{1}b", "/a\"b", "/a\\b", "/a\nb"] {
            let short = kept(escaped);
            assert!(fits(&short) && short.starts_with("/a?b"), "{short}");
        }
        assert_ne!(kept("/a\u{1}b"), kept("/a\u{2}b"));
        assert_ne!(number("a"), number("b"));
    }
}
