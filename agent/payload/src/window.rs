//! The keyed hash of a window of [`WIDTH`] bytes, taken at every position of a payload.
//!
//! It is computed anew at each position instead of being rolled: a 64-bit load, a multiplication and a
//! fold do not depend on the position before, so the processor overlaps them, where a rolling
//! recurrence would wait for itself at every byte.

/// Bytes in a window.
pub const WIDTH: usize = 8;

/// How far into a secret its window may begin, as long as there is a good one: it bounds the bytes of a
/// connection that have to be kept for secrets split over two writes.
pub const LEAD: usize = 256;

/// Payloads are inspected in steps of this many bytes, so a form needs that many windows in a row: one of them
/// begins at a step wherever the form begins.
pub const STEP: usize = 2;
/// Bytes that the windows in a row cover: the shortest text that can be found.
pub const SPAN: usize = WIDTH + STEP - 1;

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

    /// Multiply-shift (Dietzfelbinger et al. 1997): with a random odd multiplier two windows collide with a
    /// probability of about 2^-31. 32 bits only: the table must tell little about the eight bytes, even to
    /// who has the key.
    #[inline(always)]
    pub fn hash(&self, window: u64) -> u32 {
        ((window ^ self.add).wrapping_mul(self.multiply) >> 32) as u32
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

/// Number of different byte values.
pub fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [0u64; 4];
    for &byte in bytes {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|word| word.count_ones() as usize).sum()
}

/// Fewest different bytes in a window: one such as `--------` would be seen everywhere.
const DISTINCT: usize = 4;

/// Best place of a form's [`STEP`] windows, the first one between `from` and `to` (inclusive): not yet `taken` by another form, many
/// different bytes, late (tokens of one kind share their beginnings).
pub fn best(
    text: &[u8],
    from: usize,
    to: usize,
    taken: impl Fn([u8; WIDTH]) -> bool,
) -> Option<usize> {
    best_of(text, from, to, DISTINCT, taken)
}

/// As [`best`], with other demands.
pub fn best_of(
    text: &[u8],
    from: usize,
    to: usize,
    fewest: usize,
    taken: impl Fn([u8; WIDTH]) -> bool,
) -> Option<usize> {
    let last = to.min(text.len().checked_sub(SPAN)?);
    let informative = (from..=last).filter_map(|at| {
        let window = window_at(text, at)?;
        let distinct = distinct(&window);
        (distinct >= fewest).then(|| (!taken(window), distinct, at))
    });
    informative.max().map(|(_, _, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_telling_then_untaken_then_varied_then_late() {
        assert_eq!(best(b"aaaaaaaaaaaaaaaa", 0, 99, |_| false), None);
        assert_eq!(best(b"abcdefgh--------", 0, 99, |_| false), Some(1));
        assert_eq!(best(b"abcdefghijklmnop", 0, 99, |_| false), Some(7));
        assert_eq!(best(b"abcdefghijklmnop", 0, 3, |_| false), Some(3));
        assert_eq!(
            best(b"abcdefghijklmnop", 0, 99, |w| w == *b"hijklmno"),
            Some(6)
        );
        // All telling ones taken: one of them, rather than a monotonous one that is not.
        assert_eq!(
            best(b"abcdefgh--------", 0, 99, |w| distinct(&w) >= DISTINCT),
            Some(1)
        );
        assert_eq!(best(b"short", 0, 99, |_| false), None);
    }

    #[test]
    fn every_byte_and_the_key_change_the_hash() {
        let hash = WindowHash::new([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]);
        let other = WindowHash::new([2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5]);
        let base = *b"w7Rk2ZpQ";
        assert_ne!(hash.hash_bytes(base), other.hash_bytes(base));
        for at in 0..WIDTH {
            let mut changed = base;
            changed[at] ^= 1;
            assert_ne!(hash.hash_bytes(base), hash.hash_bytes(changed), "byte {at}");
        }
    }
}
