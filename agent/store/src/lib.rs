//! What the agent remembers across restarts: who it is, its runs, credentials and recent events.
//!
//! One SQLite file in the state directory (0700, the file 0600). Events carry fingerprints and redacted arguments
//! only, so nothing here is secret; `tests/ledger.rs` and the end-to-end tests look for planted secrets in it.

pub mod answer;
mod history;
mod outbox;
mod read;
mod schema;
mod store;
mod writer;

use keytrail_findings::Repeat;
use keytrail_host::clock::wall_ns;
use keytrail_model::EventKind;
use keytrail_proto::v1::Event;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use history::{Act, DecoySeen, KnownFindings, PlaceSeen, ProgramSeen};
pub use outbox::Publish;
pub use read::{ReadError, Reader, Resumed};
use store::Store;
pub use store::{KnownCredential, Retention, RunInfo};
pub use writer::Unkept;
use writer::Writer;

/// The open ledger. One process at a time has it.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<Mutex<Store>>,
    writer: Writer,
    path: PathBuf,
    // Held for its lock.
    _lock: File,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another agent has this state directory.
    #[error(
        "another agent uses the state directory {0}: stop it or choose another with --state-dir"
    )]
    InUse(PathBuf),
    #[error("{what} {path}: {source}")]
    Io {
        what: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path}: {source}")]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
    /// Written by a newer keytrail.
    #[error("{path} was written by a newer keytrail (schema {version}): upgrade, or move it away")]
    Newer { path: PathBuf, version: i64 },
    /// The system's random numbers failed.
    #[error("the system gave no random numbers")]
    Random,
    /// The disk took longer than there was time.
    #[error("the disk did not take the last events in time")]
    Slow,
    /// It leads elsewhere, or is somebody else's.
    #[error("the state directory {0} {1}: choose another with --state-dir")]
    Foreign(PathBuf, String),
}

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
        own(dir)?;
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
        let path = dir.join("keytrail.db");
        let store = Arc::new(Mutex::new(Store::open(&path, retention)?));
        let writer =
            Writer::start(store.clone()).map_err(io_error("cannot start the writer for", dir))?;
        Ok(Ledger {
            store,
            writer,
            path,
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

    /// From now on `publish` gets every event that is recorded, in order, once it is on disk (on the writer's thread),
    /// or when that takes too long (on the thread that calls [`Ledger::overdue`]).
    pub fn publish(&self, publish: Publish) {
        self.writer.outbox().open(publish);
    }

    /// Publishes what has waited too long for the disk. To be called several times a second.
    pub fn overdue(&self) {
        self.writer.outbox().overdue();
    }

    /// Queues what an inspection of a file found. Never waits.
    pub fn place(&self, seen: PlaceSeen) {
        self.writer.place(seen);
    }

    /// Queues the content of an executable. Never waits.
    pub fn program(&self, seen: ProgramSeen) {
        self.writer.program(seen);
    }

    /// Queues what is usual for a credential: JSON of the stage of findings; `None` when it is forgotten. Never waits: what
    /// does not get to the disk is in [`Ledger::unkept`].
    pub fn baseline(&self, fingerprint: String, body: Option<String>) {
        self.writer.baseline(fingerprint, body);
    }

    /// Queues that a finding was made again. Never waits, as [`Ledger::baseline`].
    pub fn repeat(&self, repeat: Repeat) {
        self.writer.repeat(repeat);
    }

    /// What of [`Ledger::baseline`] and [`Ledger::repeat`] did not get to the disk since the last time, and never will
    /// unless it is queued again.
    #[must_use]
    pub fn unkept(&self) -> Unkept {
        self.writer.unkept()
    }

    /// Queues that a decoy was planted or removed. Never waits.
    pub fn decoy(&self, seen: DecoySeen) {
        self.writer.decoy(seen);
    }

    /// What the stage of findings has to be told at a start.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn findings(&self) -> Result<KnownFindings, LedgerError> {
        store::lock(&self.store).findings()
    }

    /// Answers questions about what is on disk, from any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(&self.path)
    }

    /// Queues an event. Never waits: when the queue is full the event is counted in [`Ledger::overflowed`].
    ///
    /// Beginnings and ends of processes are left out: they are told to who watches, and nobody can ask for them later.
    pub fn record(&self, event: Arc<Event>) {
        if EventKind::of_number(event.kind).is_some_and(EventKind::is_context) {
            self.writer.pass(&event);
        } else {
            self.writer.record(event);
        }
    }

    /// Events, and notes of places, programs and decoys, that were not recorded: the disk did not take them, or was slower than
    /// they came for long.
    pub fn overflowed(&self) -> u64 {
        self.writer.overflowed()
    }

    /// Waits until everything recorded so far is on disk.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// As [`Ledger::flush`], and no longer than until then; whether it was in time.
    #[must_use]
    pub fn flush_by(&self, end: Instant) -> bool {
        self.writer.flush_by(end)
    }

    /// Writes what is queued and marks the run as ended cleanly, if the disk lets it within this time.
    ///
    /// # Errors
    /// The database cannot be written, or not in time.
    pub fn end_run(self, within: Duration) -> Result<(), LedgerError> {
        let Ledger {
            store,
            writer,
            path: _,
            _lock,
        } = self;
        let end = Instant::now() + within;
        if !writer.stop(within) {
            return Err(LedgerError::Slow);
        }
        let left = end.saturating_duration_since(Instant::now());
        store::lock(&store).end_run(wall_ns(), left)
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

/// Makes sure that a state directory is this user's own, and not reached by a link that another user may change: what
/// is written to it would be written elsewhere.
///
/// # Errors
/// It is neither; or it cannot be inspected.
pub fn own(dir: &Path) -> Result<(), LedgerError> {
    let me = rustix::process::geteuid().as_raw();
    let io_error = |source| LedgerError::Io {
        what: "cannot inspect the state directory".to_owned(),
        path: dir.to_owned(),
        source,
    };
    let meta = std::fs::symlink_metadata(dir).map_err(io_error)?;
    if meta.is_symlink() {
        let target = std::fs::metadata(dir).map_err(io_error)?;
        if meta.uid() != me || target.uid() != me {
            let why = "is a link of another user, or to what is another user's".to_owned();
            return Err(LedgerError::Foreign(dir.to_owned(), why));
        }
    } else if meta.uid() != me {
        let why = format!("belongs to user {}, and this is user {me}", meta.uid());
        return Err(LedgerError::Foreign(dir.to_owned(), why));
    }
    Ok(())
}
