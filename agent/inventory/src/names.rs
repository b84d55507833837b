//! File names as text: any byte can be in one, and none may be lost or reach a terminal raw.

use std::fmt::Write as _;

/// The name as UTF-8, lossless: bytes that are not valid UTF-8 and control characters become `\xNN`, a backslash
/// becomes `\\`. [`unescape`] gives the bytes back.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else if c.is_control() {
                hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        hex(&mut out, chunk.invalid());
    }
    out
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// The bytes of an escaped name; what is not an escape stands for itself.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let digits = bytes
            .get(i + 2..i + 4)
            .and_then(|d| std::str::from_utf8(d).ok());
        match (
            byte,
            bytes.get(i + 1),
            digits.and_then(|d| u8::from_str_radix(d, 16).ok()),
        ) {
            (b'\\', Some(b'\\'), _) => {
                out.push(b'\\');
                i += 2;
            }
            (b'\\', Some(b'x'), Some(value)) => {
                out.push(value);
                i += 4;
            }
            _ => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shown_and_taken_back() {
        assert_eq!(escape(b"/a b/\xff\x1b[2J"), "/a b/\\xff\\x1b[2J");
        assert_eq!(escape("/é/日\\x41".as_bytes()), "/é/日\\\\x41");
    }

    proptest! {
        #[test]
        fn lossless_and_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text), bytes);
        }

        #[test]
        fn any_text_is_unescaped_without_panic(text in "\\PC*|[\\\\x0-9é]*") {
            let _ = unescape(&text);
        }
    }
}
