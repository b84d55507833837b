//! What only a hook can tell: which files are on tmpfs, and under which name the kernel knows a file whose device number
//! is made up.
//!
//! On btrfs `st_dev` belongs to the subvolume, and in an overlay (every container) a read ends at a file of the lower
//! or upper file system. No system call tells; but the tracepoint of the page cache does, so the agent reads a byte
//! of the file while a program listens for that one thread.

use super::{
    hooks,
    maps::{LearnMap, Maps},
};
use aya::Ebpf;
use keytrail_abi::{FileId, state::Learn};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

const HOOK: hooks::Hook = hooks::Hook {
    program: "filemap_learn",
    point: hooks::Point::RawTracepoint("mm_filemap_get_pages"),
};

const TMPFS_HOOK: hooks::Hook = hooks::Hook {
    program: "learn_tmpfs",
    point: hooks::Point::RawTracepoint("sys_enter"),
};

/// Has the page cache inspected for what [`Learner`] reads, from here on. False where it cannot be (a kernel before 6.12).
pub fn listen(ebpf: &mut Ebpf) -> bool {
    hooks::attach(ebpf, None, HOOK).is_ok()
}

/// The end of [`listen`].
pub fn listen_no_more(ebpf: &mut Ebpf) {
    hooks::detach(ebpf, HOOK);
}

/// Has the system calls of the host inspected for reads of files on tmpfs, from here on. False where files on tmpfs
/// cannot be told from others.
pub fn tmpfs(ebpf: &mut Ebpf, maps: &mut Maps) -> bool {
    let memory = rustix::fs::memfd_create("keytrail", MemfdFlags::CLOEXEC);
    let reported = memory.is_ok_and(|memory| {
        rustix::io::write(&memory, &[0]).is_ok()
            && is_reported(ebpf, maps, memory.as_fd()).is_some()
    });
    if reported && fifo().is_none_or(|fifo| is_reported(ebpf, maps, fifo.as_fd()).is_none()) {
        tracing::warn!(
            "FIFOs cannot be told from other files: who reads one by its name is not reported"
        );
    }
    reported
}

/// A FIFO that nobody finds: its name is gone at once.
fn fifo() -> Option<OwnedFd> {
    ["/run", "/dev/shm", "/tmp", "/var/tmp"]
        .into_iter()
        .find_map(|place| {
            let path = format!("{place}/.keytrail-{}.fifo", std::process::id());
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).ok()?;
            // For reading and writing: it waits for nobody.
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let opened = rustix::fs::open(&path, flags, Mode::empty()).ok();
            let _ = rustix::fs::unlink(&path);
            opened
        })
}

/// Reads a byte while the program for tmpfs listens for it.
fn is_reported(ebpf: &mut Ebpf, maps: &mut Maps, file: BorrowedFd<'_>) -> Option<Learn> {
    let mut learner = Learner::new(maps)?;
    learner.begin()?;
    hooks::attach(ebpf, None, TMPFS_HOOK).ok()?;
    let learnt = learner.read(file);
    hooks::detach(ebpf, TMPFS_HOOK);
    learnt
}

/// Reads a byte of a file while a program listens for the calling thread, and sees what the kernel calls that file.
pub struct Learner {
    map: LearnMap,
    /// The agent's number in the initial pid namespace.
    tgid: u32,
}

impl Learner {
    /// `None` where the agent's number out there is not known, or there is no descriptor.
    pub fn new(maps: &Maps) -> Option<Self> {
        // The self-test has seen the agent's ids in the initial pid namespace; in one of its own they are others.
        let seen = maps.self_test()?;
        (seen.tgid == std::process::id()).then_some(())?;
        Some(Self {
            map: LearnMap::of(maps.learn_fd().ok()?)?,
            tgid: seen.tgid,
        })
    }

    /// One for another thread.
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self {
            map: LearnMap::of(self.map.fd().ok()?)?,
            tgid: self.tgid,
        })
    }

    /// The kernel's name for the file, while somebody listens. `None` where it cannot be learnt: an empty file.
    pub fn real(&mut self, file: &OwnedFd) -> Option<FileId> {
        self.begin()?;
        Some(self.read(file.as_fd())?.file)
    }

    fn begin(&mut self) -> Option<()> {
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .cast_unsigned();
        let thread = u64::from(self.tgid) << 32 | u64::from(tid);
        self.map.set(thread).ok()
    }

    /// The byte is not inspected, only where it came from.
    fn read(&self, file: BorrowedFd<'_>) -> Option<Learn> {
        match rustix::io::pread(file, &mut [0; 1], 0) {
            // Of a FIFO no byte is read at a place, but the call was seen.
            Ok(_) | Err(Errno::SPIPE) => {}
            Err(_) => return None,
        }
        self.map.get().filter(|learn| learn.thread == 0)
    }
}
