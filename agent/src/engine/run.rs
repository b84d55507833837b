//! The loop: wait, drain, digest, step, hand on.

use super::coverage;
use super::places::Places;
use super::{Command, Shared, Sink};
use keytrail_abi::{FileId, Kind, PROC_HOLDER, ProcState};
use keytrail_core::correlate::Core;
use keytrail_host::clock::{boot_ns, wall_ns};
use keytrail_ingest::decode;
use keytrail_ingest::{Digest, Digested, Kernel, Settle};
use keytrail_model::{Dropped, GapSeen, Observation, Pid};
use keytrail_payload as wire;
use keytrail_proto::v1;
use keytrail_sensor::{LibraryReport, RawRecord, Sensor};
use keytrail_store::Ledger;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

/// Name the sensor gives to what fanotify tells.
const FANOTIFY: &str = "fanotify";
const TICK_NS: u64 = 100_000_000;
/// Nothing waits for a decision this long after the last record; from then on ticks are for losses only.
const BUSY_NS: u64 = 2_000_000_000;
const IDLE_TICK_NS: u64 = 1_000_000_000;
/// Longest wait for records: what wakes nobody (ends of processes, forks) is taken after this time at the latest.
const WAIT: Duration = Duration::from_millis(50);
/// The same when nothing has come for a while.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Rest between two drains that both found something. A ring with a record in it is readable at once, so that without
/// a rest the loop would turn for every single record, and look into /proc at processes that are busy dying.
const PACE: Duration = Duration::from_millis(4);
const RESCAN_NS: u64 = 20_000_000;
const FULL_RESCAN_NS: u64 = 30_000_000_000;
const SWEEP_NS: u64 = 10_000_000_000;
/// Who holds something has its libraries looked at when it connects; this is for the report, and for what is opened late.
const LIBRARIES_NS: u64 = 10_000_000_000;
/// A lap of the ring costs about 2 ms; a secret may be there for two seconds at most.
const WIPE_NS: u64 = 1_000_000_000;
const UNLOCATED_NS: u64 = 10_000_000_000;
/// How much too early an interval without an agent may seem to begin; each beat writes to the disk.
const HEARTBEAT_NS: u64 = 5_000_000_000;
/// Time the last records get to arrive before pending decisions are made at the end.
const SETTLE: Duration = Duration::from_millis(50);

/// Kernel-side changes asked for while the ring is being drained; done right after.
#[derive(Default)]
struct Deferred(Vec<Op>);

enum Op {
    Set(u32, ProcState),
    Clear(u32, u64),
    Watch(PathBuf, FileId, u32),
    Unwatch(FileId),
    Clean(FileId, u64),
    /// A holder is about to talk: what it has mapped may be new.
    Libraries(u32),
}

impl Kernel for Deferred {
    fn set_process(&mut self, tgid: u32, state: ProcState) {
        self.0.push(Op::Set(tgid, state));
    }
    fn clear_process(&mut self, tgid: u32, exec_id: u64) {
        self.0.push(Op::Clear(tgid, exec_id));
    }
    fn watch(&mut self, path: &Path, file: FileId, flags: u32) {
        self.0.push(Op::Watch(path.to_owned(), file, flags));
    }
    fn unwatch(&mut self, file: FileId) {
        self.0.push(Op::Unwatch(file));
    }
}

impl Deferred {
    /// Returns what could not be watched, and whether the libraries of some process were looked at.
    fn apply(&mut self, sensor: &mut Sensor) -> (Vec<GapSeen>, bool) {
        let mut gaps = Vec::new();
        let mut libraries = Vec::new();
        for op in self.0.drain(..) {
            match op {
                Op::Set(tgid, state) => sensor.set_process(tgid, state),
                Op::Clear(tgid, exec_id) => sensor.clear_process(tgid, exec_id),
                Op::Watch(path, file, flags) => {
                    // What is gone already cannot be read.
                    if let Err(error) = sensor.watch(&path, file, flags)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        gaps.push(coverage::unwatched(&path, &error, boot_ns()));
                    }
                }
                Op::Unwatch(file) => sensor.unwatch(file),
                Op::Clean(file, ctime_ns) => sensor.set_clean(file, ctime_ns),
                Op::Libraries(tgid) => libraries.push(tgid),
            }
        }
        // Each process once, and one report for all.
        libraries.sort_unstable();
        libraries.dedup();
        if !libraries.is_empty() {
            sensor.attach_process_libraries(&libraries);
        }
        (gaps, !libraries.is_empty())
    }
}

/// Digest and core with everything a record needs on its way.
pub(super) struct Line {
    pub digest: Digest,
    pub core: Core,
    pub sink: Sink,
    pub ledger: Option<Ledger>,
    pub recording: Option<BufWriter<File>>,
    pub followed: Option<HashSet<Pid>>,
    pub root: Option<u32>,
    pub events: u64,
    /// Counts of the gaps so far, by reason.
    pub gaps: BTreeMap<String, u64>,
    pub records: BTreeMap<&'static str, u64>,
    pub bad_records: u64,
    pub places: Places,
    deferred: Deferred,
    out: Digested,
    /// Holders whose libraries were looked at when they first connected.
    connected: HashSet<Pid>,
    /// Accesses told by fanotify that wait for the ring's records of the same batch.
    accesses: Vec<Vec<u8>>,
}

impl Line {
    pub fn new(digest: Digest, sink: Sink, follow_only: Option<u32>) -> Self {
        Self {
            digest,
            core: Core::new(),
            sink,
            ledger: None,
            recording: None,
            followed: follow_only.map(|_| HashSet::new()),
            root: follow_only,
            events: 0,
            gaps: BTreeMap::new(),
            records: BTreeMap::new(),
            bad_records: 0,
            places: Places::open(None),
            deferred: Deferred::default(),
            out: Digested::default(),
            connected: HashSet::new(),
            accesses: Vec::new(),
        }
    }

    /// One record as the sensor hands it out.
    ///
    /// fanotify has no time stamps and is read before the ring. Its accesses wait for the ring's records of this
    /// batch, so that they meet the program that was executed before them; but not beyond a send or the end of their
    /// process, which came after them.
    fn record(&mut self, raw: &RawRecord<'_>, shared: &Shared) {
        if raw.hook == FANOTIFY {
            self.accesses.push(raw.bytes.to_vec());
            return;
        }
        if !self.accesses.is_empty()
            && let Ok(record) = decode::decode(raw.bytes)
            && matches!(
                record.header().kind,
                Kind::SOCK_SEND | Kind::TLS_WRITE | Kind::EXIT
            )
        {
            self.accesses_of(Some(record.header().tgid), shared);
        }
        self.ordered(raw.bytes, raw.hook, shared);
    }

    /// The accesses of one process (or all) that were waiting.
    fn accesses_of(&mut self, tgid: Option<u32>, shared: &Shared) {
        let (now, later) =
            std::mem::take(&mut self.accesses)
                .into_iter()
                .partition(|bytes: &Vec<u8>| {
                    tgid.is_none_or(|tgid| {
                        decode::decode(bytes).is_ok_and(|r| r.header().tgid == tgid)
                    })
                });
        self.accesses = later;
        for mut bytes in now {
            self.identify(&mut bytes);
            self.ordered(&bytes, FANOTIFY, shared);
        }
    }

    /// An access of a process that was gone when fanotify told of it: the records say who it was.
    fn identify(&self, bytes: &mut [u8]) {
        let Ok(record) = decode::decode(bytes) else {
            return;
        };
        let header = record.header();
        if header.start_ns == 0
            && let Some(pid) = self.core.processes().latest(header.tgid)
        {
            let at = std::mem::offset_of!(keytrail_abi::Header, start_ns);
            let start = (pid.start * keytrail_model::TICK_NS).to_ne_bytes();
            bytes[at..at + start.len()].copy_from_slice(&start);
        }
    }

    /// One record, in order, all the way.
    fn ordered(&mut self, bytes: &[u8], hook: &str, shared: &Shared) {
        let record = match decode::decode(bytes) {
            Ok(record) => record,
            Err(error) => {
                self.bad_records += 1;
                tracing::warn!(%error, "a kernel record was refused");
                return;
            }
        };
        let header = *record.header();
        *self.records.entry(Kind::name(header.kind)).or_default() += 1;
        if header.kind != Kind::EXEC && header.kind != Kind::EXEC_CHUNK && header.kind != Kind::EXIT
        {
            self.introduce(keytrail_ingest::pid_of_header(&header));
        }
        let mut out = std::mem::take(&mut self.out);
        let stranger =
            |followed: &HashSet<Pid>| !followed.contains(&keytrail_ingest::pid_of_header(&header));
        if self.followed.as_ref().is_some_and(stranger) {
            // What other programs read and delete is no gap of the command that is followed.
            self.digest
                .unasked(|digest| digest.record(&record, hook, &mut out));
        } else {
            self.digest.record(&record, hook, &mut out);
        }
        self.take(&mut out);
        self.out = out;
        if header.kind == Kind::EXIT && self.root == Some(header.tgid) {
            shared.root_gone.store(true, Ordering::Release);
        }
    }

    /// Steps the core with what a record became.
    fn take(&mut self, out: &mut Digested) {
        for observation in out.observations.drain(..) {
            if let Observation::Exec(exec) = &observation {
                self.introduce(exec.parent);
            }
            if let Some(followed) = &mut self.followed
                && let Observation::Fork { at, child, .. } = &observation
                && followed.contains(&at.pid)
            {
                followed.insert(*child);
            }
            self.step(&observation);
            if let Observation::Connect { at, .. } = &observation
                && self.core.holds(at.pid)
                && self.connected.insert(at.pid)
            {
                self.deferred.0.push(Op::Libraries(at.pid.tgid));
            }
            if let Observation::Exec(exec) = &observation {
                // Another program: other libraries.
                self.connected.remove(&exec.at.pid);
            }
            if let Observation::Exit { at, .. } = &observation {
                self.connected.remove(&at.pid);
            }
            if let Observation::File(seen) = &observation
                && self.core.holds(seen.at.pid)
            {
                // Said again: a decision about the exec before may have been on its way.
                let state = ProcState {
                    state: PROC_HOLDER,
                    pad: 0,
                    exec_id: 0,
                };
                self.deferred.set_process(seen.at.pid.tgid, state);
                // It may have connected before it held anything.
                self.deferred.0.push(Op::Libraries(seen.at.pid.tgid));
            }
        }
        for (path, file) in out.watch.drain(..) {
            self.deferred.watch(&path, file, keytrail_abi::watch::FILE);
        }
        for (file, ctime_ns) in out.clean.drain(..) {
            self.set_clean(file, ctime_ns);
        }
        for news in out.places.drain(..) {
            self.places_news(news);
        }
        for file in out.unwatch.drain(..) {
            self.deferred.unwatch(file);
        }
        for settle in out.settle.drain(..) {
            self.settle(settle);
        }
    }

    /// A file that needs no further look in this version.
    pub fn set_clean(&mut self, file: FileId, ctime_ns: u64) {
        self.deferred.0.push(Op::Clean(file, ctime_ns));
    }

    pub fn watch(&mut self, path: &Path, file: FileId) {
        self.deferred.watch(path, file, keytrail_abi::watch::FILE);
    }

    pub fn unwatch(&mut self, file: FileId) {
        self.deferred.unwatch(file);
    }

    /// The kernel captures payloads of a process until it is told that it holds nothing.
    fn settle(&mut self, settle: Settle) {
        let Settle { pid, exec_id } = settle;
        if self.core.holds(pid) {
            self.deferred.set_process(
                pid.tgid,
                ProcState {
                    state: PROC_HOLDER,
                    pad: 0,
                    exec_id,
                },
            );
        } else {
            self.deferred.clear_process(pid.tgid, exec_id);
        }
    }

    /// Makes sure that a process and its ancestors are known, from /proc when no record told of them.
    fn introduce(&mut self, pid: Pid) {
        let mut chain = Vec::new();
        let mut next = pid;
        while next.tgid != 0 && !self.core.knows(next) && chain.len() < 16 {
            let Some(snapshot) = self.digest.acquaint(next.tgid, boot_ns()) else {
                break;
            };
            if snapshot.at.pid != next {
                break;
            }
            next = snapshot.parent;
            chain.push(snapshot);
        }
        for snapshot in chain.into_iter().rev() {
            self.snapshot(snapshot);
        }
    }

    pub fn snapshot(&mut self, snapshot: keytrail_model::Snapshot) {
        let pid = snapshot.at.pid;
        self.step(&Observation::Snapshot(Box::new(snapshot)));
        if self.core.holds(pid) {
            self.deferred.set_process(
                pid.tgid,
                ProcState {
                    state: PROC_HOLDER,
                    pad: 0,
                    exec_id: 0,
                },
            );
        }
    }

    /// One observation through recording, core, sink and ledger.
    pub fn step(&mut self, observation: &Observation) {
        if let Some(recording) = &mut self.recording {
            let written = serde_json::to_writer(&mut *recording, observation)
                .map_err(std::io::Error::from)
                .and_then(|()| recording.write_all(b"\n"));
            if let Err(error) = written {
                tracing::error!(%error, "the recording cannot be written and ends here");
                self.recording = None;
            }
        }
        for event in self.core.step(observation) {
            self.events += 1;
            if !self.wanted(&event) {
                continue;
            }
            if let Some(gap) = &event.gap {
                *self.gaps.entry(gap.reason.clone()).or_default() += gap.count.max(1);
            }
            let event = Arc::new(event);
            if let Some(ledger) = &self.ledger {
                ledger.record(event.clone());
            }
            (self.sink)(event);
        }
    }

    /// Whether a library matters: who follows one command does not ask what others use.
    fn concerns(&self, library: &LibraryReport) -> bool {
        self.followed
            .as_ref()
            .is_none_or(|followed| followed.iter().any(|pid| library.users.contains(&pid.tgid)))
    }

    fn wanted(&self, event: &v1::Event) -> bool {
        let (Some(followed), Some(root)) = (&self.followed, self.root) else {
            return true;
        };
        let Some(process) = &event.process else {
            return true;
        };
        process.pid == root
            || process.ancestors.iter().any(|a| a.pid == root)
            || followed.iter().any(|pid| pid.tgid == process.pid)
    }

    pub fn gap(&mut self, gap: GapSeen) {
        self.step(&Observation::Gap(gap));
    }

    /// Watched directories changed, or time has come to look.
    pub fn rescan(&mut self) {
        let mut out = Digested::default();
        let mut deferred = std::mem::take(&mut self.deferred);
        let mut look = |digest: &mut Digest| digest.watch(boot_ns(), &mut deferred, &mut out);
        if self.followed.is_some() {
            self.digest.unasked(look);
        } else {
            look(&mut self.digest);
        }
        self.deferred = deferred;
        self.take(&mut out);
    }

    /// Returns whether the libraries of some process were looked at.
    pub fn apply(&mut self, sensor: &mut Sensor) -> bool {
        let (gaps, looked) = self.deferred.apply(sensor);
        for gap in gaps {
            self.gap(gap);
        }
        looked
    }
}

/// The engine's thread.
pub(super) struct Runner {
    pub sensor: Sensor,
    pub line: Line,
    pub shared: Arc<Shared>,
    pub commands: mpsc::Receiver<Command>,
    pub node: v1::NodeStatus,
    pub lost: BTreeMap<String, u64>,
    /// Libraries already reported as not covered.
    pub uncovered: HashSet<String>,
    /// When files that could not be found again may be reported next.
    pub unlocated_due: u64,
    /// The same for what found no room.
    pub dropped_due: u64,
}

impl Runner {
    pub fn run(mut self) -> v1::GetStatusResponse {
        let mut due = Due::default();
        loop {
            self.turn(&mut due);
            if self.shared.stop.load(Ordering::Acquire) {
                break;
            }
        }
        self.finish()
    }

    fn turn(&mut self, due: &mut Due) {
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        if due.found {
            std::thread::sleep(PACE);
        } else {
            self.wait(due);
        }
        let now = boot_ns();
        self.line.digest.files.read_events();
        if self.line.digest.files.is_dirty() && now >= due.rescan {
            self.line.rescan();
            self.line.apply(&mut self.sensor);
            due.rescan = boot_ns() + RESCAN_NS;
        }
        due.found = self.drain() > 0;
        if due.found {
            due.busy_until = now + BUSY_NS;
            due.tick = due.tick.min(now + TICK_NS);
        }
        self.line.background();
        self.line.apply(&mut self.sensor);
        if now >= due.tick {
            self.tick(now);
            due.tick = now
                + if now < due.busy_until {
                    TICK_NS
                } else {
                    IDLE_TICK_NS
                };
        }
        if now >= due.full_rescan {
            self.line.digest.files.mark_all();
            due.full_rescan = now + FULL_RESCAN_NS;
        }
        if now >= due.sweep {
            self.sweep();
            due.sweep = now + SWEEP_NS;
        }
        if now >= due.libraries {
            self.sensor.scan_libraries();
            self.report_libraries(now);
            due.libraries = now + LIBRARIES_NS;
        }
        if self.line.digest.ring_dirty && now >= due.wipe {
            self.wipe();
            due.wipe = boot_ns() + WIPE_NS;
        }
        if now >= due.heartbeat {
            if let Some(ledger) = &self.line.ledger {
                ledger.heartbeat(wall_ns());
            }
            due.heartbeat = now + HEARTBEAT_NS;
        }
        while let Ok(Command::Status(answer)) = self.commands.try_recv() {
            // Who asked may have given up waiting.
            let _ = answer.send(self.status());
        }
    }

    fn wait(&self, due: &Due) {
        let extra: Vec<_> = self.line.digest.files.fd().into_iter().collect();
        let most = if boot_ns() < due.busy_until {
            WAIT
        } else {
            IDLE_WAIT
        };
        if let Err(error) = self.sensor.wait(most, &extra) {
            tracing::warn!(%error, "waiting for records failed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn drain(&mut self) -> usize {
        let Self {
            sensor,
            line,
            shared,
            ..
        } = self;
        let n = sensor.drain(&mut |raw| line.record(&raw, shared));
        line.accesses_of(None, shared);
        if line.apply(sensor) {
            self.report_libraries(boot_ns());
        }
        if n > 0 {
            wire::scrub_stack();
        }
        n
    }

    /// Decides about processes whose record was lost: until then all they send is captured.
    fn sweep(&mut self) {
        for (tgid, exec_id) in self.sensor.sweep() {
            let Some(start) = keytrail_ingest::start_of(tgid) else {
                continue;
            };
            let pid = Pid { tgid, start };
            let known = self.line.core.knows(pid);
            let concerns = match &self.line.followed {
                None => true,
                Some(followed) => followed.contains(&pid),
            };
            if concerns
                && (!known || self.line.digest.missed(tgid, exec_id))
                && let Some(mut snapshot) = self.line.digest.snapshot(tgid, boot_ns())
            {
                snapshot.executed = known;
                self.line.snapshot(snapshot);
            }
            self.line.settle(Settle { pid, exec_id });
        }
        self.line.apply(&mut self.sensor);
    }

    /// What a ring still holds is overwritten, so that no secret outlives its use there.
    fn wipe(&mut self) {
        self.line.digest.ring_dirty = false;
        let Self {
            sensor,
            line,
            shared,
            ..
        } = self;
        if let Err(error) = sensor.wipe(&mut |raw| line.record(&raw, shared)) {
            tracing::error!(%error, "the ring could not be overwritten");
            line.digest.ring_dirty = true;
        }
        line.accesses_of(None, shared);
        line.apply(sensor);
        wire::scrub_stack();
    }

    fn tick(&mut self, now: u64) {
        let wall = wall_ns();
        let mut out = Digested::default();
        self.line.digest.tick(now, &mut out);
        self.line.take(&mut out);
        self.line.step(&Observation::Tick {
            boot_ns: now,
            wall_ns: wall,
        });
        // Compilers read and delete files all the time: told together, not one by one.
        if self.line.digest.unlocated > 0 && now >= self.unlocated_due {
            let count = std::mem::take(&mut self.line.digest.unlocated);
            self.unlocated_due = now + UNLOCATED_NS;
            let gap = coverage::unlocated(count, now, wall.saturating_sub(UNLOCATED_NS), wall);
            self.line.gap(gap);
        }
        if now >= self.dropped_due && !self.line.digest.dropped().is_empty() {
            self.dropped_due = now + Dropped::TELL_NS;
            for (bound, count) in self.line.digest.dropped().take() {
                self.line.gap(bound.gap(count, now));
            }
        }
        for loss in self.sensor.losses() {
            *self.lost.entry(loss.kind.to_owned()).or_default() += loss.count;
            let gap = coverage::lost(
                loss.kind,
                loss.cpu,
                loss.count,
                now,
                wall.saturating_sub(TICK_NS),
                wall,
            );
            self.line.gap(gap);
        }
        self.line.apply(&mut self.sensor);
    }

    /// Libraries that turned up and cannot be hooked.
    pub fn report_libraries(&mut self, now: u64) {
        let Self {
            sensor,
            uncovered,
            line,
            ..
        } = self;
        let new: Vec<_> = sensor
            .status()
            .libraries
            .iter()
            .filter(|l| !l.covered && line.concerns(l) && uncovered.insert(l.path.clone()))
            .collect();
        for gap in coverage::uncovered(&new, now) {
            line.gap(gap);
        }
    }

    fn finish(mut self) -> v1::GetStatusResponse {
        std::thread::sleep(SETTLE);
        while self.drain() > 0 {}
        self.line.background();
        self.line.unsigned(u64::MAX);
        self.dropped_due = 0;
        self.tick(boot_ns());
        self.line.step(&Observation::Stop { boot_ns: boot_ns() });
        if let Some(recording) = &mut self.line.recording
            && let Err(error) = recording.flush()
        {
            tracing::error!(%error, "the recording could not be finished");
        }
        let status = self.status();
        if let Some(ledger) = self.line.ledger.take()
            && let Err(error) = ledger.end_run()
        {
            tracing::error!(%error, "the end of this run could not be noted");
        }
        self.wipe();
        status
    }

    fn status(&self) -> v1::GetStatusResponse {
        let table = self.line.core.processes();
        let mut lost = self.lost.clone();
        if self.line.bad_records > 0 {
            lost.insert("undecodable".to_owned(), self.line.bad_records);
        }
        let counters = v1::Counters {
            records: self
                .line
                .records
                .iter()
                .map(|(k, v)| ((*k).to_owned(), *v))
                .collect(),
            lost: lost.into_iter().collect(),
            events: self.line.events,
            gaps: self.line.gaps.clone().into_iter().collect(),
            credentials: self.line.digest.registry.len() as u64,
            processes: table.len() as u64,
            holders: table.live().filter(|p| !p.holdings.is_empty()).count() as u64,
            watched_files: self.line.digest.files.table.len() as u64,
        };
        v1::GetStatusResponse {
            node: Some(self.node.clone()),
            counters: Some(counters),
            ..coverage::status(self.sensor.status(), |library| {
                library.covered
                    || self.uncovered.contains(&library.path)
                    || self.line.concerns(library)
            })
        }
    }
}

/// When each periodic job is next due, nanoseconds since boot.
#[derive(Default)]
struct Due {
    /// The last drain found records.
    found: bool,
    tick: u64,
    /// Until then something may be waiting for a tick.
    busy_until: u64,
    rescan: u64,
    full_rescan: u64,
    sweep: u64,
    libraries: u64,
    wipe: u64,
    heartbeat: u64,
}
