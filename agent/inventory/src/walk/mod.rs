//! A bounded parallel walk over directories: never follows a symbolic link, never enters a directory twice, never
//! opens anything but directories and regular files, never leaves the file systems it may walk.

mod dir;
mod queue;
mod visited;

use super::model::Reach;
use super::names;
use keytrail_host::priority;
use keytrail_host::verdict::{self, MountTable, Verdict};
use queue::{Batch, DirJob, Job, Queue};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use visited::Visited;

/// Paths named in each list of the report; all are counted.
const MAX_LISTED: usize = 100;

/// One tree to walk.
#[derive(Debug)]
pub struct Root {
    /// Its top directory (`O_PATH` is enough).
    pub fd: OwnedFd,
    /// Put before every path that is shown; no slash at its end.
    pub shown: Vec<u8>,
    /// Mounts, seen from the top directory.
    pub mounts: MountTable,
    /// Container id and pod uid; empty on the host.
    pub container: String,
    pub pod: String,
    /// Who reaches the top directory.
    pub reach: Reach,
    /// For an overlay whose layers lie on one file system: that file system's device. Its files have the inode numbers
    /// of the layers' files, so one file seen through two mounts is known as one.
    pub layer_device: Option<u64>,
    /// Where to begin, relative to the top; empty for the top itself.
    pub starts: Vec<Vec<u8>>,
}

/// What a walk meets. Called from several threads.
pub trait Visitor: Sync {
    /// Per-thread state (buffers).
    type Scratch: Default + Send;

    /// A regular file, as far as its directory entry says.
    fn file(&self, scratch: &mut Self::Scratch, at: &At<'_>);
    /// A socket.
    fn socket(&self, at: &At<'_>);
}

/// A directory entry.
pub struct At<'a> {
    pub walk: &'a Report,
    pub root: &'a Root,
    pub root_index: usize,
    pub dir: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// Path below the root, without a slash before it.
    pub path: &'a [u8],
    pub reach: Reach,
}

impl At<'_> {
    /// The path as it is shown.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(self.root, self.path)
    }

    /// The same as bytes, nothing escaped.
    #[must_use]
    pub fn whole(&self) -> Vec<u8> {
        [&self.root.shown, b"/".as_slice(), self.path].concat()
    }
}

fn shown(root: &Root, path: &[u8]) -> String {
    names::escape(&[&root.shown, b"/".as_slice(), path].concat())
}

/// What was not inspected, and why: counts are whole, lists are the first [`MAX_LISTED`].
#[derive(Debug, Default)]
pub struct Report {
    pub directories: AtomicU64,
    pub files: AtomicU64,
    /// FIFOs and devices: never opened.
    pub special: AtomicU64,
    pub symlinks: AtomicU64,
    /// Entries that were gone when they were to be opened.
    pub vanished: AtomicU64,
    pub unreadable_count: AtomicU64,
    pub sampled_count: AtomicU64,
    /// Files that were written to while they were read, twice.
    pub changed: AtomicU64,
    pub bytes: AtomicU64,
    /// Files that were read whole or sampled, and classified.
    pub classified: AtomicU64,
    /// Credentials in one file beyond those that are kept.
    pub crowded: AtomicU64,
    pub stop: AtomicBool,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    skipped: BTreeMap<String, String>,
    unreadable: Vec<(String, String)>,
    sampled: Vec<String>,
}

impl Report {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that was not opened because of an error. What is gone by now is no error.
    pub fn unreadable(&self, path: impl FnOnce() -> String, error: rustix::io::Errno) {
        use rustix::io::Errno;
        if matches!(
            error,
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::STALE
        ) {
            self.vanished.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.unreadable_count.fetch_add(1, Ordering::Relaxed) < MAX_LISTED as u64 {
            let reason = io::Error::from(error).to_string();
            self.lists().unreadable.push((path(), reason));
        }
    }

    /// A tree that was left out on purpose.
    pub fn skip(&self, path: String, reason: String) {
        let mut lists = self.lists();
        if lists.skipped.len() < 10 * MAX_LISTED {
            lists.skipped.insert(path, reason);
        }
    }

    pub fn sampled(&self, path: impl FnOnce() -> String) {
        if self.sampled_count.fetch_add(1, Ordering::Relaxed) < MAX_LISTED as u64 {
            self.lists().sampled.push(path());
        }
    }

    /// (path, reason), by path.
    #[must_use]
    pub fn skipped(&self) -> Vec<(String, String)> {
        self.lists().skipped.clone().into_iter().collect()
    }

    #[must_use]
    pub fn unreadable_list(&self) -> Vec<(String, String)> {
        let mut list = self.lists().unreadable.clone();
        list.sort();
        list
    }

    #[must_use]
    pub fn sampled_list(&self) -> Vec<String> {
        let mut list = self.lists().sampled.clone();
        list.sort();
        list
    }
}

/// How to walk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub threads: usize,
    /// Network and user-space file systems too.
    pub all_filesystems: bool,
}

/// One walk over `roots`.
pub struct Walk<'a, V: Visitor> {
    roots: &'a [Root],
    options: Options,
    report: &'a Report,
    visitor: &'a V,
    queue: Queue,
    visited: Visited,
}

impl<'a, V: Visitor> Walk<'a, V> {
    #[must_use]
    pub fn new(roots: &'a [Root], options: Options, report: &'a Report, visitor: &'a V) -> Self {
        Walk {
            roots,
            options,
            report,
            visitor,
            queue: Queue::default(),
            visited: Visited::default(),
        }
    }

    /// Leaves out the directory with this identity wherever it is seen (the agent's own state).
    pub fn exclude(&self, device: u64, inode: u64) {
        self.visited.enter(device, inode);
    }

    /// Walks until nothing is left (or `report.stop` is set).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn run(&self) -> io::Result<()> {
        for (index, root) in self.roots.iter().enumerate() {
            for start in &root.starts {
                self.queue.push(Job::Dir(DirJob {
                    root: index,
                    path: start.clone(),
                    reach: root.reach,
                    device: None,
                }));
            }
        }
        std::thread::scope(|scope| {
            let mut started = 0;
            let mut refused = None;
            for i in 0..self.options.threads.max(1) {
                let builder = std::thread::Builder::new().name(format!("inventory-{i}"));
                match builder.spawn_scoped(scope, || self.work()) {
                    Ok(_) => started += 1,
                    Err(e) => refused = Some(e),
                }
            }
            match refused {
                Some(e) if started == 0 => Err(e),
                _ => Ok(()),
            }
        })
    }

    fn work(&self) {
        priority::lower_this_thread();
        let mut scratch = V::Scratch::default();
        while let Some(job) = self.queue.next() {
            // A panic in a parser must not leave the others waiting for this job for ever.
            let _done = self.queue.done_at_end();
            if self.report.stop.load(Ordering::Relaxed) {
                continue;
            }
            match job {
                Job::Dir(job) => self.directory_job(&mut scratch, job),
                Job::Files(batch) => self.batch(&mut scratch, &batch),
            }
        }
    }

    fn batch(&self, scratch: &mut V::Scratch, batch: &Batch) {
        let Some(root) = self.roots.get(batch.root) else {
            return;
        };
        let mut path = batch.path.clone();
        for name in &batch.names {
            let keep = dir::join(&mut path, name.to_bytes());
            self.visitor.file(
                scratch,
                &self.at(root, batch.root, &batch.dir, name, &path, batch.reach),
            );
            path.truncate(keep);
        }
    }

    fn at<'b>(
        &'b self,
        root: &'b Root,
        root_index: usize,
        dir: &'b OwnedFd,
        name: &'b CStr,
        path: &'b [u8],
        reach: Reach,
    ) -> At<'b> {
        use rustix::fd::AsFd as _;
        At {
            walk: self.report,
            root,
            root_index,
            dir: dir.as_fd(),
            name,
            path,
            reach,
        }
    }

    /// Whether the mount on `path` (below the root) is to be entered; reports it if not.
    fn may_enter(&self, root: &Root, path: &[u8]) -> bool {
        let point = [b"/", path].concat();
        let Some(mount) = root.mounts.at(&point) else {
            return true;
        };
        self.judge(
            root,
            path,
            verdict::by_type(&mount.kind, &mount.source),
            &mount.kind,
        )
    }

    fn judge(&self, root: &Root, path: &[u8], verdict: Verdict, kind: &str) -> bool {
        let walk = match verdict {
            Verdict::Walk => true,
            Verdict::Pseudo => false,
            Verdict::Remote | Verdict::Unknown => self.options.all_filesystems,
        };
        if !walk {
            let separator = if kind.is_empty() { "" } else { ": " };
            self.report.skip(
                shown(root, path),
                format!("{kind}{separator}{}", verdict.reason()),
            );
        }
        walk
    }
}
