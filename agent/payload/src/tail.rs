//! What is kept between two payloads of one connection.

use std::collections::VecDeque;
use zeroize::Zeroizing;

/// Most bytes kept of a connection: a whole form with line breaks, short of one byte.
pub const TAIL_MAX: usize = 48 * 1024;
/// Most candidates that wait for the rest of their bytes on one connection.
pub const PENDING_MAX: usize = 64;
/// Bytes of a connection are kept for this long, and what is idle for so long loses all of them: a secret written in two
/// halves further apart is not found, and none stays in memory for longer.
pub const WIPE_NS: u64 = 1_000_000_000;
/// Bytes that came within this time are of one age.
const AGE_NS: u64 = WIPE_NS / 10;

/// The last bytes of a connection, as far as a secret may have begun in them. Wiped on drop.
#[derive(Default)]
pub struct StreamTail {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) pending: Vec<Pending>,
    /// The byte before `bytes` may belong to a word that goes on in them.
    pub(super) joined: bool,
    /// When bytes came, and how many, the oldest first.
    ages: VecDeque<(u64, usize)>,
}

/// A window was met whose form is not complete yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub form: u32,
    pub offset: u32,
    /// Of the window in `bytes`.
    pub at: usize,
    /// Where the form begins in `bytes`.
    pub start: usize,
    /// Length of `bytes` from which on another look makes sense.
    pub need: usize,
}

impl StreamTail {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the bytes. All that is remembered is whether the last one may belong to a word.
    pub fn wipe(&mut self) {
        if !self.bytes.is_empty() {
            self.joined = super::boundary::may_be_continued(&self.bytes);
        }
        self.bytes = Zeroizing::default();
        self.pending = Vec::new();
        self.ages.clear();
    }

    /// Forgets bytes that came [`WIPE_NS`] ago: on a connection that is never idle they would stay until enough others have
    /// come. `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        while let Some((since, _)) = self.ages.front()
            && since.saturating_add(WIPE_NS) <= now
        {
            self.ages.pop_front();
        }
        let young: usize = self.ages.iter().map(|(_, bytes)| bytes).sum();
        let old = self.bytes.len().saturating_sub(young);
        if old == 0 {
            return;
        }
        self.joined = super::boundary::may_be_continued(&self.bytes[..old]);
        self.bytes = super::encode::copy(&self.bytes[old..]);
        self.pending.retain_mut(|p| {
            let whole = p.start >= old;
            if whole {
                p.at -= old;
                p.start -= old;
                p.need -= old;
            }
            whole
        });
    }

    /// So many bytes came. `now` in nanoseconds since boot.
    pub fn came(&mut self, now: u64, bytes: usize) {
        match self.ages.back_mut() {
            Some((since, count)) if now.saturating_sub(*since) < AGE_NS => *count += bytes,
            _ => self.ages.push_back((now, bytes)),
        }
    }

    /// As [`StreamTail::wipe`], when bytes that were not seen come next: they may end in a word.
    pub fn break_off(&mut self) {
        self.wipe();
        self.joined = true;
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl std::fmt::Debug for StreamTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTail")
            .field("len", &self.len())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
