//! The first line of `keytrail doctor`: is all well?

use super::{exit, status};
use crate::output::describe::counted as counted_as;
use crate::output::escape;
use keytrail_export::Target;
use keytrail_model::GapReason;
use keytrail_proto::v1::GetStatusResponse;

/// Reasons that the first line names one by one.
const NAMED: usize = 4;

/// The answer, and the exit status that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What has to be done something about.
    pub problems: Vec<String>,
    /// What is to be known and harms nothing, or is over.
    pub remarks: Vec<String>,
    pub status: u8,
}

impl Verdict {
    /// `absent`: where no agent answered, and the answer is what was tried instead.
    pub fn of(answer: &GetStatusResponse, absent: Option<&Target>) -> Verdict {
        let mut problems = Vec::new();
        let mut status = exit::OK;
        if let Some(address) = absent {
            problems.push(format!("no agent answers on {address}"));
            status = exit::NO_AGENT;
        }
        let unserved = status::unserved(answer);
        if !unserved.is_empty() {
            problems.push(format!("no hook for {}", unserved.join(", ")));
        }
        let silent: Vec<_> = answer
            .signals
            .iter()
            .filter(|s| s.self_test.starts_with("did not fire"))
            .map(|s| escape(&s.hook).into_owned())
            .collect();
        if !silent.is_empty() {
            problems.push(format!(
                "did not fire when it was tried: {}",
                silent.join(", ")
            ));
        }
        if !answer.unproven_offsets.is_empty() {
            problems.push(format!(
                "{} not proven",
                counted(
                    answer.unproven_offsets.len() as u64,
                    "field of this kernel",
                    "fields of this kernel"
                )
            ));
        }
        for sink in answer.sinks.iter().filter(|s| !s.error.is_empty()) {
            let kind = if sink.response { "response" } else { "sink" };
            problems.push(format!("the {kind} {} fails", escape(&sink.name)));
        }
        let (records, _) = lost(answer);
        if records > 0 {
            let them = was(records, "record", "records");
            problems.push(format!("{them} lost since the agent started"));
        }
        if let Some(missed) = gaps(answer, true) {
            problems.push(format!("not seen since the agent started: {missed}"));
        }
        if status == exit::OK && !problems.is_empty() {
            status = exit::FAILED;
        }
        Verdict {
            problems,
            remarks: remarks(answer),
            status,
        }
    }

    /// What is beyond the agent's reach counts as not well, too.
    pub fn strict(mut self) -> Verdict {
        self.problems.append(&mut self.remarks);
        if self.status == exit::OK && !self.problems.is_empty() {
            self.status = exit::FAILED;
        }
        self
    }

    /// One line.
    pub fn line(&self) -> String {
        let remarks = self.remarks.join("; ");
        match (self.problems.is_empty(), self.remarks.is_empty()) {
            (true, true) => "All is well.".to_owned(),
            (true, false) => format!("Well, within limits: {remarks}."),
            (false, _) => {
                let mut line = format!("NOT WELL: {}.", self.problems.join("; "));
                if !remarks.is_empty() {
                    line.push_str(&format!(" To be known: {remarks}."));
                }
                line
            }
        }
    }
}

/// Records that found no room, and payloads that a budget passed over.
fn lost(answer: &GetStatusResponse) -> (u64, u64) {
    let counts = answer.counters.iter().flat_map(|c| &c.lost);
    counts.fold((0, 0), |(records, payloads), (kind, count)| {
        if kind.ends_with("_budget") {
            (records, payloads + count)
        } else {
            (records + count, payloads)
        }
    })
}

fn remarks(answer: &GetStatusResponse) -> Vec<String> {
    let mut remarks = Vec::new();
    let left_out: u64 = answer.sinks.iter().map(|s| s.left_out).sum();
    if left_out > 0 {
        remarks.push(format!(
            "{left_out} events were not delivered to sinks and will not be"
        ));
    }
    let uncovered = answer.libraries.iter().filter(|l| !l.covered).count();
    if uncovered > 0 {
        let libraries = counted(uncovered as u64, "TLS library", "TLS libraries");
        remarks.push(format!("{libraries} not covered"));
    }
    let (_, payloads) = lost(answer);
    if payloads > 0 {
        let them = was(payloads, "payload", "payloads");
        remarks.push(format!("{them} not inspected, beyond a budget"));
    }
    let served = answer.signals.iter().filter(|s| !s.hook.is_empty());
    let refused: usize = served.map(|s| s.refused.len()).sum();
    match refused {
        0 => {}
        1 => remarks.push("1 hook was refused, and another serves its signal".to_owned()),
        n => remarks.push(format!(
            "{n} hooks were refused, and others serve their signals"
        )),
    }
    if let Some(missed) = gaps(answer, false) {
        remarks.push(format!("not seen since the agent started: {missed}"));
    }
    remarks
}

/// The gaps since the start: those by which something was lost, or those of what is out of reach. What a reason of its own
/// says already (records lost, libraries) is not said twice.
fn gaps(answer: &GetStatusResponse, losses: bool) -> Option<String> {
    let counters = answer.counters.as_ref()?;
    let mut gaps: Vec<(&str, u64)> = counters
        .gaps
        .iter()
        .filter(|(word, count)| {
            let reason = GapReason::of_word(word);
            let said = match reason {
                Some(GapReason::RecordsLost) => lost(answer).0 > 0,
                Some(GapReason::BudgetUsed) => lost(answer).1 > 0,
                Some(GapReason::LibraryNotCovered) => answer.libraries.iter().any(|l| !l.covered),
                Some(GapReason::HookRefused) => !status::unserved(answer).is_empty(),
                Some(GapReason::Offsets) => !answer.unproven_offsets.is_empty(),
                _ => false,
            };
            // What this program does not know may be anything.
            **count > 0 && !said && reason.is_none_or(GapReason::is_loss) == losses
        })
        .map(|(word, count)| (word.as_str(), *count))
        .collect();
    if gaps.is_empty() {
        return None;
    }
    gaps.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut named: Vec<String> = gaps
        .iter()
        .take(NAMED)
        .map(|(word, count)| format!("{} ({})", escape(word), counted_as(word, *count)))
        .collect();
    if gaps.len() > NAMED {
        named.push(format!("{} more", gaps.len() - NAMED));
    }
    Some(named.join(", "))
}

fn counted(n: u64, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one} is"),
        n => format!("{n} {many} are"),
    }
}

fn was(n: u64, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one} was"),
        n => format!("{n} {many} were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::Signal;
    use keytrail_proto::v1::{Counters, LibraryStatus, RefusedHook, SignalStatus, SinkStatus};

    fn whole() -> GetStatusResponse {
        let signals = Signal::MISSION.into_iter().map(|signal| SignalStatus {
            signal: signal.number(),
            hook: "raw_tp:x".into(),
            self_test: "fired".into(),
            ..Default::default()
        });
        GetStatusResponse {
            signals: signals.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn well_is_said_and_so_is_what_is_not() {
        let verdict = Verdict::of(&whole(), None);
        assert_eq!(
            (verdict.line().as_str(), verdict.status),
            ("All is well.", 0)
        );
        let mut remarkable = whole();
        remarkable.libraries.push(LibraryStatus::default());
        remarkable.signals[1].refused = vec![RefusedHook::default(); 2];
        let verdict = Verdict::of(&remarkable, None);
        assert_eq!(verdict.status, 0);
        assert_eq!(
            verdict.line(),
            "Well, within limits: 1 TLS library is not covered; 2 hooks were refused, and others serve their signals."
        );
        let strict = verdict.strict();
        assert_eq!(strict.status, 1);
        assert!(strict.line().starts_with("NOT WELL: 1 TLS library"));
        assert_eq!(Verdict::of(&whole(), None).strict().status, 0);
    }

    fn counters(lost: &[(&str, u64)], gaps: &[(&str, u64)]) -> Option<Counters> {
        let map =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
        Some(Counters {
            lost: map(lost),
            gaps: map(gaps),
            ..Default::default()
        })
    }

    #[test]
    fn what_was_lost_is_not_well_and_what_is_out_of_reach_is_said() {
        let mut losing = whole();
        losing.counters = counters(&[("exec", 3)], &[("records_lost", 3), ("backfill", 40)]);
        let verdict = Verdict::of(&losing, None);
        assert_eq!(verdict.status, 1);
        assert_eq!(
            verdict.line(),
            "NOT WELL: 3 records were lost since the agent started. To be known: not seen since the agent started: \
             backfill (40 processes)."
        );
        // Each reason by which something was lost is one, without lost records too.
        let reasons = GapReason::ALL.iter().copied().filter(|r| r.is_loss());
        let mut seen = 0;
        for reason in reasons {
            let mut answer = whole();
            answer.counters = counters(&[], &[(reason.word(), 7)]);
            let verdict = Verdict::of(&answer, None);
            assert_eq!(verdict.status, 1, "{reason:?}");
            assert!(verdict.line().contains(reason.word()), "{}", verdict.line());
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
        for reason in GapReason::ALL.iter().copied().filter(|r| !r.is_loss()) {
            let mut answer = whole();
            answer.counters = counters(&[], &[(reason.word(), 7)]);
            let verdict = Verdict::of(&answer, None);
            assert_eq!(verdict.status, 0, "{reason:?}");
            assert!(!verdict.line().contains("All is well"), "{reason:?}");
            assert!(verdict.line().contains(reason.word()), "{}", verdict.line());
        }
        let mut passed = whole();
        passed.counters = counters(
            &[("tcp_send_over_process_budget", 9)],
            &[("budget_used", 9)],
        );
        assert_eq!(
            Verdict::of(&passed, None).line(),
            "Well, within limits: 9 payloads were not inspected, beyond a budget."
        );
        // A newer agent's reason may be anything.
        let mut answer = whole();
        answer.counters = counters(&[], &[("something_new", 1)]);
        assert_eq!(Verdict::of(&answer, None).status, 1);
    }

    #[test]
    fn every_kind_of_trouble_has_its_status() {
        let address: Target = "unix:/x".parse().unwrap();
        let verdict = Verdict::of(&whole(), Some(&address));
        assert_eq!(verdict.status, 3);
        assert_eq!(verdict.line(), "NOT WELL: no agent answers on unix:/x.");
        let mut broken = whole();
        broken.signals[0].hook.clear();
        assert_eq!(Verdict::of(&broken, None).status, 1);
        assert!(
            Verdict::of(&broken, None)
                .line()
                .contains("no hook for exec")
        );
        let mut silent = whole();
        silent.signals[2].self_test = "did not fire".into();
        assert!(
            Verdict::of(&silent, None)
                .line()
                .contains("did not fire when it was tried: raw_tp:x")
        );
        let mut unproven = whole();
        unproven.unproven_offsets = vec!["a".into(), "b".into()];
        let mut failing = whole();
        failing.sinks.push(SinkStatus {
            name: "siem".into(),
            error: "connection refused".into(),
            left_out: 4,
            ..Default::default()
        });
        let verdict = Verdict::of(&failing, None);
        assert_eq!(verdict.status, 1);
        assert_eq!(
            verdict.line(),
            "NOT WELL: the sink siem fails. To be known: 4 events were not delivered to sinks and will not be."
        );
        let verdict = Verdict::of(&unproven, None);
        assert_eq!(verdict.status, 1);
        assert_eq!(
            verdict.line(),
            "NOT WELL: 2 fields of this kernel are not proven."
        );
    }
}
