//! A file that nobody told us about, found again by its device, inode and names.

use super::exclude::Excluded;
use super::read;
use keytrail_abi::{FileId, FileNew, NAME_DEPTH};
use keytrail_host::mounts::{self, Mount};
use keytrail_host::procfs;
use rustix::fs::OFlags;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Descriptors of a process that are looked at when a file has no path any more.
const MAX_FDS: usize = 256;
/// The host's mount table is read again after this time.
const OWN_FRESH_NS: u64 = 2_000_000_000;

/// Where a file of a record lies.
pub enum Found {
    /// A root, a path below it and a handle of the file: all three belong to the very inode.
    At(PathBuf, String, OwnedFd),
    /// The configuration says not to inspect it.
    Excluded,
    Nowhere,
}

/// Finds files by inode.
#[derive(Default)]
pub struct Locator {
    own: Vec<Mount>,
    own_read_ns: u64,
}

impl Locator {
    pub fn find(&mut self, new: &FileNew, excluded: &Excluded) -> Found {
        let inner = names(new);
        let tgid = new.header.tgid;
        let same_ns = procfs::namespace(tgid, "mnt").is_none_or(|ns| ns == procfs::own_mnt_ns());
        if let Some(inner) = &inner {
            if !same_ns {
                let tgid = procfs::lasting(tgid);
                let mounts = mounts::read(Path::new(&format!("/proc/{tgid}/mountinfo")));
                let root = PathBuf::from(format!("/proc/{tgid}/root"));
                match below(&root, &mounts, inner, new.file, excluded) {
                    Found::Nowhere => {}
                    found => return found,
                }
            }
            // The layers of a container lie in the host's own file systems.
            if self.own.is_empty() || self.own_read_ns + OWN_FRESH_NS < new.header.boot_ns {
                self.own = mounts::read(Path::new("/proc/self/mountinfo"));
                self.own_read_ns = new.header.boot_ns;
            }
            match below(Path::new("/"), &self.own, inner, new.file, excluded) {
                Found::Nowhere => {}
                found => return found,
            }
            // Which the agent in a pod does not have itself.
            let host = procfs::host_root();
            if host != Path::new("/") {
                let mounts = mounts::read(Path::new("/proc/1/mountinfo"));
                match below(host, &mounts, inner, new.file, excluded) {
                    Found::Nowhere => {}
                    found => return found,
                }
            }
        }
        open_descriptor(tgid, new.file, excluded)
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
fn below(root: &Path, mounts: &[Mount], inner: &str, id: FileId, excluded: &Excluded) -> Found {
    let Ok(root_fd) = read::open_root(root) else {
        return Found::Nowhere;
    };
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
        // Before it is opened: a file system that does not answer is what is excluded most.
        if excluded.has(&path) {
            return Found::Excluded;
        }
        let Ok(fd) = read::open_in(root_fd.as_fd(), &path, OFlags::PATH) else {
            continue;
        };
        if matches!(read::version(&fd, &path), Ok(Some(found)) if found.id == id) {
            return Found::At(root.to_owned(), path, fd);
        }
    }
    Found::Nowhere
}

/// The file as one of the descriptors its reader still has open: unlinked, or with names we could not follow.
fn open_descriptor(tgid: u32, id: FileId, excluded: &Excluded) -> Found {
    let Ok(entries) = fs::read_dir(format!("/proc/{tgid}/fd")) else {
        return Found::Nowhere;
    };
    for entry in entries.take(MAX_FDS).filter_map(Result::ok) {
        let Ok(target) = fs::read_link(entry.path()) else {
            return Found::Nowhere;
        };
        // Not every descriptor is a file: opening a pipe or a terminal would be felt.
        if !target.as_os_str().as_bytes().starts_with(b"/") {
            continue;
        }
        let path = target.to_string_lossy().into_owned();
        if excluded.has(&path) {
            continue;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(entry.path(), flags, rustix::fs::Mode::empty()) else {
            continue;
        };
        if matches!(read::version(&fd, &path), Ok(Some(found)) if found.id == id) {
            let tgid = procfs::lasting(tgid);
            return Found::At(PathBuf::from(format!("/proc/{tgid}/root")), path, fd);
        }
    }
    Found::Nowhere
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
            owner_uid: 0,
            owner_gid: 0,
            mode: 0,
            data_len: 0,
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
        let mut locator = Locator::default();
        let mut find = |parts: &[&str], id| locator.find(&record(parts, id), &Excluded::none());
        let Found::At(_, found, _) = find(&parts, id) else {
            panic!("the file is there")
        };
        assert!(found.ends_with("/token.txt"));
        let other = FileId {
            ino: id.ino + 1_000_000,
            ..id
        };
        assert!(matches!(find(&parts, other), Found::Nowhere));
        // Without names, the descriptor that is open will do.
        let open = fs::File::open(&path).unwrap();
        assert!(matches!(find(&[], id), Found::At(..)));
        drop(open);
        let excluded = Excluded::new(&[dir.path().display().to_string()]).unwrap();
        let found = Locator::default().find(&record(&parts, id), &excluded);
        assert!(matches!(found, Found::Excluded));
    }
}
