//! On which file systems writes are reported, and how an event's directory becomes a path.

use crate::list_pids;
use keytrail_host::changes::FileKey;
use keytrail_host::kernel_device;
use keytrail_host::mounts::{self, Mount};
use keytrail_host::procfs;
use keytrail_host::verdict::{Verdict, by_type};
use keytrail_host::writes::{FsId, Writes, Written, fs_id};
use rustix::fs::{Mode, OFlags};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{Hash as _, Hasher as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Mount namespaces inspected.
const MAX_NAMESPACES: usize = 512;
/// File systems marked.
const MAX_FILE_SYSTEMS: usize = 4_096;

/// One way to a file system.
#[derive(Clone, Debug)]
struct Mounted {
    /// `/`, or `/proc/PID/root`.
    root: PathBuf,
    /// From the agent's own view.
    point: PathBuf,
}

/// A file system whose writes are not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmarked {
    pub point: String,
    pub kind: String,
    pub error: String,
}

/// A file that was found by its directory's handle.
pub struct Found {
    pub root: PathBuf,
    pub dir: OwnedFd,
    /// Of `O_PATH`.
    pub file: OwnedFd,
}

#[derive(Default)]
pub struct Places {
    file_systems: HashMap<FsId, Mounted>,
    devices: HashSet<u32>,
    own_table: u64,
    /// Where something is mounted in the agent's own namespace.
    points: HashSet<Vec<u8>>,
    namespaces: HashSet<u32>,
    refused: HashSet<(String, String)>,
    /// The file system the last event was on: a storm is on one.
    last: Option<(FsId, PathBuf, OwnedFd)>,
}

impl Places {
    /// Marks what is mounted in the agent's own namespace, if that has changed; answers where something is mounted, or not
    /// any more, since the last time.
    pub fn own(&mut self, writes: &Writes) -> (Vec<Vec<u8>>, Vec<Unmarked>) {
        let table = mounts::read(Path::new("/proc/self/mountinfo"));
        let mut hasher = DefaultHasher::new();
        for m in &table {
            (m.device, &m.root, &m.point).hash(&mut hasher);
        }
        let now = hasher.finish();
        if now == self.own_table {
            return (Vec::new(), Vec::new());
        }
        self.own_table = now;
        // Device numbers are used again: all is marked anew, which does no harm to what is.
        self.devices.clear();
        let points: HashSet<Vec<u8>> = table.iter().map(|m| m.point.clone()).collect();
        let moved = points.symmetric_difference(&self.points).cloned().collect();
        self.points = points;
        (moved, self.mark(writes, Path::new("/"), table))
    }

    /// Marks what is mounted in namespaces not seen before; answers one process of each of them.
    pub fn others(&mut self, writes: &Writes) -> (Vec<u32>, Vec<Unmarked>) {
        if let Some(own) = procfs::namespace(std::process::id(), "mnt") {
            self.namespaces.insert(own);
        }
        let mut new = Vec::new();
        let mut unmarked = Vec::new();
        let mut there = HashSet::new();
        for tgid in list_pids() {
            let Some(ns) = procfs::namespace(tgid, "mnt") else {
                continue;
            };
            there.insert(ns);
            if self.namespaces.len() >= MAX_NAMESPACES || !self.namespaces.insert(ns) {
                continue;
            }
            new.push(tgid);
            let tgid = procfs::lasting(tgid);
            let table = mounts::read(Path::new(&format!("/proc/{tgid}/mountinfo")));
            let root = PathBuf::from(format!("/proc/{tgid}/root"));
            unmarked.extend(self.mark(writes, &root, table));
        }
        self.namespaces.retain(|ns| there.contains(ns));
        (new, unmarked)
    }

    fn mark(&mut self, writes: &Writes, root: &Path, table: Vec<Mount>) -> Vec<Unmarked> {
        let mut by_device: BTreeMap<u32, Vec<Mount>> = BTreeMap::new();
        for mount in table {
            if by_type(&mount.kind, &mount.source) == Verdict::Walk {
                by_device.entry(mount.device).or_default().push(mount);
            }
        }
        let mut unmarked = Vec::new();
        for (device, mut ways) in by_device {
            if self.file_systems.len() >= MAX_FILE_SYSTEMS || !self.devices.insert(device) {
                continue;
            }
            // From the top of the file system all of it has a path.
            ways.sort_by_key(|m| (m.root != b"/", m.point.len()));
            let mut refused = None;
            for mount in &ways {
                let below = OsStr::from_bytes(mount.point.strip_prefix(b"/").unwrap_or_default());
                let point = root.join(below);
                // A mount may be hidden by a later one on the same point.
                let here = rustix::fs::stat(&point);
                if here.is_ok_and(|s| kernel_device(s.st_dev) != device && mount.kind != "btrfs") {
                    continue;
                }
                match writes.mark(&point) {
                    Ok(id) => {
                        let root = root.to_owned();
                        self.file_systems.insert(id, Mounted { root, point });
                        refused = None;
                        break;
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {}
                    Err(e) => {
                        let point = String::from_utf8_lossy(&mount.point).into_owned();
                        refused = Some(Unmarked {
                            point,
                            kind: mount.kind.clone(),
                            error: e.to_string(),
                        });
                    }
                }
            }
            if let Some(refused) = refused
                && self
                    .refused
                    .insert((refused.point.clone(), refused.kind.clone()))
            {
                unmarked.push(refused);
            }
        }
        unmarked
    }

    /// Nothing is held open while there is nothing to do: it would keep a file system from being unmounted.
    pub fn release(&mut self) {
        self.last = None;
    }

    /// Opens what an event is about; `None` when it is gone.
    pub fn find(&mut self, written: &Written) -> Option<Found> {
        let (root, mount) = self.mounted(written.fs)?;
        let dir = written.dir.open(mount.as_fd()).ok()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, written.name.as_slice(), flags, Mode::empty()).ok()?;
        Some(Found {
            root: root.clone(),
            dir,
            file,
        })
    }

    /// Opens a file by its handle (`O_PATH`), whatever it is called now, and says in whose view; `None` where its file system
    /// is not known, or not mounted any more.
    pub fn open(&mut self, key: &FileKey) -> Option<std::io::Result<(PathBuf, OwnedFd)>> {
        let (root, mount) = self.mounted(key.fs)?;
        let file = key.handle.open_any(mount.as_fd());
        Some(file.map(|file| (root.clone(), file)))
    }

    /// A file system, by a directory on it.
    fn mounted(&mut self, fs: FsId) -> Option<(&PathBuf, &OwnedFd)> {
        if self.last.as_ref().is_none_or(|l| l.0 != fs) {
            let mounted = self.file_systems.get(&fs)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let fd = rustix::fs::open(&mounted.point, flags, Mode::empty()).ok()?;
            if fs_id(&fd).ok()? != fs {
                // Something else is mounted there by now.
                self.file_systems.remove(&fs);
                self.own_table = 0;
                return None;
            }
            self.last = Some((fs, mounted.root.clone(), fd));
        }
        let (_, root, mount) = self.last.as_ref()?;
        Some((root, mount))
    }
}

/// The path of an entry of an open directory, in the view its mount belongs to; `None` when the directory is gone.
pub fn path_of(dir: &OwnedFd, name: &[u8]) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let mut path = std::fs::read_link(link).ok()?.into_os_string().into_vec();
    if !path.starts_with(b"/") || path.ends_with(b" (deleted)") {
        return None;
    }
    if path != b"/" {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    Some(path)
}
