//! The state machine: who holds what, what left, with which evidence.

use super::event;
use super::flow::{Flow, Flows};
use super::tls::{APPLICATION_DATA, Link, TlsLinks};
use crate::model::{
    Access, AgentStart, CredentialRef, ExecSeen, FileSeen, Found, GapSeen, Hit, HostName,
    Observation, Payload, Pid, Place, SendSeen, Snapshot, Stamp,
};
use crate::process::{Holding, HoldingPlace, Proc, ProcessTable, Workload};
use keytrail_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

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
    opens: BTreeMap<(Pid, u64, u64), PendingOpen>,
    /// Read events already made: process run, file version, credential.
    reads: BTreeSet<(Pid, u32, u64, u64, u64, String)>,
    /// Executables already reported for TLS that we cannot see into.
    uncovered: BTreeSet<String>,
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
                self.flows.entry(at, ends);
            }
            Observation::Send(send) => self.on_send(send),
            Observation::TlsWrite(seen) => {
                self.table.touch(&seen.at);
                self.tls.enter((**seen).clone());
            }
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
            Observation::Stop { boot_ns } => self.on_time(boot_ns.saturating_add(u64::MAX / 4)),
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
            self.on_gap(&GapSeen {
                boot_ns: start.boot_ns,
                reason: "agent_down".to_owned(),
                detail: format!(
                    "the agent before this one {how}; what happened in between was not seen"
                ),
                remedy: "keep the agent running, for example as a systemd service".to_owned(),
                from_wall_ns: alive,
                to_wall_ns: start.wall_ns,
                ..GapSeen::default()
            });
        }
    }

    fn on_time(&mut self, boot_ns: u64) {
        self.decide_tls(boot_ns, None);
        for (pid, sock) in self.flows.due(boot_ns, None) {
            self.lineage(pid, sock);
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

    fn on_snapshot(&mut self, s: &Snapshot) {
        let exec = self.table.get(s.at.pid).map_or(0, |p| p.exec);
        let kept = self
            .table
            .get(s.at.pid)
            .map(|p| p.holdings.clone())
            .unwrap_or_default();
        let mut proc = proc_from(
            &s.at, s.parent, &s.exe, s.ns_tgid, &s.argv, &s.cwd, &s.cgroup,
        );
        proc.loginuid = s.loginuid;
        proc.session = s.session;
        proc.exec = exec;
        proc.holdings = kept;
        self.table.insert(s.at.pid, proc);
        self.expose(
            &s.at,
            &s.found,
            "procfs:environ",
            false,
            false,
            &["seen in /proc, not at exec"],
        );
    }

    fn on_exec(&mut self, x: &ExecSeen) {
        let before = self.table.get(x.at.pid);
        let before_key = self.table.key(x.at.pid);
        let exec = before.map_or(0, |p| p.exec) + 1;
        // The new image has the new environment and argv; what was read from files may have come along.
        let kept: Vec<Holding> = before
            .map(|p| {
                p.holdings
                    .iter()
                    .filter(|h| matches!(h.place, HoldingPlace::File(_)))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        // The parent at fork, if we saw it: by now the real one may have been replaced by a reaper.
        let parent = before.and_then(|p| p.parent).unwrap_or(x.parent);
        let mut proc = proc_from(&x.at, parent, &x.exe, x.ns_tgid, &x.argv, &x.cwd, &x.cgroup);
        proc.loginuid = x.loginuid;
        proc.session = x.session;
        proc.exec = exec;
        proc.holdings = kept;
        for holding in &mut proc.holdings {
            holding.inherited_from = Some(before_key.clone());
        }
        self.table.insert(x.at.pid, proc);
        if self.start.process_events || !x.found.is_empty() || self.holds(x.at.pid) {
            let mut e = self.event("process_start", x.at.boot_ns);
            e.process = Some(self.table.describe(x.at.pid));
            self.emit(e);
        }
        self.expose(
            &x.at,
            &x.found,
            "raw_tp:sched_process_exec",
            x.argv_truncated,
            x.env_truncated,
            &[],
        );
        let cut = [
            (
                x.env_truncated,
                "environment_truncated",
                "environment",
                x.env_bytes,
                x.env_inspected,
            ),
            (
                x.argv_truncated,
                "argv_truncated",
                "argv",
                x.argv_bytes,
                x.argv_inspected,
            ),
        ];
        for (truncated, reason, what, total, inspected) in cut {
            if truncated {
                self.on_gap(&GapSeen {
                    boot_ns: x.at.boot_ns,
                    reason: reason.to_owned(),
                    detail: format!("{inspected} of {total} bytes of the {what} were looked at"),
                    remedy: format!(
                        "credentials beyond the captured part of the {what} are not known"
                    ),
                    count: total.saturating_sub(inspected),
                    signal: "exec".to_owned(),
                    pid: Some(x.at.pid),
                    ..GapSeen::default()
                });
            }
        }
    }

    fn expose(
        &mut self,
        at: &Stamp,
        found: &[Found],
        hook: &str,
        argv_cut: bool,
        env_cut: bool,
        notes: &[&str],
    ) {
        for f in found {
            let (place, channel) = match &f.place {
                Place::Env(name) => (HoldingPlace::Env(name.clone()), "env"),
                Place::Argv(index) => (HoldingPlace::Argv(*index), "argv"),
            };
            if !self.hold(at, &f.credential, place.clone()) {
                continue;
            }
            let mut e = self.event("credential_exposed", at.boot_ns);
            e.process = Some(self.table.describe(at.pid));
            e.credential = Some(event::credential(&f.credential));
            e.source = Some(event::place_source(&place));
            e.evidence = Some(v1::Evidence {
                grade: "observed".to_owned(),
                channel: channel.to_owned(),
                hook: hook.to_owned(),
                ..v1::Evidence::default()
            });
            if argv_cut || env_cut {
                e.truncation = Some(v1::Truncation {
                    argv: argv_cut,
                    environment: env_cut,
                    ..v1::Truncation::default()
                });
            }
            e.coverage = notes.iter().map(|n| (*n).to_owned()).collect();
            e.attack = attack(&["T1552"]);
            self.emit(e);
        }
    }

    /// Notes a holding; false when the process holds the credential from this place already.
    fn hold(&mut self, at: &Stamp, credential: &CredentialRef, place: HoldingPlace) -> bool {
        let Some(proc) = self.table.touch(at) else {
            return false;
        };
        let known = proc.holdings.iter_mut().find(|h| {
            h.credential.fingerprint == credential.fingerprint
                && match (&h.place, &place) {
                    (HoldingPlace::File(a), HoldingPlace::File(b)) => {
                        a.device == b.device && a.inode == b.inode
                    }
                    (a, b) => a == b,
                }
        });
        if let Some(holding) = known {
            // It met the credential itself now: no longer just inherited.
            return holding.inherited_from.take().is_some();
        }
        if proc.holdings.len() >= MAX_HOLDINGS {
            return true;
        }
        proc.holdings.push(Holding {
            credential: credential.clone(),
            place,
            inherited_from: None,
            since_ns: at.boot_ns,
        });
        true
    }

    fn on_exit(&mut self, at: &Stamp, status: i32, signal: i32) {
        let pid = at.pid;
        self.decide_tls(at.boot_ns, Some(pid));
        for (pid, sock) in self.flows.due(at.boot_ns, Some(pid)) {
            self.lineage(pid, sock);
        }
        let opens: Vec<_> = self
            .opens
            .keys()
            .filter(|(p, _, _)| *p == pid)
            .copied()
            .collect();
        for key in opens {
            self.opened(key);
        }
        if self.start.process_events || self.holds(pid) {
            let mut e = self.event("process_exit", at.boot_ns);
            e.process = Some(self.table.describe(pid));
            e.exit = Some(v1::ProcessExit { status, signal });
            self.emit(e);
        }
        self.flows.forget(pid);
        self.reads = {
            let mut reads = std::mem::take(&mut self.reads);
            reads.retain(|r| r.0 != pid);
            reads
        };
        self.table.exit(pid, at.boot_ns);
    }

    fn on_file(&mut self, seen: &FileSeen) {
        self.table.touch(&seen.at);
        let key = (seen.at.pid, seen.file.device, seen.file.inode);
        if seen.access == Access::Open {
            let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
            let read = seen.credentials.iter().any(|c| {
                let file = &seen.file;
                let ctime = file.ctime_ns;
                self.reads.contains(&(
                    seen.at.pid,
                    exec,
                    file.device,
                    file.inode,
                    ctime,
                    c.fingerprint.clone(),
                ))
            });
            // Told after the read it led to: opens and reads come by different ways.
            if !read && !seen.credentials.is_empty() && !self.opens.contains_key(&key) {
                self.opens.insert(
                    key,
                    PendingOpen {
                        seen: seen.clone(),
                        due_ns: seen.at.boot_ns + OPEN_DELAY_NS,
                    },
                );
            }
            return;
        }
        self.opens.remove(&key);
        if let Some(why) = &seen.unreadable {
            self.on_gap(&GapSeen {
                boot_ns: seen.at.boot_ns,
                reason: "file_unreadable".to_owned(),
                detail: format!(
                    "{} was read; what it holds is not known: {why}",
                    seen.file.path
                ),
                remedy: "let the agent read the file (CAP_DAC_READ_SEARCH)".to_owned(),
                count: 1,
                signal: "file_read".to_owned(),
                pid: Some(seen.at.pid),
                ..GapSeen::default()
            });
        }
        let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
        for credential in &seen.credentials {
            self.hold(
                &seen.at,
                credential,
                HoldingPlace::File(Box::new(seen.file.clone())),
            );
            let once = (
                seen.at.pid,
                exec,
                seen.file.device,
                seen.file.inode,
                seen.file.ctime_ns,
                credential.fingerprint.clone(),
            );
            if !self.reads.insert(once) {
                continue;
            }
            let mut e = self.event("credential_read", seen.at.boot_ns);
            e.process = Some(self.table.describe(seen.at.pid));
            e.credential = Some(event::credential(credential));
            e.source = Some(event::file_source(&seen.file));
            e.evidence = Some(v1::Evidence {
                grade: "observed".to_owned(),
                channel: "file".to_owned(),
                hook: seen.hook.clone(),
                ..v1::Evidence::default()
            });
            if seen.truncated {
                e.truncation = Some(v1::Truncation {
                    file: true,
                    ..v1::Truncation::default()
                });
            }
            e.attack = attack(&[&credential.attack]);
            self.emit(e);
        }
    }

    fn opened(&mut self, key: (Pid, u64, u64)) {
        let Some(open) = self.opens.remove(&key) else {
            return;
        };
        for credential in &open.seen.credentials {
            let mut e = self.event("credential_opened", open.seen.at.boot_ns);
            e.process = Some(self.table.describe(key.0));
            e.credential = Some(event::credential(credential));
            e.source = Some(event::file_source(&open.seen.file));
            e.evidence = Some(v1::Evidence {
                channel: "file".to_owned(),
                hook: open.seen.hook.clone(),
                ..v1::Evidence::default()
            });
            self.emit(e);
        }
    }

    fn on_send(&mut self, send: &SendSeen) {
        self.table.touch(&send.at);
        let application = send
            .tls_record
            .is_some_and(|(kind, _)| kind == APPLICATION_DATA);
        let handshake = send.tls_record.is_some() && !application;
        let carried = self.tls.send(send);
        // A handshake alone says nothing about the holder's payload: lineage begins with application bytes.
        let flow = if handshake {
            self.flows.entry(&send.at, &send.ends)
        } else {
            self.flows.sent(&send.at, &send.ends, send.payload.total)
        };
        flow.tls |= send.tls_record.is_some();
        flow.hooked |= send.tls_call.is_some() && application;
        flow.add_hosts(&send.payload.hosts);
        if flow.hook.is_empty() {
            flow.hook.clone_from(&send.hook);
        }
        if let Some(seen) = carried {
            flow.hooked = true;
            flow.add_hosts(&seen.payload.hosts);
            let link = Link {
                ends: Some(send.ends.clone()),
                method: "nested_send",
            };
            self.sent(&seen.at, &seen.payload, &link, "tls", &seen.hook);
        }
        if send.tls_record.is_none() && !send.payload.hits.is_empty() {
            let link = Link {
                ends: Some(send.ends.clone()),
                method: "socket",
            };
            self.sent(&send.at, &send.payload, &link, "tcp", &send.hook);
        }
    }

    fn decide_tls(&mut self, boot_ns: u64, only: Option<Pid>) {
        let flows = &mut self.flows;
        let decided = self.tls.due(boot_ns, only, |pid| flows.only_tls(pid));
        for (seen, link) in decided {
            self.sent(&seen.at, &seen.payload, &link, "tls", &seen.hook);
        }
    }

    /// Reports what a payload carried.
    fn sent(&mut self, at: &Stamp, payload: &Payload, link: &Link, channel: &str, hook: &str) {
        let mut hosts: Vec<HostName> = payload.hosts.clone();
        if let Some(ends) = &link.ends
            && let Some(flow) = self.flows.get_mut(at.pid, ends.sock)
        {
            flow.add_hosts(&payload.hosts);
            hosts.clone_from(&flow.hosts);
            flow.hooked |= channel == "tls";
            for hit in &payload.hits {
                flow.claimed.insert(hit.credential.fingerprint.clone());
            }
        }
        if link.ends.is_none() {
            // It left by one of the connections: none of them may be reported as lineage only.
            for flow in self.flows.of(at.pid) {
                for hit in &payload.hits {
                    flow.claimed.insert(hit.credential.fingerprint.clone());
                }
            }
        }
        let secret: BTreeSet<&str> = payload
            .hits
            .iter()
            .filter(|h| h.secret)
            .map(|h| h.credential.fingerprint.as_str())
            .collect();
        for hit in &payload.hits {
            if !hit.secret && secret.contains(hit.credential.fingerprint.as_str()) {
                continue;
            }
            let e = self.sent_event(at, hit, payload, link, &hosts, channel, hook);
            self.emit(e);
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the facts of one send, all of them in the event"
    )]
    fn sent_event(
        &self,
        at: &Stamp,
        hit: &Hit,
        payload: &Payload,
        link: &Link,
        hosts: &[HostName],
        channel: &str,
        hook: &str,
    ) -> v1::Event {
        let mut e = self.event("credential_sent", at.boot_ns);
        e.process = Some(self.table.describe(at.pid));
        e.credential = Some(event::credential(&hit.credential));
        let holding = self
            .table
            .get(at.pid)
            .and_then(|p| holding_of(p, &hit.credential.fingerprint));
        e.source = Some(event::holding_source(holding, self.boot_wall_ns));
        e.destination = Some(event::destination(link.ends.as_ref(), hosts));
        e.evidence = Some(v1::Evidence {
            grade: if hit.secret { "observed" } else { "identified" }.to_owned(),
            transform: hit.transform.clone(),
            channel: channel.to_owned(),
            payload_bytes: payload.total,
            inspected_bytes: payload.inspected,
            destination_method: link.method.to_owned(),
            part: hit.part.clone(),
            occurrences: hit.occurrences,
            hook: hook.to_owned(),
        });
        if payload.truncated {
            e.truncation = Some(v1::Truncation {
                payload: true,
                ..v1::Truncation::default()
            });
        }
        e.attack = attack(&[if channel == "tls" { "T1078" } else { "T1041" }]);
        e
    }

    /// A holder sent bytes in which nothing known was seen.
    fn lineage(&mut self, pid: Pid, sock: u64) {
        let Some(flow) = self.flows.get_mut(pid, sock) else {
            return;
        };
        if !flow.claimed.is_empty() {
            return;
        }
        let Flow {
            ends,
            hosts,
            at,
            sent_bytes,
            tls,
            hooked,
            hook,
            ..
        } = flow;
        let (ends, hosts, at, bytes, hook) = (
            ends.clone(),
            hosts.clone(),
            at.clone(),
            *sent_bytes,
            hook.clone(),
        );
        let blind = *tls && !*hooked;
        let Some(proc) = self.table.get(pid) else {
            return;
        };
        let mut named = BTreeSet::new();
        let holdings: Vec<Holding> = proc
            .holdings
            .iter()
            .filter(|h| named.insert(h.credential.fingerprint.clone()))
            .cloned()
            .collect();
        if holdings.is_empty() {
            return;
        }
        let exe = proc.exe.path.clone();
        let mut coverage = Vec::new();
        if blind {
            coverage.push(
                "the payload is TLS by a library that is not hooked: its content was not seen"
                    .to_owned(),
            );
        }
        if holdings.len() > MAX_LINEAGE {
            coverage.push(format!(
                "{} more credentials are held and not listed",
                holdings.len() - MAX_LINEAGE
            ));
        }
        for holding in holdings.iter().take(MAX_LINEAGE) {
            let mut e = self.event("credential_sent", at.boot_ns);
            e.process = Some(self.table.describe(pid));
            e.credential = Some(event::credential(&holding.credential));
            e.source = Some(event::holding_source(Some(holding), self.boot_wall_ns));
            e.destination = Some(event::destination(Some(&ends), &hosts));
            e.evidence = Some(v1::Evidence {
                grade: "lineage".to_owned(),
                channel: if blind || hosts.iter().any(|h| h.provenance == "sni") {
                    "tls"
                } else {
                    "tcp"
                }
                .to_owned(),
                payload_bytes: bytes,
                destination_method: "socket".to_owned(),
                hook: hook.clone(),
                ..v1::Evidence::default()
            });
            e.coverage.clone_from(&coverage);
            self.emit(e);
        }
        if blind && self.uncovered.insert(exe.clone()) {
            self.on_gap(&GapSeen {
                boot_ns: at.boot_ns,
                reason: "library_not_covered".to_owned(),
                detail: format!("{exe} sends TLS by a library that is not hooked: its payloads cannot be looked into"),
                remedy: "`keytrail doctor` lists which libraries are covered and what to do about the rest".to_owned(),
                count: 1,
                signal: "tls_write".to_owned(),
                pid: Some(pid),
                ..GapSeen::default()
            });
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

/// The strongest holding of a credential: what the process met itself before what it inherited.
fn holding_of<'a>(proc: &'a Proc, fingerprint: &str) -> Option<&'a Holding> {
    let mut of = proc
        .holdings
        .iter()
        .filter(|h| h.credential.fingerprint == fingerprint);
    let first = of.next()?;
    if first.inherited_from.is_none() {
        return Some(first);
    }
    Some(of.find(|h| h.inherited_from.is_none()).unwrap_or(first))
}

fn attack(ids: &[&str]) -> Vec<String> {
    ids.iter()
        .filter(|id| !id.is_empty())
        .map(|id| (*id).to_owned())
        .collect()
}

fn proc_from(
    at: &Stamp,
    parent: Pid,
    exe: &crate::model::ExeFacts,
    ns_tgid: u32,
    argv: &[String],
    cwd: &str,
    cgroup: &str,
) -> Proc {
    Proc {
        pid: Some(at.pid),
        parent: Some(parent),
        exe: exe.clone(),
        comm: at.comm.clone(),
        argv: argv.to_vec(),
        cwd: cwd.to_owned(),
        cgroup: cgroup.to_owned(),
        workload: Workload::from_path(cgroup),
        ns_tgid,
        uid: at.uid,
        euid: at.euid,
        gid: at.gid,
        ..Proc::default()
    }
}
