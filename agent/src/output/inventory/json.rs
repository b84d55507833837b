//! One JSON document. Times are RFC 3339 in UTC, modes octal strings, paths escaped as by `inventory::names::escape`.

use keytrail_inventory::clock::rfc3339;
use keytrail_inventory::diff::Change;
use keytrail_inventory::model::{Entry, Location};
use keytrail_inventory::run::Document;
use keytrail_inventory::state::Run;
use keytrail_inventory::walk::Report;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `{"run", "credentials", "skipped", "errors", "counts"}`, one credential after the other: thousands of them as
/// one tree of values would be most of what an inventory takes of the memory.
///
/// # Errors
/// What the writer gives.
pub fn write_document(
    out: &mut impl io::Write,
    document: &Document,
    report: &Report,
    shown: &[&Entry],
) -> io::Result<()> {
    let all = Whole {
        document,
        report,
        shown,
    };
    serde_json::to_writer_pretty(&mut *out, &all)?;
    out.write_all(b"\n")
}

struct Whole<'a> {
    document: &'a Document,
    report: &'a Report,
    shown: &'a [&'a Entry],
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        let (document, report) = (self.document, self.report);
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let listed = |list: Vec<(String, String)>| -> Vec<Value> {
            list.into_iter()
                .map(|(path, reason)| json!({"path": path, "reason": reason}))
                .collect()
        };
        let counts = json!({
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
            "credentials_not_shown": document.entries.len() - self.shown.len(),
            "seconds": document.elapsed.as_secs_f64(),
        });
        map.serialize_entry("counts", &counts)?;
        map.serialize_entry("credentials", &Credentials(self))?;
        let errors = json!({
            "unreadable": n(&report.unreadable_count),
            "unreadable_paths": listed(report.unreadable_list()),
            "unreadable_processes": document.processes.unreadable,
            "truncated_processes": document.processes.truncated,
            "changed_while_read": n(&report.changed),
            "package_records_not_read": listed(document.unread.clone()),
            "credentials_without_room": document.refused + n(&report.crowded),
        });
        map.serialize_entry("errors", &errors)?;
        map.serialize_entry("run", &run(&document.run))?;
        map.serialize_entry("skipped", &listed(report.skipped()))?;
        map.end()
    }
}

struct Credentials<'a>(&'a Whole<'a>);

impl Serialize for Credentials<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = self.0.document.run.started;
        serializer.collect_seq(self.0.shown.iter().map(|e| entry(e, now)))
    }
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
        "class": entry.class.name(),
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

fn place(place: &Location) -> Value {
    // Types that serde made cannot fail to become JSON.
    let mut value = serde_json::to_value(place).unwrap_or_default();
    match place {
        Location::File(f) => {
            value["modified"] = json!(rfc3339(f.modified));
            value["mode"] = json!(format!("{:04o}", f.mode));
        }
        Location::Socket(s) => value["mode"] = json!(format!("{:04o}", s.mode)),
        Location::Process(_) => {}
    }
    value
}
