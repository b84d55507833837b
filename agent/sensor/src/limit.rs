//! The limits of what is captured, by the kernel side's numbers.

use keytrail_abi::passed;

/// Which limit payloads reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    Answers,
    Keys,
    Process,
    Connection,
    Writes,
}

impl Limit {
    /// In the order of the kernel side's numbers.
    pub const ALL: [Self; passed::COUNT] = [
        Self::Answers,
        Self::Keys,
        Self::Process,
        Self::Connection,
        Self::Writes,
    ];

    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Keys => "keys",
            Self::Process => "process",
            Self::Connection => "connection",
            Self::Writes => "write",
        }
    }
}

const _: () = assert!(
    Limit::ALL[passed::ANSWERS] as usize == Limit::Answers as usize
        && Limit::ALL[passed::KEYS] as usize == Limit::Keys as usize
        && Limit::ALL[passed::PROCESS] as usize == Limit::Process as usize
        && Limit::ALL[passed::CONNECTION] as usize == Limit::Connection as usize
        && Limit::ALL[passed::WRITES] as usize == Limit::Writes as usize
);
