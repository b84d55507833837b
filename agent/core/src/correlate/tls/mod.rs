//! From a TLS write to the socket that carried it. A wrong destination is worse than "unknown": each rung of the
//! ladder needs positive proof, and what none proves stays unknown.
//!
//! 1. `nested_send`: the thread sends a fitting record while it is in the call.
//! 2. `record_length`: programs that keep the ciphertext in memory (Node, asyncio) send it later. A write comes before
//!    its send, so at each send all writes it can carry are known. It is joined when its length is exactly that of the
//!    writes of one session, of no other session's, and no send on another socket may have carried them before. The
//!    claim waits: a send of fitting length on another socket that no write explains takes it back.
//! 3. `single_socket`: the process has one TLS connection, and it sent enough after the write.

mod records;

pub use records::is_application;

use keytrail_model::{Ends, Hit, Pid, SendSeen, TlsSeen};
use records::{Flight, fits};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a TLS write waits for proof when something left that may have carried it.
const WAIT_NS: u64 = 500_000_000;
/// How long when nothing did: a write that began a handshake leaves after it, as another call.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long a resolved write tells a retry from a new one.
const RETRY_NS: u64 = 5_000_000_000;
/// TLS writes waiting at most in one process, and sessions remembered; beyond it the oldest are decided early.
const MAX_WAITING: usize = 256;
const MAX_RESOLVED: usize = 8_192;
/// Writes of one session that are tried together against one send.
const MAX_JOINED: usize = 16;

/// A TLS write whose socket is not known yet.
#[derive(Debug)]
struct Waiting {
    seen: TlsSeen,
    /// Sockets whose sends may have carried it, without proof.
    maybe: BTreeSet<u64>,
    /// Sends that fitted it and another session's write alike.
    ambiguous: usize,
    /// The session was given the same bytes again before this left: as far as we know, another attempt at it.
    superseded: bool,
    /// Something left in its call that does not prove to be it.
    left: bool,
}

/// The last write of a session that found its socket: tells a retry from a new write.
#[derive(Debug)]
struct Resolved {
    total: u64,
    fingerprints: Vec<String>,
    boot_ns: u64,
}

impl Waiting {
    fn due_ns(&self) -> u64 {
        let wait = if self.maybe.is_empty() {
            PATIENCE_NS
        } else {
            WAIT_NS
        };
        self.seen.at.boot_ns.saturating_add(wait)
    }
}

/// A write joined to a socket by length.
#[derive(Debug)]
struct Joined {
    seen: TlsSeen,
    ends: Ends,
    /// When the send was.
    sent_ns: u64,
    /// Another socket sent what might have been it.
    doubted: bool,
}

#[derive(Debug, Default)]
pub struct TlsLinks {
    /// Writes without a socket, oldest first.
    waiting: BTreeMap<Pid, VecDeque<Waiting>>,
    joined: BTreeMap<Pid, VecDeque<Joined>>,
    /// Those that found no room, to be decided with the next ones that are due.
    overdue: Vec<Waiting>,
    resolved: BTreeMap<(Pid, u64), Resolved>,
}

/// What a send was found to carry.
#[derive(Debug, Default)]
pub struct Carries {
    /// The write whose call it is nested in.
    pub nested: Option<TlsSeen>,
    /// Writes of before, by length: claimed when nothing has spoken against it for a while.
    pub earlier: bool,
}

/// What became of the writes that waited.
#[derive(Debug, Default)]
pub struct Decided {
    /// Those that left, each with where to.
    pub left: Vec<(TlsSeen, Link)>,
    /// Those after which nothing left that may have carried them.
    pub unsent: Vec<TlsSeen>,
}

/// How the destination of a TLS write was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ends: Option<Ends>,
    pub method: &'static str,
}

impl TlsLinks {
    /// A thread entered a TLS write.
    pub fn enter(&mut self, seen: TlsSeen) {
        let queue = self.waiting.entry(seen.at.pid).or_default();
        if let Some(before) = queue.iter_mut().rev().find(|w| w.seen.call == seen.call) {
            // One call in several records: the parts belong together.
            merge(&mut before.seen, seen);
            return;
        }
        if let Some(before) = queue.iter_mut().rev().find(|w| same(&w.seen, &seen)) {
            before.superseded = true;
        }
        if queue.len() >= MAX_WAITING {
            self.overdue.extend(queue.pop_front());
        }
        queue.push_back(Waiting {
            seen,
            maybe: BTreeSet::new(),
            ambiguous: 0,
            superseded: false,
            left: false,
        });
    }

    /// What came next in a session: identifiers that ended the writes before are words, or parts of longer ones.
    pub fn settle_words(&mut self, pid: Pid, session: u64, call: u64, continues: bool) {
        let waiting = self.waiting.get_mut(&pid).into_iter().flatten();
        let joined = self.joined.get_mut(&pid).into_iter().flatten();
        let writes = waiting
            .map(|w| &mut w.seen)
            .chain(joined.map(|j| &mut j.seen));
        for seen in writes.filter(|s| s.session == session && s.call != call) {
            settle(&mut seen.payload.hits, continues);
        }
    }

    /// A send: the TLS writes it proves to carry. `session` is false when the socket is known to carry no TLS session of
    /// this process: records on it are somebody else's.
    pub fn send(&mut self, send: &SendSeen, session: bool) -> Carries {
        let mut carries = Carries::default();
        let flight = Flight::of(send).filter(|f| f.application() > 0);
        if let Some((call, _)) = send.tls_call {
            carries.nested = flight.and_then(|_| self.nested(send, call));
            if let Some(seen) = &carries.nested {
                self.remember(seen);
            } else if let Some(w) = self
                .waiting
                .get_mut(&send.at.pid)
                .and_then(|queue| queue.iter_mut().find(|w| w.seen.call == call))
            {
                w.left |= send.tls_record.is_none_or(|(kind, _)| kind == 0x17);
            }
            return carries;
        }
        let Some(flight) = flight.filter(|_| session) else {
            return carries;
        };
        let carried = self.later(send, &flight);
        carries.earlier = !carried.is_empty();
        for seen in carried {
            self.remember(&seen);
            let joined = self.joined.entry(seen.at.pid).or_default();
            if joined.len() >= MAX_WAITING {
                joined.pop_front();
            }
            joined.push_back(Joined {
                seen,
                ends: send.ends.clone(),
                sent_ns: send.at.boot_ns,
                doubted: false,
            });
        }
        carries
    }

    /// The write whose call this send is nested in.
    fn nested(&mut self, send: &SendSeen, call: u64) -> Option<TlsSeen> {
        let (0x17, length) = send.tls_record? else {
            return None;
        };
        let queue = self.waiting.get_mut(&send.at.pid)?;
        let at = queue
            .iter()
            .position(|w| w.seen.call == call && w.seen.at.tid == send.at.tid)?;
        if !fits(queue[at].seen.payload.total, length) {
            return None;
        }
        let found = queue.remove(at)?.seen;
        // Attempts of before that the socket had no room for.
        queue.retain(|w| w.seen.at.boot_ns > found.at.boot_ns || !same(&w.seen, &found));
        Some(found)
    }

    /// The writes that this send, outside of any call, is exactly the encryption of.
    fn later(&mut self, send: &SendSeen, flight: &Flight) -> Vec<TlsSeen> {
        let queue = self.waiting.entry(send.at.pid).or_default();
        let before = |w: &Waiting| w.seen.at.boot_ns <= send.at.boot_ns;
        let mut sessions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (i, w) in queue.iter().enumerate().filter(|(_, w)| before(w)) {
            sessions.entry(w.seen.session).or_default().push(i);
        }
        let mut fitting: Vec<Carried> = sessions
            .values()
            .filter_map(|writes| carried(queue, writes, flight))
            .collect();
        let sock = send.ends.sock;
        if let [only] = &fitting[..]
            && only
                .writes
                .iter()
                .all(|&i| queue[i].ambiguous == 0 && queue[i].maybe.iter().all(|s| *s == sock))
        {
            let only = fitting.swap_remove(0);
            let mut out: Vec<TlsSeen> = only
                .writes
                .iter()
                .rev()
                .filter_map(|&i| queue.remove(i))
                .map(|w| w.seen)
                .collect();
            // Latest first: of several attempts at one write that is the one that is kept.
            if !only.distinct {
                out.dedup_by(|earlier, later| same(earlier, later));
            }
            out.reverse();
            return out;
        }
        if fitting.is_empty() {
            for j in self.joined.get_mut(&send.at.pid).into_iter().flatten() {
                j.doubted |= j.ends != send.ends && flight.may_begin_with(j.seen.payload.total);
            }
        }
        for w in queue.iter_mut().filter(|w| before(w)) {
            if flight.may_carry(w.seen.payload.total) {
                w.maybe.insert(sock);
            }
        }
        for &i in fitting.iter().flat_map(|f| &f.writes) {
            queue[i].ambiguous += 1;
        }
        let sends = |f: &Carried| f.writes.iter().map(|&i| queue[i].ambiguous).max();
        if !fitting.is_empty() && fitting.iter().all(|f| sends(f) >= Some(fitting.len())) {
            // As many sends as there are sessions: all of them have left, and which by which will never be known.
            let mut left: Vec<usize> = fitting.into_iter().flat_map(|f| f.writes).collect();
            left.sort_unstable();
            for i in left.into_iter().rev() {
                self.overdue.extend(queue.remove(i));
            }
        }
        Vec::new()
    }

    fn remember(&mut self, seen: &TlsSeen) {
        if self.resolved.len() >= MAX_RESOLVED {
            self.resolved.pop_first();
        }
        self.resolved.insert(
            (seen.at.pid, seen.session),
            Resolved {
                total: seen.payload.total,
                fingerprints: fingerprints(seen).into_iter().map(str::to_owned).collect(),
                boot_ns: seen.at.boot_ns,
            },
        );
    }

    /// Decides the writes that waited long enough (or all of one process that is going away).
    pub fn due(
        &mut self,
        boot_ns: u64,
        only: Option<Pid>,
        mut only_tls: impl FnMut(Pid) -> Option<Ends>,
    ) -> Decided {
        let mut ripe = std::mem::take(&mut self.overdue);
        for (pid, queue) in &mut self.waiting {
            let all = only == Some(*pid);
            if only.is_some() && !all {
                continue;
            }
            let (now, later): (VecDeque<_>, _) = std::mem::take(queue)
                .into_iter()
                .partition(|w| all || w.due_ns() <= boot_ns);
            *queue = later;
            ripe.extend(now);
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        ripe.sort_by_key(|w| (w.seen.at.boot_ns, w.seen.call));
        let mut out = Decided {
            left: self.joined_due(boot_ns, only),
            unsent: Vec::new(),
        };
        for w in ripe {
            // Nothing left after it, and the same bytes had left before: the library was called once more than needed.
            let again = w.maybe.is_empty() && self.is_retry(&w.seen);
            if w.seen.payload.hits.is_empty() || w.superseded || again {
                continue;
            }
            if w.maybe.is_empty() && w.ambiguous == 0 && !w.left {
                out.unsent.push(w.seen);
                continue;
            }
            let ends = only_tls(w.seen.at.pid)
                .filter(|ends| w.ambiguous == 0 && w.maybe.iter().eq([&ends.sock]));
            let method = if ends.is_some() {
                "single_socket"
            } else {
                "unknown"
            };
            out.left.push((w.seen, Link { ends, method }));
        }
        self.resolved.retain(|(pid, _), r| {
            r.boot_ns.saturating_add(RETRY_NS) > boot_ns && only != Some(*pid)
        });
        out
    }

    fn joined_due(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<(TlsSeen, Link)> {
        let mut out = Vec::new();
        for (pid, joined) in &mut self.joined {
            let all = only == Some(*pid);
            while joined.front().is_some_and(|j| {
                all || only.is_none() && j.sent_ns.saturating_add(WAIT_NS) <= boot_ns
            }) && let Some(j) = joined.pop_front()
            {
                let (ends, method) = if j.doubted {
                    (None, "unknown")
                } else {
                    (Some(j.ends), "record_length")
                };
                if !j.seen.payload.hits.is_empty() {
                    out.push((j.seen, Link { ends, method }));
                }
            }
        }
        self.joined.retain(|_, joined| !joined.is_empty());
        out
    }

    /// The same bytes handed over again because the socket was full: they were reported already.
    fn is_retry(&self, seen: &TlsSeen) -> bool {
        self.resolved
            .get(&(seen.at.pid, seen.session))
            .is_some_and(|r| {
                r.total == seen.payload.total && fingerprints(seen).iter().eq(&r.fingerprints)
            })
    }
}

/// Writes of one session that a send is exactly the encryption of.
struct Carried {
    /// Indices in the queue, oldest first.
    writes: Vec<usize>,
    /// Equal ones among them are writes of their own, not attempts at one.
    distinct: bool,
}

/// How many of a session's writes, from the oldest on, `flight` is exactly the encryption of. A write that is repeated
/// may be a second one or an attempt at the first.
fn carried(queue: &VecDeque<Waiting>, writes: &[usize], flight: &Flight) -> Option<Carried> {
    let mut totals: Vec<u64> = Vec::new();
    let mut once: Vec<u64> = Vec::new();
    for n in 1..=writes.len().min(MAX_JOINED) {
        let seen = &queue[writes[n - 1]].seen;
        totals.push(seen.payload.total);
        if n == 1 || !same(&queue[writes[n - 2]].seen, seen) {
            once.push(seen.payload.total);
        }
        let attempts = flight.is_exactly(&once);
        if attempts || flight.is_exactly(&totals) {
            // What was tried again in vain before this send belongs to it.
            let more = writes[n..]
                .iter()
                .take_while(|i| same(&queue[**i].seen, seen))
                .count();
            return Some(Carried {
                writes: writes[..n + more].to_vec(),
                distinct: !attempts,
            });
        }
    }
    None
}

/// Two calls with the same bytes in one session, as far as we know them.
fn same(a: &TlsSeen, b: &TlsSeen) -> bool {
    a.session == b.session
        && a.payload.total == b.payload.total
        && fingerprints(a) == fingerprints(b)
}

/// An identifier that ended the bytes before is a word only if the next do not go on with it.
fn settle(hits: &mut Vec<Hit>, continues: bool) {
    if continues {
        hits.retain(|hit| !hit.open);
    }
    for hit in hits {
        hit.open = false;
    }
}

fn merge(into: &mut TlsSeen, more: TlsSeen) {
    let payload = &mut into.payload;
    payload.inspected += more.payload.inspected;
    payload.total = payload.total.max(more.payload.total);
    payload.truncated |= more.payload.truncated;
    settle(&mut payload.hits, more.payload.continues);
    for hit in more.payload.hits {
        match payload.hits.iter_mut().find(|h| {
            h.credential.fingerprint == hit.credential.fingerprint
                && h.transform == hit.transform
                && h.part == hit.part
                && h.secret == hit.secret
                && h.open == hit.open
        }) {
            Some(known) => known.occurrences += hit.occurrences,
            None => payload.hits.push(hit),
        }
    }
    for host in more.payload.hosts {
        if !payload.hosts.contains(&host) {
            payload.hosts.push(host);
        }
    }
}

fn fingerprints(seen: &TlsSeen) -> Vec<&str> {
    let mut out: Vec<_> = seen
        .payload
        .hits
        .iter()
        .map(|h| h.credential.fingerprint.as_str())
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}
