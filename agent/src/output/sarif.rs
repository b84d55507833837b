//! What all logs of SARIF 2.1.0 have in common (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/>).

use super::history::time_utc;
use keytrail_proto::v1::FindingRecord;
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// A run without its results.
pub struct Run {
    pub rules: Vec<Value>,
    /// RFC 3339; of a log that is made of what was found before there is none.
    pub started: Option<String>,
    pub ended: Option<String>,
    /// What could not be seen.
    pub notices: Vec<Notice>,
    /// Roots that are none of the host.
    pub bases: Map<String, Value>,
}

/// What a reader of the results has to know.
pub struct Notice {
    level: &'static str,
    text: String,
}

impl Notice {
    pub fn warning(text: String) -> Notice {
        Notice {
            level: "warning",
            text,
        }
    }

    pub fn note(text: String) -> Notice {
        Notice {
            level: "note",
            text,
        }
    }
}

/// Writes a log of one run, one result after the other: all together would be most of what it takes of the memory.
///
/// # Errors
/// What the writer gives.
pub fn write(
    out: &mut impl io::Write,
    run: &Run,
    results: impl Iterator<Item = Value>,
) -> io::Result<()> {
    let log = Log {
        run,
        results: Cell::new(Some(results)),
    };
    serde_json::to_writer_pretty(&mut *out, &log)?;
    out.write_all(b"\n")
}

struct Log<'a, I> {
    run: &'a Run,
    /// Taken once.
    results: Cell<Option<I>>,
}

impl<I: Iterator<Item = Value>> Serialize for Log<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("$schema", SCHEMA)?;
        map.serialize_entry("version", "2.1.0")?;
        map.serialize_entry("runs", &[Runs(self)])?;
        map.end()
    }
}

struct Runs<'a, 'b, I>(&'a Log<'b, I>);

impl<I: Iterator<Item = Value>> Serialize for Runs<'_, '_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let run = self.0.run;
        let mut map = serializer.serialize_map(None)?;
        let version = env!("CARGO_PKG_VERSION");
        map.serialize_entry(
            "tool",
            &json!({"driver": {
                "name": "keytrail",
                "version": version,
                "semanticVersion": version,
                "rules": run.rules,
            }}),
        )?;
        let notices: Vec<Value> = run
            .notices
            .iter()
            .map(|n| json!({"level": n.level, "message": {"text": n.text}}))
            .collect();
        let mut invocation = json!({
            "executionSuccessful": true,
            "toolExecutionNotifications": notices,
        });
        for (name, time) in [("startTimeUtc", &run.started), ("endTimeUtc", &run.ended)] {
            if let Some(time) = time {
                invocation[name] = time.as_str().into();
            }
        }
        map.serialize_entry("invocations", &[invocation])?;
        if !run.bases.is_empty() {
            map.serialize_entry("originalUriBaseIds", &run.bases)?;
        }
        map.serialize_entry("columnKind", "utf16CodeUnits")?;
        map.serialize_entry("results", &Results(&self.0.results))?;
        map.end()
    }
}

struct Results<'a, I>(&'a Cell<Option<I>>);

impl<I: Iterator<Item = Value>> Serialize for Results<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for result in self.0.take().into_iter().flatten() {
            seq.serialize_element(&result)?;
        }
        seq.end()
    }
}

/// Bytes of a path as they stand in a URI (RFC 3986: what is neither unreserved nor a separator of a path is encoded).
pub fn uri(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Findings as a log. `more`: there are others that are not among these.
///
/// # Errors
/// What the writer gives.
pub fn findings(out: &mut impl io::Write, all: &[FindingRecord], more: bool) -> io::Result<()> {
    let mut rules: BTreeMap<&str, &FindingRecord> = BTreeMap::new();
    for finding in all {
        rules.entry(&finding.rule).or_insert(finding);
    }
    let rules = rules.into_iter().map(|(id, finding)| {
        let mut tags = vec!["security".to_owned()];
        tags.extend(finding.techniques.iter().cloned());
        let mut rule = json!({
            "id": id,
            "shortDescription": {"text": sentence(&finding.title)},
            "defaultConfiguration": {"level": level(&finding.severity)},
            "properties": {"tags": tags},
        });
        if !finding.remedy.is_empty() {
            rule["help"] = json!({"text": sentence(&finding.remedy)});
        }
        if let Some(score) = score(&finding.severity) {
            rule["properties"]["security-severity"] = score.into();
        }
        rule
    });
    let cut = Notice::warning("There are more findings than these.".into());
    let run = Run {
        rules: rules.collect(),
        started: None,
        ended: None,
        notices: if more { vec![cut] } else { Vec::new() },
        bases: Map::new(),
    };
    write(out, &run, all.iter().map(result))
}

fn result(finding: &FindingRecord) -> Value {
    let text = match finding.seen.as_str() {
        "" => finding.title.clone(),
        seen => format!("{}: {seen}", finding.title),
    };
    // The agent is the one that was asked: its answers leave its own identity out.
    let event = finding
        .event
        .as_ref()
        .map(|id| format!("{}:{}", id.epoch, id.sequence));
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level(&finding.severity),
        "message": {"text": sentence(&text)},
        "occurrenceCount": finding.count.max(1),
        "properties": {
            "severity": finding.severity,
            "expected": finding.expected,
            "remedy": finding.remedy,
            "techniques": finding.techniques,
            "first": time_utc(finding.first.as_ref()),
            "last": time_utc(finding.last.as_ref()),
            "event": event,
            "actor": finding.actor,
            "contexts": finding.contexts,
        },
    });
    if !finding.fingerprint.is_empty() {
        result["partialFingerprints"] = json!({"keytrailFingerprint/v1": finding.fingerprint});
    }
    result
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    match text.ends_with(['.', '!', '?']) {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

fn level(severity: &str) -> &'static str {
    match severity {
        "info" | "low" => "note",
        "medium" => "warning",
        _ => "error",
    }
}

/// As code hosts rank what they are shown: middles of the ranges of CVSS 3.1.
fn score(severity: &str) -> Option<&'static str> {
    Some(match severity {
        "info" => "0.0",
        "low" => "2.0",
        "medium" => "5.5",
        "high" => "8.0",
        "critical" => "9.5",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::EventId;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri(b"/a b/\xff%#?.txt"), "/a%20b/%FF%25%23%3F.txt");
        assert_eq!(uri("/\u{e9}".as_bytes()), "/%C3%A9");
    }

    #[test]
    fn a_finding_is_a_result_with_its_rule() {
        let finding = |rule: &str, severity: &str| FindingRecord {
            rule: rule.into(),
            severity: severity.into(),
            title: "A decoy was read".into(),
            seen: "by cat".into(),
            remedy: "look".into(),
            techniques: vec!["T1552.001".into()],
            fingerprint: "kt1:00".into(),
            count: 3,
            event: Some(EventId {
                epoch: 1,
                sequence: 2,
                ..EventId::default()
            }),
            ..FindingRecord::default()
        };
        let all = [
            finding("decoy-touched", "critical"),
            finding("decoy-touched", "critical"),
            finding("reused", "low"),
            finding("new", "of a newer agent"),
        ];
        let mut out = Vec::new();
        findings(&mut out, &all, true).unwrap();
        let log: Value = serde_json::from_slice(&out).unwrap();
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let ids: Vec<&str> = rules.iter().map(|r| r["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["decoy-touched", "new", "reused"]);
        assert_eq!(rules[0]["properties"]["security-severity"], "9.5");
        let results = run["results"].as_array().unwrap();
        let levels: Vec<&str> = results
            .iter()
            .map(|r| r["level"].as_str().unwrap())
            .collect();
        assert_eq!(levels, ["error", "error", "note", "error"]);
        assert_eq!(results[0]["message"]["text"], "A decoy was read: by cat.");
        assert_eq!(results[0]["properties"]["event"], "1:2");
        assert_eq!(
            run["invocations"][0]["toolExecutionNotifications"][0]["level"],
            "warning"
        );
    }
}
