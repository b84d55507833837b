//! The processes of a command that is followed.

use keytrail_model::Pid;
use keytrail_model::event::Process;
use std::collections::HashSet;

/// Beyond so many, those that ended a while ago are forgotten.
const MANY: usize = 65_536;

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

    /// Whether an event is about one of them, however deep it lies; or about a descendant of one whose fork was not reported,
    /// which is one of them from now on.
    pub fn concerns(&mut self, process: &Process) -> bool {
        let keys = std::iter::once(&process.key).chain(process.ancestors.iter().map(|a| &a.key));
        let mut below = Vec::new();
        for pid in keys.filter_map(|key| pid_of(key)) {
            if self.contains(pid) {
                for pid in below {
                    self.insert(pid);
                }
                return true;
            }
            below.push(pid);
        }
        false
    }

    /// Forgets those that are gone, when there are many.
    pub fn forget(&mut self, is_known: impl Fn(Pid) -> bool) {
        if self.processes.len() < MANY {
            return;
        }
        self.processes.retain(|pid| is_known(*pid));
        self.tgids = self.processes.iter().map(|pid| pid.tgid).collect();
    }
}

/// Whose key this is: `BOOT:PID:START:EXECS`.
fn pid_of(key: &str) -> Option<Pid> {
    let mut parts = key.split(':').skip(1);
    Some(Pid {
        tgid: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::event::Ancestor;

    fn pid(tgid: u32) -> Pid {
        Pid { tgid, start: 7 }
    }

    fn process(tgid: u32, execs: u32, ancestors: &[u32]) -> Process {
        let ancestor = |tgid: &u32| Ancestor {
            key: format!("b:{tgid}:7:1"),
            ..Ancestor::default()
        };
        Process {
            key: format!("b:{tgid}:7:{execs}"),
            ancestors: ancestors.iter().map(ancestor).collect(),
            ..Process::default()
        }
    }

    #[test]
    fn the_command_and_its_descendants_and_nobody_else() {
        let mut followed = Followed::default();
        followed.insert(pid(100));
        assert!(followed.concerns(&process(100, 1, &[50])));
        assert!(!followed.concerns(&process(60, 1, &[50])));
        // Its fork was reported, and nobody above it is named any more.
        followed.insert(pid(140));
        assert!(followed.concerns(&process(140, 3, &[139, 138])));
        // Forks that were not reported: by the ancestors, and remembered with all in between.
        assert!(followed.concerns(&process(143, 1, &[142, 141, 140])));
        assert!(followed.concerns(&process(144, 1, &[142])));
        assert!(followed.concerns(&process(144, 2, &[1])));
        assert!(!followed.concerns(&process(139, 1, &[1])));
        // The same number, given again.
        let mut other = process(144, 1, &[1]);
        other.key = "b:144:8:1".to_owned();
        assert!(!followed.concerns(&other));
        assert!(!followed.concerns(&Process::default()));
    }

    #[test]
    fn those_that_are_gone_are_forgotten_when_there_are_many() {
        let mut followed = Followed::default();
        let last = MANY as u32;
        (1..last).for_each(|n| followed.insert(pid(n)));
        followed.forget(|_| false);
        assert!(followed.contains(pid(1)));
        followed.insert(pid(last));
        followed.forget(|pid| pid.tgid == 1);
        assert!(followed.contains(pid(1)) && followed.has_tgid(1));
        assert!(!followed.contains(pid(last)) && !followed.has_tgid(last));
    }
}
