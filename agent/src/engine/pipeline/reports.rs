//! What the background has reported, until what came before it has been taken in.

use keytrail_ingest::background::Report;
use std::collections::VecDeque;

/// Reports that may wait here; more wait where they come from.
const MOST: usize = 256;
/// How long a report waits at most for what its writer did before, nanoseconds: longer than a file may take to be inspected
/// (`inspect_timeout_ms`, as it is without a configuration). Who wrote it is not said after that.
const WAITS_NS: u64 = 1_250_000_000;

/// In the order in which they came, each with the time at which it did: one that waits holds up those behind it, so that a
/// file that is gone does not come back.
#[derive(Default)]
pub(super) struct Reports(VecDeque<(u64, Report)>);

impl Reports {
    pub fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    pub fn push(&mut self, report: Report, now_ns: u64) {
        self.0.push_back((now_ns, report));
    }

    /// The next one, unless records of its writer wait for a file to be inspected: one of them may say what program it runs.
    pub fn next(&mut self, now_ns: u64, waits: impl Fn(u32) -> bool) -> Option<Report> {
        let (came_ns, report) = self.0.front()?;
        let early = now_ns < came_ns + WAITS_NS;
        if early && report.writer().is_some_and(waits) {
            return None;
        }
        self.0.pop_front().map(|(_, report)| report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_ingest::background::Persistence;
    use keytrail_model::FileFacts;

    fn of(writer: u32) -> Report {
        Report::Persistence(Box::new(Persistence {
            file: FileFacts::default(),
            link: String::new(),
            technique: "T1098.004",
            writer,
            boot_ns: 0,
        }))
    }

    #[test]
    fn a_report_waits_for_its_writer_and_not_for_long() {
        let mut reports = Reports::default();
        for writer in [7, 8, 0] {
            reports.push(of(writer), 1_000);
        }
        let waits = |writer| writer == 7;
        assert!(reports.next(2_000, waits).is_none());
        // Whoever writes the next: it does not come before.
        assert!(reports.next(1_000 + WAITS_NS - 1, waits).is_none());
        let writers: Vec<_> = std::iter::from_fn(|| reports.next(1_000 + WAITS_NS, waits))
            .map(|report| report.writer())
            .collect();
        assert_eq!(writers, [Some(7), Some(8), None]);
    }

    #[test]
    fn nobody_is_waited_for_who_is_not_known() {
        let mut reports = Reports::default();
        reports.push(of(0), 1_000);
        reports.push(of(8), 1_000);
        assert!(reports.next(1_000, |writer| writer == 0).is_some());
        assert!(reports.next(1_000, |writer| writer == 7).is_some());
        assert!(reports.next(1_000, |_| true).is_none());
    }
}
