//! How many credentials one process, or its parent by several children, took in within a minute, and gave to one place.

use crate::facts::{Facts, ProcessFacts};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const WINDOW_NS: i64 = 60_000_000_000;
/// Processes that are remembered, and acts of each.
const MOST: usize = 4096;
const MOST_ACTS: usize = 64;

/// Different kinds and credentials within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub kinds: usize,
    pub credentials: usize,
}

impl Counts {
    fn most(self, other: Counts) -> Counts {
        Counts {
            kinds: self.kinds.max(other.kinds),
            credentials: self.credentials.max(other.credentials),
        }
    }
}

/// What one process, or one process towards one place, did lately.
#[derive(Default)]
struct Acts {
    /// Time, kind and fingerprint.
    list: VecDeque<(i64, String, String)>,
    last_ns: i64,
}

impl Acts {
    fn add(&mut self, time_ns: i64, kind: &str, fingerprint: &str) {
        self.last_ns = time_ns;
        self.list
            .push_back((time_ns, kind.to_owned(), fingerprint.to_owned()));
        while self.list.len() > MOST_ACTS
            || self
                .list
                .front()
                .is_some_and(|(at, ..)| *at < time_ns - WINDOW_NS)
        {
            self.list.pop_front();
        }
    }

    fn counts(&self, time_ns: i64) -> Counts {
        let lately = || self.list.iter().filter(|a| a.0 >= time_ns - WINDOW_NS);
        let kinds: BTreeSet<&str> = lately().map(|a| a.1.as_str()).collect();
        let credentials: BTreeSet<&str> = lately().map(|a| a.2.as_str()).collect();
        Counts {
            kinds: kinds.len(),
            credentials: credentials.len(),
        }
    }
}

#[derive(Default)]
struct Table {
    acts: BTreeMap<String, Acts>,
    /// When room was made last: not for every event.
    forgot_ns: i64,
}

impl Table {
    fn add(&mut self, key: &str, time_ns: i64, kind: &str, fingerprint: &str) -> Counts {
        if self.acts.len() >= MOST && !self.acts.contains_key(key) {
            self.forget(time_ns);
            if self.acts.len() >= MOST {
                return Counts::default();
            }
        }
        let acts = self.acts.entry(key.to_owned()).or_default();
        acts.add(time_ns, kind, fingerprint);
        acts.counts(time_ns)
    }

    fn counts(&self, key: &str, time_ns: i64) -> Counts {
        self.acts
            .get(key)
            .map_or_else(Counts::default, |acts| acts.counts(time_ns))
    }

    /// Makes room: who did nothing within the window goes.
    fn forget(&mut self, now_ns: i64) {
        if now_ns - self.forgot_ns < WINDOW_NS / 60 {
            return;
        }
        self.forgot_ns = now_ns;
        self.acts
            .retain(|_, acts| acts.last_ns >= now_ns - WINDOW_NS);
    }
}

/// What was harvested within a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harvested {
    /// Read by the process and its children (files, environments by /proc); or by the parent and its, if that is more.
    pub taken: Counts,
    /// By the process and its children alone.
    pub own: Counts,
    /// Sent to the place of this event, where it was seen.
    pub sent: Counts,
}

#[derive(Default)]
pub(crate) struct Harvest {
    taken: Table,
    sent: Table,
}

impl Harvest {
    /// Takes an event in; gives what was harvested until then, this event included.
    pub fn take(&mut self, facts: &Facts) -> Harvested {
        let mut harvested = Harvested::default();
        let Some(process) = &facts.process else {
            return harvested;
        };
        let reads = facts.kind == "credential_read"
            || facts.kind == "credential_taken" && facts.grade == "observed";
        let sends = facts.kind == "credential_sent" && facts.grade == "observed";
        let to = facts
            .destination
            .as_ref()
            .filter(|_| sends)
            .map(|destination| destination.text());
        for key in keys(process) {
            let at = facts.time_ns;
            let taken = match &facts.credential {
                Some(c) if reads => self.taken.add(key, at, &c.kind, &c.fingerprint),
                _ => self.taken.counts(key, at),
            };
            harvested.taken = harvested.taken.most(taken);
            if *key == process.key {
                harvested.own = taken;
            }
            if let (Some(to), Some(c)) = (&to, &facts.credential) {
                let key = format!("{key} {to}");
                let sent = self.sent.add(&key, at, &c.kind, &c.fingerprint);
                harvested.sent = harvested.sent.most(sent);
            }
        }
        harvested
    }
}

/// The process and its parent; a login shell is the parent of everything a person does.
fn keys(process: &ProcessFacts) -> impl Iterator<Item = &str> {
    let parent = process
        .ancestors
        .first()
        .filter(|parent| !parent.comm.starts_with('-') && !parent.key.is_empty())
        .map(|parent| parent.key.as_str());
    [Some(process.key.as_str()), parent].into_iter().flatten()
}
