//! DEFLATE (RFC 1951) with the window in a buffer that is wiped, and the heads of gzip (RFC 1952) and zlib (RFC 1950).

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress_with_limit, inflate_flags};
use zeroize::Zeroizing;

/// The window of DEFLATE.
const WINDOW: usize = 32 * 1024;
/// Decoded bytes that are handed on at a time.
const BLOCK: usize = 4 * 1024;

/// What came of feeding a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// It has taken all input and waits for more.
    Hungry,
    /// So many bytes of output are at hand; input may be left.
    Output,
    /// The stream has ended.
    Done,
    /// It is not what it seemed to be.
    Broken,
}

pub struct Inflate {
    state: Box<DecompressorOxide>,
    window: Zeroizing<Vec<u8>>,
    at: usize,
    flags: u32,
}

impl Inflate {
    /// `zlib`: with its head and check sum.
    pub fn new(zlib: bool) -> Self {
        let zlib = if zlib {
            inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        } else {
            0
        };
        Self {
            state: Box::default(),
            window: Zeroizing::new(vec![0; WINDOW]),
            at: 0,
            flags: zlib
                | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
                | inflate_flags::TINFL_FLAG_IGNORE_ADLER32,
        }
    }

    /// Bytes of `input` that were used, what came of it, what it cost (in decoded bytes), and the output at hand.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Fed, usize, &[u8]) {
        let from = self.at;
        let room = BLOCK.min(WINDOW - from);
        // The output is handed on in small pieces, so that its cost can be weighed between them.
        let (status, used, made) = decompress_with_limit(
            &mut self.state,
            input,
            &mut self.window,
            from,
            room,
            self.flags,
        );
        self.at = (from + made) % WINDOW;
        let fed = match status {
            TINFLStatus::Done => Fed::Done,
            TINFLStatus::HasMoreOutput => Fed::Output,
            TINFLStatus::NeedsMoreInput => Fed::Hungry,
            _ => Fed::Broken,
        };
        (used, fed, made, &self.window[from..from + made])
    }

    pub const KEPT: usize = WINDOW + size_of::<DecompressorOxide>();
}

/// The head of a gzip member, taken byte by byte.
#[derive(Default)]
pub struct GzipHead {
    seen: usize,
    flags: u8,
    extra: usize,
    field: GzipField,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum GzipField {
    #[default]
    Fixed,
    ExtraLength(u8),
    Extra,
    Name,
    Comment,
    Check(u8),
    Over,
}

/// Longest head: names are short.
const MAX_HEAD: usize = 4 * 1024;

impl GzipHead {
    /// Bytes of `input` that belong to the head, and whether it has ended; `None` when it is none.
    pub fn feed(&mut self, input: &[u8]) -> Option<(usize, bool)> {
        for (i, &byte) in input.iter().enumerate() {
            if self.field == GzipField::Over {
                return Some((i, true));
            }
            self.take(byte)?;
        }
        Some((input.len(), self.field == GzipField::Over))
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let at = self.seen;
        self.seen += 1;
        if self.seen > MAX_HEAD {
            return None;
        }
        match self.field {
            GzipField::Fixed => {
                let fits = match at {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    3 => {
                        self.flags = byte;
                        byte & 0b1110_0000 == 0
                    }
                    _ => true,
                };
                if !fits {
                    return None;
                }
                if at == 9 {
                    self.field = self.behind(GzipField::Fixed);
                }
            }
            GzipField::ExtraLength(n) => {
                self.extra |= usize::from(byte) << (8 * n);
                self.field = match n {
                    0 => GzipField::ExtraLength(1),
                    _ if self.extra == 0 => self.behind(GzipField::Extra),
                    _ => GzipField::Extra,
                };
            }
            GzipField::Extra => {
                self.extra -= 1;
                if self.extra == 0 {
                    self.field = self.behind(GzipField::Extra);
                }
            }
            GzipField::Name | GzipField::Comment => {
                if byte == 0 {
                    self.field = self.behind(self.field);
                }
            }
            GzipField::Check(0) => self.field = GzipField::Check(1),
            GzipField::Check(_) | GzipField::Over => self.field = GzipField::Over,
        }
        Some(())
    }

    /// What comes behind a part, by the flags.
    fn behind(&self, part: GzipField) -> GzipField {
        let order = [
            (GzipField::ExtraLength(0), 0b100),
            (GzipField::Name, 0b1000),
            (GzipField::Comment, 0b1_0000),
            (GzipField::Check(0), 0b10),
        ];
        let from = match part {
            GzipField::Fixed => 0,
            GzipField::Extra => 1,
            GzipField::Name => 2,
            _ => 3,
        };
        order[from..]
            .iter()
            .find(|(_, flag)| self.flags & flag != 0)
            .map_or(GzipField::Over, |(place, _)| *place)
    }
}
