//! `GetStatusResponse` as tables.

use crate::engine::OWN_LEFT_OUT;
use crate::output::describe::counted;
use crate::output::{Colour, Style, Table};
use keytrail_model::status::{SILENT, TAKEN_OFF};
use keytrail_model::{GapReason, Signal, Tier, TlsStack};
use keytrail_proto::v1::{Counters, GetStatusResponse, SignalStatus};

/// Signals of the mission no hook serves.
pub(super) fn unserved(status: &GetStatusResponse) -> Vec<&'static str> {
    let served = |signal: &Signal| {
        status
            .signals
            .iter()
            .any(|s| s.signal == signal.number() && !s.hook.is_empty())
    };
    let missing = Signal::MISSION.into_iter().filter(|signal| !served(signal));
    missing.map(Signal::word).collect()
}

/// Signals, refused hooks, libraries.
pub(super) fn render(status: &GetStatusResponse, style: &Style) -> String {
    let mut out = String::new();
    let mut signals = Table::new(&["SIGNAL", "HOOK", "TIER", "SELF-TEST", "NOTE"]);
    let missing = |signal: &Signal| !status.signals.iter().any(|s| s.signal == signal.number());
    let mission = Signal::MISSION.into_iter();
    let unknown = mission.filter(missing).map(|signal| SignalStatus {
        signal: signal.number(),
        ..Default::default()
    });
    let all: Vec<_> = status.signals.iter().cloned().chain(unknown).collect();
    for s in &all {
        let (hook, colour) = match s.hook.as_str() {
            "" => ("none", Colour::Red),
            hook => (hook, Colour::Green),
        };
        let self_test = match s.self_test.as_str() {
            SILENT | TAKEN_OFF => Colour::Red,
            _ => Colour::Plain,
        };
        signals.row([
            (Signal::word_of(s.signal), Colour::Plain),
            (hook, colour),
            (Tier::word_of(s.tier), Colour::Plain),
            (s.self_test.as_str(), self_test),
            (s.note.as_str(), Colour::Dim),
        ]);
    }
    out.push_str(&signals.render(style));
    let mut refused = Table::new(&["REFUSED", "FOR", "REASON", "REMEDY"]);
    for s in &all {
        for r in &s.refused {
            refused.row([
                (r.hook.as_str(), Colour::Yellow),
                (Signal::word_of(s.signal), Colour::Plain),
                (r.reason.as_str(), Colour::Plain),
                (r.remedy.as_str(), Colour::Plain),
            ]);
        }
    }
    if !refused.is_empty() {
        out.push('\n');
        out.push_str(&refused.render(style));
    }
    let mut unproven = Table::new(&["NOT PROVEN"]);
    for offset in &status.unproven_offsets {
        unproven.row([(offset.as_str(), Colour::Red)]);
    }
    if !unproven.is_empty() {
        out.push('\n');
        out.push_str(&unproven.render(style));
    }
    let mut libraries = Table::new(&["LIBRARY", "STACK", "COVERED", "REASON", "REMEDY"]);
    for l in &status.libraries {
        let (covered, colour) = if l.covered {
            ("yes", Colour::Green)
        } else {
            ("no", Colour::Red)
        };
        libraries.row([
            (l.path.as_str(), Colour::Plain),
            (TlsStack::word_of(l.stack), Colour::Plain),
            (covered, colour),
            (l.reason.as_str(), Colour::Plain),
            (l.remedy.as_str(), Colour::Plain),
        ]);
    }
    out.push('\n');
    out.push_str(&if libraries.is_empty() {
        "No TLS library found yet.\n".into()
    } else {
        libraries.render(style)
    });
    out.push_str(&sinks(status, style));
    out.push_str(&names(status, style));
    out.push_str(&unseen(status, style));
    out
}

/// Where events go, and how far that is.
fn sinks(status: &GetStatusResponse, style: &Style) -> String {
    let mut table = Table::new(&[
        "SINK",
        "BY",
        "TO",
        "DELIVERED",
        "BEHIND",
        "LEFT OUT",
        "STATE",
    ]);
    for sink in &status.sinks {
        let name = match sink.response {
            true => format!("{} (response)", sink.name),
            false => sink.name.clone(),
        };
        let by = match sink.response {
            true => sink.carrier.clone(),
            false => format!("{} {}", sink.carrier, sink.format),
        };
        let (state, colour) = match (sink.error.is_empty(), &sink.failing_since) {
            (true, _) => ("well".to_owned(), Colour::Green),
            (false, Some(since)) => {
                let since = crate::output::utc(since);
                (format!("fails since {since}: {}", sink.error), Colour::Red)
            }
            (false, None) => (sink.error.clone(), Colour::Red),
        };
        let left_out = if sink.left_out > 0 {
            Colour::Yellow
        } else {
            Colour::Plain
        };
        table.row([
            (name.as_str(), Colour::Plain),
            (by.as_str(), Colour::Plain),
            (sink.target.as_str(), Colour::Plain),
            (sink.delivered.to_string().as_str(), Colour::Plain),
            (sink.behind.to_string().as_str(), Colour::Plain),
            (sink.left_out.to_string().as_str(), left_out),
            (state.as_str(), colour),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n{}", table.render(style))
}

/// Who says what pods are called.
fn names(status: &GetStatusResponse, style: &Style) -> String {
    let mut table = Table::new(&["NAMES OF PODS", "AT", "SERVES", "REASON"]);
    let served = status.name_sources.iter().any(|s| s.serves);
    for source in &status.name_sources {
        let (serves, colour) = match (source.serves, served) {
            (true, _) => ("yes", Colour::Green),
            (false, true) => ("no", Colour::Dim),
            (false, false) => ("no", Colour::Red),
        };
        let reason = match source.reason.as_str() {
            "" if !source.serves && served => "not asked while the one above serves",
            "" if !source.serves => "is being asked",
            reason => reason,
        };
        table.row([
            (source.source.as_str(), Colour::Plain),
            (source.at.as_str(), Colour::Plain),
            (serves, colour),
            (reason, Colour::Plain),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n{}", table.render(style))
}

/// Records of other keytrail processes: they are no uses, and it is said that they were there.
fn own(counters: &Counters) -> String {
    match counters.records.get(OWN_LEFT_OUT) {
        Some(n) => format!(
            "\nLeft out: {n} acts of keytrail processes and answers to them, which are no uses of credentials.\n"
        ),
        None => String::new(),
    }
}

/// What was lost and what else could not be seen since the agent started.
fn unseen(status: &GetStatusResponse, style: &Style) -> String {
    let Some(counters) = &status.counters else {
        return String::new();
    };
    let mut out = own(counters);
    for (title, counts) in [
        ("LOST RECORDS", &counters.lost),
        ("NOT SEEN", &counters.gaps),
    ] {
        let mut table = Table::new(&[title, "COUNT", "MEANS", "REMEDY"]);
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort();
        for (name, count) in counts {
            table.row([
                (name.as_str(), Colour::Yellow),
                (counted(name, *count).as_str(), Colour::Plain),
                (meaning(name), Colour::Dim),
                (remedy(name), Colour::Plain),
            ]);
        }
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.render(style));
        }
    }
    out
}

/// What is to be done about a gap, or what it leaves; a gap of the stream has the words for its own case.
fn remedy(name: &str) -> &'static str {
    if name.ends_with("_budget") {
        return "see [capture] in the configuration";
    }
    let Some(reason) = GapReason::of_word(name) else {
        // Kinds of records.
        return match name {
            "fanotify" | "process_read" => "raise fs.fanotify.max_queued_events (sysctl)",
            "process_table" => "fewer processes at a time",
            "hook_nested" => "none unless it repeats",
            keytrail_sensor::ATTACH_LIMIT => {
                "find out which program calls process_vm_readv that often"
            }
            "undecodable" => "the kernel side is of another version: install one whole release",
            _ => "raise ring_bytes, or exclude what makes so many records",
        };
    };
    match reason {
        GapReason::AgentDown => "keep it running, for example as a systemd service",
        GapReason::Backfill => "start the agent early in the boot",
        GapReason::ArgvTruncated | GapReason::EnvironmentTruncated => {
            "keep secrets near the beginning, or in a file"
        }
        GapReason::PayloadTruncated => "none: who sent and where is reported",
        GapReason::LibraryNotCovered => "see LIBRARY",
        GapReason::TlsWriteUnsent => "none: the event has an unknown destination",
        GapReason::RecordsLost => "see LOST RECORDS",
        GapReason::BudgetUsed => "raise the budget in [capture]; it costs processes time",
        GapReason::HookRefused => "see REFUSED",
        GapReason::Offsets => "report this kernel's version",
        GapReason::TableFull => "report this: the bound is a constant of the agent",
        GapReason::SecretNotMatched => "use longer secrets; sends of their holders are lineage",
        GapReason::FileTruncated => "split what must be known whole",
        GapReason::FileUnreadable => "name places of short-lived secrets under `watch`",
        GapReason::FileUnwatched => "name fewer places under `watch`",
        GapReason::FilesSkipped | GapReason::WritesUnseen => {
            "none is needed: they are inspected when they are read"
        }
        GapReason::FilesClosed => "let openat2(2) through",
        GapReason::InspectionTimeout => {
            "`exclude` what does not answer, or raise inspect_timeout_ms"
        }
        GapReason::InspectionBacklog => "`exclude` what holds so many files and no credential",
        GapReason::InspectionBudget => "`exclude` what is so much, or raise inspect_share",
        GapReason::RecordsLeft => "let the host come to rest before the agent is stopped",
        GapReason::LedgerLost => "see the log; a faster disk under state_dir",
        GapReason::LearnedLost => "see the log; a faster disk under state_dir",
        GapReason::Excluded => "take them out of `exclude`",
        GapReason::EnvironmentUnreadable => {
            "run the agent with CAP_SYS_PTRACE, where /proc is the host's own"
        }
        GapReason::ClientTooSlow => "a faster client, or one that filters",
        GapReason::SinkBehind => "see SINK",
        GapReason::NamesUnavailable => "see [kubernetes] in the configuration",
        GapReason::ReplayLimited => "ask for what is newer, or raise history_bytes",
        GapReason::AgentStopped => "find out who stopped it, or give it more processor time",
        GapReason::AgentTraced => "find out who traces it",
        GapReason::AgentReplaced => "restart it if that was meant; otherwise find out who wrote it",
        GapReason::HookLost => "see SELF-TEST; restart the agent, and find out who took it off",
        GapReason::ForeignBpf => "find out who loaded it; its gap names the right that is missing",
        GapReason::AgentOpened => "find out what that process does; then restart the agent",
    }
}

/// The reason of a gap in plain words; the gaps of the stream name what and when.
fn meaning(reason: &str) -> &'static str {
    let Some(reason) = GapReason::of_word(reason) else {
        return "";
    };
    match reason {
        GapReason::AgentDown => "no agent ran for a while",
        GapReason::ArgvTruncated | GapReason::EnvironmentTruncated => {
            "only the beginning was captured"
        }
        GapReason::PayloadTruncated => "sends of holders longer than what is inspected",
        GapReason::LibraryNotCovered => "TLS whose payloads are not seen",
        GapReason::TlsWriteUnsent => "given to a TLS library, and nothing seen to leave",
        GapReason::RecordsLost => "did not fit into the ring: raise ring_bytes",
        GapReason::BudgetUsed => "beyond what is inspected per second: see [capture]",
        GapReason::HookRefused => "a signal without a hook",
        GapReason::Offsets => "fields of the kernel that are not proven",
        GapReason::TableFull => "found no room in a table of the agent",
        GapReason::SecretNotMatched => {
            "secrets too short, monotonous or long to be looked for in sends"
        }
        GapReason::FileTruncated => "files inspected at their beginning only",
        GapReason::FileUnreadable => {
            "files, or processes in /proc, gone before they could be inspected"
        }
        GapReason::FileUnwatched => "files whose reads are not seen",
        GapReason::FilesSkipped | GapReason::WritesUnseen => "files written and not inspected",
        GapReason::FilesClosed => "no file can be inspected",
        GapReason::InspectionTimeout => "files that were not inspected in time",
        GapReason::InspectionBacklog => "files read faster than they can be inspected",
        GapReason::InspectionBudget => "files of users who used up what theirs may take",
        GapReason::RecordsLeft => "not taken in before the end",
        GapReason::LedgerLost => "events the state directory does not have",
        GapReason::LearnedLost => "what was learned and the state directory does not have",
        GapReason::Excluded => "places that `exclude` leaves out",
        GapReason::EnvironmentUnreadable => "environments that could not be read",
        GapReason::ClientTooSlow => "a client missed events",
        GapReason::SinkBehind => "not delivered to a sink or response in time: see SINK",
        GapReason::AgentStopped => "the agent stood still",
        GapReason::AgentTraced => "somebody traced the agent",
        GapReason::AgentReplaced => "the agent's program or configuration was changed",
        GapReason::HookLost => "a hook was taken off, or does not fire any more",
        GapReason::ForeignBpf => "others' BPF programs that can deceive, or are not known",
        GapReason::AgentOpened => "somebody has the agent's maps or programs",
        GapReason::NamesUnavailable => "names of pods that are not known",
        GapReason::ReplayLimited => "older events are forgotten",
        GapReason::Backfill => "processes that ran before the agent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::RefusedHook;

    fn signal(name: &str, hook: &str) -> SignalStatus {
        SignalStatus {
            signal: Signal::of_word(name).unwrap().number(),
            hook: hook.into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_signal_of_the_mission_needs_a_hook() {
        let mut status = GetStatusResponse::default();
        assert_eq!(unserved(&status), Signal::MISSION.map(Signal::word));
        status.signals = Signal::MISSION
            .iter()
            .map(|s| signal(s.word(), "x"))
            .collect();
        assert!(unserved(&status).is_empty());
        status.signals[3].hook.clear();
        assert_eq!(unserved(&status), ["file_open"]);
    }

    #[test]
    fn refusals_come_with_reason_and_remedy_and_missing_signals_are_shown() {
        let mut exec = signal("exec", "raw_tp:sched_process_exec");
        exec.refused.push(RefusedHook {
            hook: "fentry:x".into(),
            reason: "no \x1b trampoline".into(),
            remedy: "a newer kernel".into(),
        });
        let status = GetStatusResponse {
            signals: vec![exec],
            ..Default::default()
        };
        let text = render(&status, &Style::PLAIN);
        assert!(
            text.contains("fentry:x  exec  no \\u{1b} trampoline  a newer kernel"),
            "{text}"
        );
        assert!(
            text.lines()
                .any(|l| l.starts_with("tls_write") && l.contains("none")),
            "{text}"
        );
    }

    #[test]
    fn each_sink_is_shown_with_how_far_it_is_and_why_it_fails() {
        use keytrail_proto::v1::SinkStatus;
        let mut status = GetStatusResponse::default();
        assert!(!render(&status, &Style::PLAIN).contains("SINK"));
        let sink = SinkStatus {
            name: "siem".into(),
            carrier: "webhook".into(),
            format: "ocsf".into(),
            target: "https://siem.example".into(),
            delivered: 17,
            behind: 3,
            left_out: 2,
            ..SinkStatus::default()
        };
        let failing = SinkStatus {
            name: "page".into(),
            response: true,
            carrier: "command".into(),
            error: "/x: no \x1b such file".into(),
            failing_since: Some(pbjson_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..SinkStatus::default()
        };
        status.sinks = vec![sink, failing];
        let text = render(&status, &Style::PLAIN);
        let line = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("siem"),
            "siem webhook ocsf https://siem.example 17 3 2 well"
        );
        let failing = line("page (response)");
        assert!(failing.contains("fails since 2023-11-14"), "{failing}");
        assert!(failing.ends_with("/x: no \\u{1b} such file"), "{failing}");
    }

    #[test]
    fn who_says_what_pods_are_called_is_shown_and_why_nobody_better_does() {
        use keytrail_proto::v1::NameSource;
        let mut status = GetStatusResponse::default();
        assert!(!render(&status, &Style::PLAIN).contains("NAMES OF PODS"));
        let source = |source: &str, serves, reason: &str| NameSource {
            source: source.into(),
            at: "/run/s".into(),
            serves,
            reason: reason.into(),
        };
        let mut lines = |sources: Vec<NameSource>| {
            status.name_sources = sources;
            let text = render(&status, &Style::PLAIN);
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let found = text.lines().skip_while(|l| !l.starts_with("NAMES OF PODS"));
            found.skip(1).take(2).map(words).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(vec![
                source("kubelet", true, ""),
                source("api_server", false, "")
            ]),
            [
                "kubelet /run/s yes",
                "api_server /run/s no not asked while the one above serves"
            ]
        );
        assert_eq!(
            lines(vec![
                source("kubelet", false, "no \x1b socket"),
                source("api_server", false, "")
            ]),
            [
                "kubelet /run/s no no \\u{1b} socket",
                "api_server /run/s no is being asked"
            ]
        );
    }

    #[test]
    fn what_was_lost_or_not_seen_is_counted_and_explained() {
        use keytrail_proto::v1::Counters;
        let mut status = GetStatusResponse {
            unproven_offsets: vec!["task_struct.comm is wrong".into()],
            ..Default::default()
        };
        let quiet = render(&status, &Style::PLAIN);
        assert!(quiet.contains("NOT PROVEN") && quiet.contains("task_struct.comm is wrong"));
        assert!(!quiet.contains("LOST RECORDS") && !quiet.contains("NOT SEEN"));
        status.counters = Some(Counters {
            lost: [("all_kinds".to_owned(), 7)].into(),
            gaps: [("payload_truncated".to_owned(), 3)].into(),
            ..Default::default()
        });
        let text = render(&status, &Style::PLAIN);
        let line = |name: &str| {
            text.lines()
                .find(|l| l.starts_with(name))
                .unwrap_or("")
                .to_owned()
        };
        assert!(line("all_kinds").contains("7 records"), "{text}");
        assert!(
            line("payload_truncated").contains("3 sends  sends of holders"),
            "{text}"
        );
        assert!(line("all_kinds").contains("raise ring_bytes"), "{text}");
        assert!(
            line("payload_truncated").contains("where is reported"),
            "{text}"
        );
        for reason in GapReason::ALL {
            assert!(!remedy(reason.word()).is_empty() && !meaning(reason.word()).is_empty());
        }
    }
}
