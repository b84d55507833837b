//! Files that were written anywhere on the host, inspected on a thread of their own: once per version, in the
//! processor time it is allowed, whoever reads them later or never. What it finds goes to the engine's thread, which
//! learns it; the bytes of a secret are wiped there like those of any other finding.

mod budget;
mod follow;
mod life;
mod persistence;
mod places;
mod queue;
mod versions;

pub(crate) use budget::Budget;
pub use life::{Act, Life};
pub use places::Unmarked;

use self::follow::{Added, Followed, Path as Way};
use self::places::{Found, Places, path_of};
use self::queue::{By, Queue};
use self::versions::Versions;
use super::files::{self, Inspected, OwnFiles, Version};
use super::inspection::InspectionOptions;
use globset::GlobSet;
use keytrail_abi::FileId;
use keytrail_host::clock::{boot_ns, thread_ns, wall_ns};
use keytrail_host::priority;
use keytrail_host::writes::{Writes, Written};
use keytrail_model::FileFacts;
use keytrail_payload as wire;
use keytrail_secret::Classifier;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::thread::JoinHandle;

/// Looks that may wait for the engine.
const RESULTS: usize = 64;
/// Wishes to follow a file that may wait for the thread.
const WISHES: usize = 4_096;
/// After this time with one file a thread is taken for one that waits for a file system, nanoseconds.
const STUCK_NS: u64 = 10_000_000_000;
/// Nothing shorter is a secret.
const SIZE_MIN: u64 = 16;
/// No program that has a TLS library linked in is smaller, bytes.
const PROGRAM_MIN: u64 = 1 << 20;
/// Parts in a thousand of all processors that looks may take in the long run.
const SHARE: u64 = 20;
/// New mount namespaces, and what else raises no event, are looked for this often.
const PERIOD_NS: u64 = 5_000_000_000;
/// Followed files are looked up by path this often.
const LOOK_UP_NS: u64 = 20_000_000_000;

/// The link by which kubelet puts new versions of all files of a volume in place at once.
const SWAPPED: &[u8] = b"..data";

/// What the thread tells.
pub enum Report {
    Inspected(Box<InspectedFile>),
    /// A file without a credential, in the version of this change time.
    Clean(FileId, u64),
    /// A file was written that is large enough for a program with much linked in (open as `O_PATH`).
    Program(OwnedFd, PathBuf),
    /// A file was written that makes programs run, or lets somebody in.
    Persistence(Box<Persistence>),
    /// A followed file is no longer where it was; and why, where that is proven.
    Gone {
        root: PathBuf,
        raw: Vec<u8>,
        life: Option<Box<Life>>,
    },
    /// Something happened to a followed file that could not be inspected.
    Changed {
        root: PathBuf,
        raw: Vec<u8>,
        facts: FileFacts,
        life: Box<Life>,
    },
    /// A process of a mount namespace not seen before.
    Namespace(u32),
    /// Writes on this file system are not reported.
    Unmarked(Unmarked),
    /// The thread has failed: nothing more comes.
    Ended,
    /// A file system does not answer: nothing more comes until it does.
    Stuck,
    /// Files that were written and not inspected, since the last report.
    Skipped {
        count: u64,
        why: &'static str,
    },
}

impl Report {
    /// The process that did what is reported, where that is known.
    #[must_use]
    pub fn writer(&self) -> Option<u32> {
        let writer = match self {
            Report::Inspected(inspected) => inspected.writer,
            Report::Persistence(seen) => seen.writer,
            Report::Gone {
                life: Some(life), ..
            }
            | Report::Changed { life, .. } => life.writer,
            _ => 0,
        };
        (writer != 0).then_some(writer)
    }
}

/// A write of a file that makes programs run by themselves, or lets somebody in.
pub struct Persistence {
    pub file: FileFacts,
    /// Id of ATT&CK.
    pub technique: &'static str,
    /// Of a symbolic link: where it leads, as it stands there. Else empty.
    pub link: String,
    /// Who wrote it; 0 when that is not known.
    pub writer: u32,
    pub boot_ns: u64,
}

/// One look, with what was found still in clear.
pub struct InspectedFile {
    pub root: PathBuf,
    pub raw: Vec<u8>,
    pub version: Version,
    pub inspected: Inspected,
    /// Who wrote it; 0 when that is not known.
    pub writer: u32,
    pub boot_ns: u64,
    /// What happened to it since the last look, if it was followed.
    pub life: Option<Box<Life>>,
}

enum Command {
    Follow { way: Way, seen: (FileId, u64) },
}

/// What the thread and its owner share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Since when it is at the file it is at, nanoseconds since boot; 0 at rest.
    at_since_ns: AtomicU64,
    /// Wishes to follow a file for which there was no room.
    unfollowed: AtomicU64,
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn is_stuck(&self, now_ns: u64) -> bool {
        let since = self.at_since_ns.load(Ordering::Relaxed);
        since != 0 && now_ns > since.saturating_add(STUCK_NS)
    }
}

/// The running thread. Dropping it ends it.
pub struct Background {
    shared: Arc<Shared>,
    /// It was said that the thread waits for a file system.
    said_stuck: bool,
    commands: SyncSender<Command>,
    results: Option<Receiver<Report>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts looking. `named` are the names under which rules expect credentials.
    ///
    /// # Errors
    /// The kernel does not report writes, or no thread can be started.
    pub fn start(
        classifier: Arc<Classifier>,
        named: Arc<GlobSet>,
        options: InspectionOptions,
    ) -> io::Result<Self> {
        let writes = Writes::new()?;
        let followed = Followed::new()?;
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::sync_channel(WISHES);
        let (sender, results) = mpsc::sync_channel(RESULTS);
        let now = boot_ns();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let mut keeper = Keeper {
            writes,
            mountinfo: File::open("/proc/self/mountinfo").ok(),
            followed,
            places: Places::default(),
            queue: Queue::new(),
            budget: Budget::new(SHARE * cpus, now),
            classifier,
            named,
            options,
            commands: receiver,
            results: sender,
            shared: shared.clone(),
            versions: Versions::new(wall_ns()),
            own_files: OwnFiles::default(),
            overflows: 0,
            period_due: now + PERIOD_NS,
            look_up_due: now + LOOK_UP_NS,
        };
        // Before the caller goes on: what is written from now on is reported.
        let (_, unmarked) = keeper.places.own(&keeper.writes);
        let thread = std::thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || {
                // The engine that would listen is gone, or the thread was told to stop: nothing more to do.
                let _ = keeper.run(unmarked);
            })?;
        Ok(Background {
            shared,
            said_stuck: false,
            commands,
            results: Some(results),
            thread: Some(thread),
        })
    }

    /// Tells when the file at this path changes or goes, from the version on that was inspected (its id and change time).
    pub fn follow(&self, root: PathBuf, raw: Vec<u8>, seen: (FileId, u64)) {
        let way = Way { root, raw };
        if let Err(TrySendError::Full(_)) = self.commands.try_send(Command::Follow { way, seen }) {
            self.shared.unfollowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next report, if there is one.
    pub fn report(&mut self) -> Option<Report> {
        match self.results.as_ref()?.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => {
                let said = std::mem::replace(&mut self.said_stuck, self.shared.is_stuck(boot_ns()));
                (self.said_stuck && !said).then_some(Report::Stuck)
            }
            Err(TryRecvError::Disconnected) => {
                self.results = None;
                Some(Report::Ended)
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Whoever waits for room in the channel stops waiting; whoever waits for a file system ends with the process.
        self.results = None;
        self.thread = None;
    }
}

/// What is to be inspected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Entry(Written),
    /// Made, and nobody has closed it after writing: a link, or a file whose time comes.
    Made(Written),
    Path(Way),
}

/// The engine is gone.
struct Ended;

struct Keeper {
    writes: Writes,
    /// Ready for exceptional conditions when something was mounted or unmounted.
    mountinfo: Option<File>,
    followed: Followed,
    places: Places,
    queue: Queue<What>,
    budget: Budget,
    classifier: Arc<Classifier>,
    named: Arc<GlobSet>,
    options: InspectionOptions,
    commands: Receiver<Command>,
    results: SyncSender<Report>,
    shared: Arc<Shared>,
    /// Of files that outlive their writer.
    versions: Versions,
    own_files: OwnFiles,
    overflows: u64,
    period_due: u64,
    look_up_due: u64,
}

impl Keeper {
    fn run(&mut self, unmarked: Vec<Unmarked>) -> Result<(), Ended> {
        priority::lower_this_thread();
        self.unmarked(unmarked)?;
        self.others()?;
        while !self.shared.stops() {
            if self.wait() {
                self.own()?;
            }
            while let Ok(Command::Follow { way, seen }) = self.commands.try_recv() {
                match self.followed.add(way.clone(), seen) {
                    Added::Followed => {}
                    Added::Differs => self.queue.push(What::Path(way), 0, boot_ns()),
                    Added::Full => {
                        self.shared.unfollowed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            self.take();
            self.inspect_due()?;
            let now = boot_ns();
            if now >= self.period_due {
                self.period_due = now + PERIOD_NS;
                self.others()?;
                self.skipped()?;
            }
            if now >= self.look_up_due {
                self.look_up_due = now + LOOK_UP_NS;
                for way in self.followed.changed() {
                    self.queue.push(What::Path(way), 0, now);
                }
            }
        }
        Ok(())
    }

    fn send(&self, report: Report) -> Result<(), Ended> {
        self.results.send(report).map_err(|_| Ended)
    }

    fn unmarked(&self, unmarked: Vec<Unmarked>) -> Result<(), Ended> {
        unmarked
            .into_iter()
            .try_for_each(|u| self.send(Report::Unmarked(u)))
    }

    /// Mounts of the agent's own namespace. What is followed below a new one may lie under it.
    fn own(&mut self) -> Result<(), Ended> {
        let (points, unmarked) = self.places.own(&self.writes);
        let root = std::path::Path::new("/");
        for point in points.iter().filter(|point| *point != b"/") {
            let mut ways = self.followed.below(root, point);
            ways.push(Way {
                root: root.to_owned(),
                raw: point.clone(),
            });
            for way in ways {
                if self.followed.get(&way).is_some() {
                    self.queue.push(What::Path(way), 0, boot_ns());
                }
            }
        }
        self.unmarked(unmarked)
    }

    /// Mounts of other namespaces; the own ones too, in case the kernel did not tell.
    fn others(&mut self) -> Result<(), Ended> {
        self.own()?;
        let (new, unmarked) = self.places.others(&self.writes);
        self.unmarked(unmarked)?;
        new.into_iter()
            .try_for_each(|tgid| self.send(Report::Namespace(tgid)))
    }

    fn skipped(&mut self) -> Result<(), Ended> {
        for (count, why) in [
            (
                std::mem::take(&mut self.queue.dropped),
                "too many were waiting",
            ),
            (
                std::mem::take(&mut self.overflows),
                "the kernel's queue was full",
            ),
            (
                self.shared.unfollowed.swap(0, Ordering::Relaxed),
                "too many files with credentials are followed",
            ),
        ] {
            if count > 0 {
                self.send(Report::Skipped { count, why })?;
            }
        }
        Ok(())
    }

    /// True when something was mounted or unmounted.
    fn wait(&self) -> bool {
        let mut fds = self.followed.fds();
        fds.push(PollFd::new(&self.writes, PollFlags::IN));
        if let Some(mountinfo) = &self.mountinfo {
            fds.push(PollFd::new(mountinfo, PollFlags::PRI));
        }
        let milliseconds = if self.queue.is_empty() { 250 } else { 50 };
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: milliseconds * 1_000_000,
        };
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        let mounted =
            self.mountinfo.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        if !self.queue.is_empty() {
            // One wake-up for many events: a storm is not answered event by event.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        mounted
    }

    /// Takes what was reported into the queue.
    fn take(&mut self) {
        let now = boot_ns();
        let me = std::process::id();
        let queue = &mut self.queue;
        let overflow = self.writes.drain(&mut |written, pid, only_made| {
            let what = if only_made { What::Made } else { What::Entry };
            if pid != me {
                queue.push(what(written), pid, now);
            }
        });
        let (ways, lost) = self.followed.events();
        self.overflows += u64::from(overflow) + u64::from(lost);
        for (way, pid) in ways {
            self.queue.push(What::Path(way), pid, now);
        }
    }

    /// Inspects what is due, as far as the budget goes.
    fn inspect_due(&mut self) -> Result<(), Ended> {
        let mut inspected = false;
        while !self.shared.stops() {
            let now = boot_ns();
            if !self.budget.has(now) {
                break;
            }
            let Some((what, by)) = self.queue.next(now) else {
                break;
            };
            inspected = true;
            let began = thread_ns();
            self.shared.at_since_ns.store(now, Ordering::Relaxed);
            let done = match &what {
                What::Entry(written) => self.entry(written, by, false),
                What::Made(written) => self.entry(written, by, true),
                What::Path(way) => self.path(way, by),
            };
            self.shared.at_since_ns.store(0, Ordering::Relaxed);
            let took = thread_ns().saturating_sub(began);
            self.budget.spend(took);
            self.queue.inspected(what, boot_ns(), took);
            done?;
        }
        if inspected {
            self.places.release();
            wire::scrub_stack();
        }
        Ok(())
    }

    /// `only_made`: it was not closed yet, and is of interest if it is another name of something.
    fn entry(&mut self, written: &Written, by: By, only_made: bool) -> Result<(), Ended> {
        let Some(found) = self.places.find(written) else {
            return Ok(());
        };
        if written.name == SWAPPED
            && let Some(directory) = path_of(&found.dir, b"")
        {
            for way in self.followed.below(&found.root, &directory) {
                self.queue.push(What::Path(way), by.pid, boot_ns());
            }
            return Ok(());
        }
        let Ok(Some(version)) = files::version(&found.file, "") else {
            return self.link(&found, &written.name, by);
        };
        if only_made && version.links < 2 {
            return Ok(());
        }
        self.persistence(&found.dir, &written.name, (&version, String::new()), by)?;
        if self.followed.has_name(&written.name)
            && let Some(raw) = path_of(&found.dir, &written.name)
        {
            let root = found.root.clone();
            let way = Way { root, raw };
            if self.followed.get(&way).is_some() {
                return self.path(&way, by);
            }
        }
        if version.facts.size < SIZE_MIN {
            return Ok(());
        }
        if version.facts.size >= PROGRAM_MIN
            && let Some(raw) = path_of(&found.dir, &written.name)
            && let Ok(file) = found.file.try_clone()
        {
            self.send(Report::Program(
                file,
                PathBuf::from(OsString::from_vec(raw)),
            ))?;
        }
        let id = version.id;
        let place = || path_of(&found.dir, &written.name);
        let Some((raw, inspected)) = self.inspect(&found.file, &version, place) else {
            return Ok(());
        };
        if inspected.findings.is_empty() {
            return self.send(Report::Clean(id, version.facts.ctime_ns));
        }
        // The path must lead there: a bind mount may show a part of the file system only.
        let root = files::open_root(&found.root);
        let same = root
            .and_then(|root| files::open_in(root.as_fd(), &raw, OFlags::PATH | OFlags::NOFOLLOW))
            .and_then(|fd| files::version(fd, ""));
        if !matches!(same, Ok(Some(v)) if v.id == id) {
            return Ok(());
        }
        let way = Way {
            root: found.root,
            raw,
        };
        self.report(way, version, inspected, by, None)
    }

    /// A symbolic link makes what it leads to run just as well.
    fn link(&mut self, found: &Found, name: &[u8], by: By) -> Result<(), Ended> {
        let (Ok(Some(version)), Ok(target)) = (
            files::link_version(&found.file, ""),
            rustix::fs::readlinkat(&found.file, "", Vec::new()),
        ) else {
            return Ok(());
        };
        let target = target.to_string_lossy().into_owned();
        self.persistence(&found.dir, name, (&version, target), by)
    }

    /// Whether the file is one of those that outlive their writer; what is in it does not matter. With where it leads, of a link.
    fn persistence(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        (version, link): (&Version, String),
        by: By,
    ) -> Result<(), Ended> {
        let Some(raw) = path_of(dir, name) else {
            return Ok(());
        };
        let path = String::from_utf8_lossy(&raw);
        let Some(technique) = persistence::technique(&path) else {
            return Ok(());
        };
        if self.options.excluded.has(&path)
            || !self.versions.is_new(version.id, version.facts.ctime_ns)
        {
            return Ok(());
        }
        let file = FileFacts {
            path: path.into_owned(),
            ..version.facts.clone()
        };
        self.send(Report::Persistence(Box::new(Persistence {
            file,
            technique,
            link,
            writer: by.pid,
            boot_ns: by.at_ns,
        })))
    }

    /// Inspects a path that is followed, or was to be.
    fn path(&mut self, way: &Way, by: By) -> Result<(), Ended> {
        let opened = way.open().and_then(|file| {
            let version = files::version(&file, "")?;
            Ok(version.map(|version| (file, version)))
        });
        let Ok(Some((file, version))) = opened else {
            let before = self.followed.remove(way);
            let life = before.and_then(|before| self.life(way, &before, None, by));
            return self.send(Report::Gone {
                root: way.root.clone(),
                raw: way.raw.clone(),
                life: life.map(Box::new),
            });
        };
        let before = self.followed.renew(way, &file, &version);
        let life = before.and_then(|before| self.life(way, &before, Some(&version), by));
        let known = self.followed.get(way).and_then(|kept| kept.inspected);
        if life.is_none() && known.is_some_and(|known| by.pid == 0 || known == by.pid) {
            return Ok(());
        }
        let place = || Some(way.raw.clone());
        if let Some((_, inspected)) = self.inspect(&file, &version, place) {
            self.followed.inspected(way, &version, by.pid);
            return self.report(way.clone(), version, inspected, by, life);
        }
        let Some(life) = life else { return Ok(()) };
        self.send(Report::Changed {
            root: way.root.clone(),
            raw: way.raw.clone(),
            facts: located(way, version.facts),
            life: Box::new(life),
        })
    }

    /// Looks into a file; `None` when it cannot be read or changes under the eyes (then more news of it come).
    fn inspect(
        &mut self,
        file: &OwnedFd,
        version: &Version,
        place: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<(Vec<u8>, Inspected)> {
        if self.own_files.has(version.id, boot_ns()) {
            return None;
        }
        let fd = files::reopen(file).ok()?;
        let mut raw = Vec::new();
        let (size, most) = (version.facts.size, self.options.file_bytes);
        let content = files::read_worthy(fd, size, most, || {
            raw = place()?;
            let path = String::from_utf8_lossy(&raw).into_owned();
            let named = self.named.is_match(&path);
            (!self.options.excluded.has(&path)).then_some((path, named))
        })
        .ok()?;
        let inspected = content.map_or_else(Inspected::default, |content| {
            content.classify(&self.classifier)
        });
        let after = files::version(file, "").ok()??;
        (after.facts.ctime_ns == version.facts.ctime_ns && after.facts.size == version.facts.size)
            .then_some((raw, inspected))
    }

    fn report(
        &mut self,
        way: Way,
        mut version: Version,
        inspected: Inspected,
        by: By,
        life: Option<Life>,
    ) -> Result<(), Ended> {
        version.facts = located(&way, version.facts);
        if !inspected.findings.is_empty()
            && let Ok(root) = files::open_root(&way.root)
        {
            files::complete(&mut version.facts, &way.root, root.as_fd());
        }
        if !inspected.findings.is_empty() {
            // At once: what is done to it until the engine wishes so would be done unseen. What it is by now is inspected then.
            let seen = (version.id, version.facts.ctime_ns);
            if self.followed.add(way.clone(), seen) == Added::Differs {
                self.queue.push(What::Path(way.clone()), 0, boot_ns());
            }
        }
        self.send(Report::Inspected(Box::new(InspectedFile {
            root: way.root,
            raw: way.raw,
            version,
            inspected,
            writer: by.pid,
            boot_ns: by.at_ns,
            life: life.map(Box::new),
        })))
    }
}

/// Facts of a file with its path, and who comes so far.
fn located(way: &Way, mut facts: FileFacts) -> FileFacts {
    facts.path = String::from_utf8_lossy(&way.raw).into_owned();
    facts.reach = files::open_root(&way.root)
        .ok()
        .and_then(|root| files::reach(root.as_fd(), &facts));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a thread: nobody takes what is sent.
    fn of_nobody() -> (Background, Receiver<Command>, SyncSender<Report>) {
        let (commands, wishes) = mpsc::sync_channel(1);
        let (sender, results) = mpsc::sync_channel(1);
        let background = Background {
            shared: Arc::default(),
            said_stuck: false,
            commands,
            results: Some(results),
            thread: None,
        };
        (background, wishes, sender)
    }

    #[test]
    fn a_file_system_that_does_not_answer_is_reported_once() {
        let (mut background, _wishes, _sender) = of_nobody();
        let at = |background: &Background, since_ns| {
            let at = &background.shared.at_since_ns;
            at.store(since_ns, Ordering::Relaxed);
        };
        assert!(background.report().is_none(), "it is at rest");
        at(&background, boot_ns());
        assert!(background.report().is_none(), "it has just begun");
        at(&background, boot_ns().saturating_sub(2 * STUCK_NS).max(1));
        assert!(matches!(background.report(), Some(Report::Stuck)));
        assert!(background.report().is_none(), "it was reported");
        at(&background, 0);
        assert!(background.report().is_none());
        at(&background, boot_ns().saturating_sub(2 * STUCK_NS).max(1));
        assert!(matches!(background.report(), Some(Report::Stuck)), "again");
    }

    #[test]
    fn wishes_do_not_pile_up_and_are_counted() {
        let (background, wishes, _sender) = of_nobody();
        let file = FileId {
            ino: 1,
            dev: 1,
            pad: 0,
        };
        for _ in 0..3 {
            background.follow("/".into(), b"/etc/key".to_vec(), (file, 1));
        }
        assert_eq!(wishes.try_iter().count(), 1);
        assert_eq!(background.shared.unfollowed.load(Ordering::Relaxed), 2);
    }
}
