//! How much of what processes send is captured, and what was passed over beyond it.

use super::{limit::Limit, maps::Maps};
use keytrail_abi::Budget;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Bytes a second that are captured; beyond them payloads are passed over and counted. 0 captures nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of what a process answers on connections it accepted.
    pub answers: u32,
    /// The same of a process that holds nothing but keys which never travel by themselves.
    pub keys: u32,
    /// Of everything else a process sends.
    pub process: u32,
    /// Of one of its connections.
    pub connection: u32,
    /// Of what a process writes to files, pipes and terminals.
    pub writes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answers: 1 << 20,
            keys: 64 << 10,
            process: 64 << 20,
            connection: 32 << 20,
            writes: 1 << 20,
        }
    }
}

/// Payloads of one process that were passed over, since they were last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub tgid: u32,
    pub limit: Limit,
    pub payloads: u64,
    pub bytes: u64,
}

/// What was reported about which process.
#[derive(Debug, Default)]
pub struct Passed {
    /// Sends and TLS writes passed over on the whole host, as last read.
    total: u64,
    reported: HashMap<u32, Budget>,
    asked: Option<Instant>,
}

impl Passed {
    /// The table is read one entry at a time: not at every look for losses.
    const INTERVAL: Duration = Duration::from_secs(2);

    /// What was passed over since the last call, by process. Empty most of the time without an inspection of the table.
    pub fn news(&mut self, maps: &Maps) -> Vec<PassedOver> {
        if self
            .asked
            .is_some_and(|asked| asked.elapsed() < Self::INTERVAL)
        {
            return Vec::new();
        }
        self.asked = Some(Instant::now());
        let total = maps.passed_over().iter().map(|passed| passed.count).sum();
        if total == self.total {
            return Vec::new();
        }
        self.total = total;
        self.compare(maps.budgets())
    }

    fn compare(&mut self, now: Vec<(u32, Budget)>) -> Vec<PassedOver> {
        let mut reported = HashMap::with_capacity(now.len());
        let mut news = Vec::new();
        for (tgid, budget) in now {
            let before = self.reported.get(&tgid).copied().unwrap_or_default();
            for (place, limit) in Limit::ALL.into_iter().enumerate() {
                // A number that fell is another process's, under the same number.
                let since = |now: u64, before: u64| if now < before { now } else { now - before };
                let payloads = since(budget.passed[place], before.passed[place]);
                if payloads != 0 {
                    news.push(PassedOver {
                        tgid,
                        limit,
                        payloads,
                        bytes: since(budget.bytes[place], before.bytes[place]),
                    });
                }
            }
            reported.insert(tgid, budget);
        }
        self.reported = reported;
        news.sort_by_key(|passed| (passed.tgid, passed.limit));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_reported() {
        let mut passed = Passed::default();
        let budget = |answers: u64, process: u64| Budget {
            passed: [answers, 0, process, 0, 0],
            bytes: [answers * 100, 0, process * 10, 0, 0],
            ..Budget::default()
        };
        assert_eq!(passed.compare(vec![(5, budget(0, 0))]), []);
        let answers = |payloads, bytes| PassedOver {
            tgid: 5,
            limit: Limit::Answers,
            payloads,
            bytes,
        };
        assert_eq!(passed.compare(vec![(5, budget(7, 0))]), [answers(7, 700)]);
        assert_eq!(passed.compare(vec![(5, budget(7, 0))]), []);
        assert_eq!(
            passed.compare(vec![(5, budget(8, 2))]),
            [
                answers(1, 100),
                PassedOver {
                    tgid: 5,
                    limit: Limit::Process,
                    payloads: 2,
                    bytes: 20
                }
            ]
        );
        // Another process of the same number.
        assert_eq!(passed.compare(vec![(5, budget(3, 0))]), [answers(3, 300)]);
    }
}
