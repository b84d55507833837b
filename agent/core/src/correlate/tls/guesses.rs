//! By which socket a session seems to send, where the connection is older than what was seen of it, so that its cipher is not
//! known: one send of fitting length may be what another session kept, while its own socket had no room. Two writes in a row that
//! agree are proof, as long as the process is not known to keep anything.

use super::records::Ciphers;
use keytrail_model::{Ends, Pid};
use std::collections::BTreeMap;

/// Sessions remembered; beyond it the first go, and have to begin anew.
const MAX_GUESSES: usize = 8_192;
/// How long one send speaks for the next.
const FRESH_NS: u64 = 5_000_000_000;
/// How long a write of which nothing was seen to leave may be kept.
const KEPT_NS: u64 = 60_000_000_000;
/// Bytes of a write that says something: many are as short.
pub const LEAST: u64 = 32;

/// What one write and the send behind it let guess.
#[derive(Clone, Debug)]
pub struct Guess {
    pub ends: Ends,
    pub cipher: Ciphers,
    /// The write.
    pub call: u64,
    pub boot_ns: u64,
    /// Writes of the session since.
    pub since: u32,
}

#[derive(Debug, Default)]
pub struct Guesses {
    guesses: BTreeMap<(Pid, u64), Guess>,
    /// When a process was last given up a write of which nothing was seen to leave: it may still be kept, and leave later.
    kept: BTreeMap<Pid, u64>,
}

impl Guesses {
    /// Notes a guess of a session; the write of the one before, when that was the same.
    pub fn again(&mut self, session: (Pid, u64), guess: Guess) -> Option<u64> {
        let guesses = &mut self.guesses;
        if guesses.len() >= MAX_GUESSES && !guesses.contains_key(&session) {
            guesses.pop_first();
        }
        let (ends, cipher, now) = (guess.ends.clone(), guess.cipher, guess.boot_ns);
        let before = guesses.insert(session, guess)?;
        let kept = self.kept.get(&session.0);
        if before.since != 1 || kept.is_some_and(|at| at.saturating_add(KEPT_NS) > now) {
            return None;
        }
        let fresh = before.boot_ns.saturating_add(FRESH_NS) > now;
        (fresh && before.ends == ends && before.cipher == cipher).then_some(before.call)
    }

    pub fn forget(&mut self, pid: Pid) {
        self.guesses.retain(|(of, _), _| *of != pid);
        self.kept.remove(&pid);
    }

    /// A session was given more: what it keeps leaves in that order, so one that was not sent lies before the next.
    pub fn written(&mut self, session: (Pid, u64)) {
        if let Some(guess) = self.guesses.get_mut(&session) {
            guess.since = guess.since.saturating_add(1);
        }
    }

    /// Nothing was seen to leave for a write of this process.
    pub fn keeps(&mut self, pid: Pid, boot_ns: u64) {
        if self.kept.len() >= MAX_GUESSES && !self.kept.contains_key(&pid) {
            self.kept.pop_first();
        }
        self.kept.insert(pid, boot_ns);
    }

    pub fn expire(&mut self, boot_ns: u64) {
        self.guesses
            .retain(|_, guess| guess.boot_ns.saturating_add(FRESH_NS) > boot_ns);
        self.kept
            .retain(|_, at| at.saturating_add(KEPT_NS) > boot_ns);
    }
}
