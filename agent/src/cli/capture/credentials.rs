//! One line a credential: what of it was seen in events, and where it lies. Fingerprints and identifiers, no secrets.

use super::work::Work;
use crate::output::describe;
use crate::output::fingerprint::short_fingerprint;
use crate::output::report::{Lies, MOST};
use keytrail_model::{EventKind, EvidenceGrade};
use keytrail_proto::v1::Event;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};

pub const CREDENTIALS: &str = "credentials.jsonl";
/// Credentials that are told apart, and places of one that are kept.
const MOST_CREDENTIALS: usize = 100_000;
const MOST_PLACES: usize = 256;
/// Places of one that a report names.
const SHOWN: usize = 4;

#[derive(Debug, Default, Serialize)]
struct Known {
    kind: String,
    identifier: String,
    fingerprint: String,
    confidence: f64,
    privilege: u32,
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event: Option<String>,
    /// Counts of events by what they say: `read`, `sent_observed` and so on.
    events: BTreeMap<String, u64>,
    /// Where processes had it from, and where it lies.
    places: BTreeSet<String>,
    destinations: BTreeSet<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    exposures: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    class: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    known_since: Value,
}

/// All that were seen.
#[derive(Debug, Default)]
pub struct Credentials {
    all: BTreeMap<String, Known>,
    pub omitted: u64,
}

fn insert(set: &mut BTreeSet<String>, text: String) {
    if set.len() < MOST_PLACES {
        set.insert(text);
    }
}

impl Credentials {
    fn known(&mut self, fingerprint: &str) -> Option<&mut Known> {
        if self.all.len() >= MOST_CREDENTIALS && !self.all.contains_key(fingerprint) {
            self.omitted += 1;
            return None;
        }
        let known = self.all.entry(fingerprint.to_owned()).or_default();
        fingerprint.clone_into(&mut known.fingerprint);
        Some(known)
    }

    pub fn event(&mut self, event: &Event) {
        let Some(credential) = &event.credential else {
            return;
        };
        let Some(kind) = EventKind::of_number(event.kind) else {
            return;
        };
        let grade = event.evidence.as_ref().map_or(0, |e| e.grade);
        let word = match kind {
            EventKind::CredentialSent => format!("sent_{}", EvidenceGrade::word_of(grade)),
            kind => kind.word().to_owned(),
        };
        let Some(known) = self.known(&credential.fingerprint) else {
            return;
        };
        known.kind.clone_from(&credential.kind);
        known.identifier.clone_from(&credential.identifier);
        known.confidence = credential.confidence;
        known.privilege = credential.privilege;
        known.rule.clone_from(&credential.rule);
        let time = event.time.as_ref().map(crate::output::utc);
        if known.first_event.is_none() {
            known.first_event.clone_from(&time);
        }
        known.last_event = time;
        *known.events.entry(word).or_default() += event.stands_for();
        if let Some(source) = &event.source {
            insert(&mut known.places, describe::source(source));
        }
        if let (EventKind::CredentialSent, Some(to)) = (kind, &event.destination) {
            insert(&mut known.destinations, describe::destination(to));
        }
    }

    /// What an inventory says, as `keytrail inventory -o json` writes it. Returns what of it a report shows, and how many
    /// more there are.
    pub fn inventory(&mut self, document: &Value) -> (Vec<Lies>, u64) {
        let (mut shown, mut omitted) = (Vec::new(), 0);
        let entries = document["credentials"].as_array();
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let places: Vec<String> = entry["places"]
                .as_array()
                .into_iter()
                .flatten()
                .map(place)
                .collect();
            let exposures: Vec<String> = entry["exposures"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| e["code"].as_str().unwrap_or_default().to_owned())
                .collect();
            // What packages ship and what is a sample is in the files, and alarms nobody.
            if entry["class"] == "secret" {
                if shown.len() < MOST {
                    shown.push(Lies {
                        kind: text("kind"),
                        identifier: text("identifier"),
                        fingerprint: short_fingerprint(&text("fingerprint")),
                        places: few(&places, entry["more_places"].as_u64().unwrap_or(0)),
                        exposures: exposures.join(", "),
                        known_since: text("known_since"),
                    });
                } else {
                    omitted += 1;
                }
            }
            let Some(known) = self.known(&text("fingerprint")) else {
                continue;
            };
            known.kind = text("kind");
            known.identifier = text("identifier");
            known.rule = text("rule");
            known.confidence = entry["confidence"].as_f64().unwrap_or(0.0);
            known.privilege = entry["privilege"]
                .as_u64()
                .and_then(|p| u32::try_from(p).ok())
                .unwrap_or(0);
            known.exposures = entry["exposures"].clone();
            known.class = entry["class"].clone();
            known.known_since = entry["known_since"].clone();
            for place in places {
                insert(&mut known.places, place);
            }
        }
        (shown, omitted)
    }

    pub fn write(&self, work: &Work) -> io::Result<()> {
        let mut file = work.create(CREDENTIALS)?;
        for known in self.all.values() {
            serde_json::to_writer(&mut file, known)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}

/// A place of an inventory in words.
fn place(place: &Value) -> String {
    let text = |name: &str| place[name].as_str().unwrap_or_default();
    match text("type") {
        "process" => format!("{} {} of {}", text("area"), text("name"), text("exe")),
        kind => {
            let path = text("path");
            let kind = if kind == "socket" { "socket " } else { "" };
            match text("container") {
                "" => format!("{kind}{path}"),
                container => format!("{kind}{path} (container {container})"),
            }
        }
    }
}

/// The first of them, and how many more there are.
fn few(places: &[String], beyond: u64) -> String {
    let mut out = places
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    let more = places.len().saturating_sub(SHOWN) as u64 + beyond;
    if more > 0 {
        out.push_str(&format!("; {more} more"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_lies_and_what_happened_are_one_line() {
        let mut all = Credentials::default();
        let event = Event {
            kind: EventKind::CredentialSent.number(),
            credential: Some(keytrail_proto::v1::Credential {
                kind: "npm-token".to_owned(),
                fingerprint: "kt1:aa".to_owned(),
                ..Default::default()
            }),
            evidence: Some(keytrail_proto::v1::Evidence {
                grade: EvidenceGrade::Identified.number(),
                ..Default::default()
            }),
            ..Default::default()
        };
        all.event(&event);
        let document = json!({"credentials": [
            {"class": "secret", "kind": "npm-token", "fingerprint": "kt1:aa", "confidence": 0.9, "privilege": 2,
             "places": [{"type": "file", "path": "/root/.npmrc"}], "exposures": [{"code": "world-readable", "detail": ""}]},
            {"class": "sample", "kind": "x", "fingerprint": "kt1:bb", "places": []},
        ]});
        let (shown, omitted) = all.inventory(&document);
        assert_eq!((shown.len(), omitted), (1, 0), "samples alarm nobody");
        assert_eq!(
            (shown[0].places.as_str(), shown[0].exposures.as_str()),
            ("/root/.npmrc", "world-readable")
        );
        assert_eq!(all.all.len(), 2);
        let known = &all.all["kt1:aa"];
        assert_eq!(known.events, [("sent_identified".to_owned(), 1)].into());
        assert!(known.places.contains("/root/.npmrc") && known.privilege == 2);
    }

    #[test]
    fn many_places_are_counted() {
        let places: Vec<String> = (0..6).map(|n| format!("/{n}")).collect();
        assert_eq!(few(&places, 10), "/0; /1; /2; /3; 12 more");
        assert_eq!(few(&places[..1], 0), "/0");
    }
}
