//! The work left, shared by the walking threads. The newest first: deep trees stay few entries.

use crate::model::Reach;
use rustix::fd::OwnedFd;
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A directory to walk.
pub struct DirJob {
    pub root: usize,
    /// Below the root, without a slash at either end.
    pub path: Vec<u8>,
    /// Who reaches this directory.
    pub reach: Reach,
    /// Device of the directory it was found in.
    pub device: Option<u64>,
}

/// Some files of a large directory.
pub struct Batch {
    pub root: usize,
    pub path: Vec<u8>,
    pub reach: Reach,
    pub dir: Arc<OwnedFd>,
    pub names: Vec<CString>,
}

pub enum Job {
    Dir(DirJob),
    Files(Batch),
}

#[derive(Default)]
struct Inner {
    jobs: Vec<Job>,
    /// Jobs taken and not done.
    running: usize,
}

/// Jobs, and how to know that all are done.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Jobs waiting, readable without the lock.
    waiting: AtomicUsize,
    /// Threads without work.
    idle: AtomicUsize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, job: Job) {
        let mut inner = self.lock();
        inner.jobs.push(job);
        self.waiting.store(inner.jobs.len(), Ordering::Relaxed);
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits for a job; `None` when all are done. Each job taken must be followed by [`Queue::done_at_end`].
    pub fn next(&self) -> Option<Job> {
        let mut inner = self.lock();
        loop {
            if let Some(job) = inner.jobs.pop() {
                inner.running += 1;
                self.waiting.store(inner.jobs.len(), Ordering::Relaxed);
                return Some(job);
            }
            if inner.running == 0 {
                self.changed.notify_all();
                return None;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Marks the job as done when dropped.
    pub fn done_at_end(&self) -> Done<'_> {
        Done(self)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Someone has nothing to do and nothing waits.
    pub fn starved(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0 && self.waiting() == 0
    }
}

pub struct Done<'a>(&'a Queue);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.running -= 1;
        if inner.running == 0 && inner.jobs.is_empty() {
            drop(inner);
            self.0.changed.notify_all();
        }
    }
}
