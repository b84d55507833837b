//! What is known of each watched file, by device and inode.

use super::inspect::{self, Inspected};
use super::read::{self, Version};
use crate::Registry;
use keytrail_abi::FileId;
use keytrail_model::{Bound, Credential, CredentialRef, Dropped, FileFacts, FileLook, Why};
use keytrail_secret::Classifier;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::path::PathBuf;

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
    /// The version before, for reads that are told late.
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
            version,
            root,
            credentials: registry.learn_held(&inspected.findings, min_confidence),
            unreadable: None,
            truncated: inspected.truncated,
            previous: None,
        };
        (known, registry.describe_held(&inspected.findings))
    }

    /// What somebody saw who read the file of `size` bytes when its change time was `ctime_ns` (0: unknown). `None`
    /// when that content is not known: it was overwritten before it could be looked into.
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
    pub fn look(
        &self,
        held: Vec<Credential>,
        min_confidence: f64,
        why: Why,
        boot_ns: u64,
    ) -> FileLook {
        FileLook {
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

    fn same_version(&self, other: &Version) -> bool {
        self.version.facts.ctime_ns == other.facts.ctime_ns
            && self.version.facts.size == other.facts.size
    }
}

/// What looking at a path brought.
pub struct Learnt {
    pub id: FileId,
    /// It was not known under this device and inode.
    pub new_file: bool,
    /// Everything in it, when it was looked into; `None` when this version was known.
    pub held: Option<Vec<Credential>>,
}

#[derive(Default)]
pub struct FileTable {
    files: HashMap<FileId, KnownFile>,
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
    pub fn insert(&mut self, id: FileId, known: KnownFile) -> bool {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&id) {
            self.dropped.add(Bound::Files, 1);
            return false;
        }
        self.put(id, known);
        true
    }

    fn put(&mut self, id: FileId, mut known: KnownFile) {
        if let Some(before) = self.files.remove(&id) {
            known.previous = if before.version.facts.ctime_ns == known.version.facts.ctime_ns {
                before.previous
            } else {
                Some((before.version.facts, before.credentials))
            };
        }
        self.files.insert(id, known);
    }

    /// What is known under this path; more than one file when one has taken the place of another.
    #[must_use]
    pub fn at(&self, root: &std::path::Path, path: &str) -> Vec<FileId> {
        self.files
            .iter()
            .filter(|(_, known)| known.version.facts.path == path && known.root == root)
            .map(|(id, _)| *id)
            .collect()
    }

    /// A file that was reached through one root is reached through another.
    pub fn found_again(
        &mut self,
        id: FileId,
        from: &std::path::Path,
        root: &std::path::Path,
        path: &str,
    ) {
        if let Some(known) = self.files.get_mut(&id)
            && known.root == from
        {
            root.clone_into(&mut known.root);
            path.clone_into(&mut known.version.facts.path);
        }
    }

    pub fn remove(&mut self, id: FileId) {
        self.files.remove(&id);
    }

    /// Looks at `path` below `root` and learns what it holds, unless this version is known already.
    pub fn learn(
        &mut self,
        root: &std::path::Path,
        path: &str,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Option<Learnt> {
        let root_fd = read::open_root(root).ok()?;
        // Stat first through O_PATH: needs no permission on the file, opens no device, touches no atime.
        let handle = read::open_in(std::os::fd::AsFd::as_fd(&root_fd), path, OFlags::PATH).ok()?;
        let version = read::version(&handle, path).ok()??;
        let id = version.id;
        // The process through which it was reached may be gone.
        if let Some(known) = self.files.get_mut(&id)
            && known.root != root
            && read::open_root(&known.root).is_err()
        {
            root.clone_into(&mut known.root);
            path.clone_into(&mut known.version.facts.path);
        }
        let before = self.files.get(&id);
        if before.is_some_and(|k| k.same_version(&version) && k.unreadable.is_none()) {
            return Some(Learnt {
                id,
                new_file: false,
                held: None,
            });
        }
        let new_file = before.is_none();
        if new_file && self.files.len() >= MAX_FILES {
            self.dropped.add(Bound::Files, 1);
            return None;
        }
        let mut held = None;
        let mut known = KnownFile {
            version,
            root: root.to_owned(),
            credentials: Vec::new(),
            unreadable: None,
            truncated: false,
            previous: None,
        };
        let opened = read::open_in(std::os::fd::AsFd::as_fd(&root_fd), path, OFlags::RDONLY);
        match opened.map_err(std::io::Error::from).and_then(|fd| {
            // It may have been replaced between the two opens: what is read is what is described.
            if let Some(again) = read::version(&fd, path)?
                && again.id == id
            {
                known.version = again;
            }
            read::content(fd, known.version.facts.size)
        }) {
            Ok((bytes, truncated)) => {
                known.truncated = truncated;
                self.dropped.add(Bound::Sampled, u64::from(truncated));
                let findings = inspect::classify(&bytes, path, classifier);
                known.credentials = registry.learn_held(&findings, 0.0);
                held = Some(registry.describe_held(&findings));
            }
            Err(e) => known.unreadable = Some(e.to_string()),
        }
        self.put(id, known);
        Some(Learnt { id, new_file, held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ctime_ns: u64, modified_ns: u64, size: u64) -> Version {
        let file = tempfile::tempfile().unwrap();
        let mut version = read::version(&file, "/x").unwrap().unwrap();
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
            previous: None,
        }
    }

    #[test]
    fn a_read_is_of_the_version_it_was_of() {
        let mut table = FileTable::default();
        let first = version(100, 100, 10);
        let id = first.id;
        table.insert(id, known(first));
        // Rotated in place before the read of the first version was told.
        table.insert(id, known(version(200, 200, 10)));
        let ctime = |read: u64, size: u64| {
            table
                .get(id)
                .and_then(|k| k.as_read(read, size))
                .map(|(facts, _)| facts.ctime_ns)
        };
        assert_eq!(ctime(200, 10), Some(200));
        assert_eq!(ctime(100, 10), Some(100));
        assert_eq!(ctime(150, 10), None, "a version nobody looked into");
        assert_eq!(ctime(0, 10), Some(200), "the hook tells no version");
    }

    #[test]
    fn a_change_of_mode_is_no_change_of_content() {
        // Written at 100, read at once, made private at 300, looked into after that.
        let file = known(version(300, 100, 10));
        assert_eq!(file.as_read(100, 10).map(|(f, _)| f.ctime_ns), Some(300));
        assert!(file.as_read(99, 10).is_none(), "before it was written");
        assert!(file.as_read(100, 11).is_none(), "another content");
    }
}
