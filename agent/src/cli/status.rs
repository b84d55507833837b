//! `GetStatusResponse` as tables.

use crate::output::{Colour, Style, Table};
use keytrail_proto::v1::{GetStatusResponse, SignalStatus};

/// The signals keytrail exists for: without one of them `doctor` fails.
pub(super) const MISSION: [&str; 8] = [
    "exec",
    "fork",
    "exit",
    "file_open",
    "file_read",
    "connect",
    "tcp_send",
    "tls_write",
];

/// Signals of the mission no hook serves.
pub(super) fn unserved(status: &GetStatusResponse) -> Vec<&'static str> {
    let served = |name: &str| {
        status
            .signals
            .iter()
            .any(|s| s.signal == name && !s.hook.is_empty())
    };
    MISSION.into_iter().filter(|name| !served(name)).collect()
}

/// Signals, refused hooks, libraries.
pub(super) fn render(status: &GetStatusResponse, style: &Style) -> String {
    let mut out = String::new();
    let mut signals = Table::new(&["SIGNAL", "HOOK", "TIER", "SELF-TEST", "NOTE"]);
    let missing = |name: &&&str| !status.signals.iter().any(|s| s.signal == ***name);
    let unknown = MISSION.iter().filter(missing).map(|name| SignalStatus {
        signal: (*name).to_owned(),
        ..Default::default()
    });
    let all: Vec<_> = status.signals.iter().cloned().chain(unknown).collect();
    for s in &all {
        let (hook, colour) = match s.hook.as_str() {
            "" => ("none", Colour::Red),
            hook => (hook, Colour::Green),
        };
        signals.row([
            (s.signal.as_str(), Colour::Plain),
            (hook, colour),
            (s.tier.as_str(), Colour::Plain),
            (s.self_test.as_str(), Colour::Plain),
            (s.note.as_str(), Colour::Dim),
        ]);
    }
    out.push_str(&signals.render(style));
    let mut refused = Table::new(&["REFUSED", "FOR", "REASON", "REMEDY"]);
    for s in &all {
        for r in &s.refused {
            refused.row([
                (r.hook.as_str(), Colour::Yellow),
                (s.signal.as_str(), Colour::Plain),
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
            (l.stack.as_str(), Colour::Plain),
            (covered, colour),
            (l.reason.as_str(), Colour::Plain),
            (l.remedy.as_str(), Colour::Plain),
        ]);
    }
    out.push('\n');
    out.push_str(&if libraries.is_empty() {
        "No TLS library met yet.\n".into()
    } else {
        libraries.render(style)
    });
    out.push_str(&unseen(status, style));
    out
}

/// What was lost and what else could not be seen since the agent started.
fn unseen(status: &GetStatusResponse, style: &Style) -> String {
    let Some(counters) = &status.counters else {
        return String::new();
    };
    let mut out = String::new();
    for (title, counts) in [
        ("LOST RECORDS", &counters.lost),
        ("NOT SEEN", &counters.gaps),
    ] {
        let mut table = Table::new(&[title, "COUNT", "MEANS"]);
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort();
        for (name, count) in counts {
            table.row([
                (name.as_str(), Colour::Yellow),
                (count.to_string().as_str(), Colour::Plain),
                (meaning(name), Colour::Dim),
            ]);
        }
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.render(style));
        }
    }
    out
}

/// The reason of a gap in plain words; the gaps of the stream name what and when.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "agent_down" => "no agent ran for a while",
        "argv_truncated" | "environment_truncated" => "only the beginning was captured",
        "payload_truncated" => "sends of holders longer than what is looked into",
        "library_not_covered" => "TLS whose payloads are not seen",
        "tls_write_unsent" => "given to a TLS library, and nothing seen to leave",
        "records_lost" => "did not fit into the ring: raise ring_bytes",
        "hook_refused" => "a signal without a hook",
        "offsets" => "fields of the kernel that are not proven",
        "table_full" => "found no room in a table of the agent",
        "secret_not_matched" => "secrets too short, monotonous or long to be looked for in sends",
        "file_truncated" => "files looked into at their beginning only",
        "file_unreadable" => "files gone before they could be looked into",
        "file_unwatched" => "files whose reads are not seen",
        "files_skipped" | "writes_unseen" => "files written and not looked at",
        "files_closed" => "no file can be looked into",
        "environment_unreadable" => "environments that could not be read",
        "client_too_slow" => "a client missed events",
        "replay_limited" => "older events are forgotten",
        "backfill" => "processes that ran before the agent",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::RefusedHook;

    fn signal(name: &str, hook: &str) -> SignalStatus {
        SignalStatus {
            signal: name.into(),
            hook: hook.into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_signal_of_the_mission_needs_a_hook() {
        let mut status = GetStatusResponse::default();
        assert_eq!(unserved(&status), MISSION);
        status.signals = MISSION.iter().map(|s| signal(s, "x")).collect();
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
        assert!(line("all_kinds").contains('7'), "{text}");
        assert!(
            line("payload_truncated").contains("3      sends of holders"),
            "{text}"
        );
    }
}
