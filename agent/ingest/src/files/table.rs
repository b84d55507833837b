//! What is known of each watched file, by device and inode.

use super::inspect::Inspected;
use super::read::Version;
use super::read::is_reachable;
use crate::Registry;
use keytrail_abi::FileId;
use keytrail_model::{Bound, Credential, CredentialRef, Dropped, FileFacts, FileInspection, Why};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Files known at most.
const MAX_FILES: usize = 100_000;

/// One watched file in one version.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// `facts.path` is the path within the mount namespace it was found in.
    pub version: Version,
    /// Root through which this process reaches it (`/` or `/proc/PID/root`).
    pub root: PathBuf,
    pub credentials: Vec<CredentialRef>,
    pub unreadable: Option<String>,
    pub truncated: bool,
    /// Nobody can inspect it again: its content is known from its reader.
    pub is_gone: bool,
    /// The version before, for reads that are reported late.
    pub previous: Option<(FileFacts, Vec<CredentialRef>)>,
}

impl KnownFile {
    /// A file whose findings are learnt, and everything in it for the inventory. What is less sure than
    /// `min_confidence` is not learnt.
    pub fn learn(
        version: Version,
        root: PathBuf,
        inspected: &Inspected,
        min_confidence: f64,
        registry: &mut Registry,
    ) -> (Self, Vec<Credential>) {
        let known = Self {
            credentials: registry.learn_file(
                version.id,
                inspected.end,
                &inspected.findings,
                min_confidence,
            ),
            truncated: inspected.partial(),
            ..Self::unreadable(version, root, None)
        };
        (known, registry.describe_held(&inspected.findings))
    }

    /// A file of which nothing is known but why.
    pub fn unreadable(version: Version, root: PathBuf, why: Option<String>) -> Self {
        Self {
            version,
            root,
            credentials: Vec::new(),
            unreadable: why,
            truncated: false,
            is_gone: false,
            previous: None,
        }
    }

    /// What somebody saw who read the file of `size` bytes when its change time was `ctime_ns` (0: unknown). `None`
    /// when that content is not known: it was overwritten before it could be inspected.
    pub fn as_read(&self, ctime_ns: u64, size: u64) -> Option<(&FileFacts, &[CredentialRef])> {
        let facts = &self.version.facts;
        // A change of mode or name changes the change time and not the content.
        let unchanged = self.version.modified_ns <= ctime_ns && facts.size == size;
        if ctime_ns == 0 || facts.ctime_ns == ctime_ns || unchanged {
            return Some((facts, &self.credentials));
        }
        self.previous
            .as_ref()
            .filter(|(facts, _)| facts.ctime_ns == ctime_ns)
            .map(|(facts, credentials)| (facts, credentials.as_slice()))
    }

    /// Where this process finds the file.
    pub fn access_path(&self) -> PathBuf {
        self.root
            .join(self.version.facts.path.trim_start_matches('/'))
    }

    /// What is said of it to the inventory.
    pub fn inspection(
        &self,
        held: Vec<Credential>,
        min_confidence: f64,
        why: Why,
        boot_ns: u64,
    ) -> FileInspection {
        FileInspection {
            root: self.root.clone(),
            raw: self.version.facts.path.clone().into_bytes(),
            facts: self.version.facts.clone(),
            born_ns: self.version.born_ns,
            modified: self.version.modified,
            links: self.version.links,
            truncated: self.truncated,
            held,
            min_confidence,
            why,
            writer: 0,
            boot_ns,
        }
    }

    fn is(&self, version: &Version) -> bool {
        self.version.facts.ctime_ns == version.facts.ctime_ns
            && self.version.facts.size == version.facts.size
    }

    /// Whether a read of the version of this change time cannot be reported before the file is inspected again.
    pub fn lacks(&self, ctime_ns: u64) -> bool {
        ctime_ns != 0
            && self.version.facts.ctime_ns != ctime_ns
            && self
                .previous
                .as_ref()
                .is_none_or(|(facts, _)| facts.ctime_ns != ctime_ns)
    }

    /// Its version as a request names it.
    pub fn as_known(&self) -> (FileId, u64, u64) {
        let facts = &self.version.facts;
        (self.version.id, facts.ctime_ns, facts.size)
    }
}

#[derive(Default)]
pub struct FileTable {
    files: HashMap<FileId, KnownFile>,
    /// Which files are known under a path, in any root.
    by_path: HashMap<String, Vec<FileId>>,
    /// What found no room, or was read in part.
    pub dropped: Dropped,
}

impl FileTable {
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<&KnownFile> {
        self.files.get(&id)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds what was learnt about a file; false when there is no room.
    pub fn insert(&mut self, id: FileId, mut known: KnownFile) -> bool {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&id) {
            self.dropped.add(Bound::Files, 1);
            return false;
        }
        if let Some(before) = self.remove(id) {
            known.previous = if before.version.facts.ctime_ns == known.version.facts.ctime_ns {
                before.previous
            } else {
                Some((before.version.facts, before.credentials))
            };
        }
        let path = known.version.facts.path.clone();
        self.by_path.entry(path).or_default().push(id);
        self.files.insert(id, known);
        true
    }

    /// What is known under this path; more than one file when one has taken the place of another.
    #[must_use]
    pub fn at(&self, root: &Path, path: &str) -> Vec<FileId> {
        let of_path = self.by_path.get(path).into_iter().flatten();
        let is_there = |id: &&FileId| self.files.get(id).is_some_and(|known| known.root == root);
        of_path.filter(is_there).copied().collect()
    }

    /// A file that was reached through one root is reached through another.
    pub fn found_again(&mut self, id: FileId, from: &Path, root: &Path, path: &str) {
        if self.files.get(&id).is_some_and(|known| known.root == from) {
            self.reach(id, root, path);
        }
    }

    fn reach(&mut self, id: FileId, root: &Path, path: &str) {
        if let Some(mut known) = self.remove(id) {
            root.clone_into(&mut known.root);
            path.clone_into(&mut known.version.facts.path);
            self.by_path.entry(path.to_owned()).or_default().push(id);
            self.files.insert(id, known);
        }
    }

    pub fn remove(&mut self, id: FileId) -> Option<KnownFile> {
        let known = self.files.remove(&id)?;
        let path = &known.version.facts.path;
        if let Some(of_path) = self.by_path.get_mut(path) {
            of_path.retain(|other| *other != id);
            if of_path.is_empty() {
                self.by_path.remove(path);
            }
        }
        Some(known)
    }

    /// Whether what lies at a path has to be inspected: `None` when this version is known, else what is known of it.
    pub fn check(
        &mut self,
        root: &Path,
        path: &str,
        version: &Version,
    ) -> Option<Option<(FileId, u64, u64)>> {
        let Some(known) = self.files.get(&version.id) else {
            return Some(None);
        };
        let (is_known, readable) = (known.is(version), known.unreadable.is_none());
        let last = known.as_known();
        // The process through which it was reached may be gone.
        if known.root != root && !is_reachable(&known.root) {
            self.reach(version.id, root, path);
        }
        if is_known && readable {
            return None;
        }
        // What could not be read may be readable by now, in the same version.
        Some(readable.then_some(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ctime_ns: u64, modified_ns: u64, size: u64) -> Version {
        let file = tempfile::tempfile().unwrap();
        let mut version = super::super::read::version(&file, "/x").unwrap().unwrap();
        version.facts.ctime_ns = ctime_ns;
        version.facts.size = size;
        version.modified_ns = modified_ns;
        version
    }

    fn known(version: Version) -> KnownFile {
        KnownFile {
            version,
            root: PathBuf::from("/"),
            credentials: Vec::new(),
            unreadable: None,
            truncated: false,
            is_gone: false,
            previous: None,
        }
    }

    #[test]
    fn a_read_is_of_the_version_it_was_of() {
        let mut table = FileTable::default();
        let first = version(100, 100, 10);
        let id = first.id;
        table.insert(id, known(first));
        // Rotated in place before the read of the first version was reported.
        table.insert(id, known(version(200, 200, 10)));
        let ctime = |read: u64, size: u64| {
            table
                .get(id)
                .and_then(|k| k.as_read(read, size))
                .map(|(facts, _)| facts.ctime_ns)
        };
        assert_eq!(ctime(200, 10), Some(200));
        assert_eq!(ctime(100, 10), Some(100));
        assert_eq!(ctime(150, 10), None, "a version nobody inspected");
        assert_eq!(ctime(0, 10), Some(200), "the hook tells no version");
    }

    #[test]
    fn a_change_of_mode_is_no_change_of_content() {
        // Written at 100, read at once, made private at 300, inspected after that.
        let file = known(version(300, 100, 10));
        assert_eq!(file.as_read(100, 10).map(|(f, _)| f.ctime_ns), Some(300));
        assert!(file.as_read(99, 10).is_none(), "before it was written");
        assert!(file.as_read(100, 11).is_none(), "another content");
    }
}
