//! Which window hashes are certainly not in the table: a Bloom filter of three bits within one word.

/// At least this many bits an entry, up to the largest size.
const BITS_PER_ENTRY: usize = 32;
/// 512 KiB: what is used of it stays in a core's second-level cache.
const MAX_WORDS: usize = 1 << 16;
const MIN_WORDS: usize = 1 << 8;

pub struct Filter {
    /// All words a 16-bit index can reach, so that the hot loop needs no bounds check; only the first
    /// `mask + 1` are ever touched.
    words: Box<[u64; MAX_WORDS]>,
    mask: u16,
}

impl Filter {
    pub fn new(entries: usize) -> Self {
        let words = (entries * BITS_PER_ENTRY / 64)
            .next_power_of_two()
            .clamp(MIN_WORDS, MAX_WORDS);
        let zeros = vec![0; MAX_WORDS].into_boxed_slice();
        let Ok(zeros) = zeros.try_into() else {
            unreachable!("the length is the array's")
        };
        Self {
            words: zeros,
            mask: (words - 1) as u16,
        }
    }

    /// Would a filter for this many entries be a larger one?
    pub fn is_tight(&self, entries: usize) -> bool {
        let words = usize::from(self.mask) + 1;
        words < MAX_WORDS && entries * BITS_PER_ENTRY > words * 64
    }

    pub fn insert(&mut self, hash: u32) {
        self.words[self.index(hash)] |=
            1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 10 & 63);
    }

    /// 1 when the hash may be in the table, 0 when it is not.
    #[inline(always)]
    pub fn test(&self, hash: u32) -> u32 {
        let word = self.words[self.index(hash)];
        (word >> (hash & 63) & word >> (hash >> 6 & 63) & word >> (hash >> 10 & 63)) as u32 & 1
    }

    pub fn may_contain(&self, hash: u32) -> bool {
        self.test(hash) == 1
    }

    /// By the high bits; the low sixteen choose the three bits in the word.
    #[inline(always)]
    fn index(&self, hash: u32) -> usize {
        usize::from((hash >> 16) as u16 & self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_what_was_put_in_and_little_else() {
        let hash = |i: u32| {
            i.wrapping_mul(0x9e37_79b9)
                .rotate_left(15)
                .wrapping_mul(0x85eb_ca6b)
        };
        for entries in [10, 5_000, 120_000] {
            let mut filter = Filter::new(entries);
            assert!(!filter.is_tight(entries));
            (0..entries as u32).for_each(|i| filter.insert(hash(i)));
            assert!((0..entries as u32).all(|i| filter.may_contain(hash(i))));
            let wrong = (1 << 20..(1 << 20) + 100_000)
                .filter(|&i| filter.may_contain(hash(i)))
                .count();
            assert!(wrong < 3_000, "{wrong} of 100000 with {entries} entries");
        }
    }
}
