//! The way to the very file that was inspected.
//!
//! A path is a question to whoever may write to its directories: between the inspect a file and its watch, or later, it
//! may be made to lead to any other file of the host, and then every open of that one would be reported as one of this. So
//! nothing is done to a path: the file is opened without a right to read it, below the root it was found in, compared with
//! the one that was inspected, and used by its descriptor.

use super::proof;
use keytrail_abi::FileId;
use keytrail_host::kernel_device;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// A file that is open (`O_PATH`).
pub struct Reached {
    fd: OwnedFd,
    pub id: FileId,
    pub ctime_ns: u64,
    is_regular: bool,
}

impl Reached {
    /// The way to this very file, for calls that take paths.
    pub fn way(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Whether its file system makes device numbers up, so that the kernel may know it by another name.
    pub fn has_other_name(&self) -> bool {
        proof::made_up(self.fd.as_fd())
    }

    /// The same file, readable. Opening something else than a regular file would be felt.
    pub fn readable(&self) -> io::Result<OwnedFd> {
        if !self.is_regular {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // The access time is not the agent's to change, but only the owner or root may ask for that.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| rustix::fs::open(self.way(), flags, Mode::empty());
        Ok(open(flags | OFlags::NOATIME).or_else(|_| open(flags))?)
    }
}

impl AsFd for Reached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens what lies at `path`, which may begin with `/proc/PID/root`: links below such a root do not lead out of it. Links
/// are followed, for many a file is known by one (a volume of secrets has nothing else): what counts is which file is there.
pub fn open(path: &Path) -> io::Result<Reached> {
    let (root, below) = split(path);
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&root, &below, flags, Mode::empty(), resolve)
    };
    // EAGAIN: something above it was renamed on the way.
    let fd = match open() {
        Err(Errno::AGAIN) => open()?,
        other => other?,
    };
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Reached {
        id: FileId {
            ino: stat.st_ino,
            dev: kernel_device(stat.st_dev),
            pad: 0,
        },
        ctime_ns: (stat.st_ctime as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(stat.st_ctime_nsec),
        is_regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        fd,
    })
}

/// The same, if it is this file by what stat(2) says of it; else nothing is there, as where it is gone.
pub fn file(path: &Path, file: FileId) -> io::Result<Reached> {
    let reached = open(path)?;
    if reached.id == file {
        Ok(reached)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "another file lies there by now",
        ))
    }
}

/// The root a path is seen through, and the path below it.
fn split(path: &Path) -> (PathBuf, PathBuf) {
    let mut parts = path.components();
    let is_of_process = parts.next() == Some(std::path::Component::RootDir)
        && parts.next().is_some_and(|part| part.as_os_str() == "proc")
        && parts.next().is_some()
        && parts.next().is_some_and(|part| part.as_os_str() == "root");
    let root: PathBuf = if is_of_process {
        path.components().take(4).collect()
    } else {
        PathBuf::from("/")
    };
    let below = path.strip_prefix(&root).unwrap_or(path);
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    (root, below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_processes_are_distinguished_from_paths() {
        let parts = |path: &str| {
            let (root, below) = split(Path::new(path));
            (
                root.to_str().unwrap().to_owned(),
                below.to_str().unwrap().to_owned(),
            )
        };
        let pair = |root: &str, below: &str| (root.to_owned(), below.to_owned());
        assert_eq!(parts("/a/b"), pair("/", "a/b"));
        assert_eq!(parts("/"), pair("/", "."));
        assert_eq!(parts("/proc/7/root/a/b"), pair("/proc/7/root", "a/b"));
        assert_eq!(parts("/proc/7/rooted"), pair("/", "proc/7/rooted"));
    }

    #[test]
    fn another_file_at_the_same_path_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "x").unwrap();
        let id = open(&path).unwrap().id;
        assert_eq!(file(&path, id).unwrap().id, id);
        // By a link it is the same file.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("env", &link).unwrap();
        assert_eq!(file(&link, id).unwrap().id, id);
        std::fs::rename(&path, dir.path().join("kept")).unwrap();
        for target in ["/etc/passwd", "/bin/sh"] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = file(&path, id).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, "x").unwrap();
        assert_eq!(
            file(&path, id).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn an_absolute_link_stays_in_the_root_of_its_process() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let inside = open(&dir.path().join("etc/passwd")).unwrap().id;
        let root = dir.path().to_owned();
        let (sender, received) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // A thread with a root of its own looks like a process in a container.
        let thread = std::thread::spawn(move || {
            // SAFETY: no pointers; the thread parts with the root that it shares.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
            rustix::process::chroot(&root).unwrap();
            sender
                .send(rustix::thread::gettid().as_raw_nonzero())
                .unwrap();
            let _ = ended.recv();
        });
        let tid = received.recv().unwrap();
        let reached = open(Path::new(&format!("/proc/{tid}/root/link")));
        drop(end);
        thread.join().unwrap();
        assert_eq!(reached.unwrap().id, inside);
    }
}
