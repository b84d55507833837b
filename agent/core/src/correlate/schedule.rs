//! What of many things is to be inspected when: a tick costs what is due, however many there are.

use std::collections::BTreeSet;

/// Keys by the moments at which something is to be done, nanoseconds since boot.
#[derive(Debug)]
pub struct Schedule<K> {
    /// To be decided.
    pub due: BTreeSet<(u64, K)>,
    /// To be inspected whether they are idle.
    pub idle: BTreeSet<(u64, K)>,
    /// To be forgotten when they are decided, since something else has taken their place.
    pub replaced: BTreeSet<K>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            idle: BTreeSet::new(),
            replaced: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Copy> Schedule<K> {
    /// What is to be decided by then, in the order of keys.
    pub fn due_by(&self, boot_ns: u64) -> Vec<K> {
        let due = self.due.iter().take_while(|(due_ns, _)| *due_ns <= boot_ns);
        let mut keys: Vec<K> = due.map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// What is to be inspected by then.
    pub fn idle_by(&self, boot_ns: u64) -> Vec<(u64, K)> {
        let idle = self.idle.iter().copied();
        idle.take_while(|(idle_ns, _)| *idle_ns <= boot_ns)
            .collect()
    }

    /// Nothing is to be done with it any more.
    pub fn forget(&mut self, key: K, due_ns: Option<u64>, idle_ns: u64) {
        if let Some(due_ns) = due_ns {
            self.due.remove(&(due_ns, key));
        }
        self.idle.remove(&(idle_ns, key));
        self.replaced.remove(&key);
    }
}
