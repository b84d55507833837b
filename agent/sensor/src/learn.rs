//! Under which name the kernel knows a file whose device number is made up.
//!
//! On btrfs `st_dev` belongs to the subvolume, and in an overlay (every container) a read ends at a file of the lower
//! or upper file system. No system call tells; but the tracepoint of the page cache does, so the agent reads a byte
//! of the file while a program listens for that one thread.

use super::{hooks, maps::Maps, proof};
use aya::Ebpf;
use keytrail_abi::{FileId, state::Learn};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

const HOOK: hooks::Hook = hooks::Hook {
    program: "filemap_learn",
    point: hooks::Point::RawTracepoint("mm_filemap_get_pages"),
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
    hooks::attach(ebpf, None, HOOK).ok()?;
    let read = rustix::io::pread(&file, &mut [0; 1], 0);
    hooks::detach(ebpf, HOOK);
    read.ok()?;
    // The byte is not looked at, only where it came from.
    maps.learnt()
        .filter(|learn| learn.thread == 0)
        .map(|learn| learn.file)
}
