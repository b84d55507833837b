//! One inventory from beginning to end.

use super::clock;
use super::enrich::{Unread, enrich, enrich_files};
use super::exposure;
use super::model::{Entry, JOURNAL, Location};
use super::names;
use super::process::{self, Processes};
use super::roots;
use super::scan::Scan;
use super::state::{Run, State, StateError};
use super::walk::{self, Report, Walk};
use keytrail_secret::{Classifier, Fingerprinter};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What to inspect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Top directory.
    pub root: PathBuf,
    /// Environments, command lines and agent sockets of running processes.
    pub processes: bool,
    /// Roots of other mount namespaces.
    pub containers: bool,
    pub all_filesystems: bool,
    pub threads: usize,
    /// Age from which a credential is too old, seconds.
    pub max_age: i64,
    /// Where earlier runs and the fingerprint key are; left out of the walk.
    pub state_dir: Option<PathBuf>,
}

/// A finished inventory.
#[derive(Debug)]
pub struct Document {
    pub run: Run,
    /// The worst first.
    pub entries: Vec<Entry>,
    /// Credentials there was no room for.
    pub refused: u64,
    pub processes: Processes,
    /// Records of the host that were not read: path and reason.
    pub unread: Unread,
    pub elapsed: Duration,
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot read {path}: {source}")]
    Root { path: PathBuf, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Threads(io::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Inspects everything `options` name. `report` counts while it runs; setting its `stop` ends the walk early.
///
/// # Errors
/// The root cannot be entered or no thread be started. Nothing inside the root is an error: it is counted in `report`.
pub fn take(
    options: &Options,
    classifier: &Classifier,
    fingerprinter: &Fingerprinter,
    report: &Report,
) -> Result<Document, RunError> {
    let begun = Instant::now();
    let started = clock::now();
    let host = roots::directory(&options.root).map_err(|source| RunError::Root {
        path: options.root.clone(),
        source,
    })?;
    let name = if host.shown.is_empty() {
        "/".to_owned()
    } else {
        names::escape(&host.shown)
    };
    let mut all = vec![host];
    if options.containers {
        // Containers first in the queue's order of taking: their view of a file says more than a layer's path.
        let others = all.first().map(roots::containers).unwrap_or_default();
        all.extend(others);
    }
    let scan = Scan::new(classifier, fingerprinter, started);
    let walk = Walk::new(
        &all,
        walk::Options {
            threads: options.threads,
            all_filesystems: options.all_filesystems,
        },
        report,
        &scan,
    );
    if let Some(dir) = &options.state_dir
        && let Ok(meta) = std::fs::metadata(dir)
    {
        walk.exclude(meta.dev(), meta.ino());
        report.skip(
            names::escape(dir.as_os_str().as_bytes()),
            "keytrail's own state".to_owned(),
        );
    }
    walk.run().map_err(RunError::Threads)?;
    drop(walk);
    let mut inventory = scan.into_inventory();
    let mut processes = Processes::default();
    if options.processes {
        processes = process::scan(classifier, fingerprinter, &mut inventory, started);
    }
    let refused = inventory.refused;
    let mut entries = inventory.into_entries();
    let unread = enrich(&mut entries, &all);
    let run = Run {
        id: 0,
        root: name,
        started,
        finished: clock::now(),
        processes: options.processes,
        unreadable: report.unreadable_count.load(Ordering::Relaxed),
        live: false,
    };
    let mut document = Document {
        run,
        entries,
        refused,
        processes,
        unread,
        elapsed: begun.elapsed(),
    };
    judge(&mut document, options.max_age);
    Ok(document)
}

/// Joins a run with what earlier ones knew, and stores it.
///
/// # Errors
/// The state cannot be read or written.
pub fn remember(document: &mut Document, state: &mut State, max_age: i64) -> Result<(), RunError> {
    state.recall(
        &document.run.root,
        &mut document.entries,
        document.run.started,
    )?;
    judge(document, max_age);
    document.run.id = state.store(&document.run, &document.entries)?;
    Ok(())
}

/// Asks the host about files the agent noted (owner, who reaches them, package, work tree) and judges all entries.
///
/// # Errors
/// The host's root cannot be entered.
pub fn complete(entries: &mut [Entry], now: i64, max_age: i64) -> Result<(), RunError> {
    let path = PathBuf::from("/");
    let host = roots::directory(&path).map_err(|source| RunError::Root { path, source })?;
    for place in entries.iter_mut().flat_map(|e| &mut e.places) {
        if let Location::File(f) = place
            && f.root == JOURNAL
            && f.container.is_empty()
        {
            let whole = names::unescape(&f.path);
            f.reach = roots::reach_of(std::path::Path::new(OsStr::from_bytes(&whole)));
            f.raw = whole.strip_prefix(b"/").unwrap_or(&whole).to_vec();
        }
    }
    // Of records that cannot be read the inventory has reported already.
    let _ = enrich_files(entries, JOURNAL, &host);
    for entry in entries {
        exposure::judge(entry, now, max_age);
    }
    Ok(())
}

fn judge(document: &mut Document, max_age: i64) {
    for entry in &mut document.entries {
        exposure::judge(entry, document.run.started, max_age);
    }
    document.entries.sort_by_cached_key(|e| {
        (
            std::cmp::Reverse(exposure::badness(e)),
            e.credential.kind.clone(),
            e.credential.fingerprint.clone(),
        )
    });
}
