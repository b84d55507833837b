//! What the walk does with each entry: files are classified, agent sockets are noted.

use super::inspect::{self, Buffer};
use super::mask;
use super::merge::Inventory;
use super::model::{FileLocation, Location, Times};
use super::names;
use super::sockets;
use super::walk::{At, Visitor};
use globset::GlobSet;
use keytrail_model::Credential;
use keytrail_secret::form::expected_names;
use keytrail_secret::{Classifier, Fingerprinter, Limits, Origin};
use rustix::fs::{AtFlags, Stat, StatxFlags};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Credentials taken of one file; the others are counted.
const MAX_PER_FILE: usize = 10_000;

/// Classifies what the walk meets.
pub struct Scan<'a> {
    classifier: &'a Classifier,
    fingerprinter: &'a Fingerprinter,
    /// Names under which a binary file holds a credential.
    expected: GlobSet,
    inventory: Mutex<Inventory>,
    now: i64,
}

impl<'a> Scan<'a> {
    #[must_use]
    pub fn new(classifier: &'a Classifier, fingerprinter: &'a Fingerprinter, now: i64) -> Self {
        Scan {
            classifier,
            fingerprinter,
            expected: expected_names(classifier),
            inventory: Mutex::default(),
            now,
        }
    }

    pub fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn into_inventory(self) -> Inventory {
        self.inventory
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in a file, without its secrets; `None` when the classifier failed on it. `path`: as rules know it.
    fn contents(&self, text: &[u8], path: &str, at: &At<'_>) -> Option<Contents> {
        // A parser that panics on one hostile file must not end the inventory.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            let found = self
                .classifier
                .classify_bounded(text, Origin::File { path });
            let findings = || found.findings.iter().filter(|f| !f.parts.is_empty());
            let credentials: Vec<Credential> = findings()
                .map(|f| f.credential(self.fingerprinter))
                .collect();
            let fingerprints = credentials.iter().map(|c| c.fingerprint.as_str());
            let masked = mask::masked(&at.whole(), findings().zip(fingerprints));
            Contents {
                masked,
                credentials,
                limits: found.limits,
            }
        }))
        .ok()
    }

    fn note(&self, at: &At<'_>, stat: &Stat, sampled: bool, contents: Contents) {
        let Contents {
            credentials,
            masked,
            ..
        } = contents;
        let shown = masked.unwrap_or_else(|| at.shown());
        let crowd = credentials.len().saturating_sub(MAX_PER_FILE);
        at.walk.crowded.fetch_add(crowd as u64, Ordering::Relaxed);
        let mut ordinals: HashMap<String, u32> = HashMap::new();
        let place = file_place(at, shown, stat, sampled);
        let mut inventory = self.inventory();
        for credential in credentials.into_iter().take(MAX_PER_FILE) {
            let ordinal = ordinals.entry(credential.kind.clone()).or_default();
            let place = FileLocation {
                ordinal: *ordinal,
                ..place.clone()
            };
            *ordinal += 1;
            inventory.observe_location(&credential, Location::File(place), self.now);
        }
    }
}

impl Visitor for Scan<'_> {
    type Scratch = Buffer;

    fn file(&self, buffer: &mut Buffer, at: &At<'_>) {
        // Rules know paths as the system that uses the files knows them.
        let path = || format!("/{}", names::escape(at.path));
        let inspected =
            match inspect::inspect(at.dir, at.name, buffer, || self.expected.is_match(path())) {
                Ok(Some(inspected)) => inspected,
                Ok(None) => return,
                Err(e) => return at.walk.unreadable(|| at.shown(), e),
            };
        at.walk.classified.fetch_add(1, Ordering::Relaxed);
        at.walk
            .bytes
            .fetch_add(inspected.len as u64, Ordering::Relaxed);
        if inspected.changed {
            at.walk.changed.fetch_add(1, Ordering::Relaxed);
        }
        let contents = self.contents(buffer.used(), &path(), at);
        buffer.wipe();
        if inspected.sampled {
            let masked = contents.as_ref().and_then(|c| c.masked.clone());
            at.walk.sampled(|| masked.unwrap_or_else(|| at.shown()));
        }
        match contents {
            Some(contents) if contents.credentials.is_empty() => {}
            Some(contents) => {
                let sampled = inspected.sampled || contents.limits.any();
                self.note(at, &inspected.stat, sampled, contents);
            }
            None => at.walk.unreadable(|| at.shown(), rustix::io::Errno::BADMSG),
        }
    }

    fn socket(&self, at: &At<'_>) {
        if let Some((credential, place)) = sockets::found(at, self.fingerprinter) {
            self.inventory()
                .observe_location(&credential, Location::Socket(place), self.now);
        }
    }
}

/// What is in a file.
struct Contents {
    credentials: Vec<Credential>,
    limits: Limits,
    /// Its path without what is in it, where it has that.
    masked: Option<String>,
}

fn file_place(at: &At<'_>, shown: String, stat: &Stat, sampled: bool) -> FileLocation {
    FileLocation {
        path: shown,
        container: at.root.container.clone(),
        pod: at.root.pod.clone(),
        device: at.root.layer_device.unwrap_or(stat.st_dev),
        inode: stat.st_ino,
        // The type differs between architectures.
        links: u64::from(stat.st_nlink as u32),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: stat.st_mtime,
        reach: at.reach,
        sampled,
        times: Some(Box::new(times(at, stat))),
        root: at.root_index,
        raw: at.path.to_vec(),
        ..FileLocation::default()
    }
}

/// The file that was inspected, if its name still leads to it.
fn times(at: &At<'_>, stat: &Stat) -> Times {
    let mut times = Times {
        accessed: stat.st_atime,
        changed: stat.st_ctime,
        born: 0,
    };
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    if let Ok(s) = rustix::fs::statx(at.dir, at.name, AtFlags::SYMLINK_NOFOLLOW, mask)
        && s.stx_ino == stat.st_ino
        && s.stx_mask & StatxFlags::BTIME.bits() != 0
    {
        times.born = s.stx_btime.tv_sec;
    }
    times
}
