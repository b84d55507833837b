//! The first line of `keytrail doctor`: is all well?

use super::{exit, status};
use crate::output::escape;
use keytrail_export::Target;
use keytrail_proto::v1::GetStatusResponse;

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
        if status == exit::OK && !problems.is_empty() {
            status = exit::FAILED;
        }
        Verdict {
            problems,
            remarks: remarks(answer),
            status,
        }
    }

    /// One line.
    pub fn line(&self) -> String {
        let remarks = self.remarks.join("; ");
        match (self.problems.is_empty(), self.remarks.is_empty()) {
            (true, true) => "All is well.".to_owned(),
            (true, false) => format!("All is well. To be known: {remarks}."),
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

fn remarks(answer: &GetStatusResponse) -> Vec<String> {
    let mut remarks = Vec::new();
    let lost: u64 = answer
        .counters
        .as_ref()
        .map_or(0, |c| c.lost.values().sum());
    if lost > 0 {
        let records = if lost == 1 {
            "record was"
        } else {
            "records were"
        };
        remarks.push(format!("{lost} {records} lost since the agent started"));
    }
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
    remarks
}

fn counted(n: u64, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one} is"),
        n => format!("{n} {many} are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::Signal;
    use keytrail_proto::v1::{Counters, LibraryStatus, SignalStatus, SinkStatus};

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
        remarkable.counters = Some(Counters {
            lost: [("exec".to_owned(), 3)].into(),
            ..Default::default()
        });
        remarkable.libraries.push(LibraryStatus::default());
        let verdict = Verdict::of(&remarkable, None);
        assert_eq!(verdict.status, 0);
        assert_eq!(
            verdict.line(),
            "All is well. To be known: 3 records were lost since the agent started; 1 TLS library is not covered."
        );
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
