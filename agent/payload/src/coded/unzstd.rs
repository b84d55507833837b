//! Zstandard frames (RFC 8878), a block at a time: a block makes 128 KiB at most, whatever it is made of.

use super::inflate::Fed;
use ruzstd::decoding::FrameDecoder;
use ruzstd::io::Read as _;
use zeroize::Zeroizing;

/// Largest window: what the usual levels use. A decoder keeps as much.
const MAX_WINDOW: u64 = 2 * 1024 * 1024;
/// Largest block, with its head.
const MAX_BLOCK: usize = 128 * 1024 + 3;
/// Decoded bytes that are handed on at a time.
const BLOCK: usize = 4 * 1024;
/// What a compressed block is taken to make, where the frame does not say how long it is.
const USUAL: usize = 16 * 1024;
/// A last block of no bytes: makes the decoder give all it has.
const LAST: [u8; 3] = [1, 0, 0];

pub struct Unzstd {
    decoder: FrameDecoder,
    /// The head of the frame, or a block, that is not whole yet.
    part: Zeroizing<Vec<u8>>,
    /// Length of what is being waited for.
    need: usize,
    /// The head was read.
    begun: bool,
    /// The block at hand is the last.
    last: bool,
    out: Zeroizing<[u8; BLOCK]>,
    /// The frame says how long it is, and that was counted.
    stated: bool,
    /// Bytes decoded since this was last reported, and in all: estimates, because what is decoded comes late.
    cost: usize,
    made: usize,
}

impl Unzstd {
    pub fn new() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            decoder,
            part: Zeroizing::default(),
            need: 5,
            begun: false,
            last: false,
            out: Zeroizing::new([0; BLOCK]),
            stated: false,
            cost: 0,
            made: 0,
        }
    }

    /// As [`super::inflate::Inflate::feed`]: takes a head or a block at most.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Fed, usize, &[u8]) {
        let len = self.drain();
        if len > 0 {
            return (0, Fed::Output, 0, &self.out[..len]);
        }
        if self.last {
            return (0, Fed::Done, 0, &[]);
        }
        let take = self.need.saturating_sub(self.part.len()).min(input.len());
        self.hold(&input[..take]);
        if self.part.len() < self.need {
            return (take, Fed::Hungry, 0, &[]);
        }
        match self.whole() {
            Some(()) => (take, Fed::Output, std::mem::take(&mut self.cost), &[]),
            None => (take, Fed::Broken, 0, &[]),
        }
    }

    /// Makes the decoder give what it holds back for later references.
    pub fn finish(&mut self) {
        if self.begun && !self.last {
            self.last = true;
            let _ = self.decoder.decode_from_to(&LAST, &mut []);
        }
    }

    fn drain(&mut self) -> usize {
        if self.begun {
            self.decoder.read(&mut self.out[..]).unwrap_or(0)
        } else {
            0
        }
    }

    fn hold(&mut self, more: &[u8]) {
        if self.part.capacity() < self.part.len() + more.len() {
            let room = (2 * (self.part.len() + more.len())).min(self.need.max(64));
            let mut larger = crate::encode::buffer(room);
            larger.extend_from_slice(&self.part);
            self.part = larger;
        }
        self.part.extend_from_slice(more);
    }

    /// What was waited for is there: says what is waited for next, or decodes a block.
    fn whole(&mut self) -> Option<()> {
        if !self.begun {
            let descriptor = *self.part.get(4)?;
            let single = descriptor >> 5 & 1 == 1;
            let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
            let size = [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
            let head = 5 + usize::from(!single) + dictionary + size;
            if self.part.len() < head {
                self.need = head;
                return Some(());
            }
            self.decoder.init(&self.part[..]).ok()?;
            self.begun = true;
            if size > 0 {
                self.stated = true;
                self.made(usize::try_from(self.decoder.content_size()).unwrap_or(usize::MAX));
            }
        } else if self.part.len() == 3 {
            let head = u32::from_le_bytes([self.part[0], self.part[1], self.part[2], 0]);
            let size = (head >> 3) as usize;
            // A block of one repeated byte has one byte; the size is that of what it makes.
            let body = match head >> 1 & 3 {
                1 => 1,
                0 | 2 => size,
                _ => return None,
            };
            if size + 3 > MAX_BLOCK {
                return None;
            }
            if body > 0 {
                self.need = 3 + body;
                return Some(());
            }
            self.block(head & 1 == 1)?;
        } else {
            self.block(self.part[0] & 1 == 1)?;
        }
        self.part = Zeroizing::default();
        self.need = 3;
        Some(())
    }

    fn made(&mut self, bytes: usize) {
        self.cost = self.cost.saturating_add(bytes);
        self.made = self.made.saturating_add(bytes);
    }

    fn block(&mut self, last: bool) -> Option<()> {
        self.last = last;
        let head = u32::from_le_bytes([self.part[0], self.part[1], self.part[2], 0]);
        match head >> 1 & 3 {
            _ if self.stated => {}
            2 => self.made(USUAL),
            _ => self.made((head >> 3) as usize),
        }
        self.decoder.decode_from_to(&self.part, &mut []).ok()?;
        Some(())
    }

    pub fn kept(&self) -> usize {
        size_of::<Self>() + self.part.capacity() + self.made.min(2 * super::kinds::MAX_MESSAGE)
    }
}
