//! A file that nobody told us about, found again by its device, inode and names.

use super::exclude::Excluded;
use super::read;
use keytrail_abi::{FileId, FileNew, NAME_DEPTH, NAME_MAX};
use keytrail_host::mounts::{self, Mount};
use keytrail_host::procfs;
use rustix::fs::OFlags;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Descriptors of a process that are inspected when a file has no path any more.
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

/// A name on the way to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    bytes: Vec<u8>,
    /// It fills its place in the record: more of it may follow.
    is_cut: bool,
}

impl Name {
    fn may_be(&self, name: &[u8]) -> bool {
        match self.is_cut {
            true => name.starts_with(&self.bytes),
            false => name == self.bytes,
        }
    }
}

/// The way within its file system, from its root; `None` when it was too deep.
fn names(new: &FileNew) -> Option<Vec<Name>> {
    let depth = usize::try_from(new.depth).ok()?;
    if depth == 0 || depth >= NAME_DEPTH {
        return None;
    }
    let name = |place: &[u8; NAME_MAX]| {
        let end = place.iter().position(|byte| *byte == 0)?;
        (end > 0).then(|| Name {
            bytes: place[..end].to_vec(),
            is_cut: end + 1 == NAME_MAX,
        })
    };
    new.names.get(..depth)?.iter().rev().map(name).collect()
}

/// Opens the file through each mount that shows that part of the file system, until the inode is the right one.
fn below(root: &Path, mounts: &[Mount], names: &[Name], id: FileId, excluded: &Excluded) -> Found {
    let Ok(root_fd) = read::open_root(root) else {
        return Found::Nowhere;
    };
    let mut search = Search {
        root: root_fd.as_fd(),
        id,
        excluded,
        opened: 0,
        entries: 0,
    };
    for mount in mounts.iter().filter(|m| m.device == id.dev) {
        let mut shown = mount.root.split(|b| *b == b'/').filter(|n| !n.is_empty());
        let mut rest = names.iter();
        if !shown.all(|name| rest.next().is_some_and(|known| known.may_be(name))) {
            continue;
        }
        let point = match &mount.point[..] {
            b"/" => b"",
            point => point,
        };
        match search.walk(point.to_vec(), rest.as_slice()) {
            Walked::At(path, fd) => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Found::At(root.to_owned(), path, fd);
            }
            Walked::Excluded => return Found::Excluded,
            Walked::Nowhere => {}
        }
    }
    Found::Nowhere
}

/// Names a record had no room for are looked up where they are: paths opened for one file, and entries of directories
/// looked through.
const OPENED_MAX: usize = 64;
const ENTRIES_MAX: usize = 65_536;

struct Search<'a> {
    root: BorrowedFd<'a>,
    id: FileId,
    excluded: &'a Excluded,
    opened: usize,
    entries: usize,
}

enum Walked {
    At(Vec<u8>, OwnedFd),
    Excluded,
    Nowhere,
}

impl Search<'_> {
    /// From a path on along the names.
    fn walk(&mut self, mut path: Vec<u8>, names: &[Name]) -> Walked {
        for (n, name) in names.iter().enumerate() {
            if name.is_cut {
                let mut is_excluded = false;
                for whole in self.whole(&path, name) {
                    let there = [&path[..], b"/", &whole].concat();
                    match self.walk(there, &names[n + 1..]) {
                        Walked::Nowhere => {}
                        // Another one that begins alike may be it.
                        Walked::Excluded => is_excluded = true,
                        found => return found,
                    }
                }
                return match is_excluded {
                    true => Walked::Excluded,
                    false => Walked::Nowhere,
                };
            }
            path.push(b'/');
            path.extend_from_slice(&name.bytes);
        }
        self.open(path)
    }

    fn open(&mut self, path: Vec<u8>) -> Walked {
        // Before it is opened: a file system that does not answer is what is excluded most.
        if self.excluded.has(&String::from_utf8_lossy(&path)) {
            return Walked::Excluded;
        }
        self.opened += 1;
        if self.opened > OPENED_MAX {
            return Walked::Nowhere;
        }
        match read::open_in(self.root, &path, OFlags::PATH) {
            Ok(fd) if matches!(read::version(&fd, ""), Ok(Some(found)) if found.id == self.id) => {
                Walked::At(path, fd)
            }
            _ => Walked::Nowhere,
        }
    }

    /// What a name that was cut may be in its directory.
    fn whole(&mut self, directory: &[u8], name: &Name) -> Vec<Vec<u8>> {
        if self.excluded.has(&String::from_utf8_lossy(directory)) {
            return Vec::new();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let entries = read::open_in(self.root, directory, flags).and_then(rustix::fs::Dir::new);
        let mut whole = Vec::new();
        for entry in entries.into_iter().flatten().filter_map(Result::ok) {
            self.entries += 1;
            if self.entries > ENTRIES_MAX || whole.len() == OPENED_MAX {
                break;
            }
            let there = entry.file_name().to_bytes();
            if name.may_be(there) {
                whole.push(there.to_vec());
            }
        }
        whole
    }
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
    use std::ffi::OsStr;

    fn bytes(path: &[u8]) -> &OsStr {
        OsStr::from_bytes(path)
    }

    fn record<N: AsRef<[u8]>>(names: &[N], file: FileId) -> FileNew {
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
            let name = name.as_ref();
            let n = name.len().min(NAME_MAX - 1);
            slot[..n].copy_from_slice(&name[..n]);
        }
        new
    }

    #[test]
    fn names_come_from_the_root_on_and_say_whether_they_may_be_longer() {
        let of = |names: &[&[u8]]| super::names(&record(names, FileId::default()));
        let name = |bytes: &[u8], is_cut| Name {
            bytes: bytes.to_vec(),
            is_cut,
        };
        assert_eq!(
            of(&[b"c\xff", b"b"]),
            Some(vec![name(b"b", false), name(b"c\xff", false)])
        );
        let long = [b'x'; 200];
        assert_eq!(of(&[&long]), Some(vec![name(&long[..63], true)]));
        assert_eq!(of(&[&long[..62]]), Some(vec![name(&long[..62], false)]));
        assert_eq!(of(&[&b"a"[..]; NAME_DEPTH]), None);
        assert_eq!(of(&[]), None);
    }

    /// The names of a file as the kernel side tells them: those within its file system, innermost first.
    fn as_recorded(path: &Path) -> (Vec<Vec<u8>>, FileId) {
        let handle = read::open_root(Path::new("/")).unwrap();
        let raw = path.as_os_str().as_bytes();
        let fd = read::open_in(handle.as_fd(), raw, OFlags::PATH).unwrap();
        let id = read::version(&fd, "").unwrap().unwrap().id;
        let inner = mounts::read(Path::new("/proc/self/mountinfo"))
            .into_iter()
            .filter(|m| m.device == id.dev && path.starts_with(bytes(&m.point)))
            .max_by_key(|m| m.point.len())
            .map(|m| Path::new(bytes(&m.root)).join(path.strip_prefix(bytes(&m.point)).unwrap()))
            .unwrap();
        let names = inner.as_os_str().as_bytes().split(|b| *b == b'/');
        let mut names: Vec<_> = names
            .filter(|n| !n.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        names.reverse();
        (names, id)
    }

    /// Container ids are of 64 letters; names may be of 255 bytes, and of any.
    #[test]
    fn long_names_and_names_that_are_no_text_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let long = [b'x'; 255];
        // Another that begins alike, a third that is a part of it.
        for other in [
            &[&long[..254], b"y"].concat()[..],
            &long[..63],
            &long[..100],
        ] {
            fs::create_dir(dir.path().join(bytes(other))).unwrap();
        }
        for name in [&[b'a'; 64][..], &[b'a'; 63], b"caf\xe9", b"short", &long] {
            let inner = dir.path().join(bytes(name));
            if !inner.exists() {
                fs::create_dir(&inner).unwrap();
            }
            let path = inner.join(bytes(b"key\xff"));
            fs::write(&path, "text").unwrap();
            let (names, id) = as_recorded(&path);
            let found = Locator::default().find(&record(&names, id), &Excluded::none());
            let Found::At(_, found, fd) = found else {
                panic!("{} is there", path.display());
            };
            assert_eq!(found, path.to_string_lossy());
            assert!(matches!(read::version(&fd, ""), Ok(Some(v)) if v.id == id));
        }
        // Nor by what is excluded and begins alike.
        let excluded = Excluded::new(&[format!("{}/**/*.log", dir.path().display())]).unwrap();
        let inner = dir.path().join("alike");
        fs::create_dir(&inner).unwrap();
        for end in ["-0.log", "-1.env", "-2.log"] {
            fs::write(inner.join("x".repeat(70) + end), end).unwrap();
        }
        let (names, id) = as_recorded(&inner.join("x".repeat(70) + "-1.env"));
        let found = Locator::default().find(&record(&names, id), &excluded);
        assert!(matches!(found, Found::At(..)));
        let (names, id) = as_recorded(&inner.join("x".repeat(70) + "-2.log"));
        let found = Locator::default().find(&record(&names, id), &excluded);
        assert!(matches!(found, Found::Excluded));
        // Whoever is told to keep out does not look for the rest of a name either.
        let path = dir.path().join(bytes(&long)).join(bytes(b"key\xff"));
        let (names, id) = as_recorded(&path);
        let excluded = Excluded::new(&[dir.path().display().to_string()]).unwrap();
        let found = Locator::default().find(&record(&names, id), &excluded);
        assert!(!matches!(found, Found::At(..)));
    }

    #[test]
    fn a_file_is_found_by_its_names_and_only_if_it_is_the_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.txt");
        fs::write(&path, "hello, this is text").unwrap();
        let (parts, id) = as_recorded(&path);
        let mut locator = Locator::default();
        let mut find = |parts: &[Vec<u8>], id| locator.find(&record(parts, id), &Excluded::none());
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
