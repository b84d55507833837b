//! The process table: one entry a program run, kept for a while after exit so that late records find it.

use keytrail_model::Workload;
use keytrail_model::{CredentialRef, ExeFacts, FileFacts, Pid, Stamp, TICK_NS};
use keytrail_proto::v1;
use std::collections::{HashMap, HashSet};

/// Ancestors named in an event.
const MAX_ANCESTORS: usize = 16;
/// How long an exited process stays known: records of its last acts may still be on the way.
const KEEP_EXITED_NS: u64 = 30_000_000_000;
/// Processes kept at most; beyond it the oldest exited ones go first, and new ones are refused and counted.
const MAX_PROCESSES: usize = 200_000;

/// Where a process met a credential it holds.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldingPlace {
    File(Box<FileFacts>),
    Env(String),
    Argv(u32),
}

/// One credential in the hands of one process.
#[derive(Clone, Debug)]
pub struct Holding {
    pub credential: CredentialRef,
    pub place: HoldingPlace,
    /// Key of the process it came from, when it was inherited over fork or exec.
    pub inherited_from: Option<String>,
    /// When the first holder of the chain met it, nanoseconds since boot.
    pub since_ns: u64,
}

/// One process, in the program it runs now.
#[derive(Clone, Debug, Default)]
pub struct Proc {
    pub pid: Option<Pid>,
    /// execve calls seen.
    pub exec: u32,
    pub parent: Option<Pid>,
    pub exe: ExeFacts,
    pub comm: String,
    pub argv: Vec<String>,
    pub cwd: String,
    pub cgroup: String,
    pub workload: Workload,
    pub ns_tgid: u32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub loginuid: u32,
    pub session: u32,
    pub holdings: Vec<Holding>,
    pub exited_ns: Option<u64>,
    /// Neither exec nor /proc told about it: only what its records say is known.
    pub sketchy: bool,
}

/// All processes the agent knows.
#[derive(Debug, Default)]
pub struct ProcessTable {
    boot8: String,
    /// Wall clock at boot, nanoseconds since the epoch.
    boot_wall_ns: u64,
    procs: HashMap<Pid, Proc>,
    live: HashMap<u32, Pid>,
    /// Exited processes in order of exit.
    exited: std::collections::VecDeque<(u64, Pid)>,
    /// Processes that found no room.
    refused: u64,
}

impl ProcessTable {
    /// `boot_id` as /proc/sys/kernel/random/boot_id gives it; its first 8 digits are in every key.
    pub fn set_boot(&mut self, boot_id: &str, boot_wall_ns: u64) {
        self.boot8 = boot_id
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(8)
            .collect();
        self.boot_wall_ns = boot_wall_ns;
    }

    pub fn set_boot_wall(&mut self, boot_wall_ns: u64) {
        self.boot_wall_ns = boot_wall_ns;
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    #[must_use]
    pub fn get(&self, pid: Pid) -> Option<&Proc> {
        self.procs.get(&pid)
    }

    /// Who has, or had last, this pid.
    #[must_use]
    pub fn latest(&self, tgid: u32) -> Option<Pid> {
        let gone = || {
            self.exited
                .iter()
                .rev()
                .map(|(_, pid)| *pid)
                .find(|pid| pid.tgid == tgid)
        };
        self.live.get(&tgid).copied().or_else(gone)
    }

    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut Proc> {
        self.procs.get_mut(&pid)
    }

    /// Live processes, in no order.
    pub fn live(&self) -> impl Iterator<Item = &Proc> {
        self.live.values().filter_map(|pid| self.procs.get(pid))
    }

    /// How many found no room since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The entry of a record's process, made from the record itself when it is not known.
    pub fn touch(&mut self, at: &Stamp) -> Option<&mut Proc> {
        if !self.procs.contains_key(&at.pid) {
            self.insert(
                at.pid,
                Proc {
                    pid: Some(at.pid),
                    comm: at.comm.clone(),
                    uid: at.uid,
                    euid: at.euid,
                    gid: at.gid,
                    loginuid: u32::MAX,
                    session: u32::MAX,
                    sketchy: true,
                    ..Proc::default()
                },
            );
        }
        self.procs.get_mut(&at.pid)
    }

    /// Adds or replaces a process. A live process under the same tgid with another start time is gone: we missed its exit.
    pub fn insert(&mut self, pid: Pid, proc: Proc) {
        if self.procs.len() >= MAX_PROCESSES && !self.procs.contains_key(&pid) {
            match self.exited.pop_front() {
                Some((_, old)) => {
                    self.procs.remove(&old);
                }
                None => {
                    self.refused += 1;
                    return;
                }
            }
        }
        if let Some(old) = self.live.insert(pid.tgid, pid)
            && old != pid
        {
            self.procs.remove(&old);
        }
        self.procs.insert(pid, proc);
    }

    /// A fork: the child is the parent with another pid, and everything the parent holds.
    pub fn fork(&mut self, at: &Stamp, child: Pid, child_ns_tgid: u32) {
        // The exec of the child can be decoded first when records of two CPUs race: never overwrite it.
        if self.procs.get(&child).is_some_and(|c| !c.sketchy) {
            return;
        }
        let Some(parent) = self.touch(at) else { return };
        let mut proc = parent.clone();
        let parent_pid = at.pid;
        proc.pid = Some(child);
        proc.parent = Some(parent_pid);
        proc.ns_tgid = child_ns_tgid;
        proc.exited_ns = None;
        proc.exec = 0;
        let parent_key = self.key(parent_pid);
        for holding in &mut proc.holdings {
            holding.inherited_from = Some(parent_key.clone());
        }
        self.insert(child, proc);
    }

    /// Marks a process as gone; it stays known for a while.
    pub fn exit(&mut self, pid: Pid, boot_ns: u64) {
        if let Some(proc) = self.procs.get_mut(&pid)
            && proc.exited_ns.is_none()
        {
            proc.exited_ns = Some(boot_ns);
            self.exited.push_back((boot_ns, pid));
            if self.live.get(&pid.tgid) == Some(&pid) {
                self.live.remove(&pid.tgid);
            }
        }
    }

    /// Forgets processes that exited long enough ago and are nobody's parent any more.
    pub fn expire(&mut self, boot_ns: u64) {
        let ripe = |at: u64| at.saturating_add(KEEP_EXITED_NS) <= boot_ns;
        if !self.exited.front().is_some_and(|(at, _)| ripe(*at)) {
            return;
        }
        let parents: HashSet<Pid> = self.procs.values().filter_map(|p| p.parent).collect();
        for _ in 0..self.exited.len() {
            let Some(&(at, pid)) = self.exited.front() else {
                break;
            };
            if !ripe(at) {
                break;
            }
            self.exited.pop_front();
            if parents.contains(&pid) {
                // Still an ancestor that events name: look again later.
                self.exited.push_back((boot_ns, pid));
            } else if self.procs.get(&pid).is_some_and(|p| p.exited_ns.is_some()) {
                self.procs.remove(&pid);
            }
        }
    }

    /// The process key: "BOOT:PID:START:EXEC".
    #[must_use]
    pub fn key(&self, pid: Pid) -> String {
        let exec = self.procs.get(&pid).map_or(0, |p| p.exec);
        self.key_of(pid, exec)
    }

    #[must_use]
    pub fn key_of(&self, pid: Pid, exec: u32) -> String {
        format!("{}:{}:{}:{}", self.boot8, pid.tgid, pid.start, exec)
    }

    /// The process as events show it.
    #[must_use]
    pub fn describe(&self, pid: Pid) -> v1::Process {
        let Some(p) = self.procs.get(&pid) else {
            return v1::Process {
                key: self.key(pid),
                pid: pid.tgid,
                ..v1::Process::default()
            };
        };
        v1::Process {
            key: self.key(pid),
            pid: pid.tgid,
            namespace_pid: if p.ns_tgid == 0 { pid.tgid } else { p.ns_tgid },
            executable: Some(v1::Executable {
                path: p.exe.path.clone(),
                device: p.exe.device,
                inode: p.exe.inode,
            }),
            comm: p.comm.clone(),
            argv: p.argv.clone(),
            cwd: p.cwd.clone(),
            uid: p.uid,
            euid: p.euid,
            gid: p.gid,
            loginuid: p.loginuid,
            session: p.session,
            cgroup: p.cgroup.clone(),
            container: p.workload.container.clone(),
            unit: p.workload.unit.clone(),
            pod: p.workload.pod.clone(),
            ancestors: self.ancestors(p.parent),
            start_time: Some(super::timestamp(self.boot_wall_ns + pid.start * TICK_NS)),
            ppid: p.parent.map_or(0, |parent| parent.tgid),
        }
    }

    fn ancestors(&self, mut next: Option<Pid>) -> Vec<v1::Ancestor> {
        let mut out: Vec<v1::Ancestor> = Vec::new();
        while let Some(pid) = next {
            if out.len() == MAX_ANCESTORS || pid.tgid == 0 {
                break;
            }
            let proc = self.procs.get(&pid);
            out.push(v1::Ancestor {
                key: self.key(pid),
                pid: pid.tgid,
                comm: proc.map(|p| p.comm.clone()).unwrap_or_default(),
                executable: proc.map(|p| p.exe.path.clone()).unwrap_or_default(),
            });
            next = proc.and_then(|p| p.parent).filter(|parent| *parent != pid);
        }
        out
    }
}
