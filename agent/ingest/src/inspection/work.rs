//! What a thread does for one request. Nothing here touches what the engine's thread owns.

use super::budget::UserBudgets;
use super::survey::{Survey, Surveyed};
use super::{InspectionOptions, Missed, Progress, lock};
use crate::files::{
    self, Content, Found, Inspected, Locator, OwnFiles, Version, complete, content, in_layers,
    open_in, open_root, reach, read_worthy, renamed, reopen, version, worthy,
};
use globset::GlobSet;
use keytrail_abi::{FileId, FileNew};
use keytrail_host::clock::{boot_ns, both, thread_ns};
use keytrail_secret::Classifier;
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// What all threads look up.
pub struct Context {
    pub classifier: Arc<Classifier>,
    /// Names under which rules expect credentials.
    pub named: Arc<GlobSet>,
    pub options: InspectionOptions,
    pub budgets: Mutex<UserBudgets>,
}

/// What is asked for.
pub enum Subject {
    /// A file by its inode and names.
    Inode(Box<NewFile>),
    /// A file by its path.
    Path(PathSubject),
    /// The files and directories of a part of the watch set.
    Area(Box<Survey>),
}

/// A file that was read for the first time, and what the kernel side reported about it.
pub struct NewFile {
    pub record: FileNew,
    /// All of it, as its reader had it; empty when that was not reported.
    pub bytes: ReaderBytes,
    /// Its path within its reader's mount namespace, where that was reported with the content.
    pub path: String,
}

/// Bytes that a thread may need, and that are wiped when it is given up: it may not come back.
#[derive(Clone, Default)]
pub struct ReaderBytes(Arc<Mutex<Zeroizing<Vec<u8>>>>);

impl ReaderBytes {
    /// A copy.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Zeroizing::new(bytes.to_vec()))))
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// The bytes; none are left.
    pub fn take(&self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut *lock(&self.0))
    }
}

pub struct PathSubject {
    pub root: PathBuf,
    pub path: String,
    /// It has to be this one, under its name or another in the same directory.
    pub expected: Option<FileId>,
    /// Change time and size of the version that is known.
    pub known: Option<(FileId, u64, u64)>,
}

/// What came of it.
pub enum Outcome {
    File(Box<SeenFile>),
    /// Nothing in it, or not to be inspected.
    Clean,
    /// The version that is known.
    Unchanged,
    /// Not to be found again, or another file by now.
    Gone,
    Area(Box<Surveyed>),
}

/// A file in one version, with what was found still in clear.
pub struct SeenFile {
    pub root: PathBuf,
    pub version: Version,
    /// Or why it cannot be read.
    pub inspected: io::Result<Inspected>,
    /// A rule or the configuration names its path.
    pub named: bool,
    /// Nobody can inspect it again: what is known of it is what its reader had.
    pub is_gone: bool,
}

/// What one thread keeps between requests.
#[derive(Default)]
pub struct Tools {
    locator: Locator,
    own_files: OwnFiles,
}

impl Tools {
    /// # Errors
    /// The owner of the file has used up what his files may take.
    pub fn inspect(
        &mut self,
        subject: Subject,
        context: &Context,
        progress: &Progress,
    ) -> Result<Outcome, Missed> {
        match subject {
            Subject::Inode(new) => self.inode(&new, context, progress),
            Subject::Path(subject) => path(&subject, context, progress),
            Subject::Area(survey) => Ok(Outcome::Area(Box::new(
                survey.run(&context.options.excluded),
            ))),
        }
    }

    fn inode(
        &mut self,
        new: &NewFile,
        context: &Context,
        progress: &Progress,
    ) -> Result<Outcome, Missed> {
        // To find it counts as well: of many small files it is most of the work.
        let meter = Meter::start(new.record.owner_uid, context)?;
        let outcome = self.new_file(new, context, progress);
        meter.stop();
        Ok(outcome)
    }

    fn new_file(&mut self, new: &NewFile, context: &Context, progress: &Progress) -> Outcome {
        let record = &new.record;
        let (root, path, fd) = match self.locator.find(record, &context.options.excluded) {
            Found::At(root, path, fd) => (root, path, fd),
            Found::Excluded => return Outcome::Clean,
            Found::Nowhere => return from_reader(new, context),
        };
        let Ok(Some(version)) = version(&fd, &path) else {
            return from_reader(new, context);
        };
        if self.own_files.has(record.file, boot_ns()) {
            return Outcome::Clean;
        }
        if version.facts.ctime_ns != record.ctime_ns && !new.bytes.is_empty() {
            // Another content by now.
            return from_reader(new, context);
        }
        let named = context.named.is_match(&path);
        let size = version.facts.size;
        // What is not in it now may have been in what was read.
        let is_other =
            version.facts.ctime_ns != record.ctime_ns && !is_older(&version, record.header.boot_ns);
        let clean = || match is_other {
            true => Outcome::Gone,
            false => Outcome::Clean,
        };
        let read = reopen(&fd).map_err(io::Error::from).and_then(|fd| {
            read_worthy(fd, size, context.options.file_bytes, || Some((path, named)))
        });
        let is_changed = || {
            // While it was read: what its reader had is known for sure.
            !new.bytes.is_empty()
                && !matches!(files::version(&fd, ""), Ok(Some(now)) if now.facts.ctime_ns == record.ctime_ns)
        };
        match read {
            Ok(_) if is_changed() => from_reader(new, context),
            Ok(None) => clean(),
            Err(_) => from_reader(new, context),
            Ok(Some(content)) => {
                progress.has_read();
                let inspected = content.classify(&context.classifier);
                // Whatever comes next may have to wait for a file system.
                drop(content);
                if inspected.findings.is_empty() && !inspected.partial() {
                    clean()
                } else {
                    let mut version = version;
                    if let Ok(top) = open_root(&root) {
                        let facts = &mut version.facts;
                        facts.reach = reach(top.as_fd(), facts);
                        complete(facts, &root, top.as_fd());
                    }
                    Outcome::File(Box::new(SeenFile {
                        root,
                        version,
                        inspected: Ok(inspected),
                        named,
                        is_gone: false,
                    }))
                }
            }
        }
    }
}

/// Whether the content of a file was the same at that time, as far as its times say: a name, a mode and links may have changed.
fn is_older(version: &Version, boot_ns: u64) -> bool {
    // Times of files are those of the clock's last tick: 10 ms at 100 a second.
    const TICK_NS: u64 = 10_000_000;
    let (boot_now, wall_now) = both();
    let then = wall_now.saturating_sub(boot_now.saturating_sub(boot_ns));
    version.modified_ns.saturating_add(TICK_NS) < then
}

/// What is known of a file that nobody finds again: what its reader had in its memory right after it had read it whole.
fn from_reader(new: &NewFile, context: &Context) -> Outcome {
    let NewFile { record, path, .. } = new;
    let bytes = new.bytes.take();
    if bytes.is_empty() || path.is_empty() {
        return Outcome::Gone;
    }
    if context.options.excluded.has(path) {
        return Outcome::Clean;
    }
    let named = context.named.is_match(path);
    let Some(content) = worthy(&bytes, path, named) else {
        return Outcome::Clean;
    };
    let inspected = content.classify(&context.classifier);
    if inspected.findings.is_empty() && !inspected.partial() {
        return Outcome::Clean;
    }
    Outcome::File(Box::new(SeenFile {
        root: PathBuf::from("/"),
        version: Version::reported(record, path),
        inspected: Ok(inspected),
        named,
        is_gone: true,
    }))
}

fn path(subject: &PathSubject, context: &Context, progress: &Progress) -> Result<Outcome, Missed> {
    let PathSubject {
        root,
        path,
        expected,
        known,
    } = subject;
    let at = |path: &str| at(root, path, *known, context, progress);
    let found = at(path)?;
    let Some(expected) = expected else {
        return Ok(found.map_or(Outcome::Gone, |found| found.outcome));
    };
    let is_it = |found: &At| found.id == *expected;
    let found = match found.filter(is_it) {
        Some(found) => Some(found),
        // Renamed in its directory since: by inode it is the same file.
        None => match renamed(root, path, *expected) {
            Some(now) => at(&now)?.filter(is_it),
            None => None,
        },
    };
    Ok(found.map_or(Outcome::Gone, |found| found.outcome))
}

struct At {
    id: FileId,
    outcome: Outcome,
}

/// What lies at a path now; `None` when that is no regular file.
fn at(
    root: &Path,
    path: &str,
    known: Option<(FileId, u64, u64)>,
    context: &Context,
    progress: &Progress,
) -> Result<Option<At>, Missed> {
    if context.options.excluded.has(path) {
        return Ok(None);
    }
    let Ok(root_fd) = open_root(root) else {
        return Ok(None);
    };
    // Stat first through O_PATH: needs no permission on the file, opens no device, touches no atime.
    let Ok(handle) = open_in(root_fd.as_fd(), path, OFlags::PATH) else {
        return Ok(None);
    };
    let Ok(Some(mut seen)) = version(&handle, path) else {
        return Ok(None);
    };
    let id = seen.id;
    if known == Some((id, seen.facts.ctime_ns, seen.facts.size)) {
        let outcome = Outcome::Unchanged;
        return Ok(Some(At { id, outcome }));
    }
    let meter = Meter::start(seen.facts.owner_uid, context)?;
    let inspected = open_in(root_fd.as_fd(), path, OFlags::RDONLY)
        .map_err(io::Error::from)
        .and_then(|fd| whole(fd, path, id, &mut seen, context.options.file_bytes))
        .map(|content| {
            progress.has_read();
            content.classify(&context.classifier)
        });
    meter.stop();
    seen.facts.reach = reach(root_fd.as_fd(), &seen.facts);
    let holds = |inspected: &Inspected| !inspected.findings.is_empty();
    if inspected.as_ref().is_ok_and(holds) {
        complete(&mut seen.facts, root, root_fd.as_fd());
        seen.facts.host_path = in_layers(root, path, seen.facts.inode).unwrap_or_default();
    }
    let seen = SeenFile {
        root: root.to_owned(),
        version: seen,
        inspected,
        named: context.named.is_match(path),
        is_gone: false,
    };
    let outcome = Outcome::File(Box::new(seen));
    Ok(Some(At { id, outcome }))
}

/// The content of a watched file, whatever its form.
fn whole(
    fd: OwnedFd,
    path: &str,
    id: FileId,
    seen: &mut Version,
    most: u64,
) -> io::Result<Content> {
    // It may have been replaced between the two opens: what is read is what is described.
    if let Some(again) = version(&fd, path)?
        && again.id == id
    {
        *seen = again;
    }
    let (bytes, truncated) = content(fd, seen.facts.size, most)?;
    Ok(Content {
        bytes,
        truncated,
        path: path.to_owned(),
    })
}

/// Counts the processor time of an inspection at the expense of the file's owner.
struct Meter<'a> {
    user: u32,
    began_ns: u64,
    context: &'a Context,
}

impl<'a> Meter<'a> {
    /// # Errors
    /// The owner has nothing left to spend.
    fn start(user: u32, context: &'a Context) -> Result<Self, Missed> {
        if !lock(&context.budgets).has(user, boot_ns()) {
            return Err(Missed::OverBudget);
        }
        Ok(Self {
            user,
            began_ns: thread_ns(),
            context,
        })
    }

    fn stop(self) {
        let took = thread_ns().saturating_sub(self.began_ns);
        lock(&self.context.budgets).spend(self.user, took, boot_ns());
    }
}
