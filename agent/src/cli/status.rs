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
    out
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
}
