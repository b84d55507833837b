//! What is kept between two payloads of one connection.

use crate::ages::Ages;
use zeroize::Zeroizing;

/// Most bytes kept of a connection: a whole form with line breaks, short of one byte.
pub const TAIL_MAX: usize = 48 * 1024;
/// Most candidates that wait for the rest of their bytes on one connection.
pub const PENDING_MAX: usize = 64;

/// The last bytes of a connection, as far as a secret may have begun in them. Wiped on drop.
#[derive(Default)]
pub struct StreamTail {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) pending: Vec<Pending>,
    /// The byte before `bytes` may belong to a word that goes on in them.
    pub(super) joined: bool,
    ages: Ages,
}

/// A window was seen whose form is not complete yet.
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

impl Pending {
    /// So many bytes before it went.
    pub fn moves(&mut self, bytes: usize) {
        self.at -= bytes;
        self.start -= bytes;
        self.need -= bytes;
    }
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
        let young = self.ages.young(now);
        let old = self.bytes.len().saturating_sub(young);
        if old == 0 {
            return;
        }
        self.joined = super::boundary::may_be_continued(&self.bytes[..old]);
        self.bytes = super::encode::copy(&self.bytes[old..]);
        self.pending.retain_mut(|p| {
            let whole = p.start >= old;
            if whole {
                p.moves(old);
            }
            whole
        });
    }

    /// So many bytes came. `now` in nanoseconds since boot.
    pub fn came(&mut self, now: u64, bytes: usize) {
        self.ages.came(now, bytes);
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
