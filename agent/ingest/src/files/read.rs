//! Opening and reading files of other programs and other mount namespaces: bounded, never blocking, never out of root.

use keytrail_abi::{FileId, FileNew};
use keytrail_model::{FileFacts, Reach};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use zeroize::Zeroizing;

/// What is read of a file that is larger than what is read whole.
const HEAD: u64 = 1024 * 1024;

/// Opens `path` below `root`; symbolic links cannot lead out of it, and a FIFO or device does not block.
pub fn open_in(
    root: BorrowedFd<'_>,
    path: impl AsRef<[u8]>,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = path.as_ref();
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    let relative = match &path[slashes..] {
        [] => b".",
        relative => relative,
    };
    // openat2 refuses what has no meaning with O_PATH.
    let harmless = if flags.contains(OFlags::PATH) {
        OFlags::CLOEXEC
    } else {
        OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
    };
    let flags = flags | harmless;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: the tree was being renamed while we walked it.
    untouched(flags, |flags| {
        for _ in 0..3 {
            match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    })
}

/// Opens so that reading leaves the access time as it was: whoever looks for traces later finds those of others, not
/// ours. That is for the owner and root only; anybody else reads as usual.
fn untouched(
    flags: OFlags,
    open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    if flags.contains(OFlags::PATH) {
        return open(flags);
    }
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}

/// The first `most` bytes of a regular file below a root; `None` when it is none, or cannot be read.
pub fn beginning(root: BorrowedFd<'_>, path: &str, most: u64) -> Option<Vec<u8>> {
    let fd = open_in(root, path, OFlags::RDONLY).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(fd).take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Opens the root directory of a process (or of this one).
pub fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Who comes as far as a file that everybody may read; `None` for others, and where a directory above it cannot be seen.
pub fn reach(root: BorrowedFd<'_>, facts: &FileFacts) -> Option<Reach> {
    if facts.mode & 0o004 == 0 {
        return None;
    }
    for dir in Path::new(&facts.path).ancestors().skip(1) {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = open_in(root, dir.to_str()?, flags).ok()?;
        let mode = rustix::fs::fstat(&dir).ok()?.st_mode;
        if mode & 0o001 == 0 {
            return Some(Reach::Few);
        }
    }
    Some(Reach::World)
}

/// An open regular file in its version of now.
#[derive(Clone, Debug)]
pub struct Version {
    pub facts: FileFacts,
    pub id: FileId,
    /// When the inode was made, nanoseconds since the epoch; 0 when the file system does not say.
    pub born_ns: u64,
    /// Seconds since the epoch.
    pub modified: i64,
    /// The same, nanoseconds.
    pub modified_ns: u64,
    pub links: u32,
}

impl Version {
    /// That of a file which only its reader has seen.
    pub fn reported(new: &FileNew, path: &str) -> Self {
        Self {
            facts: FileFacts {
                path: path.to_owned(),
                host_path: String::new(),
                device: u64::from(new.file.dev),
                inode: new.file.ino,
                owner_uid: new.owner_uid,
                owner_gid: new.owner_gid,
                mode: new.mode & 0o7777,
                size: new.size,
                ctime_ns: new.ctime_ns,
                reach: None,
                tracked: false,
                orphaned: false,
            },
            id: new.file,
            born_ns: 0,
            modified: (new.ctime_ns / 1_000_000_000).cast_signed(),
            // No later version has the same content for sure.
            modified_ns: u64::MAX,
            links: 0,
        }
    }
}

/// The version of an open file; `None` when it is not a regular file.
pub fn version(fd: impl AsFd, path: &str) -> rustix::io::Result<Option<Version>> {
    version_of(fd, path, libc::S_IFREG)
}

/// The version of a symbolic link itself (`O_PATH`, `O_NOFOLLOW`); `None` when it is something else.
pub fn link_version(fd: impl AsFd, path: &str) -> rustix::io::Result<Option<Version>> {
    version_of(fd, path, libc::S_IFLNK)
}

fn version_of(fd: impl AsFd, path: &str, kind: u32) -> rustix::io::Result<Option<Version>> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let s = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, mask)?;
    if u32::from(s.stx_mode) & libc::S_IFMT != kind {
        return Ok(None);
    }
    let dev = (s.stx_dev_major << 20) | (s.stx_dev_minor & 0xf_ffff);
    let nanos = |seconds: i64, rest: u32| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000) + u64::from(rest)
    };
    let facts = FileFacts {
        path: path.to_owned(),
        host_path: String::new(),
        device: u64::from(dev),
        inode: s.stx_ino,
        owner_uid: s.stx_uid,
        owner_gid: s.stx_gid,
        mode: u32::from(s.stx_mode) & 0o7777,
        size: s.stx_size,
        ctime_ns: nanos(s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec),
        reach: None,
        tracked: false,
        orphaned: false,
    };
    let has_birth = s.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Some(Version {
        facts,
        id: FileId {
            ino: s.stx_ino,
            dev,
            pad: 0,
        },
        born_ns: if has_birth {
            nanos(s.stx_btime.tv_sec, s.stx_btime.tv_nsec)
        } else {
            0
        },
        modified: s.stx_mtime.tv_sec,
        modified_ns: nanos(s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
        links: s.stx_nlink,
    }))
}

/// A readable descriptor of what `handle` (of `O_PATH`) names, and of nothing that took its place. Only for regular
/// files: opening a FIFO would be felt.
pub fn reopen(handle: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    untouched(flags, |flags| {
        rustix::fs::open(link.as_str(), flags, Mode::empty())
    })
}

/// Reads a file (its head, when it is larger than `most`); true when only a part was read.
pub fn content(fd: OwnedFd, size: u64, most: u64) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
    let truncated = size > most;
    let want = if truncated { HEAD.min(most) } else { size };
    // One more byte of room tells a file that grows while it is read. Taken once: growing would leave copies.
    let mut bytes = Zeroizing::new(vec![0u8; want as usize + 1]);
    let mut file = File::from(fd);
    let mut have = 0;
    while have < bytes.len() {
        match file.read(&mut bytes[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(have.min(want as usize));
    Ok((bytes, truncated || have as u64 > want))
}

/// Entries of a directory looked through for a file that was renamed.
const ENTRIES_MAX: usize = 4_096;

/// Where a file of this inode lies now in the directory of `path`.
pub fn renamed(root: &Path, path: &str, file: FileId) -> Option<String> {
    let (parent, _) = path.rsplit_once('/')?;
    let root = open_root(root).ok()?;
    let within = if parent.is_empty() { "/" } else { parent };
    let directory = open_in(root.as_fd(), within, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
    rustix::fs::Dir::read_from(&directory)
        .ok()?
        .take(ENTRIES_MAX)
        .filter_map(Result::ok)
        .filter(|entry| entry.ino() == file.ino)
        .filter_map(|entry| Some(format!("{parent}/{}", entry.file_name().to_str().ok()?)))
        .find(|path| {
            open_in(root.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW)
                .and_then(|fd| version(&fd, path))
                .is_ok_and(|there| there.is_some_and(|there| there.id == file))
        })
}

/// Whether the process is still there through which a root is reached. The root itself is not asked: it may lie on a
/// file system that does not answer.
pub fn is_reachable(root: &Path) -> bool {
    match root.parent() {
        None => true,
        Some(process) => process.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_counts_as_far_as_others_come() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        let mode = |path: &str, mode| {
            let path = dir.path().join(path);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/key"), "x").unwrap();
        let of = || {
            let fd = open_in(root.as_fd(), "/a/b/key", OFlags::PATH).unwrap();
            let facts = version(&fd, "/a/b/key").unwrap().unwrap().facts;
            reach(root.as_fd(), &facts)
        };
        for path in ["", "a", "a/b"] {
            mode(path, 0o755);
        }
        mode("a/b/key", 0o644);
        assert_eq!(of(), Some(Reach::World));
        mode("a", 0o700);
        assert_eq!(of(), Some(Reach::Few));
        mode("a", 0o711);
        assert_eq!(of(), Some(Reach::World));
        mode("a/b/key", 0o640);
        assert_eq!(of(), None, "nobody else may read it");
    }

    #[test]
    fn links_do_not_lead_out_of_the_root_and_fifos_do_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        std::fs::write(dir.path().join("in"), b"inside").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/in", dir.path().join("within")).unwrap();
        rustix::fs::mknodat(
            root.as_fd(),
            "fifo",
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(open_in(root.as_fd(), "/out", OFlags::RDONLY).is_err());
        let fd = open_in(root.as_fd(), "/within", OFlags::RDONLY).unwrap();
        let seen = version(&fd, "/within").unwrap().unwrap().facts;
        let (bytes, cut) = content(fd, seen.size, 1 << 20).unwrap();
        assert_eq!((&bytes[..], cut), (&b"inside"[..], false));
        let fifo = open_in(root.as_fd(), "/fifo", OFlags::PATH).unwrap();
        assert!(version(&fifo, "/fifo").unwrap().is_none());
    }

    #[test]
    fn a_renamed_file_is_found_by_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("{}/{name}", dir.path().display());
        std::fs::write(path("one"), b"x").unwrap();
        let slash = Path::new("/");
        let root = open_root(slash).unwrap();
        let fd = open_in(root.as_fd(), path("one"), OFlags::PATH).unwrap();
        let id = version(&fd, "").unwrap().unwrap().id;
        std::fs::rename(path("one"), path("two")).unwrap();
        std::fs::write(path("one"), b"y").unwrap();
        assert_eq!(renamed(slash, &path("one"), id), Some(path("two")));
        std::fs::remove_file(path("two")).unwrap();
        assert_eq!(renamed(slash, &path("one"), id), None);
    }

    #[test]
    fn a_growing_file_is_said_to_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), vec![b'x'; 100]).unwrap();
        let root = open_root(dir.path()).unwrap();
        let fd = open_in(root.as_fd(), "f", OFlags::RDONLY).unwrap();
        let (bytes, cut) = content(fd, 60, 1 << 20).unwrap();
        assert_eq!((bytes.len(), cut), (60, true));
    }

    #[test]
    fn reading_leaves_the_access_time_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
        let times = std::fs::FileTimes::new().set_accessed(long_ago);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(times).unwrap();
        let root = open_root(dir.path()).unwrap();
        for again in [false, true] {
            let fd = match again {
                false => open_in(root.as_fd(), "f", OFlags::RDONLY).unwrap(),
                true => reopen(&open_in(root.as_fd(), "f", OFlags::PATH).unwrap()).unwrap(),
            };
            assert_eq!(&content(fd, 7, 100).unwrap().0[..7], b"content");
            assert_eq!(path.metadata().unwrap().atime(), 1_500_000_000);
        }
    }
}
