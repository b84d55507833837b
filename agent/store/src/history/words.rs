//! The numbers that stand for words in the table of uses.

use keytrail_model::Channel;

/// What was done with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    Read = 1,
    Held = 2,
    Sent = 3,
}

impl Act {
    pub const ALL: [Act; 3] = [Act::Read, Act::Held, Act::Sent];

    /// What an event of this kind does with its credential; `None` where it does nothing that counts.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Act> {
        match kind {
            // Out of a process, or from a service, instead of a file.
            "credential_read" | "credential_taken" | "credential_received" => Some(Act::Read),
            "credential_exposed" => Some(Act::Held),
            "credential_sent" => Some(Act::Sent),
            _ => None,
        }
    }

    /// Its number in the schema.
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }

    #[must_use]
    pub fn of_number(number: i32) -> Option<Act> {
        Act::ALL.into_iter().find(|act| act.number() == number)
    }
}

const GRADES: [&str; 4] = ["", "observed", "identified", "lineage"];
pub(crate) const LINEAGE: i64 = 3;

fn number(words: &[&str], word: &str) -> i64 {
    words.iter().position(|w| *w == word).unwrap_or(0) as i64
}

fn word(words: &[&'static str], number: i64) -> &'static str {
    usize::try_from(number)
        .ok()
        .and_then(|n| words.get(n))
        .copied()
        .unwrap_or("")
}

pub(crate) fn grade(text: &str) -> i64 {
    number(&GRADES, text)
}

pub(crate) fn grade_word(number: i64) -> &'static str {
    word(&GRADES, number)
}

pub(crate) fn channel(text: &str) -> i64 {
    Channel::of_word(text).map_or(0, |channel| channel.number().into())
}

pub(crate) fn channel_word(number: i64) -> &'static str {
    i32::try_from(number).map_or("", Channel::word_of)
}
