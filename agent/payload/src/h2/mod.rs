//! HTTP/2 as it is sent (RFC 9113): frames, header blocks, and the bodies of streams put together.

mod fixed;
mod frame;
pub mod hpack;
pub mod huffman;

#[cfg(test)]
pub mod tests;

use crate::coded::{Encoding, Packed};
use crate::sink::Sink;
use crate::text::Text;
pub use frame::begins_with_frames;
use frame::{Frame, HEADER};
use hpack::{Broken, Decoder, Fact, MAX_BLOCK};
use keytrail_model::{HostName, Request};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Streams followed at a time; the oldest is given up for a new one.
const MAX_STREAMS: usize = 128;
/// Streams that are remembered of an idle connection.
const IDLE_STREAMS: usize = 16;
/// What the names of a stream's request take, about.
const STREAM: usize = 256;

/// What a process sends on one connection.
pub struct Http2 {
    /// Frame boundaries are known.
    synced: bool,
    header: [u8; HEADER],
    header_len: usize,
    frame: Frame,
    /// Bytes of the frame that are to come.
    left: usize,
    /// Of those, padding; known once the first byte was there.
    padding: Option<usize>,
    /// Fragments of a header block.
    block: Zeroizing<Vec<u8>>,
    /// Where the fragment of the current frame begins.
    fragment: usize,
    /// A part of the block is missing.
    spoilt: bool,
    /// The stream of the block, and whether its message ends with it.
    block_of: (u32, bool),
    decoder: Decoder,
    streams: BTreeMap<u32, Stream>,
}

/// One request, or response.
#[derive(Default)]
struct Stream {
    text: Text,
    request: Request,
    hosts: Vec<HostName>,
    encoding: Option<Encoding>,
    packed: Option<Box<Packed>>,
    /// Place among the requests of the payload of this number.
    listed: Option<(u32, Option<u16>)>,
}

impl Http2 {
    /// From its first byte behind the preface.
    pub fn begun() -> Self {
        Self {
            synced: true,
            header: [0; HEADER],
            header_len: 0,
            frame: Frame::default(),
            left: 0,
            padding: None,
            block: Zeroizing::default(),
            fragment: 0,
            spoilt: false,
            block_of: (0, false),
            decoder: Decoder::new(),
            streams: BTreeMap::new(),
        }
    }

    /// From the beginning of some frame on.
    pub fn joined() -> Self {
        Self {
            decoder: Decoder::unknown(),
            ..Self::begun()
        }
    }

    /// Inspects the next bytes. `begins`: a write of so many bytes begins here. `wire` is for bytes whose place among
    /// the frames is not known.
    pub fn push(
        &mut self,
        bytes: &[u8],
        begins: Option<u64>,
        wire: &mut Text,
        sink: &mut Sink<'_>,
    ) {
        if !self.synced {
            let found = begins.is_some_and(|total| begins_with_frames(bytes, total));
            if !found {
                return wire.push(bytes, sink);
            }
            self.synced = true;
            wire.break_off();
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left == 0 {
                let take = (HEADER - self.header_len).min(rest.len());
                self.header[self.header_len..self.header_len + take].copy_from_slice(&rest[..take]);
                self.header_len += take;
                rest = &rest[take..];
                if self.header_len < HEADER {
                    return;
                }
                self.header_len = 0;
                let frame = Frame::parse(&self.header);
                if !self.may_follow(frame) {
                    self.lose(sink);
                    wire.break_off();
                    wire.push(&{ self.header }, sink);
                    return wire.push(rest, sink);
                }
                wire.break_off();
                self.begin(frame);
            } else {
                let take = self.left.min(rest.len());
                let (now, later) = rest.split_at(take);
                rest = later;
                self.left -= take;
                if !self.payload(now, wire, sink) {
                    self.lose(sink);
                    return wire.push(rest, sink);
                }
            }
            if self.left == 0 && self.header_len == 0 {
                self.ended(wire, sink);
            }
        }
    }

    /// A header block is not interrupted by other frames (section 6.2).
    fn may_follow(&self, frame: Frame) -> bool {
        let inside = !self.block.is_empty() || self.spoilt;
        frame.is_plausible()
            && if inside {
                frame.kind == frame::CONTINUATION && frame.stream == self.block_of.0
            } else {
                frame.kind != frame::CONTINUATION
            }
    }

    fn begin(&mut self, frame: Frame) {
        self.frame = frame;
        self.left = frame.length;
        self.padding = (!frame.is_padded()).then_some(0);
        self.fragment = self.block.len();
        if matches!(frame.kind, frame::HEADERS | frame::PUSH_PROMISE) {
            self.block_of = (frame.stream, frame.ends_stream());
        }
    }

    /// Some bytes of a frame's payload; whether they can be of one.
    fn payload(&mut self, bytes: &[u8], wire: &mut Text, sink: &mut Sink<'_>) -> bool {
        match self.frame.kind {
            frame::DATA => self.data(bytes, sink),
            frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => {
                if self.block.len() + bytes.len() > MAX_BLOCK {
                    self.spoil();
                }
                if self.spoilt {
                    wire.push(bytes, sink);
                } else {
                    self.hold(bytes);
                }
                true
            }
            _ => {
                wire.push(bytes, sink);
                true
            }
        }
    }

    fn hold(&mut self, more: &[u8]) {
        if self.block.capacity() < self.block.len() + more.len() {
            let mut larger = crate::encode::buffer((self.block.len() + more.len()) * 2);
            larger.extend_from_slice(&self.block);
            self.block = larger;
        }
        self.block.extend_from_slice(more);
    }

    fn data(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> bool {
        let mut bytes = bytes;
        let padding = match self.padding {
            Some(padding) => padding,
            None => {
                let Some((&first, rest)) = bytes.split_first() else {
                    return true;
                };
                bytes = rest;
                let padding = usize::from(first);
                if padding > self.left + rest.len() {
                    return false;
                }
                *self.padding.insert(padding)
            }
        };
        // What is to come after these bytes is padding at least in part.
        let own = bytes.len() - padding.saturating_sub(self.left).min(bytes.len());
        let stream = self
            .streams
            .entry(self.frame.stream)
            .or_insert_with(|| Stream {
                text: Text::new(self.frame.stream),
                ..Stream::default()
            });
        stream.current(own + HEADER, sink);
        for host in &stream.hosts {
            sink.host(host);
        }
        sink.hits.body = true;
        stream.text.push(&bytes[..own], sink);
        if let Some(encoding) = stream.encoding {
            stream
                .packed
                .get_or_insert_with(|| Box::new(Packed::new(encoding)))
                .push(&bytes[..own], sink);
        }
        sink.hits.body = false;
        self.make_room();
        true
    }

    fn make_room(&mut self) {
        while self.streams.len() > MAX_STREAMS {
            self.streams.pop_first();
        }
    }

    /// The frame's last byte was there.
    fn ended(&mut self, wire: &mut Text, sink: &mut Sink<'_>) {
        match self.frame.kind {
            frame::DATA if self.frame.ends_stream() => self.close(self.frame.stream, sink),
            frame::RST_STREAM => self.close(self.frame.stream, sink),
            frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => {
                self.trim();
                if self.frame.ends_headers() {
                    self.headers(wire, sink);
                }
            }
            _ => {}
        }
    }

    /// Takes padding and priority off the fragment of a frame.
    fn trim(&mut self) {
        if self.spoilt || self.frame.kind == frame::CONTINUATION {
            return;
        }
        let fragment = &self.block[self.fragment..];
        let padding = if self.frame.is_padded() {
            fragment.first().map_or(usize::MAX, |&p| usize::from(p))
        } else {
            0
        };
        let head = usize::from(self.frame.is_padded()) + self.frame.head();
        match fragment.len().checked_sub(head.saturating_add(padding)) {
            Some(own) => {
                let from = self.fragment + head;
                self.block.copy_within(from..from + own, self.fragment);
                // What is cut off is wiped with the buffer.
                self.block.truncate(self.fragment + own);
            }
            None => self.spoil(),
        }
    }

    fn spoil(&mut self) {
        self.block = Zeroizing::default();
        self.fragment = 0;
        self.spoilt = true;
        self.decoder.forget();
    }

    /// A header block is whole.
    fn headers(&mut self, wire: &mut Text, sink: &mut Sink<'_>) {
        let block = std::mem::take(&mut self.block);
        let (id, ends) = self.block_of;
        if std::mem::take(&mut self.spoilt) {
            sink.undecoded.lost += 1;
            return;
        }
        let mut request = Request {
            protocol: "h2".to_owned(),
            ..Request::default()
        };
        let mut hosts = Vec::new();
        let mut encoding = None;
        let decoder = &mut self.decoder;
        let (result, own) = hpack::apart(sink, |sink| {
            decoder.block(&block, sink, |fact| match fact {
                Fact::Method(method) => request.method.clone_from(method),
                Fact::Path(path) => request.path.clone_from(path),
                Fact::Type(kind) => request.content_type.clone_from(kind),
                Fact::Length(length) => request.content_length = Some(*length),
                Fact::Encoding(e) => encoding = Some(*e),
                Fact::Host(host) => {
                    if request.host.is_empty() {
                        request.host.clone_from(&host.name);
                    }
                    hosts.push(host.clone());
                }
                Fact::Status(class) => request.status_class = *class,
                Fact::None => {}
            })
        });
        hosts.truncate(2);
        if request.content_type.starts_with("application/grpc") {
            request.protocol = "grpc".to_owned();
        }
        let stream = self.streams.entry(id).or_insert_with(|| Stream {
            text: Text::message(id),
            ..Stream::default()
        });
        // Trailers say nothing about the request.
        let is_head = !request.method.is_empty()
            || !request.path.is_empty()
            || !hosts.is_empty()
            || request.status_class != 0;
        if is_head {
            request.target = crate::request::target(&request);
            stream.request = request;
            stream.hosts = hosts;
            stream.listed = None;
        }
        if encoding.is_some() {
            stream.encoding = encoding;
        }
        for host in &stream.hosts {
            sink.host(host);
        }
        stream.current(block.len() + HEADER, sink);
        sink.hits.absorb(own);
        self.make_room();
        if let Err(Broken(at)) = result {
            sink.undecoded.lost += 1;
            self.decoder.forget();
            wire.break_off();
            wire.push(&block[at.min(block.len())..], sink);
        }
        if ends {
            self.close(id, sink);
        }
    }

    fn close(&mut self, id: u32, sink: &mut Sink<'_>) {
        if let Some(mut stream) = self.streams.remove(&id) {
            stream.current(0, sink);
            sink.hits.body = true;
            stream.text.end(sink);
            if let Some(packed) = &mut stream.packed {
                packed.end(sink);
            }
            sink.hits.body = false;
        }
    }

    /// Frame boundaries are not known any more.
    fn lose(&mut self, sink: &mut Sink<'_>) {
        sink.undecoded.lost += 1;
        self.synced = false;
        self.left = 0;
        self.header_len = 0;
        self.block = Zeroizing::default();
        self.spoilt = false;
        self.decoder.forget();
        for stream in self.streams.values_mut() {
            stream.break_off();
        }
    }

    /// So many bytes come that are not seen.
    pub fn skip(&mut self, bytes: Option<u64>, sink: &mut Sink<'_>) {
        let within = bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|&bytes| self.synced && bytes < self.left && self.padding.is_some());
        let Some(bytes) = within else {
            if self.synced {
                self.lose(sink);
            }
            return;
        };
        self.left -= bytes;
        match self.frame.kind {
            frame::DATA => {
                if let Some(stream) = self.streams.get_mut(&self.frame.stream) {
                    stream.break_off();
                }
            }
            frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => self.spoil(),
            _ => {}
        }
    }

    /// About how many bytes are kept that are of no secret.
    pub fn held(&self) -> usize {
        self.decoder.held() + self.streams.len() * (size_of::<Stream>() + STREAM)
    }

    /// Forgets bytes that may be of a secret.
    pub fn wipe(&mut self) {
        if !self.block.is_empty() {
            self.spoil();
        }
        while self.streams.len() > IDLE_STREAMS {
            self.streams.pop_first();
        }
        for stream in self.streams.values_mut() {
            stream.text.wipe();
            stream.packed = None;
        }
    }

    /// Forgets bytes of messages that came a second ago. `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        for stream in self.streams.values_mut() {
            stream.text.expire(now);
            Packed::expire(&mut stream.packed, now);
        }
    }

    /// Bytes kept that may be of a secret.
    pub fn kept(&self) -> usize {
        let of = |s: &Stream| s.text.kept() + s.packed.as_ref().map_or(0, |p| p.kept());
        self.block.len() + self.streams.values().map(of).sum::<usize>()
    }
}

impl Stream {
    /// Says that what follows is of this stream.
    fn current(&mut self, bytes: usize, sink: &mut Sink<'_>) {
        let place = match self.listed {
            Some((serial, place)) if serial == sink.serial => place,
            _ if self.request.method.is_empty() && self.request.status_class == 0 => None,
            _ => sink.request(&self.request),
        };
        self.listed = Some((sink.serial, place));
        if let Some(listed) = place.and_then(|i| sink.requests.get_mut(usize::from(i))) {
            listed.bytes += bytes as u64;
        }
        sink.hits.request = place;
    }

    fn break_off(&mut self) {
        self.text.break_off();
        self.packed = None;
    }
}
