//! Where a Python that has just begun will find its packages: wheels bring TLS libraries of their own, and a short script
//! has used one before anybody could find it among what the process has mapped.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// Directories of packages beside one interpreter.
const DIRECTORIES_MAX: usize = 8;
/// Longest command line and environment that are read, bytes.
const TEXT_MAX: u64 = 64 << 10;
/// Where a virtual environment is, for an interpreter that is called by its bare name.
const ENVIRONMENT: &[u8] = b"VIRTUAL_ENV=";

/// The directories of packages of the Python that `pid` runs, as this process can open them; none for another program.
pub(super) fn directories(pid: u32) -> Vec<PathBuf> {
    let Ok(exe) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
        return Vec::new();
    };
    if !exe
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"python"))
    {
        return Vec::new();
    }
    // An interpreter of a virtual environment is a link, known by the name it was called by.
    let called = called(pid).or_else(|| environment(pid).map(|of| of.join("bin/python")));
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    [called, Some(exe)]
        .into_iter()
        .flatten()
        .filter_map(|interpreter| below(&root, interpreter.parent()?.parent()?))
        .flatten()
        .take(DIRECTORIES_MAX)
        .collect()
}

/// The path by which a process knows a file below its root.
pub(super) fn inside(pid: u32, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let known = Path::new("/").join(path.strip_prefix(&root).unwrap_or(path));
    // Links are followed only where they lead the same way: on the host itself.
    let same = |a: &Path, b: &Path| {
        let id = |path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        id(a).is_some_and(|of_a| id(b) == Some(of_a))
    };
    if same(&known, path) {
        known.canonicalize().unwrap_or(known)
    } else {
        known
    }
}

/// `lib/python3.*/{site,dist}-packages` under `prefix`, in the file system of a process.
fn below(root: &Path, prefix: &Path) -> Option<Vec<PathBuf>> {
    let lib = root.join(prefix.strip_prefix("/").ok()?).join("lib");
    let versions = std::fs::read_dir(lib).ok()?.flatten();
    let packages = versions
        .filter(|entry| entry.file_name().as_bytes().starts_with(b"python"))
        .flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name)))
        .filter(|path| path.is_dir());
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

    #[test]
    fn packages_of_a_virtual_environment_and_of_the_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let packages = directory.path().join("venv/lib/python3.11/site-packages");
        std::fs::create_dir_all(&packages).unwrap();
        std::fs::create_dir_all(directory.path().join("venv/lib/other/site-packages")).unwrap();
        let found = below(Path::new("/"), &directory.path().join("venv")).unwrap();
        assert_eq!(found, [packages]);
        assert_eq!(below(Path::new("/"), &directory.path().join("none")), None);
        // Not a Python.
        assert_eq!(directories(std::process::id()), Vec::<PathBuf>::new());
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
        let found = directories(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let there = |path: &PathBuf| path.ends_with(packages.strip_prefix("/").unwrap());
        assert!(found.iter().any(there), "{found:?}");
    }
}
