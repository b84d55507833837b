//! Compressed data, decoded as it comes, up to a bound.

use super::inflate::{Fed, GzipHead, Inflate};
use super::kinds::{Encoding, MAX_MESSAGE};
use super::unzstd::Unzstd;
use super::zip::ZipHead;
use crate::ages::WIPE_NS;
use crate::sink::Sink;
use crate::text::Text;
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use std::panic::{AssertUnwindSafe, catch_unwind};
use zeroize::Zeroizing;

/// Decoded bytes of brotli that are handed on at a time.
const BLOCK: usize = 4 * 1024;
/// Largest window of brotli, bits: what its encoders use by themselves.
const MAX_WINDOW_BITS: u32 = 22;

enum Decoder {
    GzipHead(GzipHead),
    ZipHead(ZipHead),
    Inflate(Inflate),
    Zstd(Box<Unzstd>),
    BrotliHead,
    Brotli(Box<Brotli>),
    Over,
}

pub struct Packed {
    encoding: Encoding,
    decoder: Decoder,
    text: Text,
    /// Decoded bytes so far.
    made: usize,
    /// When bytes of it last came, nanoseconds since boot; 0 when none have.
    came_ns: u64,
}

impl Packed {
    pub fn new(encoding: Encoding) -> Self {
        let decoder = match encoding {
            Encoding::Gzip => Decoder::GzipHead(GzipHead::default()),
            Encoding::Zlib => Decoder::Inflate(Inflate::new(true)),
            Encoding::Deflate => Decoder::Inflate(Inflate::new(false)),
            Encoding::Brotli => Decoder::BrotliHead,
            Encoding::Zstd => Decoder::Zstd(Box::new(Unzstd::new())),
            Encoding::Zip => Decoder::ZipHead(ZipHead::default()),
        };
        Self {
            encoding,
            decoder,
            text: Text::message(0),
            made: 0,
            came_ns: 0,
        }
    }

    /// Decodes the next bytes; how many of them were used. All, unless it is over.
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let encoding = self.encoding.transform();
        self.came_ns = sink.now;
        let mut used = None;
        sink.within(encoding, |sink| {
            // A decoder that does not live up to its promises must not take us with it.
            used = catch_unwind(AssertUnwindSafe(|| self.decode(bytes, sink))).ok();
        });
        used.unwrap_or_else(|| {
            // Or it is nested too deeply to be followed.
            self.decoder = Decoder::Over;
            bytes.len()
        })
    }

    fn decode(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        loop {
            let input = &bytes[at..];
            let (used, fed, cost, out) = match &mut self.decoder {
                Decoder::Over => return at,
                Decoder::GzipHead(_) | Decoder::ZipHead(_) => {
                    let fed = match &mut self.decoder {
                        Decoder::ZipHead(head) => head.feed(input),
                        Decoder::GzipHead(head) => head.feed(input),
                        _ => None,
                    };
                    let Some((used, whole)) = fed else {
                        self.decoder = Decoder::Over;
                        return at;
                    };
                    at += used;
                    if whole {
                        self.decoder = Decoder::Inflate(Inflate::new(false));
                        continue;
                    }
                    return at;
                }
                Decoder::BrotliHead => {
                    let Some(&first) = input.first() else {
                        return at;
                    };
                    let fits = window_bits(first).is_some_and(|bits| bits <= MAX_WINDOW_BITS);
                    if !fits {
                        sink.undecoded.cut += 1;
                        self.decoder = Decoder::Over;
                        return at;
                    }
                    self.decoder = Decoder::Brotli(Box::new(Brotli::new()));
                    continue;
                }
                Decoder::Inflate(inflate) => inflate.feed(input),
                Decoder::Zstd(zstd) => zstd.feed(input),
                Decoder::Brotli(brotli) => brotli.feed(input),
            };
            at += used;
            self.made += out.len();
            let paid = sink.credit.spend(cost);
            self.text.push(out, sink);
            let cut = self.made > MAX_MESSAGE || !paid;
            match fed {
                Fed::Done => {
                    self.text.end(sink);
                    self.decoder = Decoder::Over;
                    return at;
                }
                Fed::Broken => {
                    self.decoder = Decoder::Over;
                    return at;
                }
                _ if cut => {
                    sink.undecoded.cut += 1;
                    self.flush(sink);
                    self.decoder = Decoder::Over;
                    return bytes.len();
                }
                Fed::Hungry if at == bytes.len() => return at,
                // Nothing used and nothing made: it will not get on.
                Fed::Hungry if used == 0 => {
                    self.decoder = Decoder::Over;
                    return at;
                }
                _ => {}
            }
        }
    }

    /// Inspects what a decoder has and keeps back.
    fn flush(&mut self, sink: &mut Sink<'_>) {
        let Decoder::Zstd(zstd) = &mut self.decoder else {
            return;
        };
        zstd.finish();
        loop {
            let (_, _, _, out) = zstd.feed(&[]);
            if out.is_empty() {
                return;
            }
            self.text.push(out, sink);
        }
    }

    /// No more of it comes.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        let encoding = self.encoding.transform();
        sink.within(encoding, |sink| {
            let _ = catch_unwind(AssertUnwindSafe(|| self.flush(sink)));
            self.text.end(sink);
        });
        self.decoder = Decoder::Over;
    }

    /// A message ends whose state of compression goes on in the next.
    pub fn next_message(&mut self, sink: &mut Sink<'_>) {
        let encoding = self.encoding.transform();
        let text = &mut self.text;
        sink.within(encoding, |sink| text.end(sink));
        self.made = 0;
    }

    pub fn is_over(&self) -> bool {
        matches!(self.decoder, Decoder::Over)
    }

    /// Forgets decoded bytes that came a second ago, and all of it when nothing has come since: what its decoder may refer to
    /// is to go. Whether more of it was expected then.
    pub fn expire(packed: &mut Option<Box<Self>>, now: u64) -> bool {
        let Some(this) = packed else {
            return false;
        };
        this.text.expire(now);
        let is_stale = this.came_ns != 0 && this.came_ns.saturating_add(WIPE_NS) <= now;
        is_stale && packed.take().is_some_and(|gone| gone.has_output())
    }

    /// It has turned out to be what it seemed.
    pub fn has_made(&self) -> bool {
        self.made > 0
    }

    /// As [`Packed::has_made`], and more of it is expected.
    pub fn has_output(&self) -> bool {
        self.has_made() && !self.is_over()
    }

    /// Bytes kept.
    pub fn kept(&self) -> usize {
        let decoder = match &self.decoder {
            Decoder::Inflate(_) => Inflate::KEPT,
            Decoder::Zstd(zstd) => zstd.kept(),
            Decoder::Brotli(_) => Brotli::KEPT,
            _ => 0,
        };
        size_of::<Self>() + self.text.kept() + decoder
    }
}

/// Size of the window in the head of a brotli stream (RFC 7932 section 9.1).
fn window_bits(first: u8) -> Option<u32> {
    let first = u32::from(first);
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, _, _) => Some(16),
        (_, 0, 0) => Some(17),
        // Reserved: large windows.
        (_, 0, 1) => None,
        (_, 0, n) => Some(8 + n),
        (_, n, _) => Some(17 + n),
    }
}

struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    out: Zeroizing<[u8; BLOCK]>,
    total: usize,
}

impl Brotli {
    /// About what a decoder with the largest window takes.
    const KEPT: usize = (1 << MAX_WINDOW_BITS) + 64 * 1024;

    fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: BrotliState::new_strict(alloc(), alloc(), alloc()),
            out: Zeroizing::new([0; BLOCK]),
            total: 0,
        }
    }

    fn feed(&mut self, input: &[u8]) -> (usize, Fed, usize, &[u8]) {
        let (mut left, mut used) = (input.len(), 0);
        let (mut room, mut made) = (BLOCK, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut used,
            input,
            &mut room,
            &mut made,
            &mut self.out[..],
            &mut self.total,
            &mut self.state,
        );
        let fed = match result {
            BrotliResult::ResultSuccess => Fed::Done,
            BrotliResult::NeedsMoreInput => Fed::Hungry,
            BrotliResult::NeedsMoreOutput => Fed::Output,
            BrotliResult::ResultFailure => Fed::Broken,
        };
        (used, fed, made, &self.out[..made])
    }
}
