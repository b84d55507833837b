//! Whose a file is, as far as the host's own records say. Asked after the walk, for files with credentials only.

mod acl;
mod git;
mod ignore;
mod origin;
mod packages;
mod units;
mod users;

pub use acl::{Reader, readers};
pub use git::GitTrees;
pub use origin::third_party;
pub use packages::{Digest, Packages, packages};
pub use units::units;
pub use users::Users;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read as _;

/// Opens a file below `root`; symbolic links are resolved inside it, and nothing blocks.
fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = if path.is_empty() {
        b".".as_slice()
    } else {
        path
    };
    // openat2 refuses with O_PATH what has no meaning there.
    let harmless = if flags.contains(OFlags::PATH) {
        OFlags::CLOEXEC
    } else {
        OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
    };
    let flags = flags | harmless;
    rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// A file below `root`, itself if it is a symbolic link, for questions that need no permission on it.
pub fn handle(root: impl AsFd, path: &[u8]) -> Option<OwnedFd> {
    open(root, path, OFlags::PATH | OFlags::NOFOLLOW).ok()
}

/// A regular file below `root`.
fn open_file(root: impl AsFd, path: &[u8]) -> Option<File> {
    let fd = open(root, path, OFlags::RDONLY).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| File::from(fd))
}

/// Whether a regular file below `root` is what its package shipped.
pub fn is_shipped(root: impl AsFd, path: &[u8], digest: Digest) -> bool {
    open_file(root, path).is_some_and(|file| digest.is_of(file))
}

/// The first `max` bytes of a regular file below `root`.
fn read(root: impl AsFd, path: &[u8], max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(root, path)?
        .take(max)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}
