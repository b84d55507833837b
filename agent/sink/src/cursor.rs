//! How far each sink is: a small database beside the ledger.
//!
//! It is written after a delivery, without waiting for the disk: a killed agent loses nothing of it, and a power cut sets a
//! sink back by moments, which it delivers once more.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const FILE: &str = "sinks.db";

/// A place in the ledger, and what happened up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Whose events are counted.
    pub agent: String,
    /// Everything up to this event is done with.
    pub epoch: u64,
    pub sequence: u64,
    pub delivered: u64,
    pub left_out: u64,
    /// Wall clock, ns; 0 before the first.
    pub last_delivered_ns: u64,
    /// When there was last nothing left to do, wall clock, ns: what was forgotten of before is no loss.
    pub drained_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Cursors(Mutex<Connection>);

impl Cursors {
    /// Opens (or makes) the database. A damaged one is moved aside: what was delivered is delivered again.
    pub fn open(state_dir: &Path) -> Result<Cursors, rusqlite::Error> {
        let path = state_dir.join(FILE);
        let db = match connect(&path) {
            Err(rusqlite::Error::SqliteFailure(e, _))
                if matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
            {
                tracing::error!(path = %path.display(), "how far each sink is cannot be read: they begin anew");
                for suffix in ["", "-wal", "-shm"] {
                    let name = format!("{FILE}{suffix}");
                    let aside = state_dir.join(format!("{name}.damaged"));
                    let _ = std::fs::rename(state_dir.join(name), aside);
                }
                connect(&path)?
            }
            other => other?,
        };
        Ok(Cursors(Mutex::new(db)))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // SQLite's transactions keep the data whole even if a holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn load(&self, name: &str) -> Result<Option<Cursor>, rusqlite::Error> {
        self.db()
            .query_row(
                "SELECT agent, epoch, sequence, delivered, left_out, last_delivered, drained FROM cursors WHERE name = ?1",
                [name],
                |r| {
                    let unsigned = |i| r.get::<_, i64>(i).map(i64::cast_unsigned);
                    Ok(Cursor {
                        agent: r.get(0)?,
                        epoch: unsigned(1)?,
                        sequence: unsigned(2)?,
                        delivered: unsigned(3)?,
                        left_out: unsigned(4)?,
                        last_delivered_ns: unsigned(5)?,
                        drained_ns: unsigned(6)?,
                    })
                },
            )
            .optional()
    }

    pub fn save(&self, name: &str, cursor: &Cursor) -> Result<(), rusqlite::Error> {
        let db = self.db();
        let mut insert = db.prepare_cached(
            "INSERT OR REPLACE INTO cursors
                 (name, agent, epoch, sequence, delivered, left_out, last_delivered, drained)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        insert
            .execute(params![
                name,
                cursor.agent,
                cursor.epoch.cast_signed(),
                cursor.sequence.cast_signed(),
                cursor.delivered.cast_signed(),
                cursor.left_out.cast_signed(),
                cursor.last_delivered_ns.cast_signed(),
                cursor.drained_ns.cast_signed(),
            ])
            .map(drop)
    }

    /// Forgets those with this beginning that are not in the list.
    pub fn keep_only(&self, prefix: &str, names: &[String]) -> Result<(), rusqlite::Error> {
        let db = self.db();
        let mut query = db.prepare("SELECT name FROM cursors")?;
        let known: Vec<String> = query
            .query_map([], |r| r.get(0))?
            .collect::<Result<_, _>>()?;
        for name in known {
            if name.starts_with(prefix) && !names.contains(&name) {
                db.execute("DELETE FROM cursors WHERE name = ?1", [name])?;
            }
        }
        Ok(())
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    // SQLite gives its -wal and -shm files the database's mode, so the file is made with the right one first. Where that
    // fails, so will SQLite, and say why.
    let _ = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|f| f.set_permissions(Permissions::from_mode(0o600)));
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(2))?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA trusted_schema = OFF;
         CREATE TABLE IF NOT EXISTS cursors (
             name           TEXT PRIMARY KEY,   -- sink:NAME, response:NAME
             agent          TEXT NOT NULL,
             epoch          INTEGER NOT NULL,
             sequence       INTEGER NOT NULL,
             delivered      INTEGER NOT NULL,
             left_out       INTEGER NOT NULL,
             last_delivered INTEGER NOT NULL,   -- wall clock, ns
             drained        INTEGER NOT NULL    -- wall clock, ns
         ) STRICT, WITHOUT ROWID;",
    )?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let cursor = Cursor {
            agent: "a".into(),
            epoch: 3,
            sequence: 77,
            delivered: 12,
            left_out: 1,
            last_delivered_ns: 5,
            drained_ns: 6,
        };
        {
            let cursors = Cursors::open(dir.path()).unwrap();
            assert_eq!(cursors.load("sink:x").unwrap(), None);
            cursors.save("sink:x", &Cursor::default()).unwrap();
            cursors.save("sink:x", &cursor).unwrap();
            cursors.save("response:x", &Cursor::default()).unwrap();
            cursors.save("response:y", &Cursor::default()).unwrap();
        }
        let cursors = Cursors::open(dir.path()).unwrap();
        assert_eq!(cursors.load("sink:x").unwrap().unwrap(), cursor);
        cursors
            .keep_only("response:", &["response:y".into()])
            .unwrap();
        assert_eq!(cursors.load("response:x").unwrap(), None);
        assert!(cursors.load("response:y").unwrap().is_some());
        assert!(cursors.load("sink:x").unwrap().is_some());
        let mode = std::fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), vec![7; 8192]).unwrap();
        let cursors = Cursors::open(dir.path()).unwrap();
        assert_eq!(cursors.load("sink:x").unwrap(), None);
        cursors.save("sink:x", &Cursor::default()).unwrap();
        assert!(dir.path().join("sinks.db.damaged").exists());
    }
}
