//! What only a hook can tell: which files are on tmpfs, and under which name the kernel knows a file whose device number
//! is made up.
//!
//! On btrfs `st_dev` belongs to the subvolume, and in an overlay (every container) a read ends at a file of the lower
//! or upper file system. No system call tells; but the tracepoint of the page cache does, so the agent reads a byte
//! of the file while a program listens for that one thread.

use super::{hooks, maps::Maps, proof};
use aya::Ebpf;
use keytrail_abi::{FileId, state::Learn};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

const HOOK: hooks::Hook = hooks::Hook {
    program: "filemap_learn",
    point: hooks::Point::RawTracepoint("mm_filemap_get_pages"),
};

const TMPFS_HOOK: hooks::Hook = hooks::Hook {
    program: "learn_tmpfs",
    point: hooks::Point::RawTracepoint("sys_enter"),
};

/// The kernel's name for the file, where it differs from what stat says. `None` where it does not, or cannot be
/// learnt: an empty file, one that cannot be read, a kernel before 6.12.
pub fn real(ebpf: &mut Ebpf, maps: &mut Maps, path: &Path) -> Option<FileId> {
    if !proof::made_up_device(path) {
        return None;
    }
    // A FIFO would keep the agent waiting; the access time is not the agent's to change, but only the owner or root
    // may ask for that.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| rustix::fs::open(path, flags, Mode::empty()))
        .ok()?;
    // The byte is not looked at, only where it came from.
    learn(ebpf, maps, HOOK, file.as_fd()).map(|learn| learn.file)
}

/// Has the system calls of the host looked at for reads of files on tmpfs, from here on. False where files on tmpfs
/// cannot be told from others.
pub fn tmpfs(ebpf: &mut Ebpf, maps: &mut Maps) -> bool {
    let memory = rustix::fs::memfd_create("keytrail", MemfdFlags::CLOEXEC);
    memory.is_ok_and(|memory| {
        rustix::io::write(&memory, &[0]).is_ok()
            && learn(ebpf, maps, TMPFS_HOOK, memory.as_fd()).is_some()
    })
}

/// Reads a byte while the program at `hook` listens for it.
fn learn(
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    hook: hooks::Hook,
    file: BorrowedFd<'_>,
) -> Option<Learn> {
    // The agent's ids in the initial pid namespace, which the self-test has seen.
    let seen = maps.self_test()?;
    let tid = rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned();
    if seen.tgid != std::process::id() {
        // In a pid namespace of its own the thread's number out there is not known.
        return None;
    }
    let thread = u64::from(seen.tgid) << 32 | u64::from(tid);
    maps.set_learn(Learn {
        thread,
        ..Learn::default()
    })
    .ok()?;
    hooks::attach(ebpf, None, hook).ok()?;
    let read = rustix::io::pread(file, &mut [0; 1], 0);
    hooks::detach(ebpf, hook);
    read.ok()?;
    maps.learnt().filter(|learn| learn.thread == 0)
}
