//! Names of what a process was started from and in: executable, working directory, cgroup.
//!
//! Only /proc spells them, and only while the process lives. Looking there is what costs most of an exec: the kernel
//! has to undo it when the process ends. So what was read once is remembered under what the kernel reports paths and
//! cgroups apart by, and serves for the next process in the same place, even one that is gone already.

use super::cgroups::Hierarchies;
use super::convert;
use keytrail_abi::{Exec, PathId};
use keytrail_host::{clock, kernel_device, procfs};
use keytrail_model::{ExeFacts, absolute};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::hash::Hash;
use std::os::unix::fs::MetadataExt as _;

/// Paths remembered of each kind; when there are more all are forgotten.
const MAX: usize = 8_192;
/// A path is read again after this time: the names above a mount or far above a file may have changed, and those of
/// cgroups of the first version.
const FRESH_NS: u64 = 10_000_000_000;
/// An executable is new for this time.
const YOUNG_NS: u64 = 60_000_000_000;

/// What an exec's process is called by.
pub struct ProgramNames {
    pub exe: ExeFacts,
    /// Empty when it could not be read.
    pub cwd: String,
    /// Empty when it could not be read.
    pub cgroup: String,
}

/// What was read of processes before.
#[derive(Default)]
pub struct Names {
    exes: Memory<PathId>,
    directories: Memory<PathId>,
    cgroups: Memory<u64>,
    hierarchies: Hierarchies,
}

impl Names {
    /// `filename` is the path execve was given, for an executable whose own path nobody saw.
    pub fn of(&mut self, exec: &Exec, filename: String) -> ProgramNames {
        let now = exec.header.boot_ns;
        let process = Process {
            exec,
            alive: Cell::new(None),
        };
        let exe = self
            .exes
            .get(&exec.exe, now)
            .or_else(|| {
                let (path, same) = process.path("exe", exec.exe)?;
                if same {
                    return Some(self.exes.put(exec.exe, path, now));
                }
                // An overlay's: by its number all the same.
                process.runs(&exec.exe).then_some(path)
            })
            // Gone before it was inspected: an old name is still the name of this file.
            .or_else(|| self.exes.old(&exec.exe));
        let (cwd, its_own) = match self.directories.get(&exec.cwd, now) {
            Some(path) => (path, true),
            None => match process.path("cwd", exec.cwd) {
                Some((path, true)) => (self.directories.put(exec.cwd, path, now), true),
                // It may have gone elsewhere since.
                Some((path, false)) => (path, false),
                None => Default::default(),
            },
        };
        // What execve was given may be relative: `target/debug/x`.
        let exe = exe.unwrap_or_else(|| match filename.as_str() {
            "" => String::new(),
            given if its_own => absolute(given, &cwd),
            given => given.to_owned(),
        });
        let cgroup = self.cgroups.get(&exec.cgroups, now).or_else(|| {
            let hierarchies = &mut self.hierarchies;
            let found = process
                .alive()
                .then(|| hierarchies.of(process.tgid(), now))??;
            // It may have been moved since.
            Some(if found.sum == Some(exec.cgroups) {
                self.cgroups.put(exec.cgroups, found.path, now)
            } else {
                found.path
            })
        });
        ProgramNames {
            exe: ExeFacts {
                path: exe,
                device: u64::from(exec.exe.file.dev),
                inode: exec.exe.file.ino,
                fresh: is_fresh(exec),
                upper_layer: exec.upper_layer != 0,
            },
            cwd,
            cgroup: cgroup.unwrap_or_default(),
        }
    }
}

/// Whether the executable was new when it was executed: its inode's change of status (which a copy cannot set back) is the
/// measure, as the kernel reported it then, so that a program need not live until it is inspected.
fn is_fresh(exec: &Exec) -> bool {
    let ago_ns = clock::boot_ns().saturating_sub(exec.header.boot_ns);
    let executed_ns = clock::wall_ns().saturating_sub(ago_ns);
    exec.exe_ctime_ns != 0 && executed_ns.saturating_sub(exec.exe_ctime_ns) < YOUNG_NS
}

/// A process as /proc shows it, which may be another one by now.
struct Process<'a> {
    exec: &'a Exec,
    alive: Cell<Option<bool>>,
}

impl Process<'_> {
    fn tgid(&self) -> u32 {
        self.exec.header.tgid
    }

    fn alive(&self) -> bool {
        self.alive.get().unwrap_or_else(|| {
            let alive =
                procfs::pid_of(self.tgid()) == Some(convert::task_info(&self.exec.header).pid);
            self.alive.set(Some(alive));
            alive
        })
    }

    /// Whether it runs this executable still, as far as the inode's number can tell.
    fn runs(&self, exe: &PathId) -> bool {
        fs::metadata(procfs::path(self.tgid(), "exe")).is_ok_and(|meta| meta.ino() == exe.file.ino)
    }

    /// The path behind a link in /proc/PID, and whether it leads to the file of the record.
    fn path(&self, link: &str, wanted: PathId) -> Option<(String, bool)> {
        if !self.alive() {
            return None;
        }
        let link = procfs::path(self.tgid(), link);
        let path = fs::read_link(&link).ok()?;
        // Roots of file systems have the same number on many. Where stat(2) tells other devices than the kernel has
        // (btrfs, overlays), and of what is deleted, nothing is remembered.
        let same = fs::metadata(link).is_ok_and(|meta| {
            meta.ino() == wanted.file.ino
                && kernel_device(meta.dev()) == wanted.file.dev
                && meta.nlink() > 0
        });
        Some((path.to_string_lossy().into_owned(), same))
    }
}

/// Strings by key, each with the time it was read.
struct Memory<K>(HashMap<K, (u64, String)>);

impl<K> Default for Memory<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// Keys that name nothing are never kept.
trait Key: Hash + Eq {
    fn names_something(&self) -> bool;
}

impl Key for PathId {
    fn names_something(&self) -> bool {
        self.names != 0 && self.file.ino != 0
    }
}

impl Key for u64 {
    fn names_something(&self) -> bool {
        *self != 0
    }
}

impl<K: Key> Memory<K> {
    fn get(&self, key: &K, now_ns: u64) -> Option<String> {
        let (read_ns, path) = self.0.get(key)?;
        (now_ns <= read_ns.saturating_add(FRESH_NS)).then(|| path.clone())
    }

    fn old(&self, key: &K) -> Option<String> {
        self.0.get(key).map(|(_, path)| path.clone())
    }

    fn put(&mut self, key: K, path: String, now_ns: u64) -> String {
        if key.names_something() {
            if self.0.len() >= MAX && !self.0.contains_key(&key) {
                self.0.clear();
            }
            self.0.insert(key, (now_ns, path.clone()));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_abi::{FileId, Header, Kind};

    /// A pid beyond the kernel's maximum: /proc has nothing to say.
    const NOBODY: u32 = 99_999_999;

    fn path_id(names: u64, link: &str) -> PathId {
        PathId {
            names,
            file: FileId {
                ino: fs::metadata(link).unwrap().ino(),
                dev: kernel_device(fs::metadata(link).unwrap().dev()),
                pad: 0,
            },
        }
    }

    fn own_cgroups() -> Option<u64> {
        Hierarchies::default().of(std::process::id(), 1)?.sum
    }

    /// An exec of this process, as the kernel would report it.
    fn own(boot_ns: u64) -> Exec {
        let me = procfs::pid_of(std::process::id()).unwrap();
        Exec {
            header: Header {
                kind: Kind::EXEC,
                tgid: me.tgid,
                start_ns: me.start * keytrail_model::TICK_NS,
                boot_ns,
                ..Header::default()
            },
            exec_id: 1,
            exe: path_id(3, "/proc/self/exe"),
            exe_ctime_ns: 0,
            cwd: path_id(5, "/proc/self/cwd"),
            cgroups: own_cgroups().unwrap_or(77),
            parent_start_ns: 0,
            arg_len: 0,
            env_len: 0,
            mnt_ns: 0,
            net_ns: 0,
            parent_tgid: 1,
            old_tid: 1,
            ns_tgid: 1,
            argc: 0,
            envc: 0,
            suid: 0,
            loginuid: 0,
            sessionid: 0,
            filename_len: 0,
            secureexec: 0,
            upper_layer: 0,
            pad: 0,
            filename: [0; 256],
        }
    }

    /// The same program in the same place, but gone.
    fn gone(boot_ns: u64) -> Exec {
        let mut exec = own(boot_ns);
        exec.header.tgid = NOBODY;
        exec
    }

    #[test]
    fn what_was_read_serves_for_the_next_process_in_the_same_place() {
        let mut names = Names::default();
        let none = names.of(&gone(1), "given".to_owned());
        assert_eq!((none.exe.path.as_str(), none.cwd.as_str()), ("given", ""));
        let first = names.of(&own(1), "given".to_owned());
        let cwd = std::env::current_dir().unwrap();
        assert_eq!(first.cwd, cwd.to_string_lossy());
        assert_eq!(
            first.exe.path,
            std::env::current_exe().unwrap().to_string_lossy()
        );
        let second = names.of(&gone(FRESH_NS), "given".to_owned());
        assert_eq!(second.exe.path, first.exe.path);
        assert_eq!(second.cwd, first.cwd);
        // Another program, of which nobody saw more than what execve was given.
        let mut other = gone(FRESH_NS);
        other.exe.file.ino += 1;
        let other = names.of(&other, "target/debug/x".to_owned());
        assert_eq!(other.exe.path, format!("{}/target/debug/x", first.cwd));
        assert_eq!(
            first.cgroup,
            procfs::cgroup(std::process::id()).unwrap_or_default()
        );
        // What cannot be proven to be the cgroup of the exec is not remembered.
        let remembered = if own_cgroups().is_some() {
            first.cgroup.as_str()
        } else {
            ""
        };
        assert_eq!(second.cgroup, remembered);
    }

    #[test]
    fn a_program_is_new_by_its_file_s_change_though_nobody_sees_it_run() {
        let mut names = Names::default();
        let mut fresh = |changed_ns: u64, executed_ns: u64| {
            let mut exec = gone(executed_ns);
            exec.exe_ctime_ns = changed_ns;
            names.of(&exec, String::new()).exe.fresh
        };
        let (boot, wall) = (clock::boot_ns(), clock::wall_ns());
        assert!(fresh(wall - YOUNG_NS / 2, boot));
        assert!(!fresh(wall - 2 * YOUNG_NS, boot));
        // Reported late, of what was new then.
        assert!(fresh(wall - 2 * YOUNG_NS, boot - 3 * YOUNG_NS / 2));
        assert!(!fresh(0, boot), "not known");
    }

    #[test]
    fn a_process_moved_since_its_exec_speaks_for_itself_only() {
        let mut names = Names::default();
        let mut moved = own(1);
        moved.cgroups = 78;
        assert_eq!(
            names.of(&moved, String::new()).cgroup,
            procfs::cgroup(std::process::id()).unwrap_or_default()
        );
        moved.header.tgid = NOBODY;
        assert_eq!(names.of(&moved, String::new()).cgroup, "");
    }

    #[test]
    fn the_root_of_another_file_system_is_another_directory() {
        let mut names = Names::default();
        let mut other = own(1);
        other.cwd.file.dev += 1;
        names.of(&other, String::new());
        other.header.tgid = NOBODY;
        assert_eq!(names.of(&other, String::new()).cwd, "");
    }

    #[test]
    fn another_path_or_an_old_one_is_not_taken_for_it() {
        let mut names = Names::default();
        names.of(&own(1), String::new());
        let mut elsewhere = gone(2);
        elsewhere.exe.names = 4;
        elsewhere.cwd.names = 6;
        elsewhere.cgroups = 78;
        let named = names.of(&elsewhere, "given".to_owned());
        assert_eq!(
            (
                named.exe.path.as_str(),
                named.cwd.as_str(),
                named.cgroup.as_str()
            ),
            ("given", "", "")
        );
        assert_eq!(names.of(&gone(FRESH_NS + 2), String::new()).cwd, "");
    }

    #[test]
    fn what_does_not_lead_to_the_record_s_file_is_not_remembered() {
        let mut names = Names::default();
        let mut moved = own(1);
        moved.cwd.file.ino += 1;
        moved.exe.file.ino += 1;
        let named = names.of(&moved, "given".to_owned());
        assert_eq!(named.exe.path, "given");
        let mut later = moved;
        later.header.tgid = NOBODY;
        assert_eq!(names.of(&later, String::new()).cwd, "");
        // A path whose names the kernel could not read is like no other.
        let mut unread = own(1);
        unread.cwd.names = 0;
        names.of(&unread, String::new());
        unread.header.tgid = NOBODY;
        assert_eq!(names.of(&unread, String::new()).cwd, "");
    }
}
