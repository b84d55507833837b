//! Which files lie in a part of the watch set now, and which directories have to be watched for new ones.

use crate::files::{
    Component, Excluded, Pattern, Version, expand, homes, open_in, open_root, version,
};
use inotify::{WatchDescriptor, WatchMask, Watches};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;

/// Directories of one part that are watched.
const MAX_DIRECTORIES: usize = 8_192;

/// A part of the watch set: the absolute patterns in one mount namespace, or those below one home directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Area {
    pub mnt_ns: u32,
    /// `None` for the absolute patterns.
    pub home: Option<String>,
}

/// What is to be found out.
pub struct Survey {
    pub area: Area,
    pub root: PathBuf,
    pub patterns: Vec<Pattern>,
    pub watches: Option<Watches>,
}

/// What was found.
pub struct Surveyed {
    pub area: Area,
    pub root: PathBuf,
    /// The process through which the namespace was reached is gone.
    pub root_gone: bool,
    /// Of the absolute patterns: the home directories this root has.
    pub homes: BTreeSet<String>,
    pub directories: Vec<(WatchDescriptor, Vec<Component>)>,
    /// Directories that are not watched.
    pub unwatched: u64,
    pub files: BTreeMap<String, Version>,
}

impl Survey {
    pub fn run(self, excluded: &Excluded) -> Surveyed {
        let mut out = Surveyed {
            root_gone: false,
            homes: BTreeSet::new(),
            directories: Vec::new(),
            unwatched: 0,
            files: BTreeMap::new(),
            area: self.area,
            root: self.root,
        };
        let Ok(root) = open_root(&out.root) else {
            out.root_gone = true;
            return out;
        };
        if out.area.home.is_none() {
            out.homes = homes(root.as_fd());
        }
        let mut directories: BTreeMap<String, Vec<Component>> = BTreeMap::new();
        let mut files = BTreeSet::new();
        for pattern in &self.patterns {
            let expansion = expand(root.as_fd(), pattern, excluded);
            for (directory, component) in expansion.directories {
                let components = directories.entry(directory).or_default();
                if !components.iter().any(|c| c.is_same(&component)) {
                    components.push(component);
                }
            }
            files.extend(expansion.files);
        }
        if let Some(mut watches) = self.watches {
            for (directory, components) in directories {
                // The top of the tree changes seldom and its children are found by the periodic survey.
                if directory == "/" {
                    continue;
                }
                if out.directories.len() >= MAX_DIRECTORIES {
                    out.unwatched += 1;
                } else if let Some(watch) = watch(&mut watches, root.as_fd(), &directory) {
                    out.directories.push((watch, components));
                }
            }
        }
        for path in files {
            // What is no regular file, or gone by now, is none of the set.
            if let Ok(fd) = open_in(root.as_fd(), &path, OFlags::PATH)
                && let Ok(Some(version)) = version(&fd, &path)
            {
                out.files.insert(path, version);
            }
        }
        out
    }
}

fn watch(watches: &mut Watches, root: BorrowedFd<'_>, directory: &str) -> Option<WatchDescriptor> {
    let dir = open_in(root, directory, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    let mask =
        WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR;
    watches
        .add(format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)
        .ok()
}
