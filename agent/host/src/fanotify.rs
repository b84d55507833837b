//! The two calls every fanotify group is made of, and the events of groups that report file handles.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// A group of this kind (fanotify_init(2)); `files` are the flags its descriptors are opened with.
///
/// # Errors
/// What fanotify_init(2) says.
pub fn group(flags: libc::c_uint, files: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::fanotify_init(flags, files as u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds or removes the marks of `path` (fanotify_mark(2)).
///
/// # Errors
/// What fanotify_mark(2) says, or a path with a NUL.
pub fn change_mark(
    group: &OwnedFd,
    action: libc::c_uint,
    mask: u64,
    path: &Path,
) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives through the call.
    let result = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            action,
            mask,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// struct fanotify_event_metadata (fanotify(7)).
pub(crate) const METADATA: usize = size_of::<libc::fanotify_event_metadata>();
/// struct fanotify_event_info_fid: header (type, pad, length), fsid, then a struct file_handle.
pub(crate) const INFO: usize = 4 + 8;
/// struct file_handle: bytes and type.
pub(crate) const HANDLE: usize = 8;
/// MAX_HANDLE_SZ of linux/exportfs.h.
pub(crate) const HANDLE_MAX: usize = 128;

/// What statfs(2) calls `f_fsid`.
pub type FsId = [u8; 8];

pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// All events of one read, each as its mask, the pid that did it, and its information records; true when one of them says
/// that the queue overflowed.
pub(crate) fn events(mut bytes: &[u8], sink: &mut dyn FnMut(u64, u32, &[u8])) -> bool {
    let mut overflow = false;
    // Length, version, reserved, metadata length, mask, fd, pid.
    while let Some(length) = number(bytes, 0).map(|n| u32::from_ne_bytes(n) as usize)
        && length >= METADATA
        && let Some(event) = bytes.get(..length)
    {
        bytes = bytes.get(length..).unwrap_or_default();
        if event.get(4) != Some(&libc::FANOTIFY_METADATA_VERSION) {
            return overflow;
        }
        let mask = number(event, 8).map_or(0, u64::from_ne_bytes);
        overflow |= mask & libc::FAN_Q_OVERFLOW != 0;
        let pid = number(event, 20).map_or(0, u32::from_ne_bytes);
        let head = number(event, 6).map_or(METADATA, |n| usize::from(u16::from_ne_bytes(n)));
        sink(mask, pid, event.get(head..).unwrap_or_default());
    }
    overflow
}

/// The first information record of this kind: the file system, the handle, and what comes behind it.
pub(crate) fn info(mut bytes: &[u8], kind: u8) -> Option<(FsId, &[u8], &[u8])> {
    loop {
        let length = usize::from(u16::from_ne_bytes(number(bytes, 2)?));
        let record = bytes.get(..length).filter(|_| length >= INFO + HANDLE)?;
        bytes = bytes.get(length..)?;
        if record.first() != Some(&kind) {
            continue;
        }
        let size = u32::from_ne_bytes(number(record, INFO)?) as usize;
        if size > HANDLE_MAX {
            return None;
        }
        let handle = record.get(INFO..INFO + HANDLE + size)?;
        let rest = record.get(INFO + HANDLE + size..)?;
        return Some((number(record, 4)?, handle, rest));
    }
}

/// Hands over what is queued in a group, some thousands of events at most; true when the kernel had to drop some.
pub(crate) fn drain(
    group: &OwnedFd,
    buffer: &mut [u8],
    sink: &mut dyn FnMut(u64, u32, &[u8]),
) -> bool {
    let mut overflow = false;
    for _ in 0..64 {
        let n = match rustix::io::read(group, &mut *buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        overflow |= events(buffer.get(..n).unwrap_or_default(), sink);
    }
    overflow
}
