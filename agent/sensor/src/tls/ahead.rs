//! Programs and modules with TLS linked in, wherever they were installed: `node_modules`, a project's virtual environment,
//! a directory below somebody's home. A short program has sent what it had before anybody could inspect its file, so
//! this walks through the local file systems once, behind everybody else.

use super::discover;
use super::packages::Found;
use keytrail_host::{
    clock::thread_ns,
    mounts::{self, Mount},
    priority,
    verdict::{Verdict, by_type},
};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, DirEntry},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Directories that may wait to be read; below those beyond it nobody looks.
const DIRECTORIES_MAX: usize = 200_000;
/// Entries that are read in all.
const ENTRIES_MAX: u64 = 10_000_000;
/// The walk takes one part in so many of a processor: a start of the agent is no load.
const PACE: u64 = 33;
/// It rests after so much work, nanoseconds: to wake up for every single directory costs as much as to read it.
const SPELL_NS: u64 = 3_000_000;
/// Directories of the kernel and of containers: what runs in those shows other files, which are found when they run.
const NOT_BELOW: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
];
/// Where nothing that runs lies.
const NOT_NAMED: [&str; 2] = [".git", "__pycache__"];
/// What cargo has in a directory that it builds in, and what below it are its own works: thousands of programs that nobody
/// runs but to test them.
const BUILT_BY_CARGO: &str = ".fingerprint";
const BUILT: [&str; 3] = ["deps", "build", "incremental"];
/// What nobody runs by what it is called, and what most files are: it is not asked how large they are. A program of such a
/// name is found when it runs.
const NO_PROGRAMS: [&str; 58] = [
    "a", "c", "cc", "cjs", "class", "cpp", "css", "csv", "d", "el", "elc", "gif", "go", "gz", "h",
    "hpp", "htm", "html", "in", "ipp", "java", "jpeg", "jpg", "js", "json", "lock", "log", "lua",
    "map", "md", "mjs", "mo", "o", "pdf", "pem", "php", "pl", "pm", "png", "po", "pod", "py",
    "pyc", "pyi", "rb", "rlib", "rmeta", "rs", "rst", "scss", "svg", "toml", "ts", "tsx", "txt",
    "xml", "yaml", "yml",
];
/// Read last: what is installed there for all users is looked for in every scan anyway.
const LAST: &str = "/usr";

/// Starts the thread. `tell` gets each file that may have TLS linked in, and says whether anybody still listens; it may
/// take its time.
///
/// # Errors
/// There is no thread.
pub(super) fn start(mut report: impl FnMut(Found) -> bool + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name("programs".into())
        .spawn(move || {
            priority::lower_this_thread();
            let table = mounts::read(Path::new("/proc/self/mountinfo"));
            let mut walk = Walk::new(roots(&table));
            loop {
                let began = thread_ns();
                let mut took = 0;
                while took < SPELL_NS {
                    if !walk.step(&mut report) {
                        return;
                    }
                    took = thread_ns().saturating_sub(began);
                }
                thread::sleep(Duration::from_nanos(took.saturating_mul(PACE - 1)));
            }
        })?;
    Ok(())
}

/// Where local file systems are mounted whole; of the host's root whatever is shown of it.
fn roots(table: &[Mount]) -> Vec<PathBuf> {
    table
        .iter()
        .filter(|mount| {
            let root = mount.point == b"/";
            root || by_type(&mount.kind, &mount.source) == Verdict::Walk
                && mount.kind != "overlay"
                && mount.root == b"/"
        })
        .map(|mount| PathBuf::from(OsStr::from_bytes(&mount.point)))
        .filter(|point| !is_left_out(point))
        .collect()
}

fn is_left_out(path: &Path) -> bool {
    NOT_BELOW.iter().any(|out| path.starts_with(out))
        || path
            .file_name()
            .is_some_and(|name| NOT_NAMED.iter().any(|out| name == *out))
}

/// A walk, breadth first: projects and homes are nearer to the root than most of what fills them.
struct Walk {
    /// With the device that the walk does not leave.
    now: VecDeque<(PathBuf, u64)>,
    last: VecDeque<(PathBuf, u64)>,
    entries: u64,
}

impl Walk {
    fn new(roots: Vec<PathBuf>) -> Self {
        let now = roots
            .into_iter()
            .filter_map(|root| {
                let device = fs::symlink_metadata(&root).ok()?.dev();
                Some((root, device))
            })
            .collect();
        Self {
            now,
            last: VecDeque::new(),
            entries: 0,
        }
    }

    /// Reads one directory; false when there is none left, or nobody listens.
    fn step(&mut self, report: &mut dyn FnMut(Found) -> bool) -> bool {
        let Some((directory, device)) = self.now.pop_front().or_else(|| self.last.pop_front())
        else {
            return false;
        };
        let Ok(entries) = fs::read_dir(&directory) else {
            return true;
        };
        let built = fs::symlink_metadata(directory.join(BUILT_BY_CARGO)).is_ok();
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return false;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                if !(built && BUILT.iter().any(|own| entry.file_name() == *own)) {
                    self.down(entry.path(), device);
                }
            } else if kind.is_file()
                && let Some(found) = candidate(&entry)
                && !report(found)
            {
                return false;
            }
        }
        true
    }

    fn down(&mut self, path: PathBuf, device: u64) {
        if is_left_out(&path) || self.now.len() + self.last.len() >= DIRECTORIES_MAX {
            return;
        }
        // Another file system is a root of its own, or not to be walked.
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.dev() == device) {
            let to = if path.starts_with(LAST) {
                &mut self.last
            } else {
                &mut self.now
            };
            to.push_back((path, device));
        }
    }
}

/// A file that is large enough to have TLS linked in, or has the name of a library that is TLS.
fn candidate(entry: &DirEntry) -> Option<Found> {
    let name = entry.file_name();
    let extension = Path::new(&name).extension().and_then(OsStr::to_str);
    if extension.is_some_and(|extension| NO_PROGRAMS.binary_search(&extension).is_ok()) {
        return None;
    }
    let meta = entry.metadata().ok()?;
    // Before it is opened: few are.
    if !discover::may_have_tls(name.as_bytes(), &meta) {
        return None;
    }
    let path = entry.path();
    Found::program(discover::open(&path).ok()?, path)
}

#[cfg(test)]
mod tests {
    use super::super::discover::{EXECUTABLE_MIN, MODULE_MIN};
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn write(path: &Path, size: u64, mode: u32, elf: bool) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            if elf {
                &b"\x7fELF\x02\x01\x01"[..]
            } else {
                b"#!/bin"
            },
        )
        .unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(size).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn walk(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut walk = Walk::new(vec![root.to_owned()]);
        while walk.step(&mut |of: Found| {
            found.push(of.path.strip_prefix(root).unwrap().display().to_string());
            true
        }) {}
        found.sort();
        found
    }

    #[test]
    fn programs_are_found_wherever_they_are_installed() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        let large = EXECUTABLE_MIN;
        write(&at("p/node_modules/@oven/bun/bin/bun"), large, 0o755, true);
        write(
            &at("p/v/grpc/_cython/cygrpc.cpython-311.so"),
            100,
            0o644,
            true,
        );
        write(&at("p/v/x/native.node"), MODULE_MIN, 0o644, true);
        // Too small, not executable, no program, called what none is, where nothing runs.
        assert!(NO_PROGRAMS.is_sorted(), "it is searched");
        write(&at("p/module.py"), large, 0o755, true);
        write(&at("p/small"), large - 1, 0o755, true);
        write(&at("p/data"), large, 0o644, true);
        write(&at("p/script"), large, 0o755, false);
        write(&at("p/small.so"), MODULE_MIN - 1, 0o755, true);
        write(&at("p/.git/objects/program"), large, 0o755, true);
        write(&at("p/target/debug/deps/test-1a2b"), large, 0o755, true);
        write(&at("p/target/debug/.fingerprint/x"), 1, 0o644, false);
        write(&at("p/target/debug/program"), large, 0o755, true);
        symlink(at("p"), at("p/v/again")).unwrap();
        assert_eq!(
            walk(scratch.path()),
            [
                "p/node_modules/@oven/bun/bin/bun",
                "p/target/debug/program",
                "p/v/grpc/_cython/cygrpc.cpython-311.so",
                "p/v/x/native.node"
            ]
        );
    }

    #[test]
    fn it_ends_when_nobody_listens() {
        let scratch = tempfile::tempdir().unwrap();
        for n in 0..3 {
            write(
                &scratch.path().join(format!("p{n}")),
                EXECUTABLE_MIN,
                0o755,
                true,
            );
        }
        let mut reported = 0;
        let mut walk = Walk::new(vec![scratch.path().to_owned()]);
        assert!(!walk.step(&mut |_| {
            reported += 1;
            false
        }));
        assert_eq!(reported, 1);
    }

    #[test]
    fn roots_are_local_file_systems() {
        let table: Vec<Mount> = mounts::parse(
            b"1 0 254:0 / / rw - overlay overlay rw\n\
2 1 0:21 / /proc rw - proc proc rw\n\
3 1 254:1 / /home rw - ext4 /dev/vdb rw\n\
4 1 254:1 /x /srv/x rw - ext4 /dev/vdb rw\n\
5 1 0:44 / /net rw - nfs4 host:/x rw\n\
6 1 0:45 / /srv/merged rw - overlay overlay rw\n\
7 1 0:46 / /run/user/1 rw - tmpfs tmpfs rw\n",
        )
        .collect();
        assert_eq!(roots(&table), [Path::new("/"), Path::new("/home")]);
    }
}
