//! Whether a planted secret is anywhere it must not be: files, memory, mapped rings, core images.

mod files;
mod memory;
mod needles;

pub use files::FileReport;
pub use memory::MemoryReport;

use crate::plant::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use std::collections::BTreeSet;

/// Searches for all forms of all secrets at once.
pub struct Scanner {
    automaton: AhoCorasick,
    labels: Vec<String>,
    /// Length of the longest form.
    longest: usize,
}

impl Scanner {
    /// Learns the raw, base64, hex, percent, JSON and UTF-16 forms of each secret, and pieces of the first three.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Self {
        let needles = needles::of(secrets);
        assert!(!needles.is_empty(), "nothing to search for");
        let longest = needles.iter().map(|n| n.bytes.len()).max().unwrap_or(1);
        Self {
            // The whole secret is named rather than a piece of it.
            automaton: AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(needles.iter().map(|n| &n.bytes))
                .unwrap(),
            labels: needles.into_iter().map(|n| n.label).collect(),
            longest,
        }
    }

    /// Labels of what is in `bytes`.
    fn find(&self, bytes: &[u8], found: &mut BTreeSet<String>, place: &str) {
        for hit in self.automaton.find_iter(bytes) {
            // A leak may be there ten thousand times.
            if found.len() >= 50 {
                return;
            }
            found.insert(format!("{} in {place}", self.labels[hit.pattern()]));
        }
    }
}

/// Reads a stream in pieces that overlap by the longest form, so that nothing is missed at the seams.
struct Pieces<'a> {
    scanner: &'a Scanner,
    buffer: Vec<u8>,
}

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

impl<'a> Pieces<'a> {
    fn new(scanner: &'a Scanner) -> Self {
        Self {
            scanner,
            buffer: Vec::with_capacity(PIECE + scanner.longest),
        }
    }

    fn feed(&mut self, bytes: &[u8], found: &mut BTreeSet<String>, place: &str) {
        self.buffer.extend_from_slice(bytes);
        self.scanner.find(&self.buffer, found, place);
        let keep = self.buffer.len().min(self.scanner.longest - 1);
        self.buffer.drain(..self.buffer.len() - keep);
    }

    /// What comes next does not follow what came before.
    fn cut(&mut self) {
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests;
