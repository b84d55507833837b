//! The working directory of a capture, within the output directory: everything lies there until the bundle is whole, and
//! it goes with it. Its lock says whether the capture still runs.

use super::footprint::Footprint;
use keytrail_host::clock::both;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How working directories end.
const END: &str = ".keytrail-capture";
/// Held while a capture writes.
const LOCK: &str = "lock";
const BEGIN: &str = "begin.part";
/// Longest description of a capture that is read.
const MAX_TEXT: u64 = 1 << 20;

/// What is known when a capture begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Of the bundle, without its end.
    pub name: String,
    pub tool: Value,
    /// Case, evidence, examiner, note, arguments, plan.
    pub capture: Value,
    pub host: Value,
    pub wall_ns: u64,
    pub boot_ns: u64,
    /// Fingerprint key: whether it is this capture's alone.
    pub fresh_key: bool,
    /// Only what lies below a directory.
    pub root: Option<String>,
}

/// What is known when it ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub wall_ns: u64,
    pub boot_ns: u64,
    /// `time`, `command`, `signal`, `size`, `engine`, or empty when nothing was watched.
    pub by: String,
    /// When the sensors were attached and when they were taken off.
    pub watched: Option<(u64, u64)>,
    /// How the command ended.
    pub command: Option<String>,
    /// Name of the fingerprint key.
    pub key: String,
    /// Why the bundle is not whole.
    pub partial: Vec<String>,
    pub errors: Vec<String>,
    pub footprint: Footprint,
}

impl End {
    pub fn partial(&mut self, why: impl Into<String>) {
        self.partial.push(why.into());
    }

    pub fn error(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("keytrail: {what}");
        self.errors.push(what);
    }

    /// The times of now, and what this process has taken.
    pub fn close(&mut self, work: &Work) {
        (self.boot_ns, self.wall_ns) = both();
        self.footprint.measure();
        self.footprint.written = work.names();
        // The one file that is elsewhere, on hosts that know keytrail.
        let announced = keytrail_host::own::announcement();
        self.footprint
            .written
            .extend(announced.map(|path| path.display().to_string()));
    }
}

/// A working directory whose lock is held by this process.
#[derive(Debug)]
pub struct Work {
    dir: PathBuf,
    output: PathBuf,
    pub begin: Begin,
    _lock: File,
}

/// Why there is no directory to work in.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("the output directory {}: {}", .0.display(), .1)]
    Output(PathBuf, io::Error),
    #[error("{}: {}", .0.display(), .1)]
    Dir(PathBuf, io::Error),
    #[error("somebody else has the lock")]
    Locked,
    #[error(transparent)]
    Begin(#[from] serde_json::Error),
    #[error("{0} is there already")]
    Taken(String),
}

/// The output directory, which is made.
///
/// # Errors
/// See [`WorkError`].
pub fn output(path: &Path) -> Result<PathBuf, WorkError> {
    let wrong = |e: io::Error| WorkError::Output(path.to_owned(), e);
    fs::create_dir_all(path).map_err(wrong)?;
    fs::canonicalize(path).map_err(wrong)
}

impl Work {
    /// Makes one for a capture that begins.
    ///
    /// # Errors
    /// See [`WorkError`].
    pub fn make(output: &Path, mut begin: Begin) -> Result<Work, WorkError> {
        let wrong = |e: io::Error| WorkError::Dir(output.to_owned(), e);
        let name = begin.name.clone();
        // A second one in the same second has another name.
        for number in 1..100 {
            if number > 1 {
                begin.name = format!("{name}-{number}");
            }
            let dir = output.join(format!("{}{END}", begin.name));
            if output.join(format!("{}.tar.zst", begin.name)).exists() {
                continue;
            }
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(wrong)?,
            }
            let lock = lock(&dir).map_err(wrong)?.ok_or(WorkError::Locked)?;
            let work = Work {
                dir,
                output: output.to_owned(),
                begin,
                _lock: lock,
            };
            let text = serde_json::to_vec(&work.begin)?;
            work.write(BEGIN, &text).map_err(wrong)?;
            return Ok(work);
        }
        Err(WorkError::Taken(name))
    }

    /// One that was left behind by a capture that runs no more.
    fn adopt(dir: PathBuf, output: &Path) -> Option<Work> {
        let lock = lock(&dir).ok()??;
        let mut text = Vec::new();
        File::open(dir.join(BEGIN))
            .ok()?
            .take(MAX_TEXT)
            .read_to_end(&mut text)
            .ok()?;
        let begin: Begin = serde_json::from_slice(&text).ok()?;
        // The name becomes that of a file: it has to be the directory's own.
        let named = dir.file_name()?.to_str()?.strip_suffix(END)? == begin.name;
        named.then(|| Work {
            dir,
            output: output.to_owned(),
            begin,
            _lock: lock,
        })
    }

    pub fn name(&self) -> &str {
        &self.begin.name
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn bundle(&self) -> PathBuf {
        self.output.join(format!("{}.tar.zst", self.begin.name))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// A new file, for its owner only.
    pub fn create(&self, name: &str) -> io::Result<BufWriter<File>> {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .map(BufWriter::new)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(name)?;
        file.write_all(bytes)?;
        file.flush()
    }

    /// Bytes of these files so far.
    pub fn size(&self, names: &[&str]) -> u64 {
        names
            .iter()
            .filter_map(|name| fs::metadata(self.path(name)).ok())
            .map(|meta| meta.len())
            .sum()
    }

    /// Files in it.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.path().display().to_string()).collect();
        names.sort();
        names
    }

    pub fn remove(self) {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("keytrail: {} cannot be removed: {e}", self.dir.display());
        }
    }
}

/// Takes the lock; `None` when a capture that runs has it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join(LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What killed captures left in the output directory: of this user, and not another's link or directory.
pub fn left_behind(output: &Path) -> Vec<Work> {
    let me = rustix::process::geteuid().as_raw();
    let entries = fs::read_dir(output).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries
        .filter(|e| e.file_name().to_string_lossy().ends_with(END))
        .filter(|e| {
            e.path()
                .symlink_metadata()
                .is_ok_and(|m| m.is_dir() && m.uid() == me)
        })
        .map(|e| e.path())
        .collect();
    dirs.sort();
    dirs.into_iter()
        .filter_map(|dir| Work::adopt(dir, output))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Begin {
        Begin {
            name: "host-20261129T074512Z".to_owned(),
            ..Begin::default()
        }
    }

    #[test]
    fn what_runs_is_not_adopted_and_what_was_left_is() {
        let output = tempfile::tempdir().unwrap();
        let work = Work::make(output.path(), begin()).unwrap();
        assert!(left_behind(output.path()).is_empty(), "it runs");
        let second = Work::make(output.path(), begin()).unwrap();
        assert_eq!(second.name(), "host-20261129T074512Z-2");
        second.remove();
        // Killed: nobody holds the lock any more.
        drop(work);
        let left = left_behind(output.path());
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].begin, begin());
        for work in left {
            work.remove();
        }
        assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_names_another_file_is_left_alone() {
        let output = tempfile::tempdir().unwrap();
        let dir = output.path().join(format!("x{END}"));
        fs::create_dir(&dir).unwrap();
        let other = Begin {
            name: "../../etc/x".to_owned(),
            ..Begin::default()
        };
        fs::write(dir.join(BEGIN), serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(left_behind(output.path()).is_empty());
        std::os::unix::fs::symlink(&dir, output.path().join(format!("y{END}"))).unwrap();
        assert!(left_behind(output.path()).is_empty());
    }
}
