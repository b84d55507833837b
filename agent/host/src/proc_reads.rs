//! Who reads another process's environment or memory through /proc: a fanotify group with one mark on each procfs.
//!
//! There is one procfs for each pid namespace, so a container's has a mark of its own. The kernel reports every read
//! of every file in it; all but `environ` and `mem` are dropped here by name, after one readlink. Opening is not reading:
//! only accesses are asked for.

use crate::fanotify;
use rustix::fs::{Mode, OFlags};
use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const EVENT: usize = size_of::<libc::fanotify_event_metadata>();

/// What of a process was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcFile {
    /// `/proc/PID/environ`: the block it was started with.
    Environ,
    /// `/proc/PID/mem`: any of its memory.
    Mem,
}

/// One read, or several that the kernel merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcRead {
    /// Process that read, in the agent's pid namespace; 0 when it is outside of it.
    pub reader: u32,
    /// Process or thread that was read, by the number that this procfs has for it.
    pub target: u32,
    /// Device number (`st_dev`) of the procfs.
    pub procfs: u64,
    pub file: ProcFile,
}

/// What one drain met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Events of any file.
    pub events: usize,
    /// The kernel's queue overflowed: reads were missed.
    pub missed: bool,
    /// Reads by others of a file that could not be opened any more to be told apart: of an environment, memory or a map of
    /// a process that had ended (opening any other file of one does not fail), or there was no descriptor for it.
    pub gone: usize,
}

/// fanotify_init(2), since Linux 6.13: an event whose file cannot be opened is reported with the error in place of the
/// descriptor, and so with its reader.
const FAN_REPORT_FD_ERROR: libc::c_uint = 0x2000;

/// The group.
pub struct ProcReads {
    group: OwnedFd,
    /// Readers of what cannot be opened any more are reported, too.
    errors_reported: bool,
    /// Reads by this process are not reported: the agent's own.
    own: u32,
}

impl ProcReads {
    /// # Errors
    /// When the kernel lets nobody listen (no fanotify, no CAP_SYS_ADMIN).
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NONBLOCK;
        let (group, errors_reported) = match fanotify::group(flags | FAN_REPORT_FD_ERROR, files) {
            Ok(group) => (group, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (fanotify::group(flags, files)?, false)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            group,
            errors_reported,
            own: std::process::id(),
        })
    }

    /// Marks the procfs mounted at `mount`; returns its device number.
    ///
    /// # Errors
    /// What opening or marking says; `InvalidInput` when it is no procfs.
    pub fn mark(&self, mount: &Path) -> io::Result<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(mount, flags, Mode::empty())?;
        // PROC_SUPER_MAGIC of linux/magic.h.
        if rustix::fs::fstatfs(&directory)?.f_type as u64 != 0x9fa0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let action = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        fanotify::change_mark(&self.group, action, libc::FAN_ACCESS, mount)?;
        Ok(rustix::fs::fstat(&directory)?.st_dev)
    }

    /// Removes the mark of the procfs mounted at `mount`.
    ///
    /// # Errors
    /// What fanotify_mark(2) says.
    pub fn unmark(&self, mount: &Path) -> io::Result<()> {
        let action = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
        fanotify::change_mark(&self.group, action, libc::FAN_ACCESS, mount)
    }

    /// Reads a byte of this process's own memory: is that reported?
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn fires(&self) -> io::Result<bool> {
        use std::os::unix::fs::FileExt as _;
        let byte = 7u8;
        let at = std::ptr::from_ref(&byte).addr() as u64;
        std::fs::File::open("/proc/self/mem")?.read_exact_at(&mut [0], at)?;
        let mut seen = false;
        self.all(usize::MAX, &mut |read| {
            seen |= read.reader == self.own && read.target == self.own;
        });
        Ok(seen)
    }

    /// Hands out what is queued, at most about `most` events of any file.
    pub fn drain(&self, most: usize, sink: &mut dyn FnMut(ProcRead)) -> Drained {
        self.all(most, &mut |read| {
            if read.reader != self.own {
                sink(read);
            }
        })
    }

    fn all(&self, most: usize, sink: &mut dyn FnMut(ProcRead)) -> Drained {
        let mut drained = Drained::default();
        let mut buffer = [MaybeUninit::<libc::fanotify_event_metadata>::uninit(); 64];
        // Before 6.13 an event that fails behind others of the same read is dropped without a word: one at a time, then.
        let batch = if self.errors_reported {
            buffer.len()
        } else {
            1
        };
        while drained.events < most {
            // SAFETY: the buffer has at least that many bytes; its element type gives it the alignment of the metadata.
            let read = unsafe {
                libc::read(
                    self.group.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    batch * EVENT,
                )
            };
            let Ok(read) = usize::try_from(read) else {
                match io::Error::last_os_error().kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted => continue,
                    // The kernel has dropped that event; whose read it was is not known.
                    _ => {
                        drained.gone += 1;
                        drained.events += 1;
                        continue;
                    }
                }
            };
            if read == 0 {
                break;
            }
            // Without extra information records every event is exactly one metadata.
            for event in buffer.iter().take(read / EVENT) {
                // SAFETY: the kernel has filled this many elements; all bit patterns are valid.
                let event = unsafe { event.assume_init() };
                drained.events += 1;
                if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                    drained.missed = true;
                    continue;
                }
                let reader = u32::try_from(event.pid).unwrap_or(0);
                if event.fd < 0 {
                    drained.gone += usize::from(reader != self.own);
                    continue;
                }
                // SAFETY: the kernel made this descriptor for us.
                let file = unsafe { OwnedFd::from_raw_fd(event.fd) };
                if let Some(read) = describe(&file, reader) {
                    sink(read);
                }
            }
        }
        drained
    }
}

impl AsFd for ProcReads {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// What an event's descriptor is of, by its name.
fn describe(file: &OwnedFd, reader: u32) -> Option<ProcRead> {
    let path =
        rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new()).ok()?;
    let (target, kind) = name(OsStr::from_bytes(path.as_bytes()))?;
    Some(ProcRead {
        reader,
        target,
        procfs: rustix::fs::fstat(file).ok()?.st_dev,
        file: kind,
    })
}

/// `.../PID/environ`, `.../PID/task/TID/mem`, wherever that procfs is mounted.
fn name(path: &OsStr) -> Option<(u32, ProcFile)> {
    // A process that has gone leaves this behind its names.
    let bytes = path.as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    let mut parts = bytes.rsplit(|byte| *byte == b'/');
    let file = match parts.next()? {
        b"environ" => ProcFile::Environ,
        b"mem" => ProcFile::Mem,
        _ => return None,
    };
    let target = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((target, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn names_are_read_off_any_mount() {
        let of = |path: &str| name(OsStr::new(path));
        assert_eq!(of("/proc/12/environ"), Some((12, ProcFile::Environ)));
        assert_eq!(of("/12/task/13/mem"), Some((13, ProcFile::Mem)));
        assert_eq!(of("/proc/7/mem (deleted)"), Some((7, ProcFile::Mem)));
        for other in ["/proc/12/stat", "/proc/self/environ", "/environ", "mem", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    /// Reads of a victim's files by the command, each as (reader is the command, file).
    fn seen(script: &str) -> Option<Vec<(bool, ProcFile)>> {
        let reads = match ProcReads::new() {
            Ok(reads) => reads,
            Err(error) => {
                assert!(!rustix::process::geteuid().is_root(), "{error}");
                eprintln!("not run: needs root");
                return None;
            }
        };
        let device = reads.mark(Path::new("/proc")).unwrap();
        let mut victim = Command::new("sleep").arg("30").spawn().unwrap();
        let mut reader = Command::new("sh")
            .args(["-c", script])
            .env("VICTIM", victim.id().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = reader.id();
        reader.wait().unwrap();
        let mut found = Vec::new();
        while reads
            .drain(64, &mut |read| {
                if read.target == victim.id() {
                    assert_eq!(read.procfs, device);
                    found.push((read.reader == id, read.file));
                }
            })
            .events
            > 0
        {}
        victim.kill().unwrap();
        victim.wait().unwrap();
        Some(found)
    }

    #[test]
    fn reads_of_environment_and_memory_are_seen() {
        if let Some(found) = seen("exec cat /proc/$VICTIM/environ") {
            assert_eq!(found, [(true, ProcFile::Environ)]);
        }
        let at = "at=$(sed -n '1s/-.*//p' /proc/$VICTIM/maps); \
                  exec dd if=/proc/$VICTIM/mem bs=1 count=8 skip=$((0x$at)) of=/dev/null";
        if let Some(found) = seen(at) {
            assert!(found.contains(&(true, ProcFile::Mem)), "{found:?}");
        }
    }

    #[test]
    fn what_ended_before_it_was_inspected_is_counted_with_others_between() {
        let Ok(reads) = ProcReads::new() else {
            eprintln!("not run: needs root");
            return;
        };
        reads.mark(Path::new("/proc")).unwrap();
        // Three victims that are read and gone before the drain, with a read that can be opened before each.
        for _ in 0..3 {
            let mut victim = Command::new("sleep").arg("30").spawn().unwrap();
            let script = "cat /proc/self/environ /proc/$VICTIM/environ; kill -9 $VICTIM";
            let reader = Command::new("sh")
                .args(["-c", script])
                .env("VICTIM", victim.id().to_string())
                .stdout(Stdio::null())
                .status();
            assert!(reader.unwrap().success());
            victim.wait().unwrap();
        }
        let mut gone = 0;
        loop {
            let drained = reads.drain(64, &mut |_| ());
            gone += drained.gone;
            if drained.events == 0 {
                break;
            }
        }
        // Those of `cat` itself, which has ended as well, and those of the victims.
        assert!(gone >= 6, "{gone}");
        if !reads.errors_reported {
            return;
        }
        // This process's own are nobody's.
        let mut victim = Command::new("sleep").arg("30").spawn().unwrap();
        // An exec replaces what can be read; the map of a running process can.
        std::fs::read(format!("/proc/{}/maps", victim.id())).unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();
        let mut own = 0;
        let mut events = 0;
        loop {
            let drained = reads.drain(64, &mut |_| ());
            own += drained.gone;
            events += drained.events;
            if drained.events == 0 {
                break;
            }
        }
        assert!(events > 0);
        assert_eq!(own, 0);
    }

    #[test]
    fn opening_and_other_files_are_not_reading() {
        if let Some(found) =
            seen("cat /proc/$VICTIM/stat; exec 3</proc/$VICTIM/environ; ls -l /proc/$VICTIM")
        {
            assert_eq!(found, []);
        }
    }
}
