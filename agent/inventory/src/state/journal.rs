//! What the running agent saw of single places since the last whole look: with a run, the state of now.

use super::{Run, State, StateError};
use crate::live::Change;
use crate::merge::Inventory;
use crate::model::{Entry, JOURNAL, Location};
use rusqlite::params;

/// Places kept; the oldest go first.
const MAX_LOCATIONS: i64 = 100_000;

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS places (
  place TEXT PRIMARY KEY, changed INTEGER NOT NULL, entries TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS places_changed ON places (changed);
";

/// The root of the host: what the agent sees is seen from there.
pub const HOST: &str = "/";

impl State {
    /// Notes what is in places now, and since when their credentials are known.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of it is in it.
    pub fn note(&mut self, changes: &[Change]) -> Result<(), StateError> {
        let error = self.error();
        let tx = self.db.transaction().map_err(&error)?;
        {
            let mut place = tx
                .prepare(
                    "INSERT OR REPLACE INTO places (place, changed, entries) VALUES (?1, ?2, ?3)",
                )
                .map_err(&error)?;
            let mut credential = tx
                .prepare(
                    "INSERT INTO credentials (root, fingerprint, first_seen, last_seen, rotated, previous)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (root, fingerprint)
                     DO UPDATE SET last_seen = ?4, rotated = coalesce(?5, rotated),
                     previous = CASE WHEN ?5 IS NULL THEN previous ELSE ?6 END",
                )
                .map_err(&error)?;
            for change in changes {
                // Types that serde made cannot fail to become JSON.
                let Ok(json) = serde_json::to_string(&change.entries) else {
                    continue;
                };
                place
                    .execute(params![change.place, change.changed, json])
                    .map_err(&error)?;
                for entry in &change.entries {
                    credential
                        .execute(params![
                            HOST,
                            entry.credential.fingerprint,
                            entry.first_seen,
                            change.changed,
                            entry.rotated,
                            entry.previous
                        ])
                        .map_err(&error)?;
                }
            }
        }
        tx.execute(
            "DELETE FROM places WHERE place IN
             (SELECT place FROM places ORDER BY changed DESC LIMIT -1 OFFSET ?1)",
            params![MAX_LOCATIONS],
        )
        .map_err(&error)?;
        tx.commit().map_err(&error)
    }

    /// Changes the agent noted from `since` on below `root`, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read. A row that is not understood is left out.
    pub fn changes(&self, root: &str, since: i64) -> Result<Vec<Change>, StateError> {
        let error = self.error();
        let mut query = self
            .db
            .prepare("SELECT place, changed, entries FROM places WHERE changed >= ?1 ORDER BY changed, place")
            .map_err(&error)?;
        let rows = query
            .query_map([since], |r| {
                Ok((
                    r.get::<_, String>(0)?,
                    r.get::<_, i64>(1)?,
                    r.get::<_, String>(2)?,
                ))
            })
            .map_err(&error)?;
        let mut changes = Vec::new();
        for row in rows {
            let (place, changed, json) = row.map_err(&error)?;
            if let Ok(entries) = serde_json::from_str(&json)
                && below(&place, root)
            {
                changes.push(Change {
                    place,
                    changed,
                    entries,
                });
            }
        }
        Ok(changes)
    }

    /// A run of a root with everything the agent saw below it since; `None` when it saw nothing.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn since(&self, run: &Run) -> Result<Option<(Run, Vec<Entry>)>, StateError> {
        let changes = self.changes(&run.root, run.started)?;
        let Some(last) = changes.last().map(|c| c.changed) else {
            return Ok(None);
        };
        let mut entries = apply(self.entries(run)?, changes);
        self.recall_known(&run.root, &mut entries)?;
        let now = Run {
            id: 0,
            started: last.max(run.finished),
            finished: last.max(run.finished),
            live: true,
            ..run.clone()
        };
        Ok(Some((now, entries)))
    }

    /// Everything known of the host: its last run, if there is one, and what the agent saw since.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn host(&self) -> Result<(Option<Run>, Vec<Entry>), StateError> {
        let run = self.runs(HOST, 1)?.pop();
        let entries = match &run {
            Some(run) => self.entries(run)?,
            None => Vec::new(),
        };
        let changes = self.changes(HOST, run.as_ref().map_or(0, |r| r.started))?;
        let mut entries = apply(entries, changes);
        self.recall_known(HOST, &mut entries)?;
        Ok((run, entries))
    }
}

/// Whether a place is below a root. Processes and sockets are not reported by the agent's journal.
fn below(place: &str, root: &str) -> bool {
    let Some(path) = place.strip_prefix("file:").and_then(|p| p.split_once(':')) else {
        return false;
    };
    root == HOST
        || (path.0.is_empty()
            && path
                .1
                .strip_prefix(root)
                .is_some_and(|rest| rest.starts_with('/')))
}

fn apply(entries: Vec<Entry>, changes: Vec<Change>) -> Vec<Entry> {
    let mut inventory = Inventory::default();
    for entry in entries {
        inventory.load(entry);
    }
    for change in changes {
        let found: Vec<_> = change
            .entries
            .into_iter()
            .flat_map(|e| {
                let credential = e.credential;
                let one = move |mut place: Location| {
                    if let Location::File(f) = &mut place {
                        f.root = JOURNAL;
                    }
                    (credential.clone(), place)
                };
                e.places.into_iter().map(one)
            })
            .collect();
        inventory.replace_place(&change.place, found, change.changed);
    }
    inventory.into_entries()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::{Class, FileLocation};

    fn entry(fingerprint: &str, path: &str, seen: i64) -> Entry {
        Entry {
            credential: fixtures::credential(fingerprint),
            class: Class::default(),
            first_seen: seen,
            rotated: None,
            previous: String::new(),
            places: vec![Location::File(FileLocation {
                path: path.into(),
                ..FileLocation::default()
            })],
            more_places: 0,
            exposures: Vec::new(),
        }
    }

    fn change(path: &str, changed: i64, entries: Vec<Entry>) -> Change {
        Change {
            place: format!("file::{path}"),
            changed,
            entries,
        }
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries
            .iter()
            .map(|e| e.credential.fingerprint.as_str())
            .collect()
    }

    #[test]
    fn a_run_and_what_was_seen_since() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        let run = Run {
            root: "/srv".into(),
            started: 100,
            finished: 110,
            ..Run::default()
        };
        let before = [
            entry("old", "/srv/a", 100),
            entry("gone", "/srv/b", 100),
            entry("stays", "/srv/c", 100),
        ];
        state.store(&run, &before).unwrap();
        let run = state.runs("/srv", 1).unwrap().pop().unwrap();
        assert!(state.since(&run).unwrap().is_none());
        let rotated = Entry {
            rotated: Some(150),
            previous: "old".into(),
            ..entry("new", "/srv/a", 150)
        };
        state
            .note(&[
                change("/srv/a", 150, vec![rotated]),
                change("/srv/b", 160, Vec::new()),
                change("/srv/d", 170, vec![entry("added", "/srv/d", 170)]),
                change("/srvx/e", 180, vec![entry("elsewhere", "/srvx/e", 180)]),
                change("/srv/f", 90, vec![entry("before", "/srv/f", 90)]),
            ])
            .unwrap();
        let (now, entries) = state.since(&run).unwrap().unwrap();
        assert_eq!(names(&entries), ["added", "new", "stays"]);
        assert_eq!((now.live, now.finished), (true, 170));
        assert_eq!(
            (entries[1].rotated, entries[1].first_seen),
            (Some(150), 150)
        );

        // A whole inspection of that directory afterwards knows since when.
        let mut again = [entry("added", "/srv/d", 500), entry("new", "/srv/a", 500)];
        state.recall("/srv", &mut again, 500).unwrap();
        assert_eq!(
            (again[0].first_seen, again[1].first_seen, again[1].rotated),
            (170, 150, Some(150))
        );
        let (run, host) = state.host().unwrap();
        assert!(run.is_none());
        assert_eq!(names(&host), ["added", "before", "elsewhere", "new"]);
    }
}
