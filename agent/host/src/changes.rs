//! What happens to certain files, and who does it: a fanotify group with marks on their inodes.
//!
//! inotify tells the same, but not by whom. A mark costs only who changes the marked file. Its events name the file by
//! handle and hold nothing open.

use super::fanotify::{self, FsId};
use super::writes::{Handle, fs_id, handle_of};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Closed after being open for writing; mode, owner, times, extended attributes or number of names changed; moved; the
/// last name and the last user of it gone.
const MASK: u64 =
    libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB | libc::FAN_MOVE_SELF | libc::FAN_DELETE_SELF;
/// AT_HANDLE_FID of linux/fcntl.h (6.5): a handle that tells files apart and need not open them, as an overlay's.
const AT_HANDLE_FID: libc::c_int = 0x200;

/// A file, as events name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    pub fs: FsId,
    pub handle: Handle,
}

/// What happened to a file; several things may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    pub written: bool,
    /// chmod, chown, link, unlink and the like.
    pub attributes: bool,
    pub moved: bool,
    /// It is no more. Who is named with it closed it last, and need not have deleted it.
    pub deleted: bool,
}

/// The group.
pub struct Changes {
    group: OwnedFd,
    buffer: Vec<u8>,
}

impl Changes {
    /// # Errors
    /// When the kernel has no fanotify of this kind (before 5.1), or does not let us (CAP_SYS_ADMIN).
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_FID;
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
        Ok(Self {
            group: fanotify::group(flags, files)?,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Marks an open file (of `O_PATH` too); says how events name it.
    ///
    /// # Errors
    /// EOPNOTSUPP, EXDEV or ENODEV where the file system has no handles or no identity of its own.
    pub fn mark(&self, file: BorrowedFd<'_>) -> io::Result<FileKey> {
        let handle = handle_of(file, 0).or_else(|_| handle_of(file, AT_HANDLE_FID))?;
        let fs = fs_id(file)?;
        fanotify::change_mark(&self.group, libc::FAN_MARK_ADD, MASK, &way(file))?;
        Ok(FileKey { fs, handle })
    }

    /// Takes the mark off again.
    ///
    /// # Errors
    /// ENOENT when it has none.
    pub fn unmark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        fanotify::change_mark(&self.group, libc::FAN_MARK_REMOVE, MASK, &way(file))
    }

    /// Hands out what is queued, each with the pid that did it; true when the kernel had to drop some.
    pub fn drain(&mut self, sink: &mut dyn FnMut(FileKey, Happened, u32)) -> bool {
        fanotify::drain(&self.group, &mut self.buffer, &mut |mask, pid, info| {
            let Some((fs, handle, _)) = fanotify::info(info, libc::FAN_EVENT_INFO_TYPE_FID) else {
                return;
            };
            let key = FileKey {
                fs,
                handle: Handle(handle.to_vec()),
            };
            let happened = Happened {
                written: mask & libc::FAN_CLOSE_WRITE != 0,
                attributes: mask & libc::FAN_ATTRIB != 0,
                moved: mask & libc::FAN_MOVE_SELF != 0,
                deleted: mask & libc::FAN_DELETE_SELF != 0,
            };
            sink(key, happened, pid);
        })
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The way to the very file that is open.
fn way(file: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// Everything that is queued, merged by who did it.
    fn reported(changes: &mut Changes) -> Vec<(FileKey, Happened, u32)> {
        let mut out = Vec::new();
        assert!(!changes.drain(&mut |key, happened, pid| out.push((key, happened, pid))));
        out
    }

    /// Runs a program on a file to its end; gives its pid.
    fn run(program: &str, arguments: &[&str], file: &Path) -> u32 {
        let mut child = Command::new(program);
        let mut child = child.args(arguments).arg(file).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    }

    #[test]
    fn who_changes_a_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        // Root only; the suite of this crate runs as root in CI and in the VM.
        let Ok(mut changes) = Changes::new() else {
            assert!(!rustix::process::geteuid().is_root());
            return;
        };
        let key = changes.mark(open(&file).as_fd()).unwrap();
        let chmod = run("chmod", &["640"], &file);
        let seen = reported(&mut changes);
        assert!(
            matches!(&seen[..], [(k, h, pid)] if *k == key && h.attributes && !h.moved && *pid == chmod),
            "{seen:?}"
        );
        std::fs::write(&file, "y").unwrap();
        let seen = reported(&mut changes);
        assert!(seen.len() == 1 && seen[0].1.written, "{seen:?}");
        std::fs::rename(&file, dir.path().join("g")).unwrap();
        assert!(
            reported(&mut changes)
                .iter()
                .any(|(k, h, _)| *k == key && h.moved)
        );
        let rm = run("rm", &[], &dir.path().join("g"));
        let seen = reported(&mut changes);
        assert!(
            seen.iter()
                .any(|(k, h, pid)| *k == key && h.deleted && *pid == rm),
            "{seen:?}"
        );
        // No mark, no word.
        std::fs::write(&file, "x").unwrap();
        let fd = open(&file);
        changes.mark(fd.as_fd()).unwrap();
        changes.unmark(fd.as_fd()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(reported(&mut changes).is_empty());
    }
}
