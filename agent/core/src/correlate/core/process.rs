//! Processes: who runs what, and which credentials came with it.

use super::{Core, MAX_HOLDINGS, attack};
use crate::correlate::event;
use crate::process::{Holding, HoldingPlace, Proc};
use keytrail_model::Workload;
use keytrail_model::{Bound, CredentialRef, ExecSeen, Found, GapSeen, Pid, Place, Snapshot, Stamp};
use keytrail_proto::v1;

impl Core {
    pub(super) fn on_snapshot(&mut self, s: &Snapshot) {
        let before = self.table.get(s.at.pid);
        let exec = before.map_or(0, |p| p.exec) + u32::from(s.executed);
        let kept = match before {
            Some(before) if s.executed => self.through_exec(s.at.pid, before),
            Some(before) => before.holdings.clone(),
            None => Vec::new(),
        };
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

    pub(super) fn on_exec(&mut self, x: &ExecSeen) {
        let before = self.table.get(x.at.pid);
        let exec = before.map_or(0, |p| p.exec) + 1;
        let kept = before.map_or_else(Vec::new, |before| self.through_exec(x.at.pid, before));
        // The parent at fork, if we saw it: by now the real one may have been replaced by a reaper.
        let parent = before.and_then(|p| p.parent).unwrap_or(x.parent);
        let mut proc = proc_from(&x.at, parent, &x.exe, x.ns_tgid, &x.argv, &x.cwd, &x.cgroup);
        proc.loginuid = x.loginuid;
        proc.session = x.session;
        proc.exec = exec;
        proc.holdings = kept;
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

    /// What a process still holds after it has executed another program: that has an environment and an argv of its
    /// own, but what was read from files may have come along.
    fn through_exec(&self, pid: Pid, before: &Proc) -> Vec<Holding> {
        let from = self.table.key_of(pid, before.exec);
        before
            .holdings
            .iter()
            .filter(|h| matches!(h.place, HoldingPlace::File(_)))
            .cloned()
            .map(|holding| Holding {
                inherited_from: Some(from.clone()),
                ..holding
            })
            .collect()
    }

    pub(super) fn expose(
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
    pub(super) fn hold(
        &mut self,
        at: &Stamp,
        credential: &CredentialRef,
        place: HoldingPlace,
    ) -> bool {
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
            self.dropped.add(Bound::Holdings, 1);
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

    pub(super) fn on_exit(&mut self, at: &Stamp, status: i32, signal: i32) {
        let pid = at.pid;
        self.decide_tls(at.boot_ns, Some(pid));
        self.end_words(at.boot_ns, Some(pid));
        for key in self.flows.due(at.boot_ns, Some(pid)) {
            self.lineage(key);
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
        // Threads that die together may each be taken for the last one, on kernels that do not say which is.
        let again = self.table.get(pid).is_some_and(|p| p.exited_ns.is_some());
        if !again && (self.start.process_events || self.holds(pid)) {
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
}

fn proc_from(
    at: &Stamp,
    parent: Pid,
    exe: &keytrail_model::ExeFacts,
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
