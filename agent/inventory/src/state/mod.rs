//! Earlier runs, in one SQLite file of the state directory: what makes first sight, rotation and `diff` possible.
//! Fingerprints and public facts only.

mod journal;

pub use journal::HOST;

use super::model::Entry;
use super::rotation;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs kept of each root.
const KEEP_RUNS: i64 = 5;
/// Version of the tables.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, root TEXT NOT NULL, started INTEGER NOT NULL, finished INTEGER NOT NULL,
  processes INTEGER NOT NULL, unreadable INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS runs_root ON runs (root, id);
CREATE TABLE IF NOT EXISTS credentials (
  root TEXT NOT NULL, fingerprint TEXT NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL,
  rotated INTEGER, previous TEXT NOT NULL DEFAULT '', PRIMARY KEY (root, fingerprint)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sightings (
  run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE, fingerprint TEXT NOT NULL, entry TEXT NOT NULL,
  PRIMARY KEY (run, fingerprint)) WITHOUT ROWID;
";

/// One stored run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// 0 until it is stored.
    pub id: i64,
    /// Absolute path, escaped.
    pub root: String,
    /// Seconds since the epoch.
    pub started: i64,
    pub finished: i64,
    /// Processes were inspected too.
    pub processes: bool,
    /// Files and directories that could not be read.
    pub unreadable: u64,
    /// No run, but one with what the agent saw since; never stored.
    pub live: bool,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    /// Written by a newer keytrail.
    #[error("{path} was written by a newer keytrail (version {version}): upgrade, or move it away")]
    Newer { path: PathBuf, version: i64 },
}

/// Damaged databases kept beside the living one.
const MAX_ASIDE: usize = 3;

/// Whether the file is at fault, and not the disk or another process.
#[must_use]
pub fn is_corrupt(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Moves the database and its companions away, for whoever wants to inspect it.
fn move_aside(path: &Path, why: &rusqlite::Error) -> Result<(), StateError> {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = (1..MAX_ASIDE)
        .find(|n| !name(&format!(".corrupt-{n}")).exists())
        .unwrap_or(MAX_ASIDE);
    let aside = format!(".corrupt-{free}");
    for companion in ["-journal", "-wal", "-shm"] {
        // There need not be one.
        let _ = std::fs::rename(name(companion), name(&format!("{aside}{companion}")));
    }
    std::fs::rename(path, name(&aside)).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })?;
    tracing::warn!(
        inventory = %path.display(),
        moved_to = %name(&aside).display(),
        reason = %why,
        "the inventory's database was damaged and was set aside; a new one is begun"
    );
    Ok(())
}

/// The open state.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    db: Connection,
}

impl State {
    /// Opens (or makes) `inventory.db` in `dir`, which is made 0700 if it is not there; the file is 0600. A damaged one
    /// is set aside, and a new one begun.
    ///
    /// # Errors
    /// The directory or file cannot be made or written, or is of a newer version.
    pub fn open(dir: &Path) -> Result<State, StateError> {
        let path = dir.join("inventory.db");
        match State::connect(dir, path.clone()) {
            Err(StateError::Database { source, .. }) if is_corrupt(&source) => {
                move_aside(&path, &source)?;
                State::connect(dir, path)
            }
            other => other,
        }
    }

    fn connect(dir: &Path, path: PathBuf) -> Result<State, StateError> {
        let io = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io)?;
        // Made before SQLite does, which would use the umask; its journals take over this file's mode.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(io)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(io)?;
        let database = |source| StateError::Database {
            path: path.clone(),
            source,
        };
        let db = Connection::open(&path).map_err(database)?;
        db.busy_timeout(Duration::from_secs(10)).map_err(database)?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |r| r.get(0))
            .map_err(database)?;
        if version > VERSION {
            return Err(StateError::Newer { path, version });
        }
        db.execute_batch("PRAGMA foreign_keys = ON;")
            .map_err(database)?;
        db.execute_batch(SCHEMA).map_err(database)?;
        db.execute_batch(journal::SCHEMA).map_err(database)?;
        db.pragma_update(None, "user_version", VERSION)
            .map_err(database)?;
        Ok(State { path, db })
    }

    /// Notes that the database turned out to be damaged: it is set aside, and a new one is begun.
    ///
    /// # Errors
    /// The file cannot be moved, or no new one made.
    pub fn begin_anew(&mut self, why: &rusqlite::Error) -> Result<(), StateError> {
        move_aside(&self.path, why)?;
        let dir = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        *self = State::connect(&dir, self.path.clone())?;
        Ok(())
    }

    fn error(&self) -> impl Fn(rusqlite::Error) -> StateError + use<> {
        let path = self.path.clone();
        move |source| StateError::Database {
            path: path.clone(),
            source,
        }
    }

    /// Gives entries what earlier runs of this root know: first sight and rotation. A run that found nothing is over
    /// all the same.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn recall(&self, root: &str, entries: &mut [Entry], now: i64) -> Result<(), StateError> {
        self.recall_known(root, entries)?;
        let Some(last) = self.runs(root, 1)?.pop() else {
            return Ok(());
        };
        let before = self.entries(&last)?;
        let replaced: HashMap<String, String> =
            replacements(&before, entries).into_iter().collect();
        for entry in entries.iter_mut() {
            // The agent saw it happen: it knows better when.
            let seen = entry.rotated.is_some_and(|at| at >= last.started);
            if let Some(previous) = replaced.get(&entry.credential.fingerprint)
                && !seen
            {
                entry.rotated = Some(now);
                entry.previous.clone_from(previous);
            }
        }
        Ok(())
    }

    /// First sight and rotation as far as they are stored, for this root or, where the agent looks on, for the host.
    fn recall_known(&self, root: &str, entries: &mut [Entry]) -> Result<(), StateError> {
        let error = self.error();
        let mut known = self
            .db
            .prepare(
                "SELECT min(first_seen), max(rotated), coalesce(max(CASE WHEN rotated IS NULL THEN NULL ELSE previous END), '')
                 FROM credentials WHERE root IN (?1, ?2) AND fingerprint = ?3 HAVING count(*) > 0",
            )
            .map_err(&error)?;
        for entry in entries.iter_mut() {
            let row: Option<(i64, Option<i64>, String)> = known
                .query_row(params![root, HOST, entry.credential.fingerprint], |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?))
                })
                .optional()
                .map_err(&error)?;
            if let Some((first_seen, rotated, previous)) = row {
                entry.first_seen = first_seen;
                entry.rotated = rotated;
                entry.previous = previous;
            }
        }
        Ok(())
    }

    /// Stores a run; older ones than the last few of its root are forgotten.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of the run is in it.
    pub fn store(&mut self, run: &Run, entries: &[Entry]) -> Result<i64, StateError> {
        let error = self.error();
        let tx = self.db.transaction().map_err(&error)?;
        tx.execute(
            "INSERT INTO runs (root, started, finished, processes, unreadable) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![run.root, run.started, run.finished, run.processes, i64::try_from(run.unreadable).unwrap_or(i64::MAX)],
        )
        .map_err(&error)?;
        let id = tx.last_insert_rowid();
        {
            let mut sighting =
                tx.prepare("INSERT OR REPLACE INTO sightings (run, fingerprint, entry) VALUES (?1, ?2, ?3)").map_err(&error)?;
            let mut credential = tx
                .prepare(
                    "INSERT INTO credentials (root, fingerprint, first_seen, last_seen, rotated, previous)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (root, fingerprint)
                     DO UPDATE SET last_seen = ?4, rotated = ?5, previous = ?6",
                )
                .map_err(&error)?;
            for entry in entries {
                // Types that serde made cannot fail to become JSON; if one did, the run is worth more than the entry.
                let Ok(json) = serde_json::to_string(entry) else {
                    continue;
                };
                sighting
                    .execute(params![id, entry.credential.fingerprint, json])
                    .map_err(&error)?;
                credential
                    .execute(params![
                        run.root,
                        entry.credential.fingerprint,
                        entry.first_seen,
                        run.finished,
                        entry.rotated,
                        entry.previous
                    ])
                    .map_err(&error)?;
            }
        }
        tx.execute(
            "DELETE FROM runs WHERE root = ?1 AND id NOT IN (SELECT id FROM runs WHERE root = ?1 ORDER BY id DESC LIMIT ?2)",
            params![run.root, KEEP_RUNS],
        )
        .map_err(&error)?;
        if run.root == HOST {
            // A whole look knows better than what was seen before it.
            tx.execute(
                "DELETE FROM places WHERE changed < ?1",
                params![run.started],
            )
            .map_err(&error)?;
        }
        tx.commit().map_err(&error)?;
        Ok(id)
    }

    /// The last `count` runs of a root, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn runs(&self, root: &str, count: i64) -> Result<Vec<Run>, StateError> {
        let error = self.error();
        let mut query = self
            .db
            .prepare("SELECT id, root, started, finished, processes, unreadable FROM runs WHERE root = ?1 ORDER BY id DESC LIMIT ?2")
            .map_err(&error)?;
        let rows = query
            .query_map(params![root, count], |r| {
                Ok(Run {
                    id: r.get(0)?,
                    root: r.get(1)?,
                    started: r.get(2)?,
                    finished: r.get(3)?,
                    processes: r.get(4)?,
                    unreadable: u64::try_from(r.get::<_, i64>(5)?).unwrap_or(0),
                    live: false,
                })
            })
            .map_err(&error)?;
        let mut runs = rows.collect::<Result<Vec<_>, _>>().map_err(&error)?;
        runs.reverse();
        Ok(runs)
    }

    /// What a run found, by fingerprint.
    ///
    /// # Errors
    /// The database cannot be read. An entry that is not understood is left out.
    pub fn entries(&self, run: &Run) -> Result<Vec<Entry>, StateError> {
        let error = self.error();
        let mut query = self
            .db
            .prepare("SELECT entry FROM sightings WHERE run = ?1 ORDER BY fingerprint")
            .map_err(&error)?;
        let rows = query
            .query_map([run.id], |r| r.get::<_, String>(0))
            .map_err(&error)?;
        let mut entries = Vec::new();
        for row in rows {
            if let Ok(entry) = serde_json::from_str(&row.map_err(&error)?) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// One credential as pairing wants it: position, fingerprint, identifier.
type Slot<'a> = (u32, &'a str, &'a str);

/// Place and kind -> what is there, in its order.
fn slots(entries: &[Entry]) -> BTreeMap<(String, &str), Vec<Slot<'_>>> {
    let mut slots: BTreeMap<(String, &str), Vec<Slot<'_>>> = BTreeMap::new();
    for entry in entries {
        let c = &entry.credential;
        for place in &entry.places {
            let ordinal = if let super::model::Location::File(f) = place {
                f.ordinal
            } else {
                0
            };
            slots
                .entry((place.key(), c.kind.as_str()))
                .or_default()
                .push((ordinal, &c.fingerprint, &c.identifier));
        }
    }
    for slot in slots.values_mut() {
        slot.sort_unstable();
    }
    slots
}

/// Which credential took the place of which between two runs: (new, old) fingerprints. One that is still somewhere, or
/// was somewhere before, moved; it did not rotate.
#[must_use]
pub fn replacements(before: &[Entry], after: &[Entry]) -> Vec<(String, String)> {
    let names = |entries: &[Entry]| {
        entries
            .iter()
            .map(|e| e.credential.fingerprint.clone())
            .collect::<HashSet<_>>()
    };
    let (had, has) = (names(before), names(after));
    let old_slots = slots(before);
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for (at, new) in slots(after) {
        let Some(old) = old_slots.get(&at) else {
            continue;
        };
        let strip = |slot: &[Slot<'_>]| {
            slot.iter()
                .map(|s| (s.1.to_owned(), s.2.to_owned()))
                .collect::<Vec<_>>()
        };
        let (old, new) = (strip(old), strip(&new));
        let old: Vec<_> = old.iter().map(|(f, i)| (f.as_str(), i.as_str())).collect();
        let new: Vec<_> = new.iter().map(|(f, i)| (f.as_str(), i.as_str())).collect();
        for (new, old) in rotation::pair(&old, &new) {
            if !had.contains(new) && !has.contains(old) {
                out.entry(new.to_owned()).or_insert_with(|| old.to_owned());
            }
        }
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::model::{Class, FileLocation, Location};
    use std::os::unix::fs::MetadataExt as _;

    fn entry(fingerprint: &str, path: &str) -> Entry {
        let credential = fixtures::credential(fingerprint);
        let place = Location::File(FileLocation {
            path: path.into(),
            ..FileLocation::default()
        });
        Entry {
            credential,
            class: Class::default(),
            first_seen: 100,
            rotated: None,
            previous: String::new(),
            places: vec![place],
            more_places: 0,
            exposures: Vec::new(),
        }
    }

    #[test]
    fn a_damaged_database_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory.db");
        for n in 1..=4 {
            std::fs::write(&path, format!("this is no database {n}").repeat(1_000)).unwrap();
            let mut state = State::open(dir.path()).unwrap();
            state.store(&Run::default(), &[entry("a", "/x")]).unwrap();
        }
        let aside = |n: u32| path.with_file_name(format!("inventory.db.corrupt-{n}"));
        let first = std::fs::read_to_string(aside(1)).unwrap();
        assert!(first.starts_with("this is no database 1"));
        assert!(aside(3).exists() && !aside(4).exists());
    }

    #[test]
    fn runs_are_kept_apart_by_root_and_few() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(&dir.path().join("state")).unwrap();
        for i in 0..8 {
            let run = Run {
                root: "/".into(),
                started: i,
                finished: i,
                ..Run::default()
            };
            state.store(&run, &[entry("a", "/x")]).unwrap();
        }
        state
            .store(
                &Run {
                    root: "/srv".into(),
                    ..Run::default()
                },
                &[],
            )
            .unwrap();
        let runs = state.runs("/", 100).unwrap();
        assert_eq!(
            runs.iter().map(|r| r.started).collect::<Vec<_>>(),
            [3, 4, 5, 6, 7]
        );
        assert_eq!(state.runs("/srv", 100).unwrap().len(), 1);
        assert_eq!(state.entries(&runs[4]).unwrap(), [entry("a", "/x")]);
        let rows: i64 = state
            .db
            .query_row("SELECT count(*) FROM sightings", [], |r| r.get(0))
            .unwrap();
        assert_eq!(rows, 5);
        let mode = |p: &str| std::fs::metadata(dir.path().join(p)).unwrap().mode() & 0o777;
        assert_eq!((mode("state"), mode("state/inventory.db")), (0o700, 0o600));
    }

    #[test]
    fn first_sight_and_rotation_outlive_runs() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path()).unwrap();
        let run = |t| Run {
            root: "/".into(),
            started: t,
            finished: t,
            ..Run::default()
        };
        state
            .store(&run(100), &[entry("a", "/x"), entry("k", "/x")])
            .unwrap();
        let mut second = [
            Entry {
                first_seen: 200,
                ..entry("b", "/x")
            },
            Entry {
                first_seen: 200,
                ..entry("k", "/x")
            },
        ];
        state.recall("/", &mut second, 200).unwrap();
        assert_eq!(
            (
                second[0].first_seen,
                second[0].rotated,
                second[0].previous.as_str()
            ),
            (200, Some(200), "a")
        );
        assert_eq!((second[1].first_seen, second[1].rotated), (100, None));
        state.store(&run(200), &second).unwrap();
        let mut third = [Entry {
            first_seen: 300,
            ..entry("b", "/x")
        }];
        state.recall("/", &mut third, 300).unwrap();
        assert_eq!(
            (
                third[0].first_seen,
                third[0].rotated,
                third[0].previous.as_str()
            ),
            (200, Some(200), "a")
        );
        let mut other = [Entry {
            first_seen: 300,
            ..entry("b", "/x")
        }];
        // What is known of the host holds for its parts; what is known of a part says nothing of another one.
        state.recall("/srv", &mut other, 300).unwrap();
        assert_eq!(other[0].first_seen, 200);
        let part = Run {
            root: "/opt".into(),
            ..run(100)
        };
        state.store(&part, &[entry("p", "/opt/x")]).unwrap();
        let mut other = [Entry {
            first_seen: 300,
            ..entry("p", "/srv/x")
        }];
        state.recall("/srv", &mut other, 300).unwrap();
        assert_eq!(other[0].first_seen, 300);
    }

    #[test]
    fn moved_is_not_rotated() {
        assert_eq!(
            replacements(&[entry("a", "/x")], &[entry("b", "/x")]),
            [("b".into(), "a".into())]
        );
        let swapped = replacements(
            &[entry("a", "/x"), entry("b", "/y")],
            &[entry("b", "/x"), entry("a", "/y")],
        );
        assert!(swapped.is_empty());
        assert!(
            replacements(&[entry("a", "/x")], &[entry("a", "/y"), entry("b", "/x")]).is_empty()
        );
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path())
            .unwrap()
            .db
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            State::open(dir.path()),
            Err(StateError::Newer { version: 99, .. })
        ));
        std::fs::write(
            dir.path().join("inventory.db"),
            "no database at all, just some words that are long enough",
        )
        .unwrap();
        // What is no database is set aside, and a new one begun.
        State::open(dir.path()).unwrap();
        assert!(dir.path().join("inventory.db.corrupt-1").exists());
    }
}
