//! Which window hashes are certainly not in the table: a Bloom filter of two bits within one word.

/// At least this many bits an entry.
const BITS_PER_ENTRY: usize = 32;
/// 2^16 words are 512 KiB: they stay in a core's second-level cache.
const MAX_LOG_WORDS: u32 = 16;
const MIN_LOG_WORDS: u32 = 8;

pub struct Filter {
    words: Vec<u64>,
    shift: u32,
}

impl Filter {
    pub fn new(entries: usize) -> Self {
        let words = (entries * BITS_PER_ENTRY / 64).next_power_of_two();
        let log = words.ilog2().clamp(MIN_LOG_WORDS, MAX_LOG_WORDS);
        Self {
            words: vec![0; 1 << log],
            shift: 32 - log,
        }
    }

    /// Would a filter for this many entries be a larger one?
    pub fn is_tight(&self, entries: usize) -> bool {
        self.shift > 32 - MAX_LOG_WORDS && entries * BITS_PER_ENTRY > self.words.len() * 64
    }

    pub fn insert(&mut self, hash: u32) {
        let index = (hash >> self.shift) as usize;
        if let Some(word) = self.words.get_mut(index) {
            *word |= mask(hash);
        }
    }

    #[inline(always)]
    pub fn may_contain(&self, hash: u32) -> bool {
        let mask = mask(hash);
        self.words
            .get((hash >> self.shift) as usize)
            .is_some_and(|word| word & mask == mask)
    }
}

/// The low 12 bits choose two bits; the word is chosen by the high ones.
#[inline(always)]
fn mask(hash: u32) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63)
}
