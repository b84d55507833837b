//! What changed between two runs.

use super::model::{Entry, Exposure, Location};
use super::state::{Run, replacements};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Added(Entry),
    Removed(Entry),
    /// Another one is where `old` was.
    Rotated {
        old: Box<Entry>,
        new: Box<Entry>,
    },
    /// The same in other places: gone from some of `left`, now in some of `entered`.
    Moved {
        entry: Entry,
        left: Vec<String>,
        entered: Vec<String>,
    },
    /// Exposed in ways it was not.
    Exposed {
        entry: Entry,
        exposures: Vec<Exposure>,
    },
}

impl Change {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Change::Added(_) => "added",
            Change::Removed(_) => "removed",
            Change::Rotated { .. } => "rotated",
            Change::Moved { .. } => "moved",
            Change::Exposed { .. } => "exposed",
        }
    }

    /// The credential as it is now (or was, when it is gone).
    #[must_use]
    pub fn entry(&self) -> &Entry {
        match self {
            Change::Added(entry)
            | Change::Removed(entry)
            | Change::Moved { entry, .. }
            | Change::Exposed { entry, .. } => entry,
            Change::Rotated { new, .. } => new,
        }
    }
}

/// Compares two runs of one root. When only one of them inspected processes, what is only in processes is left out: it
/// did not come or go.
#[must_use]
pub fn diff(before: (&Run, Vec<Entry>), after: (&Run, Vec<Entry>)) -> Vec<Change> {
    let files_only = before.0.processes != after.0.processes;
    let (before, after) = (scope(before.1, files_only), scope(after.1, files_only));
    let rotated: HashMap<String, String> = replacements(&before, &after).into_iter().collect();
    let replaced: HashSet<&String> = rotated.values().collect();
    let old: BTreeMap<&str, &Entry> = before
        .iter()
        .map(|e| (e.credential.fingerprint.as_str(), e))
        .collect();
    let new: BTreeMap<&str, &Entry> = after
        .iter()
        .map(|e| (e.credential.fingerprint.as_str(), e))
        .collect();
    let mut changes = Vec::new();
    for (fingerprint, entry) in &new {
        let Some(was) = old.get(fingerprint) else {
            changes.push(
                match rotated.get(*fingerprint).and_then(|f| old.get(f.as_str())) {
                    Some(previous) => Change::Rotated {
                        old: Box::new((*previous).clone()),
                        new: Box::new((*entry).clone()),
                    },
                    None => Change::Added((*entry).clone()),
                },
            );
            continue;
        };
        let (left, entered) = places(was, entry);
        if !left.is_empty() || !entered.is_empty() {
            changes.push(Change::Moved {
                entry: (*entry).clone(),
                left,
                entered,
            });
        }
        let codes: HashSet<&str> = was.exposures.iter().map(|e| e.code.as_str()).collect();
        let fresh: Vec<Exposure> = entry
            .exposures
            .iter()
            .filter(|e| !codes.contains(e.code.as_str()))
            .cloned()
            .collect();
        if !fresh.is_empty() {
            changes.push(Change::Exposed {
                entry: (*entry).clone(),
                exposures: fresh,
            });
        }
    }
    for (fingerprint, entry) in &old {
        if !new.contains_key(fingerprint) && !replaced.contains(&entry.credential.fingerprint) {
            changes.push(Change::Removed((*entry).clone()));
        }
    }
    let order = |c: &Change| match c {
        Change::Exposed { .. } => 0,
        Change::Added(_) => 1,
        Change::Rotated { .. } => 2,
        Change::Moved { .. } => 3,
        Change::Removed(_) => 4,
    };
    changes.sort_by_key(|c| {
        (
            order(c),
            std::cmp::Reverse(super::exposure::badness(c.entry())),
        )
    });
    changes
}

fn scope(entries: Vec<Entry>, files_only: bool) -> Vec<Entry> {
    if !files_only {
        return entries;
    }
    let files = entries.into_iter().map(|mut entry| {
        entry.places.retain(|p| matches!(p, Location::File(_)));
        entry
            .exposures
            .retain(|e| e.code != "in-env" && e.code != "in-argv");
        entry
    });
    files.filter(|entry| entry.place_count() > 0).collect()
}

/// Files that one entry has and the other has not. Processes come and go without the credential going anywhere.
fn places(was: &Entry, is: &Entry) -> (Vec<String>, Vec<String>) {
    let files = |entry: &Entry| -> BTreeSet<String> {
        let files = entry.places.iter().filter_map(|p| match p {
            Location::File(f) if f.container.is_empty() => Some(f.path.clone()),
            Location::File(f) => Some(format!("{}:{}", f.container, f.path)),
            _ => None,
        });
        files.collect()
    };
    let (old, new) = (files(was), files(is));
    // Of so many that not all are known, nothing can be said.
    if was.more_places + is.more_places > 0 {
        return (Vec::new(), Vec::new());
    }
    (
        old.difference(&new).cloned().collect(),
        new.difference(&old).cloned().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::{Class, FileLocation, ProcessLocation};
    use keytrail_model::Credential;

    fn entry(fingerprint: &str, paths: &[&str]) -> Entry {
        let credential = Credential {
            kind: "k".into(),
            ..fixtures::credential(fingerprint)
        };
        let places = paths
            .iter()
            .map(|p| {
                Location::File(FileLocation {
                    path: (*p).into(),
                    ..FileLocation::default()
                })
            })
            .collect();
        Entry {
            credential,
            class: Class::default(),
            first_seen: 1,
            rotated: None,
            previous: String::new(),
            places,
            more_places: 0,
            exposures: Vec::new(),
        }
    }

    #[test]
    fn every_kind_of_change() {
        let run = Run::default();
        let exposed = Entry {
            exposures: vec![Exposure {
                code: "world-readable".into(),
                detail: "/e".into(),
            }],
            ..entry("exposed", &["/e"])
        };
        let before = vec![
            entry("same", &["/s"]),
            entry("old", &["/r"]),
            entry("gone", &["/g"]),
            entry("moves", &["/m"]),
            entry("exposed", &["/e"]),
        ];
        let after = vec![
            entry("same", &["/s"]),
            entry("new", &["/r"]),
            entry("moves", &["/n"]),
            entry("more", &["/a"]),
            exposed,
        ];
        let changes = diff((&run, before), (&run, after));
        let said: Vec<_> = changes
            .iter()
            .map(|c| format!("{} {}", c.name(), c.entry().credential.fingerprint))
            .collect();
        assert_eq!(
            said,
            [
                "exposed exposed",
                "added more",
                "rotated new",
                "moved moves",
                "removed gone"
            ]
        );
        assert!(
            matches!(&changes[3], Change::Moved { left, entered, .. } if left == &["/m"] && entered == &["/n"])
        );
    }

    #[test]
    fn processes_not_inspected_did_not_go() {
        let with = Run {
            processes: true,
            ..Run::default()
        };
        let without = Run::default();
        let mut env = entry("env", &[]);
        env.places.push(Location::Process(ProcessLocation {
            count: 1,
            ..ProcessLocation::default()
        }));
        let mut both = entry("both", &["/x"]);
        both.places.extend(env.places.clone());
        let before = vec![env.clone(), both];
        assert!(diff((&with, before), (&without, vec![entry("both", &["/x"])])).is_empty());
        assert_eq!(diff((&with, vec![env]), (&with, vec![])).len(), 1);
    }
}
