//! The thread that searches for TLS, and what it is asked. Who asks waits for nothing: what was found comes back as
//! [`News`]. A thread that does not come back (a dead network mount) is left behind and replaced, and what it was at is
//! left alone from then on and reported.

use super::{
    ahead,
    discover::FileKey,
    elf::FILE_TIME,
    packages::{Finder, Found},
    search::{Listener, News, Search, Subject},
};
use keytrail_model::status::LibraryReport;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use std::{
    collections::{HashSet, VecDeque},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Processes and libraries that may wait; the next scan finds what finds no room.
const QUEUE: usize = 4096;
/// What was found and not taken yet: beyond it the thread waits.
const NEWS: usize = 64;
/// After this time with one subject a thread is taken for one that does not come back.
const STUCK: Duration = FILE_TIME.saturating_add(Duration::from_secs(3));
/// Files that may wait for a time in which nothing else is asked.
const AHEAD: usize = 64;
/// Those take one part in so many of a processor: a start of the agent is no load.
const AHEAD_PACE: u32 = 33;
/// Threads that may be left behind.
const MAX_STUCK: usize = 6;

/// What is asked before anything else: somebody is about to talk.
enum Urgent {
    Program(u32),
    Libraries(u32),
    Package(Found),
}

#[derive(Default)]
struct Queue {
    urgent: VecDeque<Urgent>,
    /// Processes in `urgent`, and whether with all they have mapped.
    asked: HashSet<(u32, bool)>,
    scan: bool,
    /// Something found no room: that scan reads everything again.
    whole: bool,
    /// Files that nobody runs yet, and when the next of them may be inspected.
    ahead: VecDeque<Found>,
    ahead_from: Option<Instant>,
    /// There are enough of them.
    ahead_ends: bool,
    /// Something is asked, or was and is not answered.
    busy: bool,
    /// What the thread is at, and since when.
    at: Option<(Instant, Subject)>,
    /// Grows when a thread is replaced: one of an earlier number ends.
    generation: u64,
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// One of the files ahead was taken.
    taken: Condvar,
    ready: OwnedFd,
}

impl Shared {
    /// No code panics while it holds it, and it is whole whenever it did.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A counter at its limit wakes just as well.
        let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
    }

    fn push(&self, urgent: Urgent) {
        let mut queue = self.lock();
        let key = match &urgent {
            Urgent::Program(pid) => Some((*pid, false)),
            Urgent::Libraries(pid) => Some((*pid, true)),
            Urgent::Package(_) => None,
        };
        if queue.stop {
            return;
        }
        if queue.urgent.len() >= QUEUE {
            queue.scan = true;
            queue.whole = true;
            return;
        }
        if key.is_some_and(|key| !queue.asked.insert(key)) {
            return;
        }
        queue.urgent.push_back(urgent);
        queue.busy = true;
        self.arrived.notify_all();
    }

    /// Waits for room for a file that nobody runs yet; false when nobody will inspect it.
    fn push_ahead(&self, found: Found) -> bool {
        let mut queue = self.lock();
        while queue.ahead.len() >= AHEAD / 2 && !queue.stop && !queue.ahead_ends {
            queue = self
                .taken
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queue.stop || queue.ahead_ends {
            return false;
        }
        queue.ahead.push_back(found);
        self.arrived.notify_all();
        true
    }
}

/// The thread, as its owner holds it. It ends with its owner, unless it waits for a file system: then with the process.
pub(super) struct Searcher {
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    /// Calls may be probed.
    calls: bool,
    packages: Option<Finder>,
    avoid: HashSet<Subject>,
    stuck: Vec<LibraryReport>,
}

impl Searcher {
    /// # Errors
    /// There is no thread, or no descriptor.
    pub fn start(calls: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            taken: Condvar::new(),
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let packages = {
            let shared = shared.clone();
            Finder::start(move |found| shared.push(Urgent::Package(found)))
        };
        if let Err(error) = &packages {
            tracing::warn!(%error, "libraries of Python's packages are found when they are used");
        }
        let news = thread(
            &shared,
            Search::new(calls, std::iter::empty(), HashSet::new()),
        )?;
        Ok(Self {
            shared,
            news,
            calls,
            packages: packages.ok(),
            avoid: HashSet::new(),
            stuck: Vec::new(),
        })
    }

    /// Everything: the host's directories, and all processes.
    pub fn scan(&self) {
        let mut queue = self.shared.lock();
        if queue.stop {
            return;
        }
        queue.scan = true;
        queue.busy = true;
        self.shared.arrived.notify_all();
    }

    /// What a process has mapped.
    pub fn libraries(&self, pid: u32) {
        self.shared.push(Urgent::Libraries(pid));
    }

    /// The program that a process has just begun to run.
    pub fn program(&self, pid: u32) {
        self.shared.push(Urgent::Program(pid));
        if let Some(packages) = &self.packages {
            packages.ask(pid);
        }
    }

    /// Looks for programs wherever they are installed, before anybody runs them.
    pub fn search_ahead(&self) {
        let shared = self.shared.clone();
        if let Err(error) = ahead::start(move |found| shared.push_ahead(found)) {
            tracing::warn!(%error, "programs that are not where programs usually are, are found when they run");
        }
    }

    /// A file that nobody runs yet. Without room it is found when somebody does.
    pub fn offer(&self, found: Found) {
        let mut queue = self.shared.lock();
        if queue.ahead.len() < AHEAD && !queue.ahead_ends {
            queue.ahead.push_back(found);
            self.shared.arrived.notify_all();
        }
    }

    /// No more of those: what is probed is as much as there is room for.
    pub fn end_ahead(&self) {
        let mut queue = self.shared.lock();
        queue.ahead_ends = true;
        queue.ahead.clear();
        self.shared.taken.notify_all();
    }

    /// Whether something is asked that is not answered.
    pub fn is_busy(&self) -> bool {
        self.shared.lock().busy
    }

    /// Readable when something was found, or all was answered.
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Waits until something was found or all was answered, at most `most`.
    pub fn wait(&self, most: Duration) {
        // Longer than any clock is for ever.
        let timeout = rustix::time::Timespec::try_from(most).ok();
        // What interrupts it makes it short.
        let _ = rustix::event::poll(
            &mut [PollFd::from_borrowed_fd(self.ready(), PollFlags::IN)],
            timeout.as_ref(),
        );
    }

    /// What was found since it was last asked, at most `most`.
    pub fn take(&self, most: usize) -> Vec<News> {
        // Nothing to read is no failure.
        let _ = rustix::io::read(&self.shared.ready, &mut [0; 8]);
        let news: Vec<News> = self.news.try_iter().take(most).collect();
        if news.len() == most {
            self.shared.wake();
        }
        news
    }

    /// What could not be searched since nobody came back from it.
    pub fn stuck(&self) -> &[LibraryReport] {
        &self.stuck
    }

    /// Replaces a thread that does not come back; `known` are the files it need not inspect again. Returns whether it
    /// did.
    pub fn replace(&mut self, known: impl Iterator<Item = (FileKey, PathBuf)>) -> bool {
        let subject = {
            let mut queue = self.shared.lock();
            match &queue.at {
                Some((since, _)) if since.elapsed() > STUCK => {}
                _ => return false,
            }
            queue.generation += 1;
            self.shared.arrived.notify_all();
            // Whatever it was asked meanwhile is in the queue, and the scan it was at begins anew.
            queue.scan = true;
            match queue.at.take() {
                Some((_, subject)) => subject,
                None => return false,
            }
        };
        let over = self.stuck.len() + 1 >= MAX_STUCK;
        self.stuck.push(report(&subject, over));
        self.avoid.insert(subject);
        if over {
            self.end();
            return true;
        }
        match thread(
            &self.shared,
            Search::new(self.calls, known, self.avoid.clone()),
        ) {
            Ok(news) => self.news = news,
            Err(error) => {
                tracing::error!(%error, "TLS is not searched for any more");
                self.end();
            }
        }
        true
    }
}

impl Searcher {
    /// Nobody searches any more.
    fn end(&self) {
        let mut queue = self.shared.lock();
        queue.stop = true;
        queue.busy = false;
        self.shared.arrived.notify_all();
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        self.end();
    }
}

fn report(subject: &Subject, over: bool) -> LibraryReport {
    let path = match subject {
        Subject::Directories => "the directories of libraries and programs".to_owned(),
        Subject::File(path) => path.display().to_string(),
        Subject::Process(pid) => format!("/proc/{pid}/exe"),
    };
    let then = if over {
        ", and TLS that was not found before is not searched for any more"
    } else {
        ""
    };
    LibraryReport {
        path,
        reason: format!("its file system does not answer{then}"),
        remedy: "a mount that answers, or that fails (NFS: `soft`), and a restart of the agent"
            .to_owned(),
        users: match subject {
            Subject::Process(pid) => vec![*pid],
            _ => Vec::new(),
        },
        ..LibraryReport::default()
    }
}

/// What the thread tells, and where.
struct NewsSender<'a> {
    shared: &'a Shared,
    generation: u64,
    news: &'a mpsc::SyncSender<News>,
}

impl NewsSender<'_> {
    /// Notes what the thread is at; false when it is to end.
    fn at(&self, subject: Option<Subject>) -> bool {
        let mut queue = self.shared.lock();
        let goes_on = queue.generation == self.generation && !queue.stop;
        if goes_on {
            queue.at = subject.map(|subject| (Instant::now(), subject));
        }
        goes_on
    }
}

impl Listener for NewsSender<'_> {
    fn about(&mut self, subject: &Subject) -> bool {
        self.at(Some(subject.clone()))
    }

    fn report(&mut self, news: News) -> bool {
        let Err(mpsc::TrySendError::Full(news)) = self.news.try_send(news) else {
            self.shared.wake();
            return true;
        };
        // Not its own fault if that takes time.
        let sent = self.at(None) && self.news.send(news).is_ok();
        self.shared.wake();
        sent
    }
}

fn thread(shared: &Arc<Shared>, mut search: Search) -> io::Result<mpsc::Receiver<News>> {
    let (sender, news) = mpsc::sync_channel(NEWS);
    let generation = shared.lock().generation;
    let shared = shared.clone();
    // Nobody waits for its end: it may never come.
    thread::Builder::new()
        .name("libraries".into())
        .spawn(move || {
            let mut to = NewsSender {
                shared: &shared,
                generation,
                news: &sender,
            };
            while let Some(next) = next(&shared, generation) {
                match next {
                    Next::Urgent(Urgent::Program(pid)) => search.program(pid, &mut to),
                    Next::Urgent(Urgent::Libraries(pid)) => search.libraries(pid, &mut to),
                    Next::Urgent(Urgent::Package(found)) => search.package(found, &mut to),
                    Next::Scan { whole } => search.begin_scan(whole, &mut to),
                    Next::Step => {
                        if !search.go_on(&mut to)
                            && let Some(found) = rest(&shared, generation)
                        {
                            let began = Instant::now();
                            search.package(found, &mut to);
                            shared.lock().ahead_from = Some(began + began.elapsed() * AHEAD_PACE);
                        }
                    }
                }
            }
        })?;
    Ok(news)
}

enum Next {
    Urgent(Urgent),
    Scan { whole: bool },
    Step,
}

/// What is to be done next, at once; `None` when the thread is to end.
fn next(shared: &Shared, generation: u64) -> Option<Next> {
    let mut queue = shared.lock();
    if queue.stop || queue.generation != generation {
        return None;
    }
    queue.at = None;
    if let Some(urgent) = queue.urgent.pop_front() {
        match &urgent {
            Urgent::Program(pid) => queue.asked.remove(&(*pid, false)),
            Urgent::Libraries(pid) => queue.asked.remove(&(*pid, true)),
            Urgent::Package(_) => false,
        };
        return Some(Next::Urgent(urgent));
    }
    if std::mem::take(&mut queue.scan) {
        let whole = std::mem::take(&mut queue.whole);
        return Some(Next::Scan { whole });
    }
    Some(Next::Step)
}

/// Nothing is left to do: waits until something is. A file that nobody runs yet is something when its time has come.
fn rest(shared: &Shared, generation: u64) -> Option<Found> {
    let mut queue = shared.lock();
    let idle = |queue: &Queue| {
        queue.generation == generation && !queue.stop && !queue.scan && queue.urgent.is_empty()
    };
    if !idle(&queue) {
        return None;
    }
    queue.at = None;
    queue.busy = false;
    shared.wake();
    while idle(&queue) {
        let left = queue.ahead_from.map_or(Duration::ZERO, |from| {
            from.saturating_duration_since(Instant::now())
        });
        if !queue.ahead.is_empty() && left.is_zero() {
            shared.taken.notify_all();
            return queue.ahead.pop_front();
        }
        queue = if queue.ahead.is_empty() {
            shared
                .arrived
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            shared
                .arrived
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        };
    }
    None
}

#[cfg(test)]
#[path = "searcher_tests.rs"]
mod tests;
