//! What is kept between two payloads of one connection.

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

    /// Forgets the bytes: what comes next does not follow them.
    pub fn wipe(&mut self) {
        self.bytes = Zeroizing::default();
        self.pending = Vec::new();
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
