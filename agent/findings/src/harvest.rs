//! How many credentials one process, or its parent by several children, read from files within a minute.

use crate::facts::Facts;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const WINDOW_NS: i64 = 60_000_000_000;
/// Processes that are remembered, and reads of each.
const MOST: usize = 4096;
const MOST_READS: usize = 64;

#[derive(Default)]
struct Reads {
    /// Time, kind and fingerprint.
    list: VecDeque<(i64, String, String)>,
    last_ns: i64,
}

#[derive(Default)]
pub(crate) struct Harvest {
    reads: BTreeMap<String, Reads>,
    /// When room was made last: not for every event.
    forgot_ns: i64,
}

impl Harvest {
    /// Takes a read in; gives how many kinds and credentials the process or its parent has read, the larger number.
    pub fn take(&mut self, facts: &Facts) -> (usize, usize) {
        let (Some(process), Some(credential)) = (&facts.process, &facts.credential) else {
            return (0, 0);
        };
        if facts.kind != "credential_read" {
            return (0, 0);
        }
        // A login shell is the parent of everything a person does.
        let parent = process
            .ancestors
            .first()
            .filter(|parent| !parent.comm.starts_with('-') && !parent.key.is_empty())
            .map(|parent| parent.key.as_str());
        let mut most = (0, 0);
        for key in [Some(process.key.as_str()), parent].into_iter().flatten() {
            if self.reads.len() >= MOST && !self.reads.contains_key(key) {
                self.forget(facts.time_ns);
            }
            if self.reads.len() >= MOST && !self.reads.contains_key(key) {
                continue;
            }
            let reads = self.reads.entry(key.to_owned()).or_default();
            reads.last_ns = facts.time_ns;
            reads.list.push_back((
                facts.time_ns,
                credential.kind.clone(),
                credential.fingerprint.clone(),
            ));
            while reads.list.len() > MOST_READS
                || reads
                    .list
                    .front()
                    .is_some_and(|(at, ..)| *at < facts.time_ns - WINDOW_NS)
            {
                reads.list.pop_front();
            }
            let kinds: BTreeSet<&str> = reads.list.iter().map(|r| r.1.as_str()).collect();
            let credentials: BTreeSet<&str> = reads.list.iter().map(|r| r.2.as_str()).collect();
            most = (most.0.max(kinds.len()), most.1.max(credentials.len()));
        }
        most
    }

    /// Makes room: what read nothing within the window goes.
    fn forget(&mut self, now_ns: i64) {
        if now_ns - self.forgot_ns < WINDOW_NS / 60 {
            return;
        }
        self.forgot_ns = now_ns;
        self.reads
            .retain(|_, reads| reads.last_ns >= now_ns - WINDOW_NS);
    }
}
