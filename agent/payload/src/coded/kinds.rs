//! In which ways bytes are packed or written, and how much of what comes out is inspected.

use keytrail_model::Transform;

/// Most decoded bytes of one message that are inspected.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Zlib,
    /// DEFLATE without head.
    Deflate,
    Brotli,
    Zstd,
    /// DEFLATE behind the head of a ZIP archive's member.
    Zip,
}

impl Encoding {
    pub const fn transform(self) -> Transform {
        match self {
            Self::Gzip => Transform::Gzip,
            Self::Zlib | Self::Deflate | Self::Zip => Transform::Deflate,
            Self::Brotli => Transform::Brotli,
            Self::Zstd => Transform::Zstd,
        }
    }
}

/// Longest escape: `&#x10ffff;`.
pub const ESCAPE: usize = 10;

/// What stands between the pairs of digits of bytes in hexadecimal.
pub fn is_between(c: u8) -> bool {
    matches!(
        c,
        b':' | b' ' | b'-' | b',' | b';' | b'.' | b'\n' | b'\r' | b'\t'
    )
}

/// How text is written so that it is no plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Base64,
    /// In either case, as names of hosts carry it.
    Base32,
    /// `%41`
    Percent,
    /// `\u0041`
    Unicode,
    /// `\x41`
    HexEscape,
    /// `&#65;` and `&#x41;`
    Entity,
    /// `61:62`, `61 62`, `0x61, 0x62`
    HexPairs,
    Utf16Le,
    Utf16Be,
    Utf32Le,
    Utf32Be,
}

impl Kind {
    pub const fn transform(self) -> Transform {
        match self {
            Self::Base64 => Transform::Base64,
            Self::Base32 => Transform::Base32,
            Self::Percent => Transform::Percent,
            Self::Unicode | Self::HexEscape => Transform::Json,
            Self::Entity => Transform::Xml,
            Self::HexPairs => Transform::Hex,
            Self::Utf16Le | Self::Utf16Be => Transform::Utf16,
            Self::Utf32Le | Self::Utf32Be => Transform::Utf32,
        }
    }

    /// The kind of the escape at the beginning of these bytes.
    pub fn of_escape(bytes: &[u8]) -> Option<Self> {
        let kind = match bytes {
            [b'%', ..] => Self::Percent,
            [b'\\', b'u', ..] => Self::Unicode,
            [b'\\', b'x', ..] => Self::HexEscape,
            [b'&', b'#', ..] => Self::Entity,
            _ => return None,
        };
        kind.escape(bytes).map(|_| kind)
    }

    /// The character of the escape at the beginning of `bytes`, and its length.
    pub fn escape(self, bytes: &[u8]) -> Option<(u32, usize)> {
        let hex = |digits: &[u8]| {
            digits
                .iter()
                .try_fold(0u32, |all, &c| Some(all << 4 | char::from(c).to_digit(16)?))
        };
        match (self, bytes) {
            (Self::Percent, [b'%', a, b, ..]) => Some((hex(&[*a, *b])?, 3)),
            (Self::HexEscape, [b'\\', b'x', a, b, ..]) => Some((hex(&[*a, *b])?, 4)),
            (Self::Unicode, [b'\\', b'u', a, b, c, d, ..]) => Some((hex(&[*a, *b, *c, *d])?, 6)),
            (Self::Entity, [b'&', b'#', rest @ ..]) => {
                let end = rest.iter().take(ESCAPE - 2).position(|&c| c == b';')?;
                let value = match &rest[..end] {
                    [b'x' | b'X', digits @ ..] if !digits.is_empty() => hex(digits)?,
                    digits if (1..=7).contains(&digits.len()) => digits
                        .iter()
                        .try_fold(0u32, |all, &c| Some(all * 10 + char::from(c).to_digit(10)?))?,
                    _ => return None,
                };
                (value <= 0x10_ffff).then_some((value, end + 3))
            }
            _ => None,
        }
    }
}
