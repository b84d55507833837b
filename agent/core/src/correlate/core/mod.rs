//! The state machine: who holds what, what left, with which evidence.

mod delivery;
mod effects;
mod file;
mod handed;
mod in_use;
mod lineage;
mod message;
mod metadata;
mod once;
mod opens;
mod passed;
mod paths;
mod process;
mod reads;
mod repeat;
mod send;
mod taken;
mod unhooked;
mod words;
mod written;

use super::flow::Flows;
use super::tls::TlsLinks;
use crate::process::{Files, Names, Pipes, ProcessTable};
use delivery::Deliveries;
use keytrail_model::event::{EventId, Gap};
use keytrail_model::{
    AgentStart, Bound, CredentialRef, Dropped, Effect, Event, EventKind, GapReason, GapSeen,
    Observation, Pid, PodNames,
};
use opens::Opens;
use reads::Reads;
use repeat::Repeated;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use unhooked::Unhooked;
use words::PendingWords;

/// Credentials named in lineage events of one connection; the rest is counted.
const MAX_LINEAGE: usize = 16;
/// Credentials one process can hold; the rest is dropped and counted as a gap.
const MAX_HOLDINGS: usize = 1024;
/// What was withdrawn and may still be reported, by reads that waited.
const MAX_WITHDRAWN: usize = 4_096;
/// Credentials whose best description is remembered.
const MAX_KNOWN: usize = 100_000;

/// What follows from one observation.
#[derive(Debug, Default)]
pub struct Step {
    /// The events that it completes.
    pub events: Vec<Event>,
    /// What the sensor has to see otherwise. Who replays has none, and leaves them.
    pub effects: Vec<Effect>,
}

/// The deterministic core. Feed it every observation in order.
#[derive(Default)]
pub struct Core {
    start: AgentStart,
    boot_wall_ns: u64,
    sequence: u64,
    table: ProcessTable,
    pipes: Pipes,
    /// Files that holders have just written.
    files: Files,
    /// What pods are called.
    names: Names,
    /// Processes that hold something since the last step because it was passed on to them.
    given: Vec<Pid>,
    flows: Flows,
    tls: TlsLinks,
    /// Identifiers at the end of a payload, as long as the next may go on with them.
    pending_words: PendingWords,
    opens: Opens,
    /// Sends like others.
    repeats: Repeated,
    /// What runtimes bring into containers.
    deliveries: Deliveries,
    /// Read events already made.
    reads: Reads,
    /// What lineage was reported once for all relatives, or all connections of a client.
    reported_lineage: BTreeSet<lineage::LineageKey>,
    /// The best description of each credential: one fingerprint is one credential.
    known: HashMap<String, CredentialRef>,
    /// What was no credential: reads of the version that had it may be reported late.
    /// Fingerprints, and when they were withdrawn, nanoseconds since boot.
    withdrawn: BTreeMap<String, u64>,
    /// The last tick: what is reported without its time happened since.
    tick_ns: u64,
    /// Who took what out of whom, said already.
    taken: taken::ReportedTakes,
    /// Who wrote what to which file, pipe or terminal, said already.
    written: once::Once<written::Act>,
    /// Who asked which metadata service for what, and was given what.
    metadata: metadata::Metadata,
    /// Who asked for a token, and with what.
    exchanges: in_use::Exchanges,
    /// Programs of which writes to a TLS library were seen.
    hooked: BTreeSet<lineage::Program>,
    /// Executables already reported for TLS that we cannot see into.
    uncovered: BTreeSet<String>,
    /// Why what a program encrypts is not seen.
    unhooked: Unhooked,
    /// When records were last known to be lost.
    lost_ns: u64,
    /// What found no room or was cut, until it is reported, and when it may be.
    dropped: Dropped,
    dropped_due_ns: u64,
    out: Vec<Event>,
}

impl Core {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this process is known well: the engine sends a snapshot first when it is not.
    #[must_use]
    pub fn knows(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| !p.partial)
    }

    #[must_use]
    pub fn holds(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| !p.holdings.is_empty())
    }

    /// Whether a process holds something, and nothing but keys that sign.
    #[must_use]
    pub fn only_signs(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| {
            !p.holdings.is_empty() && p.holdings.iter().all(|h| h.credential.is_private_key())
        })
    }

    #[must_use]
    pub fn processes(&self) -> &ProcessTable {
        &self.table
    }

    /// One step. The same observations in the same order give the same events.
    pub fn step(&mut self, observation: &Observation) -> Step {
        self.take_in(observation);
        Step {
            effects: self.effects_of(observation),
            events: std::mem::take(&mut self.out),
        }
    }

    fn take_in(&mut self, observation: &Observation) {
        match observation {
            Observation::Start(start) => self.on_start(start),
            Observation::Tick { boot_ns, wall_ns } => self.on_tick(*boot_ns, *wall_ns),
            Observation::Snapshot(snapshot) => self.on_snapshot(snapshot),
            Observation::Exec(exec) => self.on_exec(exec),
            Observation::Fork {
                at,
                child,
                child_ns_tgid,
            } => self.table.fork(at, *child, *child_ns_tgid),
            Observation::Exit {
                at,
                status,
                signal,
                dumped,
            } => {
                if let Some(pattern) = dumped {
                    self.on_dumped(at, pattern);
                }
                self.on_exit(at, *status, *signal);
            }
            Observation::File(seen) => self.on_file(seen),
            Observation::Pipes(seen) => self.on_pipes(seen),
            Observation::Taken(seen) => self.on_taken(seen),
            Observation::Answer(seen) => self.on_answer(seen),
            Observation::InUse(seen) => self.on_in_use(seen),
            Observation::Connect { at, ends } => {
                self.table.touch(at);
                self.metadata.connects(at.pid, ends.sock);
                let holder = self.holds(at.pid);
                self.flows.asked(at, ends).begun |= holder;
            }
            Observation::Send(send) => self.on_send(send),
            Observation::Write(seen) => self.on_write(seen),
            Observation::TlsWrite(seen) => self.on_tls_write(seen),
            Observation::Created {
                at,
                boot_ns,
                file,
                credentials,
            } => self.on_created(at.as_ref(), *boot_ns, file, credentials),
            Observation::FileChanged {
                at,
                boot_ns,
                file,
                change,
                credentials,
            } => self.on_file_changed(at.as_ref(), *boot_ns, (file, change), credentials),
            Observation::Persistence {
                at,
                boot_ns,
                file,
                technique,
                link,
            } => self.on_persistence(at.as_ref(), *boot_ns, file, (technique, link)),
            Observation::Withdrawn {
                fingerprint,
                boot_ns,
            } => self.on_withdrawn(fingerprint, *boot_ns),
            Observation::Gap(gap) => self.on_gap(gap),
            Observation::Unhooked(seen) => self.unhooked.note(seen, &self.table),
            Observation::Pod { boot_ns, names } => self.on_pod(*boot_ns, names),
            Observation::PodGone { boot_ns, uid } => self.names.gone(*boot_ns, uid),
            // For a later stage.
            Observation::Findings { .. } => {}
            Observation::Stop { boot_ns } => {
                self.on_time(boot_ns.saturating_add(u64::MAX / 4));
                self.report_dropped(*boot_ns, true);
            }
        }
    }

    fn on_start(&mut self, start: &AgentStart) {
        self.start = start.clone();
        self.boot_wall_ns = start.wall_ns.saturating_sub(start.boot_ns);
        self.table.set_boot(&start.boot_id, self.boot_wall_ns);
        if let Some(alive) = start.previous_alive_wall_ns {
            let how = if start.previous_clean {
                "was stopped"
            } else {
                "ended without stopping (killed or crashed)"
            };
            let since = if start.rebooted {
                "in another boot of this host; what happened in between, as far as the host ran, was not seen"
            } else {
                "what happened in between was not seen"
            };
            self.on_gap(&GapSeen {
                detail: format!("the agent before this one {how}; {since}"),
                remedy: "keep the agent running, for example as a systemd service".to_owned(),
                from_wall_ns: alive,
                to_wall_ns: start.wall_ns,
                ..GapSeen::new(GapReason::AgentDown, start.boot_ns)
            });
        }
    }

    fn on_tick(&mut self, boot_ns: u64, wall_ns: u64) {
        self.boot_wall_ns = wall_ns.saturating_sub(boot_ns);
        self.table.set_boot_wall(self.boot_wall_ns);
        self.on_time(boot_ns);
        self.tick_ns = boot_ns;
        self.report_dropped(boot_ns, false);
    }

    /// What was taken for a credential is none.
    fn on_withdrawn(&mut self, fingerprint: &str, boot_ns: u64) {
        self.known.remove(fingerprint);
        self.table.withdraw(fingerprint);
        self.pipes.withdraw(fingerprint);
        self.files.withdraw(fingerprint);
        if self.withdrawn.len() >= MAX_WITHDRAWN {
            self.withdrawn.pop_first();
        }
        self.withdrawn.insert(fingerprint.to_owned(), boot_ns);
    }

    fn on_pod(&mut self, boot_ns: u64, names: &PodNames) {
        for named in self.names.put(boot_ns, names) {
            let mut e = self.event(EventKind::WorkloadNamed, boot_ns);
            e.workload = Some(Box::new(named));
            self.emit(e);
        }
    }

    fn on_time(&mut self, boot_ns: u64) {
        self.decide_tls(boot_ns, None);
        self.end_words(boot_ns, None);
        for key in self.flows.due(boot_ns, None) {
            self.lineage(key);
        }
        for (key, open) in self.opens.take_due(boot_ns) {
            self.opened(key, &open);
        }
        self.end_repeats(boot_ns, None);
        for e in self.deliveries.take_due(boot_ns) {
            self.emit(e);
        }
        self.flows.expire(boot_ns);
        self.pipes.expire(boot_ns);
        self.names.expire(boot_ns);
        self.table.expire(boot_ns);
    }

    /// Makes gaps of everything that was dropped since the last time.
    fn report_dropped(&mut self, boot_ns: u64, now: bool) {
        let connections = std::mem::take(&mut self.flows.dropped);
        self.dropped.add(Bound::Connections, connections);
        self.dropped
            .add(Bound::Processes, self.table.take_refused());
        self.dropped.add(Bound::Holdings, self.table.take_unheld());
        self.dropped
            .add(Bound::Pipes, std::mem::take(&mut self.pipes.dropped));
        self.dropped
            .add(Bound::Pipes, std::mem::take(&mut self.files.dropped));
        self.dropped
            .add(Bound::Names, std::mem::take(&mut self.names.dropped));
        if self.dropped.is_empty() || !now && boot_ns < self.dropped_due_ns {
            return;
        }
        self.dropped_due_ns = boot_ns.saturating_add(Dropped::REPORT_INTERVAL_NS);
        for (bound, count) in self.dropped.take() {
            self.on_gap(&bound.gap(count, boot_ns));
        }
    }

    fn on_gap(&mut self, gap: &GapSeen) {
        if gap.reason == GapReason::RecordsLost {
            self.lost_ns = self.lost_ns.max(gap.boot_ns);
        }
        let mut e = self.event(EventKind::CoverageGap, gap.boot_ns);
        e.process = gap.pid.map(|pid| self.table.describe(pid));
        let wall = |ns: u64| (ns != 0).then_some(ns);
        e.gap = Some(Gap {
            reason: gap.reason,
            detail: gap.detail.clone(),
            remedy: gap.remedy.clone(),
            count: gap.count,
            from_ns: wall(gap.from_wall_ns),
            to_ns: wall(gap.to_wall_ns),
            signal: gap.signal,
        });
        self.emit(e);
    }

    /// The credential as it is described best: one fingerprint that two rules found is one credential.
    fn best(&mut self, credential: &CredentialRef) -> CredentialRef {
        match self.known.get(&credential.fingerprint) {
            Some(known) if !credential.is_better(known) => known.clone(),
            None if self.known.len() >= MAX_KNOWN => credential.clone(),
            _ => {
                self.known
                    .insert(credential.fingerprint.clone(), credential.clone());
                credential.clone()
            }
        }
    }

    fn event(&self, kind: EventKind, boot_ns: u64) -> Event {
        Event::new(kind, self.boot_wall_ns + boot_ns, boot_ns)
    }

    /// What was told from `first` on is of one act: several events of one kind are a group.
    fn group(&mut self, first: usize) {
        let reported = self.out.get_mut(first..).unwrap_or_default();
        let Some((kind, number)) = reported.first().map(|e| (e.kind, e.id.sequence)) else {
            return;
        };
        if reported.iter().filter(|e| e.kind == kind).count() > 1 {
            for e in reported.iter_mut().filter(|e| e.kind == kind) {
                e.group = number;
            }
        }
    }

    fn emit(&mut self, mut e: Event) {
        e.id = self.next_id();
        for process in e.process.iter_mut().chain(&mut e.victim) {
            self.names.name(process, e.boot_ns);
        }
        self.out.push(e);
    }

    /// The number of the next event: those of later stages are numbered with the core's own.
    pub fn next_id(&mut self) -> EventId {
        self.sequence += 1;
        EventId {
            agent: self.start.agent.clone(),
            boot: self.start.boot_id.clone(),
            epoch: self.start.epoch,
            sequence: self.sequence,
        }
    }
}

fn attack(ids: &[&str]) -> Vec<String> {
    ids.iter()
        .filter(|id| !id.is_empty())
        .map(|id| (*id).to_owned())
        .collect()
}
