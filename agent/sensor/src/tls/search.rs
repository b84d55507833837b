//! What of TLS there is on this host: walks through its directories and what processes have mapped, and inspects each
//! file once. Runs on a thread of its own ([`super::searcher`]): any of these files may lie where nobody answers.

use super::{
    discover::{self, Directories, FileKey, KnownLibrary, Mapped, Program},
    elf::ElfError,
    packages::Found,
    stacks::{self, Contents},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Files that are remembered, those with nothing in them included.
const IMAGES_MAX: usize = 8192;
/// Time for large executables that nobody runs, of the first scan and of any later one.
const FIRST_SCAN: Duration = Duration::from_millis(900);
const LATER_SCAN: Duration = Duration::from_millis(100);
/// A process may be seen before its libraries are mapped: it is inspected this often before its maps are believed.
const LOOKS: u8 = 2;
/// Processes whose maps are read again in every scan, in turn: libraries may be opened late.
const AGAIN: usize = 3;
/// Scans after which a file that no process maps and no path leads to any more is let go.
const ABSENT_MAX: u8 = 2;
/// Files no process maps are looked for at their path in every n-th scan (about five minutes), a part of them in each:
/// there may be thousands, and hardly one goes.
pub(super) const PATHS_EVERY: u64 = 30;
/// A file that could not be searched in its time is tried this often in all: the disk may have been busy.
const TRIES: u8 = 3;

/// What may be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Directories,
    File(PathBuf),
    Process(u32),
}

/// What a search tells.
#[derive(Debug)]
pub(super) enum News {
    /// A file that was inspected; again, when it could not be searched in its time before.
    File(Box<Inspected>),
    /// No process maps it and no path leads to it any more.
    Gone(FileKey),
    /// What a process has mapped.
    Process { pid: u32, images: Vec<FileKey> },
    /// It is gone.
    Ended(u32),
}

#[derive(Debug)]
pub(super) struct Inspected {
    pub key: FileKey,
    pub path: PathBuf,
    pub named: Option<KnownLibrary>,
    pub contents: Result<Contents, ElfError>,
    /// The very file, where something of it is to be probed.
    pub file: Option<File>,
}

/// Hears what is found; false when nobody listens any more.
pub(super) trait Listener {
    /// Something that may take its time begins.
    fn about(&mut self, subject: &Subject) -> bool;
    fn report(&mut self, news: News) -> bool;
}

/// A part of a scan.
enum Step {
    Host(PathBuf, Option<KnownLibrary>),
    Process { pid: u32, again: bool },
    Forget,
}

/// One file, inspected.
struct Known {
    path: PathBuf,
    /// In which of [`PATHS_EVERY`] scans it is looked for.
    turn: u64,
    mapped: bool,
    absent: u8,
    /// How often it could not be searched in its time.
    late: u8,
}

/// What is remembered of a process.
struct Seen {
    program: Program,
    images: Vec<FileKey>,
    looks: u8,
    scan: u64,
}

/// What was inspected, and what is left of a scan.
#[derive(Default)]
pub(super) struct Search {
    /// Calls may be probed.
    calls: bool,
    /// What nobody comes back from.
    avoid: HashSet<Subject>,
    directories: Directories,
    known: HashMap<FileKey, Known>,
    /// By device and inode as /proc/PID/maps writes them, so that a library mapped by many is opened once.
    mapped: HashMap<(u64, u64), FileKey>,
    processes: HashMap<u32, Seen>,
    /// The agent's own program; `Some(None)` when it cannot be determined.
    own: Option<Option<Program>>,
    scans: u64,
    again: usize,
    steps: VecDeque<Step>,
    /// When large executables nobody runs are no longer inspected.
    until: Option<Instant>,
}

impl Search {
    /// Goes on where another one was left behind: with the files it knew, and without what it did not come back from.
    pub fn new(
        calls: bool,
        known: impl Iterator<Item = (FileKey, PathBuf)>,
        avoid: HashSet<Subject>,
    ) -> Self {
        let known = (0..).zip(known).map(|(turn, (key, path))| {
            let known = Known {
                path,
                turn,
                mapped: false,
                absent: 0,
                late: 0,
            };
            (key, known)
        });
        Self {
            calls,
            avoid,
            known: known.collect(),
            ..Self::default()
        }
    }

    /// Begins a scan: what is in the host's directories and what every process has mapped. Cheap when nothing has
    /// changed.
    ///
    /// `whole`: the maps of every process are read again.
    pub fn begin_scan(&mut self, whole: bool, to: &mut dyn Listener) {
        let time = if self.scans == 0 {
            FIRST_SCAN
        } else {
            LATER_SCAN
        };
        self.scans += 1;
        self.steps.clear();
        if !self.avoid.contains(&Subject::Directories) && to.about(&Subject::Directories) {
            let changed = self.directories.changed();
            self.steps.extend(
                changed
                    .into_iter()
                    .map(|(path, named)| Step::Host(path, named)),
            );
        }
        self.until = Some(Instant::now() + time);
        let pids = discover::processes();
        let turn = self.turn(&pids);
        self.steps.extend(pids.into_iter().map(|pid| Step::Process {
            pid,
            again: whole || turn.contains(&pid),
        }));
        self.steps.push_back(Step::Forget);
    }

    /// The next part of a scan; false when it is over.
    pub fn go_on(&mut self, to: &mut dyn Listener) -> bool {
        let Some(step) = self.steps.pop_front() else {
            return false;
        };
        match step {
            Step::Host(path, named) => self.host_file(&path, named, to),
            Step::Process { pid, again } => self.process(pid, again, to),
            Step::Forget => self.forget(to),
        }
        true
    }

    /// The program that a process runs: two look-ups when it is known.
    pub fn program(&mut self, pid: u32, to: &mut dyn Listener) {
        if self.may(&Subject::Process(pid), to) {
            self.executable(pid, to);
        }
    }

    /// What a process has mapped at present.
    pub fn libraries(&mut self, pid: u32, to: &mut dyn Listener) {
        self.process(pid, true, to);
    }

    /// A library that was found among the packages of a program.
    pub fn package(&mut self, found: Found, to: &mut dyn Listener) {
        let Found { file, path, named } = found;
        if self.may(&Subject::File(path.clone()), to)
            && let Ok(key) = FileKey::of(&file)
            && !self.is_known(&key)
        {
            self.inspect(key, file, path, named, to);
        }
    }

    fn may(&self, subject: &Subject, to: &mut dyn Listener) -> bool {
        !self.avoid.contains(subject) && to.about(subject)
    }

    fn is_known(&self, key: &FileKey) -> bool {
        self.known
            .get(key)
            .is_some_and(|known| known.late == 0 || known.late >= TRIES)
    }

    /// The processes whose turn it is to be inspected again.
    fn turn(&mut self, pids: &[u32]) -> HashSet<u32> {
        let start = self.again;
        self.again = self.again.wrapping_add(AGAIN);
        (0..AGAIN.min(pids.len()))
            .filter_map(|n| pids.get(start.wrapping_add(n) % pids.len()).copied())
            .collect()
    }

    /// A library in one of the host's directories, or an executable large enough to have one linked in.
    fn host_file(&mut self, path: &Path, named: Option<KnownLibrary>, to: &mut dyn Listener) {
        // An executable there is no time for is inspected when it runs.
        let late = self.until.is_some_and(|until| Instant::now() > until);
        if (named.is_none() && late) || !self.may(&Subject::File(path.to_owned()), to) {
            return;
        }
        let Ok(file) = discover::open(path) else {
            return;
        };
        let Ok(key) = FileKey::of(&file) else { return };
        if self.is_known(&key) {
            return;
        }
        // The real path: several links lead to one library.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.inspect(key, file, path, named, to);
    }

    fn process(&mut self, pid: u32, again: bool, to: &mut dyn Listener) {
        if !self.may(&Subject::Process(pid), to) {
            return;
        }
        let Some(program) = discover::program(pid) else {
            if self.processes.remove(&pid).is_some() {
                to.report(News::Ended(pid));
            }
            return;
        };
        // The agent's own sends are of no interest, nor its children before they execute something.
        let own = *self
            .own
            .get_or_insert_with(|| discover::program(std::process::id()));
        if own.is_some_and(|own| own.same_file(program)) {
            return;
        }
        let scan = self.scans;
        let mut looks = 0;
        let mut before = None;
        if let Some(seen) = self.processes.get_mut(&pid) {
            if seen.program == program {
                seen.scan = scan;
                if seen.looks >= LOOKS && !again {
                    return;
                }
                looks = seen.looks;
            }
            before = Some(std::mem::take(&mut seen.images));
        }
        let (images, all) = self.images(pid, to);
        if before.as_ref() != Some(&images) {
            let images = images.clone();
            to.report(News::Process { pid, images });
        }
        let seen = Seen {
            program,
            images,
            looks: if all { looks.saturating_add(1) } else { looks },
            scan,
        };
        self.processes.insert(pid, seen);
    }

    /// What a process runs and has mapped, and whether all of it could be inspected.
    fn images(&mut self, pid: u32, to: &mut dyn Listener) -> (Vec<FileKey>, bool) {
        let mut images = Vec::new();
        let mut all = true;
        let mut add = |key: Option<FileKey>| match key {
            Some(key) => images.push(key),
            None => all = false,
        };
        add(self.executable(pid, to));
        for mapped in discover::mapped(pid).unwrap_or_default() {
            add(self.library(pid, &mapped, to));
        }
        (images, all)
    }

    /// The program itself: TLS may be linked in. `None`: it could not be inspected.
    fn executable(&mut self, pid: u32, to: &mut dyn Listener) -> Option<FileKey> {
        let link = PathBuf::from(format!("/proc/{pid}/exe"));
        let key = FileKey::at(&link).ok()?;
        if self.is_known(&key) {
            return Some(key);
        }
        let file = discover::open(&link).ok()?;
        let key = FileKey::of(&file).ok()?;
        let path = std::fs::read_link(&link).ok()?;
        self.inspect(key, file, path, None, to).then_some(key)
    }

    fn library(&mut self, pid: u32, mapped: &Mapped, to: &mut dyn Listener) -> Option<FileKey> {
        let id = (mapped.device, mapped.inode);
        if let Some(key) = self.mapped.get(&id)
            && self.is_known(key)
        {
            return Some(*key);
        }
        let file = discover::open_mapped(pid, mapped).ok()?;
        let key = FileKey::of(&file).ok()?;
        self.mapped.insert(id, key);
        if self.is_known(&key) {
            return Some(key);
        }
        self.inspect(key, file, mapped.path.clone(), mapped.named, to)
            .then_some(key)
    }

    /// Looks into a file. Returns whether it is known now.
    fn inspect(
        &mut self,
        key: FileKey,
        file: File,
        path: PathBuf,
        named: Option<KnownLibrary>,
        to: &mut dyn Listener,
    ) -> bool {
        let full = self.known.len() >= IMAGES_MAX && !self.known.contains_key(&key);
        if full || !self.may(&Subject::File(path.clone()), to) {
            return false;
        }
        let contents = stacks::contents(&file, self.calls);
        let turn = self.known.len() as u64;
        let known = self.known.entry(key).or_insert_with(|| Known {
            path: path.clone(),
            turn,
            mapped: false,
            absent: 0,
            late: 0,
        });
        known.late = match contents {
            Err(ElfError::Late) => known.late + 1,
            _ => 0,
        };
        let probed = contents.as_ref().is_ok_and(|found| !found.sites.is_empty());
        to.report(News::File(Box::new(Inspected {
            key,
            path,
            named,
            contents,
            file: probed.then_some(file),
        })))
    }

    /// Lets go of processes that are gone, and of files that no process maps and no path leads to.
    fn forget(&mut self, to: &mut dyn Listener) {
        let scan = self.scans;
        self.processes.retain(|pid, seen| {
            let lives = seen.scan == scan;
            if !lives {
                to.report(News::Ended(*pid));
            }
            lives
        });
        let images = self.processes.values().flat_map(|seen| &seen.images);
        let mapped: HashSet<FileKey> = images.copied().collect();
        let mut gone = Vec::new();
        for (key, known) in &mut self.known {
            known.mapped = mapped.contains(key);
            if known.mapped {
                known.absent = 0;
            } else if known.turn % PATHS_EVERY == scan % PATHS_EVERY || known.absent > 0 {
                let subject = Subject::File(known.path.clone());
                if self.avoid.contains(&subject) || !to.about(&subject) {
                    continue;
                }
                if FileKey::at(&known.path).ok() == Some(*key) {
                    known.absent = 0;
                    continue;
                }
                known.absent += 1;
                if known.absent >= ABSENT_MAX {
                    gone.push(*key);
                }
            }
        }
        for key in gone {
            self.known.remove(&key);
            to.report(News::Gone(key));
        }
        let known = &self.known;
        self.mapped
            .retain(|_, key| known.get(key).is_some_and(|known| known.mapped));
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
