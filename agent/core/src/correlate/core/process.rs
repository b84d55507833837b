//! Processes: who runs what, and which credentials came with it.

use super::{Core, MAX_HOLDINGS, attack};
use crate::correlate::event;
use crate::process::{Holding, HoldingPlace, Proc, Unreported};
use keytrail_model::event::{Evidence, ProcessExit, Truncation};
use keytrail_model::{
    Bound, Channel, CredentialRef, EventKind, EvidenceGrade, ExecSeen, Found, FoundIn, GapReason,
    GapSeen, Pid, Signal, Snapshot, TICK_NS, TaskInfo, Workload,
};
use std::sync::Arc;

impl Core {
    pub(super) fn on_snapshot(&mut self, s: &Snapshot) {
        let before = self.table.get(s.at.pid);
        let exec = before.map_or(0, |p| p.exec) + u32::from(s.executed);
        let had = self.had_before(s.at.pid, s.parent);
        let kept = match before {
            Some(before) if s.executed => self.through_exec(s.at.pid, before),
            Some(before) => before.holdings.clone(),
            None => Vec::new(),
        };
        // Who forked it, if that was seen: /proc names whoever took it over since.
        let parent = before.and_then(|p| p.parent).unwrap_or(s.parent);
        let mut proc = proc_from(&s.at, parent, &s.exe, s.ns_tgid, &s.argv, &s.cwd, &s.cgroup);
        proc.loginuid = s.loginuid;
        proc.session = s.session;
        proc.exec = exec;
        proc.unreported = before.map_or_else(Unreported::default, |p| p.unreported);
        self.pipes.leave(s.at.pid, s.at.boot_ns);
        self.table.insert(s.at.pid, proc);
        self.table.set_holdings(s.at.pid, kept);
        // What it runs has had its environment since before anybody looked.
        let since = s.at.pid.start.saturating_mul(TICK_NS).min(s.at.boot_ns);
        self.expose(&Exposed {
            at: &s.at,
            found: &s.found,
            had: &had,
            from_ns: since,
            hook: "procfs:environ",
            cut: (false, false),
            notes: &["seen in /proc, not at exec"],
        });
    }

    pub(super) fn on_exec(&mut self, x: &ExecSeen) {
        let pid = x.at.pid;
        // What the program before sent is judged by what that one was and held.
        if self.table.get(pid).is_some() {
            self.decide_tls(x.at.boot_ns, Some(pid));
            self.end_words(x.at.boot_ns, Some(pid));
            for key in self.flows.due(x.at.boot_ns, Some(pid)) {
                self.lineage(key);
            }
            self.end_repeats(x.at.boot_ns, Some(pid));
        }
        let before = self.table.get(pid);
        let exec = before.map_or(0, |p| p.exec) + 1;
        let kept = before.map_or_else(Vec::new, |before| self.through_exec(pid, before));
        let unreported = before.map_or_else(Unreported::default, |p| p.unreported);
        // The parent at fork, if we saw it: by now the real one may have been replaced by a reaper.
        let parent = before.and_then(|p| p.parent).unwrap_or(x.parent);
        let had = if exec == 1 && self.start.followed == Some(pid.tgid) {
            Vec::new()
        } else {
            self.had_before(pid, parent)
        };
        let mut proc = proc_from(&x.at, parent, &x.exe, x.ns_tgid, &x.argv, &x.cwd, &x.cgroup);
        proc.loginuid = x.loginuid;
        proc.session = x.session;
        proc.exec = exec;
        proc.unreported = unreported;
        // Its streams are reported anew.
        self.pipes.leave(pid, x.at.boot_ns);
        self.table.insert(pid, proc);
        self.table.set_holdings(pid, kept);
        if self.start.process_events || !x.found.is_empty() || self.holds(pid) {
            let mut e = self.event(EventKind::ProcessStart, x.at.boot_ns);
            e.process = Some(self.table.describe(pid));
            self.emit(e);
        }
        self.expose(&Exposed {
            at: &x.at,
            found: &x.found,
            had: &had,
            from_ns: x.at.boot_ns,
            hook: "raw_tp:sched_process_exec",
            cut: (x.argv_truncated, x.env_truncated),
            notes: &[],
        });
        let cut = [
            (
                x.env_truncated,
                GapReason::EnvironmentTruncated,
                "environment",
                x.env_bytes,
                x.env_inspected,
            ),
            (
                x.argv_truncated,
                GapReason::ArgvTruncated,
                "argv",
                x.argv_bytes,
                x.argv_inspected,
            ),
        ];
        for (truncated, reason, what, total, inspected) in cut {
            if truncated {
                self.on_gap(&GapSeen {
                    detail: format!("{inspected} of {total} bytes of the {what} were inspected"),
                    remedy: format!(
                        "credentials beyond the captured part of the {what} are not known"
                    ),
                    // Processes: how much of it was cut off stands in the detail.
                    count: 1,
                    signal: Some(Signal::Exec),
                    pid: Some(pid),
                    ..GapSeen::new(reason, x.at.boot_ns)
                });
            }
        }
    }

    /// What a process still holds after it has executed another program: that has an environment and an argv of its
    /// own, but what was read from files may have come along.
    fn through_exec(&self, pid: Pid, before: &Proc) -> Vec<Holding> {
        let from: Arc<str> = self.table.key_of(pid, before.exec).into();
        before
            .holdings
            .iter()
            .filter(|h| !matches!(h.place, HoldingPlace::Env(_) | HoldingPlace::Argv(_)))
            // What came by a pipe comes again if the program reads it. What was read for a container is in its environment.
            .filter(|h| h.passed.is_none() && !h.brings)
            .cloned()
            .map(|holding| Holding {
                inherited_from: Some(from.clone()),
                own_ns: None,
                ..holding
            })
            .collect()
    }

    /// The environment a process had before it began its program: its own, as it came with the fork, or else its parent's.
    fn had_before(&self, pid: Pid, parent: Pid) -> Vec<Holding> {
        let known = [pid, parent].into_iter().find_map(|pid| {
            let proc = self.table.get(pid).filter(|p| !p.partial)?;
            Some((pid, proc))
        });
        let Some((from, proc)) = known else {
            return Vec::new();
        };
        let key: Arc<str> = self.table.key(from).into();
        proc.holdings
            .iter()
            // What came by a pipe was in another's environment.
            .filter(|h| h.passed.is_none() && matches!(h.place, HoldingPlace::Env(_)))
            .cloned()
            .map(|holding| Holding {
                inherited_from: holding.inherited_from.clone().or_else(|| Some(key.clone())),
                ..holding
            })
            .collect()
    }

    /// Notes what a program was begun with. What was in the environment before, under the same name, is no news: it is
    /// counted where it came from.
    fn expose(&mut self, exposed: &Exposed<'_>) {
        let at = exposed.at;
        let first = self.out.len();
        for f in exposed.found {
            let (place, channel) = match &f.place {
                FoundIn::Env(name) => (HoldingPlace::Env(name.clone()), Channel::Env),
                FoundIn::Argv(index) => (HoldingPlace::Argv(*index), Channel::Argv),
            };
            let same = |h: &&Holding| {
                h.place == place && h.credential.fingerprint == f.credential.fingerprint
            };
            let had = exposed.had.iter().find(same);
            if !self.hold(at, &f.credential, place.clone(), exposed.from_ns) {
                continue;
            }
            if let Some(had) = had {
                self.inherit(at.pid, had);
                continue;
            }
            let mut e = self.event(EventKind::CredentialExposed, at.boot_ns);
            e.process = Some(self.table.describe(at.pid));
            e.credential = Some(self.best(&f.credential));
            e.source = Some(event::place_source(&place));
            e.evidence = Some(Evidence::new(
                Some(EvidenceGrade::Observed),
                channel,
                exposed.hook,
            ));
            let (argv, environment) = exposed.cut;
            if argv || environment {
                e.truncation = Some(Truncation {
                    argv,
                    environment,
                    ..Truncation::default()
                });
            }
            e.coverage = exposed.notes.iter().map(|n| (*n).to_owned()).collect();
            e.attack = attack(&["T1552"]);
            e.delivery = self.delivered(at.pid, &f.credential.fingerprint);
            self.emit(e);
        }
        self.group(first);
    }

    /// The newest holding of a process is one it was given by who had it before.
    fn inherit(&mut self, pid: Pid, had: &Holding) {
        if let Some(holding) = self.table.get_mut(pid).and_then(|p| {
            let same = |h: &&mut Holding| {
                h.place == had.place && h.credential.fingerprint == had.credential.fingerprint
            };
            p.holdings.iter_mut().rfind(same)
        }) {
            holding.inherited_from.clone_from(&had.inherited_from);
            (holding.since_ns, holding.origin) = (had.since_ns, had.origin);
        }
        self.table
            .count_unreported(had.origin, |unreported| unreported.exposures += 1);
    }

    /// Notes a holding; false when the process holds the credential from this place already. `from_ns` is the earliest
    /// that it can have obtained it.
    pub(super) fn hold(
        &mut self,
        at: &TaskInfo,
        credential: &CredentialRef,
        place: HoldingPlace,
        from_ns: u64,
    ) -> bool {
        let credential = &self.best(credential);
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
            // It met the credential itself now: no longer just inherited, or passed on.
            holding.own_ns = holding.own_ns.or(Some(from_ns));
            holding.origin = at.pid;
            holding.passed = None;
            let news = holding.inherited_from.take().is_some();
            self.pass_on(at.pid, Some(&credential.fingerprint), at.boot_ns);
            return news;
        }
        if proc.holdings.len() >= MAX_HOLDINGS {
            self.dropped.add(Bound::Holdings, 1);
            return true;
        }
        let holding = Holding {
            credential: credential.clone(),
            place,
            inherited_from: None,
            since_ns: at.boot_ns,
            from_ns,
            own_ns: Some(from_ns),
            origin: at.pid,
            passed: None,
            brings: false,
        };
        self.table.add_holding(at.pid, holding);
        self.pass_on(at.pid, Some(&credential.fingerprint), at.boot_ns);
        true
    }

    pub(super) fn on_exit(&mut self, at: &TaskInfo, status: i32, signal: i32) {
        let pid = at.pid;
        self.decide_tls(at.boot_ns, Some(pid));
        self.end_words(at.boot_ns, Some(pid));
        for key in self.flows.due(at.boot_ns, Some(pid)) {
            self.lineage(key);
        }
        for (key, open) in self.opens.take_process(pid) {
            self.opened(key, &open);
        }
        self.end_repeats(at.boot_ns, Some(pid));
        // Threads that die together may each be taken for the last one, on kernels that do not say which is.
        let again = self.table.get(pid).is_some_and(|p| p.exited_ns.is_some());
        if !again && (self.start.process_events || self.holds(pid)) {
            let unreported = self
                .table
                .get(pid)
                .map_or_else(Unreported::default, |p| p.unreported);
            let mut e = self.event(EventKind::ProcessExit, at.boot_ns);
            e.process = Some(self.table.describe(pid));
            e.exit = Some(ProcessExit {
                status,
                signal,
                inherited_exposures: unreported.exposures,
                untold_sends: unreported.sends,
            });
            self.emit(e);
        }
        self.flows.forget(pid);
        self.reads.forget(pid);
        self.metadata.forget(pid);
        self.exchanges.forget(pid);
        self.pipes.leave(pid, at.boot_ns);
        self.table.exit(pid, at.boot_ns);
    }
}

/// What a program was begun with, and what was there before.
struct Exposed<'a> {
    at: &'a TaskInfo,
    found: &'a [Found],
    had: &'a [Holding],
    /// The earliest that it can have had it.
    from_ns: u64,
    hook: &'a str,
    /// Arguments, environment.
    cut: (bool, bool),
    notes: &'a [&'a str],
}

fn proc_from(
    at: &TaskInfo,
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
    .named()
}
