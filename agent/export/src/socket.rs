//! The listening socket: made safely, never taken from a living agent, removed at the end.

use super::{Address, ServeError};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Read and write for root and the socket's group: writing is what connect(2) asks for.
const SOCKET_MODE: u32 = 0o660;
/// Connections the kernel holds until the agent accepts them.
const BACKLOG: i32 = 1024;

/// A bound socket. While this lives no other agent can bind the same path.
#[derive(Debug)]
pub struct BoundSocket {
    address: Address,
    listener: UnixListener,
    identity: (u64, u64),
    // Held for its lock; the kernel drops the lock with the process, however it ends.
    _lock: File,
}

impl BoundSocket {
    /// Binds and listens. A socket nobody answers on (an agent that was killed) is replaced.
    ///
    /// # Errors
    /// [`ServeError::AlreadyRunning`] when an agent answers or is just starting there; [`ServeError::Socket`] when
    /// the path is something else or the kernel refuses.
    pub fn bind(address: &Address) -> Result<BoundSocket, ServeError> {
        let path = address.path();
        make_parent(path).map_err(|e| socket_error(address, "cannot make its directory", e))?;
        let lock = take_lock(address)?;
        clear_stale(address)?;
        let listener = listen(path).map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => ServeError::AlreadyRunning(address.clone()),
            _ => socket_error(address, "cannot listen", e),
        })?;
        let identity = identity(path)
            .map_err(|e| socket_error(address, "cannot inspect the new socket", e))?;
        Ok(BoundSocket {
            address: address.clone(),
            listener,
            identity,
            _lock: lock,
        })
    }

    /// The listening end, non-blocking, for an async runtime.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Only ours: an administrator may have put something else there since. The lock file stays, because removing
        // a lock file lets two processes hold "the" lock.
        if identity(self.address.path()).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(self.address.path());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.is_dir() => {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)
        }
        _ => Ok(()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn take_lock(address: &Address) -> Result<File, ServeError> {
    let path = lock_path(address.path());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| {
        socket_error(
            address,
            &format!("cannot open {}", path.display()),
            e.into(),
        )
    })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(ServeError::AlreadyRunning(address.clone())),
        Err(e) => {
            return Err(socket_error(
                address,
                &format!("cannot lock {}", path.display()),
                e.into(),
            ));
        }
    }
    let mut file = File::from(file);
    // For people who inspect it; nothing reads it.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Removes a socket nobody listens on. The lock is held, so nobody starts to listen meanwhile.
fn clear_stale(address: &Address) -> Result<(), ServeError> {
    let path = address.path();
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(socket_error(address, "cannot inspect it", e)),
    };
    if !meta.file_type().is_socket() {
        let what =
            io::Error::other("it exists and is not a socket; move it away or listen elsewhere");
        return Err(socket_error(address, "cannot listen", what));
    }
    match UnixStream::connect(path) {
        // Somebody without our lock (another program, or a lock file that was removed) is alive there.
        Ok(_) => Err(ServeError::AlreadyRunning(address.clone())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %address, "replacing the socket of an agent that is gone");
            std::fs::remove_file(path)
                .map_err(|e| socket_error(address, "cannot remove the stale socket", e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog means that somebody listens.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(ServeError::AlreadyRunning(address.clone()))
        }
        Err(e) => Err(socket_error(
            address,
            "cannot tell whether an agent listens there",
            e,
        )),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // On Linux the mode of the socket's own inode masks that of the file bind(2) makes, so there is no moment in
    // which the file is open to everybody, whatever the umask is.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // The umask may have taken the group's write permission away.
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn socket_error(address: &Address, what: &str, source: io::Error) -> ServeError {
    ServeError::Socket {
        address: address.clone(),
        what: what.into(),
        source,
    }
}
