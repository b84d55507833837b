//! Reads of other processes' environments and memory: a thread that listens to every procfs, and says who read whose.
//!
//! The kernel reports every read of every file in /proc, and each costs this thread a few microseconds, or an inspection of all
//! processes of the host where it is of another pid namespace. So it has a thread of its own, of low priority, and a
//! budget of processor time, whatever it is spent on: a host that reads /proc all day pays no more than that. What is
//! beyond the budget is counted by the kernel's queue.

use super::proc::{Identity, identity};
use keytrail_host::{
    clock::boot_ns,
    priority,
    proc_reads::{ProcFile, ProcRead as Read, ProcReads},
    procfs::list_pids,
};
use keytrail_model::Taken;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// The part of a processor that is spent in the long run: one in so many.
const SHARE: u32 = 20;
/// Processor time that may be spent at once after a quiet while.
const BURST: Duration = Duration::from_millis(50);
/// Events of one drain: what they cost is inspected after each.
const EVENTS: usize = 256;
/// All processes of the host are inspected for those of other namespaces no sooner than this after the last time.
const INDEX_EVERY: Duration = Duration::from_millis(100);
/// Reads that may wait for that.
const UNRESOLVED_MAX: usize = 1_024;
/// Reads that may wait for the engine.
const QUEUE: usize = 4_096;
/// Procfs of other pid namespaces that are remembered.
const NAMESPACES_MAX: usize = 4_096;
/// Translated process numbers of other namespaces that are remembered.
const TRANSLATED_MAX: usize = 1_024;

/// A process read the environment or the memory of another one, or its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRead {
    /// When it was reported, nanoseconds since boot; it happened before.
    pub boot_ns: u64,
    pub reader: u32,
    /// Who the reader is; `None` when it was gone before it could be asked.
    pub identity: Option<Identity>,
    pub victim: u32,
    pub what: Taken,
}

/// The thread, as the sensor holds it.
pub struct ProcessReads {
    reads: mpsc::Receiver<ProcessRead>,
    /// Processes whose procfs may be one that nobody listens to yet.
    unknown: mpsc::SyncSender<u32>,
    /// Readable when a read waits.
    ready: Arc<OwnedFd>,
    /// Wakes the thread.
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    missed: Arc<AtomicU64>,
    gone: Arc<AtomicU64>,
    fires: bool,
}

impl ProcessReads {
    /// Listens to the host's procfs.
    ///
    /// # Errors
    /// When the kernel lets nobody listen (no fanotify, no CAP_SYS_ADMIN), or there is no thread.
    pub fn start() -> io::Result<Self> {
        let group = ProcReads::new()?;
        let host = group.mark(Path::new("/proc"))?;
        let fires = group.fires()?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let ready = Arc::new(eventfd(0, flags)?);
        let wake = Arc::new(eventfd(0, flags)?);
        let (read, reads) = mpsc::sync_channel(QUEUE);
        let (unknown, asked) = mpsc::sync_channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let missed = Arc::new(AtomicU64::new(0));
        let gone = Arc::new(AtomicU64::new(0));
        let listener = Listener {
            group,
            host,
            namespaces: HashMap::new(),
            known: HashSet::new(),
            translated: HashMap::new(),
            index: Index::default(),
            unresolved: Vec::new(),
            read,
            asked,
            ready: ready.clone(),
            wake: wake.clone(),
            stop: stop.clone(),
            missed: missed.clone(),
            gone: gone.clone(),
        };
        thread::Builder::new()
            .name("process-reads".into())
            .spawn(move || {
                priority::lower_this_thread();
                listener.run();
            })?;
        Ok(Self {
            reads,
            unknown,
            ready,
            wake,
            stop,
            missed,
            gone,
            fires,
        })
    }

    /// Whether a read that was made for it was reported.
    pub fn fires(&self) -> bool {
        self.fires
    }

    /// The procfs this process sees may be another one than the host's.
    pub fn has_own_procfs(&self, tgid: u32) {
        // With no room left its namespace is asked about with the next process in it.
        if self.unknown.try_send(tgid).is_ok() {
            signal(&self.wake);
        }
    }

    /// What has come.
    pub fn take(&self) -> Vec<ProcessRead> {
        // Nothing to read is no failure.
        let _ = rustix::io::read(&*self.ready, &mut [0; 8]);
        self.reads.try_iter().take(QUEUE).collect()
    }

    /// How often reads were missed since the last call: the kernel counts a full queue once, however much it dropped.
    pub fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }

    /// Reads since the last call of which it is not known what of whom was read: the process had ended.
    pub fn gone(&self) -> u64 {
        self.gone.swap(0, Ordering::Relaxed)
    }

    pub fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Drop for ProcessReads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        signal(&self.wake);
    }
}

/// A counter at its limit wakes just as well.
fn signal(fd: &OwnedFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// One read, as it was reported.
struct ReadEvent {
    boot_ns: u64,
    read: Read,
    identity: Option<Identity>,
}

/// What is known of the victim of a read.
enum Victim {
    Is(u32),
    Gone,
    /// All processes have to be inspected for it, and were a moment ago.
    Later,
}

/// What may be spent.
struct Budget {
    /// Processor time of this thread when it was last inspected.
    spent: Duration,
    at: Instant,
    credit: Duration,
}

impl Budget {
    fn new() -> Self {
        Self {
            spent: spent(),
            at: Instant::now(),
            credit: BURST,
        }
    }

    /// How long to rest after what was done since the last call.
    fn rest(&mut self) -> Duration {
        let (now, spent) = (Instant::now(), spent());
        let cost = spent.saturating_sub(self.spent);
        let earned = now.saturating_duration_since(self.at) / SHARE;
        (self.spent, self.at) = (spent, now);
        self.charge(cost, earned)
    }

    fn charge(&mut self, cost: Duration, earned: Duration) -> Duration {
        let have = (self.credit + earned).min(BURST);
        self.credit = have.saturating_sub(cost);
        // The rest earns what was spent beyond it; it is earned here, and not once more by the time it takes.
        cost.saturating_sub(have) * SHARE
    }
}

/// Processor time of this thread.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// All processes of other pid namespaces, as of the last look.
#[derive(Default)]
struct Index {
    built: Option<Instant>,
    /// The same by the clock of records.
    built_ns: u64,
    /// The host's number of a process, by its namespace and its number there.
    processes: HashMap<(PathBuf, u32), u32>,
    /// Namespaces that some process is in.
    living: HashSet<PathBuf>,
}

impl Index {
    fn is_due(&self) -> bool {
        self.built
            .is_none_or(|built| built.elapsed() >= INDEX_EVERY)
    }

    /// Inspects all processes. Of those in namespaces that nobody listens to only the namespace is asked for.
    fn build(&mut self, wanted: &HashMap<u64, PathBuf>) {
        let wanted: HashSet<&PathBuf> = wanted.values().collect();
        self.processes.clear();
        self.living.clear();
        self.built_ns = boot_ns();
        for pid in list_pids() {
            let Some(namespace) = namespace_of(pid) else {
                continue;
            };
            if wanted.contains(&namespace)
                && let Some(number) = field(pid, "NSpid:")
            {
                self.processes.insert((namespace.clone(), number), pid);
            }
            self.living.insert(namespace);
        }
        self.built = Some(Instant::now());
    }
}

fn namespace_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

struct Listener {
    group: ProcReads,
    /// Device of the host's procfs, whose numbers are those of the agent.
    host: u64,
    /// Pid namespaces by the device of their procfs.
    namespaces: HashMap<u64, PathBuf>,
    /// Pid namespaces that were seen.
    known: HashSet<PathBuf>,
    /// The host's number of a process, by the device of a procfs and its number there.
    translated: HashMap<(u64, u32), u32>,
    index: Index,
    /// Reads whose process was not in the last inspection of all processes.
    unresolved: Vec<ReadEvent>,
    read: mpsc::SyncSender<ProcessRead>,
    asked: mpsc::Receiver<u32>,
    ready: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    missed: Arc<AtomicU64>,
    gone: Arc<AtomicU64>,
}

impl Listener {
    fn run(mut self) {
        let mut budget = Budget::new();
        loop {
            let mut fds = [
                PollFd::new(&self.group, PollFlags::IN),
                PollFd::new(&*self.wake, PollFlags::IN),
            ];
            let most = if self.unresolved.is_empty() {
                None
            } else {
                rustix::time::Timespec::try_from(INDEX_EVERY).ok()
            };
            // An interrupted wait is a short one.
            let _ = rustix::event::poll(&mut fds, most.as_ref());
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            while let Ok(tgid) = self.asked.try_recv() {
                self.mark(tgid);
            }
            self.resolve_late();
            self.drain(EVENTS);
            // The kernel's queue holds 16,384 by default (fs.fanotify.max_queued_events) and says when it is full.
            let rest = budget.rest();
            if !rest.is_zero() {
                thread::sleep(rest);
                budget.at = Instant::now();
            }
        }
    }

    fn drain(&mut self, most: usize) {
        let now = boot_ns();
        let mut reads = Vec::new();
        let drained = self.group.drain(most, &mut |read| {
            // At once: a short command is gone soon.
            reads.push((read, identity(read.reader)));
        });
        if drained.missed {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        self.gone.fetch_add(drained.gone as u64, Ordering::Relaxed);
        self.resolve(reads.into_iter().map(|(read, identity)| ReadEvent {
            boot_ns: now,
            read,
            identity,
        }));
    }

    /// What has waited for an inspection of all processes, when there may be one.
    fn resolve_late(&mut self) {
        if !self.unresolved.is_empty() && self.index.is_due() {
            let late = std::mem::take(&mut self.unresolved);
            self.index.build(&self.namespaces);
            self.resolve(late.into_iter());
        }
    }

    fn resolve(&mut self, events: impl Iterator<Item = ReadEvent>) {
        let (mut gone, mut any) = (0, false);
        for event in events {
            let victim = match self.victim(event.read, event.boot_ns) {
                Victim::Is(victim) => victim,
                Victim::Later if self.unresolved.len() < UNRESOLVED_MAX => {
                    self.unresolved.push(event);
                    continue;
                }
                Victim::Later | Victim::Gone => {
                    gone += 1;
                    continue;
                }
            };
            let read = ProcessRead {
                boot_ns: event.boot_ns,
                reader: event.read.reader,
                identity: event.identity,
                victim,
                what: match event.read.file {
                    ProcFile::Environ => Taken::Environment,
                    ProcFile::Mem => Taken::Memory,
                },
            };
            if self.read.try_send(read).is_err() {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            any = true;
        }
        self.gone.fetch_add(gone, Ordering::Relaxed);
        if any {
            signal(&self.ready);
        }
    }

    /// Listens to the procfs of a process in another pid namespace.
    fn mark(&mut self, tgid: u32) {
        let Some(namespace) = namespace_of(tgid) else {
            return;
        };
        if self.known.contains(&namespace) {
            return;
        }
        if self.known.len() >= NAMESPACES_MAX && !self.make_room() {
            // Reads in its procfs are not reported: nobody listens to it.
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A container may have no /proc, or the host's: then there is nothing more to listen to.
        if let Ok(device) = self
            .group
            .mark(Path::new(&format!("/proc/{tgid}/root/proc")))
        {
            self.known.insert(namespace.clone());
            if device != self.host {
                self.namespaces.insert(device, namespace);
            }
        }
    }

    /// Forgets the namespaces that nobody is in any more. False when there are none.
    fn make_room(&mut self) -> bool {
        if self.index.is_due() {
            self.index.build(&self.namespaces);
        }
        let living = &self.index.living;
        self.known.retain(|namespace| living.contains(namespace));
        self.namespaces
            .retain(|_, namespace| living.contains(namespace));
        self.known.len() < NAMESPACES_MAX
    }

    /// The process that was read, by the host's number. A thread stands for its process.
    fn victim(&mut self, read: Read, event_ns: u64) -> Victim {
        if read.procfs == self.host {
            return field(read.target, "Tgid:").map_or(Victim::Gone, Victim::Is);
        }
        let key = (read.procfs, read.target);
        if let Some(&known) = self.translated.get(&key)
            && field(known, "NSpid:") == Some(read.target)
        {
            return Victim::Is(known);
        }
        let Some(namespace) = self.namespaces.get(&read.procfs).cloned() else {
            return Victim::Gone;
        };
        if self.index.is_due() {
            self.index.build(&self.namespaces);
        }
        let wanted = (namespace, read.target);
        let found = self.index.processes.get(&wanted).copied();
        let is_it = |pid: &u32| {
            field(*pid, "NSpid:") == Some(read.target)
                && namespace_of(*pid).as_ref() == Some(&wanted.0)
        };
        let Some(found) = found.filter(is_it) else {
            // It may have begun since.
            let looked_after = self.index.built_ns > event_ns;
            return if looked_after {
                Victim::Gone
            } else {
                Victim::Later
            };
        };
        if self.translated.len() >= TRANSLATED_MAX {
            self.translated.clear();
        }
        self.translated.insert(key, found);
        Victim::Is(found)
    }
}

/// The last number of a line of /proc/PID/status.
fn field(pid: u32, name: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_spent_is_rested_for_whatever_it_is_spent_on() {
        let mut budget = Budget::new();
        let (none, ms) = (Duration::ZERO, Duration::from_millis(1));
        assert_eq!(budget.charge(30 * ms, none), none, "after a quiet while");
        assert_eq!(budget.charge(30 * ms, none), 10 * ms * SHARE);
        assert_eq!(budget.charge(7 * ms, none), 7 * ms * SHARE);
        assert_eq!(budget.charge(2 * ms, 3 * ms), none);
        // Time alone makes no more than a burst of it.
        assert_eq!(budget.charge(51 * ms, 1_000 * ms), ms * SHARE);
    }

    #[test]
    fn all_processes_are_inspected_so_often_and_living_namespaces_are_kept() {
        let Ok(group) = ProcReads::new() else { return };
        let (read, _reads) = mpsc::sync_channel(QUEUE);
        let (_unknown, asked) = mpsc::sync_channel(QUEUE);
        let fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let own = namespace_of(std::process::id()).unwrap();
        let number = |n: usize| PathBuf::from(format!("pid:[{n}]"));
        let mut listener = Listener {
            group,
            host: 0,
            namespaces: HashMap::from([(7, own.clone()), (8, number(8))]),
            known: (1..NAMESPACES_MAX).map(number).collect(),
            translated: HashMap::new(),
            index: Index::default(),
            unresolved: Vec::new(),
            read,
            asked,
            ready: fd.clone(),
            wake: fd,
            stop: Arc::default(),
            missed: Arc::default(),
            gone: Arc::default(),
        };
        let read = |target| Read {
            reader: 1,
            target,
            procfs: 7,
            file: ProcFile::Environ,
        };
        // One that does not exist, again and again.
        let began = Instant::now();
        let mut looks = HashSet::new();
        for _ in 0..200 {
            assert!(matches!(
                listener.victim(read(u32::MAX), boot_ns()),
                Victim::Gone | Victim::Later
            ));
            looks.insert(listener.index.built_ns);
        }
        let most = began.elapsed().as_millis() / INDEX_EVERY.as_millis() + 2;
        assert!(looks.len() as u128 <= most, "{} looks", looks.len());
        let me = std::process::id();
        let number_here = field(me, "NSpid:").unwrap();
        while !listener.index.is_due() {
            thread::sleep(INDEX_EVERY / 4);
        }
        let found = listener.victim(read(number_here), boot_ns());
        assert!(matches!(found, Victim::Is(pid) if pid == me));
        listener.known.insert(own.clone());
        assert!(listener.make_room());
        assert_eq!(listener.known, HashSet::from([own.clone()]));
        assert_eq!(listener.namespaces, HashMap::from([(7, own)]));
    }

    fn started() -> Option<ProcessReads> {
        match ProcessReads::start() {
            Ok(reads) => Some(reads),
            Err(error) => {
                assert!(!rustix::process::geteuid().is_root(), "{error}");
                eprintln!("not run: needs root");
                None
            }
        }
    }

    /// The first read of this process's environment or memory.
    fn read_of(reads: &ProcessReads, victim: u32) -> Option<ProcessRead> {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if let Some(read) = reads.take().into_iter().find(|read| read.victim == victim) {
                return Some(read);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    #[test]
    fn who_read_whose_environment() {
        let Some(reads) = started() else { return };
        let mut victim = Command::new("sleep").arg("30").spawn().unwrap();
        let mut reader = Command::new("sh")
            .args(["-c", "cat /proc/$1/environ; read line", "sh"])
            .arg(victim.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let read = read_of(&reads, victim.id());
        reader.kill().unwrap();
        reader.wait().unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();
        let read = read.unwrap();
        assert_eq!(read.what, Taken::Environment);
        assert_ne!(read.reader, victim.id());
    }

    #[test]
    fn a_container_s_own_procfs_is_listened_to() {
        let Some(reads) = started() else { return };
        let mut inside = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c"])
            .arg("sleep 30 & while :; do cat /proc/$!/environ; sleep 0.2; done")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The first process of the namespace, by the host's number.
        let first = (0..500).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            let path = format!("/proc/{0}/task/{0}/children", inside.id());
            let children = std::fs::read_to_string(path).ok()?;
            children.split_whitespace().next()?.parse::<u32>().ok()
        });
        let first = first.unwrap();
        reads.has_own_procfs(first);
        let children = format!("/proc/{first}/task/{first}/children");
        let sleep = (0..500).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            let children = std::fs::read_to_string(&children).ok()?;
            let sleeps = |pid: &&str| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with("sleep\x0030"))
            };
            children
                .split_whitespace()
                .find(sleeps)?
                .parse::<u32>()
                .ok()
        });
        let read = read_of(&reads, sleep.unwrap());
        inside.kill().unwrap();
        inside.wait().unwrap();
        let end = Command::new("kill")
            .arg("-9")
            .arg(first.to_string())
            .status();
        assert!(end.unwrap().success());
        assert_eq!(read.unwrap().what, Taken::Environment);
    }
}
