//! Frame headers (RFC 9113 sections 4.1 and 6), and what they look like among other bytes.

use super::hpack;

pub const HEADER: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// PRIORITY_UPDATE (RFC 9218), the last of the extensions that are seen in the wild.
const LAST_KIND: u8 = 0x10;

/// Longest frame that is taken for one: receivers that allow more than 16 KiB allow this at most.
const MAX_LENGTH: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    reserved: bool,
}

impl Frame {
    pub fn parse(header: &[u8; HEADER]) -> Self {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = header;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 == 1,
        }
    }

    /// Can this be the header of a frame?
    pub fn is_plausible(self) -> bool {
        let on_stream = self.stream != 0;
        let length = self.length;
        !self.reserved
            && length <= MAX_LENGTH
            && match self.kind {
                DATA => on_stream && self.flags & !0x9 == 0 && self.fits(0),
                HEADERS => on_stream && self.flags & !0x2d == 0 && self.fits(self.head()),
                PRIORITY => on_stream && length == 5,
                RST_STREAM => on_stream && length == 4,
                SETTINGS => !on_stream && length.is_multiple_of(6) && self.flags & !1 == 0,
                PUSH_PROMISE => on_stream && self.flags & !0xc == 0 && self.fits(self.head()),
                PING => !on_stream && length == 8 && self.flags & !1 == 0,
                GOAWAY => !on_stream && length >= 8,
                WINDOW_UPDATE => length == 4,
                CONTINUATION => on_stream && self.flags & !4 == 0,
                // Extensions, and frames sent to see whether they are ignored.
                _ => true,
            }
    }

    /// Is it of a kind that is in use? Streams that a server opens (of even numbers) are not any more, and text of four bytes a
    /// character looks like a frame of one.
    fn is_usual(self) -> bool {
        self.kind <= LAST_KIND && (self.stream == 0 || self.stream % 2 == 1)
    }

    fn fits(self, head: usize) -> bool {
        self.length >= head + usize::from(self.is_padded())
    }

    /// Bytes before the fragment: priority, or the promised stream.
    pub fn head(self) -> usize {
        match self.kind {
            HEADERS if self.flags & 0x20 != 0 => 5,
            PUSH_PROMISE => 4,
            _ => 0,
        }
    }

    pub fn is_padded(self) -> bool {
        matches!(self.kind, DATA | HEADERS | PUSH_PROMISE) && self.flags & 8 != 0
    }

    pub fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & 1 != 0
    }

    pub fn ends_headers(self) -> bool {
        self.flags & 4 != 0
    }
}

/// Does a write of `total` bytes that begins with `bytes` consist of frames? Writes hold whole frames in general, so
/// the last one has to end with the write; and a header block has to be one.
pub fn begins_with_frames(bytes: &[u8], total: u64) -> bool {
    let mut at = 0usize;
    let mut frames = 0;
    // A longer chain proves nothing more.
    while frames < 16 {
        let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) else {
            break;
        };
        let frame = Frame::parse(header);
        if !frame.is_plausible() || !frame.is_usual() {
            return false;
        }
        let payload = at + HEADER..at + HEADER + frame.length;
        if frame.kind == HEADERS && frame.ends_headers() && !frame.is_padded() {
            let block = bytes.get(payload.start + frame.head()..payload.end);
            if block.is_some_and(|block| !hpack::is_block(block)) {
                return false;
            }
        }
        at = payload.end;
        frames += 1;
        if at as u64 >= total {
            break;
        }
    }
    // A frame of no bytes looks like too many things.
    frames > 0 && (at as u64 == total || frames >= 3) && bytes.len() > HEADER
}
