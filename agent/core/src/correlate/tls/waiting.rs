//! Writes that wait for a send, and which of them one may carry.

use super::records::{Ciphers, Flight};
use super::writes::same;
use keytrail_model::TlsSeen;
use std::collections::VecDeque;

/// How long a TLS write waits for proof when something left that may have carried it.
pub const WAIT_NS: u64 = 500_000_000;
/// How long when nothing did: a write that began a handshake leaves after it, as another call.
pub const PATIENCE_NS: u64 = 5_000_000_000;

/// Writes of one session that are tried together against one send.
pub const MAX_TOGETHER: usize = 16;

/// Sockets whose sends may have carried a write, without proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maybe {
    Nobody,
    Only(u64),
    Several,
}

impl Maybe {
    pub fn add(&mut self, sock: u64) {
        *self = match *self {
            Self::Nobody => Self::Only(sock),
            Self::Only(one) if one == sock => Self::Only(one),
            _ => Self::Several,
        };
    }

    /// Whether nobody else may have.
    pub fn is_at_most(self, sock: u64) -> bool {
        self == Self::Nobody || self == Self::Only(sock)
    }
}

/// A TLS write whose socket is not known yet.
#[derive(Debug)]
pub struct Waiting {
    pub seen: TlsSeen,
    pub maybe: Maybe,
    /// Sends that fitted it and another session's write alike.
    pub ambiguous: usize,
    /// All sends it may have left by were as many as the writes they fitted: it has left.
    pub gone: bool,
    /// The session was given the same bytes again before this left: as far as we know, another attempt at it.
    pub superseded: bool,
    /// Something left in its call that does not prove to be it.
    pub left: bool,
    /// A send that is as long as it left, which is no other write's as far as we know.
    pub spent: bool,
    /// What was given before it, the same bytes, is `spent`.
    pub follows_spent: bool,
    /// Something left that it may have been a part of, as long as no write is.
    pub loose: bool,
    /// The call by which its encryption was given to another session.
    pub within: Option<u64>,
}

impl Waiting {
    /// The library was given these bytes once more than they left: of several attempts one is reported. An attempt after which as
    /// much left is a write of its own.
    pub fn is_attempt(&self) -> bool {
        let reported_before = self.follows_spent && !self.loose;
        !self.spent && (self.superseded || reported_before)
    }

    pub fn due_ns(&self) -> u64 {
        let wait = if self.maybe == Maybe::Nobody {
            PATIENCE_NS
        } else {
            WAIT_NS
        };
        self.seen.at.boot_ns.saturating_add(wait)
    }
}

/// Writes of one session that a send is exactly the encryption of.
pub struct Carried {
    /// Indices in the queue, oldest first.
    pub writes: Vec<usize>,
    /// Equal ones among them are writes of their own, not attempts at one.
    pub distinct: bool,
    /// The connection's cipher is known: no other length is possible.
    pub proven: bool,
}

/// What a send may be the encryption of: for each session whose first write has the right length, its writes that `may` have
/// left by it.
pub fn fitting(
    queue: &VecDeque<Waiting>,
    flight: &Flight,
    may: impl Fn(&Waiting) -> bool,
    ciphers: impl Fn(u64) -> Ciphers,
) -> Vec<Carried> {
    let mut fitting = Vec::new();
    for (i, w) in queue.iter().enumerate().filter(|(_, w)| may(w)) {
        // Few writes have the right length; of those that have, the first of its session counts.
        let session = w.seen.session;
        let is_of = |w: &Waiting| w.seen.session == session;
        if flight.may_begin_with(w.seen.payload.total) && !queue.iter().take(i).any(is_of) {
            let writes: Vec<usize> = queue
                .iter()
                .enumerate()
                .filter(|(_, w)| is_of(w) && may(w))
                .map(|(i, _)| i)
                .collect();
            fitting.extend(carried(queue, &writes, flight, ciphers(session)));
        }
    }
    fitting
}

/// Takes the writes of all these sessions out of the queue once as many sends as there are sessions may have carried them: all
/// have left, and which by which will never be known.
pub fn all_gone(queue: &mut VecDeque<Waiting>, fitting: Vec<Carried>) -> Vec<Waiting> {
    let sends = |f: &Carried| f.writes.iter().map(|&i| queue[i].ambiguous).max();
    if !fitting.iter().all(|f| sends(f) >= Some(fitting.len())) {
        return Vec::new();
    }
    let mut left: Vec<usize> = fitting.into_iter().flat_map(|f| f.writes).collect();
    left.sort_unstable();
    let taken = left.into_iter().rev().filter_map(|i| queue.remove(i));
    taken.map(|w| Waiting { gone: true, ..w }).collect()
}

/// Takes these writes, oldest first, out of the queue. Unless equal ones are `distinct`, the latest of several attempts is the
/// one that is kept.
pub fn take_out(queue: &mut VecDeque<Waiting>, writes: &[usize], distinct: bool) -> Vec<TlsSeen> {
    let mut out: Vec<TlsSeen> = Vec::new();
    for &i in writes.iter().rev() {
        let Some(w) = queue.get(i) else {
            continue;
        };
        if distinct || out.last().is_none_or(|later| !same(&w.seen, later)) {
            out.extend(queue.remove(i).map(|w| w.seen));
        } else if !w.spent {
            // Another attempt. What left before, by a send that proved nothing, stays and is reported.
            queue.remove(i);
        }
    }
    out.reverse();
    out
}

/// How many of a session's writes, from the oldest on, `flight` is exactly the encryption of. A write that is repeated
/// may be a second one or an attempt at the first.
pub fn carried(
    queue: &VecDeque<Waiting>,
    writes: &[usize],
    flight: &Flight,
    ciphers: Ciphers,
) -> Option<Carried> {
    let mut totals: Vec<u64> = Vec::new();
    let mut once: Vec<u64> = Vec::new();
    for n in 1..=writes.len().min(MAX_TOGETHER) {
        let seen = &queue[writes[n - 1]].seen;
        totals.push(seen.payload.total);
        if n == 1 || !same(&queue[writes[n - 2]].seen, seen) {
            once.push(seen.payload.total);
        }
        let attempts = flight.is_exactly(&once, ciphers);
        if let Some(proven) = attempts.or_else(|| flight.is_exactly(&totals, ciphers)) {
            // What was tried again in vain before this send belongs to it.
            let more = writes[n..]
                .iter()
                .take_while(|i| same(&queue[**i].seen, seen))
                .count();
            return Some(Carried {
                writes: writes[..n + more].to_vec(),
                distinct: attempts.is_none(),
                proven,
            });
        }
    }
    None
}

/// Notes which write a send that proves nothing is as long as: one write, so that as many are reported as left. Those that were not
/// given again come first: attempts in vain come before what left.
pub fn spend(
    queue: &mut VecDeque<Waiting>,
    flight: &Flight,
    fitting: &[Carried],
    may: impl Fn(&Waiting) -> bool,
    ciphers: impl Fn(u64) -> Ciphers,
) {
    if fitting.is_empty() {
        return;
    }
    let fits = |w: &&mut Waiting| {
        let exactly = || flight.is_exactly(&[w.seen.payload.total], ciphers(w.seen.session));
        !w.spent && may(w) && exactly().is_some()
    };
    let mut alone: Vec<&mut Waiting> = queue.iter_mut().filter(fits).collect();
    let first = alone.iter().position(|w| !w.superseded).unwrap_or(0);
    if let Some(w) = alone.get_mut(first) {
        w.spent = true;
        return;
    }
    // Several writes together.
    for &i in fitting.iter().take(1).flat_map(|f| &f.writes) {
        if let Some(w) = queue.get_mut(i).filter(|w| !w.superseded) {
            w.spent = true;
        }
    }
}
