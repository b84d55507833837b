//! One directory of a walk.

use super::queue::{Batch, DirJob, Job};
use super::visited::Entered;
use super::{Root, Visitor, Walk, shown};
use crate::model::Reach;
use keytrail_host::verdict;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Directory entries are read in pieces of this size.
const BUFFER: usize = 32 * 1024;
/// Directories that wait at most; beyond it a thread goes down at once instead of leaving them for later.
const MAX_WAITING: usize = 50_000;
/// Path lengths from which a directory is entered from its parent: the kernel takes no path above 4096 bytes.
const LONG_PATH: usize = 3_500;
/// How deep a thread goes down at once; each level holds a descriptor.
const MAX_INLINE: usize = 128;
/// Files of one directory that a thread handles by itself before it gives some away.
const OWN_FILES: usize = 128;
/// Files given away at once.
const BATCH: usize = 128;

/// Appends a name to a path; the length to cut it back to.
pub(super) fn join(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let keep = path.len();
    if keep > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    keep
}

/// Where a thread is.
struct Here<'a> {
    root: &'a Root,
    index: usize,
    reach: Reach,
    /// Device of the parent directory.
    parent: Option<u64>,
    /// Levels below the job's own directory.
    depth: usize,
}

impl<V: Visitor> Walk<'_, V> {
    pub(super) fn directory_job(&self, scratch: &mut V::Scratch, job: DirJob) {
        let Some(root) = self.roots.get(job.root) else {
            return;
        };
        let flags = OFlags::RDONLY
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK;
        let below = if job.path.is_empty() {
            b".".as_slice()
        } else {
            &job.path
        };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut opened = Err(Errno::AGAIN);
        // EAGAIN: something was renamed on the way.
        for _ in 0..3 {
            opened = rustix::fs::openat2(
                &root.fd,
                below,
                flags | OFlags::NOATIME,
                Mode::empty(),
                resolve,
            );
            // O_NOATIME is for the owner and root only.
            if opened.as_ref().err() == Some(&Errno::PERM) {
                opened = rustix::fs::openat2(&root.fd, below, flags, Mode::empty(), resolve);
            }
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
        }
        match opened {
            Ok(fd) => {
                let here = Here {
                    root,
                    index: job.root,
                    reach: job.reach,
                    parent: job.device,
                    depth: 0,
                };
                self.directory(scratch, fd, job.path, &here);
            }
            Err(e) => self.report.unreadable(|| shown(root, &job.path), e),
        }
    }

    fn directory(&self, scratch: &mut V::Scratch, fd: OwnedFd, mut path: Vec<u8>, here: &Here<'_>) {
        let Some(stat) = self.enter(&fd, &path, here) else {
            return;
        };
        let reach = here.reach.through(stat.st_mode, stat.st_gid);
        let here = Here { reach, ..*here };
        let fd = Arc::new(fd);
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut files = 0usize;
        let mut batch: Vec<CString> = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(e) => {
                    self.report.unreadable(|| shown(here.root, &path), e);
                    break;
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.report.stop.load(Ordering::Relaxed) {
                return;
            }
            let kind = kind(&fd, name, entry.file_type());
            if kind == Ok(FileType::RegularFile) {
                self.report.files.fetch_add(1, Ordering::Relaxed);
                files += 1;
                if !batch.is_empty() || (files > OWN_FILES && self.queue.starved()) {
                    batch.push(name.to_owned());
                    if batch.len() >= BATCH {
                        self.give_away(&here, &fd, &path, &mut batch);
                    }
                    continue;
                }
            }
            let keep = join(&mut path, name.to_bytes());
            let at = || self.at(here.root, here.index, &fd, name, &path, reach);
            match kind {
                Ok(FileType::RegularFile) => self.visitor.file(scratch, &at()),
                Ok(FileType::Directory) => {
                    self.subdirectory(scratch, &fd, name, &path, stat.st_dev, &here);
                }
                Ok(FileType::Socket) => self.visitor.socket(&at()),
                Ok(other) => {
                    let count = match other {
                        FileType::Symlink => &self.report.symlinks,
                        _ => &self.report.special,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Err(e) => self.report.unreadable(|| shown(here.root, &path), e),
            }
            path.truncate(keep);
        }
        self.give_away(&here, &fd, &path, &mut batch);
    }

    /// What a directory is that is to be gone through; `None` of one that is not: by its file system, or for the second time.
    fn enter(&self, fd: &OwnedFd, path: &[u8], here: &Here<'_>) -> Option<rustix::fs::Stat> {
        let stat = match rustix::fs::fstat(fd) {
            Ok(stat) => stat,
            Err(e) => {
                self.report.unreadable(|| shown(here.root, path), e);
                return None;
            }
        };
        if here.parent.is_some_and(|parent| parent != stat.st_dev) {
            // A mount (or a btrfs subvolume) that may be newer than the table we read.
            let magic = rustix::fs::fstatfs(fd).map_or(0, |s| s.f_type as u64);
            if !self.judge(here.root, path, verdict::by_magic(magic), "") {
                return None;
            }
        }
        match self.visited.enter(stat.st_dev, stat.st_ino) {
            Entered::First => {}
            Entered::Before => return None,
            Entered::Full => {
                self.report
                    .skip(shown(here.root, path), "too many directories".to_owned());
                return None;
            }
        }
        self.report.directories.fetch_add(1, Ordering::Relaxed);
        Some(stat)
    }

    fn give_away(
        &self,
        here: &Here<'_>,
        dir: &Arc<OwnedFd>,
        path: &[u8],
        names: &mut Vec<CString>,
    ) {
        if !names.is_empty() {
            let names = std::mem::take(names);
            let batch = Batch {
                root: here.index,
                path: path.to_vec(),
                reach: here.reach,
                dir: dir.clone(),
                names,
            };
            self.queue.push(Job::Files(batch));
        }
    }

    fn subdirectory(
        &self,
        scratch: &mut V::Scratch,
        dir: &OwnedFd,
        name: &CStr,
        path: &[u8],
        device: u64,
        here: &Here<'_>,
    ) {
        if !self.may_enter(here.root, path) {
            return;
        }
        let long = path.len() > LONG_PATH;
        if !long && (self.queue.waiting() < MAX_WAITING || here.depth >= MAX_INLINE) {
            self.queue.push(Job::Dir(DirJob {
                root: here.index,
                path: path.to_vec(),
                reach: here.reach,
                device: Some(device),
            }));
            return;
        }
        if here.depth >= MAX_INLINE {
            return self
                .report
                .unreadable(|| shown(here.root, path), Errno::NAMETOOLONG);
        }
        let flags = OFlags::RDONLY
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => {
                let here = Here {
                    parent: Some(device),
                    depth: here.depth + 1,
                    ..*here
                };
                self.directory(scratch, fd, path.to_vec(), &here);
            }
            Err(e) => self.report.unreadable(|| shown(here.root, path), e),
        }
    }
}

/// The type of an entry; some file systems do not say it in the directory.
fn kind(dir: impl AsFd, name: &CStr, reported: FileType) -> rustix::io::Result<FileType> {
    if reported != FileType::Unknown {
        return Ok(reported);
    }
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}
