//! Inspections that were asked for, and what they came to.

use super::files::KnownFile;
use super::inspection::{Area, Missed};
use keytrail_abi::FileId;
use keytrail_model::{Unread, Why};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Files whose last inspection is remembered: several processes may read one before the kernel side knows.
const MAX_REMEMBERED: usize = 4_096;

/// What an inspection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the table in the version of then, with or without credentials.
    Known,
    /// It holds nothing.
    Clean,
    /// It was not found again.
    Gone,
    Missed(Missed),
}

/// An inspection that a record waits for.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub id: u64,
    pub(super) verdict: Arc<OnceLock<Verdict>>,
    /// What it found: the table may know of another version by the time this is taken in.
    pub(super) seen: Arc<OnceLock<Arc<KnownFile>>>,
}

impl Inspection {
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get().copied()
    }

    /// The file in the version that was asked about.
    pub(super) fn seen(&self) -> Option<Arc<KnownFile>> {
        self.seen.get().cloned()
    }

    pub(super) fn decide(&self, verdict: Verdict) {
        // The first one counts: an answer may come after its time.
        let _ = self.verdict.set(verdict);
    }
}

/// For what a file is inspected.
pub(super) enum Purpose {
    /// A read of a file that was not seen before.
    New {
        file: FileId,
        ctime_ns: u64,
        boot_ns: u64,
        inspection: Inspection,
        /// As its reader had it.
        called: Unread,
    },
    /// A read of another version of a known one.
    Version {
        file: FileId,
        ctime_ns: u64,
        boot_ns: u64,
        inspection: Inspection,
    },
    /// It lies in the watch set.
    Watched(Why),
    Survey(Area),
}

/// What is asked and remembered.
#[derive(Default)]
pub struct Asked {
    /// Each with whether nobody asks what of it cannot be seen.
    pub(super) purposes: HashMap<u64, (Purpose, bool)>,
    pub(super) by_file: HashMap<(FileId, u64), Inspection>,
    /// Versions that were inspected, whether they were clean, and what was in them.
    pub(super) recent: HashMap<FileId, (u64, Verdict, Option<Arc<KnownFile>>)>,
}

impl Asked {
    pub(super) fn remember(
        &mut self,
        file: FileId,
        ctime_ns: u64,
        inspection: &Inspection,
        verdict: Verdict,
    ) {
        if self.recent.len() >= MAX_REMEMBERED {
            self.recent.clear();
        }
        self.recent
            .insert(file, (ctime_ns, verdict, inspection.seen()));
    }

    /// What an inspection of this version came to a moment ago.
    pub fn recent(&self, file: FileId, ctime_ns: u64) -> Option<Verdict> {
        self.recent
            .get(&file)
            .filter(|(of, ..)| *of == ctime_ns)
            .map(|(_, verdict, _)| *verdict)
    }

    /// What was found in it.
    pub fn seen(&self, file: FileId, ctime_ns: u64) -> Option<Arc<KnownFile>> {
        let (of, _, seen) = self.recent.get(&file)?;
        seen.clone().filter(|_| *of == ctime_ns)
    }
}
