//! The rings by importance: what must not be pushed out, what processes send, and files nobody has seen before. Each
//! loses its own records and no others.
//!
//! They are read as one, in order of time. A record that another one follows from was reserved before that one was
//! stamped: so what is stamped no later than the moment before the ends of the rings were noted has all its causes
//! below these ends.

pub use super::ring::{COUNT, MAIN, PAYLOADS};
use super::{
    ring::{End, Ring},
    wipe::Wiped,
};
use std::collections::HashSet;

/// Names of the maps. The last is of files that were not seen before.
pub const MAPS: [&str; COUNT] = ["RING", "PAYLOADS", "NEWS"];

/// Smallest ring that holds the largest record a few times over.
const MIN: u32 = 256 << 10;
const MAX: u32 = 256 << 20;

/// Part of a ring that is handed out before its room is given back.
const PART: u64 = 8;
/// Records of one ring are in order of time but for this much: one may be stamped, or reserved, and then its processor
/// do something else.
const SKEW_NS: u64 = 2_000_000;

/// Sizes of the rings, of which that of payloads is `bytes`, rounded up to a power of two.
pub fn sizes(bytes: u32) -> [u32; COUNT] {
    let size = |bytes: u32| bytes.clamp(MIN, MAX).next_power_of_two();
    [size(bytes / 2), size(bytes), size(bytes / 2)]
}

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    boot_ns: u64,
    ring: usize,
    position: u64,
    len: usize,
}

pub struct Rings {
    rings: [Ring; COUNT],
    pub wiped: [Wiped; COUNT],
    batch: Vec<Entry>,
    /// Records that were handed out before one that lies below them in their ring.
    ahead: HashSet<(usize, u64)>,
}

/// Up to where a drain goes: a moment, and the ends of the rings after it.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    boot_ns: u64,
    ends: [u64; COUNT],
}

impl Rings {
    pub fn new(rings: [Ring; COUNT]) -> Self {
        Self {
            rings,
            wiped: Default::default(),
            batch: Vec::new(),
            ahead: HashSet::new(),
        }
    }

    pub fn ring(&self, which: usize) -> &Ring {
        &self.rings[which]
    }

    /// Bytes of all rings that were reserved and not handed out yet.
    pub fn unread(&self) -> u64 {
        self.rings.iter().map(Ring::unread).sum()
    }

    /// All that has happened up to now.
    pub fn until_now(&self) -> Until {
        let boot_ns = keytrail_host::clock::boot_ns();
        Until {
            boot_ns,
            ends: std::array::from_fn(|which| self.rings[which].produced()),
        }
    }

    /// Hands out the records up to there, all rings together in order of time; stops early at one that is still being
    /// written. Returns how many.
    pub fn drain(&mut self, until: Until, sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        loop {
            let before: u64 = self.rings.iter().map(Ring::position).sum();
            let handed = self.part(&until, sink);
            count += handed;
            let after: u64 = self.rings.iter().map(Ring::position).sum();
            if handed == 0 && after == before {
                return count;
            }
        }
    }

    /// As much as gives room back in time.
    fn part(&mut self, until: &Until, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.batch.clear();
        let mut cut = until.boot_ns;
        let mut full = false;
        let mut back = [0; COUNT];
        for (which, ring) in self.rings.iter_mut().enumerate() {
            let (batch, ahead) = (&mut self.batch, &self.ahead);
            let mut last = 0;
            let part = ring.size() / PART;
            let scan = ring.scan(until.ends[which], part, &mut |position, bytes| {
                last = boot_ns(bytes);
                if !ahead.contains(&(which, position)) {
                    batch.push(Entry {
                        boot_ns: last,
                        ring: which,
                        position,
                        len: bytes.len(),
                    });
                }
            });
            back[which] = scan.position;
            full |= scan.end == End::Full;
            if scan.end != End::Reached {
                // What lies behind is later, or nearly so.
                cut = cut.min(last.saturating_sub(SKEW_NS));
            }
        }
        // Stable: records of one ring with the same time keep their order.
        self.batch.sort_by_key(|entry| entry.boot_ns);
        let mut keep = self.batch.partition_point(|entry| entry.boot_ns <= cut);
        if keep == 0 && full {
            // A part of a ring is of one moment: there is no better order.
            keep = self.batch.len();
        }
        let (now, later) = self.batch.split_at(keep);
        for entry in now {
            sink(self.rings[entry.ring].record(entry.position, entry.len));
        }
        // Room is given back below the first record that was not handed out.
        for entry in later {
            back[entry.ring] = back[entry.ring].min(entry.position);
        }
        self.ahead.extend(
            now.iter()
                .filter(|entry| entry.position >= back[entry.ring])
                .map(|entry| (entry.ring, entry.position)),
        );
        self.ahead
            .retain(|(ring, position)| *position >= back[*ring]);
        for (ring, position) in self.rings.iter_mut().zip(back) {
            ring.consume(position);
        }
        keep
    }
}

fn boot_ns(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(super::number(
        bytes,
        std::mem::offset_of!(keytrail_abi::Header, boot_ns),
    ))
}
