//! What is remembered by name, within bounds of number and bytes: what was used longest ago goes first.
//!
//! What was learned in days is worth more than what came a moment ago, and whoever wants it forgotten can make any number of
//! the latter. So there are two ranks: what is established goes only where the others take no more than a quarter.

use std::collections::{BTreeMap, BTreeSet};

/// What a table needs to know of what it keeps.
pub(crate) trait Remembered: Default {
    /// Bytes it takes, about, its name not included.
    fn bytes(&self) -> usize;

    /// It took long to learn.
    fn is_established(&self) -> bool {
        false
    }
}

/// Of an entry itself and its place in the order.
const OVERHEAD: usize = 160;

#[derive(Default)]
struct Entry<V> {
    value: V,
    used_ns: i64,
    established: bool,
    bytes: usize,
}

/// The entries of one rank.
#[derive(Default)]
struct Rank {
    /// By the time of their last use.
    order: BTreeSet<(i64, String)>,
    bytes: usize,
}

pub(crate) struct Recent<V> {
    most: usize,
    most_bytes: usize,
    entries: BTreeMap<String, Entry<V>>,
    passing: Rank,
    established: Rank,
}

impl<V: Remembered> Recent<V> {
    pub fn new(most: usize, most_bytes: usize) -> Recent<V> {
        Recent {
            most,
            most_bytes,
            entries: BTreeMap::new(),
            passing: Rank::default(),
            established: Rank::default(),
        }
    }

    pub fn get(&self, name: &str) -> Option<&V> {
        self.entries.get(name).map(|entry| &entry.value)
    }

    /// For what changes nothing of its bytes and its rank.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.entries.get_mut(name).map(|entry| &mut entry.value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name, &entry.value))
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.passing.bytes + self.established.bytes
    }

    /// Changes what is known under a name, or begins it. What had to go for it comes back, in the order in which it went.
    pub fn change(
        &mut self,
        name: &str,
        now_ns: i64,
        change: impl FnOnce(&mut V),
    ) -> Vec<(String, V)> {
        let mut entry = self.take(name).unwrap_or_else(|| Entry {
            used_ns: now_ns,
            ..Entry::default()
        });
        change(&mut entry.value);
        entry.used_ns = entry.used_ns.max(now_ns);
        self.put(name.to_owned(), entry);
        self.make_room()
    }

    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.take(name).map(|entry| entry.value)
    }

    fn rank(&mut self, established: bool) -> &mut Rank {
        if established {
            &mut self.established
        } else {
            &mut self.passing
        }
    }

    fn take(&mut self, name: &str) -> Option<Entry<V>> {
        let (name, entry) = self.entries.remove_entry(name)?;
        let rank = self.rank(entry.established);
        rank.bytes = rank.bytes.saturating_sub(entry.bytes);
        rank.order.remove(&(entry.used_ns, name));
        Some(entry)
    }

    fn put(&mut self, name: String, mut entry: Entry<V>) {
        entry.established = entry.value.is_established();
        entry.bytes = entry.value.bytes() + 2 * name.len() + OVERHEAD;
        let rank = self.rank(entry.established);
        rank.bytes += entry.bytes;
        rank.order.insert((entry.used_ns, name.clone()));
        self.entries.insert(name, entry);
    }

    fn make_room(&mut self) -> Vec<(String, V)> {
        let mut gone = Vec::new();
        while self.passing.bytes + self.established.bytes > self.most_bytes
            || self.entries.len() > self.most
        {
            let few = self.passing.bytes <= self.most_bytes / 4
                && self.passing.order.len() <= self.most / 4;
            let rank = if few && !self.established.order.is_empty() {
                &self.established
            } else {
                &self.passing
            };
            let Some((_, name)) = rank.order.first().cloned() else {
                break;
            };
            if let Some(entry) = self.take(&name) {
                gone.push((name, entry.value));
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Text(String, bool);

    impl Remembered for Text {
        fn bytes(&self) -> usize {
            self.0.len()
        }

        fn is_established(&self) -> bool {
            self.1
        }
    }

    fn put(table: &mut Recent<Text>, name: &str, at: i64, established: bool) -> Vec<String> {
        let gone = table.change(name, at, |text| {
            *text = Text("x".repeat(840 - 2 * name.len()), established)
        });
        gone.into_iter().map(|(name, _)| name).collect()
    }

    /// Each entry is of a thousand bytes.
    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut table = Recent::new(100, 4_000);
        for (at, name) in ["d", "c", "b", "a"].into_iter().enumerate() {
            assert!(put(&mut table, name, at as i64, false).is_empty());
        }
        assert_eq!(table.bytes(), 4_000);
        assert!(put(&mut table, "d", 10, false).is_empty(), "it is known");
        assert_eq!(put(&mut table, "e", 11, false), ["c"]);
        assert!(table.remove("d").is_some() && table.get("d").is_none());
        assert_eq!(table.bytes(), 3_000);
        let mut few = Recent::new(2, usize::MAX);
        put(&mut few, "a", 1, false);
        put(&mut few, "b", 2, false);
        assert_eq!(put(&mut few, "c", 3, false), ["a"]);
    }

    #[test]
    fn what_came_a_moment_ago_does_not_push_out_what_was_learned() {
        let mut table = Recent::new(100, 4_000);
        for name in ["a", "b", "c"] {
            put(&mut table, name, 1, true);
        }
        put(&mut table, "x", 2, false);
        assert_eq!(put(&mut table, "y", 3, false), ["x"]);
        assert_eq!(put(&mut table, "z", 4, false), ["y"]);
        // A quarter is theirs.
        assert_eq!(put(&mut table, "d", 5, true), ["a"]);
        assert!(table.get("z").is_some());
    }
}
