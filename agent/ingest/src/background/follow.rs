//! Files known to hold credentials: told when they change, are renamed or go, by inotify on the files themselves, and
//! by looking them up now and then for what raises no event there (a directory above was renamed or mounted over).

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::fs::{AtFlags, StatxFlags};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Files followed at most.
const MAX_FOLLOWED: usize = 20_000;

/// A path below a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// `/`, or `/proc/PID/root`.
    pub root: PathBuf,
    pub raw: Vec<u8>,
}

impl Path {
    fn whole(&self) -> PathBuf {
        self.root.join(OsStr::from_bytes(
            self.raw.strip_prefix(b"/").unwrap_or(&self.raw),
        ))
    }
}

/// Tells one version of a file from another: device, inode, change time.
type Mark = (u32, u32, u64, i64, u32);

pub struct Followed {
    inotify: Inotify,
    by_watch: HashMap<WatchDescriptor, Path>,
    files: HashMap<Path, Option<Mark>>,
}

impl Followed {
    /// # Errors
    /// When the user may have no more inotify instances.
    pub fn new() -> io::Result<Self> {
        Ok(Followed {
            inotify: Inotify::init()?,
            by_watch: HashMap::new(),
            files: HashMap::new(),
        })
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Follows a file; one that is followed already, in the version of now. False when there is no such file any more.
    pub fn add(&mut self, path: Path) -> bool {
        if self.files.len() >= MAX_FOLLOWED && !self.files.contains_key(&path) {
            return true;
        }
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        // Refused (too many watches): it is still looked up now and then.
        if let Ok(watch) = self.inotify.watches().add(path.whole(), mask) {
            self.by_watch.insert(watch, path.clone());
        }
        let mark = mark(&path);
        let there = mark.is_some();
        self.files.insert(path, mark);
        there
    }

    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
        let watches: Vec<WatchDescriptor> = self
            .by_watch
            .iter()
            .filter(|(_, p)| *p == path)
            .map(|(watch, _)| watch.clone())
            .collect();
        for watch in watches {
            self.by_watch.remove(&watch);
            // Its inode may be gone, and the watch with it.
            let _ = self.inotify.watches().remove(watch);
        }
    }

    /// Files something happened to.
    pub fn events(&mut self) -> Vec<Path> {
        let mut buffer = [0u8; 8 * 1024];
        let mut paths = BTreeSet::new();
        while let Ok(events) = self.inotify.read_events(&mut buffer) {
            for event in events {
                if let Some(path) = self.by_watch.get(&event.wd) {
                    paths.insert(path.clone());
                }
                if event.mask.contains(EventMask::IGNORED) {
                    self.by_watch.remove(&event.wd);
                }
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    paths.extend(self.files.keys().cloned());
                }
            }
        }
        paths.into_iter().collect()
    }

    /// Files that are not what they were when they were last looked up.
    pub fn changed(&mut self) -> Vec<Path> {
        let mut paths = Vec::new();
        for (path, before) in &mut self.files {
            let now = mark(path);
            if now != *before {
                *before = now;
                paths.push(path.clone());
            }
        }
        paths.sort();
        paths
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let mask = StatxFlags::INO | StatxFlags::CTIME;
    let s = rustix::fs::statx(rustix::fs::CWD, path.whole(), AtFlags::empty(), mask).ok()?;
    Some((
        s.stx_dev_major,
        s.stx_dev_minor,
        s.stx_ino,
        s.stx_ctime.tv_sec,
        s.stx_ctime.tv_nsec,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn changes_renames_and_ends_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        let path = Path {
            root: "/".into(),
            raw: file.as_os_str().as_bytes().to_vec(),
        };
        let mut followed = Followed::new().unwrap();
        assert!(followed.add(path.clone()));
        assert!(followed.events().is_empty() && followed.changed().is_empty());
        fs::write(&file, "two").unwrap();
        assert_eq!(followed.events(), std::slice::from_ref(&path));
        assert_eq!(followed.changed(), std::slice::from_ref(&path));
        // Another file by that name.
        let other = dir.path().join("g");
        fs::write(&other, "three").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(followed.events(), std::slice::from_ref(&path));
        assert!(followed.add(path.clone()));
        fs::remove_file(&file).unwrap();
        assert_eq!(followed.events(), std::slice::from_ref(&path));
        assert!(!followed.add(path.clone()));
        followed.remove(&path);
        assert!(followed.by_watch.is_empty() && followed.files.is_empty());
    }
}
