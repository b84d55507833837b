//! A file that nobody told us about, found by its device and inode and looked into once per version.

use super::read;
use super::table::{FileTable, KnownFile};
use crate::digest::{Registry, procfs};
use crate::inventory::look::{Form, form};
use crate::secret::{Classifier, Origin};
use keytrail_abi::{FileId, FileNew, NAME_DEPTH};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Descriptors of a process that are looked at when a file has no path any more.
const MAX_FDS: usize = 256;
/// Lines of a mount table that are read.
const MAX_MOUNTS: usize = 4_096;
/// Findings below this confidence do not make a discovered file a credential file.
const MIN_CONFIDENCE: f64 = 0.5;
/// Clean files remembered here.
const MAX_CLEAN: usize = 4_096;
/// How much of a file decides whether it is worth reading.
const HEAD: u64 = 4_096;

/// One line of /proc/PID/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    dev: u32,
    /// What of the file system is mounted here.
    root: String,
    point: String,
}

/// What became of a new file.
pub enum Discovered {
    /// It holds credentials and is in the table now.
    Holds,
    Clean,
    /// It could not be found again by what the kernel side knew of it.
    Lost,
}

/// Finds and looks into new files.
#[derive(Default)]
pub struct Discovery {
    own: Vec<Mount>,
    own_read_ns: u64,
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
        table: &mut FileTable,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Discovered {
        if self.clean.get(&new.file) == Some(&new.ctime_ns) {
            return Discovered::Clean;
        }
        let found = self.look_inside(new, table, classifier, registry);
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
        table: &mut FileTable,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Discovered {
        let Some((root, path, fd)) = self.find(new) else {
            return Discovered::Lost;
        };
        let Ok(Some((facts, _))) = read::facts(&fd, &path) else {
            return Discovered::Lost;
        };
        let Ok(fd) = reopen(&fd) else {
            return Discovered::Lost;
        };
        // Most files are programs and their data: the first page tells.
        let mut first = zeroize::Zeroizing::new([0u8; HEAD as usize]);
        let Ok(n) = rustix::io::pread(&fd, &mut first[..], 0) else {
            return Discovered::Lost;
        };
        if matches!(
            form(&first[..n]),
            Form::Empty | Form::Harmless | Form::Opaque
        ) {
            return Discovered::Clean;
        }
        let Ok((bytes, truncated)) = read::content(fd, facts.size) else {
            return Discovered::Lost;
        };
        let mut known = KnownFile {
            facts,
            root,
            credentials: Vec::new(),
            unreadable: None,
            truncated,
        };
        for finding in classifier.classify(&bytes, Origin::File { path: &path }) {
            // In a place that no rule names, a name with a random-looking value is not enough of a reason.
            if finding.parts.is_empty() || finding.confidence < MIN_CONFIDENCE {
                continue;
            }
            if let Some(credential) = registry.learn(&finding)
                && !known
                    .credentials
                    .iter()
                    .any(|c| c.fingerprint == credential.fingerprint)
            {
                known.credentials.push(credential);
            }
        }
        if known.credentials.is_empty() {
            return Discovered::Clean;
        }
        if table.insert(new.file, known) {
            Discovered::Holds
        } else {
            Discovered::Lost
        }
    }

    /// A root, a path below it and a handle of the file: all three belong to the very inode.
    fn find(&mut self, new: &FileNew) -> Option<(PathBuf, String, OwnedFd)> {
        let inner = names(new);
        let tgid = new.header.tgid;
        let same_ns = procfs::namespace(tgid, "mnt")
            .is_none_or(|ns| Some(ns) == procfs::namespace(std::process::id(), "mnt"));
        let own = PathBuf::from("/");
        if let Some(inner) = &inner {
            if !same_ns {
                let mounts = mounts(tgid);
                let root = PathBuf::from(format!("/proc/{tgid}/root"));
                if let Some((path, fd)) = below(&root, &mounts, inner, new.file) {
                    return Some((root, path, fd));
                }
            }
            // The layers of a container lie in the host's own file systems.
            if self.own.is_empty() || self.own_read_ns + OWN_FRESH_NS < new.header.boot_ns {
                self.own = mounts_of("/proc/self/mountinfo");
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
    for mount in mounts.iter().filter(|m| m.dev == id.dev) {
        let rest = match mount.root.as_str() {
            "/" => inner,
            shown => match inner.strip_prefix(shown) {
                Some(rest) if rest.starts_with('/') => rest,
                _ => continue,
            },
        };
        let path = format!(
            "{}{rest}",
            if mount.point == "/" { "" } else { &mount.point }
        );
        let Ok(fd) = read::open_in(root_fd.as_fd(), &path, OFlags::PATH) else {
            continue;
        };
        if matches!(read::facts(&fd, &path), Ok(Some((_, found))) if found == id) {
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
        if matches!(read::facts(&fd, &path), Ok(Some((_, found))) if found == id) {
            return Some((PathBuf::from(format!("/proc/{tgid}/root")), path, fd));
        }
    }
    None
}

/// A readable descriptor of what `handle` names, and of nothing that took its place.
fn reopen(handle: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(link, flags, rustix::fs::Mode::empty())
}

fn mounts(tgid: u32) -> Vec<Mount> {
    mounts_of(&format!("/proc/{tgid}/mountinfo"))
}

fn mounts_of(file: &str) -> Vec<Mount> {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().take(MAX_MOUNTS).filter_map(parse).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ...` (proc(5)); blanks in paths are written as octal escapes.
fn parse(line: &str) -> Option<Mount> {
    let mut words = line.split(' ');
    let (major, minor) = words.nth(2)?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some(Mount {
        dev: (major << 20) | (minor & 0xf_ffff),
        root: unescape(words.next()?),
        point: unescape(words.next()?),
    })
}

fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = text.to_owned();
    for (octal, plain) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        out = out.replace(octal, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_abi::NAME_MAX;

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
    fn mount_lines() {
        let mount =
            parse("36 35 98:1 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!(
            (mount.dev, mount.root.as_str(), mount.point.as_str()),
            (98 << 20 | 1, "/mnt1", "/mnt 2")
        );
        assert_eq!(parse("nonsense"), None);
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
        let (_, id) = read::facts(&fd, "").unwrap().unwrap();
        // The names the kernel side sends are those within the file system.
        let inner = mounts_of("/proc/self/mountinfo")
            .into_iter()
            .filter(|m| m.dev == id.dev && path.starts_with(&m.point))
            .max_by_key(|m| m.point.len())
            .map(|m| {
                let rest = path.strip_prefix(&m.point).unwrap();
                Path::new(&m.root).join(rest)
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
