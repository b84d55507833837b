//! One JSON document. Times are RFC 3339 in UTC, modes octal strings, paths escaped as by `inventory::names::escape`.

use crate::inventory::clock::rfc3339;
use crate::inventory::diff::Change;
use crate::inventory::model::{Entry, Place};
use crate::inventory::run::Document;
use crate::inventory::state::Run;
use crate::inventory::walk::Report;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// `{"run", "credentials", "skipped", "errors", "counts"}`.
#[must_use]
pub fn document(document: &Document, report: &Report, shown: &[&Entry]) -> Value {
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let listed = |list: Vec<(String, String)>| -> Vec<Value> {
        list.into_iter()
            .map(|(path, reason)| json!({"path": path, "reason": reason}))
            .collect()
    };
    json!({
        "run": run(&document.run),
        "credentials": shown.iter().map(|e| entry(e, document.run.started)).collect::<Vec<_>>(),
        "skipped": listed(report.skipped()),
        "errors": {
            "unreadable": n(&report.unreadable_count),
            "unreadable_paths": listed(report.unreadable_list()),
            "unreadable_processes": document.processes.unreadable,
            "truncated_processes": document.processes.truncated,
            "changed_while_read": n(&report.changed),
            "credentials_without_room": document.refused + n(&report.crowded),
        },
        "counts": {
            "directories": n(&report.directories),
            "files": n(&report.files),
            "files_classified": n(&report.classified),
            "bytes_classified": n(&report.bytes),
            "files_sampled": n(&report.sampled_count),
            "sampled_paths": report.sampled_list(),
            "symlinks": n(&report.symlinks),
            "special_files": n(&report.special),
            "vanished": n(&report.vanished),
            "processes": document.processes.looked_at,
            "credentials_not_shown": document.entries.len() - shown.len(),
            "seconds": document.elapsed.as_secs_f64(),
        },
    })
}

/// `{"from", "to", "changes"}`.
#[must_use]
pub fn diff_document(before: &Run, after: &Run, changes: &[Change]) -> Value {
    let changes: Vec<Value> = changes
        .iter()
        .map(|change| {
            let mut value = json!({"change": change.name(), "credential": entry(change.entry(), after.started)});
            match change {
                Change::Rotated { old, .. } => value["previous"] = entry(old, after.started),
                Change::Moved { left, entered, .. } => {
                    value["left"] = json!(left);
                    value["entered"] = json!(entered);
                }
                Change::Exposed { exposures, .. } => value["newly"] = json!(exposures),
                Change::Added(_) | Change::Removed(_) => {}
            }
            value
        })
        .collect();
    json!({"from": run(before), "to": run(after), "changes": changes})
}

fn run(run: &Run) -> Value {
    json!({
        "id": run.id,
        "root": run.root,
        "started": rfc3339(run.started),
        "finished": rfc3339(run.finished),
        "processes": run.processes,
        "unreadable": run.unreadable,
        "live": run.live,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn entry(entry: &Entry, now: i64) -> Value {
    let c = &entry.credential;
    json!({
        "kind": c.kind,
        "identifier": c.identifier,
        "fingerprint": c.fingerprint,
        "confidence": c.confidence,
        "privilege": c.privilege,
        "rule": c.rule,
        "attack": c.attack,
        "expires": c.expires.map(rfc3339),
        "first_seen": rfc3339(entry.first_seen),
        "known_since": rfc3339(entry.since()),
        "age_days": (now - entry.since()).max(0) / 86_400,
        "rotated": entry.rotated.map(rfc3339),
        "previous": entry.previous,
        "exposures": entry.exposures,
        "places": entry.places.iter().map(place).collect::<Vec<_>>(),
        "more_places": entry.more_places,
    })
}

fn place(place: &Place) -> Value {
    // Types that serde made cannot fail to become JSON.
    let mut value = serde_json::to_value(place).unwrap_or_default();
    match place {
        Place::File(f) => {
            value["modified"] = json!(rfc3339(f.modified));
            value["mode"] = json!(format!("{:04o}", f.mode));
        }
        Place::Socket(s) => value["mode"] = json!(format!("{:04o}", s.mode)),
        Place::Process(_) => {}
    }
    value
}
