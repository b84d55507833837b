//! What a record passes on its way: ingest, recording, core, sink and ledger.

mod effects;
pub(super) mod inventory;
pub(super) mod judge;
mod lives;
pub(super) mod programs;
mod reports;
pub(super) mod taken;

use self::inventory::Inventory;
use self::judge::Judge;
use self::programs::Programs;
use self::taken::Taking;
use super::Sink;
use super::accesses::Accesses;
use super::followed::Followed;
use super::lanes::{Bytes, Held, Lanes};
use keytrail_abi::{FileAccess, Kind};
use keytrail_core::{Core, Step};
use keytrail_export::convert;
use keytrail_host::clock::boot_ns;
use keytrail_host::own::Own;
use keytrail_ingest::decode::{self, Record};
use keytrail_ingest::{
    Digest, Digested, Inspection, child_of, file_key, pid_of_header, pipe_of, streams,
};
use keytrail_model::status::LibraryReport;
use keytrail_model::{Event, FileKey, GapSeen, Observation, Pid, PipeId, PipesSeen, SensorChange};
use keytrail_proto::v1;
use keytrail_sensor::RawRecord;
use keytrail_store::Ledger;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;
use std::time::Instant;

/// Name the sensor gives to what fanotify reports.
const FANOTIFY: &str = "fanotify";
/// Processes remembered that /proc does not have any more.
const MAX_ABSENT: usize = 4_096;
/// Answers taken in at a time.
const ANSWERS: usize = 1_024;

/// Digest and core with everything a record needs on its way.
pub(super) struct Pipeline {
    pub digest: Digest,
    pub core: Core,
    /// `None` when the ledger publishes: events go out once they are on disk.
    pub sink: Option<Sink>,
    pub ledger: Option<Ledger>,
    pub recording: Option<BufWriter<File>>,
    pub followed: Option<Followed>,
    pub root: Option<u32>,
    pub events: u64,
    /// Counts of the gaps so far, by reason.
    pub gaps: BTreeMap<&'static str, u64>,
    pub records: BTreeMap<&'static str, u64>,
    pub bad_records: u64,
    pub inventory: Inventory,
    pub programs: Programs,
    pub judge: Judge,
    /// Other keytrail processes, whose doings are no uses.
    pub own: Own,
    /// What the sensor has to see otherwise, until its rings have been drained.
    changes: Vec<SensorChange>,
    out: Digested,
    /// Processes that were gone when they were asked for.
    absent: HashSet<Pid>,
    accesses: Accesses,
    lanes: Lanes,
    /// What was taken out of processes, until their records were taken in.
    pub takings: Vec<Taking>,
    /// Names of hooks, each once.
    hooks: HashSet<Arc<str>>,
}

impl Pipeline {
    pub fn new(digest: Digest, sink: Option<Sink>, follow_only: Option<u32>) -> Self {
        let lanes = Lanes::new(digest.inspection_options().timeout_ns);
        Self {
            digest,
            core: Core::new(),
            sink,
            ledger: None,
            recording: None,
            followed: follow_only.map(|_| Followed::default()),
            root: follow_only,
            events: 0,
            gaps: BTreeMap::new(),
            records: BTreeMap::new(),
            bad_records: 0,
            inventory: Inventory::open(None),
            programs: Programs::default(),
            judge: Judge::default(),
            own: Own::new(),
            changes: Vec::new(),
            out: Digested::default(),
            absent: HashSet::new(),
            accesses: Accesses::default(),
            lanes,
            takings: Vec::new(),
            hooks: HashSet::new(),
        }
    }

    /// One record as the sensor hands it out.
    ///
    /// fanotify has no time stamps and is read before the ring. Its accesses wait for the ring's records of this
    /// batch, so that they meet the program that was executed before them; but not beyond a send or the end of their
    /// process, which came after them.
    pub fn record(&mut self, raw: &RawRecord<'_>) {
        let record = match decode::decode(raw.bytes) {
            Ok(record) => record,
            Err(error) => {
                self.bad_records += 1;
                // Whatever it holds lies in the ring until that is overwritten.
                self.digest.ring_dirty = true;
                tracing::warn!(%error, "a kernel record was refused");
                return;
            }
        };
        if raw.hook == FANOTIFY {
            if let Record::File(access) = record {
                self.accesses.push(access);
            }
            return;
        }
        if let Record::ProcessAttach(attach) = &record {
            let attached = Taking::of_call(self, attach, raw.hook);
            self.takings.extend(attached);
            return;
        }
        let header = record.header();
        if !self.accesses.is_empty() && (Kind::is_send(header.kind) || header.kind == Kind::EXIT) {
            for access in self.accesses.take_of(header.tgid) {
                self.access(access);
            }
        }
        self.ordered(&record, raw.hook, || Bytes::Ring(raw.bytes.into()));
    }

    /// The accesses that were waiting for the end of a batch.
    pub fn accesses(&mut self) {
        for access in self.accesses.take() {
            self.access(access);
        }
    }

    fn access(&mut self, mut access: FileAccess) {
        // Of a process that was gone when fanotify reported it, the records say who it was.
        if access.header.start_ns == 0
            && let Some(pid) = self.core.processes().latest(access.header.tgid)
        {
            access.header.start_ns = pid.start * keytrail_model::TICK_NS;
        }
        self.ordered(&Record::File(access), FANOTIFY, || {
            Bytes::Access(Box::new(access))
        });
    }

    /// One record in the order of its process: now, or behind those that wait for a file to be inspected.
    fn ordered(&mut self, record: &Record<'_>, hook: &str, bytes: impl FnOnce() -> Bytes) {
        let tgid = record.header().tgid;
        if let Some(lane) = self.lanes.of(tgid) {
            let inspection = self.inspection(record);
            self.hold(lane, record, inspection, hook, bytes());
            return;
        }
        if let Some(lane) = self.lane_behind(record, None) {
            // Who wrote what it reads waits there.
            let inspection = self.inspection(record);
            self.lanes.join(lane, tgid);
            self.hold(lane, record, inspection, hook, bytes());
            return;
        }
        match self.inspection(record) {
            Some(inspection) if inspection.verdict().is_none() && self.is_followed(record) => {
                let lane = self.lanes.open(tgid);
                let readers = self.core.downstream(pid_of_header(record.header()));
                self.join_readers(lane, &readers);
                self.hold(lane, record, Some(inspection), hook, bytes());
            }
            inspection => self.ingest(record, hook, inspection.as_ref()),
        }
    }

    /// Records of those who read what a process writes wait with its own: they may carry what is being inspected.
    fn join_readers(&mut self, lane: u64, readers: &[Pid]) {
        for reader in readers {
            if self.lanes.of(reader.tgid).is_none() {
                self.lanes.join(lane, reader.tgid);
            }
        }
    }

    /// The lane in which a process waits that writes what this one reads: what it reads may be in what is being inspected.
    /// Not its `own`.
    fn lane_behind(&self, record: &Record<'_>, own: Option<u64>) -> Option<u64> {
        if self.lanes.is_empty() {
            return None;
        }
        let other = |lane: &u64| Some(*lane) != own;
        if let Record::FileNew(new, _) = record
            && let Some(lane) = self
                .lanes
                .of_pipe(as_pipe(file_key(new.file)))
                .filter(other)
        {
            return Some(lane);
        }
        if let Record::Pipes(pipes) = record {
            return self.lane_into(pipe_of(pipes.stdin)?, own);
        }
        // Its program began before that of its writer was known whole, or it takes what a child of it writes. Whatever it does
        // waits: a clean verdict on a file of its own would else be the answer to what it may be fed, too.
        let pid = pid_of_header(record.header());
        self.core
            .read_by(pid)
            .find_map(|pipe| self.lane_into(pipe, own))
    }

    /// The lane of somebody who writes to a pipe. Not the reader's `own`.
    fn lane_into(&self, pipe: PipeId, own: Option<u64>) -> Option<u64> {
        let other = |lane: &u64| Some(*lane) != own;
        let mut writers = self.core.writers(pipe).iter();
        writers
            .find_map(|writer| self.lanes.of(writer.tgid).filter(other))
            .or_else(|| self.lanes.of_pipe(pipe).filter(other))
    }

    /// The same, of one that was not decoded; what cannot be is of interest.
    pub fn concerns_record(&self, raw: &RawRecord<'_>) -> bool {
        self.followed.is_none()
            || decode::decode(raw.bytes).map_or(true, |record| self.is_followed(&record))
    }

    /// Whether somebody asks about the process of this record.
    fn is_followed(&self, record: &Record<'_>) -> bool {
        self.followed
            .as_ref()
            .is_none_or(|followed| followed.contains(pid_of_header(record.header())))
    }

    fn inspection(&mut self, record: &Record<'_>) -> Option<Inspection> {
        if !matches!(record, Record::File(_) | Record::FileNew(..)) {
            return None;
        }
        if self.is_followed(record) {
            return self.digest.inspection(record);
        }
        self.digest
            .for_unfollowed(|digest| digest.inspection(record))
    }

    fn hold(
        &mut self,
        lane: u64,
        record: &Record<'_>,
        inspection: Option<Inspection>,
        hook: &str,
        bytes: Bytes,
    ) {
        // It waits in a copy; in the ring it is overwritten meanwhile.
        self.digest.ring_dirty |= has_bytes(record);
        if let Record::Fork(fork) = record {
            self.lanes.join(lane, fork.child_tgid);
            let parent = pid_of_header(&fork.header);
            if let Some(followed) = &mut self.followed
                && followed.contains(parent)
            {
                followed.insert(child_of(fork));
            }
        }
        if let Record::Pipes(pipes) = record
            && let Some(stdout) = pipe_of(pipes.stdout)
        {
            self.lanes.writes(lane, stdout);
            for reader in self.core.readers(stdout) {
                let readers = self.core.downstream(reader);
                self.join_readers(lane, &[reader]);
                self.join_readers(lane, &readers);
            }
        }
        if let Record::FdWrite(write, _) = record
            && write.target != keytrail_abi::records::target::TERMINAL
        {
            self.lanes.writes(lane, as_pipe(file_key(write.file)));
        }
        if let Record::FdTarget(target) = record {
            // A file that is asked about ahead may need it.
            self.digest.learn_target(target);
        }
        let hook = match self.hooks.get(hook) {
            Some(name) => name.clone(),
            None => {
                let name: Arc<str> = hook.into();
                self.hooks.insert(name.clone());
                name
            }
        };
        if let Some(over) = self
            .lanes
            .push(lane, Held::new(bytes, hook, inspection, boot_ns()))
        {
            self.advance(over, true);
        }
    }

    /// Ingests what waits for nothing any more in a lane; all of it when `force` is set.
    fn advance(&mut self, lane: u64, force: bool) {
        while let Some(mut held) = self.lanes.pop(lane, force) {
            let record = match held.bytes.decode() {
                Ok(record) => record,
                Err(error) => {
                    self.bad_records += 1;
                    tracing::warn!(%error, "a kernel record was refused");
                    continue;
                }
            };
            if held.inspection.is_none() && !force {
                // What came before may have changed what has to be asked.
                let inspection = self.inspection(&record);
                if inspection.as_ref().is_some_and(|i| i.verdict().is_none()) {
                    held.inspection = inspection;
                    self.lanes.push_front(lane, held);
                    continue;
                }
            }
            if !force
                && let Some(other) = self.lane_behind(&record, Some(lane))
                && self.lanes.is_before(other, &held)
            {
                // It had a lane of its own already when what it reads began to wait.
                self.lanes.push_front(lane, held);
                self.lanes.wait_behind(lane);
                return;
            }
            self.ingest(&record, &held.hook, held.inspection.as_ref());
        }
    }

    /// Takes in what was inspected, and goes on with the records that waited for it. Returns how much that was.
    pub fn answers(&mut self) -> usize {
        let mut out = Digested::default();
        let mut taken = 0;
        while taken < ANSWERS
            && let Some(id) = self.digest.answer(boot_ns(), &mut out)
        {
            taken += 1;
            self.take(&mut out);
            for lane in self.lanes.decided(id) {
                self.advance(lane, false);
            }
        }
        for lane in self.lanes.behind() {
            taken += 1;
            self.advance(lane, false);
        }
        taken + self.give_up(boot_ns())
    }

    /// Goes on without what the first records of lanes wait for, where they have waited for too long; in the order they came.
    /// Returns how many those were.
    fn give_up(&mut self, now: u64) -> usize {
        let mut late = self.lanes.overdue(now);
        let (mut taken, mut touched) = (0, Vec::new());
        while let Some(Reverse((_, lane))) = late.pop() {
            if !self.lanes.is_overdue(lane, now) {
                touched.push(lane);
                continue;
            }
            if let Some(held) = self.lanes.pop(lane, true) {
                taken += 1;
                self.ingest_held(&held);
            }
            match self.lanes.first(lane) {
                Some(first) => late.push(Reverse((first, lane))),
                None => touched.push(lane),
            }
        }
        for lane in touched {
            self.advance(lane, false);
        }
        taken
    }

    fn ingest_held(&mut self, held: &Held) {
        match held.bytes.decode() {
            Ok(record) => self.ingest(&record, &held.hook, held.inspection.as_ref()),
            Err(error) => {
                self.bad_records += 1;
                tracing::warn!(%error, "a kernel record was refused");
            }
        }
    }

    /// Whether records wait for a file to be inspected.
    pub fn is_waiting(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Whether records of this process wait for a file to be inspected.
    pub fn waits(&self, tgid: u32) -> bool {
        self.lanes.of(tgid).is_some()
    }

    /// Goes on with all records that wait, in the order they came and without what they wait for, as long as there is time.
    /// Returns how many are left.
    pub fn go_on(&mut self, end: Instant) -> u64 {
        let mut firsts = self.lanes.firsts();
        while Instant::now() < end
            && let Some(Reverse((_, lane))) = firsts.pop()
        {
            let Some(held) = self.lanes.pop(lane, true) else {
                continue;
            };
            self.ingest_held(&held);
            match self.lanes.first(lane) {
                Some(first) => firsts.push(Reverse((first, lane))),
                // That closes it.
                None => drop(self.lanes.pop(lane, true)),
            }
        }
        self.lanes.waiting()
    }

    /// One record, all the way.
    fn ingest(&mut self, record: &Record<'_>, hook: &str, inspection: Option<&Inspection>) {
        let header = *record.header();
        *self.records.entry(Kind::name(header.kind)).or_default() += 1;
        if !matches!(
            header.kind,
            Kind::EXEC | Kind::EXEC_CHUNK | Kind::EXIT | Kind::PIPES
        ) {
            self.ensure_known(pid_of_header(&header));
        }
        let mut out = std::mem::take(&mut self.out);
        if self.is_followed(record) {
            self.digest.record(record, hook, inspection, &mut out);
        } else {
            // What other programs read and delete is no gap of the command that is followed.
            self.digest
                .for_unfollowed(|digest| digest.record(record, hook, inspection, &mut out));
        }
        self.take(&mut out);
        self.out = out;
    }

    /// Steps the core with what a record became, and does what is to be done then.
    pub fn take(&mut self, out: &mut Digested) {
        for observation in out.observations.drain(..) {
            self.ensure_others_known(&observation);
            if let Some(followed) = &mut self.followed
                && let Observation::Fork { at, child, .. } = &observation
                && followed.contains(at.pid)
            {
                followed.insert(*child);
            }
            // What others write is of no use to who follows one command, nor what of it was too long to be inspected.
            if let (Observation::Write(seen), Some(followed)) = (&observation, &self.followed)
                && !followed.contains(seen.at.pid)
            {
                continue;
            }
            if self.is_own(&observation) {
                self.own.leave_out();
                continue;
            }
            self.step(&observation);
        }
        self.carry_out(out.effects.drain(..));
    }

    /// Whoever else an observation speaks of is known before it is reported.
    fn ensure_others_known(&mut self, observation: &Observation) {
        match observation {
            Observation::Withdrawn { fingerprint, .. } => self.inventory.withdraw(fingerprint),
            Observation::Exec(exec) => self.ensure_known(exec.parent),
            Observation::Send(send) if !send.payload.hits.is_empty() => {
                if let Some(peer) = send.ends.peer.as_deref().filter(|peer| peer.start != 0) {
                    // It may have been given something.
                    self.ensure_known(Pid {
                        tgid: peer.tgid,
                        start: peer.start,
                    });
                }
            }
            _ => {}
        }
    }

    /// Whether an observation is of what a keytrail does: inspecting files, a self-test's sends, and what it is told over
    /// a Unix socket with a name, since nobody uses a credential there (a kubelet that is asked what pods are called sends
    /// their specifications along). That it runs is reported as of everybody.
    fn is_own(&mut self, observation: &Observation) -> bool {
        match observation {
            Observation::File(seen) => self.own.is(seen.at.pid),
            Observation::Connect { at, .. } => self.own.is(at.pid),
            Observation::Send(seen) => {
                let peer = seen.ends.peer.as_deref();
                let asked = peer.filter(|peer| peer.start != 0 && !seen.ends.path.is_empty());
                self.own.is(seen.at.pid)
                    || asked.is_some_and(|peer| {
                        self.own.is(Pid {
                            tgid: peer.tgid,
                            start: peer.start,
                        })
                    })
            }
            Observation::Answer(seen) => self.own.is(seen.at.pid),
            Observation::InUse(seen) => self.own.is(seen.at.pid),
            Observation::TlsWrite(seen) => self.own.is(seen.at.pid),
            Observation::Write(seen) => self.own.is(seen.at.pid),
            Observation::Exec(exec) => {
                self.own.forget(exec.at.pid);
                false
            }
            Observation::Exit { at, .. } => {
                self.own.forget(at.pid);
                false
            }
            _ => false,
        }
    }

    /// Makes sure that a process and its ancestors are known, from /proc when no record reported them.
    pub fn ensure_known(&mut self, pid: Pid) {
        let mut chain = Vec::new();
        let mut next = pid;
        while next.tgid != 0
            && !self.core.knows(next)
            && !self.absent.contains(&next)
            && chain.len() < 16
        {
            let found = self.digest.read_process(next.tgid, boot_ns());
            let Some(snapshot) = found.filter(|snapshot| snapshot.at.pid == next) else {
                // It does not come back: its other records need not ask again.
                if self.absent.len() >= MAX_ABSENT {
                    self.absent.clear();
                }
                self.absent.insert(next);
                break;
            };
            next = snapshot.parent;
            chain.push(snapshot);
        }
        for snapshot in chain.into_iter().rev() {
            self.snapshot(snapshot);
        }
    }

    pub fn snapshot(&mut self, snapshot: keytrail_model::Snapshot) {
        let pid = snapshot.at.pid;
        let at = snapshot.at.clone();
        self.step(&Observation::Snapshot(Box::new(snapshot)));
        let [stdin, stdout] = streams(pid.tgid);
        if stdin.is_some() || stdout.is_some() {
            self.change(SensorChange::SetStreams {
                tgid: pid.tgid,
                stdin,
                stdout,
            });
            self.step(&Observation::Pipes(PipesSeen {
                at,
                stdin,
                stdout,
                feeder: None,
                taker: None,
                opened: false,
            }));
        }
    }

    /// One observation through recording, core, sink and ledger.
    pub fn step(&mut self, observation: &Observation) {
        let shown = self.digest.shown(observation);
        let observation = shown.as_ref().unwrap_or(observation);
        if let Some(recording) = &mut self.recording {
            let written = serde_json::to_writer(&mut *recording, observation)
                .map_err(std::io::Error::from)
                .and_then(|()| recording.write_all(b"\n"));
            if let Err(error) = written {
                tracing::error!(%error, "the recording cannot be written and ends here");
                self.recording = None;
            }
        }
        if let Observation::Findings { input } = observation {
            self.judge.apply(input);
        }
        let Step { events, effects } = self.core.step(observation);
        let mut found = Vec::new();
        for event in events {
            self.events += 1;
            if !self.wanted(&event) {
                continue;
            }
            if let Some(gap) = &event.gap {
                *self.gaps.entry(gap.reason.word()).or_default() += gap.count.max(1);
            }
            let mut event = convert::event(event);
            found.extend(self.judge.step(&mut event));
            self.emit(event);
        }
        // After all events of this step, which have their numbers already.
        for mut event in found {
            self.events += 1;
            event.id = Some(convert::id(self.core.next_id()));
            self.emit(event);
        }
        self.carry_out(effects);
    }

    /// One event to whoever keeps it and reads it.
    fn emit(&mut self, event: v1::Event) {
        let event = Arc::new(event);
        if let Some(ledger) = &self.ledger {
            self.programs.met(&event);
            ledger.record(event.clone());
        }
        if let Some(sink) = &mut self.sink {
            sink(event);
        }
    }

    /// Whether a library matters: who follows one command does not ask what others use.
    pub fn concerns(&self, library: &LibraryReport) -> bool {
        self.followed
            .as_ref()
            .is_none_or(|followed| library.users.iter().any(|tgid| followed.has_tgid(*tgid)))
    }

    fn wanted(&mut self, event: &Event) -> bool {
        match (&mut self.followed, &event.process) {
            (Some(followed), Some(process)) => {
                Some(process.pid) == self.root || followed.concerns(process)
            }
            _ => true,
        }
    }

    /// Forgets processes that are gone and whose end was not reported.
    pub fn forget_dead(&mut self) {
        let table = self.core.processes();
        if let Some(followed) = &mut self.followed {
            let root = self.root;
            followed.forget(|pid| Some(pid.tgid) == root || table.get(pid).is_some());
        }
        let lives = |tgid| table.is_live(tgid);
        self.digest.forget_dead(lives);
    }

    pub fn gap(&mut self, gap: GapSeen) {
        self.step(&Observation::Gap(gap));
    }

    /// Watched directories changed, or time has come to look.
    pub fn rescan(&mut self) {
        if self.followed.is_some() {
            self.digest.for_unfollowed(Digest::watch);
        } else {
            self.digest.watch();
        }
    }
}

/// Whether a record carries bytes of a program's memory.
fn has_bytes(record: &Record<'_>) -> bool {
    match record {
        Record::FileNew(_, content) => !content.is_empty(),
        record => Kind::has_bytes(record.header().kind),
    }
}

/// A file as what is read by one and written by another.
fn as_pipe(file: FileKey) -> PipeId {
    PipeId {
        device: file.device.into(),
        inode: file.inode,
    }
}
