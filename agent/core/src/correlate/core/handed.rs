//! What is passed on through files and pairs of sockets: who reads what somebody wrote just after meeting a credential may have
//! it. The bytes may be anything (packed, encrypted): what is seen in them as it is, is reported as that.

use super::Core;
use super::send::Outbound;
use crate::process::{By, Carried, Holding, HoldingPlace, Passed};
use keytrail_model::{FileSeen, Pid, PipeId, SendSeen, WriteSeen, WriteTarget};

/// So long after meeting a credential a write may hold it: programs that pack or encrypt do at once what they are for; a
/// server goes on for weeks, and writes logs.
const SOON_NS: u64 = 60_000_000_000;
/// Credentials that one write puts into a file.
const MAX_PUT: usize = 64;
/// Nothing shorter is a secret.
const MIN_BYTES: u64 = 16;

impl Core {
    /// A holder writes to a file.
    pub(super) fn put_into_file(&mut self, seen: &WriteSeen) {
        if seen.target != WriteTarget::File || seen.payload.total == 0 {
            return;
        }
        let file = PipeId {
            device: seen.device,
            inode: seen.inode,
        };
        let (pid, now_ns) = (seen.at.pid, seen.at.boot_ns);
        let key = (seen.device, seen.inode);
        let mut held = self.just_met(pid, now_ns, (file, &By::File(String::new())));
        let known = self.files.known(key);
        held.retain(|c| !known.contains(&c.holding.credential.fingerprint.as_str()));
        if held.is_empty() && !self.files.has(key) {
            return;
        }
        let bytes = seen.payload.total;
        self.files.write(key, &seen.path, bytes, now_ns, held);
    }

    /// A holder writes to a FIFO, which has a name as files have, or to a terminal. Who reads from the FIFO gets what the
    /// writer has just met, in whatever form; who has the terminal's other end gets what was seen in what is shown there: a
    /// holder shows something all the time.
    pub(super) fn put_into_opened(&mut self, seen: &WriteSeen) {
        let (pid, now_ns) = (seen.at.pid, seen.at.boot_ns);
        let to = PipeId {
            device: seen.device,
            inode: seen.inode,
        };
        let seen_in_it = |h: &&Holding| {
            let mut hits = seen.payload.hits.iter().filter(|hit| hit.secret);
            hits.any(|hit| hit.credential.fingerprint == h.credential.fingerprint)
        };
        let (by, mut put) = match seen.target {
            WriteTarget::Pipe if !seen.path.is_empty() => {
                self.name_fifo(to, &seen.path);
                (By::Pipe, self.just_met(pid, now_ns, (to, &By::Pipe)))
            }
            WriteTarget::Terminal => (By::Terminal(seen.path.clone()), Vec::new()),
            _ => return,
        };
        let all = self.table.get(pid).map_or(&[][..], |p| &p.holdings);
        for holding in all.iter().filter(seen_in_it).take(MAX_PUT) {
            put.push(self.carried_on(pid, holding, now_ns, (to, &by)));
        }
        for carried in put {
            // Another terminal has the same number later, and whoever has its other end is known from before.
            if by == By::Pipe && !self.pipes.carry(to, &carried, false) {
                continue;
            }
            for reader in self.pipes.readers(to) {
                self.hand_over(reader, carried.clone(), (now_ns, now_ns));
            }
        }
    }

    /// A file is read in which nothing could be seen.
    pub(super) fn read_written(&mut self, seen: &FileSeen) {
        let (file, pid) = ((seen.file.device, seen.file.inode), seen.at.pid);
        if seen.file.size < MIN_BYTES {
            return;
        }
        // Ingest leaves the path out where the reader has it under another name.
        let size = (seen.file.size, !seen.file.path.is_empty());
        let Some((name, held)) = self.files.read(file, size, pid, seen.at.boot_ns) else {
            return;
        };
        let from_ns = self.earliest(&seen.at, &seen.hook);
        for mut carried in held {
            carried.by = By::File(name.clone());
            self.hand_over(pid, carried, (seen.at.boot_ns, from_ns));
        }
    }

    /// A holder writes to a nameless socket whose other end an ancestor made: what a child says to its parent (node's
    /// `child_process`). What has a name is a service, to which every holder talks.
    pub(super) fn put_into_pair(&mut self, seen: &SendSeen) {
        let Some(peer) = seen.ends.peer.as_deref().filter(|p| p.start != 0) else {
            return;
        };
        if !seen.ends.path.is_empty() || seen.payload.total < MIN_BYTES {
            return;
        }
        let (pid, parent) = (
            seen.at.pid,
            Pid {
                tgid: peer.tgid,
                start: peer.start,
            },
        );
        if !self.table.line(pid).iter().skip(1).any(|p| *p == parent) {
            return;
        }
        let pair = PipeId {
            device: 0,
            inode: seen.ends.sock,
        };
        let now_ns = seen.at.boot_ns;
        for carried in self.just_met(pid, now_ns, (pair, &By::Socket(String::new()))) {
            self.hand_over(parent, carried, (now_ns, now_ns));
        }
    }

    /// A secret was seen in what a holder sent over a Unix socket with a name: who is at the other end has it from now on, as
    /// daemons do that keep credentials for others. Of anything else over such a socket nothing follows: every holder talks
    /// to services.
    pub(super) fn put_into_service(&mut self, outbound: &Outbound) {
        let (pid, now_ns) = (outbound.at.pid, outbound.at.boot_ns);
        let Some(ends) = outbound.link.ends.as_ref().filter(|e| !e.path.is_empty()) else {
            return;
        };
        let Some(peer) = ends.peer.as_deref().filter(|p| p.start != 0) else {
            return;
        };
        let peer = Pid {
            tgid: peer.tgid,
            start: peer.start,
        };
        if peer == pid {
            return;
        }
        let via = PipeId {
            device: PipeId::SOCKET_PAIR,
            inode: ends.sock,
        };
        for hit in outbound.payload.hits.iter().filter(|hit| hit.secret) {
            let fingerprint = &hit.credential.fingerprint;
            let holding = self.table.get(pid).and_then(|proc| {
                let mut of = proc.holdings.iter();
                of.find(|h| h.credential.fingerprint == *fingerprint)
            });
            let Some(holding) = holding else { continue };
            let by = By::Socket(ends.path.clone());
            let carried = self.carried_on(pid, holding, now_ns, (via, &by));
            self.hand_over(peer, carried, (now_ns, now_ns));
        }
    }

    /// What a process hands on of what it holds, at this time.
    fn carried_on(
        &self,
        pid: Pid,
        holding: &Holding,
        now_ns: u64,
        (via, by): (PipeId, &By),
    ) -> Carried {
        Carried {
            holding: holding.clone(),
            passed: Passed {
                path: self.way(pid, holding).into(),
                via,
                since_ns: now_ns,
                reported_ns: now_ns,
            },
            writer: pid,
            by: by.clone(),
        }
    }

    fn hand_over(&mut self, pid: Pid, mut carried: Carried, (now_ns, from_ns): (u64, u64)) {
        carried.passed.since_ns = from_ns;
        carried.passed.reported_ns = now_ns;
        // What it sent before that is not of it.
        carried.holding.from_ns = from_ns;
        if self.give(pid, &carried, true) {
            let fingerprint = &carried.holding.credential.fingerprint;
            self.pass_on(pid, Some(fingerprint), now_ns);
        }
    }

    /// What a process obtained so lately that it may be in what it writes to this file or socket.
    fn just_met(&self, pid: Pid, now_ns: u64, (via, by): (PipeId, &By)) -> Vec<Carried> {
        let mut held = Vec::new();
        let is_its_own = |holding: &&Holding| !holding.brings;
        let all = self.table.get(pid).map_or(&[][..], |p| &p.holdings);
        for holding in all.iter().filter(is_its_own) {
            let met_ns = match (&holding.passed, &holding.place) {
                // What is written back is no copy.
                (None, HoldingPlace::File(facts)) => holding
                    .met_ns()
                    .filter(|_| (facts.device, facts.inode) != (via.device, via.inode)),
                // Whoever is started beside it has that as well.
                (None, HoldingPlace::Env(_) | HoldingPlace::Argv(_)) => None,
                // When it came is not known.
                (None, HoldingPlace::Use(_)) => None,
                (Some(_), _) | (None, HoldingPlace::Process(_) | HoldingPlace::Service(_)) => {
                    holding.met_ns()
                }
            };
            let soon = |(since, reported): (u64, u64)| {
                since <= now_ns && now_ns <= reported.saturating_add(SOON_NS)
            };
            if met_ns.is_some_and(soon) && held.len() < MAX_PUT {
                held.push(self.carried_on(pid, holding, now_ns, (via, by)));
            }
        }
        held
    }
}
