//! The keyed hash of a window of [`WIDTH`] bytes, taken at every position of a payload.
//!
//! It is computed anew at each position instead of being rolled: a 64-bit load, a multiplication and a
//! fold do not depend on the position before, so the processor overlaps them, where a rolling
//! recurrence would wait for itself at every byte.

use super::strength::distinct;

/// Bytes in a window.
pub const WIDTH: usize = 8;

/// How far into a form its window may begin, as long as there is a good one: it bounds the bytes of a
/// connection that have to be kept for secrets split over two writes.
pub const LEAD: usize = 256;

/// Multipliers of the hash, derived from the agent's key.
pub struct WindowHash {
    add: u64,
    multiply: u64,
}

impl WindowHash {
    pub fn new(seed: [u8; 16]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| seed[at + i]));
        Self {
            add: word(0),
            multiply: word(8) | 1,
        }
    }

    /// 32 bits only: the table must tell little about the eight bytes, even to who has the key.
    #[inline(always)]
    pub fn hash(&self, window: u64) -> u32 {
        let product = u128::from(window ^ self.add) * u128::from(self.multiply);
        (((product >> 64) as u64 ^ product as u64) >> 32) as u32
    }

    #[inline(always)]
    pub fn hash_bytes(&self, window: [u8; WIDTH]) -> u32 {
        self.hash(u64::from_le_bytes(window))
    }
}

/// The window at `at`, which the caller knows to be inside.
pub fn window_at(text: &[u8], at: usize) -> Option<[u8; WIDTH]> {
    text.get(at..at + WIDTH)?.try_into().ok()
}

/// Best place of a form's window between `from` and `to` (inclusive): not yet `taken` by another form, many
/// different bytes, late (tokens of one kind share their beginnings).
pub fn best(
    text: &[u8],
    from: usize,
    to: usize,
    taken: impl Fn([u8; WIDTH]) -> bool,
) -> Option<usize> {
    let last = to.min(text.len().checked_sub(WIDTH)?);
    let place = (from..=last)
        .filter_map(|at| window_at(text, at).map(|window| (!taken(window), distinct(&window), at)))
        .max()?;
    // A window such as `--------` would be met everywhere.
    (place.1 >= 4).then_some(place.2)
}
