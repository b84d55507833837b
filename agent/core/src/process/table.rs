//! The process table: one entry a program run, kept for a while after exit so that late records find it.

use keytrail_model::context::Program;
use keytrail_model::event::{Ancestor, Context, Parent, PathStep, Process};
use keytrail_model::{
    ContextKind, CredentialRef, ExeFacts, FileFacts, LineageBasis, Pid, PipeId, Surroundings,
    TICK_NS, TaskInfo, Workload, actor_of, context_of, script_of,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Ancestors named in an event.
const MAX_ANCESTORS: usize = 16;
/// How long an exited process stays known: records of its last acts may still be on the way.
const KEEP_EXITED_NS: u64 = 30_000_000_000;
/// Processes kept at most; beyond it the oldest exited ones go first, and new ones are refused and counted.
const MAX_PROCESSES: usize = 200_000;

/// Holdings of all processes together.
const MAX_HELD: usize = 1_000_000;
/// So many holdings of one process are many: a shell that has read a file of a thousand gives them to every command.
const MANY: usize = 64;
/// How long they are kept after its end.
const KEEP_MANY_NS: u64 = 1_000_000_000;

/// Where a process obtained a credential it holds.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldingPlace {
    File(Arc<FileFacts>),
    Env(String),
    Argv(u32),
    /// Another process, by its key.
    Process(String),
    /// A metadata service, by what it was asked for.
    Service(String),
    /// It is not known where: it was first seen in what the process sent. By which others it is likely to have got it.
    Use(Arc<[Parent]>),
}

/// One credential in the hands of one process.
#[derive(Clone, Debug)]
pub struct Holding {
    pub credential: CredentialRef,
    pub place: HoldingPlace,
    /// Key of the process it came from, when it was inherited over fork or exec.
    pub inherited_from: Option<Arc<str>>,
    /// When the first holder of the chain obtained it, nanoseconds since boot.
    pub since_ns: u64,
    /// The earliest that can have been: before `since_ns` where it was told without its time.
    pub from_ns: u64,
    /// Since when the process has it of its own, or as a copy of one that had; `None`: an exec lies between.
    pub own_ns: Option<u64>,
    /// Who obtained it first of the chain.
    pub origin: Pid,
    /// The way it can have come by, when it was passed on through a pipe.
    pub passed: Option<Passed>,
    /// It has it only to bring it into a container that it starts.
    pub brings: bool,
}

/// How a credential can have come to a process that did not meet it itself.
#[derive(Clone, Debug)]
pub struct Passed {
    /// From who obtained it first to the process itself.
    pub path: Arc<[PathStep]>,
    /// The last pipe, or file, of it.
    pub via: PipeId,
    /// The earliest that can have been: when who passed it on obtained it. Records of one process may be reported long after those
    /// of another.
    pub since_ns: u64,
    /// When it was known to be possible: a reader may begin long after the writer.
    pub reported_ns: u64,
}

impl Holding {
    /// When its holder obtained it, at the earliest and as far as that was reported; `None` when it has it from before its program.
    #[must_use]
    pub fn met_ns(&self) -> Option<(u64, u64)> {
        match &self.passed {
            Some(passed) => Some((passed.since_ns, passed.reported_ns)),
            None => self.own_ns.map(|own| (own, own)),
        }
    }

    /// What ties its holder to it at this time.
    #[must_use]
    pub fn basis(&self, boot_ns: u64) -> LineageBasis {
        if self.passed.is_some() {
            LineageBasis::Passed
        } else if self.own_ns.is_some_and(|own| own <= boot_ns) {
            LineageBasis::Own
        } else {
            LineageBasis::Inherited
        }
    }
}

/// Counts of what is reported together, when a process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreported {
    pub exposures: u64,
    pub sends: u64,
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
    /// Script or module, where the executable is an interpreter.
    pub script: String,
    /// The context that it gives to its descendants.
    pub gives: Option<(ContextKind, &'static str)>,
    pub cwd: String,
    pub cgroup: String,
    pub workload: Workload,
    /// A copy of its parent: it has executed nothing itself.
    pub forked: bool,
    /// What it reads as standard input, if that is a pipe.
    pub stdin: Option<PipeId>,
    /// What it was given as standard output, if that is a pipe; a copy of a shell has its shell's until it tells another.
    pub stdout: Option<PipeId>,
    pub ns_tgid: u32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub loginuid: u32,
    pub session: u32,
    pub holdings: Vec<Holding>,
    /// Another number whenever something came to the holdings.
    pub version: u64,
    /// A write of it to a TLS library was seen.
    pub hooked: bool,
    /// Its libraries were asked for when, as a holder, it first connected.
    pub connected: bool,
    /// What was not reported one by one of it and its descendants.
    pub unreported: Unreported,
    pub exited_ns: Option<u64>,
    /// Neither exec nor /proc reported it: only what its records say is known.
    pub partial: bool,
}

impl Proc {
    /// The same, with what follows from its executable and arguments.
    #[must_use]
    pub fn named(mut self) -> Self {
        self.script = script_of(&self.exe.path, &self.argv, &self.cwd).unwrap_or_default();
        self.gives = context_of(&Program {
            executable: &self.exe.path,
            comm: &self.comm,
            script: &self.script,
            argv: &self.argv,
        });
        self
    }
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
    /// The last of a pid that has exited.
    gone: HashMap<u32, Pid>,
    /// How many known processes have this one as their parent.
    children: HashMap<Pid, u32>,
    /// Processes that found no room.
    refused: u64,
    /// The last version of anybody's holdings.
    versions: u64,
    /// Holdings of all processes together, and how many found no room.
    held: usize,
    unheld: u64,
    /// Exited processes with many holdings, in order of exit.
    large: std::collections::VecDeque<(u64, Pid)>,
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
        let known = self.live.get(&tgid).or_else(|| self.gone.get(&tgid));
        known.copied()
    }

    /// Whether a process with this pid runs, as far as is known.
    #[must_use]
    pub fn is_live(&self, tgid: u32) -> bool {
        self.live.contains_key(&tgid)
    }

    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut Proc> {
        self.procs.get_mut(&pid)
    }

    /// Live processes, in no order.
    pub fn live(&self) -> impl Iterator<Item = &Proc> {
        self.live.values().filter_map(|pid| self.procs.get(pid))
    }

    /// Notes what a process holds from now on.
    pub fn set_holdings(&mut self, pid: Pid, holdings: Vec<Holding>) {
        self.versions += 1;
        let room = MAX_HELD.saturating_sub(self.held);
        if let Some(proc) = self.procs.get_mut(&pid) {
            self.held -= proc.holdings.len();
            proc.holdings = holdings;
            self.unheld += proc.holdings.len().saturating_sub(room) as u64;
            proc.holdings.truncate(room);
            self.held += proc.holdings.len();
            proc.version = self.versions;
        }
    }

    /// Adds a holding to a known process.
    pub fn add_holding(&mut self, pid: Pid, holding: Holding) {
        self.versions += 1;
        if self.held >= MAX_HELD {
            self.unheld += 1;
        } else if let Some(proc) = self.procs.get_mut(&pid) {
            proc.holdings.push(holding);
            self.held += 1;
            proc.version = self.versions;
        }
    }

    /// Those holdings are only to bring a credential into a container.
    pub fn mark_brought(&mut self, pid: Pid, of: impl Fn(&Holding) -> bool) {
        if let Some(proc) = self.procs.get_mut(&pid) {
            for holding in proc.holdings.iter_mut().filter(|h| of(h)) {
                holding.brings = true;
            }
        }
    }

    /// Takes those holdings from a process; returns what they were of.
    pub fn take_holdings(&mut self, pid: Pid, of: impl Fn(&Holding) -> bool) -> Vec<String> {
        let Some(proc) = self.procs.get_mut(&pid) else {
            return Vec::new();
        };
        let taken: Vec<Holding> = proc.holdings.extract_if(.., |h| of(h)).collect();
        self.held -= taken.len();
        taken
            .into_iter()
            .map(|h| h.credential.fingerprint.clone())
            .collect()
    }

    /// The version of what a process holds; 0 when it holds nothing.
    #[must_use]
    pub fn version(&self, pid: Pid) -> u64 {
        self.procs
            .get(&pid)
            .filter(|p| !p.holdings.is_empty())
            .map_or(0, |p| p.version)
    }

    /// Takes a credential from everybody who is thought to hold it.
    pub fn withdraw(&mut self, fingerprint: &str) {
        for proc in self.procs.values_mut() {
            let before = proc.holdings.len();
            proc.holdings
                .retain(|h| h.credential.fingerprint != fingerprint);
            self.held -= before - proc.holdings.len();
        }
    }

    /// Counts what is not reported one by one at the process that it came from, or its nearest living ancestor.
    pub fn count_unreported(&mut self, pid: Pid, count: impl FnOnce(&mut Unreported)) {
        let mut next = Some(pid);
        for _ in 0..MAX_ANCESTORS {
            let Some(proc) = next.and_then(|pid| self.procs.get(&pid)) else {
                return;
            };
            if proc.exited_ns.is_none() {
                break;
            }
            next = proc.parent.filter(|parent| Some(*parent) != next);
        }
        if let Some(proc) = next.and_then(|pid| self.procs.get_mut(&pid)) {
            count(&mut proc.unreported);
        }
    }

    /// Holdings that found no room since the last call.
    pub fn take_unheld(&mut self) -> u64 {
        std::mem::take(&mut self.unheld)
    }

    /// How many found no room since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The entry of a record's process, made from the record itself when it is not known.
    pub fn touch(&mut self, at: &TaskInfo) -> Option<&mut Proc> {
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
                    partial: true,
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
                Some((_, old)) => self.remove(old),
                None => {
                    self.refused += 1;
                    return;
                }
            }
        }
        if let Some(old) = self.live.insert(pid.tgid, pid)
            && old != pid
        {
            self.remove(old);
        }
        if let Some(parent) = proc.parent {
            *self.children.entry(parent).or_default() += 1;
        }
        self.held += proc.holdings.len();
        if let Some(before) = self.procs.insert(pid, proc) {
            self.held -= before.holdings.len();
            self.leave(before.parent);
        }
    }

    fn remove(&mut self, pid: Pid) {
        if let Some(proc) = self.procs.remove(&pid) {
            self.held -= proc.holdings.len();
            self.leave(proc.parent);
        }
        if self.gone.get(&pid.tgid) == Some(&pid) {
            self.gone.remove(&pid.tgid);
        }
    }

    fn leave(&mut self, parent: Option<Pid>) {
        if let Some(parent) = parent
            && let Some(children) = self.children.get_mut(&parent)
        {
            *children -= 1;
            if *children == 0 {
                self.children.remove(&parent);
            }
        }
    }

    /// A fork: the child is the parent with another pid, and everything the parent holds.
    pub fn fork(&mut self, at: &TaskInfo, child: Pid, child_ns_tgid: u32) {
        // The exec of the child can be decoded first when records of two CPUs race: never overwrite it.
        if self.procs.get(&child).is_some_and(|c| !c.partial) {
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
        proc.forked = true;
        proc.unreported = Unreported::default();
        proc.connected = false;
        let parent_key: Arc<str> = self.key(parent_pid).into();
        if self.held + proc.holdings.len() > MAX_HELD {
            self.unheld += proc.holdings.len() as u64;
            proc.holdings = Vec::new();
        }
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
            if proc.holdings.len() > MANY {
                self.large.push_back((boot_ns, pid));
            }
            self.exited.push_back((boot_ns, pid));
            self.gone.insert(pid.tgid, pid);
            if self.live.get(&pid.tgid) == Some(&pid) {
                self.live.remove(&pid.tgid);
            }
        }
    }

    /// Forgets processes that exited long enough ago and are nobody's parent any more.
    pub fn expire(&mut self, boot_ns: u64) {
        while let Some(&(at, pid)) = self.large.front()
            && at.saturating_add(KEEP_MANY_NS) <= boot_ns
        {
            self.large.pop_front();
            if let Some(proc) = self.procs.get_mut(&pid)
                && proc.exited_ns.is_some()
            {
                self.held -= proc.holdings.len();
                proc.holdings = Vec::new();
            }
        }
        let ripe = |at: u64| at.saturating_add(KEEP_EXITED_NS) <= boot_ns;
        for _ in 0..self.exited.len() {
            let Some(&(at, pid)) = self.exited.front() else {
                break;
            };
            if !ripe(at) {
                break;
            }
            self.exited.pop_front();
            if self.children.contains_key(&pid) {
                // Still an ancestor that events name: look again later.
                self.exited.push_back((boot_ns, pid));
            } else if self.procs.get(&pid).is_some_and(|p| p.exited_ns.is_some()) {
                self.remove(pid);
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
    pub fn describe(&self, pid: Pid) -> Process {
        let Some(p) = self.procs.get(&pid) else {
            return Process {
                key: self.key(pid),
                pid: pid.tgid,
                ..Process::default()
            };
        };
        let contexts = self.contexts(pid);
        Process {
            key: self.key(pid),
            pid: pid.tgid,
            namespace_pid: if p.ns_tgid == 0 { pid.tgid } else { p.ns_tgid },
            executable: Some(p.exe.clone()),
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
            start_time_ns: Some(self.boot_wall_ns + pid.start * TICK_NS),
            ppid: p.parent.map_or(0, |parent| parent.tgid),
            actor: actor_of(&Surroundings {
                contexts: &contexts.iter().map(|c| c.kind).collect::<Vec<_>>(),
                unit: &p.workload.unit,
                container: &p.workload.container,
                pod: &p.workload.pod,
                loginuid: p.loginuid,
            }),
            contexts,
            // Reported by who knows the cluster: the caller's.
            workload: None,
        }
    }

    /// The process and what is above it, itself first.
    #[must_use]
    pub fn line(&self, of: Pid) -> Vec<Pid> {
        let mut line = vec![of];
        let mut at = of;
        while let Some(parent) = self.procs.get(&at).and_then(|p| p.parent)
            && parent != at
            && line.len() <= MAX_ANCESTORS
        {
            line.push(parent);
            at = parent;
        }
        line
    }

    /// What a process runs in: each kind once, by the nearest ancestor that gives it. What builds a package of cargo gives
    /// it to itself.
    fn contexts(&self, of: Pid) -> Vec<Context> {
        let mut out: Vec<Context> = Vec::new();
        let mut next = Some(of);
        for _ in 0..=MAX_ANCESTORS {
            let Some((pid, proc)) = next.and_then(|pid| Some((pid, self.procs.get(&pid)?))) else {
                break;
            };
            if let Some((kind, name)) = proc.gives
                && (pid != of || name == "cargo")
                && out.iter().all(|c| c.kind != kind)
            {
                out.push(Context {
                    kind,
                    name: name.to_owned(),
                    key: self.key(pid),
                });
            }
            next = proc.parent.filter(|parent| *parent != pid);
        }
        out
    }

    fn ancestors(&self, mut next: Option<Pid>) -> Vec<Ancestor> {
        let mut out: Vec<Ancestor> = Vec::new();
        while let Some(pid) = next {
            if out.len() == MAX_ANCESTORS || pid.tgid == 0 {
                break;
            }
            let proc = self.procs.get(&pid);
            out.push(Ancestor {
                key: self.key(pid),
                pid: pid.tgid,
                comm: proc.map(|p| p.comm.clone()).unwrap_or_default(),
                executable: proc.map(|p| p.exe.path.clone()).unwrap_or_default(),
                script: proc.map(|p| p.script.clone()).unwrap_or_default(),
            });
            next = proc.and_then(|p| p.parent).filter(|parent| *parent != pid);
        }
        out
    }
}
