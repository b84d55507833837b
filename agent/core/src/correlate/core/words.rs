//! Identifiers at the end of a payload, as long as the next may go on with them.

use super::send::{Outbound, Stream};
use keytrail_model::Pid;
use std::collections::{BTreeMap, VecDeque};

/// How long an identifier at the end of a payload may turn out to be a part of a longer word: for as long as the
/// bytes of a connection are kept to be joined with the next.
const PENDING_WORD_NS: u64 = 1_000_000_000;
/// Such identifiers kept at most; beyond it the oldest of a process are dropped, not claimed.
const MAX_PENDING: usize = 4_096;

/// By process: a send asks for those of its own.
#[derive(Default)]
pub(super) struct PendingWords {
    by_process: BTreeMap<Pid, VecDeque<Outbound>>,
    len: usize,
}

impl PendingWords {
    /// Adds one; false when another was dropped for it.
    pub fn push(&mut self, outbound: Outbound) -> bool {
        let room = self.len < MAX_PENDING;
        if !room {
            let pid = outbound.at.pid;
            let own = self.by_process.contains_key(&pid).then_some(pid);
            let whose = own.or_else(|| self.by_process.keys().next().copied());
            if let Some(pid) = whose
                && let Some(of) = self.by_process.get_mut(&pid)
            {
                of.pop_front();
                self.len -= 1;
                if of.is_empty() {
                    self.by_process.remove(&pid);
                }
            }
        }
        self.by_process
            .entry(outbound.at.pid)
            .or_default()
            .push_back(outbound);
        self.len += 1;
        room
    }

    /// Takes those of one stream.
    pub fn take_stream(&mut self, pid: Pid, stream: Stream) -> VecDeque<Outbound> {
        self.take_if(pid, |outbound| outbound.stream == stream)
    }

    /// Takes those of one process.
    pub fn take_process(&mut self, pid: Pid) -> VecDeque<Outbound> {
        let taken = self.by_process.remove(&pid).unwrap_or_default();
        self.len -= taken.len();
        taken
    }

    /// Takes those that nothing came after for long enough, the oldest first.
    pub fn take_ripe(&mut self, boot_ns: u64) -> VecDeque<Outbound> {
        let ripe = |p: &Outbound| p.at.boot_ns.saturating_add(PENDING_WORD_NS) <= boot_ns;
        let of: Vec<Pid> = self
            .by_process
            .iter()
            .filter(|(_, of)| of.iter().any(ripe))
            .map(|(pid, _)| *pid)
            .collect();
        let mut taken: Vec<Outbound> = of
            .into_iter()
            .flat_map(|pid| self.take_if(pid, ripe))
            .collect();
        taken.sort_by_key(|outbound| outbound.at.boot_ns);
        taken.into()
    }

    fn take_if(&mut self, pid: Pid, which: impl Fn(&Outbound) -> bool) -> VecDeque<Outbound> {
        let Some(of) = self.by_process.get_mut(&pid) else {
            return VecDeque::new();
        };
        let (taken, left): (VecDeque<_>, _) = std::mem::take(of).into_iter().partition(which);
        self.len -= taken.len();
        *of = left;
        if of.is_empty() {
            self.by_process.remove(&pid);
        }
        taken
    }
}
