//! How old the bytes are that are kept of a text.

use std::collections::VecDeque;

/// Bytes of a connection are kept for this long, and what is idle for so long loses all of them: a secret written in two
/// halves further apart is not found, and none stays in memory for longer.
pub const WIPE_NS: u64 = 1_000_000_000;
/// Bytes that came within this time are of one age.
const STEP_NS: u64 = WIPE_NS / 10;

/// When bytes came, nanoseconds since boot, and how many, the oldest first.
#[derive(Default)]
pub struct Ages(VecDeque<(u64, usize)>);

impl Ages {
    pub fn came(&mut self, now: u64, bytes: usize) {
        match self.0.back_mut() {
            Some((since, count)) if now.saturating_sub(*since) < STEP_NS => *count += bytes,
            _ => self.0.push_back((now, bytes)),
        }
    }

    /// How many of the last bytes came within [`WIPE_NS`]. What is older is forgotten.
    pub fn young(&mut self, now: u64) -> usize {
        while let Some((since, _)) = self.0.front()
            && since.saturating_add(WIPE_NS) <= now
        {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
