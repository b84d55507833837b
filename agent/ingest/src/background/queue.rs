//! What waits to be inspected: every file once, however often it is written, and in the order in which it came.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Files that may wait; what comes beyond is counted.
const MAX_WAITING: usize = 32_768;
/// Files whose last look is remembered.
const MAX_RECENT: usize = 4_096;
/// A file is inspected so long after its first news: it is often written in several goes, or renamed.
const QUIET_NS: u64 = 150_000_000;
/// Between two inspections of one file lies at least this, and [`SHARE`] times what the last look took.
const AGAIN_NS: u64 = 500_000_000;
const SHARE: u64 = 50;
/// Stands for several writers.
const MANY: u32 = u32::MAX;

/// Who wrote a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// 0 when that is not known.
    pub pid: u32,
    /// When the first news of it came, nanoseconds since boot: a process that began later is another one, whatever its number.
    pub at_ns: u64,
}

/// One file that waits.
#[derive(Debug)]
struct Waiting<K> {
    key: K,
    due_ns: u64,
}

#[derive(Debug)]
pub struct Queue<K> {
    /// By time.
    ready: VecDeque<Waiting<K>>,
    /// Inspected a moment ago: they wait longer.
    later: Vec<Waiting<K>>,
    /// And who wrote it, until then.
    waiting: HashMap<K, By>,
    recent: HashMap<K, u64>,
    /// News that found no room.
    pub dropped: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new() -> Self {
        Queue {
            ready: VecDeque::new(),
            later: Vec::new(),
            waiting: HashMap::new(),
            recent: HashMap::new(),
            dropped: 0,
        }
    }

    /// News of a file; `pid` wrote it (0: nobody knows). Of several that wrote it before it is inspected, none is known to
    /// have made what is found.
    pub fn push(&mut self, key: K, pid: u32, now_ns: u64) {
        let by = By { pid, at_ns: now_ns };
        if let Some(known) = self.waiting.get_mut(&key) {
            if known.pid == 0 {
                *known = by;
            } else if pid != 0 && known.pid != pid {
                known.pid = MANY;
            }
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            return;
        }
        self.waiting.insert(key.clone(), by);
        let due_ns = now_ns + QUIET_NS;
        let allowed = self.recent.get(&key).copied().unwrap_or(0);
        if allowed > due_ns {
            self.later.push(Waiting {
                key,
                due_ns: allowed,
            });
        } else {
            self.ready.push_back(Waiting { key, due_ns });
        }
    }

    /// The next file whose time has come, and who wrote it.
    pub fn next(&mut self, now_ns: u64) -> Option<(K, By)> {
        // Few files are written again and again.
        let late = self.later.iter().position(|w| w.due_ns <= now_ns);
        let next = match late {
            Some(at) => Some(self.later.swap_remove(at)),
            None if self.ready.front().is_some_and(|w| w.due_ns <= now_ns) => {
                self.ready.pop_front()
            }
            None => None,
        }?;
        let mut by = self.waiting.remove(&next.key).unwrap_or_default();
        if by.pid == MANY {
            by.pid = 0;
        }
        Some((next.key, by))
    }

    /// A file was inspected, which took so long.
    pub fn inspected(&mut self, key: K, now_ns: u64, took_ns: u64) {
        if self.recent.len() >= MAX_RECENT {
            self.recent.retain(|_, allowed| *allowed > now_ns);
            if self.recent.len() >= MAX_RECENT {
                self.recent.clear();
            }
        }
        let wait = AGAIN_NS.max(took_ns.saturating_mul(SHARE));
        self.recent.insert(key, now_ns + wait);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn next<K: Clone + Eq + Hash>(queue: &mut Queue<K>, now_ns: u64) -> Option<(K, u32)> {
        queue.next(now_ns).map(|(key, by)| (key, by.pid))
    }

    #[test]
    fn a_writer_is_known_from_its_first_news_on() {
        let mut queue = Queue::new();
        queue.push("a", 7, 5 * MS);
        queue.push("a", 7, 90 * MS);
        queue.push("b", 0, 6 * MS);
        queue.push("b", 8, 80 * MS);
        let by = |pid, at| By {
            pid,
            at_ns: at * MS,
        };
        assert_eq!(queue.next(900 * MS), Some(("a", by(7, 5))));
        assert_eq!(queue.next(900 * MS), Some(("b", by(8, 80))));
    }

    #[test]
    fn many_writes_are_one_look() {
        let mut queue = Queue::new();
        for i in 0..100 {
            queue.push("a", 7, i * MS);
        }
        queue.push("b", 8, 10 * MS);
        assert_eq!(next(&mut queue, 149 * MS), None);
        assert_eq!(next(&mut queue, 150 * MS), Some(("a", 7)));
        assert_eq!(next(&mut queue, 150 * MS), None);
        assert_eq!(next(&mut queue, 160 * MS), Some(("b", 8)));
        assert!(queue.is_empty());
    }

    #[test]
    fn the_maker_of_a_file_with_several_writers_is_not_the_first() {
        let mut queue = Queue::new();
        for (file, writer) in [
            ("two", 7),
            ("two", 8),
            ("two", 7),
            ("one", 7),
            ("one", 0),
            ("late", 0),
            ("late", 9),
        ] {
            queue.push(file, writer, 0);
        }
        let mut made = Vec::new();
        made.extend(std::iter::from_fn(|| next(&mut queue, 150 * MS)));
        assert_eq!(made, [("two", 0), ("one", 7), ("late", 9)]);
    }

    #[test]
    fn a_file_that_costs_much_is_inspected_seldom() {
        let mut queue = Queue::new();
        queue.inspected("log", 0, 40 * MS);
        queue.push("log", 1, MS);
        queue.push("other", 1, MS);
        assert_eq!(next(&mut queue, 1_000 * MS), Some(("other", 1)));
        assert_eq!(next(&mut queue, 1_999 * MS), None);
        assert_eq!(next(&mut queue, 2_000 * MS), Some(("log", 1)));
    }

    #[test]
    fn a_storm_is_bounded_and_counted() {
        let mut queue = Queue::new();
        for i in 0..MAX_WAITING + 5 {
            queue.push(i, 1, 0);
        }
        assert_eq!((queue.waiting.len(), queue.dropped), (MAX_WAITING, 5));
        for i in 0..2 * MAX_RECENT {
            queue.inspected(i, 0, 0);
        }
        assert!(queue.recent.len() <= MAX_RECENT);
    }
}
