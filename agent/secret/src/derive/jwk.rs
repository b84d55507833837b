//! The name that a JSON Web Key has (`kid`, RFC 7517, section 4.5).

use crate::scan::text::clean;
use std::ops::Range;

/// How far from its secret the ends of a key's object are looked for: an RSA key of 4096 bits has members of 683 letters.
const REACH: usize = 4096;

/// The `kid` of the object that the value stands in; empty without one.
pub fn owner(text: &[u8], value: &Range<usize>) -> String {
    let low = value.start.saturating_sub(REACH);
    let high = text.len().min(value.end + REACH);
    // A key has no objects within, so that the braces next to the value are its own.
    let from = memchr::memrchr(b'{', &text[low..value.start]).map_or(low, |at| low + at);
    let to = memchr::memchr(b'}', &text[value.end..high]).map_or(high, |at| value.end + at);
    string_after(&text[from..to], b"\"kid\"")
        .map(clean)
        .unwrap_or_default()
}

/// The string that a name of JSON has for its value.
fn string_after<'t>(object: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let at = memchr::memmem::find(object, name)? + name.len();
    let value = object[at..].trim_ascii_start().strip_prefix(b":")?;
    let value = value.trim_ascii_start().strip_prefix(b"\"")?;
    Some(&value[..memchr::memchr(b'"', value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_its_own_object() {
        for (text, want) in [
            (
                "{\"keys\":[{\"kid\":\"a\",\"d\":\"x\"},{\"kty\":\"EC\",\"d\":\"§\",\"kid\" : \"b 1\"}]}",
                "b 1",
            ),
            ("[{\"kid\":\"a\",\"d\":\"§\"},{\"kid\":\"b\"}]", "a"),
            ("[{\"kid\":\"a\"},{\"d\":\"§\"}]", ""),
            ("\"d\":\"§\"", ""),
        ] {
            let at = text.find('§').unwrap();
            assert_eq!(owner(text.as_bytes(), &(at..at + 2)), want, "{text}");
        }
    }
}
