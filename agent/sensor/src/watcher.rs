//! The thread that goes to watched files: opens them, proves that each is the one that was inspected, marks it, and learns
//! what the kernel calls it. Any of them may lie where nobody answers, and the engine's thread waits for nobody.

use super::{
    fanotify::Fanotify,
    kernel_ids::Learner,
    reach::{self, Reached},
};
use keytrail_abi::FileId;
use rustix::event::{EventfdFlags, eventfd};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A thread that is at one file for this long does not come back soon: another one takes its place.
const STUCK: Duration = Duration::from_secs(2);
/// Threads that may be stuck.
const STUCK_MAX: usize = 4;
/// A file takes some ten microseconds: one that takes this long is waited for no longer.
const PATIENCE: Duration = Duration::from_millis(10);
/// Answers after which the engine is woken though more are to come.
const BATCH: usize = 64;

/// What is to be done about a file.
enum Job {
    Watch(u64, PathBuf, FileId),
    Unmark(PathBuf, FileId),
}

impl Job {
    fn file(&self) -> FileId {
        match self {
            Self::Watch(_, _, file) | Self::Unmark(_, file) => *file,
        }
    }

    /// Nothing came of it.
    fn failed(self, error: io::Error) -> Option<Answer> {
        match self {
            Self::Watch(ask, _, file) => Some(Answer {
                ask,
                file,
                found: None,
                error: Some(error),
            }),
            Self::Unmark(..) => None,
        }
    }
}

/// What became of a watch.
pub struct Answer {
    /// The number it was asked under.
    pub ask: u64,
    pub file: FileId,
    /// The file, if it is there.
    pub found: Option<Found>,
    /// What of it did not succeed; the rest is in effect nevertheless.
    pub error: Option<io::Error>,
}

pub struct Found {
    pub ctime_ns: u64,
    /// The kernel's name for it, where that is another one and could be learnt.
    pub real: Option<FileId>,
}

/// Whether somebody listens for what the thread reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    No,
    /// The thread waits for it.
    Wanted,
    Since(Instant),
    /// This kernel does not let it.
    Refused,
}

/// What the engine is to do about that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Begin,
    End,
}

struct At {
    since: Instant,
    job: (Option<u64>, FileId),
}

struct Queue {
    jobs: VecDeque<Job>,
    answers: Vec<Answer>,
    at: Option<At>,
    listening: Listening,
    /// Only the thread of this generation is listened to.
    generation: u64,
    is_running: bool,
    /// Threads that are stuck, by the device each waits for.
    stuck: HashMap<u64, u32>,
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be done, or somebody listens.
    arrived: Condvar,
    /// Readable when answers wait, or somebody is to listen. Without it they are seen when the engine looks.
    ready: Option<OwnedFd>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(ready) = &self.ready {
            // A counter at its limit wakes just as well.
            let _ = rustix::io::write(ready, &1u64.to_ne_bytes());
        }
    }

    fn answer(&self, queue: &mut Queue, answer: Option<Answer>) {
        queue.answers.extend(answer);
        if queue.jobs.is_empty() || queue.answers.len() >= BATCH {
            self.wake();
        }
    }
}

/// The thread, as the sensor holds it. It ends with it, unless it waits for a file system: then with the process.
pub struct Watcher {
    shared: Arc<Shared>,
    fanotify: Option<Fanotify>,
    learner: Option<Learner>,
}

impl Watcher {
    pub fn new(fanotify: Option<&Fanotify>, learner: Option<Learner>) -> Self {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::new(Queue {
                    jobs: VecDeque::new(),
                    answers: Vec::new(),
                    at: None,
                    listening: Listening::No,
                    generation: 0,
                    is_running: false,
                    stuck: HashMap::new(),
                    stop: false,
                }),
                arrived: Condvar::new(),
                ready: eventfd(0, flags).ok(),
            }),
            fanotify: fanotify.and_then(|group| group.try_clone().ok()),
            learner,
        }
    }

    /// Asks for a watch under this number.
    pub fn watch(&mut self, ask: u64, path: &Path, file: FileId) {
        self.push(Job::Watch(ask, path.to_owned(), file));
    }

    /// Asks for a mark to be taken off.
    pub fn unmark(&mut self, path: PathBuf, file: FileId) {
        self.push(Job::Unmark(path, file));
    }

    fn push(&mut self, job: Job) {
        let shared = self.shared.clone();
        let mut queue = shared.lock();
        queue.jobs.push_back(job);
        if !queue.is_running {
            self.start(&mut queue);
        }
        shared.arrived.notify_all();
    }

    /// Begins a thread where there may be one; where there is none, what waits for it is reported.
    fn start(&self, queue: &mut Queue) {
        queue.generation += 1;
        let generation = queue.generation;
        let hand = Hand {
            shared: self.shared.clone(),
            generation,
            fanotify: self.fanotify.as_ref().and_then(|f| f.try_clone().ok()),
            learner: self.learner.as_ref().and_then(Learner::try_clone),
        };
        let started = if queue.stuck.len() >= STUCK_MAX {
            Err(unanswered())
        } else {
            thread::Builder::new()
                .name("watches".into())
                .spawn(move || hand.work())
        };
        queue.is_running = started.is_ok();
        if let Err(error) = started {
            let jobs = std::mem::take(&mut queue.jobs);
            for job in jobs {
                let error = io::Error::new(error.kind(), error.to_string());
                let answer = job.failed(error);
                self.shared.answer(queue, answer);
            }
        }
    }

    /// What has come of what was asked. What takes too long is given up, and nobody is sent there until it answers.
    pub fn take(&self) -> Vec<Answer> {
        if let Some(ready) = &self.shared.ready {
            // Nothing to read is no failure.
            let _ = rustix::io::read(ready, &mut [0; 8]);
        }
        let mut queue = self.shared.lock();
        if let Some(at) = queue.at.take_if(|at| at.since.elapsed() > STUCK) {
            let (ask, file) = at.job;
            let generation = queue.generation;
            queue.stuck.insert(generation, file.dev);
            if let Some(ask) = ask {
                queue.answers.push(Answer {
                    ask,
                    file,
                    found: None,
                    error: Some(unanswered()),
                });
            }
            self.start(&mut queue);
        }
        std::mem::take(&mut queue.answers)
    }

    /// Whether more answers are to come at once.
    pub fn goes_on(&self) -> bool {
        let queue = self.shared.lock();
        !queue.answers.is_empty()
            || queue.listening == Listening::Wanted
            || match &queue.at {
                Some(at) => at.since.elapsed() < PATIENCE,
                None => queue.is_running && !queue.jobs.is_empty(),
            }
    }

    /// Whether something is asked that is not answered.
    pub fn is_busy(&self) -> bool {
        let queue = self.shared.lock();
        queue.at.is_some() || !queue.jobs.is_empty() || !queue.answers.is_empty()
    }

    /// What the engine has to do so that other names can be learnt. They come in batches: the program that listens stays
    /// for a second longer than it is needed, for loading it costs more than all the rest.
    pub fn listen(&self) -> Option<Listen> {
        let queue = self.shared.lock();
        match queue.listening {
            Listening::Wanted => Some(Listen::Begin),
            Listening::Since(since)
                if queue.at.is_none()
                    && queue.jobs.is_empty()
                    && since.elapsed() > Duration::from_secs(1) =>
            {
                Some(Listen::End)
            }
            _ => None,
        }
    }

    /// Somebody listens now, or nobody can.
    pub fn listens(&self, is_heard: bool) {
        let mut queue = self.shared.lock();
        queue.listening = if is_heard {
            Listening::Since(Instant::now())
        } else {
            Listening::Refused
        };
        self.shared.arrived.notify_all();
    }

    /// Nobody does any more.
    pub fn listens_no_more(&self) {
        self.shared.lock().listening = Listening::No;
    }

    /// Waits for an answer, or for something to do, at most this long.
    pub fn wait(&self, most: Duration) {
        let queue = self.shared.lock();
        if queue.answers.is_empty() && queue.listening != Listening::Wanted {
            // Woken for nothing it looks again.
            let _ = self
                .shared
                .arrived
                .wait_timeout(queue, most)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.shared.ready.as_ref().map(|fd| fd.as_fd())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.arrived.notify_all();
    }
}

fn unanswered() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "the file system it lies on does not answer",
    )
}

/// What the thread has.
struct Hand {
    shared: Arc<Shared>,
    generation: u64,
    fanotify: Option<Fanotify>,
    learner: Option<Learner>,
}

impl Hand {
    fn work(mut self) {
        while let Some(job) = self.next() {
            let answer = self.done(job);
            let mut queue = self.shared.lock();
            if queue.generation != self.generation {
                // It was given up: what it has found is of yesterday, and others may come here again.
                queue.stuck.remove(&self.generation);
                return;
            }
            queue.at = None;
            self.shared.answer(&mut queue, answer);
            self.shared.arrived.notify_all();
        }
    }

    /// What is to be done next; `None` when the thread is to end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.shared.lock();
        loop {
            if queue.stop || queue.generation != self.generation {
                return None;
            }
            let Some(job) = queue.jobs.pop_front() else {
                queue = self
                    .shared
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let file = job.file();
            if queue.stuck.values().any(|dev| *dev == file.dev) {
                let answer = job.failed(unanswered());
                self.shared.answer(&mut queue, answer);
                continue;
            }
            let ask = match &job {
                Job::Watch(ask, ..) => Some(*ask),
                Job::Unmark(..) => None,
            };
            queue.at = Some(At {
                since: Instant::now(),
                job: (ask, file),
            });
            return Some(job);
        }
    }

    fn done(&mut self, job: Job) -> Option<Answer> {
        match job {
            Job::Watch(ask, path, file) => Some(self.watched(ask, &path, file)),
            Job::Unmark(path, file) => {
                // Only where it still is: a mark goes with its inode.
                if let Some(fanotify) = &self.fanotify
                    && let Ok(reached) = reach::file(&path, file)
                {
                    let _ = fanotify.unmark(&reached);
                }
                None
            }
        }
    }

    fn watched(&mut self, ask: u64, path: &Path, file: FileId) -> Answer {
        let mut answer = Answer {
            ask,
            file,
            found: None,
            error: None,
        };
        let reached = match reach::file(path, file) {
            Ok(reached) => reached,
            Err(error) => {
                answer.error = Some(error);
                return answer;
            }
        };
        if let Some(fanotify) = &self.fanotify {
            answer.error = fanotify.mark(&reached).err();
        }
        answer.found = Some(Found {
            ctime_ns: reached.ctime_ns,
            real: self.real(&reached),
        });
        answer
    }

    /// The kernel's name for a file whose device number is made up.
    fn real(&mut self, reached: &Reached) -> Option<FileId> {
        if self.learner.is_none() || !reached.has_other_name() {
            return None;
        }
        let readable = reached.readable().ok()?;
        if !self.is_heard() {
            return None;
        }
        self.learner.as_mut()?.real(&readable)
    }

    /// Waits until somebody listens; false where nobody can. That time is the engine's, and not the file's.
    fn is_heard(&self) -> bool {
        let mut queue = self.shared.lock();
        loop {
            if queue.stop || queue.generation != self.generation {
                return false;
            }
            match queue.listening {
                Listening::Refused => return false,
                Listening::Since(_) => {
                    queue.listening = Listening::Since(Instant::now());
                    if let Some(at) = &mut queue.at {
                        at.since = Instant::now();
                    }
                    return true;
                }
                Listening::No | Listening::Wanted => {}
            }
            if queue.listening == Listening::No {
                queue.listening = Listening::Wanted;
                self.shared.wake();
                self.shared.arrived.notify_all();
            }
            if let Some(at) = &mut queue.at {
                at.since = Instant::now();
            }
            queue = self
                .shared
                .arrived
                .wait_timeout(queue, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
