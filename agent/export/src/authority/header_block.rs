//! One compressed header block, as far as it takes to find the value of `:authority`.

const AUTHORITY: &[u8] = b":authority";
/// Its place in the static table (RFC 7541, appendix A).
const AUTHORITY_INDEX: u32 = 1;
const INDEXED: u8 = 0x80;
const INCREMENTAL: u8 = 0x40;
const SIZE_UPDATE: u8 = 0x20;
const HUFFMAN: u8 = 0x80;

/// What a number in the block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    /// Names a whole field, or a size: nothing follows.
    Whole,
    /// Names the field whose value follows; 0: the name follows first.
    Name,
    /// Length of a string.
    Length(Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Value { authority: bool },
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Field,
    /// In a number of several bytes.
    Number {
        what: Number,
        value: u32,
        shift: u32,
        huffman: bool,
    },
    /// At the first byte of a string: its coding and length.
    Text(Text),
    Bytes {
        text: Text,
        huffman: bool,
        left: u32,
        /// Bytes of a name that are those of [`AUTHORITY`] so far.
        same: Option<usize>,
    },
    /// Something that no header block has: the server will refuse it.
    Lost,
}

#[derive(Debug, Default)]
pub(super) struct HeaderBlock(At);

impl HeaderBlock {
    pub fn bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = step(self.0, byte);
        }
    }
}

fn step(at: At, byte: &mut u8) -> At {
    match at {
        At::Field => {
            let (what, mask) = match *byte {
                b if b & INDEXED != 0 => (Number::Whole, 0x7f),
                b if b & INCREMENTAL != 0 => (Number::Name, 0x3f),
                b if b & SIZE_UPDATE != 0 => (Number::Whole, 0x1f),
                _ => (Number::Name, 0x0f),
            };
            prefix(what, *byte & mask, mask, false)
        }
        At::Text(text) => prefix(
            Number::Length(text),
            *byte & !HUFFMAN,
            !HUFFMAN,
            *byte & HUFFMAN != 0,
        ),
        At::Number {
            what,
            value,
            shift,
            huffman,
        } => {
            let more = u32::from(*byte & 0x7f)
                .checked_mul(1 << shift)
                .and_then(|more| value.checked_add(more));
            match more {
                Some(value) if *byte & 0x80 == 0 => known(what, value, huffman),
                Some(value) if shift < 28 => At::Number {
                    what,
                    value,
                    shift: shift + 7,
                    huffman,
                },
                _ => At::Lost,
            }
        }
        At::Bytes {
            text,
            huffman,
            left,
            same,
        } => {
            let same = same
                .filter(|n| AUTHORITY.get(*n) == Some(byte))
                .map(|n| n + 1);
            if text == (Text::Value { authority: true }) && !huffman && !may_be_in_a_host(*byte) {
                *byte = b'-';
            }
            match left - 1 {
                0 => after(text, same == Some(AUTHORITY.len()) && !huffman),
                left => At::Bytes {
                    text,
                    huffman,
                    left,
                    same,
                },
            }
        }
        At::Lost => At::Lost,
    }
}

/// A number's first byte, of which `mask` is the number's.
fn prefix(what: Number, value: u8, mask: u8, huffman: bool) -> At {
    if value < mask {
        return known(what, u32::from(value), huffman);
    }
    At::Number {
        what,
        value: u32::from(mask),
        shift: 0,
        huffman,
    }
}

fn known(what: Number, value: u32, huffman: bool) -> At {
    match what {
        Number::Whole => At::Field,
        Number::Name if value == 0 => At::Text(Text::Name),
        Number::Name => At::Text(Text::Value {
            authority: value == AUTHORITY_INDEX,
        }),
        Number::Length(text) if value == 0 => after(text, false),
        Number::Length(text) => At::Bytes {
            text,
            huffman,
            left: value,
            same: Some(0),
        },
    }
}

fn after(text: Text, authority: bool) -> At {
    match text {
        Text::Name => At::Text(Text::Value { authority }),
        Text::Value { .. } => At::Field,
    }
}

/// Percent signs are allowed by RFC 3986, and refused by what reads them here.
fn may_be_in_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+,;=@".contains(&byte)
}
