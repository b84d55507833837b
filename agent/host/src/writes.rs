//! Files that were written or moved into place, anywhere on a file system: a fanotify group of its own, with one mark
//! on each file system.
//!
//! Its events name the directory (by file handle) and the entry. They hold no reference to the mount or the file, as
//! events with descriptors would: an unmount right after a write is not disturbed. Equal events of one process that
//! wait in the queue are merged by the kernel.

use super::fanotify::{self, HANDLE, HANDLE_MAX};
use rustix::fs::{Mode, OFlags};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Closed after being open for writing; moved here; made here, which is all there is to see of a link.
const MASK: u64 = WRITTEN | libc::FAN_CREATE;
const WRITTEN: u64 = libc::FAN_CLOSE_WRITE | libc::FAN_MOVED_TO;

pub use super::fanotify::FsId;

/// The file system of a mount, as events name it.
///
/// # Errors
/// What statfs(2) gives.
pub fn fs_id(fd: impl AsFd) -> io::Result<FsId> {
    let stat = rustix::fs::fstatfs(fd)?;
    // SAFETY: fsid_t is two C ints in every libc, only its field is private; any bytes are a value.
    Ok(unsafe { std::mem::transmute_copy(&stat.f_fsid) })
}

/// A directory or a file, as file systems name it for NFS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub(crate) Vec<u8>);

impl Handle {
    /// Opens the directory (`O_PATH`) on the file system that `mount` is on.
    ///
    /// # Errors
    /// ESTALE when it is gone, EOPNOTSUPP when the file system cannot tell.
    pub fn open(&self, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.open_as(mount, libc::O_DIRECTORY)
    }

    /// The same for whatever it is.
    ///
    /// # Errors
    /// As [`Handle::open`].
    pub fn open_any(&self, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.open_as(mount, 0)
    }

    fn open_as(&self, mount: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<OwnedFd> {
        #[repr(C, align(8))]
        struct Room([u8; HANDLE + HANDLE_MAX]);
        let mut room = Room([0; HANDLE + HANDLE_MAX]);
        let Some(to) = room.0.get_mut(..self.0.len()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        to.copy_from_slice(&self.0);
        // SAFETY: `room` is a struct file_handle with its bytes; the kernel reads as many as its length field says,
        // which `parse` has checked against the room.
        let fd = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                std::ptr::from_mut(&mut room).cast(),
                libc::O_PATH | libc::O_CLOEXEC | kind,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// An entry that was written, or moved to where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    pub fs: FsId,
    pub dir: Handle,
    pub name: Vec<u8>,
}

/// The group.
pub struct Writes {
    group: OwnedFd,
    buffer: Vec<u8>,
}

impl Writes {
    /// # Errors
    /// When the kernel has no fanotify of this kind (before 5.9), or does not let us (CAP_SYS_ADMIN).
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_REPORT_DFID_NAME;
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
        let group = fanotify::group(flags, files)?;
        Ok(Self {
            group,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Marks the whole file system that a directory is on; says which one it is.
    ///
    /// # Errors
    /// EOPNOTSUPP, EXDEV or ENODEV where the file system has no handles or no identity of its own.
    pub fn mark(&self, directory: &Path) -> io::Result<FsId> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(directory, flags, Mode::empty())?;
        let id = fs_id(&fd)?;
        can_be_opened(fd.as_fd())?;
        let action = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        fanotify::change_mark(&self.group, action, MASK, directory)?;
        Ok(id)
    }

    /// Hands out what is queued, each with the pid that did it, at most a few thousand events; true when the kernel had to drop some.
    /// The last argument: it was only made, so what is written to it is still to come, unless it is a link.
    pub fn drain(&mut self, sink: &mut dyn FnMut(Written, u32, bool)) -> bool {
        fanotify::drain(&self.group, &mut self.buffer, &mut |mask, pid, info| {
            if let Some(written) = entry(info) {
                sink(written, pid, mask & WRITTEN == 0);
            }
        })
    }
}

impl AsFd for Writes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// Whether directories of this file system can be opened by handle: an overlay's, for example, only tell one from
/// another.
fn can_be_opened(directory: BorrowedFd<'_>) -> io::Result<()> {
    handle_of(directory, 0).map(drop)
}

/// The handle of an open file or directory (name_to_handle_at(2)).
pub(crate) fn handle_of(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Handle> {
    #[repr(C, align(8))]
    struct Room([u8; HANDLE + HANDLE_MAX]);
    let mut room = Room([0; HANDLE + HANDLE_MAX]);
    room.0[..4].copy_from_slice(&(HANDLE_MAX as u32).to_ne_bytes());
    let mut mount_id = 0;
    // SAFETY: a struct file_handle with the room its length field says, an empty C string and an int to write to.
    let result = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut room).cast(),
            &mut mount_id,
            libc::AT_EMPTY_PATH | flags,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let size = fanotify::number(&room.0, 0).map_or(0, u32::from_ne_bytes) as usize;
    let bytes = room.0.get(..HANDLE + size);
    Ok(Handle(bytes.unwrap_or_default().to_vec()))
}

/// The entry that an event is about.
fn entry(info: &[u8]) -> Option<Written> {
    let kind = libc::FAN_EVENT_INFO_TYPE_DFID_NAME;
    let (fs, handle, name) = fanotify::info(info, kind)?;
    let name = name.get(..memchr::memchr(0, name)?)?;
    // The directory itself.
    (!name.is_empty() && name != b".").then(|| Written {
        fs,
        dir: Handle(handle.to_vec()),
        name: name.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanotify::{METADATA, events};
    use proptest::prelude::*;

    fn event(name: &[u8]) -> Vec<u8> {
        let mut info = vec![libc::FAN_EVENT_INFO_TYPE_DFID_NAME, 0, 0, 0];
        info.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        info.extend(8u32.to_ne_bytes());
        info.extend(1i32.to_ne_bytes());
        info.extend([9; 8]);
        info.extend(name);
        info.push(0);
        let length = info.len() as u16;
        info[2..4].copy_from_slice(&length.to_ne_bytes());
        let mut event = ((METADATA + info.len()) as u32).to_ne_bytes().to_vec();
        event.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        event.extend((METADATA as u16).to_ne_bytes());
        event.extend(libc::FAN_CLOSE_WRITE.to_ne_bytes());
        event.extend((-1i32).to_ne_bytes());
        event.extend(77i32.to_ne_bytes());
        event.extend(info);
        event
    }

    #[test]
    fn a_link_is_made_and_not_written() {
        let at = std::env::temp_dir().join(format!("keytrail-writes-{}", std::process::id()));
        std::fs::create_dir(&at).unwrap();
        let writes = Writes::new().and_then(|writes| writes.mark(&at).map(|_| writes));
        let mut seen = Vec::new();
        if let Ok(mut writes) = writes {
            std::os::unix::fs::symlink("/elsewhere", at.join("link")).unwrap();
            std::fs::write(at.join("file"), b"x").unwrap();
            std::fs::hard_link(at.join("file"), at.join("name")).unwrap();
            let me = std::process::id();
            writes.drain(&mut |written, pid, only_made| {
                if pid == me {
                    seen.push((String::from_utf8(written.name).unwrap(), only_made));
                }
            });
            // Those of one file may have come as one.
            seen.retain(|(name, only_made)| name != "file" || !only_made);
            seen.sort();
            let expected = [("file", false), ("link", true), ("name", true)];
            assert_eq!(seen, expected.map(|(name, made)| (name.to_owned(), made)));
        } else {
            eprintln!("skipped: needs root and a file system with handles");
        }
        std::fs::remove_dir_all(&at).unwrap();
    }

    fn parse(bytes: &[u8]) -> (Vec<(Written, u32)>, bool) {
        let mut out = Vec::new();
        let overflow = events(bytes, &mut |_, pid, info| {
            out.extend(entry(info).map(|w| (w, pid)));
        });
        (out, overflow)
    }

    #[test]
    fn events_are_taken_apart() {
        let two = [event(b"one"), event(b"two \xff")].concat();
        let (out, overflow) = parse(&two);
        assert!(!overflow);
        let said: Vec<_> = out
            .iter()
            .map(|(w, pid)| (*pid, w.name.as_slice()))
            .collect();
        assert_eq!(said, [(77, b"one".as_slice()), (77, b"two \xff")]);
        assert_eq!(out[0].0.fs, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(out[0].0.dir.0.len(), HANDLE + 8);
        assert!(parse(&event(b".")).0.is_empty());
        // The queue overflowed: an event without information.
        let mut lost = event(b"x")[..METADATA].to_vec();
        lost[..4].copy_from_slice(&(METADATA as u32).to_ne_bytes());
        lost[8..16].copy_from_slice(&libc::FAN_Q_OVERFLOW.to_ne_bytes());
        assert_eq!(parse(&lost), (Vec::new(), true));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..80, at in 0usize..80) {
            let _ = parse(&bytes);
            let mut event = event(b"name");
            event.truncate(event.len() - cut.min(event.len()));
            if let (Some(to), Some(from)) = (event.get_mut(at), bytes.first()) {
                *to = *from;
            }
            let _ = parse(&event);
        }
    }
}
