//! What is passed on through pipes: who reads what a holder can write may have what the holder obtained.
//!
//! Only what a process obtained itself goes on, or was passed on to it: what a shell had before its commands is theirs by
//! inheritance, and is reported as that.

use super::{Core, MAX_HOLDINGS};
use crate::process::{By, Carried, Holding, HoldingPlace, Passed, Proc};
use keytrail_model::event::PathStep;
use keytrail_model::{Bound, Pid, PipeId, PipesSeen};
use std::collections::{HashMap, HashSet};

/// Steps of a way that is followed.
const MAX_STEPS: usize = 12;
/// What was put into a FIFO so long ago was read by somebody else: who opens it now gets what is put in now.
const STALE_NS: u64 = 60_000_000_000;
/// Processes that wait for a decision about another one.
const MAX_WAITING: usize = 64;
/// Processes that one credential is passed on to at a time.
const MAX_MET: usize = 64;

/// What is to go on.
#[derive(Default)]
struct Due {
    /// Fingerprints, and by which pipes.
    credentials: Vec<(String, Vec<PipeId>)>,
    /// Pipes without room for all, and how many found none.
    refused: Vec<(PipeId, u64)>,
}

impl Core {
    pub(super) fn on_pipes(&mut self, seen: &PipesSeen) {
        let (pid, now_ns) = (seen.at.pid, seen.at.boot_ns);
        if seen.opened {
            return self.on_opened(seen);
        }
        if let Some(proc) = self.table.touch(&seen.at) {
            proc.stdin = seen.stdin;
            proc.stdout = seen.stdout;
        }
        if let Some(pipe) = seen.stdout {
            self.pipes.forget_left(pipe, now_ns);
            self.pipes.add_writer(pipe, pid);
            if let Some(taker) = seen.taker
                && !self.pipes.is_stdin(pipe)
            {
                self.reads_from(taker, pipe, false, now_ns);
            }
        }
        if let Some(pipe) = seen.stdin {
            if let Some(feeder) = seen.feeder {
                self.pipes.add_writer(pipe, feeder);
                self.pass_on(feeder, None, now_ns);
            }
            self.take_back(pipe);
            self.reads_from(pid, pipe, true, now_ns);
        }
        self.pass_on(pid, None, now_ns);
    }

    /// A FIFO that was opened by its name, or a terminal that somebody has the other end of. What is put into it goes on when
    /// it is written.
    fn on_opened(&mut self, seen: &PipesSeen) {
        let (pid, now_ns) = (seen.at.pid, seen.at.boot_ns);
        self.table.touch(&seen.at);
        if let Some(pipe) = seen.stdout {
            self.pipes.forget_left(pipe, now_ns);
            self.pipes.add_loose_writer(pipe, pid);
            if let Some(taker) = seen.taker {
                self.reads_from(taker, pipe, false, now_ns);
            }
        }
        if let Some(pipe) = seen.stdin {
            self.reads_from(pid, pipe, true, now_ns);
        }
    }

    /// The name of a FIFO is known: those who were given something by it know it as well.
    pub(super) fn name_fifo(&mut self, pipe: PipeId, name: &str) {
        if !self.pipes.set_name(pipe, name) {
            return;
        }
        for reader in self.pipes.readers(pipe) {
            let Some(proc) = self.table.get_mut(reader) else {
                continue;
            };
            let passed = proc.holdings.iter_mut().filter_map(|h| h.passed.as_mut());
            for passed in passed.filter(|passed| passed.via == pipe) {
                let mut path = passed.path.to_vec();
                if let Some(step) = path.iter_mut().rfind(|step| step.how == "pipe") {
                    name.clone_into(&mut step.name);
                }
                passed.path = path.into();
            }
        }
    }

    /// Those who read what a process writes, and so on.
    #[must_use]
    pub fn downstream(&self, pid: Pid) -> Vec<Pid> {
        let mut found: Vec<Pid> = Vec::new();
        let mut next = 0;
        let mut at = pid;
        loop {
            for pipe in self.pipes.reached_by(at) {
                for reader in self.pipes.readers(pipe) {
                    if reader != pid && !found.contains(&reader) && found.len() < MAX_WAITING {
                        found.push(reader);
                    }
                }
            }
            let Some(reader) = found.get(next) else {
                return found;
            };
            at = *reader;
            next += 1;
        }
    }

    /// Those who are known to write what is read from a pipe.
    #[must_use]
    pub fn writers(&self, pipe: PipeId) -> &[Pid] {
        self.pipes.writers(pipe)
    }

    /// Those who are known to read from a pipe.
    #[must_use]
    pub fn readers(&self, pipe: PipeId) -> Vec<Pid> {
        self.pipes.readers(pipe)
    }

    /// The pipes that a process can read from.
    pub fn read_by(&self, pid: Pid) -> impl Iterator<Item = PipeId> {
        let stdin = self.table.get(pid).and_then(|proc| proc.stdin);
        let others = self.pipes.read_by(pid).filter(move |id| Some(*id) != stdin);
        stdin.into_iter().chain(others)
    }

    /// Whether somebody unknown writes what a process reads, and its parent holds something: a shell's own commands are
    /// copies of it, whose pipes are not reported before they end.
    #[must_use]
    pub fn may_be_fed(&self, pid: Pid) -> bool {
        let Some(proc) = self.table.get(pid) else {
            return false;
        };
        let unknown = proc.stdin.is_some_and(|pipe| !self.pipes.is_written(pipe));
        unknown && proc.parent.is_some_and(|parent| self.holds(parent))
    }

    /// What a process holds goes on by the pipes it can write to: one credential, or all.
    pub(super) fn pass_on(&mut self, pid: Pid, only: Option<&str>, now_ns: u64) {
        let pipes = self.pipes.written_by(pid);
        if pipes.is_empty() {
            return;
        }
        let due = self.due(pid, &pipes, only);
        for (pipe, count) in due.refused {
            self.pipes.refuse(pipe, count);
        }
        for (fingerprint, pipes) in due.credentials {
            self.spread(pid, pipes, &fingerprint, now_ns);
        }
    }

    /// What of a process's holdings its pipes do not have yet, or have by another way. In time of holdings and pipes, not of their product: a service with a thousand credentials and as many
    /// children is looked at with every child.
    fn due(&self, pid: Pid, pipes: &[PipeId], only: Option<&str>) -> Due {
        let Some(proc) = self.table.get(pid) else {
            return Due::default();
        };
        let mut going: Vec<&Holding> = Vec::new();
        let mut number: HashMap<&str, usize> = HashMap::new();
        for holding in &proc.holdings {
            let fingerprint = holding.credential.fingerprint.as_str();
            if only.is_none_or(|only| fingerprint == only) && goes_on(proc, holding) {
                number.entry(fingerprint).or_insert_with(|| {
                    going.push(holding);
                    going.len() - 1
                });
            }
        }
        if going.is_empty() {
            return Due::default();
        }
        let (renews, key) = (self.renews(pid), self.table.key(pid));
        let mut due = vec![Vec::new(); going.len()];
        let mut refused = Vec::new();
        for pipe in pipes {
            let mut known = HashSet::new();
            for carried in self.pipes.carried(*pipe) {
                let fingerprint = carried.holding.credential.fingerprint.as_str();
                let Some(at) = number.get(fingerprint).copied() else {
                    continue;
                };
                known.insert(at);
                if renews && !self.is_way(pid, &key, going[at], &carried.passed.path) {
                    due[at].push(*pipe);
                }
            }
            let room = self.pipes.room(*pipe);
            let missing = going.len() - known.len();
            let new = (0..going.len()).filter(|at| !known.contains(at));
            new.take(room).for_each(|at| due[at].push(*pipe));
            if missing > room {
                refused.push((*pipe, (missing - room) as u64));
            }
        }
        let due = going.iter().zip(due).filter(|(_, pipes)| !pipes.is_empty());
        let named =
            |(h, pipes): (&&Holding, Vec<PipeId>)| (h.credential.fingerprint.clone(), pipes);
        Due {
            credentials: due.map(named).collect(),
            refused,
        }
    }

    /// Whether this is the way up to a process of what it holds; `key` is its own.
    fn is_way(&self, pid: Pid, key: &str, holding: &Holding, path: &[PathStep]) -> bool {
        let Some(passed) = &holding.passed else {
            return match (path, &holding.place) {
                // Most are this, and it is asked for each pipe.
                ([step], HoldingPlace::File(file)) if holding.origin == pid => {
                    step.how == "read" && step.key == key && step.name == file.path
                }
                _ => self.way(pid, holding) == path,
            };
        };
        if passed.path.last().is_some_and(|step| is_of(step, pid)) {
            return *passed.path == *path;
        }
        path.split_last()
            .is_some_and(|(last, rest)| last.key == key && *rest == *passed.path)
    }

    /// One credential, by these pipes to everybody whom it can come to: each once, by the shortest way.
    fn spread(&mut self, from: Pid, first: Vec<PipeId>, fingerprint: &str, now_ns: u64) {
        let mut met = vec![from];
        let mut pipes = first;
        let mut next = 0;
        while let Some(&at) = met.get(next) {
            next += 1;
            for pipe in pipes {
                let Some(carried) = self.carried_by(at, pipe, fingerprint, now_ns) else {
                    continue;
                };
                if !self.pipes.carry(pipe, &carried, self.renews(at)) {
                    continue;
                }
                for reader in self.pipes.readers(pipe) {
                    if met.contains(&reader) {
                        continue;
                    }
                    if met.len() >= MAX_MET {
                        self.dropped.add(Bound::Pipes, 1);
                    } else if self.give(reader, &carried, self.renews(at)) {
                        met.push(reader);
                    }
                }
            }
            pipes = met
                .get(next)
                .map_or_else(Vec::new, |at| self.pipes.written_by(*at));
        }
    }

    /// What a process puts into a pipe of a credential, if it may.
    fn carried_by(
        &self,
        pid: Pid,
        pipe: PipeId,
        fingerprint: &str,
        now_ns: u64,
    ) -> Option<Carried> {
        let proc = self.table.get(pid)?;
        let of = |h: &&Holding| h.credential.fingerprint == fingerprint && goes_on(proc, h);
        let holding = proc.holdings.iter().find(of)?;
        let since_ns = holding.met_ns().map_or(now_ns, |(since, _)| since);
        Some(Carried {
            holding: holding.clone(),
            passed: Passed {
                path: self.way(pid, holding).into(),
                via: pipe,
                since_ns,
                reported_ns: since_ns.max(now_ns),
            },
            writer: pid,
            by: if pipe.is_socket_pair() {
                By::Socket(String::new())
            } else {
                By::Pipe
            },
        })
    }

    /// What executed nothing reports its pipes when it ends: a way that is known is not made worse by that.
    fn renews(&self, pid: Pid) -> bool {
        self.table.get(pid).is_some_and(|p| !p.forked)
    }

    /// A process can read from a pipe.
    pub(super) fn reads_from(&mut self, pid: Pid, pipe: PipeId, stdin: bool, now_ns: u64) {
        self.pipes.forget_left(pipe, now_ns);
        if !self.pipes.add_reader(pipe, pid, stdin) {
            return;
        }
        let named = self.pipes.is_named(pipe);
        for mut carried in self.pipes.carried(pipe).to_vec() {
            if named && carried.passed.reported_ns.saturating_add(STALE_NS) < now_ns {
                continue;
            }
            carried.passed.reported_ns = carried.passed.reported_ns.max(now_ns);
            if self.give(pid, &carried, self.renews(pid)) {
                let fingerprint = &carried.holding.credential.fingerprint;
                self.pass_on(pid, Some(fingerprint), now_ns);
            }
        }
    }

    /// A process can read what was put into a pipe, or read the file it was put into. Whether that is news.
    pub(super) fn give(&mut self, pid: Pid, carried: &Carried, renew: bool) -> bool {
        let Some(proc) = self.table.get(pid) else {
            return false;
        };
        if proc.exited_ns.is_some() || carried.passed.path.iter().any(|step| is_of(step, pid)) {
            return false;
        }
        if carried.passed.path.len() >= MAX_STEPS {
            self.dropped.add(Bound::Pipes, 1);
            return false;
        }
        let fingerprint = &carried.holding.credential.fingerprint;
        let pipe = carried.passed.via;
        let mut path = carried.passed.path.to_vec();
        let (how, name) = match &carried.by {
            By::Pipe => ("pipe", self.pipes.name(pipe)),
            By::Terminal(path) => ("terminal", path.clone()),
            By::File(path) if path.is_empty() => ("file", format!("file:[{}]", pipe.inode)),
            By::File(path) => ("file", path.clone()),
            By::Socket(path) => ("socket", path.clone()),
        };
        path.push(self.stage(pid, how, name));
        let holding = Holding {
            inherited_from: Some(self.table.key(carried.writer).into()),
            own_ns: None,
            passed: Some(Passed {
                path: path.into(),
                via: pipe,
                since_ns: carried.passed.since_ns,
                reported_ns: carried.passed.reported_ns,
            }),
            ..carried.holding.clone()
        };
        let Some(proc) = self.table.get_mut(pid) else {
            return false;
        };
        let full = proc.holdings.len() >= MAX_HOLDINGS;
        let known = proc
            .holdings
            .iter_mut()
            .find(|h| h.credential.fingerprint == *fingerprint);
        match known {
            // It has it by a way that says more.
            Some(known) if known.passed.is_none() || !renew => return false,
            Some(known) => *known = holding,
            None if full => {
                self.dropped.add(Bound::Holdings, 1);
                return false;
            }
            None => {
                self.table.add_holding(pid, holding);
                if !self.given.contains(&pid) {
                    self.given.push(pid);
                }
            }
        }
        true
    }

    /// A shell has the reading end open for a moment until the next command of the pipeline is there: who was taken for
    /// a reader is none.
    fn take_back(&mut self, pipe: PipeId) {
        let mut left: Vec<(Pid, PipeId)> = Vec::new();
        left.extend(self.pipes.take_takers(pipe).into_iter().map(|t| (t, pipe)));
        let mut next = 0;
        while let Some(&(pid, pipe)) = left.get(next) {
            next += 1;
            let by_it = |h: &Holding| h.passed.as_ref().is_some_and(|p| p.via == pipe);
            let taken = self.table.take_holdings(pid, by_it);
            for out in self.pipes.written_by(pid) {
                for fingerprint in &taken {
                    self.pipes.revoke(out, pid, fingerprint);
                }
                for reader in self.pipes.readers(out) {
                    let known = left.contains(&(reader, out));
                    if !taken.is_empty() && !known && left.len() < MAX_MET {
                        left.push((reader, out));
                    }
                }
            }
        }
        // What others put into those pipes stays.
        for (pid, pipe) in left.into_iter().skip_while(|l| l.1 == pipe) {
            for carried in self.pipes.carried(pipe).to_vec() {
                self.give(pid, &carried, false);
            }
        }
    }

    /// The way up to a process of what was passed on to it, or what it obtained itself, or is the copy of one that did.
    pub(super) fn way(&self, pid: Pid, holding: &Holding) -> Vec<PathStep> {
        if let Some(passed) = &holding.passed {
            let mut path = passed.path.to_vec();
            if path.last().is_some_and(|step| !is_of(step, pid)) {
                path.push(self.stage(pid, "fork", String::new()));
            }
            return path;
        }
        let (how, name) = match &holding.place {
            HoldingPlace::File(file) => ("read", file.path.clone()),
            HoldingPlace::Env(name) => ("env", name.clone()),
            HoldingPlace::Argv(index) => ("argv", index.to_string()),
            HoldingPlace::Process(key) => ("taken", key.clone()),
            HoldingPlace::Service(asked) => ("received", asked.clone()),
            HoldingPlace::Use(_) => ("used", String::new()),
        };
        let forked = self.table.get(pid).is_some_and(|p| p.forked);
        if forked && holding.origin != pid && self.table.get(holding.origin).is_some() {
            return vec![
                self.stage(holding.origin, how, name),
                self.stage(pid, "fork", String::new()),
            ];
        }
        vec![self.stage(pid, how, name)]
    }

    pub(super) fn stage(&self, pid: Pid, how: &str, name: String) -> PathStep {
        let proc = self.table.get(pid);
        PathStep {
            how: how.to_owned(),
            name,
            key: self.table.key(pid),
            pid: pid.tgid,
            executable: proc.map_or_else(String::new, |p| p.exe.path.clone()),
            comm: proc.map_or_else(String::new, |p| p.comm.clone()),
        }
    }
}

/// Whether a step is a process, in whatever program: its key has pid and start time.
fn is_of(step: &PathStep, pid: Pid) -> bool {
    let mut parts = step.key.split(':').skip(2);
    step.pid == pid.tgid && parts.next().and_then(|s| s.parse().ok()) == Some(pid.start)
}

/// Whether what a process holds may be in what it writes: it obtained it itself, or it was passed on to it.
fn goes_on(proc: &Proc, holding: &Holding) -> bool {
    if holding.brings {
        return false;
    }
    if holding.passed.is_some() {
        return true;
    }
    match holding.place {
        // An environment that came with the fork is no news: a shell's commands have it all.
        HoldingPlace::Env(_) | HoldingPlace::Argv(_) => {
            holding.own_ns.is_some() && (proc.forked || holding.inherited_from.is_none())
        }
        HoldingPlace::File(_) | HoldingPlace::Process(_) | HoldingPlace::Service(_) => {
            holding.own_ns.is_some()
        }
        // When it came is not known: what it is written to is reported by its bytes.
        HoldingPlace::Use(_) => false,
    }
}
