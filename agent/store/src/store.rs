//! The database itself: opened, migrated, replaced when corrupt.

use super::LedgerError;
use super::history::{self, DecoySeen, KnownFindings, PlaceSeen, ProgramSeen};
use super::schema::MIGRATIONS;
use keytrail_findings::facts::GapFacts;
use keytrail_findings::{Facts, Repeat};
use keytrail_proto::v1::Event;
use prost::Message as _;
use ring::rand::SecureRandom as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// `auto_vacuum` of a file that gives pages back in steps.
const INCREMENTAL: i64 = 2;
/// Corrupt databases kept beside the living one.
const MAX_ASIDE: usize = 3;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Most events.
    pub events: u64,
    /// Oldest event, days.
    pub days: u32,
    /// Bytes of everything together.
    pub bytes: u64,
    /// Oldest hour of uses, days.
    pub history_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            events: 200_000,
            days: 30,
            bytes: 512 << 20,
            history_days: 90,
        }
    }
}

/// What an agent learns when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Random identity of this installation, 32 hex digits.
    pub agent: String,
    /// Number of this start, from 1.
    pub epoch: u64,
    /// Last sign of life of the run before this one.
    pub previous_alive_wall_ns: Option<u64>,
    /// Whether that run ended cleanly; false when there was none.
    pub previous_clean: bool,
    /// That one ran in another boot of the host.
    pub rebooted: bool,
}

/// A credential as the ledger remembers it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCredential {
    pub fingerprint: String,
    pub kind: String,
    pub identifier: String,
    pub confidence: f64,
    pub first_seen_wall_ns: u64,
    pub last_seen_wall_ns: u64,
    pub reads: u64,
    pub exposures: u64,
    pub sends: u64,
}

pub(super) fn lock(store: &Arc<Mutex<Store>>) -> MutexGuard<'_, Store> {
    // SQLite's transactions keep the data whole even if a holder panicked.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    retention: Retention,
    run: Option<Run>,
    cache: history::Cache,
}

/// What is written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub events: Vec<Arc<Event>>,
    pub places: Vec<PlaceSeen>,
    pub programs: Vec<ProgramSeen>,
    pub baselines: Vec<(String, Option<String>)>,
    pub repeats: Vec<Repeat>,
    pub decoys: Vec<DecoySeen>,
    /// What was lost before: reported with the next that is not.
    pub lost: Option<GapFacts>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.places.is_empty()
            && self.programs.is_empty()
            && self.baselines.is_empty()
            && self.repeats.is_empty()
            && self.decoys.is_empty()
            && self.lost.is_none()
    }

    pub fn len(&self) -> usize {
        self.losable() + self.baselines.len() + self.repeats.len()
    }

    /// How much of it is gone when it is not written: what is learned is kept by who learned it.
    pub fn losable(&self) -> usize {
        self.events.len() + self.places.len() + self.programs.len() + self.decoys.len()
    }
}

#[derive(Clone, Debug)]
struct Run {
    epoch: u64,
    boot_id: String,
    started: u64,
}

impl Store {
    pub fn open(path: &Path, retention: Retention) -> Result<Store, LedgerError> {
        let connection = match connect(path) {
            Err(LedgerError::Database { source, .. }) if is_corrupt(&source) => {
                move_aside(path, &source)?;
                connect(path)?
            }
            other => other?,
        };
        Ok(Store {
            path: path.into(),
            connection,
            retention,
            run: None,
            cache: history::Cache::default(),
        })
    }

    fn database(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::Database {
            path: self.path.clone(),
            source,
        }
    }

    /// Does `work` in a transaction; when the file turns out to be corrupt, once more on a new one.
    fn transact<T>(
        &mut self,
        mut work: impl FnMut(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, LedgerError> {
        let mut run = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        match run(&mut self.connection) {
            Err(e) if is_corrupt(&e) => {
                move_aside(&self.path, &e)?;
                self.connection = connect(&self.path)?;
                if let Some(current) = self.run.clone() {
                    let insert = insert_run(&self.connection, &current);
                    insert.map_err(|e| self.database(e))?;
                }
                run(&mut self.connection).map_err(|e| self.database(e))
            }
            other => other.map_err(|e| self.database(e)),
        }
    }

    pub fn begin_run(&mut self, boot_id: &str, now: u64) -> Result<RunInfo, LedgerError> {
        let fresh = random_id()?;
        let info = self.transact(|db| {
            let known: Option<String> =
                db.query_row("SELECT id FROM agent LIMIT 1", [], |r| r.get(0)).optional()?;
            let agent = match known {
                Some(id) => id,
                None => {
                    db.execute("INSERT INTO agent (id, created) VALUES (?1, ?2)", params![fresh, now as i64])?;
                    fresh.clone()
                }
            };
            let previous = db
                .query_row(
                    "SELECT epoch, boot_id, alive_wall_ns, clean FROM runs ORDER BY epoch DESC LIMIT 1",
                    [],
                    |r| {
                        Ok((
                            r.get::<_, i64>(0)? as u64,
                            r.get::<_, String>(1)?,
                            r.get::<_, i64>(2)? as u64,
                            r.get::<_, bool>(3)?,
                        ))
                    },
                )
                .optional()?;
            let epoch = previous.as_ref().map_or(0, |p| p.0) + 1;
            insert_run(db, &Run { epoch, boot_id: boot_id.into(), started: now })?;
            // Runs are a few bytes each, but a crash loop makes many.
            db.execute("DELETE FROM runs WHERE epoch <= ?1 - 10000", [epoch as i64])?;
            Ok(RunInfo {
                agent,
                epoch,
                previous_alive_wall_ns: previous.as_ref().map(|p| p.2),
                previous_clean: previous.as_ref().is_some_and(|p| p.3),
                rebooted: previous.is_some_and(|p| p.1 != boot_id),
            })
        })?;
        self.run = Some(Run {
            epoch: info.epoch,
            boot_id: boot_id.into(),
            started: now,
        });
        Ok(info)
    }

    pub fn heartbeat(&mut self, now: u64) -> Result<(), LedgerError> {
        let Some(epoch) = self.run.as_ref().map(|r| r.epoch) else {
            return Ok(());
        };
        self.transact(|db| {
            db.execute(
                "UPDATE runs SET alive_wall_ns = ?2 WHERE epoch = ?1 AND alive_wall_ns < ?2",
                params![epoch as i64, now as i64],
            )
            .map(drop)
        })
    }

    /// Notes a clean end; waits for another process that has the database locked no longer than `within`.
    pub fn end_run(&mut self, now: u64, within: Duration) -> Result<(), LedgerError> {
        self.connection
            .busy_timeout(within)
            .map_err(|e| self.database(e))?;
        let Some(epoch) = self.run.take().map(|r| r.epoch) else {
            return Ok(());
        };
        self.transact(|db| {
            db.execute(
                "UPDATE runs SET alive_wall_ns = max(alive_wall_ns, ?2), clean = 1 WHERE epoch = ?1",
                params![epoch as i64, now as i64],
            )
            .map(drop)
        })?;
        // A short file is easier to copy; harmless when a reader prevents it.
        let _ = self
            .connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        Ok(())
    }

    /// Keeps a batch in one transaction: the events, and what they add to memory.
    pub fn write(&mut self, batch: &Batch) -> Result<(), LedgerError> {
        let keep = self.retention.events > 0;
        let epoch = self.run.as_ref().map_or(0, |r| r.epoch);
        let now = keytrail_host::clock::wall_ns() as i64;
        let mut cache = std::mem::take(&mut self.cache);
        let mut again = false;
        let result = self.transact(|db| {
            // On a new file, after a damaged one, nothing has the numbers it had.
            if std::mem::replace(&mut again, true) {
                cache.clear();
            }
            let mut insert = db.prepare_cached(
                "INSERT OR IGNORE INTO events (epoch, sequence, time_ns, kind, fingerprint, pid, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for event in &batch.events {
                let facts = Facts::of(event);
                if keep {
                    let new = insert.execute(params![
                        facts.epoch as i64,
                        facts.sequence as i64,
                        if facts.time_ns == 0 { now } else { facts.time_ns },
                        facts.kind,
                        facts.credential.as_ref().map(|c| c.fingerprint.as_str()),
                        facts.process.as_ref().map(|p| p.pid),
                        event.encode_to_vec(),
                    ])?;
                    if new == 0 {
                        continue;
                    }
                }
                history::remember(db, &mut cache, &facts, now)?;
            }
            for place in &batch.places {
                history::place_seen(db, &mut cache, place)?;
            }
            for program in &batch.programs {
                history::program_seen(db, &mut cache, program)?;
            }
            for (fingerprint, body) in &batch.baselines {
                history::baseline(db, fingerprint, body.as_deref(), now)?;
            }
            for decoy in &batch.decoys {
                history::decoy(db, decoy)?;
            }
            for repeat in &batch.repeats {
                history::repeat(db, repeat)?;
            }
            if let Some(lost) = &batch.lost {
                history::note_gap(db, epoch, lost, ("", ""), now)?;
            }
            Ok(())
        });
        if result.is_ok() {
            self.cache = cache;
        }
        result
    }

    /// Forgets what is older or more than may be kept. `now`: wall clock, ns.
    pub fn prune(&mut self, now: u64) -> Result<(), LedgerError> {
        let retention = self.retention;
        self.transact(|db| history::prune(db, retention, now))?;
        // Texts that nothing used any more are gone.
        self.cache.clear();
        // Pages that are free go back to the file system, a few at a time.
        let vacuum = self
            .connection
            .execute_batch("PRAGMA incremental_vacuum(2000)");
        vacuum.map_err(|e| self.database(e))
    }

    /// What the stage of findings has to be told at a start.
    pub fn findings(&mut self) -> Result<KnownFindings, LedgerError> {
        self.transact(history::known_findings)
    }

    pub fn credentials(&mut self, limit: u32) -> Result<Vec<KnownCredential>, LedgerError> {
        self.transact(|db| {
            let mut query = db.prepare_cached(
                "SELECT fingerprint, kind, identifier, confidence, first_seen, last_seen, reads, exposures, sends
                 FROM credentials ORDER BY last_seen DESC, fingerprint LIMIT ?1",
            )?;
            let rows = query.query_map([limit], |r| {
                let unsigned = |i| r.get::<_, i64>(i).map(|n| n as u64);
                Ok(KnownCredential {
                    fingerprint: r.get(0)?,
                    kind: r.get(1)?,
                    identifier: r.get(2)?,
                    confidence: r.get(3)?,
                    first_seen_wall_ns: unsigned(4)?,
                    last_seen_wall_ns: unsigned(5)?,
                    reads: unsigned(6)?,
                    exposures: unsigned(7)?,
                    sends: unsigned(8)?,
                })
            })?;
            rows.collect()
        })
    }

    pub fn events(&mut self, limit: u32) -> Result<Vec<Event>, LedgerError> {
        let mut bodies: Vec<Vec<u8>> = self.transact(|db| {
            let mut query =
                db.prepare_cached("SELECT body FROM events ORDER BY row DESC LIMIT ?1")?;
            let rows = query.query_map([limit], |r| r.get(0))?;
            rows.collect()
        })?;
        bodies.reverse();
        // A body this version cannot read is left out rather than hiding the others.
        Ok(bodies
            .iter()
            .filter_map(|b| Event::decode(b.as_slice()).ok())
            .collect())
    }
}

fn insert_run(db: &Connection, run: &Run) -> Result<(), rusqlite::Error> {
    db.execute(
        "INSERT INTO runs (epoch, boot_id, started_wall_ns, alive_wall_ns) VALUES (?1, ?2, ?3, ?3)",
        params![run.epoch as i64, run.boot_id, run.started as i64],
    )
    .map(drop)
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let database = |source| LedgerError::Database {
        path: path.into(),
        source,
    };
    // SQLite gives its -wal and -shm files the database's mode, so the file is made with the right one first.
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|f| f.set_permissions(std::fs::Permissions::from_mode(0o600)))
        .map_err(|source| LedgerError::Io {
            what: "cannot open".into(),
            path: path.into(),
            source,
        })?;
    let mut db = Connection::open(path).map_err(database)?;
    db.busy_timeout(Duration::from_secs(2)).map_err(database)?;
    // Before there is any table: later it takes a VACUUM, which an old file gets once.
    let vacuumed: i64 = db
        .query_row("PRAGMA auto_vacuum", [], |r| r.get(0))
        .map_err(database)?;
    if vacuumed != INCREMENTAL {
        db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
            .map_err(database)?;
    }
    // NORMAL with WAL: a power cut may lose the last moments, a killed agent nothing.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;
         PRAGMA journal_size_limit = 16777216; PRAGMA trusted_schema = OFF;",
    )
    .map_err(database)?;
    let version: i64 = db
        .query_row("PRAGMA user_version", [], |r| r.get(0))
        .map_err(database)?;
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(LedgerError::Newer {
            path: path.into(),
            version,
        });
    }
    let transaction = db.transaction().map_err(database)?;
    for migration in MIGRATIONS
        .iter()
        .skip(usize::try_from(version).unwrap_or(0))
    {
        transaction.execute_batch(migration).map_err(database)?;
    }
    transaction
        .pragma_update(None, "user_version", known)
        .map_err(database)?;
    transaction.commit().map_err(database)?;
    Ok(db)
}

fn is_corrupt(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Moves the database and its companions away, for whoever wants to inspect it.
fn move_aside(path: &Path, why: &rusqlite::Error) -> Result<(), LedgerError> {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = (1..MAX_ASIDE)
        .find(|n| !name(&format!(".corrupt-{n}")).exists())
        .unwrap_or(MAX_ASIDE);
    let aside = format!(".corrupt-{free}");
    for companion in ["-wal", "-shm"] {
        let _ = std::fs::rename(name(companion), name(&format!("{aside}{companion}")));
    }
    std::fs::rename(path, name(&aside)).map_err(|source| LedgerError::Io {
        what: "cannot move the corrupt ledger aside:".into(),
        path: path.into(),
        source,
    })?;
    tracing::warn!(
        ledger = %path.display(),
        moved_to = %name(&aside).display(),
        reason = %why,
        "the ledger was corrupt and was moved aside; a new one is begun, with a new agent identity"
    );
    Ok(())
}

fn random_id() -> Result<String, LedgerError> {
    let mut bytes = [0u8; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| LedgerError::Random)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
