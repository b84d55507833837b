//! SARIF 2.1.0 (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/>): a result for each credential. There is no snippet, and a
//! credential is told from another by its fingerprint.

use super::super::sarif::{self, Notice, uri};
use keytrail_inventory::clock::rfc3339;
use keytrail_inventory::model::{Area, Class, Entry, FileLocation, Location};
use keytrail_inventory::names::unescape;
use keytrail_inventory::run::Document;
use keytrail_inventory::walk::Report;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;

/// Exposures by which everybody comes to a credential.
const OPEN: [&str; 4] = [
    "world-readable",
    "world-writable",
    "world-connectable",
    "published",
];

/// Writes the log, one result after the other.
///
/// # Errors
/// What the writer gives.
pub fn write(
    out: &mut impl io::Write,
    document: &Document,
    report: &Report,
    shown: &[&Entry],
) -> io::Result<()> {
    let kinds: BTreeSet<&str> = shown.iter().map(|e| e.credential.kind.as_str()).collect();
    let rules = kinds.iter().map(|kind| {
        let text =
            format!("A credential of the kind {kind} lies on the host or is held by a process.");
        json!({"id": kind, "shortDescription": {"text": text}})
    });
    let run = sarif::Run {
        rules: rules.collect(),
        started: Some(rfc3339(document.run.started)),
        ended: Some(rfc3339(document.run.finished)),
        notices: notices(document, report),
        bases: bases(shown),
    };
    sarif::write(out, &run, shown.iter().map(|entry| result(entry)))
}

/// What was not seen.
fn notices(document: &Document, report: &Report) -> Vec<Notice> {
    let mut all = Vec::new();
    let mut say = |count: u64, what: &str| {
        if count > 0 {
            all.push(Notice::warning(format!("{count} {what}")));
        }
    };
    say(
        document.run.unreadable,
        "files and directories could not be read",
    );
    say(
        document.processes.unreadable,
        "processes could not be inspected",
    );
    say(
        report.sampled_count.load(Ordering::Relaxed),
        "large files were inspected in part",
    );
    say(
        document.refused + report.crowded.load(Ordering::Relaxed),
        "credentials found no room",
    );
    for (path, reason) in report.skipped() {
        all.push(Notice::note(format!("{path} was left out: {reason}")));
    }
    all
}

/// The roots of containers, which are no places of the host.
fn bases(shown: &[&Entry]) -> Map<String, Value> {
    let mut all = BTreeMap::new();
    for place in shown.iter().flat_map(|e| &e.places) {
        if let Location::File(file) = place
            && !file.container.is_empty()
        {
            all.insert(base(file), file.container.clone());
        }
    }
    all.into_iter()
        .map(|(name, container)| {
            let text = format!("The root directory of the container {container}.");
            (name, json!({"description": {"text": text}}))
        })
        .collect()
}

fn base(file: &FileLocation) -> String {
    format!("CONTAINER_{}", file.container)
}

fn result(entry: &Entry) -> Value {
    let c = &entry.credential;
    let codes: Vec<&str> = entry.exposures.iter().map(|e| e.code.as_str()).collect();
    let level = match entry.class {
        Class::Secret if codes.iter().any(|code| OPEN.contains(code)) => "error",
        Class::Secret if !codes.is_empty() => "warning",
        _ => "note",
    };
    let exposures: Vec<String> = entry
        .exposures
        .iter()
        .map(|e| format!("{}: {}", e.code, e.detail))
        .collect();
    json!({
        "ruleId": c.kind,
        "level": level,
        "message": {"text": message(entry)},
        "locations": entry.places.iter().map(location).collect::<Vec<_>>(),
        "partialFingerprints": {"keytrailFingerprint/v1": c.fingerprint},
        "properties": {
            "identifier": c.identifier,
            "confidence": c.confidence,
            "class": entry.class.name(),
            "privilege": c.privilege,
            "attack": c.attack,
            "firstSeen": rfc3339(entry.first_seen),
            "knownSince": rfc3339(entry.since()),
            "expires": c.expires.map(rfc3339),
            "exposures": exposures,
            "morePlaces": entry.more_places,
        },
    })
}

fn message(entry: &Entry) -> String {
    let c = &entry.credential;
    let mut text = c.kind.clone();
    if !c.identifier.is_empty() {
        text.push_str(&format!(" ({})", c.identifier));
    }
    let count = entry.place_count();
    text.push_str(&format!(
        " in {count} {}",
        if count == 1 { "place" } else { "places" }
    ));
    for exposure in entry.exposures.iter().take(3) {
        text.push_str(&format!("; {}: {}", exposure.code, exposure.detail));
    }
    text.push('.');
    text
}

fn location(place: &Location) -> Value {
    match place {
        Location::File(file) => {
            let path = unescape(&file.path);
            let artifact = if file.container.is_empty() {
                json!({"uri": format!("file://{}", uri(&path))})
            } else {
                let below = path.strip_prefix(b"/").unwrap_or(&path);
                json!({"uri": uri(below), "uriBaseId": base(file)})
            };
            json!({"physicalLocation": {"artifactLocation": artifact}})
        }
        Location::Process(process) => {
            let area = match process.area {
                Area::Env => "environment",
                Area::Argv => "arguments",
            };
            let name = format!("{}:{area}:{}", process.exe, process.name);
            json!({"logicalLocations": [{"name": process.name, "fullyQualifiedName": name, "kind": "process"}]})
        }
        Location::Socket(socket) => {
            let name = format!("socket:{}", socket.path);
            json!({"logicalLocations": [{"name": socket.path, "fullyQualifiedName": name, "kind": "socket"}]})
        }
    }
}
