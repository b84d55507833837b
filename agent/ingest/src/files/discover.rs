//! A file that nobody told us about, found by its device and inode and looked into once per version.

use super::own::OwnFiles;
use super::read;
use super::table::KnownFile;
use super::{Files, inspect::inspect, min_confidence};
use crate::Registry;
use keytrail_abi::{FileId, FileNew, NAME_DEPTH};
use keytrail_host::mounts::{self, Mount};
use keytrail_host::procfs;
use keytrail_model::{Bound, FileLook, Why};
use keytrail_secret::Classifier;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Descriptors of a process that are looked at when a file has no path any more.
const MAX_FDS: usize = 256;
/// Clean files remembered here.
const MAX_CLEAN: usize = 4_096;

/// What became of a new file.
pub enum Discovered {
    /// It holds credentials and is in the table now; with what was found, unless this version was known.
    Holds(Option<Box<FileLook>>),
    Clean,
    /// It could not be found again by what the kernel side knew of it.
    Lost,
}

/// Finds and looks into new files.
#[derive(Default)]
pub struct Discovery {
    own: Vec<Mount>,
    own_read_ns: u64,
    own_files: OwnFiles,
    /// Files found clean a moment ago: several processes may read one before the kernel side knows.
    clean: HashMap<FileId, u64>,
}

/// The host's mount table is read again after this time.
const OWN_FRESH_NS: u64 = 2_000_000_000;

impl Discovery {
    /// Looks into the file of a record and learns what it holds.
    pub fn look(
        &mut self,
        new: &FileNew,
        files: &mut Files,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Discovered {
        if self.clean.get(&new.file) == Some(&new.ctime_ns) {
            return Discovered::Clean;
        }
        let found = self.look_inside(new, files, classifier, registry);
        if matches!(found, Discovered::Clean) {
            if self.clean.len() >= MAX_CLEAN {
                self.clean.clear();
            }
            self.clean.insert(new.file, new.ctime_ns);
        }
        found
    }

    fn look_inside(
        &mut self,
        new: &FileNew,
        files: &mut Files,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Discovered {
        let Some((root, path, fd)) = self.find(new) else {
            return Discovered::Lost;
        };
        let Ok(Some(version)) = read::version(&fd, &path) else {
            return Discovered::Lost;
        };
        if self.own_files.has(new.file, new.header.boot_ns) {
            return Discovered::Clean;
        }
        let named = files.is_named(&path);
        let Ok(looked) = read::reopen(&fd)
            .map_err(std::io::Error::from)
            .and_then(|fd| {
                let place = || Some((path.clone(), named));
                inspect(fd, version.facts.size, place, classifier)
            })
        else {
            return Discovered::Lost;
        };
        files
            .table
            .dropped
            .add(Bound::Sampled, u64::from(looked.truncated));
        let min = min_confidence(named);
        let (known, held) = KnownFile::learn(version, root, &looked, min, registry);
        if known.credentials.is_empty() {
            return Discovered::Clean;
        }
        let look = known.look(held, min, Why::Met, new.header.boot_ns);
        if files.table.insert(new.file, known) {
            Discovered::Holds(Some(Box::new(look)))
        } else {
            Discovered::Lost
        }
    }

    /// A root, a path below it and a handle of the file: all three belong to the very inode.
    fn find(&mut self, new: &FileNew) -> Option<(PathBuf, String, OwnedFd)> {
        let inner = names(new);
        let tgid = new.header.tgid;
        let same_ns = procfs::namespace(tgid, "mnt").is_none_or(|ns| ns == procfs::own_mnt_ns());
        let own = PathBuf::from("/");
        if let Some(inner) = &inner {
            if !same_ns {
                let tgid = procfs::lasting(tgid);
                let mounts = mounts::read(Path::new(&format!("/proc/{tgid}/mountinfo")));
                let root = PathBuf::from(format!("/proc/{tgid}/root"));
                if let Some((path, fd)) = below(&root, &mounts, inner, new.file) {
                    return Some((root, path, fd));
                }
            }
            // The layers of a container lie in the host's own file systems.
            if self.own.is_empty() || self.own_read_ns + OWN_FRESH_NS < new.header.boot_ns {
                self.own = mounts::read(Path::new("/proc/self/mountinfo"));
                self.own_read_ns = new.header.boot_ns;
            }
            if let Some((path, fd)) = below(&own, &self.own, inner, new.file) {
                return Some((own, path, fd));
            }
        }
        open_descriptor(tgid, new.file)
    }
}

/// The path within its file system; `None` when a name was cut or the path was too deep.
fn names(new: &FileNew) -> Option<String> {
    let depth = usize::try_from(new.depth).ok()?;
    if depth == 0 || depth >= NAME_DEPTH {
        return None;
    }
    let mut path = String::new();
    for name in new.names.get(..depth)?.iter().rev() {
        let end = name.iter().position(|b| *b == 0)?;
        // A name that fills its place may have been longer.
        if end == 0 || end + 1 >= name.len() {
            return None;
        }
        path.push('/');
        path.push_str(std::str::from_utf8(&name[..end]).ok()?);
    }
    Some(path)
}

/// Opens `inner` through each mount that shows that part of the file system, until the inode is the right one.
fn below(root: &Path, mounts: &[Mount], inner: &str, id: FileId) -> Option<(String, OwnedFd)> {
    let root_fd = read::open_root(root).ok()?;
    for mount in mounts.iter().filter(|m| m.device == id.dev) {
        let (Ok(shown), Ok(point)) = (
            std::str::from_utf8(&mount.root),
            std::str::from_utf8(&mount.point),
        ) else {
            continue;
        };
        let rest = match shown {
            "/" => inner,
            shown => match inner.strip_prefix(shown) {
                Some(rest) if rest.starts_with('/') => rest,
                _ => continue,
            },
        };
        let path = format!("{}{rest}", if point == "/" { "" } else { point });
        let Ok(fd) = read::open_in(root_fd.as_fd(), &path, OFlags::PATH) else {
            continue;
        };
        if matches!(read::version(&fd, &path), Ok(Some(found)) if found.id == id) {
            return Some((path, fd));
        }
    }
    None
}

/// The file as one of the descriptors its reader still has open: unlinked, or with names we could not follow.
fn open_descriptor(tgid: u32, id: FileId) -> Option<(PathBuf, String, OwnedFd)> {
    let entries = fs::read_dir(format!("/proc/{tgid}/fd")).ok()?;
    for entry in entries.take(MAX_FDS).filter_map(Result::ok) {
        let target = fs::read_link(entry.path()).ok()?;
        // Not every descriptor is a file: opening a pipe or a terminal would be felt.
        if !target.as_os_str().as_bytes().starts_with(b"/") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(entry.path(), flags, rustix::fs::Mode::empty()) else {
            continue;
        };
        let path = target.to_string_lossy().into_owned();
        if matches!(read::version(&fd, &path), Ok(Some(found)) if found.id == id) {
            let tgid = procfs::lasting(tgid);
            return Some((PathBuf::from(format!("/proc/{tgid}/root")), path, fd));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_abi::NAME_MAX;
    use std::ffi::OsStr;

    fn bytes(path: &[u8]) -> &OsStr {
        OsStr::from_bytes(path)
    }

    fn record(names: &[&str], file: FileId) -> FileNew {
        let mut new = FileNew {
            header: keytrail_abi::Header {
                tgid: std::process::id(),
                ..Default::default()
            },
            file,
            size: 0,
            ctime_ns: 0,
            exec_id: 0,
            access: 2,
            depth: names.len() as u32,
            names: [[0; NAME_MAX]; NAME_DEPTH],
        };
        for (slot, name) in new.names.iter_mut().zip(names) {
            let n = name.len().min(NAME_MAX - 1);
            slot[..n].copy_from_slice(&name.as_bytes()[..n]);
        }
        new
    }

    #[test]
    fn names_that_may_be_cut_are_not_followed() {
        assert_eq!(
            names(&record(&["c", "b", "a"], FileId::default())).as_deref(),
            Some("/a/b/c")
        );
        assert_eq!(
            names(&record(&["x".repeat(63).as_str()], FileId::default())),
            None
        );
        assert_eq!(names(&record(&["a"; NAME_DEPTH], FileId::default())), None);
        assert_eq!(names(&record(&[], FileId::default())), None);
    }

    #[test]
    fn a_file_is_found_by_its_names_and_only_if_it_is_the_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.txt");
        fs::write(&path, "hello, this is text").unwrap();
        let handle = read::open_root(Path::new("/")).unwrap();
        let fd = read::open_in(handle.as_fd(), path.to_str().unwrap(), OFlags::PATH).unwrap();
        let id = read::version(&fd, "").unwrap().unwrap().id;
        // The names the kernel side sends are those within the file system.
        let inner = mounts::read(Path::new("/proc/self/mountinfo"))
            .into_iter()
            .filter(|m| m.device == id.dev && path.starts_with(bytes(&m.point)))
            .max_by_key(|m| m.point.len())
            .map(|m| {
                let rest = path.strip_prefix(bytes(&m.point)).unwrap();
                Path::new(bytes(&m.root)).join(rest)
            })
            .unwrap();
        let parts: Vec<&str> = inner
            .to_str()
            .unwrap()
            .split('/')
            .filter(|p| !p.is_empty())
            .rev()
            .collect();
        let mut discovery = Discovery::default();
        let (_, found, _) = discovery.find(&record(&parts, id)).unwrap();
        assert!(found.ends_with("/token.txt"));
        let other = FileId {
            ino: id.ino + 1_000_000,
            ..id
        };
        assert!(discovery.find(&record(&parts, other)).is_none());
        // Without names, the descriptor that is open will do.
        let open = fs::File::open(&path).unwrap();
        assert!(discovery.find(&record(&[], id)).is_some());
        drop(open);
    }
}
