//! What is known of each watched file, by device and inode.

use super::read;
use crate::digest::Registry;
use crate::model::{CredentialRef, FileFacts};
use crate::secret::{Classifier, Origin};
use keytrail_abi::FileId;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::path::PathBuf;

/// Files known at most.
const MAX_FILES: usize = 100_000;

/// One watched file in one version.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// Path within the mount namespace it was found in.
    pub facts: FileFacts,
    /// Root through which this process reaches it (`/` or `/proc/PID/root`).
    pub root: PathBuf,
    pub credentials: Vec<CredentialRef>,
    pub unreadable: Option<String>,
    pub truncated: bool,
}

impl KnownFile {
    /// Where this process finds the file.
    pub fn access_path(&self) -> PathBuf {
        self.root.join(self.facts.path.trim_start_matches('/'))
    }

    fn same_version(&self, facts: &FileFacts) -> bool {
        self.facts.ctime_ns == facts.ctime_ns && self.facts.size == facts.size
    }
}

/// What looking at a path brought.
pub struct Learnt {
    pub id: FileId,
    /// It was not known under this device and inode.
    pub new_file: bool,
    /// Credentials that this file did not hold before.
    pub new_credentials: Vec<CredentialRef>,
}

#[derive(Default)]
pub struct FileTable {
    files: HashMap<FileId, KnownFile>,
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
            return false;
        }
        self.files.insert(id, known);
        true
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
        let (facts, id) = read::facts(&handle, path).ok()??;
        let before = self.files.get(&id);
        if before.is_some_and(|k| k.same_version(&facts) && k.unreadable.is_none()) {
            return Some(Learnt {
                id,
                new_file: false,
                new_credentials: Vec::new(),
            });
        }
        let new_file = before.is_none();
        if new_file && self.files.len() >= MAX_FILES {
            return None;
        }
        let old: Vec<String> = before
            .into_iter()
            .flat_map(|k| &k.credentials)
            .map(|c| c.fingerprint.clone())
            .collect();
        let mut known = KnownFile {
            facts,
            root: root.to_owned(),
            credentials: Vec::new(),
            unreadable: None,
            truncated: false,
        };
        let opened = read::open_in(std::os::fd::AsFd::as_fd(&root_fd), path, OFlags::RDONLY);
        match opened.map_err(std::io::Error::from).and_then(|fd| {
            // It may have been replaced between the two opens: what is read is what is described.
            if let Some((facts, again)) = read::facts(&fd, path)?
                && again == id
            {
                known.facts = facts;
            }
            read::content(fd, known.facts.size)
        }) {
            Ok((bytes, truncated)) => {
                known.truncated = truncated;
                for finding in classifier.classify(&bytes, Origin::File { path }) {
                    if let Some(credential) = registry.learn(&finding)
                        && !known
                            .credentials
                            .iter()
                            .any(|c| c.fingerprint == credential.fingerprint)
                    {
                        known.credentials.push(credential);
                    }
                }
            }
            Err(e) => known.unreadable = Some(e.to_string()),
        }
        let new_credentials = known
            .credentials
            .iter()
            .filter(|c| !old.contains(&c.fingerprint))
            .cloned()
            .collect();
        self.files.insert(id, known);
        Some(Learnt {
            id,
            new_file,
            new_credentials,
        })
    }
}
