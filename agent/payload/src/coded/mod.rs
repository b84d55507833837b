//! What is encoded inside a text: runs of escapes, base64 of text, UTF-16, compressed data. They are recognised by
//! their looks, decoded as the bytes come, and the decoded bytes are a text of their own.
//!
//! Many encodings of a secret are forms of the matcher and need none of this. Here is what cannot be listed as forms:
//! an encoding within an encoding, compression, and texts of which every character is escaped.

mod find;
mod inflate;
mod kinds;
mod packed;
mod run;
mod unzstd;
mod zip;

#[cfg(test)]
mod tests;

pub use find::prepare;

use super::ages::Ages;
use super::sink::Sink;
use find::{CARRY, Found};
pub use kinds::{Encoding, Kind, is_between};
pub use packed::Packed;
use run::Run;
use zeroize::Zeroizing;

/// What is encoded in the bytes of one text.
#[derive(Default)]
pub struct Coded {
    /// The last bytes while nothing is being decoded: a run may have begun in them.
    carry: Zeroizing<Vec<u8>>,
    ages: Ages,
    run: Option<Box<Run>>,
    packed: Option<Box<Packed>>,
    /// The next bytes begin a message.
    fresh: bool,
    /// Decoding was given up between two payloads.
    lost: bool,
}

impl Coded {
    pub fn message() -> Self {
        Self {
            fresh: true,
            ..Self::default()
        }
    }

    /// A message begins with the next bytes; nothing that is encoded goes on in it.
    pub fn begin_message(&mut self) {
        if self.run.is_none() && self.packed.is_none() {
            self.carry = Zeroizing::default();
            self.ages.clear();
            self.fresh = true;
        }
    }

    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if std::mem::take(&mut self.lost) {
            sink.undecoded.lost += 1;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(packed) = &mut self.packed {
                let mut used = packed.push(rest, sink);
                if packed.is_over() {
                    // It was none from its first byte on, which is not inspected again.
                    used += usize::from(used == 0 && !packed.has_made());
                    self.packed = None;
                }
                rest = &rest[used.min(rest.len())..];
                continue;
            }
            if let Some(run) = &mut self.run {
                let used = run.push(rest, sink);
                if used == rest.len() && !run.is_over() {
                    return;
                }
                run.end(sink);
                self.run = None;
                rest = &rest[used..];
                continue;
            }
            rest = self.scan(rest, sink);
        }
    }

    /// Looks for the beginning of something encoded. What is behind it, or nothing.
    fn scan<'b>(&mut self, rest: &'b [u8], sink: &mut Sink<'_>) -> &'b [u8] {
        // What is carried then is the message's first byte, or nothing.
        let fresh = std::mem::take(&mut self.fresh);
        let Some((at, found)) = find::first(&self.carry, rest, fresh) else {
            // A message's first byte alone tells nothing.
            self.fresh = fresh && self.carry.len() + rest.len() < 2;
            self.keep(rest, sink.now);
            return &[];
        };
        let carry = std::mem::take(&mut self.carry);
        self.ages.clear();
        // `at` counts from the beginning of the carried bytes.
        let early = carry.get(at..).unwrap_or_default();
        let late = at.saturating_sub(carry.len());
        match found {
            Found::Packed(encoding) => {
                let mut packed = Box::new(Packed::new(encoding));
                if !early.is_empty() {
                    packed.push(early, sink);
                }
                self.packed = (!packed.is_over()).then_some(packed);
            }
            Found::Run(kind) => {
                let mut run = Box::new(Run::new(kind));
                run.push(early, sink);
                self.run = Some(run);
            }
        }
        &rest[late..]
    }

    fn keep(&mut self, rest: &[u8], now: u64) {
        let mut kept = super::encode::buffer(CARRY);
        let old = CARRY.saturating_sub(rest.len()).min(self.carry.len());
        self.ages.came(now, rest.len());
        kept.extend_from_slice(&self.carry[self.carry.len() - old..]);
        kept.extend_from_slice(&rest[rest.len().saturating_sub(CARRY)..]);
        self.carry = kept;
    }

    /// The text ends.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        if let Some(run) = &mut self.run {
            run.end(sink);
        }
        if let Some(packed) = &mut self.packed {
            packed.end(sink);
        }
        *self = Self::default();
    }

    /// Forgets bytes that came a second ago (`ages`). `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        if !self.carry.is_empty() {
            let old = self.carry.len().saturating_sub(self.ages.young(now));
            if old > 0 {
                self.carry = super::encode::copy(&self.carry[old..]);
                self.fresh = false;
            }
        }
        if let Some(run) = &mut self.run {
            run.expire(now);
        }
        self.lost |= Packed::expire(&mut self.packed, now);
    }

    /// Forgets all bytes.
    pub fn wipe(&mut self) {
        let lost = self.lost || self.packed.as_ref().is_some_and(|p| p.has_output());
        *self = Self {
            lost,
            fresh: self.fresh,
            ..Self::default()
        };
    }

    /// Bytes kept.
    pub fn kept(&self) -> usize {
        self.carry.len()
            + self.run.as_ref().map_or(0, |run| run.kept())
            + self.packed.as_ref().map_or(0, |packed| packed.kept())
    }
}
