//! Starts the sinks and responses of the configuration beside a running engine.

use crate::config::Config;
use crate::engine::Memory;
use keytrail_proto::v1::NodeStatus;
use keytrail_secret::{Classifier, Origin};
use keytrail_sink::{Bell, Redact, Setup, SinkError, Sinks};
use std::sync::{Arc, OnceLock};

/// # Errors
/// See [`SinkError`].
pub fn start(
    config: &Config,
    memory: &Memory,
    node: &NodeStatus,
    bell: Bell,
) -> Result<Sinks, SinkError> {
    let commands = memory.commands.clone();
    let setup = Setup {
        state_dir: config.state_dir.clone(),
        reader: memory.reader.clone(),
        node: node.clone(),
        bell,
        report_gap: Arc::new(move |gap| commands.gap(gap)),
        redact: redact(config),
    };
    Sinks::start(&config.sinks, &config.responses, &setup)
}

/// Takes credentials out of what commands say. The rules are compiled when the first one says something.
fn redact(config: &Config) -> Redact {
    let dir = config.rules_dir.clone();
    let rules: OnceLock<Classifier> = OnceLock::new();
    Arc::new(move |text| {
        let rules = rules.get_or_init(|| Classifier::with_rules_dir(&dir).0);
        redacted(rules, text)
    })
}

fn redacted(rules: &Classifier, text: &[u8]) -> String {
    let inspected = rules.classify_bounded(text, Origin::Text);
    if inspected.limits.any() {
        return format!(
            "[{} bytes, not shown: {}]",
            text.len(),
            inspected.limits.reason()
        );
    }
    let mut places: Vec<_> = inspected
        .findings
        .iter()
        .flat_map(|finding| {
            finding
                .places
                .iter()
                .map(|place| (place.clone(), &finding.kind))
        })
        .collect();
    places.sort_by_key(|(place, _)| (place.start, place.end));
    let mut out = String::new();
    let mut at = 0;
    for (place, kind) in places {
        let end = place.end.min(text.len());
        if place.start >= at {
            out.push_str(&String::from_utf8_lossy(&text[at..place.start.min(end)]));
            out.push_str(&format!("[redacted {kind}]"));
        }
        at = at.max(end);
    }
    out.push_str(&String::from_utf8_lossy(&text[at..]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_is_shown_without_credentials() {
        let rules = Classifier::builtin();
        let key = ["AKIA", "QYLPMN5HHHFPZAM2"].concat();
        let text = format!("began\npassword = \"Vb9$kQ2!xLr7tZ\"\n{key} {key}\nended\n");
        let out = redacted(&rules, text.as_bytes());
        assert!(
            out.starts_with("began\n") && out.ends_with("\nended\n"),
            "{out}"
        );
        assert!(!out.contains("Vb9$kQ2!xLr7tZ"), "{out}");
        assert!(out.contains("[redacted "), "{out}");
        assert_eq!(redacted(&rules, b"nothing here"), "nothing here");
    }
}
