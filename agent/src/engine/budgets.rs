//! Payloads that were passed over because a budget was used up: reported by process, and less and less often. A busy server
//! is beyond its budget all day long.

use keytrail_sensor::{Limit, PassedOver};
use std::collections::BTreeMap;

/// Between the first and the second telling of a process; from then on each interval is longer.
const FIRST_NS: u64 = 10_000_000_000;
const LONGER: u64 = 6;
/// What was passed over and is not reported yet is not known to who asks about the past.
const LONGEST_NS: u64 = 300_000_000_000;
/// Processes and limits remembered; what finds no room is reported under process 0.
const MAX: usize = 4_096;

/// What is to be reported about one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetReport {
    /// 0: of processes that found no room in the table.
    pub tgid: u32,
    pub limit: Limit,
    pub payloads: u64,
    pub bytes: u64,
    /// When the first of them was counted, nanoseconds since boot.
    pub since_ns: u64,
}

#[derive(Default)]
struct Waiting {
    since_ns: u64,
    payloads: u64,
    bytes: u64,
    due_ns: u64,
    interval_ns: u64,
}

#[derive(Default)]
pub struct Budgets(BTreeMap<(u32, Limit), Waiting>);

impl Budgets {
    /// `now`: nanoseconds since boot.
    pub fn add(&mut self, passed: &PassedOver, now: u64) {
        let key = (passed.tgid, passed.limit);
        let key = if self.0.len() < MAX || self.0.contains_key(&key) {
            key
        } else {
            (0, passed.limit)
        };
        let waiting = self.0.entry(key).or_default();
        if waiting.payloads == 0 {
            waiting.since_ns = now;
        }
        waiting.payloads += passed.payloads;
        waiting.bytes += passed.bytes;
    }

    /// What is due to be reported.
    pub fn due(&mut self, now: u64) -> Vec<BudgetReport> {
        let mut reported = Vec::new();
        for (&(tgid, limit), waiting) in &mut self.0 {
            if waiting.payloads == 0 || waiting.due_ns > now {
                continue;
            }
            reported.push(BudgetReport {
                tgid,
                limit,
                payloads: std::mem::take(&mut waiting.payloads),
                bytes: std::mem::take(&mut waiting.bytes),
                since_ns: waiting.since_ns,
            });
            let longer = waiting.interval_ns.saturating_mul(LONGER);
            waiting.interval_ns = longer.clamp(FIRST_NS, LONGEST_NS);
            waiting.due_ns = now.saturating_add(waiting.interval_ns);
        }
        // Nothing more came of these for as long as anybody would wait for it.
        self.0.retain(|_, waiting| {
            waiting.payloads != 0 || waiting.due_ns.saturating_add(LONGEST_NS) > now
        });
        reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(tgid: u32, payloads: u64) -> PassedOver {
        PassedOver {
            tgid,
            limit: Limit::Answers,
            payloads,
            bytes: payloads * 10,
        }
    }

    #[test]
    fn reported_at_once_and_then_less_and_less_often() {
        let mut budgets = Budgets::default();
        let mut reported = Vec::new();
        for second in 0..1_000u64 {
            budgets.add(&passed(7, 5), second * 1_000_000_000);
            for reported_now in budgets.due(second * 1_000_000_000) {
                reported.push((
                    second,
                    reported_now.payloads,
                    reported_now.since_ns / 1_000_000_000,
                ));
            }
        }
        let expected = [
            (0, 5, 0),
            (10, 50, 1),
            (70, 300, 11),
            (370, 1_500, 71),
            (670, 1_500, 371),
            (970, 1_500, 671),
        ];
        assert_eq!(reported, expected);
        // At the end nothing is kept back.
        let rest: u64 = budgets.due(u64::MAX).iter().map(|t| t.payloads).sum();
        assert_eq!(rest, 1_000 * 5 - 4_855);
    }

    #[test]
    fn processes_without_end_need_no_memory_without_end() {
        let mut budgets = Budgets::default();
        for tgid in 1..=10_000 {
            budgets.add(&passed(tgid, 1), 0);
        }
        let reported = budgets.due(0);
        assert_eq!(reported.len(), MAX + 1);
        assert_eq!(reported.iter().map(|t| t.payloads).sum::<u64>(), 10_000);
        assert_eq!(budgets.due(u64::MAX), []);
        assert!(budgets.0.is_empty());
    }
}
