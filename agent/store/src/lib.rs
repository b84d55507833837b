//! What the agent remembers across restarts: who it is, its runs, credentials and recent events.
//!
//! One SQLite file in the state directory (0700, the file 0600). Events carry fingerprints and redacted arguments
//! only, so nothing here is secret; `tests/ledger.rs` and the end-to-end tests look for planted secrets in it.

mod schema;
mod store;
mod writer;

use keytrail_host::clock::wall_ns;
use keytrail_proto::v1::Event;
use rustix::fs::FlockOperation;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use store::Store;
pub use store::{KnownCredential, Retention, RunInfo};
use writer::Writer;

/// The open ledger. One process at a time has it.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<Mutex<Store>>,
    writer: Writer,
    // Held for its lock.
    _lock: File,
}

/// Why the ledger cannot be used.
#[derive(Debug)]
pub enum LedgerError {
    /// Another agent has this state directory.
    InUse(PathBuf),
    Io {
        what: String,
        path: PathBuf,
        source: io::Error,
    },
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    /// Written by a newer keytrail.
    Newer { path: PathBuf, version: i64 },
    /// The system's random numbers failed.
    Random,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::InUse(dir) => write!(
                f,
                "another agent uses the state directory {}: stop it or choose another with --state-dir",
                dir.display()
            ),
            LedgerError::Io { what, path, source } => {
                write!(f, "{what} {}: {source}", path.display())
            }
            LedgerError::Database { path, source } => write!(f, "{}: {source}", path.display()),
            LedgerError::Newer { path, version } => write!(
                f,
                "{} was written by a newer keytrail (schema {version}): upgrade, or move it away",
                path.display()
            ),
            LedgerError::Random => f.write_str("the system gave no random numbers"),
        }
    }
}

impl std::error::Error for LedgerError {}

impl Ledger {
    /// Opens (or makes) the ledger in `dir` with the default [`Retention`].
    ///
    /// A corrupt database is moved aside and a new one begun: the agent gets a new identity, nothing else stops.
    ///
    /// # Errors
    /// The directory cannot be made or is used by another agent; the database is newer or cannot be written.
    pub fn open(dir: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open_with(dir, Retention::default())
    }

    /// As [`Ledger::open`].
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with(dir: &Path, retention: Retention) -> Result<Ledger, LedgerError> {
        let io_error = |what: &str, path: &Path| {
            let (what, path) = (what.to_owned(), path.to_owned());
            move |source| LedgerError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_error("cannot make the state directory", dir))?;
        // It may have been made by a package or by hand with more open permissions.
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(io_error("cannot make private the state directory", dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("cannot open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse(dir.into())),
            Err(e) => return Err(io_error("cannot lock", &lock_path)(e.into())),
        }
        let store = Arc::new(Mutex::new(Store::open(
            &dir.join("keytrail.db"),
            retention,
        )?));
        let writer =
            Writer::start(store.clone()).map_err(io_error("cannot start the writer for", dir))?;
        Ok(Ledger {
            store,
            writer,
            _lock: lock,
        })
    }

    /// Begins a run now.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn begin_run(&self, boot_id: &str) -> Result<RunInfo, LedgerError> {
        self.begin_run_at(boot_id, wall_ns())
    }

    /// Begins a run at `now`, wall-clock nanoseconds since the epoch.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn begin_run_at(&self, boot_id: &str, now: u64) -> Result<RunInfo, LedgerError> {
        store::lock(&self.store).begin_run(boot_id, now)
    }

    /// Notes that the agent is alive at `now` (wall clock, nanoseconds). Costs an atomic store; the writer thread
    /// puts it on disk within half a second.
    pub fn heartbeat(&self, now: u64) {
        self.writer.heartbeat(now);
    }

    /// Queues an event. Never waits: when the queue is full the event is counted in [`Ledger::overflowed`].
    pub fn record(&self, event: Arc<Event>) {
        self.writer.record(event);
    }

    /// Events that were not recorded because the disk was slower than the events for long.
    pub fn overflowed(&self) -> u64 {
        self.writer.overflowed()
    }

    /// Waits until everything recorded so far is on disk.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// Writes what is queued and marks the run as ended cleanly.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn end_run(self) -> Result<(), LedgerError> {
        let Ledger {
            store,
            writer,
            _lock,
        } = self;
        writer.stop();
        store::lock(&store).end_run(wall_ns())
    }

    /// Credentials seen so far, last seen first, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn credentials(&self, limit: u32) -> Result<Vec<KnownCredential>, LedgerError> {
        store::lock(&self.store).credentials(limit)
    }

    /// The newest `limit` events, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events(&self, limit: u32) -> Result<Vec<Event>, LedgerError> {
        store::lock(&self.store).events(limit)
    }
}
