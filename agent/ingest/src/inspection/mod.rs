//! Files are read and classified here, on threads of their own and within a deadline: whatever a file, its size or its
//! file system does, the engine's thread goes on. What does not come back in time is a gap.
//!
//! Requests of different users take turns, and the files of one user may take a part of a processor only. A thread that
//! does not come back (a dead network mount) is replaced, and its file system is left alone until it does.

mod budget;
mod queue;
mod survey;
mod work;

pub use queue::Who;
pub use survey::{Area, Survey, Surveyed};
pub use work::{NewFile, Outcome, PathSubject, ReaderBytes, SeenFile, Subject};

use crate::files::Excluded;
use budget::UserBudgets;
use globset::GlobSet;
use keytrail_host::clock::boot_ns;
use keytrail_model::Bound;
use keytrail_secret::Classifier;
use queue::FairQueue;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use work::{Context, Tools};

/// Threads that take requests.
const THREADS: usize = 2;
/// Threads that may be stuck, each replaced by another; beyond it requests wait, and time out.
const MAX_STUCK: usize = 6;
/// A survey opens many directories, and nobody waits for it.
const SURVEY_TIMEOUT_NS: u64 = 10_000_000_000;

/// What may be configured.
#[derive(Clone, Debug)]
pub struct InspectionOptions {
    /// From the request to the answer.
    pub timeout_ns: u64,
    /// Largest file that is read whole.
    pub file_bytes: u64,
    /// Parts in a thousand of one processor that the files of one user may take.
    pub user_share: u64,
    pub excluded: Excluded,
}

impl Default for InspectionOptions {
    fn default() -> Self {
        Self {
            timeout_ns: 1_000_000_000,
            file_bytes: 8 << 20,
            user_share: 500,
            excluded: Excluded::none(),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It did not come in time.
    Late,
    /// Too many were waiting.
    Backlog,
    /// The file's owner has used up what his files may take.
    OverBudget,
}

impl Missed {
    /// What is counted.
    #[must_use]
    pub fn bound(self) -> Bound {
        match self {
            Self::Late => Bound::InspectionTime,
            Self::Backlog => Bound::InspectionBacklog,
            Self::OverBudget => Bound::InspectionBudget,
        }
    }
}

/// One answer, or that there will be none in time.
pub struct Answer {
    pub id: u64,
    pub outcome: Result<Outcome, Missed>,
    /// Nothing more comes of this request; else its answer may still come.
    pub last: bool,
}

/// How far a request is.
#[derive(Default)]
pub struct Progress(AtomicU8);

impl Progress {
    const READING: u8 = 1;
    const READ: u8 = 2;

    /// The file is in memory: from here on only processor time is needed.
    pub fn has_read(&self) {
        self.0.store(Self::READ, Ordering::Relaxed);
    }
}

struct Request {
    id: u64,
    due_ns: u64,
    subject: Subject,
    progress: Arc<Progress>,
}

struct Shared {
    context: Context,
    queue: Mutex<FairQueue<Request>>,
    arrived: Condvar,
    stop: AtomicBool,
    /// Threads there are too many of, since one that was stuck has come back.
    surplus: AtomicUsize,
    answers: Mutex<Sender<Answer>>,
    ready: OwnedFd,
}

/// What was asked and is not answered.
struct Pending {
    due_ns: u64,
    place: u64,
    progress: Arc<Progress>,
    /// Bytes of a file that came with the request.
    reader_bytes: ReaderBytes,
}

/// The threads, and what they were asked.
pub struct Inspector {
    shared: Arc<Shared>,
    answers: Receiver<Answer>,
    pending: HashMap<u64, Pending>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Requests a thread does not come back from, and where each is stuck if it waits for a file system.
    stuck: HashMap<u64, Option<u64>>,
    next: u64,
}

impl Inspector {
    /// Starts the threads. `named` are the names under which rules expect credentials.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        classifier: Arc<Classifier>,
        named: Arc<GlobSet>,
        options: InspectionOptions,
    ) -> io::Result<Self> {
        let (sender, answers) = mpsc::channel();
        let shared = Arc::new(Shared {
            context: Context {
                classifier,
                named,
                budgets: Mutex::new(UserBudgets::new(options.user_share)),
                options,
            },
            queue: Mutex::default(),
            arrived: Condvar::new(),
            stop: AtomicBool::new(false),
            surplus: AtomicUsize::new(0),
            answers: Mutex::new(sender),
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let inspector = Self {
            shared,
            answers,
            pending: HashMap::new(),
            deadlines: BTreeSet::new(),
            stuck: HashMap::new(),
            next: 0,
        };
        for _ in 0..THREADS {
            inspector.thread()?;
        }
        Ok(inspector)
    }

    fn thread(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        // Nobody waits for its end: it may never come.
        std::thread::Builder::new()
            .name("inspect".to_owned())
            .spawn(move || take_requests(&shared))
            .map(drop)
    }

    #[must_use]
    pub fn options(&self) -> &InspectionOptions {
        &self.shared.context.options
    }

    /// Readable when an answer is there.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Asks; the answer comes from [`Inspector::poll`] under the number that is returned.
    ///
    /// # Errors
    /// Too many are waiting, or the file system it lies on does not answer.
    pub fn ask(&mut self, subject: Subject, who: Who, now_ns: u64) -> Result<u64, Missed> {
        let (place, timeout_ns) = match &subject {
            Subject::Inode(new) => (u64::from(new.record.file.dev), self.options().timeout_ns),
            Subject::Path(path) => {
                let device = path.expected.or(path.known.map(|known| known.0));
                let place = device.map_or_else(|| hash(&path.root), |id| u64::from(id.dev));
                (place, self.options().timeout_ns)
            }
            Subject::Area(survey) => (hash(&survey.area), SURVEY_TIMEOUT_NS),
        };
        if self.stuck.values().any(|stuck| *stuck == Some(place)) {
            return Err(Missed::Late);
        }
        let reader_bytes = match &subject {
            Subject::Inode(new) => new.bytes.clone(),
            _ => ReaderBytes::default(),
        };
        let id = self.next;
        let due_ns = now_ns + timeout_ns;
        let progress = Arc::new(Progress::default());
        let request = Request {
            id,
            due_ns,
            subject,
            progress: progress.clone(),
        };
        if !lock(&self.shared.queue).push(who, request) {
            return Err(Missed::Backlog);
        }
        self.shared.arrived.notify_one();
        self.next += 1;
        self.deadlines.insert((due_ns, id));
        self.pending.insert(
            id,
            Pending {
                due_ns,
                place,
                progress,
                reader_bytes,
            },
        );
        Ok(id)
    }

    /// The next answer, or the next request whose time is up. An answer that comes after that is handed out as well.
    pub fn poll(&mut self, now_ns: u64) -> Option<Answer> {
        let answer = self.answers.try_recv().or_else(|_| {
            // Nothing more is there: the next answer makes it readable again. One may have come in between.
            let _ = rustix::io::read(&self.shared.ready, &mut [0u8; 8]);
            self.answers.try_recv()
        });
        if let Ok(answer) = answer {
            if let Some(pending) = self.pending.remove(&answer.id) {
                self.deadlines.remove(&(pending.due_ns, answer.id));
            } else if self.stuck.remove(&answer.id).is_some() {
                self.shared.surplus.fetch_add(1, Ordering::AcqRel);
                self.shared.arrived.notify_one();
            }
            return Some(answer);
        }
        let (due_ns, id) = *self.deadlines.first()?;
        if due_ns > now_ns {
            return None;
        }
        self.deadlines.remove(&(due_ns, id));
        let pending = self.pending.remove(&id)?;
        drop(pending.reader_bytes.take());
        Some(Answer {
            id,
            outcome: Err(Missed::Late),
            last: !self.replace(id, &pending),
        })
    }

    /// A thread that does not come back in time has another take its place; false when none was at this request.
    fn replace(&mut self, id: u64, pending: &Pending) -> bool {
        let progress = pending.progress.0.load(Ordering::Relaxed);
        if progress == 0 {
            return false;
        }
        if self.stuck.len() >= MAX_STUCK {
            return true;
        }
        // One that is at work with what it has read says nothing about the file system.
        let place = (progress == Progress::READING).then_some(pending.place);
        // Without another the rest wait longer; what is too late for that is reported.
        if self.thread().is_err() {
            return true;
        }
        self.stuck.insert(id, place);
        true
    }

    /// When [`Inspector::poll`] has something to say though no answer comes, nanoseconds since boot.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(due_ns, _)| *due_ns)
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        // Threads that wait for a file system end with the process.
        self.shared.stop.store(true, Ordering::Release);
        self.shared.arrived.notify_all();
    }
}

fn take_requests(shared: &Shared) {
    let mut tools = Tools::default();
    while let Some(request) = next(shared) {
        if request.due_ns < boot_ns() {
            // It has been given up: what waits behind it may still be in time.
            continue;
        }
        request
            .progress
            .0
            .store(Progress::READING, Ordering::Relaxed);
        let outcome = tools.inspect(request.subject, &shared.context, &request.progress);
        keytrail_payload::scrub_stack();
        let answer = Answer {
            id: request.id,
            outcome,
            last: true,
        };
        if lock(&shared.answers).send(answer).is_err() {
            return;
        }
        // It can only fail when it is readable already.
        let _ = rustix::io::write(&shared.ready, &1u64.to_ne_bytes());
        let left = shared
            .surplus
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if left.is_ok() {
            return;
        }
    }
}

fn next(shared: &Shared) -> Option<Request> {
    let mut queue = lock(&shared.queue);
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        if let Some(request) = queue.pop() {
            return Some(request);
        }
        queue = shared
            .arrived
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// No code panics while it holds one of these, and they are whole whenever it did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places that are no device are told apart from those that are by the upper half.
fn hash(place: &impl std::hash::Hash) -> u64 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(place) | 1 << 63
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
