//! Reads of other processes' environments and memory: a thread that listens to every procfs, and says who read whose.
//!
//! The kernel tells of every read of every file in /proc, and each costs this thread a few microseconds: it has a thread
//! of its own, so that nothing else waits for it, and a budget, so that a host that reads /proc all day pays no more than
//! that. What is beyond the budget is counted by the kernel's queue.

use super::proc::{Identity, identity};
use keytrail_host::{
    clock::boot_ns,
    proc_reads::{ProcFile, ProcRead as Read, ProcReads},
};
use keytrail_model::Taken;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
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

/// Reads of any file in /proc that are looked at in a second: about 5% of a core.
const BUDGET: usize = 10_000;
const SECOND: Duration = Duration::from_secs(1);
/// Reads that may wait for the engine.
const QUEUE: usize = 4_096;
/// Procfs of other pid namespaces that are remembered.
const NAMESPACES_MAX: usize = 4_096;
/// Translated process numbers of other namespaces that are remembered.
const TRANSLATED_MAX: usize = 1_024;

/// A process read the environment or the memory of another one, or its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRead {
    /// When it was told, nanoseconds since boot; it happened before.
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
            .spawn(move || listener.run())?;
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

    /// Whether a read that was made for it was told.
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

struct Listener {
    group: ProcReads,
    /// Device of the host's procfs, whose numbers are those of the agent.
    host: u64,
    /// Pid namespaces by the device of their procfs.
    namespaces: HashMap<u64, PathBuf>,
    /// Pid namespaces that were met.
    known: HashSet<PathBuf>,
    /// The host's number of a process, by the device of a procfs and its number there.
    translated: HashMap<(u64, u32), u32>,
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
        let (mut second, mut looked) = (Instant::now(), 0);
        loop {
            let mut fds = [
                PollFd::new(&self.group, PollFlags::IN),
                PollFd::new(&*self.wake, PollFlags::IN),
            ];
            // An interrupted wait is a short one.
            let _ = rustix::event::poll(&mut fds, None);
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            while let Ok(tgid) = self.asked.try_recv() {
                self.mark(tgid);
            }
            if second.elapsed() >= SECOND {
                (second, looked) = (Instant::now(), 0);
            }
            if looked >= BUDGET {
                // The kernel's queue holds 16,384 by default (fs.fanotify.max_queued_events) and says when it is full.
                thread::sleep(SECOND.saturating_sub(second.elapsed()));
                continue;
            }
            looked += self.drain(BUDGET - looked);
        }
    }

    fn drain(&mut self, most: usize) -> usize {
        let now = boot_ns();
        let mut reads = Vec::new();
        let drained = self.group.drain(most, &mut |read| {
            // At once: a short command is gone soon.
            reads.push((read, identity(read.reader)));
        });
        if drained.missed {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        let mut gone = drained.gone as u64;
        let mut any = false;
        for (read, identity) in reads {
            let Some(victim) = self.victim(read) else {
                gone += 1;
                continue;
            };
            let read = ProcessRead {
                boot_ns: now,
                reader: read.reader,
                identity,
                victim,
                what: match read.file {
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
        drained.events
    }

    /// Listens to the procfs of a process in another pid namespace.
    fn mark(&mut self, tgid: u32) {
        let Ok(namespace) = std::fs::read_link(format!("/proc/{tgid}/ns/pid")) else {
            return;
        };
        if self.known.contains(&namespace) {
            return;
        }
        // A container may have no /proc, or the host's: then there is nothing more to listen to.
        if let Ok(device) = self
            .group
            .mark(Path::new(&format!("/proc/{tgid}/root/proc")))
        {
            if self.known.len() >= NAMESPACES_MAX {
                self.known.clear();
                self.namespaces.clear();
            }
            self.known.insert(namespace.clone());
            if device != self.host {
                self.namespaces.insert(device, namespace);
            }
        }
    }

    /// The process that was read, by the host's number. A thread stands for its process.
    fn victim(&mut self, read: Read) -> Option<u32> {
        if read.procfs == self.host {
            return field(read.target, "Tgid:");
        }
        let key = (read.procfs, read.target);
        if let Some(&known) = self.translated.get(&key)
            && field(known, "NSpid:") == Some(read.target)
        {
            return Some(known);
        }
        let namespace = self.namespaces.get(&read.procfs)?;
        let found = std::fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .find(|&pid| {
                std::fs::read_link(format!("/proc/{pid}/ns/pid"))
                    .ok()
                    .as_ref()
                    == Some(namespace)
                    && field(pid, "NSpid:") == Some(read.target)
            })?;
        if self.translated.len() >= TRANSLATED_MAX {
            self.translated.clear();
        }
        self.translated.insert(key, found);
        Some(found)
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
