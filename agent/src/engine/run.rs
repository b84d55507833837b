//! The loop: wait, drain, ingest, step, hand on.

use super::budgets::Budgets;
use super::checks;
use super::coverage;
use super::guard::Guard;
use super::pipeline::Pipeline;
use super::pipeline::taken::Taking;
use super::{Command, Shared, rights};
use keytrail_abi::PASSED;
use keytrail_host::clock::{boot_ns, both, wall_ns};
use keytrail_ingest::Digested;
use keytrail_model::{Decision, Dropped, Effect, Observation, Pid, Signal};
use keytrail_payload as wire;
use keytrail_proto::v1;
use keytrail_sensor::{ForeignNews, RawRecord, Sensor};
use keytrail_store::Ledger;
use rustix::event::{PollFd, PollFlags};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const TICK_NS: u64 = 100_000_000;
/// Nothing waits for a decision this long after the last record; from then on ticks are for losses only.
const BUSY_NS: u64 = 2_000_000_000;
const IDLE_TICK_NS: u64 = 1_000_000_000;
/// Longest wait for records: what wakes nobody (ends of processes, forks) is taken after this time at the latest.
const WAIT: Duration = Duration::from_millis(50);
/// Of the engine's thread: nine times the weight of an ordinary one (sched(7)).
const NICE: i32 = -10;
/// The same when nothing has come for a while.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Rest between two drains that both found something. A ring with a record in it is readable at once, so that without
/// a rest the loop would turn for every single record, and inspect /proc at processes that are busy dying.
const PACE: Duration = Duration::from_millis(4);
const RESCAN_NS: u64 = 20_000_000;
const FULL_RESCAN_NS: u64 = 30_000_000_000;
/// One system call a hook.
const HOOKS_NS: u64 = 2_000_000_000;
const SWEEP_NS: u64 = 10_000_000_000;
/// Who holds something has its libraries inspected when it connects; this is for the report, and for what is opened late.
const LIBRARIES_NS: u64 = 10_000_000_000;
/// A pass of the ring costs about 2 ms; a secret may be there for two seconds at most.
const WIPE_NS: u64 = 1_000_000_000;
/// When it is tried again after one that was not whole: a record that is still being written is in the way.
const WIPE_AGAIN_NS: u64 = 50_000_000;
const UNLOCATED_NS: u64 = 10_000_000_000;
/// How much too early an interval without an agent may seem to begin; each beat writes to the disk.
const HEARTBEAT_NS: u64 = 5_000_000_000;
/// What was learned in this time is learned again after a crash.
const FINDINGS_NS: u64 = 10_000_000_000;
/// Time the last records get to arrive before pending decisions are made at the end.
const LAST_RECORDS: Duration = Duration::from_millis(50);
/// Time the disk has to take the last events.
const LEDGER_END: Duration = Duration::from_millis(400);
/// Time it has before that to take what was learned and is not written yet.
const LEARNED_END: Duration = Duration::from_millis(400);
/// Time the end may take: what is not taken in by then is counted.
const END: Duration = Duration::from_millis(700);
/// Time for what waited for a file until then.
const LAST_WORK: Duration = Duration::from_millis(300);

/// The engine's thread.
pub(super) struct Runner {
    pub sensor: Sensor,
    pub pipeline: Pipeline,
    pub shared: Arc<Shared>,
    pub commands: mpsc::Receiver<Command>,
    pub node: v1::NodeStatus,
    pub lost: BTreeMap<String, u64>,
    /// Libraries already reported as not covered, with who had them mapped then.
    pub uncovered: HashMap<String, HashSet<u32>>,
    /// When files that could not be found again may be reported next.
    pub unlocated_due: u64,
    /// The same for reads in /proc of processes that had ended, and how many of them are still to be reported.
    pub reads_gone_due: u64,
    pub reads_gone: u64,
    /// The same for what found no room.
    pub dropped_due: u64,
    /// Until when records are taken in, once the end has come.
    pub end: Option<Instant>,
    /// Records that came after that.
    pub left: u64,
    /// Events the ledger did not take, as far as reported; and when more of them may be.
    pub unwritten: u64,
    pub unwritten_due: u64,
    /// Payloads beyond a budget that are still to be reported.
    pub budgets: Budgets,
    /// Leave the probes to a process that holds them until this one has exited.
    pub leave_probes: bool,
    /// How many times in a row a ring could not be overwritten.
    pub unwiped: u32,
    pub guard: Guard,
}

/// On a host that has more to do than processors this thread gets what it needs, or records are lost while it waits: how much
/// that is, the budgets of the kernel side bound. Without CAP_SYS_NICE it waits like everybody.
fn come_first() {
    // setpriority(2): zero is the calling thread, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the engine's thread has no higher priority");
    }
    // sched(7): what this thread starts begins with a nice value of 0; its own stays.
    let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the struct is whole and ours; zero names the calling thread.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0 {
        tracing::debug!("threads that the engine's starts have its priority");
    }
}

impl Runner {
    /// `node`: who this agent is.
    pub fn new(
        sensor: Sensor,
        pipeline: Pipeline,
        shared: &Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        node: &v1::NodeStatus,
    ) -> Self {
        Self {
            sensor,
            pipeline,
            shared: shared.clone(),
            commands,
            node: node.clone(),
            lost: BTreeMap::new(),
            uncovered: HashMap::new(),
            unlocated_due: 0,
            reads_gone_due: 0,
            reads_gone: 0,
            dropped_due: 0,
            end: None,
            left: 0,
            unwritten: 0,
            unwritten_due: 0,
            budgets: Budgets::default(),
            leave_probes: false,
            unwiped: 0,
            guard: Guard::new(None),
        }
    }

    pub fn run(mut self) -> v1::GetStatusResponse {
        come_first();
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
        if due.found {
            self.pause();
        } else {
            self.wait(due);
        }
        if self.pipeline.answers() > 0 {
            wire::scrub_stack();
        }
        for gap in self.guard.turn() {
            self.pipeline.gap(gap);
        }
        let now = boot_ns();
        self.pipeline.digest.files.read_events();
        if now >= due.rescan && self.pipeline.digest.files.is_dirty() {
            self.pipeline.rescan();
            due.rescan = boot_ns() + RESCAN_NS;
        }
        let had = self.sensor.unread();
        self.pipeline.reports();
        due.found = self.drain() > 0;
        if due.found || had == 0 {
            // A turn that takes nothing in where there was something is none.
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
        }
        if due.found {
            due.busy_until = now + BUSY_NS;
            due.tick = due.tick.min(now + TICK_NS);
        }
        self.pipeline.background();
        self.pipeline.hashed();
        self.pipeline.apply(&mut self.sensor);
        self.libraries(now);
        if now >= due.tick {
            self.tick(now);
            due.tick = now
                + if now < due.busy_until {
                    TICK_NS
                } else {
                    IDLE_TICK_NS
                };
        }
        if now >= due.hooks {
            self.check_hooks(now);
            due.hooks = now + HOOKS_NS;
        }
        if now >= due.full_rescan {
            self.pipeline.digest.files.mark_all();
            due.full_rescan = now + FULL_RESCAN_NS;
        }
        if now >= due.sweep {
            self.sweep();
            due.sweep = now + SWEEP_NS;
        }
        if now >= due.libraries {
            self.sensor.search_libraries();
            self.report_libraries(now);
            due.libraries = now + LIBRARIES_NS;
        }
        if self.pipeline.digest.ring_dirty && now >= due.wipe {
            due.wipe = boot_ns() + self.wipe();
        }
        if let Some(ledger) = &self.pipeline.ledger {
            ledger.overdue();
        }
        if now >= due.heartbeat {
            if let Some(ledger) = &self.pipeline.ledger {
                ledger.heartbeat(wall_ns());
            }
            due.heartbeat = now + HEARTBEAT_NS;
        }
        if now >= due.findings {
            self.pipeline.keep_findings();
            due.findings = now + FINDINGS_NS;
        }
        self.commands();
    }

    fn commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                // Who asked may have given up waiting.
                Command::Status(answer) => drop(answer.send(self.status())),
                Command::Decoy(seen) => {
                    if let Some(ledger) = &self.pipeline.ledger {
                        ledger.decoy(seen);
                    }
                }
                Command::Gap(gap) => self.pipeline.gap(*gap),
                Command::Pod(names) => self.pipeline.step(&Observation::Pod {
                    boot_ns: boot_ns(),
                    names,
                }),
                Command::PodGone(uid) => self.pipeline.step(&Observation::PodGone {
                    boot_ns: boot_ns(),
                    uid,
                }),
                Command::StageInput(input) => {
                    self.pipeline.step(&Observation::Findings { input });
                    self.pipeline.keep_findings();
                }
            }
        }
    }

    /// Rests, but for what was inspected, and for functions to be probed before somebody calls them.
    pub fn pause(&self) {
        let fds = [
            Some(self.pipeline.digest.answers_fd()),
            self.sensor.found_libraries(),
        ];
        let mut fds: Vec<_> = fds
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: PACE.subsec_nanos().into(),
        };
        // An interrupted rest is a short one.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }

    fn wait(&mut self, due: &Due) {
        let digest = &self.pipeline.digest;
        let mut extra: Vec<_> = digest.files.fd().into_iter().collect();
        extra.push(digest.answers_fd());
        let now = boot_ns();
        let most = if now < due.busy_until {
            WAIT
        } else {
            IDLE_WAIT
        };
        let deadline = digest.next_deadline().map_or(most, |due_ns| {
            Duration::from_nanos(due_ns.saturating_sub(now))
        });
        if let Err(error) = self.sensor.wait(most.min(deadline), &extra) {
            tracing::warn!(%error, "waiting for records failed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn drain(&mut self) -> usize {
        let Self {
            sensor,
            pipeline,
            shared,
            end,
            left,
            ..
        } = self;
        // Before the drain: then it hands out who the readers are.
        let reads = sensor.process_reads();
        pipeline
            .takings
            .extend(reads.into_iter().map(Taking::of_read));
        let n = sensor.drain(&mut |raw| {
            taken(pipeline, &raw, &shared.stop, end, left);
            // Working off a backlog is progress, however long one turn takes.
            shared.turns.fetch_add(1, Ordering::Relaxed);
        });
        pipeline.accesses();
        for taking in std::mem::take(&mut pipeline.takings) {
            pipeline.taking(taking);
        }
        pipeline.apply(sensor);
        self.libraries(boot_ns());
        if n > 0 {
            wire::scrub_stack();
        }
        n
    }

    /// Decides about processes whose record was lost: until then all they send is captured.
    fn sweep(&mut self) {
        for (tgid, exec_id) in self.sensor.sweep() {
            if self.pipeline.waits(tgid) {
                continue;
            }
            let Some(start) = keytrail_ingest::start_of(tgid) else {
                continue;
            };
            let pid = Pid { tgid, start };
            let known = self.pipeline.core.knows(pid);
            let concerns = match &self.pipeline.followed {
                None => true,
                Some(followed) => followed.contains(pid),
            };
            if concerns
                && exec_id & PASSED == 0
                && (!known || self.pipeline.digest.missed(tgid, exec_id))
                && let Some(mut snapshot) = self.pipeline.digest.snapshot(tgid, boot_ns())
            {
                snapshot.executed = known;
                let unreadable = snapshot.env_unreadable.clone();
                self.pipeline.snapshot(snapshot);
                if let Some(why) = unreadable {
                    self.pipeline.gap(coverage::unreadable_environment(
                        pid,
                        &why,
                        rights::may_trace(),
                        boot_ns(),
                    ));
                }
            }
            self.pipeline
                .carry_out([Effect::Decide(Decision { pid, exec_id })]);
        }
        self.pipeline.forget_dead();
        self.pipeline.apply(&mut self.sensor);
    }

    /// What a ring still holds is overwritten, so that no secret outlives its use there. Returns after how many nanoseconds it
    /// may be done again: soon where not all of it was, and later and later where that goes on.
    fn wipe(&mut self) -> u64 {
        self.pipeline.digest.ring_dirty = false;
        let Self {
            sensor,
            pipeline,
            shared,
            end,
            left,
            ..
        } = self;
        let mut sink = |raw: RawRecord<'_>| taken(pipeline, &raw, &shared.stop, end, left);
        let wiped = sensor.wipe(&mut sink);
        if let Err(error) = &wiped {
            if self.unwiped == 0 {
                tracing::error!(%error, "the ring could not be overwritten");
            }
            pipeline.digest.ring_dirty = true;
        }
        pipeline.accesses();
        pipeline.apply(sensor);
        wire::scrub_stack();
        if wiped.is_ok() {
            self.unwiped = 0;
            return WIPE_NS;
        }
        self.unwiped += 1;
        WIPE_NS.min(WIPE_AGAIN_NS << self.unwiped.min(5))
    }

    fn tick(&mut self, now: u64) {
        let mut out = Digested::default();
        self.pipeline.digest.tick(now, &mut out);
        self.pipeline.take(&mut out);
        let (at, wall) = both();
        // Of the moment up to which the records were taken in: what is without a time of its own came after it.
        self.pipeline.step(&Observation::Tick {
            boot_ns: now,
            wall_ns: wall.saturating_sub(at.saturating_sub(now)),
        });
        // Compilers read and delete files all the time: reported together, not one by one.
        if self.pipeline.digest.unlocated > 0 && now >= self.unlocated_due {
            let count = std::mem::take(&mut self.pipeline.digest.unlocated);
            self.unlocated_due = now + UNLOCATED_NS;
            let gap = coverage::unlocated(count, now, wall.saturating_sub(UNLOCATED_NS), wall);
            self.pipeline.gap(gap);
        }
        self.reads_gone += self.sensor.process_reads_gone();
        if self.reads_gone > 0 && now >= self.reads_gone_due {
            self.reads_gone_due = now + UNLOCATED_NS;
            let count = std::mem::take(&mut self.reads_gone);
            let gap = coverage::reads_gone(count, now, wall.saturating_sub(UNLOCATED_NS), wall);
            // Whose reads they were is not known: a command that is followed alone may have made none of them.
            self.pipeline.gap(gap);
        }
        if now >= self.dropped_due {
            let mut dropped = self.pipeline.judge.dropped();
            dropped.gather(self.pipeline.digest.dropped());
            if !dropped.is_empty() {
                self.dropped_due = now + Dropped::REPORT_INTERVAL_NS;
            }
            for (bound, count) in dropped.take() {
                self.pipeline.gap(bound.gap(count, now));
            }
        }
        let unwritten = self.pipeline.ledger.as_ref().map_or(0, Ledger::overflowed);
        if unwritten > self.unwritten && now >= self.unwritten_due {
            self.unwritten_due = now + Dropped::REPORT_INTERVAL_NS;
            let count = unwritten - self.unwritten;
            self.unwritten = unwritten;
            self.pipeline.gap(coverage::unwritten(count, now));
        }
        if let Some(recording) = &mut self.pipeline.recording {
            // So that an engine that is killed leaves what it recorded; what fails here fails at the next observation.
            let _ = recording.flush();
        }
        for passed in self.sensor.passed_over() {
            self.budgets.add(&passed, now);
        }
        self.report_budgets(now, now);
        let losses = self.sensor.losses();
        // What one program has reported too often is nobody else's loss, and must not keep the hooks from being tried.
        let lost = losses
            .iter()
            .any(|loss| loss.kind != keytrail_sensor::ATTACH_LIMIT);
        for change in self.sensor.try_hooks(now, wall, lost) {
            self.pipeline.gap(checks::hook(&change, now, wall));
        }
        if let Some(untried) = self.sensor.untried() {
            self.pipeline.gap(checks::untried(untried, now, wall));
        }
        for loss in losses {
            *self.lost.entry(loss.kind.to_owned()).or_default() += loss.count;
            let gap = coverage::lost(
                loss.kind,
                loss.cpu,
                loss.count,
                now,
                wall.saturating_sub(TICK_NS),
                wall,
            );
            self.pipeline.gap(gap);
        }
        self.pipeline.apply(&mut self.sensor);
        // Streams and files that were decided by time had secrets on this stack.
        wire::scrub_stack();
    }

    /// Whether the hooks are at their places, and what others have in the kernel.
    fn check_hooks(&mut self, now: u64) {
        let wall = wall_ns();
        for change in self.sensor.check_hooks(wall) {
            tracing::warn!(
                signal = change.signal.word(),
                hook = change.hook,
                "a hook was taken off"
            );
            self.pipeline.gap(checks::hook(&change, now, wall));
        }
        for news in self.sensor.foreign() {
            if let ForeignNews::Unknown(refused) = &news {
                if rights::lacks_programs() {
                    // Reported at the start.
                    continue;
                }
                self.sensor.refused(Signal::ProcessAttach, refused.clone());
            }
            self.pipeline.gap(checks::foreign(news, now));
        }
    }

    /// Payloads beyond a budget whose telling is due by `due`.
    fn report_budgets(&mut self, now: u64, due: u64) {
        for reported in self.budgets.due(due) {
            // What other programs write and send is no gap of the command that is followed.
            let followed = self.pipeline.followed.as_ref();
            if followed.is_some_and(|followed| !followed.has_tgid(reported.tgid)) {
                continue;
            }
            // One that has ended is known by what was seen of it.
            let start = keytrail_ingest::start_of(reported.tgid);
            let pid = start.map_or_else(
                || self.pipeline.core.processes().latest(reported.tgid),
                |start| {
                    Some(Pid {
                        tgid: reported.tgid,
                        start,
                    })
                },
            );
            let exe = pid.and_then(|pid| self.pipeline.core.processes().get(pid));
            let name = exe.map_or_else(String::new, |p| p.exe.path.clone());
            let mut gap = coverage::budget(&reported, pid, &name, now);
            // Counted at the last tick, and happened since the one before it.
            gap.to_wall_ns = wall_ns();
            gap.from_wall_ns =
                gap.to_wall_ns - (now - reported.since_ns).min(gap.to_wall_ns) - TICK_NS;
            self.pipeline.gap(gap);
        }
    }

    /// Attaches to what was found to have TLS inside.
    fn libraries(&mut self, now: u64) {
        if self.sensor.take_libraries() {
            self.report_libraries(now);
        }
    }

    /// Libraries that turned up and cannot be hooked.
    pub fn report_libraries(&mut self, now: u64) {
        let Self {
            sensor,
            uncovered,
            pipeline,
            ..
        } = self;
        let libraries = sensor.status().libraries.iter();
        let all: Vec<_> = libraries
            .filter(|l| !l.covered && pipeline.concerns(l))
            .collect();
        let mut new = Vec::new();
        // Containers have files of their own under one path: their users are taken together.
        let mut present: HashMap<&str, HashSet<u32>> = HashMap::new();
        for library in all {
            let users = present.entry(&library.path).or_default();
            users.extend(&library.users);
            let known = uncovered.get(&library.path);
            if let Some(users) = coverage::fresh(known, &library.users) {
                pipeline.step(&coverage::unhooked(library, users));
            }
            if known.is_none() {
                new.push(library);
            }
        }
        uncovered.values_mut().for_each(HashSet::clear);
        for (path, users) in present {
            uncovered.insert(path.to_owned(), users);
        }
        for gap in coverage::uncovered(&new, now) {
            pipeline.gap(gap);
        }
    }

    fn finish(mut self) -> v1::GetStatusResponse {
        let end = *self.end.get_or_insert_with(|| Instant::now() + END);
        std::thread::sleep(LAST_RECORDS);
        // Once: what comes in from now on is not waited for.
        self.drain();
        self.pipeline.answers();
        while (self.pipeline.is_waiting() || self.sensor.is_searching()) && Instant::now() < end {
            self.pause();
            self.pipeline.answers();
            self.libraries(boot_ns());
        }
        // What was still being written to a ring when it was drained comes in with this, and may wait in its turn.
        self.wipe();
        self.pipeline.answers();
        self.left += self.pipeline.go_on(end.max(Instant::now()) + LAST_WORK);
        self.pipeline.reports();
        self.pipeline.background();
        self.pipeline.report_unattributed(u64::MAX);
        (self.dropped_due, self.reads_gone_due) = (0, 0);
        (self.unlocated_due, self.unwritten_due) = (0, 0);
        self.tick(boot_ns());
        if self.left > 0 {
            let gap = coverage::not_taken_in(self.left, boot_ns());
            self.pipeline.gap(gap);
        }
        self.report_budgets(boot_ns(), u64::MAX);
        self.pipeline
            .step(&Observation::Stop { boot_ns: boot_ns() });
        self.keep_all_findings();
        if let Some(recording) = &mut self.pipeline.recording
            && let Err(error) = recording.flush()
        {
            tracing::error!(%error, "the recording could not be finished");
        }
        let status = self.status();
        if let Some(ledger) = self.pipeline.ledger.take()
            && let Err(error) = ledger.end_run(LEDGER_END)
        {
            tracing::error!(%error, "the end of this run could not be noted");
        }
        if self.leave_probes {
            let mut helper = std::process::Command::new("/proc/self/exe");
            helper.arg("hold-probes");
            if let Err(error) = keytrail_sensor::hand_over(helper) {
                tracing::debug!(%error, "the probes are closed here");
            }
        }
        status
    }

    fn keep_all_findings(&mut self) {
        let left = self
            .pipeline
            .keep_all_findings(Instant::now() + LEARNED_END);
        if left.sum() > 0 {
            let gap = coverage::unlearned(left.credentials, left.findings, boot_ns());
            self.pipeline.gap(gap);
        }
    }

    fn status(&self) -> v1::GetStatusResponse {
        let table = self.pipeline.core.processes();
        let mut lost = self.lost.clone();
        if self.pipeline.bad_records > 0 {
            lost.insert("undecodable".to_owned(), self.pipeline.bad_records);
        }
        let mut records: BTreeMap<String, u64> = self
            .pipeline
            .records
            .iter()
            .map(|(k, v)| ((*k).to_owned(), *v))
            .collect();
        if self.pipeline.own.left_out() > 0 {
            records.insert(super::OWN_LEFT_OUT.to_owned(), self.pipeline.own.left_out());
        }
        for passed in self.sensor.passed_totals() {
            if passed.count != 0 {
                let name = format!("{}_over_{}_budget", passed.kind, passed.limit.name());
                lost.insert(name, passed.count);
            }
        }
        let counters = v1::Counters {
            records: records.into_iter().collect(),
            lost: lost.into_iter().collect(),
            events: self.pipeline.events,
            gaps: self
                .pipeline
                .gaps
                .iter()
                .map(|(k, v)| ((*k).to_owned(), *v))
                .collect(),
            credentials: self.pipeline.digest.registry.len() as u64,
            processes: table.len() as u64,
            holders: table.live().filter(|p| !p.holdings.is_empty()).count() as u64,
            watched_files: self.pipeline.digest.files.table.len() as u64,
        };
        v1::GetStatusResponse {
            node: Some(self.node.clone()),
            counters: Some(counters),
            ..coverage::status(self.sensor.status(), |library| {
                library.covered
                    || self.uncovered.contains_key(&library.path)
                    || self.pipeline.concerns(library)
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
    hooks: u64,
    full_rescan: u64,
    sweep: u64,
    libraries: u64,
    wipe: u64,
    heartbeat: u64,
    findings: u64,
}

/// Takes a record in; one that comes when the time of the end is up is counted.
fn taken(
    pipeline: &mut Pipeline,
    raw: &RawRecord<'_>,
    stop: &AtomicBool,
    end: &mut Option<Instant>,
    left: &mut u64,
) {
    if stop.load(Ordering::Relaxed)
        && Instant::now() >= *end.get_or_insert_with(|| Instant::now() + END)
    {
        // What other programs did at the end is no gap of the command that is followed.
        *left += u64::from(pipeline.concerns_record(raw));
        return;
    }
    pipeline.record(raw);
}
