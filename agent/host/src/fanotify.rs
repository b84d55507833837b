//! The two calls every fanotify group is made of.

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
