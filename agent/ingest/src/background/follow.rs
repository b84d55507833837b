//! Files known to hold credentials: reported when they change, are renamed or go, by marks on the files themselves, and by
//! looking them up now and then for what raises no event there (a directory above was renamed or mounted over).

use crate::files::{self, Version};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use keytrail_abi::FileId;
use keytrail_host::changes::{Changes, FileKey, Happened};
use keytrail_host::clock::wall_ns;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Files followed at most.
const MAX_FOLLOWED: usize = 20_000;
/// Names of one file that are reported about its changes.
const MAX_NAMES: usize = 16;

/// A path below a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// `/`, or `/proc/PID/root`.
    pub root: PathBuf,
    pub raw: Vec<u8>,
}

impl Path {
    /// Opens what lies there (`O_PATH`), through symbolic links that do not lead out of the root.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        let root = files::open_root(&self.root)?;
        files::open_in(root.as_fd(), &self.raw, OFlags::PATH)
    }

    fn name(&self) -> &[u8] {
        self.raw.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }
}

/// A file as it was when it was last looked up.
#[derive(Clone, Debug)]
pub struct Kept {
    pub version: Version,
    /// As the kernel names it in events; `None` where it does not tell who changes it.
    pub key: Option<FileKey>,
    /// Its path without symbolic links.
    pub real: Vec<u8>,
    /// Number of the mount it was found on; 0 when that is not known.
    pub mount: u64,
    /// What the kernel reported about it since.
    pub happened: Happened,
    /// When it was looked up, wall clock.
    pub looked_ns: u64,
    /// What this version holds is known, and who wrote it as far as that is known (0 when not).
    pub inspected: Option<u32>,
}

impl Kept {
    fn new(version: &Version, file: &OwnedFd, key: Option<FileKey>) -> Self {
        Kept {
            version: version.clone(),
            key,
            real: real(file).unwrap_or_default(),
            mount: mount_of(file),
            happened: Happened::default(),
            looked_ns: wall_ns(),
            inspected: None,
        }
    }

    fn is(&self, version: &Version) -> bool {
        self.version.id == version.id && self.version.facts.ctime_ns == version.facts.ctime_ns
    }
}

/// The path of an open file, as the mount it was opened on has it; `None` for one without a name.
pub fn real(file: &OwnedFd) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = std::fs::read_link(link).ok()?.into_os_string().into_vec();
    (path.starts_with(b"/") && !path.ends_with(b" (deleted)")).then_some(path)
}

/// The number of the mount that a file was opened on (STATX_MNT_ID of statx(2), from 5.8 on); 0 when it is not known.
pub fn mount_of(file: &OwnedFd) -> u64 {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .ok()
        .filter(|s| s.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .map_or(0, |s| s.stx_mnt_id)
}

/// What became of a wish to follow a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Followed,
    /// It is not what was inspected.
    Differs,
    /// Too many are.
    Full,
}

pub struct Followed {
    /// `None` where the kernel has no such group: then nobody is named.
    changes: Option<Changes>,
    inotify: Inotify,
    by_watch: HashMap<WatchDescriptor, Path>,
    /// The other way round.
    watches: HashMap<Path, WatchDescriptor>,
    by_key: HashMap<FileKey, Vec<Path>>,
    files: BTreeMap<Path, Kept>,
    /// Last parts of the paths, and how many have each.
    names: HashMap<Vec<u8>, usize>,
}

impl Followed {
    /// # Errors
    /// When the user may have no more inotify instances.
    pub fn new() -> io::Result<Self> {
        Ok(Followed {
            changes: Changes::new().ok(),
            inotify: Inotify::init()?,
            by_watch: HashMap::new(),
            watches: HashMap::new(),
            by_key: HashMap::new(),
            files: BTreeMap::new(),
            names: HashMap::new(),
        })
    }

    /// Readable when there are events.
    pub fn fds(&self) -> Vec<PollFd<'_>> {
        let inotify = PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN);
        let changes = self.changes.as_ref();
        let changes = changes.map(|c| PollFd::from_borrowed_fd(c.as_fd(), PollFlags::IN));
        std::iter::once(inotify).chain(changes).collect()
    }

    /// Follows a file that was inspected in the version of this id and change time.
    pub fn add(&mut self, path: Path, seen: (FileId, u64)) -> Added {
        let found = path
            .open()
            .and_then(|file| Ok((files::version(&file, "")?, file)));
        let Ok((Some(version), file)) = found else {
            return Added::Differs;
        };
        if let Some(kept) = self.files.get(&path) {
            return if kept.is(&version) {
                Added::Followed
            } else {
                Added::Differs
            };
        }
        if self.files.len() >= MAX_FOLLOWED {
            return Added::Full;
        }
        let key = self.mark(&path, &file);
        let mut kept = Kept::new(&version, &file, key);
        let same = seen == (version.id, version.facts.ctime_ns);
        kept.inspected = same.then_some(0);
        *self.names.entry(path.name().to_vec()).or_default() += 1;
        self.files.insert(path, kept);
        if same {
            Added::Followed
        } else {
            Added::Differs
        }
    }

    pub fn get(&self, path: &Path) -> Option<&Kept> {
        self.files.get(path)
    }

    /// Takes the file for what it is now; gives what it was.
    pub fn renew(&mut self, path: &Path, file: &OwnedFd, version: &Version) -> Option<Kept> {
        let before = self.files.get(path)?;
        let same = before.version.id == version.id;
        let (key, real, inspected) = (before.key.clone(), before.real.clone(), before.inspected);
        let inspected = inspected.filter(|_| before.is(version));
        let now = if same {
            Kept {
                real,
                inspected,
                ..Kept::new(version, file, key)
            }
        } else {
            self.unmark(path, key.as_ref());
            let key = self.mark(path, file);
            Kept::new(version, file, key)
        };
        self.files.insert(path.clone(), now)
    }

    /// What this version holds is known.
    pub fn inspected(&mut self, path: &Path, version: &Version, writer: u32) {
        if let Some(kept) = self.files.get_mut(path)
            && kept.is(version)
        {
            kept.inspected = Some(writer);
        }
    }

    /// Follows it no longer; gives what it was.
    pub fn remove(&mut self, path: &Path) -> Option<Kept> {
        let kept = self.files.remove(path)?;
        self.unmark(path, kept.key.as_ref());
        if let Some(count) = self.names.get_mut(path.name()) {
            *count -= 1;
            if *count == 0 {
                self.names.remove(path.name());
            }
        }
        Some(kept)
    }

    /// Whether some followed file has this name in its directory.
    pub fn has_name(&self, name: &[u8]) -> bool {
        self.names.contains_key(name)
    }

    /// Followed files in a directory and below it.
    pub fn below(&self, root: &std::path::Path, directory: &[u8]) -> Vec<Path> {
        let mut prefix = directory.to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        let from = Path {
            root: root.to_owned(),
            raw: prefix.clone(),
        };
        self.files
            .range(from..)
            .map(|(path, _)| path)
            .take_while(|path| path.root == root && path.raw.starts_with(&prefix))
            .cloned()
            .collect()
    }

    /// Nobody is told about this file any more, unless it is followed under another path.
    pub fn release(&self, key: &FileKey, file: &OwnedFd) {
        if !self.by_key.contains_key(key)
            && let Some(changes) = &self.changes
        {
            // It has none.
            let _ = changes.unmark(file.as_fd());
        }
    }

    fn mark(&mut self, path: &Path, file: &OwnedFd) -> Option<FileKey> {
        if let Some(changes) = &self.changes
            && let Ok(key) = changes.mark(file.as_fd())
        {
            let names = self.by_key.entry(key.clone()).or_default();
            if names.len() < MAX_NAMES && !names.contains(path) {
                names.push(path.clone());
            }
            return Some(key);
        }
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        let way = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Refused (too many watches): it is still looked up now and then.
        if let Ok(watch) = self.inotify.watches().add(way, mask) {
            self.watches.insert(path.clone(), watch.clone());
            self.by_watch.insert(watch, path.clone());
        }
        None
    }

    fn unmark(&mut self, path: &Path, key: Option<&FileKey>) {
        if let Some(key) = key {
            if let Some(names) = self.by_key.get_mut(key) {
                names.retain(|name| name != path);
                if names.is_empty() {
                    self.by_key.remove(key);
                }
            }
            return;
        }
        // A file that has two names has one watch, which is the last one's.
        if let Some(watch) = self.watches.remove(path)
            && self.by_watch.get(&watch) == Some(path)
        {
            self.by_watch.remove(&watch);
            // Its inode may be gone, and the watch with it.
            let _ = self.inotify.watches().remove(watch);
        }
    }

    /// Files something happened to, each with who did it (0: nobody knows); whether something was dropped.
    pub fn events(&mut self) -> (BTreeSet<(Path, u32)>, bool) {
        let me = std::process::id();
        let mut paths = BTreeSet::new();
        let mut overflow = false;
        let (files, by_key) = (&mut self.files, &self.by_key);
        if let Some(changes) = &mut self.changes {
            overflow |= changes.drain(&mut |key, happened, pid| {
                if pid == me {
                    return;
                }
                // Who has a file open for longest ends it, whoever deleted it.
                let did = happened.written || happened.attributes || happened.moved;
                for path in by_key.get(&key).into_iter().flatten() {
                    if let Some(kept) = files.get_mut(path) {
                        merge(&mut kept.happened, happened);
                    }
                    paths.insert((path.clone(), if did { pid } else { 0 }));
                }
            });
        }
        let mut buffer = [0u8; 8 * 1024];
        while let Ok(events) = self.inotify.read_events(&mut buffer) {
            for event in events {
                if let Some(path) = self.by_watch.get(&event.wd) {
                    if let Some(kept) = self.files.get_mut(path) {
                        merge(&mut kept.happened, happened_by(event.mask));
                    }
                    paths.insert((path.clone(), 0));
                }
                if event.mask.contains(EventMask::IGNORED)
                    && let Some(path) = self.by_watch.remove(&event.wd)
                {
                    self.watches.remove(&path);
                }
                overflow |= event.mask.contains(EventMask::Q_OVERFLOW);
            }
        }
        if overflow {
            paths.extend(self.files.keys().map(|path| (path.clone(), 0)));
        }
        (paths, overflow)
    }

    /// Files that are not what they were when they were last looked up.
    pub fn changed(&self) -> Vec<Path> {
        let mut root: Option<(&PathBuf, OwnedFd)> = None;
        let mut paths = Vec::new();
        for (path, kept) in &self.files {
            if root.as_ref().is_none_or(|(of, _)| **of != path.root) {
                root = files::open_root(&path.root).ok().map(|fd| (&path.root, fd));
            }
            let version = root
                .as_ref()
                .filter(|(of, _)| **of == path.root)
                .and_then(|(_, root)| files::open_in(root.as_fd(), &path.raw, OFlags::PATH).ok())
                .and_then(|file| files::version(&file, "").ok().flatten());
            if !version.is_some_and(|version| kept.is(&version)) {
                paths.push(path.clone());
            }
        }
        paths
    }
}

fn merge(to: &mut Happened, more: Happened) {
    to.written |= more.written;
    to.attributes |= more.attributes;
    to.moved |= more.moved;
    to.deleted |= more.deleted;
}

fn happened_by(mask: EventMask) -> Happened {
    Happened {
        written: mask.contains(EventMask::CLOSE_WRITE),
        attributes: mask.contains(EventMask::ATTRIB),
        moved: mask.contains(EventMask::MOVE_SELF),
        deleted: mask.contains(EventMask::DELETE_SELF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;

    fn seen(path: &Path) -> (FileId, u64) {
        let file = path.open().unwrap();
        let version = files::version(&file, "").unwrap().unwrap();
        (version.id, version.facts.ctime_ns)
    }

    fn reported(followed: &mut Followed) -> BTreeSet<Path> {
        let (paths, overflow) = followed.events();
        assert!(!overflow);
        paths.into_iter().map(|(path, _)| path).collect()
    }

    fn changes_renames_and_ends(mut followed: Followed) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        let path = Path {
            root: "/".into(),
            raw: file.as_os_str().as_bytes().to_vec(),
        };
        let it = BTreeSet::from([path.clone()]);
        let before = seen(&path);
        assert_eq!(followed.add(path.clone(), before), Added::Followed);
        assert!(followed.has_name(b"f") && !followed.has_name(b"g"));
        assert!(reported(&mut followed).is_empty() && followed.changed().is_empty());
        // By another process: what the agent does itself is not reported.
        let sh = |script: &str| {
            let mut sh = std::process::Command::new("sh");
            let status = sh.args(["-c", script, "sh"]).arg(&file).status();
            assert!(status.unwrap().success());
        };
        sh("echo two >$1");
        assert_eq!(reported(&mut followed), it);
        assert_eq!(followed.changed(), std::slice::from_ref(&path));
        assert_eq!(followed.add(path.clone(), before), Added::Differs);
        // Another file by that name.
        sh("echo three >$1.g; mv $1.g $1");
        assert_eq!(reported(&mut followed), it);
        let now = path.open().unwrap();
        let version = files::version(&now, "").unwrap().unwrap();
        let was = followed.renew(&path, &now, &version).unwrap();
        assert_ne!(was.version.id, version.id);
        assert!(was.happened.attributes, "{:?}", was.happened);
        let below = followed.below(path.root.as_path(), dir.path().as_os_str().as_bytes());
        assert_eq!(below, std::slice::from_ref(&path));
        // A file that is open is not gone.
        drop(now);
        sh("mv $1 $1.h; rm $1.h");
        assert_eq!(reported(&mut followed), it);
        let was = followed.remove(&path).unwrap();
        assert!(
            was.happened.moved && was.happened.deleted,
            "{:?}",
            was.happened
        );
        assert!(followed.by_watch.is_empty() && followed.by_key.is_empty());
        assert!(followed.files.is_empty() && followed.names.is_empty());
    }

    #[test]
    fn changes_renames_and_ends_are_reported() {
        changes_renames_and_ends(Followed::new().unwrap());
    }

    #[test]
    fn where_the_kernel_does_not_say_who_it_is_reported_all_the_same() {
        let mut followed = Followed::new().unwrap();
        followed.changes = None;
        changes_renames_and_ends(followed);
    }
}
