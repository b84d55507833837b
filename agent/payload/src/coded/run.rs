//! A run of one encoding, decoded as it comes.

use super::kinds::{ESCAPE, Kind, is_between};
use crate::encode::{quintet, sextet};
use crate::sink::Sink;
use crate::text::Text;
use zeroize::{Zeroize, Zeroizing};

/// Decoded bytes that are handed on at a time.
const BLOCK: usize = 1024;

/// Most that stands between two pairs of digits: a comma, and a line that is set in.
const MAX_BETWEEN: u32 = 20;

/// The value of a digit, and the bits of one.
type Notation = (fn(u8) -> Option<u8>, u32);

/// One run.
pub struct Run {
    kind: Kind,
    text: Text,
    /// Of an escape, or of a character, that is not whole yet.
    part: [u8; ESCAPE],
    part_len: usize,
    /// Bits of base64 or base32 that make no byte yet.
    bits: u32,
    bit_count: u32,
    /// Line breaks in a row; of pairs of digits whatever is between two.
    breaks: u32,
    over: bool,
}

/// Decoded bytes on their way to the text.
struct Out {
    bytes: Zeroizing<[u8; BLOCK]>,
    len: usize,
}

impl Run {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            text: Text::message(0),
            part: [0; ESCAPE],
            part_len: 0,
            bits: 0,
            bit_count: 0,
            breaks: 0,
            over: false,
        }
    }

    /// Decodes the next bytes; how many of them belong to the run.
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let mut out = Out {
            bytes: Zeroizing::new([0; BLOCK]),
            len: 0,
        };
        let used = match self.kind {
            Kind::Base64 => self.digits(bytes, (sextet, 6), &mut out, sink),
            Kind::Base32 => self.digits(bytes, (quintet, 5), &mut out, sink),
            Kind::HexPairs => self.pairs(bytes, &mut out, sink),
            Kind::Utf16Le | Kind::Utf16Be => self.wide(bytes, &mut out, sink),
            Kind::Utf32Le | Kind::Utf32Be => self.wider(bytes, &mut out, sink),
            _ => self.escapes(bytes, &mut out, sink),
        };
        self.hand_on(&mut out, sink);
        self.over |= used < bytes.len();
        used
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    fn digits(
        &mut self,
        bytes: &[u8],
        (digit, bits): Notation,
        out: &mut Out,
        sink: &mut Sink<'_>,
    ) -> usize {
        for (i, &c) in bytes.iter().enumerate() {
            let Some(value) = digit(c) else {
                // Wrapped lines; an empty line ends it.
                if matches!(c, b'\r' | b'\n') && self.breaks < 2 {
                    self.breaks += 1;
                    continue;
                }
                return i;
            };
            self.breaks = 0;
            self.bits = self.bits << bits | u32::from(value);
            self.bit_count += bits;
            if self.bit_count >= 8 {
                self.bit_count -= 8;
                self.emit((self.bits >> self.bit_count) as u8, out, sink);
            }
        }
        bytes.len()
    }

    fn wide(&mut self, bytes: &[u8], out: &mut Out, sink: &mut Sink<'_>) -> usize {
        for (i, &c) in bytes.iter().enumerate() {
            let Some(&first) = self.part[..self.part_len].first() else {
                self.part[0] = c;
                self.part_len = 1;
                if self.is_whole(c) {
                    // Handed on at once: what began behind an ASCII character is text of the other byte order, and this may
                    // be the last byte of its last character, and of the message.
                    self.emit(c, out, sink);
                }
                continue;
            };
            self.part_len = 0;
            if self.is_whole(first) {
                if c != 0 {
                    return i;
                }
                continue;
            }
            let unit = if self.kind == Kind::Utf16Le {
                u16::from_le_bytes([first, c])
            } else {
                u16::from_be_bytes([first, c])
            };
            match char::from_u32(u32::from(unit)) {
                Some(char) if unit != 0 => self.emit_char(char, out, sink),
                // A half of a pair, or no text.
                _ => return i,
            }
        }
        bytes.len()
    }

    /// Characters of four bytes.
    fn wider(&mut self, bytes: &[u8], out: &mut Out, sink: &mut Sink<'_>) -> usize {
        for (i, &c) in bytes.iter().enumerate() {
            self.part[self.part_len] = c;
            self.part_len += 1;
            let early = self.is_whole(self.part[0]);
            if early && self.part_len == 1 {
                // As in `wide`.
                self.emit(c, out, sink);
            } else if early && c != 0 {
                return i;
            }
            if self.part_len < 4 {
                continue;
            }
            self.part_len = 0;
            if early {
                continue;
            }
            let unit: [u8; 4] = std::array::from_fn(|n| self.part[n]);
            let unit = if self.kind == Kind::Utf32Le {
                u32::from_le_bytes(unit)
            } else {
                u32::from_be_bytes(unit)
            };
            match char::from_u32(unit) {
                Some(char) if unit != 0 => self.emit_char(char, out, sink),
                _ => return i,
            }
        }
        bytes.len()
    }

    /// Whether the first byte of a character tells all of it, in either order of bytes.
    fn is_whole(&self, first: u8) -> bool {
        matches!(self.kind, Kind::Utf16Le | Kind::Utf32Le) && first.is_ascii() && first != 0
    }

    /// Pairs of hexadecimal digits with something between them. Of a pair the digits are kept, and of what is between two
    /// how long it is.
    fn pairs(&mut self, bytes: &[u8], out: &mut Out, sink: &mut Sink<'_>) -> usize {
        for (i, &c) in bytes.iter().enumerate() {
            let digit = c.is_ascii_hexdigit();
            match (self.part_len, digit) {
                (0, true) => {
                    self.part[0] = c;
                    self.part_len = 1;
                }
                (1, true) => {
                    let value = |c: u8| char::from(c).to_digit(16).unwrap_or_default() as u8;
                    let byte = value(self.part[0]) << 4 | value(c);
                    self.part_len = 2;
                    self.breaks = 0;
                    self.emit(byte, out, sink);
                }
                // 0x61
                (1, false) if matches!(c, b'x' | b'X') && self.part[0] == b'0' => self.part_len = 0,
                (0 | 2, false) if is_between(c) && self.breaks < MAX_BETWEEN => {
                    self.part_len = 0;
                    self.breaks += 1;
                }
                _ => return i,
            }
        }
        bytes.len()
    }

    fn escapes(&mut self, bytes: &[u8], out: &mut Out, sink: &mut Sink<'_>) -> usize {
        for (i, &c) in bytes.iter().enumerate() {
            if self.part_len == 0 && !matches!(c, b'%' | b'\\' | b'&') {
                return i;
            }
            self.part[self.part_len] = c;
            self.part_len += 1;
            if let Some((value, _)) = self.kind.escape(&self.part[..self.part_len]) {
                self.part_len = 0;
                match (self.kind, char::from_u32(value)) {
                    (Kind::Percent | Kind::HexEscape, _) => self.emit(value as u8, out, sink),
                    (_, Some(char)) => self.emit_char(char, out, sink),
                    // Half of a pair of UTF-16: none of our secrets' characters that matter.
                    (_, None) => self.emit(b'?', out, sink),
                }
            } else if self.part_len == ESCAPE || self.is_spoilt() {
                return i;
            }
        }
        bytes.len()
    }

    /// Can the escape that has begun not become one?
    fn is_spoilt(&self) -> bool {
        let whole = match self.kind {
            Kind::Percent => 3,
            Kind::HexEscape => 4,
            Kind::Unicode => 6,
            _ => ESCAPE,
        };
        self.part_len >= whole
    }

    fn emit_char(&mut self, char: char, out: &mut Out, sink: &mut Sink<'_>) {
        let mut utf8 = [0; 4];
        for &byte in char.encode_utf8(&mut utf8).as_bytes() {
            self.emit(byte, out, sink);
        }
        utf8.zeroize();
    }

    #[inline]
    fn emit(&mut self, byte: u8, out: &mut Out, sink: &mut Sink<'_>) {
        if out.len == BLOCK {
            self.hand_on(out, sink);
        }
        out.bytes[out.len] = byte;
        out.len += 1;
    }

    fn hand_on(&mut self, out: &mut Out, sink: &mut Sink<'_>) {
        let text = &mut self.text;
        sink.within(self.kind.transform(), |sink| {
            text.push(&out.bytes[..out.len], sink);
        });
        out.len = 0;
    }

    pub fn end(&mut self, sink: &mut Sink<'_>) {
        let text = &mut self.text;
        sink.within(self.kind.transform(), |sink| text.end(sink));
    }

    /// Forgets decoded bytes that came a second ago.
    pub fn expire(&mut self, now: u64) {
        self.text.expire(now);
    }

    pub fn kept(&self) -> usize {
        self.text.kept() + size_of::<Self>()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.part.zeroize();
        self.bits.zeroize();
    }
}
