//! WebSocket frames as they are sent (RFC 6455 section 5), unmasked and put together, also compressed (RFC 7692).

use super::coded::{Encoding, Packed};
use super::sink::Sink;
use super::text::Text;
use keytrail_model::{HostName, Request};
use zeroize::Zeroizing;

/// Longest frame head: two bytes, the long length, the mask.
const MAX_HEAD: usize = 14;
/// Unmasked bytes that are inspected at a time.
const BLOCK: usize = 4 * 1024;
/// What a sender cuts off each compressed message (RFC 7692 section 7.2.1).
const SYNC: [u8; 4] = [0, 0, 0xff, 0xff];

/// Tags of texts.
const MESSAGE: u32 = 1 << 30;
const CONTROL: u32 = MESSAGE + 1;

/// What a process sends on one connection.
pub struct WebSocket {
    request: Request,
    host: Option<HostName>,
    /// A client masks, a server does not.
    client: bool,
    deflate: bool,
    head: [u8; MAX_HEAD],
    head_len: usize,
    frame: Frame,
    left: u64,
    /// Bytes of the frame so far, for the place in the mask.
    at: usize,
    /// Frames have been seen: framing is not given up for one bad byte at the beginning.
    begun: bool,
    /// Frame boundaries are not known any more.
    lost: bool,
    /// The current message is compressed.
    compressed: bool,
    message: Text,
    control: Text,
    /// The state of compression goes on from message to message.
    packed: Option<Box<Packed>>,
}

#[derive(Clone, Copy, Default)]
struct Frame {
    last: bool,
    control: bool,
    mask: [u8; 4],
}

impl WebSocket {
    pub fn new(request: Request, client: bool, deflate: bool) -> Self {
        let host = (!request.host.is_empty()).then(|| HostName {
            name: request.host.clone(),
            provenance: "host_header".to_owned(),
        });
        Self {
            request: Request {
                protocol: "websocket".to_owned(),
                ..request
            },
            host,
            client,
            deflate,
            head: [0; MAX_HEAD],
            head_len: 0,
            frame: Frame::default(),
            left: 0,
            at: 0,
            begun: false,
            lost: false,
            compressed: false,
            message: Text::message(MESSAGE),
            control: Text::message(CONTROL),
            packed: None,
        }
    }

    /// Inspects the next bytes. `false`: this is no WebSocket connection, and nothing was inspected.
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> bool {
        let mut named = false;
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.begun && !std::mem::replace(&mut named, true) {
                self.name(bytes.len(), sink);
            }
            if self.lost {
                self.control.push(rest, sink);
                return true;
            }
            if self.left > 0 {
                let take = self.left.min(rest.len() as u64) as usize;
                self.payload(&rest[..take], sink);
                self.left -= take as u64;
                rest = &rest[take..];
                if self.left == 0 {
                    self.ended(sink);
                }
                continue;
            }
            self.head[self.head_len] = rest[0];
            self.head_len += 1;
            match self.parse() {
                Head::Partial => rest = &rest[1..],
                Head::Whole => {
                    rest = &rest[1..];
                    self.head_len = 0;
                    self.begun = true;
                    if self.left == 0 {
                        self.ended(sink);
                    }
                }
                Head::None if !self.begun => return false,
                Head::None => {
                    self.head_len = 0;
                    self.lose(sink);
                }
            }
        }
        true
    }

    /// Says whose bytes these are.
    fn name(&self, bytes: usize, sink: &mut Sink<'_>) {
        if let Some(host) = &self.host {
            sink.host(host);
        }
        let listed = if self.client {
            sink.request(&self.request)
        } else {
            None
        };
        if let Some(listed) = listed.and_then(|i| sink.requests.get_mut(usize::from(i))) {
            listed.bytes = bytes as u64;
            listed.target = super::request::target(listed);
        }
        sink.hits.request = listed;
    }

    fn parse(&mut self) -> Head {
        let head = &self.head[..self.head_len];
        let (op, compressed) = (head[0] & 15, head[0] & 0x40 != 0);
        let control = op & 8 != 0;
        let known = matches!(op, 0..=2 | 8..=10);
        // A compressed message is marked in its first frame.
        let marked = compressed && (!self.deflate || control || op == 0);
        if head[0] & 0x30 != 0 || !known || marked || control && head[0] & 0x80 == 0 {
            return Head::None;
        }
        let Some(&second) = head.get(1) else {
            return Head::Partial;
        };
        if (second & 0x80 != 0) != self.client || control && second & 0x7f > 125 {
            return Head::None;
        }
        let (length, mask_at) = match (second & 0x7f, head) {
            (126, &[_, _, a, b, ..]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            (127, &[_, _, a, b, c, d, e, f, g, h, ..]) => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10)
            }
            (126 | 127, _) => return Head::Partial,
            (n, _) => (u64::from(n), 2),
        };
        if length >> 63 != 0 {
            return Head::None;
        }
        let mask = if self.client {
            match head.get(mask_at..mask_at + 4) {
                Some(&[a, b, c, d]) => [a, b, c, d],
                _ => return Head::Partial,
            }
        } else {
            [0; 4]
        };
        self.frame = Frame {
            last: head[0] & 0x80 != 0,
            control,
            mask,
        };
        if !control && op != 0 {
            self.compressed = compressed;
        }
        self.left = length;
        self.at = 0;
        Head::Whole
    }

    fn payload(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        let mut plain = Zeroizing::new([0; BLOCK]);
        for block in bytes.chunks(BLOCK) {
            let plain = &mut plain[..block.len()];
            for (i, (out, byte)) in plain.iter_mut().zip(block).enumerate() {
                *out = byte ^ self.frame.mask[(self.at + i) % 4];
            }
            self.at += block.len();
            if self.frame.control {
                self.control.push(plain, sink);
            } else if self.compressed {
                self.unpack(plain, sink);
            } else {
                self.message.push(plain, sink);
            }
        }
    }

    fn unpack(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        let packed = self
            .packed
            .get_or_insert_with(|| Box::new(Packed::new(Encoding::Deflate)));
        packed.push(bytes, sink);
        if packed.is_over() {
            self.packed = None;
        }
    }

    fn ended(&mut self, sink: &mut Sink<'_>) {
        if self.frame.control {
            return self.control.end(sink);
        }
        if !self.frame.last {
            return;
        }
        if self.compressed {
            self.unpack(&SYNC, sink);
            if let Some(packed) = &mut self.packed {
                packed.next_message(sink);
            }
        } else {
            self.message.end(sink);
        }
    }

    fn lose(&mut self, sink: &mut Sink<'_>) {
        sink.undecoded.lost += 1;
        self.lost = true;
        self.message.break_off();
        self.control.break_off();
        self.packed = None;
    }

    /// So many bytes come that are not seen.
    pub fn skip(&mut self, bytes: Option<u64>) {
        self.message.break_off();
        self.control.break_off();
        self.packed = None;
        match bytes {
            Some(bytes) if bytes < self.left => {
                self.left -= bytes;
                self.at = self.at.wrapping_add(bytes as usize);
            }
            _ => self.lost = true,
        }
    }

    /// Forgets bytes.
    pub fn wipe(&mut self) {
        self.message.wipe();
        self.control.wipe();
        // What follows may refer to what is forgotten: that becomes zeros, which are no secret.
        self.packed = None;
    }

    /// Forgets bytes of messages that came a second ago. `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        self.message.expire(now);
        self.control.expire(now);
        Packed::expire(&mut self.packed, now);
    }

    pub fn kept(&self) -> usize {
        self.message.kept() + self.control.kept() + self.packed.as_ref().map_or(0, |p| p.kept())
    }
}

enum Head {
    Partial,
    Whole,
    None,
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
