//! The kernel side's other half: loads it, attaches each signal to the best hook the kernel allows, drains records.
//!
//! The only user of aya. A hook that is refused is recorded with its reason and remedy and never ends the agent.

mod activity;
mod attached;
mod bpf;
pub mod btf;
mod checks;
mod error;
mod fanotify;
mod foreign;
mod hand_over;
mod hooks;
mod kernel_ids;
mod limit;
mod limits;
mod maps;
mod proc;
mod process_reads;
mod proof;
mod reach;
mod ring;
mod rings;
mod self_test;
mod start;
mod tls;
mod trials;
mod watch;
mod watcher;
mod wipe;

pub use activity::run as self_test_activity;
pub use checks::{HookChange, HookFate};
pub use error::SensorError;
pub use foreign::{ForeignNews, Holder, Loaded};
pub use hand_over::hand_over;
pub use keytrail_model::Tier;
pub use keytrail_model::status::{LibraryReport, Refused, SensorStatus, SignalReport};
pub use limit::Limit;
pub use limits::{Limits, PassedOver};
pub use maps::{ATTACH_LIMIT, Loss, PassedTotal};
pub use proc::Identity;
pub use process_reads::ProcessRead;
pub use trials::Untried;
pub use watch::file_id;

use self::{
    attached::Attached,
    bpf::Misses,
    fanotify::Fanotify,
    foreign::Foreign,
    limits::Passed,
    maps::Maps,
    process_reads::ProcessReads,
    rings::Rings,
    tls::Libraries,
    trials::Trials,
    watch::Watches,
    watcher::{Listen, Watcher},
};
use aya::Ebpf;
use keytrail_abi::{
    FileAccess, FileId, FileNew, Kind, PROC_UNKNOWN, ProcState, TlsWrite, access, state::WIPE_SLOT,
};
use keytrail_model::Signal;
use rustix::event::{PollFd, PollFlags};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What the hook of fanotify's records is called.
const FANOTIFY: &str = "fanotify";
/// Time that a look for TLS libraries is waited for by who waits for it.
const FIRST_SCAN: Duration = Duration::from_secs(20);

/// How to open the sensor.
#[derive(Clone, Debug)]
pub struct SensorOptions {
    /// `None`: the best each signal can have. `Some(Base)` leaves the fentry tier alone.
    pub tier: Option<Tier>,
    /// Size of the ring of payloads, bytes, rounded up to a power of two; the others are smaller.
    pub ring_bytes: u32,
    /// Print the kernel side's debug log through `tracing` (needs an object built with the feature `log`).
    pub debug_log: bool,
    /// Report files that were not seen before when they are read (`FileNew`).
    pub discover: bool,
    /// Provoke every hook once and check that it fires.
    pub self_test: bool,
    /// Hook the system calls of the host: see writes that are no sends, and what is taken out of processes.
    pub system_calls: bool,
    /// How much of what processes send is captured.
    pub limits: Limits,
    /// Inspects its hooks and others' programs while it runs.
    pub checks: Checks,
}

/// How the sensor looks after itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Between two looks; zero: none.
    pub every: Duration,
    /// The program of this process is one that calls [`activity::run`] when it is started with `self-test-activity` and maybe a path. Without
    /// it nothing is inspected but the hooks' places.
    pub can_exercise: bool,
    /// A file that is made, on a disk, and that nobody else has a reason to read.
    pub file: Option<PathBuf>,
}

impl Default for SensorOptions {
    fn default() -> Self {
        Self {
            tier: None,
            ring_bytes: 8 << 20,
            debug_log: false,
            discover: true,
            self_test: true,
            system_calls: true,
            limits: Limits::default(),
            checks: Checks::default(),
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

/// The name of the hook that serves each kind of record.
type HookNames = [String; Kind::COUNT];

/// Passes what the kernel side has logged on to `tracing`.
type DebugLog = Box<dyn FnMut() + Send>;

/// A running sensor. Dropping it detaches everything.
pub struct Sensor {
    ebpf: Ebpf,
    maps: Maps,
    rings: Rings,
    ring_fds: Vec<OwnedFd>,
    fanotify: Option<Fanotify>,
    fanotify_lost: u64,
    process_reads: Option<ProcessReads>,
    misses: Misses,
    watches: Watches,
    watcher: Watcher,
    /// Files that could not be watched, and why; not reported yet.
    unwatched: Vec<(PathBuf, io::Error)>,
    libraries: Libraries,
    names: HookNames,
    status: SensorStatus,
    debug_log: Option<DebugLog>,
    /// Processes that found no room in the table.
    table_full: u64,
    passed: Passed,
    /// Processes without a decision at the last sweep.
    waiting: HashMap<u32, u64>,
    attached: Attached,
    /// When the hooks were last inspected, by the wall clock.
    looked_wall_ns: u64,
    trials: Option<Trials>,
    /// The file of the trials that is watched.
    trial_file: Option<FileId>,
    canary_kept: bool,
    foreign: Option<Foreign>,
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
    pub fn refused(&mut self, signal: Signal, refused: Refused) {
        if let Some(report) = self.status.signal_mut(signal) {
            report.refused.push(refused);
        }
    }

    /// Waits until there is something to drain, at most `timeout`. `extra` are further descriptors to wake for.
    ///
    /// Only here does the kernel side wake anybody, once: it is reported before the ring is inspected, and a record that
    /// was reserved before makes the ring readable at once, so that none is slept over.
    ///
    /// # Errors
    /// Those of poll(2), but for EINTR, which is a wake-up.
    pub fn wait(&mut self, timeout: Duration, extra: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.maps.set_waiting(true)?;
        let result = self.poll(timeout, extra);
        self.maps.set_waiting(false)?;
        result
    }

    fn poll(&self, timeout: Duration, extra: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut fds: Vec<_> = self
            .ring_fds
            .iter()
            .map(|ring| PollFd::new(ring, PollFlags::IN))
            .collect();
        fds.extend(
            self.fanotify
                .iter()
                .map(|group| PollFd::new(group, PollFlags::IN)),
        );
        fds.extend(
            self.process_reads
                .iter()
                .map(|reads| PollFd::from_borrowed_fd(reads.ready(), PollFlags::IN)),
        );
        fds.extend(
            self.watcher
                .ready()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        fds.extend(
            self.libraries
                .ready()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        fds.extend(extra.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = rustix::time::Timespec::try_from(timeout).map_err(io::Error::other)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads of other processes' environments and memory. Those taken before a drain are of programs whose exec that
    /// drain hands out at the latest.
    pub fn process_reads(&self) -> Vec<ProcessRead> {
        self.process_reads
            .as_ref()
            .map_or_else(Vec::new, ProcessReads::take)
    }

    /// A process in another pid namespace than the agent's: its procfs may be one of its own.
    pub fn has_own_procfs(&self, tgid: u32) {
        if let Some(reads) = &self.process_reads {
            reads.has_own_procfs(tgid);
        }
    }

    /// Hands out what has happened up to now; returns the number of records.
    ///
    /// Order: fanotify's events come before any ring record that was begun after them. So the ends of the rings are
    /// noted first, then fanotify is read until it is empty, then the rings up to these ends.
    pub fn drain(&mut self, sink: &mut dyn FnMut(RawRecord<'_>)) -> usize {
        if let Some(flush) = &mut self.debug_log {
            flush();
        }
        let until = self.rings.until_now();
        let trials = &mut self.trials;
        let mut sink = |record: RawRecord<'_>| {
            let of_trial = trials
                .as_mut()
                .is_some_and(|trials| trials.sees(record.bytes, record.hook == FANOTIFY));
            if !of_trial {
                sink(record);
            }
        };
        let mut count = 0;
        if let Some(group) = &self.fanotify {
            let (watches, maps) = (&self.watches, &mut self.maps);
            let overflows = group.drain(&mut |touch| {
                watches.touched(maps, &touch, &mut |bytes| {
                    count += 1;
                    sink(RawRecord {
                        bytes,
                        hook: FANOTIFY,
                    });
                });
            });
            self.fanotify_lost += overflows as u64;
        }
        let (names, libraries) = (&self.names, &self.libraries);
        count
            + self.rings.drain(until, &mut |bytes| {
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

    /// Tells the kernel side which pipes a process has as standard streams that ran before it looked; inode 0 is none.
    pub fn set_streams(&mut self, tgid: u32, stdin: FileId, stdout: FileId) {
        self.maps.set_streams(tgid, stdin, stdout);
    }

    /// Watches a file (or directory) with `keytrail_abi::watch` flags. What has to be looked up at its path is done by a
    /// thread, and in effect after a later [`Sensor::take_watches`].
    ///
    /// # Errors
    /// When a table is full: a gap, for this file.
    pub fn watch(&mut self, path: &Path, file: FileId, flags: u32) -> io::Result<()> {
        self.watches
            .add(&mut self.maps, &mut self.watcher, path, file, flags)
    }

    /// Takes in what has come of watches. Waits while the answers come one after another, at most `most`, and for none that
    /// takes its time. Returns what could not be watched, each a gap: a refused mark, a file system that does not answer;
    /// `NotFound` where the file is not there any more, or another one is.
    pub fn take_watches(&mut self, most: Duration) -> Vec<(PathBuf, io::Error)> {
        self.collect_watches(most);
        std::mem::take(&mut self.unwatched)
    }

    /// Whether something of a watch is still being looked up.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.watcher.is_busy()
    }

    fn collect_watches(&mut self, most: Duration) {
        let until = Instant::now() + most;
        loop {
            match self.watcher.listen() {
                Some(Listen::Begin) => self.watcher.listens(kernel_ids::listen(&mut self.ebpf)),
                Some(Listen::End) => {
                    kernel_ids::listen_no_more(&mut self.ebpf);
                    self.watcher.listens_no_more();
                }
                None => {}
            }
            for answer in self.watcher.take() {
                let failed = self.watches.finish(&mut self.maps, answer);
                self.unwatched.extend(failed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.watcher.goes_on() {
                return;
            }
            self.watcher.wait(left.min(Duration::from_millis(5)));
        }
    }

    /// Declares a discovered file clean in the version of this change time: it is not reported again.
    pub fn set_clean(&mut self, file: FileId, ctime_ns: u64) {
        self.maps.set_clean(file, ctime_ns);
    }

    pub fn unwatch(&mut self, file: FileId) {
        self.watches.remove(&mut self.maps, &mut self.watcher, file);
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
        let count = self.process_reads.as_ref().map_or(0, ProcessReads::missed);
        if count != 0 {
            losses.push(Loss {
                kind: "process_read",
                cpu: 0,
                count,
            });
        }
        let count = self.misses.news(&self.ebpf);
        if count != 0 {
            losses.push(Loss {
                kind: "hook_nested",
                cpu: 0,
                count,
            });
        }
        losses
    }

    /// Reads in /proc since the last call of which it is not known what of whom was read: the process had ended.
    pub fn process_reads_gone(&self) -> u64 {
        self.process_reads.as_ref().map_or(0, ProcessReads::gone)
    }

    /// Payloads that were passed over because a limit was reached since the last call, by process. Those of a process
    /// that has left the kernel side's table meanwhile are in [`Self::passed_totals`] alone.
    pub fn passed_over(&mut self) -> Vec<PassedOver> {
        self.passed.news(&self.maps)
    }

    /// All payloads that were passed over since the start.
    pub fn passed_totals(&self) -> Vec<PassedTotal> {
        self.maps.passed_over()
    }

    /// Overwrites everything the rings still hold of secrets in records that were handed out before this call. Records that
    /// come in meanwhile go to `sink`.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn wipe(&mut self, sink: &mut dyn FnMut(RawRecord<'_>)) -> io::Result<()> {
        self.drain(sink);
        // Names of files are no secrets.
        for which in [rings::MAIN, rings::PAYLOADS] {
            self.wipe_ring(which, sink)?;
        }
        Ok(())
    }

    fn wipe_ring(&mut self, which: usize, sink: &mut dyn FnMut(RawRecord<'_>)) -> io::Result<()> {
        let ring = self.rings.ring(which);
        let size = ring.size();
        // Every slot the kernel reserves for a record is zeroed before it is filled: wherever the pass is led by
        // records, they leave nothing of what was there either.
        let mut pass = self.rings.wiped[which].pass(size, ring.produced());
        let rounds = 4 * size / (WIPE_SLOT as u64 + 8) + 4;
        for _ in 0..rounds {
            let at = self.rings.ring(which).produced();
            if pass.done(at) {
                self.drain(sink);
                self.rings.wiped[which].end(&pass, at);
                return Ok(());
            }
            let step = pass.step(at);
            if hooks::run(&mut self.ebpf, step.program(which))? == 0 {
                pass.took(step, at, self.rings.ring(which).produced());
            }
            // Room for the next steps, and for records, without asking fanotify each time.
            if self.rings.ring(which).unread() > size / 4 {
                self.drain(sink);
            }
        }
        Err(io::Error::other("the ring stayed full"))
    }

    /// Bytes of records that were not handed out yet.
    pub fn unread(&self) -> u64 {
        self.rings.unread()
    }

    /// Bytes of the rings' data that are mapped into this process now.
    pub fn rings_mapped(&self) -> u64 {
        (0..rings::COUNT)
            .map(|which| self.rings.ring(which).mapped())
            .sum()
    }

    /// The rings' pages, for tests that look for what must not be there.
    ///
    /// # Errors
    /// When they cannot be mapped.
    pub fn ring_image(&self) -> io::Result<Vec<u8>> {
        (0..rings::COUNT)
            .map(|which| self.rings.ring(which).data())
            .collect::<io::Result<Vec<_>>>()
            .map(|rings| rings.concat())
    }

    /// Asks for a look for TLS libraries on the host and in running processes, and attaches to what is found in a
    /// moment. Returns how many files were attached to that were not before. What takes longer is there in a later
    /// [`Sensor::take_libraries`].
    pub fn scan_libraries(&mut self) -> usize {
        self.search_libraries();
        let found = self.libraries.take_all(&mut self.ebpf, FIRST_SCAN);
        self.status.libraries = self.libraries.reports();
        found
    }

    /// The same without waiting for anything.
    pub fn search_libraries(&self) {
        self.libraries.scan();
    }

    /// The same for the program that a process runs: what a program has linked in is hooked before it connects.
    pub fn search_program(&self, tgid: u32) {
        self.libraries.scan_program(tgid);
    }

    /// The same for what a process has mapped: cheap enough for every holder.
    pub fn search_process(&self, tgid: u32) {
        self.libraries.scan_process(tgid);
    }

    /// Begins to look for programs with TLS inside wherever they are installed, before anybody runs them.
    pub fn search_ahead(&self) {
        self.libraries.search_ahead();
    }

    /// A file that was written, open (`O_PATH` will do): if it is a program, it may have TLS inside.
    pub fn offer_program(&self, file: impl AsRawFd, path: PathBuf) {
        self.libraries.offer(file, path);
    }

    /// Attaches to what was found since. Returns whether anything about libraries is new.
    pub fn take_libraries(&mut self) -> bool {
        let news = self.libraries.take(&mut self.ebpf).is_some();
        if news {
            self.status.libraries = self.libraries.reports();
        }
        news
    }

    /// Whether something is searched for, or was found and not taken.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.libraries.is_searching()
    }

    /// Readable when a search has found something.
    #[must_use]
    pub fn found_libraries(&self) -> Option<BorrowedFd<'_>> {
        self.libraries.ready()
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
                access::CALL => "raw_tp:sys_enter",
                _ => "raw_tp:mm_filemap_map_pages",
            }
        }
        Kind::TLS_WRITE => libraries.hook(u64::from_ne_bytes(number(
            bytes,
            std::mem::offset_of!(TlsWrite, cookie),
        ))),
        kind => names.get(usize::from(kind)).map_or("", String::as_str),
    }
}
