//! Opens that may still become reads.

use keytrail_model::{FileSeen, Pid};
use std::collections::{BTreeMap, VecDeque};

/// An open without a read for this long is reported as just that.
const OPEN_DELAY_NS: u64 = 1_000_000_000;
/// Opens kept at most.
const MAX_OPENS: usize = 65_536;

/// Process, device, inode.
pub(super) type Key = (Pid, u64, u64);

#[derive(Default)]
pub(super) struct Opens {
    waiting: BTreeMap<Key, (u64, FileSeen)>,
    /// When each is due. What became a read meanwhile is still named here.
    due: VecDeque<(u64, Key)>,
}

impl Opens {
    pub fn contains(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// Notes an open; false when there is no room for it.
    pub fn insert(&mut self, key: Key, seen: FileSeen) -> bool {
        if self.waiting.len() >= MAX_OPENS || self.due.len() >= 2 * MAX_OPENS {
            return false;
        }
        let due_ns = seen.at.boot_ns.saturating_add(OPEN_DELAY_NS);
        self.waiting.insert(key, (due_ns, seen));
        self.due.push_back((due_ns, key));
        true
    }

    pub fn remove(&mut self, key: &Key) -> Option<FileSeen> {
        self.waiting.remove(key).map(|(_, seen)| seen)
    }

    /// Takes those that were not followed by a read.
    pub fn take_due(&mut self, boot_ns: u64) -> Vec<(Key, FileSeen)> {
        let mut taken = Vec::new();
        while let Some((due_ns, key)) = self.due.front().copied()
            && due_ns <= boot_ns
        {
            self.due.pop_front();
            if self
                .waiting
                .get(&key)
                .is_some_and(|(due, _)| *due == due_ns)
            {
                taken.extend(self.remove(&key).map(|seen| (key, seen)));
            }
        }
        taken.sort_by_key(|(key, _)| *key);
        taken
    }

    /// Takes those of a process that goes away.
    pub fn take_process(&mut self, pid: Pid) -> Vec<(Key, FileSeen)> {
        let of = self.waiting.range((pid, 0, 0)..=(pid, u64::MAX, u64::MAX));
        let keys: Vec<Key> = of.map(|(key, _)| *key).collect();
        keys.into_iter()
            .filter_map(|key| Some((key, self.remove(&key)?)))
            .collect()
    }
}
