//! The kernel side's other half: loads it, attaches each signal to the best hook the kernel allows, drains records.
//!
//! The only user of aya. A hook that is refused is recorded with its reason and remedy and never ends the agent.

mod bpf;
pub mod btf;
mod error;
mod fanotify;
mod hooks;
mod learn;
mod maps;
mod proc;
mod proof;
mod provoke;
mod ring;
mod start;
mod status;
mod tls;
mod watch;
mod wipe;

pub use error::SensorError;
pub use maps::Loss;
pub use status::{LibraryReport, Refused, SensorStatus, SignalReport, Tier};
pub use watch::file_id;

use self::{
    bpf::PassedOver, fanotify::Fanotify, maps::Maps, ring::Ring, tls::Libraries, watch::Watches,
};
use aya::Ebpf;
use keytrail_abi::{
    FileAccess, FileId, FileNew, Kind, PROC_UNKNOWN, ProcState, TlsWrite, access,
    state::{self, WIPE_SLOT},
};
use rustix::event::{PollFd, PollFlags};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

/// How to open the sensor.
#[derive(Clone, Debug)]
pub struct SensorOptions {
    /// `None`: the best each signal can have. `Some(Base)` leaves the fentry tier alone.
    pub tier: Option<Tier>,
    /// Size of the ring, bytes; rounded up to a power of two.
    pub ring_bytes: u32,
    /// Print the kernel side's debug log through `tracing` (needs an object built with the feature `log`).
    pub debug_log: bool,
    /// Report files that were not seen before when they are read (`FileNew`).
    pub discover: bool,
    /// Provoke every hook once and check that it fires.
    pub self_test: bool,
}

impl Default for SensorOptions {
    fn default() -> Self {
        Self {
            tier: None,
            ring_bytes: 8 << 20,
            debug_log: false,
            discover: true,
            self_test: true,
        }
    }
}

/// One record, as the kernel side made it.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Begins with a `keytrail_abi::Header`; what lies beyond `header.len` is padding.
    pub bytes: &'a [u8],
    /// The hook that saw it, for example `raw_tp:sched_process_exec`, `uprobe:SSL_write` or `fanotify`.
    pub hook: &'a str,
}

/// The names of the hooks that serve each kind of record.
#[derive(Debug, Default)]
struct HookNames {
    exec: String,
    fork: String,
    exit: String,
    connect: String,
    send: String,
}

/// Passes what the kernel side has logged on to `tracing`.
type DebugLog = Box<dyn FnMut() + Send>;

/// A running sensor. Dropping it detaches everything.
pub struct Sensor {
    ebpf: Ebpf,
    maps: Maps,
    ring: Ring,
    ring_fd: OwnedFd,
    fanotify: Option<Fanotify>,
    fanotify_lost: u64,
    passed_over: PassedOver,
    watches: Watches,
    libraries: Libraries,
    names: HookNames,
    status: SensorStatus,
    debug_log: Option<DebugLog>,
    /// Processes that found no room in the table.
    table_full: u64,
    /// Processes without a decision at the last sweep.
    waiting: HashMap<u32, u64>,
    wiped: wipe::Wiped,
}

impl Sensor {
    /// Loads and attaches what this kernel allows.
    ///
    /// # Errors
    /// Only when nothing can work: no root, no BTF, an object the kernel does not take. Everything less is in
    /// [`Sensor::status`].
    pub fn open(options: &SensorOptions) -> Result<Self, SensorError> {
        start::open(options)
    }

    /// Which hooks were chosen and refused, and which libraries are covered.
    pub fn status(&self) -> &SensorStatus {
        &self.status
    }

    /// Notes something else that a signal needs and does not get.
    pub fn refused(&mut self, signal: &str, refused: Refused) {
        if let Some(report) = self.status.signal_mut(signal) {
            report.refused.push(refused);
        }
    }

    /// Waits until there is something to drain, at most `timeout`. `extra` are further descriptors to wake for.
    ///
    /// # Errors
    /// Those of poll(2), but for EINTR, which is a wake-up.
    pub fn wait(&self, timeout: Duration, extra: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.ring_fd, PollFlags::IN)];
        fds.extend(
            self.fanotify
                .iter()
                .map(|group| PollFd::new(group, PollFlags::IN)),
        );
        fds.extend(extra.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = rustix::time::Timespec::try_from(timeout).map_err(io::Error::other)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands out what has happened up to now; returns the number of records.
    ///
    /// Order: fanotify's events come before any ring record that was begun after them. So the end of the ring is
    /// noted first, then fanotify is read until it is empty, then the ring up to that end.
    pub fn drain(&mut self, sink: &mut dyn FnMut(RawRecord<'_>)) -> usize {
        if let Some(flush) = &mut self.debug_log {
            flush();
        }
        let until = self.ring.produced();
        let mut count = 0;
        if let Some(group) = &self.fanotify {
            let (watches, maps) = (&self.watches, &mut self.maps);
            let overflows = group.drain(&mut |touch| {
                watches.touched(maps, &touch, &mut |bytes| {
                    count += 1;
                    sink(RawRecord {
                        bytes,
                        hook: "fanotify",
                    });
                });
            });
            self.fanotify_lost += overflows as u64;
        }
        let (names, libraries) = (&self.names, &self.libraries);
        count
            + self.ring.drain(until, &mut |bytes| {
                sink(RawRecord {
                    bytes,
                    hook: hook_of(names, libraries, bytes),
                });
            })
    }

    /// The state the kernel side has for a process; `None` is clean.
    pub fn process(&self, tgid: u32) -> Option<ProcState> {
        self.maps.process(tgid)
    }

    /// Processes the kernel side follows at present.
    pub fn processes(&self) -> Vec<(u32, ProcState)> {
        self.maps.processes()
    }

    /// Sets a process's state; a full table is counted as a loss.
    ///
    /// Decisions arrive late: a process that has died meanwhile stays out, and one that has executed something newer
    /// than `state.exec_id` (where it is not 0) keeps what the kernel side has set.
    pub fn set_process(&mut self, tgid: u32, state: ProcState) {
        let before = self.maps.process(tgid);
        if state.exec_id != 0 && before.is_none_or(|now| now.exec_id != state.exec_id) {
            return;
        }
        if !self.maps.set_process(tgid, state) {
            self.table_full += 1;
        } else if before.is_none() && !proc::exists(tgid) {
            self.maps.remove_process(tgid);
        }
    }

    /// Puts the table of processes in order: the dead leave it, and those that have been waiting for a decision since
    /// the last call, because a record was lost, are named (with their `exec_id`), to be decided from /proc.
    pub fn sweep(&mut self) -> Vec<(u32, u64)> {
        let mut waiting = HashMap::new();
        for (tgid, state) in self.maps.processes() {
            if !proc::exists(tgid) {
                self.maps.remove_process(tgid);
            } else if state.state == PROC_UNKNOWN {
                waiting.insert(tgid, state.exec_id);
            }
        }
        let overdue = waiting
            .iter()
            .filter(|(tgid, exec_id)| self.waiting.get(tgid) == Some(exec_id))
            .map(|(tgid, exec_id)| (*tgid, *exec_id))
            .collect();
        self.waiting = waiting;
        overdue
    }

    /// Declares a process clean, unless it has executed something else or read a secret since the exec `exec_id`.
    ///
    /// A read of a watched file in the very instant between question and removal leaves its record in the ring, upon
    /// which the caller makes the process a holder again.
    pub fn clear_process(&mut self, tgid: u32, exec_id: u64) {
        if let Some(now) = self.maps.process(tgid)
            && now.exec_id == exec_id
            && now.state == PROC_UNKNOWN
        {
            self.maps.remove_process(tgid);
        }
    }

    /// Watches a file (or directory) with `keytrail_abi::watch` flags.
    ///
    /// # Errors
    /// When a table is full or the fanotify mark is refused: a gap, for this file.
    pub fn watch(&mut self, path: &Path, file: FileId, flags: u32) -> io::Result<()> {
        let alias = if flags & state::watch::FILE == 0 {
            None
        } else {
            learn::real(&mut self.ebpf, &mut self.maps, path)
        };
        let fanotify = self.fanotify.as_ref();
        self.watches
            .add(&mut self.maps, fanotify, path, file, flags, alias)
    }

    /// Declares a discovered file clean in the version of this change time: it is not reported again.
    pub fn set_clean(&mut self, file: FileId, ctime_ns: u64) {
        self.maps.set_clean(file, ctime_ns);
    }

    pub fn unwatch(&mut self, file: FileId) {
        self.watches
            .remove(&mut self.maps, self.fanotify.as_ref(), file);
    }

    /// Number of watched files.
    pub fn watched(&self) -> usize {
        self.watches.len()
    }

    /// Records lost since the last call.
    pub fn losses(&mut self) -> Vec<Loss> {
        let mut losses = self.maps.losses();
        if self.table_full != 0 {
            losses.push(Loss {
                kind: "process_table",
                cpu: 0,
                count: std::mem::take(&mut self.table_full),
            });
        }
        if self.fanotify_lost != 0 {
            losses.push(Loss {
                kind: "fanotify",
                cpu: 0,
                count: std::mem::take(&mut self.fanotify_lost),
            });
        }
        let count = self.passed_over.news(&self.ebpf);
        if count != 0 {
            losses.push(Loss {
                kind: "hook_nested",
                cpu: 0,
                count,
            });
        }
        losses
    }

    /// Overwrites everything the ring still holds of records that were handed out before this call. Records that
    /// come in meanwhile go to `sink`.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn wipe(&mut self, sink: &mut dyn FnMut(RawRecord<'_>)) -> io::Result<()> {
        self.drain(sink);
        let size = self.ring.size();
        // Every slot the kernel reserves for a record is zeroed before it is filled: wherever the lap is led by
        // records, they leave nothing of what was there either.
        let mut lap = self.wiped.lap(size, self.ring.produced());
        let rounds = 4 * size / (WIPE_SLOT as u64 + 8) + 4;
        for _ in 0..rounds {
            let at = self.ring.produced();
            if lap.done(at) {
                self.drain(sink);
                self.wiped.end(&lap, at);
                return Ok(());
            }
            let step = lap.step(at);
            if start::run(&mut self.ebpf, step.program())? == 0 {
                lap.took(step, at, self.ring.produced());
            }
            // Room for the next steps, and for records, without asking fanotify each time.
            if self.ring.unread() > size / 4 {
                self.drain(sink);
            }
        }
        Err(io::Error::other("the ring stayed full"))
    }

    /// The ring's pages, for tests that look for what must not be there.
    pub fn ring_image(&self) -> Vec<u8> {
        self.ring.data()
    }

    /// Looks for TLS libraries on the host and in running processes and attaches to new ones. Returns how many
    /// files were attached to that were not before.
    pub fn scan_libraries(&mut self) -> usize {
        let found = self.libraries.scan(&mut self.ebpf);
        self.status.libraries = self.libraries.reports();
        found
    }

    /// The same for what some processes have mapped: cheap enough for every holder.
    pub fn attach_process_libraries(&mut self, tgids: &[u32]) -> usize {
        let found = tgids
            .iter()
            .map(|&tgid| self.libraries.scan_process(&mut self.ebpf, tgid))
            .sum();
        // What cannot be attached to is news as well.
        self.status.libraries = self.libraries.reports();
        found
    }
}

impl AsFd for Sensor {
    /// Readable when the ring has records.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring_fd.as_fd()
    }
}

/// A number inside a record; zero when the record is too short for it.
fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn hook_of<'a>(names: &'a HookNames, libraries: &'a Libraries, bytes: &[u8]) -> &'a str {
    match u16::from_ne_bytes(number(
        bytes,
        std::mem::offset_of!(keytrail_abi::Header, kind),
    )) {
        Kind::EXEC | Kind::EXEC_CHUNK => &names.exec,
        Kind::FORK => &names.fork,
        Kind::EXIT => &names.exit,
        kind @ (Kind::FILE_READ | Kind::FILE_NEW) => {
            let at = if kind == Kind::FILE_NEW {
                std::mem::offset_of!(FileNew, access)
            } else {
                std::mem::offset_of!(FileAccess, access)
            };
            match u32::from_ne_bytes(number(bytes, at)) {
                access::READ => "raw_tp:mm_filemap_get_pages",
                access::PERMISSION => "fexit:security_file_permission",
                access::MAPPED => "fexit:security_mmap_file",
                _ => "raw_tp:mm_filemap_map_pages",
            }
        }
        Kind::CONNECT => &names.connect,
        Kind::SOCK_SEND => &names.send,
        Kind::TLS_WRITE => libraries.hook(u64::from_ne_bytes(number(
            bytes,
            std::mem::offset_of!(TlsWrite, cookie),
        ))),
        _ => "",
    }
}
