//! By which socket a session seems to send, where the connection is older than what was seen of it, so that its cipher is not
//! known: one send of fitting length may be another session's, whose own had no room. Two in a row that agree are proof.

use super::records::Ciphers;
use keytrail_model::{Ends, Pid};
use std::collections::BTreeMap;

/// Sessions remembered; beyond it the first go, and have to begin anew.
const MAX_GUESSES: usize = 8_192;
/// How long one send speaks for the next.
const FRESH_NS: u64 = 5_000_000_000;
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
}

#[derive(Debug, Default)]
pub struct Guesses(BTreeMap<(Pid, u64), Guess>);

impl Guesses {
    /// Notes a guess of a session; the write of the one before, when that was the same.
    pub fn again(&mut self, session: (Pid, u64), guess: Guess) -> Option<u64> {
        if self.0.len() >= MAX_GUESSES && !self.0.contains_key(&session) {
            self.0.pop_first();
        }
        let (ends, cipher, now) = (guess.ends.clone(), guess.cipher, guess.boot_ns);
        let before = self.0.insert(session, guess)?;
        let fresh = before.boot_ns.saturating_add(FRESH_NS) > now;
        (fresh && before.ends == ends && before.cipher == cipher).then_some(before.call)
    }

    pub fn forget(&mut self, pid: Pid) {
        self.0.retain(|(of, _), _| *of != pid);
    }

    pub fn expire(&mut self, boot_ns: u64) {
        self.0
            .retain(|_, guess| guess.boot_ns.saturating_add(FRESH_NS) > boot_ns);
    }
}
