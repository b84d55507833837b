//! Where a Python that has just begun will find its packages: wheels bring TLS libraries of their own, and a short script
//! has used one before anybody could find it among what the process has mapped.
//!
//! The process chooses which directories that are, and they may lie on a file system that does not answer: a thread looks,
//! which nobody waits for.

use super::discover::{self, Directories, KnownLibrary};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// Directories of packages beside one interpreter, and entries of its `lib` that are inspected.
const DIRECTORIES_MAX: usize = 8;
const ENTRIES_MAX: usize = 256;
/// Processes that may wait; what one uses that finds no room is found when it is mapped.
const QUEUE: usize = 256;
/// Longest command line and environment that are read, bytes.
const TEXT_MAX: u64 = 64 << 10;
/// Where a virtual environment is, for an interpreter that is called by its bare name.
const ENVIRONMENT: &[u8] = b"VIRTUAL_ENV=";

/// A library that a process may use soon.
#[derive(Debug)]
pub(super) struct Found {
    pub file: File,
    /// As the process knows it.
    pub path: PathBuf,
    pub named: Option<KnownLibrary>,
}

impl Found {
    /// A file that nobody runs yet, if it is a program or a module that may have TLS inside.
    pub fn program(file: File, path: PathBuf) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let named = KnownLibrary::by(name);
        let may = discover::may_have_tls(name, &file.metadata().ok()?) && discover::is_elf(&file);
        may.then_some(Self { file, path, named })
    }
}

/// The thread, as its owner holds it. It ends with its owner.
pub(super) struct Finder {
    ask: mpsc::SyncSender<u32>,
}

impl Finder {
    /// `found` is called on the thread.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(found: impl Fn(Found) + Send + 'static) -> io::Result<Self> {
        let (ask, asked) = mpsc::sync_channel(QUEUE);
        thread::Builder::new()
            .name("packages".into())
            .spawn(move || {
                let mut directories = Directories::default();
                for pid in asked {
                    inspect(&mut directories, pid).into_iter().for_each(&found);
                }
            })?;
        Ok(Self { ask })
    }

    /// A process runs a program that may be a Python.
    pub fn ask(&self, pid: u32) {
        // Without room it is found when it is mapped.
        let _ = self.ask.try_send(pid);
    }
}

fn inspect(directories: &mut Directories, pid: u32) -> Vec<Found> {
    let mut found = Vec::new();
    for packages in packages(pid) {
        let by = PathBuf::from(format!("/proc/self/fd/{}", packages.directory.as_raw_fd()));
        for (path, named) in directories.open(&by) {
            let (Ok(file), Ok(rest)) = (discover::open(&path), path.strip_prefix(&by)) else {
                continue;
            };
            found.push(Found {
                file,
                path: packages.path.join(rest),
                named,
            });
        }
    }
    found
}

/// An open directory of packages, and its path as the process knows it.
struct Packages {
    directory: OwnedFd,
    path: PathBuf,
}

/// The directories of packages of the Python that `pid` runs; none for another program.
fn packages(pid: u32) -> Vec<Packages> {
    let Ok(exe) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
        return Vec::new();
    };
    if !exe
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"python"))
    {
        return Vec::new();
    }
    let Ok(root) = directory(CWD, Path::new(&format!("/proc/{pid}/root")), false) else {
        return Vec::new();
    };
    // An interpreter of a virtual environment is a link, known by the name it was called by.
    let called = called(pid).or_else(|| environment(pid).map(|of| of.join("bin/python")));
    [called, Some(exe)]
        .into_iter()
        .flatten()
        .filter_map(|interpreter| below(root.as_fd(), interpreter.parent()?.parent()?))
        .flatten()
        .take(DIRECTORIES_MAX)
        .collect()
}

/// Opens a directory; `inside` lets no link lead out of `at`.
fn directory(at: BorrowedFd<'_>, path: &Path, inside: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = if inside {
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::empty()
    };
    Ok(openat2(at, path, flags, Mode::empty(), resolve)?)
}

/// `lib/python3.*/{site,dist}-packages` under `prefix`, in the file system of a process.
fn below(root: BorrowedFd<'_>, prefix: &Path) -> Option<Vec<Packages>> {
    let lib = prefix.join("lib");
    let listed = directory(root, &lib, true).ok()?;
    let versions = std::fs::read_dir(format!("/proc/self/fd/{}", listed.as_raw_fd())).ok()?;
    let packages = versions
        .flatten()
        .take(ENTRIES_MAX)
        .map(|entry| entry.file_name())
        .filter(|name| name.as_bytes().starts_with(b"python"))
        .flat_map(|name| ["site-packages", "dist-packages"].map(|of| lib.join(&name).join(of)))
        .filter_map(|path| {
            let directory = directory(root, &path, true).ok()?;
            Some(Packages { directory, path })
        });
    Some(packages.take(DIRECTORIES_MAX).collect())
}

/// The path a process was called by, when it was one.
fn called(pid: u32) -> Option<PathBuf> {
    let line = text(&format!("/proc/{pid}/cmdline"))?;
    let first = Path::new(OsStr::from_bytes(line.split(|b| *b == 0).next()?));
    if first.is_absolute() {
        return Some(first.to_owned());
    }
    if first.components().count() < 2 {
        return None;
    }
    Some(
        std::fs::read_link(format!("/proc/{pid}/cwd"))
            .ok()?
            .join(first),
    )
}

fn environment(pid: u32) -> Option<PathBuf> {
    // Wiped when it is freed, like all of this process's memory.
    let block = text(&format!("/proc/{pid}/environ"))?;
    let value = block
        .split(|b| *b == 0)
        .find_map(|variable| variable.strip_prefix(ENVIRONMENT))?;
    Some(PathBuf::from(OsStr::from_bytes(value)))
}

fn text(path: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::with_capacity(4 << 10);
    std::fs::File::open(path)
        .ok()?
        .take(TEXT_MAX)
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_of(path: &str) -> OwnedFd {
        directory(CWD, Path::new(path), false).unwrap()
    }

    #[test]
    fn links_do_not_lead_out_of_a_container() {
        let container = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(container.path().join("venv/lib/python3.11")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(
            outside.path(),
            container.path().join("venv/lib/python3.11/site-packages"),
        )
        .unwrap();
        let root = directory(CWD, container.path(), false).unwrap();
        assert!(below(root.as_fd(), Path::new("/venv")).unwrap().is_empty());
    }

    #[test]
    fn packages_of_a_virtual_environment_and_of_the_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let packages = directory.path().join("venv/lib/python3.11/site-packages");
        std::fs::create_dir_all(&packages).unwrap();
        std::fs::create_dir_all(directory.path().join("venv/lib/other/site-packages")).unwrap();
        let root = directory_of("/");
        let paths = |prefix: &str| {
            let found = below(root.as_fd(), &directory.path().join(prefix))?;
            Some(found.into_iter().map(|of| of.path).collect::<Vec<_>>())
        };
        assert_eq!(paths("venv"), Some(vec![packages]));
        assert_eq!(paths("none"), None);
        // Not a Python.
        assert!(super::packages(std::process::id()).is_empty());
    }

    #[test]
    fn an_interpreter_is_asked_by_the_name_it_was_called_by() {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("venv/bin");
        let packages = directory.path().join("venv/lib/python3.11/site-packages");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&packages).unwrap();
        let real = std::process::Command::new("python3")
            .args([
                "-c",
                "import os, sys; print(os.path.realpath(sys.executable))",
            ])
            .output()
            .unwrap();
        let real = String::from_utf8(real.stdout).unwrap();
        std::os::unix::fs::symlink(real.trim(), bin.join("python")).unwrap();
        let mut child = std::process::Command::new(bin.join("python"))
            .args(["-c", "print(flush=True); input()"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        use std::io::Read as _;
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        std::fs::create_dir_all(packages.join("x.libs")).unwrap();
        std::fs::write(packages.join("x.libs/libssl-1a2b.so.3"), b"x").unwrap();
        let (sender, received) = mpsc::channel();
        let finder = Finder::start(move |found| sender.send(found).unwrap()).unwrap();
        finder.ask(child.id());
        drop(finder);
        let library = packages.join("x.libs/libssl-1a2b.so.3");
        // Ends with the thread.
        let found: Vec<Found> = received.iter().collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|of| of.path == library));
    }
}
