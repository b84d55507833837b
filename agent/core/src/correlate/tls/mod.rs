//! From a TLS write to the socket that carried it. A wrong destination is worse than "unknown": each rung of the
//! ladder needs positive proof, and what none proves stays unknown.
//!
//! 1. `nested_send`: the thread sends a fitting record while it is in the call.
//! 2. `connection_fd`: the session itself names its socket (Go: the connection holds the number of its file), and a
//!    fitting record leaves by that socket afterwards, by whatever thread.
//! 3. `next_send`: programs that keep the ciphertext in memory (Node, asyncio, rustls) hand it to the socket when the
//!    library returns. So the write was the last thing the thread was seen to do before it sent exactly its encryption.
//! 4. `record_length`: where they do that later, or by another thread. A write comes before its send, so at each send all
//!    writes it can carry are known. It is joined when its length is exactly that of the writes of one session in the
//!    cipher of its connection, of no other session's, and no send on another socket may have carried them before. Of a
//!    process that sends at once (3) the socket has to be known to be that session's: what it gave its library before the
//!    end of a handshake waits there, and somebody else's send may be as long.
//! 5. `single_socket`: the process has one TLS connection, and it sent enough after the write.
//!
//! A write whose records are given to another session (TLS inside TLS, by an HTTPS proxy) goes where that session's write goes.
//!
//! Claims by 3 and 4 wait: a send of fitting length on another socket that no write explains takes them back.

mod records;
mod sockets;
mod waiting;
mod writes;

pub use records::APPLICATION_DATA;

use keytrail_model::{DestinationMethod, Endpoints, Pid, SendSeen, Socket, TlsSeen};
use records::{Flight, cipher_of, fits, goes_on_with_data};
use sockets::Sockets;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use waiting::{MAX_TOGETHER, Maybe, WAIT_NS, Waiting, all_gone, fitting, spend, take_out};
use writes::{AT_ONCE_NS, carries, differ, fingerprints, is_inside, merge, resolve_open, same};

/// How long a resolved write tells a retry from a new one, and a process that sends at once from others.
const RETRY_NS: u64 = 5_000_000_000;
/// TLS writes waiting for a send at most in one process, and destinations waiting for what may speak against them;
/// beyond it the oldest are decided early. And sessions remembered.
const MAX_WAITING: usize = 1_024;
const MAX_JOINED: usize = 4_096;
const MAX_RESOLVED: usize = 8_192;

/// The last write of a session that found its socket: tells a retry from a new write.
#[derive(Debug)]
struct Resolved {
    total: u64,
    fingerprints: Vec<String>,
    digest: Option<u64>,
    boot_ns: u64,
}

/// A write joined to a socket by length.
#[derive(Debug)]
struct Joined {
    seen: TlsSeen,
    ends: Endpoints,
    method: DestinationMethod,
    /// When the send was.
    sent_ns: u64,
    /// Another socket sent what might have been it.
    doubted: bool,
}

/// A thread's last act, a write.
#[derive(Debug)]
struct Last {
    call: u64,
    boot_ns: u64,
    /// The socket of the send that followed it, of which more may be reported.
    sock: Option<u64>,
}

#[derive(Debug, Default)]
pub struct TlsLinks {
    /// Writes without a socket, oldest first.
    waiting: BTreeMap<Pid, VecDeque<Waiting>>,
    joined: BTreeMap<Pid, VecDeque<Joined>>,
    /// Those that found no room, to be decided with the next ones that are due.
    overdue: Vec<Waiting>,
    /// The same for destinations, which are given up: nothing had time to speak against them.
    given_up: Vec<TlsSeen>,
    resolved: BTreeMap<(Pid, u64), Resolved>,
    sockets: Sockets,
    /// Sockets that sessions name.
    named: BTreeMap<(Pid, u64), Socket>,
    /// The write that was the last thing a thread (by its id) was seen to do.
    last: BTreeMap<(Pid, u32), Last>,
    /// When a process was last seen to send at once what it had encrypted.
    at_once: BTreeMap<Pid, u64>,
}

/// What became of writes, by process and call.
type Fates = BTreeMap<(Pid, u64), (Maybe, usize, bool, bool)>;

/// What was given to another session shares the fate of that session's write.
fn follow(w: &mut Waiting, fates: &Fates) {
    let fate = w
        .within
        .and_then(|outer| fates.get(&(w.seen.at.pid, outer)));
    if let Some(fate) = fate {
        (w.maybe, w.ambiguous, w.left, w.gone) = *fate;
    }
}

/// What a send was found to carry.
#[derive(Debug, Default)]
pub struct Carries {
    /// The writes that it is proven to carry, and by what: one, and behind it those whose records it is made of.
    pub proven: Vec<(TlsSeen, DestinationMethod)>,
    /// Writes of a session that is seen, of before or of now, by length, proven or not: its library is one whose writes
    /// are seen.
    pub earlier: bool,
    /// Records of application data, or what looks like it, are in it.
    pub application: bool,
    /// More of it than a handshake and an alert have.
    pub content: bool,
}

/// Why nobody can say that a write left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// Nothing left after it that may have carried it.
    Nothing,
    /// What left proves nothing, and a handshake of the process has not ended: it may be this session's.
    Handshake,
    /// It was given to another session, of which nothing was seen to leave.
    Inside,
}

/// What became of the writes that waited.
#[derive(Debug, Default)]
pub struct Decided {
    /// Those that left, each with where to.
    pub left: Vec<(TlsSeen, Link)>,
    pub unsent: Vec<(TlsSeen, Unsent)>,
    /// Destinations that were proven and had to be given up.
    pub given_up: u64,
}

/// How the destination of a TLS write was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ends: Option<Endpoints>,
    pub method: DestinationMethod,
}

impl Link {
    const UNKNOWN: Self = Self {
        ends: None,
        method: DestinationMethod::Unknown,
    };
}

impl TlsLinks {
    /// A thread entered a TLS write.
    pub fn enter(&mut self, seen: TlsSeen) {
        if let Some(socket) = seen.socket {
            if self.named.len() >= MAX_RESOLVED {
                self.named.pop_first();
            }
            self.named.insert((seen.at.pid, socket.sock), socket);
        }
        let queue = self.waiting.entry(seen.at.pid).or_default();
        if let Some(before) = queue.iter_mut().rev().find(|w| w.seen.call == seen.call) {
            // One call in several records: the parts belong together.
            merge(&mut before.seen, seen);
            return;
        }
        // A library that is given the same bytes again takes them up again; Go waits inside the one call.
        let mut follows_spent = false;
        if seen.socket.is_none()
            && let Some(before) = queue.iter_mut().rev().find(|w| same(&w.seen, &seen))
        {
            before.superseded = true;
            follows_spent = before.spent || before.follows_spent;
        }
        if queue.len() >= MAX_WAITING {
            self.overdue.extend(queue.pop_front());
        }
        let thread = (seen.at.pid, seen.at.tid);
        let before = self.last.get(&thread).filter(|last| last.sock.is_none());
        if let Some(call) = before.map(|last| last.call)
            && let Some(inner) = queue.iter_mut().rev().find(|w| w.seen.call == call)
            && is_inside(&inner.seen, &seen)
        {
            inner.within = Some(seen.call);
        }
        if self.last.len() >= MAX_RESOLVED {
            self.last.pop_first();
        }
        self.last.insert(
            thread,
            Last {
                call: seen.call,
                boot_ns: seen.at.boot_ns,
                sock: None,
            },
        );
        queue.push_back(Waiting {
            seen,
            maybe: Maybe::Nobody,
            ambiguous: 0,
            gone: false,
            superseded: false,
            left: false,
            spent: false,
            follows_spent,
            loose: false,
            within: None,
        });
    }

    /// What came next in a session: identifiers that ended the writes before are words, or parts of longer ones.
    pub fn resolve_words(&mut self, pid: Pid, session: u64, call: u64, continues: bool) {
        let waiting = self.waiting.get_mut(&pid).into_iter().flatten();
        let joined = self.joined.get_mut(&pid).into_iter().flatten();
        let writes = waiting
            .map(|w| &mut w.seen)
            .chain(joined.map(|j| &mut j.seen));
        for seen in writes.filter(|s| s.session == session && s.call != call) {
            resolve_open(&mut seen.payload.hits, continues);
        }
    }

    /// A send: the TLS writes it proves to carry. `session` is false when the socket is known to carry no TLS session of
    /// this process: records on it are somebody else's.
    pub fn send(&mut self, send: &SendSeen, session: bool) -> Carries {
        let mut carries = Carries::default();
        let last = self.last(send);
        let flight = self.sockets.send(send);
        let goes_on = goes_on_with_data(send);
        carries.content = flight.as_ref().map_or(goes_on, Flight::has_content);
        let flight = flight.filter(|f| f.application() > 0);
        carries.application = flight.is_some() || goes_on;
        if let Some((call, _)) = send.tls_call {
            if let Some(seen) = flight.and_then(|_| self.nested(send, call)) {
                self.remember(&seen);
                carries.proven = self.with_inner(seen, DestinationMethod::NestedSend);
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
        if self
            .named
            .get(&(send.at.pid, send.ends.sock))
            .is_some_and(|socket| socket.has(&send.ends))
        {
            // Whatever leaves here is of the session that names it.
            carries.earlier = true;
            if let Some(seen) = self.by_socket(send, &flight) {
                carries.proven = self.with_inner(seen, DestinationMethod::ConnectionFd);
            }
            return carries;
        }
        let at_once = last.and_then(|call| self.at_once(send, &flight, call));
        let (carried, method) = if let Some(writes) = at_once {
            carries.earlier = true;
            self.at_once.insert(send.at.pid, send.at.boot_ns);
            (writes, DestinationMethod::NextSend)
        } else {
            let (writes, fits) = self.later(send, &flight);
            carries.earlier = fits;
            (writes, DestinationMethod::RecordLength)
        };
        let carried: Vec<_> = carried
            .into_iter()
            .flat_map(|seen| self.with_inner(seen, method))
            .collect();
        for (seen, method) in carried {
            self.remember(&seen);
            let joined = self.joined.entry(seen.at.pid).or_default();
            if joined.len() >= MAX_JOINED {
                self.given_up.extend(joined.pop_front().map(|j| j.seen));
            }
            joined.push_back(Joined {
                seen,
                ends: send.ends.clone(),
                method,
                sent_ns: send.at.boot_ns,
                doubted: false,
            });
        }
        carries
    }

    /// The call of the write that was the last thing the thread did before this send, if it was one, and just before.
    fn last(&mut self, send: &SendSeen) -> Option<u64> {
        let key = (send.at.pid, send.at.tid);
        let last = self.last.get_mut(&key)?;
        let sock = send.ends.sock;
        let follows = match last.sock {
            None => send.goes_on.is_none(),
            // More of the send that followed it.
            Some(followed) => send.goes_on.is_some() && followed == sock,
        };
        last.sock = Some(sock);
        let (call, since) = (last.call, send.at.boot_ns.checked_sub(last.boot_ns));
        if !follows {
            self.last.remove(&key);
        }
        (follows && since.is_some_and(|ns| ns <= AT_ONCE_NS)).then_some(call)
    }

    /// The writes of one session, up to that of `call`, that this send is exactly the encryption of. Whatever else waits
    /// may be as long: but that it was not sent when it was written, and this thread sends it now, right after another
    /// write that is not sent, takes two sockets that had no room. Then the other one follows, and speaks against this.
    fn at_once(&mut self, send: &SendSeen, flight: &Flight, call: u64) -> Option<Vec<TlsSeen>> {
        let pid = send.at.pid;
        let queue = self.waiting.get_mut(&pid)?;
        let end = queue
            .iter()
            .rposition(|w| w.seen.call == call && w.seen.socket.is_none())?;
        let session = queue[end].seen.session;
        let ciphers = self.sockets.ciphers(pid, session);
        let of_session: Vec<usize> = (0..=end)
            .filter(|&i| queue[i].seen.session == session)
            .collect();
        let first = of_session.len().saturating_sub(MAX_TOGETHER);
        let (start, distinct) = (first..of_session.len()).rev().find_map(|start| {
            let part = of_session.get(start..)?;
            let totals = |once: bool| -> Vec<u64> {
                let writes = part.iter().enumerate();
                writes
                    .filter(|(n, i)| {
                        let before = n.checked_sub(1).and_then(|n| part.get(n));
                        !once || before.is_none_or(|b| !same(&queue[*b].seen, &queue[**i].seen))
                    })
                    .map(|(_, i)| queue[*i].seen.payload.total)
                    .collect()
            };
            let exactly = |once| flight.is_exactly(&totals(once), ciphers) == Some(true);
            (exactly(true).then_some((start, false))).or(exactly(false).then_some((start, true)))
        })?;
        let out = take_out(queue, &of_session[start..], distinct);
        // What was tried before in vain, while the handshake went on or the socket had no room.
        queue.retain(|w| w.spent || !out.iter().any(|sent| same(&w.seen, sent)));
        Some(out)
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
        let cipher = cipher_of(found.payload.total, length);
        // Attempts of before that the socket had no room for.
        queue.retain(|w| w.spent || w.seen.at.boot_ns > found.at.boot_ns || !same(&w.seen, &found));
        self.sockets.carries(send, found.session, cipher);
        Some(found)
    }

    /// A write that is proven to have left, and those whose records it consists of, the outermost first.
    fn with_inner(
        &mut self,
        seen: TlsSeen,
        method: DestinationMethod,
    ) -> Vec<(TlsSeen, DestinationMethod)> {
        let mut out = vec![(seen, method)];
        while out.len() < MAX_TOGETHER
            && let Some((outer, _)) = out.last()
            && outer.record.is_some()
            && let Some(inner) = self.take_inner(outer.at.pid, outer.call)
        {
            out.push((inner.seen, method));
        }
        out
    }

    fn take_inner(&mut self, pid: Pid, outer: u64) -> Option<Waiting> {
        let queue = self.waiting.get_mut(&pid)?;
        let at = queue.iter().position(|w| w.within == Some(outer))?;
        queue.remove(at)
    }

    /// The oldest write of a session that names this send's socket, and whose encryption the send may begin.
    fn by_socket(&mut self, send: &SendSeen, flight: &Flight) -> Option<TlsSeen> {
        let queue = self.waiting.get_mut(&send.at.pid)?;
        let at = queue.iter().position(|w| {
            w.seen.socket.is_some_and(|socket| socket.has(&send.ends))
                && w.seen.at.boot_ns <= send.at.boot_ns
                && flight.may_begin(w.seen.payload.total)
        })?;
        queue.remove(at).map(|w| w.seen)
    }

    /// The writes that this send, outside of any call, is proven to be the encryption of, and whether any may be.
    fn later(&mut self, send: &SendSeen, flight: &Flight) -> (Vec<TlsSeen>, bool) {
        let pid = send.at.pid;
        let queue = self.waiting.entry(pid).or_default();
        let bound = self.sockets.session(send);
        // A socket carries one session as long as it is connected.
        let may = |w: &Waiting| {
            // What is known to leave by another socket, or by this one as another send, does not leave here.
            w.seen.at.boot_ns <= send.at.boot_ns
                && w.seen.socket.is_none()
                && w.within.is_none()
                && bound.is_none_or(|b| b == w.seen.session)
        };
        let ciphers = |session| self.sockets.ciphers(pid, session);
        let mut fitting = fitting(queue, flight, may, ciphers);
        let sock = send.ends.sock;
        let at_once = self
            .at_once
            .get(&pid)
            .is_some_and(|at| at.saturating_add(RETRY_NS) > send.at.boot_ns);
        if let [only] = &fitting[..]
            && only.proven
            && (!at_once || bound.is_some())
            && only
                .writes
                .iter()
                .all(|&i| queue[i].ambiguous == 0 && queue[i].maybe.is_at_most(sock))
        {
            let only = fitting.swap_remove(0);
            return (take_out(queue, &only.writes, only.distinct), true);
        }
        if fitting.is_empty() {
            for j in self.joined.get_mut(&pid).into_iter().flatten() {
                j.doubted |= j.ends != send.ends && flight.may_begin_with(j.seen.payload.total);
            }
        }
        for w in queue.iter_mut().filter(|w| may(w)) {
            if flight.may_carry(w.seen.payload.total) {
                w.maybe.add(sock);
                w.loose |= fitting.is_empty();
            }
        }
        spend(queue, flight, &fitting, may, ciphers);
        if let [_] = &fitting[..]
            && fitting[0]
                .writes
                .iter()
                .all(|&i| queue[i].ambiguous == 0 && queue[i].maybe.is_at_most(sock))
        {
            // It fits one session alone, and only its cipher is not known: it may be the process's only connection.
            return (Vec::new(), true);
        }
        let fits = !fitting.is_empty();
        for &i in fitting.iter().flat_map(|f| &f.writes) {
            queue[i].ambiguous += 1;
        }
        self.overdue.extend(all_gone(queue, fitting));
        (Vec::new(), fits)
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
                digest: seen.digest,
                boot_ns: seen.at.boot_ns,
            },
        );
    }

    /// Decides the writes that waited long enough (or all of one process that is going away).
    pub fn due(
        &mut self,
        boot_ns: u64,
        only: Option<Pid>,
        mut only_tls: impl FnMut(Pid) -> Option<Endpoints>,
    ) -> Decided {
        let mut ripe = self.ripe(boot_ns, only);
        self.take_along(&mut ripe);
        let given_up = std::mem::take(&mut self.given_up);
        let mut out = Decided {
            given_up: given_up.len() as u64,
            left: self.joined_due(boot_ns, only),
            unsent: Vec::new(),
        };
        out.left.extend(
            given_up
                .into_iter()
                .filter(carries)
                .map(|seen| (seen, Link::UNKNOWN)),
        );
        for w in ripe {
            self.decide(w, &mut only_tls, &mut out);
        }
        match only {
            Some(pid) => self.forget(pid),
            None => self.expire(boot_ns),
        }
        out
    }

    /// Takes the writes that waited long enough, or all of one process, in order of time.
    fn ripe(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<Waiting> {
        let mut ripe = std::mem::take(&mut self.overdue);
        let mut take = |queue: &mut VecDeque<Waiting>, all: bool| {
            let (now, later): (VecDeque<_>, _) = std::mem::take(queue)
                .into_iter()
                .partition(|w| all || w.due_ns() <= boot_ns);
            *queue = later;
            ripe.extend(now);
        };
        match only {
            Some(pid) => {
                if let Some(mut queue) = self.waiting.remove(&pid) {
                    take(&mut queue, true);
                }
            }
            None => {
                self.waiting
                    .values_mut()
                    .for_each(|queue| take(queue, false));
                self.waiting.retain(|_, queue| !queue.is_empty());
            }
        }
        ripe.sort_by_key(|w| (w.seen.at.boot_ns, w.seen.call));
        ripe
    }

    /// What a write holds of another session has left as far as it has itself.
    fn take_along(&mut self, ripe: &mut [Waiting]) {
        let mut fates = Fates::new();
        // The outer one is given after the inner one.
        for w in ripe.iter_mut().rev() {
            follow(w, &fates);
            if w.seen.record.is_some() {
                let fate = (w.maybe, w.ambiguous, w.left, w.gone);
                fates.insert((w.seen.at.pid, w.seen.call), fate);
            }
        }
        let pids: BTreeSet<Pid> = fates.keys().map(|(pid, _)| *pid).collect();
        for pid in pids {
            for w in self.waiting.get_mut(&pid).into_iter().flatten() {
                follow(w, &fates);
            }
        }
    }

    /// What became of a write for which no send was proven.
    fn decide(
        &self,
        w: Waiting,
        only_tls: &mut impl FnMut(Pid) -> Option<Endpoints>,
        out: &mut Decided,
    ) {
        // Nothing left after it, and the same bytes had left before: the library was called once more than needed.
        let again = w.maybe == Maybe::Nobody && self.is_retry(&w.seen);
        if !carries(&w.seen) || w.is_attempt() || again {
            return;
        }
        if w.maybe == Maybe::Nobody && w.ambiguous == 0 && !w.left {
            let why = w.within.map_or(Unsent::Nothing, |_| Unsent::Inside);
            return out.unsent.push((w.seen, why));
        }
        let ends = only_tls(w.seen.at.pid)
            .filter(|ends| w.ambiguous == 0 && w.maybe == Maybe::Only(ends.sock));
        let link = match ends {
            Some(ends) => Link {
                ends: Some(ends),
                method: DestinationMethod::SingleSocket,
            },
            // What may have carried it was another session's: its own may still be greeting.
            None if !w.gone && !w.left && self.sockets.is_greeting(&w.seen) => {
                return out.unsent.push((w.seen, Unsent::Handshake));
            }
            None => Link::UNKNOWN,
        };
        out.left.push((w.seen, link));
    }

    /// A process may execute another program, or end.
    fn forget(&mut self, pid: Pid) {
        let sessions: Vec<_> = self
            .resolved
            .range((pid, 0)..=(pid, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for session in sessions {
            self.resolved.remove(&session);
        }
        self.sockets.forget(pid);
        self.named.retain(|(of, _), _| *of != pid);
        self.last.retain(|(of, _), _| *of != pid);
        self.at_once.remove(&pid);
    }

    fn expire(&mut self, boot_ns: u64) {
        let fresh = |at: u64| at.saturating_add(RETRY_NS) > boot_ns;
        self.resolved.retain(|_, r| fresh(r.boot_ns));
        self.last.retain(|_, last| fresh(last.boot_ns));
        self.at_once.retain(|_, at| fresh(*at));
        self.sockets.expire(boot_ns);
    }

    fn joined_due(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<(TlsSeen, Link)> {
        let mut ripe = Vec::new();
        if let Some(pid) = only {
            ripe.extend(self.joined.remove(&pid).into_iter().flatten());
        } else {
            for joined in self.joined.values_mut() {
                while joined
                    .front()
                    .is_some_and(|j| j.sent_ns.saturating_add(WAIT_NS) <= boot_ns)
                    && let Some(j) = joined.pop_front()
                {
                    ripe.push(j);
                }
            }
            self.joined.retain(|_, joined| !joined.is_empty());
        }
        let mut out = Vec::new();
        for j in ripe {
            let link = if j.doubted {
                Link::UNKNOWN
            } else {
                self.sockets
                    .proven(j.seen.at.pid, &j.ends, j.seen.session, j.sent_ns);
                Link {
                    ends: Some(j.ends),
                    method: j.method,
                }
            };
            // One without any counts: it is known how much of the connection was inspected.
            out.push((j.seen, link));
        }
        out
    }

    /// The same bytes handed over again because the socket was full: they were reported already.
    fn is_retry(&self, seen: &TlsSeen) -> bool {
        let before = self.resolved.get(&(seen.at.pid, seen.session));
        !seen.once
            && before.is_some_and(|r| {
                let unlike = || !fingerprints(seen).iter().eq(&r.fingerprints);
                r.total == seen.payload.total && !differ(r.digest, seen.digest, unlike)
            })
    }
}
