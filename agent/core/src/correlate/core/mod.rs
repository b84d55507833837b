//! The state machine: who holds what, what left, with which evidence.

mod file;
mod process;
mod send;

use super::event;
use super::flow::Flows;
use super::tls::TlsLinks;
use crate::process::ProcessTable;
use keytrail_model::{AgentStart, Bound, Dropped, FileSeen, GapSeen, Observation, Pid};
use keytrail_proto::v1;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Credentials named in lineage events of one connection; the rest is counted.
const MAX_LINEAGE: usize = 16;
/// Credentials one process can hold; the rest is dropped and counted as a gap.
const MAX_HOLDINGS: usize = 1024;
/// An open without a read for this long is reported as just that.
const OPEN_DELAY_NS: u64 = 1_000_000_000;

struct PendingOpen {
    seen: FileSeen,
    due_ns: u64,
}

/// The deterministic core. Feed it every observation in order; it returns the events each one completes.
#[derive(Default)]
pub struct Core {
    start: AgentStart,
    boot_wall_ns: u64,
    sequence: u64,
    table: ProcessTable,
    flows: Flows,
    tls: TlsLinks,
    /// Identifiers at the end of a payload, as long as the next may go on with them.
    open_words: VecDeque<send::Passage>,
    opens: BTreeMap<(Pid, u64, u64), PendingOpen>,
    /// Read events already made: process run, file version, credential.
    reads: BTreeSet<(Pid, u32, u64, u64, u64, String)>,
    /// Executables already reported for TLS that we cannot see into.
    uncovered: BTreeSet<String>,
    /// What found no room or was cut, until it is told, and when it may be.
    dropped: Dropped,
    dropped_due_ns: u64,
    out: Vec<v1::Event>,
}

impl Core {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this process is known well: the engine sends a snapshot first when it is not.
    #[must_use]
    pub fn knows(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| !p.sketchy)
    }

    #[must_use]
    pub fn holds(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| !p.holdings.is_empty())
    }

    #[must_use]
    pub fn processes(&self) -> &ProcessTable {
        &self.table
    }

    /// One step. The same observations in the same order give the same events.
    pub fn step(&mut self, observation: &Observation) -> Vec<v1::Event> {
        match observation {
            Observation::Start(start) => self.on_start(start),
            Observation::Tick { boot_ns, wall_ns } => {
                self.boot_wall_ns = wall_ns.saturating_sub(*boot_ns);
                self.table.set_boot_wall(self.boot_wall_ns);
                self.on_time(*boot_ns);
                self.tell_dropped(*boot_ns, false);
            }
            Observation::Snapshot(snapshot) => self.on_snapshot(snapshot),
            Observation::Exec(exec) => self.on_exec(exec),
            Observation::Fork {
                at,
                child,
                child_ns_tgid,
            } => self.table.fork(at, *child, *child_ns_tgid),
            Observation::Exit { at, status, signal } => self.on_exit(at, *status, *signal),
            Observation::File(seen) => self.on_file(seen),
            Observation::Connect { at, ends } => {
                self.table.touch(at);
                let holder = self.holds(at.pid);
                self.flows.entry(at, ends).begun |= holder;
            }
            Observation::Send(send) => self.on_send(send),
            Observation::TlsWrite(seen) => self.on_tls_write(seen),
            Observation::Created {
                at,
                boot_ns,
                file,
                credentials,
            } => {
                for credential in credentials {
                    let mut e = self.event("credential_created", *boot_ns);
                    e.process = at.as_ref().map(|at| self.table.describe(at.pid));
                    e.credential = Some(event::credential(credential));
                    e.source = Some(event::file_source(file));
                    e.attack = attack(&[&credential.attack]);
                    self.emit(e);
                }
            }
            Observation::Gap(gap) => self.on_gap(gap),
            Observation::Stop { boot_ns } => {
                self.on_time(boot_ns.saturating_add(u64::MAX / 4));
                self.tell_dropped(*boot_ns, true);
            }
        }
        std::mem::take(&mut self.out)
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
                boot_ns: start.boot_ns,
                reason: "agent_down".to_owned(),
                detail: format!("the agent before this one {how}; {since}"),
                remedy: "keep the agent running, for example as a systemd service".to_owned(),
                from_wall_ns: alive,
                to_wall_ns: start.wall_ns,
                ..GapSeen::default()
            });
        }
    }

    fn on_time(&mut self, boot_ns: u64) {
        self.decide_tls(boot_ns, None);
        self.end_words(boot_ns, None);
        for key in self.flows.due(boot_ns, None) {
            self.lineage(key);
        }
        let due: Vec<_> = self
            .opens
            .iter()
            .filter(|(_, o)| o.due_ns <= boot_ns)
            .map(|(k, _)| *k)
            .collect();
        for key in due {
            self.opened(key);
        }
        self.flows.expire(boot_ns);
        self.table.expire(boot_ns);
    }

    /// Makes gaps of everything that was dropped since the last time.
    fn tell_dropped(&mut self, boot_ns: u64, now: bool) {
        let connections = std::mem::take(&mut self.flows.dropped);
        self.dropped.add(Bound::Connections, connections);
        self.dropped
            .add(Bound::Processes, self.table.take_refused());
        if self.dropped.is_empty() || !now && boot_ns < self.dropped_due_ns {
            return;
        }
        self.dropped_due_ns = boot_ns.saturating_add(Dropped::TELL_NS);
        for (bound, count) in self.dropped.take() {
            self.on_gap(&bound.gap(count, boot_ns));
        }
    }

    fn on_gap(&mut self, gap: &GapSeen) {
        let mut e = self.event("coverage_gap", gap.boot_ns);
        e.process = gap.pid.map(|pid| self.table.describe(pid));
        let wall = |ns: u64| (ns != 0).then(|| event::timestamp(ns));
        e.gap = Some(v1::Gap {
            reason: gap.reason.clone(),
            detail: gap.detail.clone(),
            remedy: gap.remedy.clone(),
            count: gap.count,
            from: wall(gap.from_wall_ns),
            to: wall(gap.to_wall_ns),
            signal: gap.signal.clone(),
        });
        self.emit(e);
    }

    fn event(&self, kind: &str, boot_ns: u64) -> v1::Event {
        v1::Event {
            kind: kind.to_owned(),
            time: Some(event::timestamp(self.boot_wall_ns + boot_ns)),
            boot_time_ns: boot_ns,
            ..v1::Event::default()
        }
    }

    fn emit(&mut self, mut e: v1::Event) {
        self.sequence += 1;
        e.id = Some(v1::EventId {
            agent: self.start.agent.clone(),
            boot: self.start.boot_id.clone(),
            epoch: self.start.epoch,
            sequence: self.sequence,
        });
        self.out.push(e);
    }
}

fn attack(ids: &[&str]) -> Vec<String> {
    ids.iter()
        .filter(|id| !id.is_empty())
        .map(|id| (*id).to_owned())
        .collect()
}
