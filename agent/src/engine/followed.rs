//! The processes of a command that is followed.

use keytrail_model::Pid;
use std::collections::HashSet;

/// Its processes, by identity and by pid.
#[derive(Debug, Default)]
pub(super) struct Followed {
    processes: HashSet<Pid>,
    tgids: HashSet<u32>,
}

impl Followed {
    pub fn insert(&mut self, pid: Pid) {
        self.processes.insert(pid);
        self.tgids.insert(pid.tgid);
    }

    pub fn contains(&self, pid: Pid) -> bool {
        self.processes.contains(&pid)
    }

    /// Whether one of them has, or had, this pid.
    pub fn has_tgid(&self, tgid: u32) -> bool {
        self.tgids.contains(&tgid)
    }
}
