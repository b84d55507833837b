//! What a process opened by its name and passes on by: a FIFO, which its exec does not tell of; and a terminal of somebody
//! who reads what is shown there (`script`, `ssh -t`, a multiplexer). Told once a program, before its first read or write.

use crate::{
    maps::{PIPE_OUT, PIPE_READERS, READ_SEEN, field},
    pipes::{SLOTS, mark, pass_on, pipe_at, send_opened, table},
    record::{
        Counters, current_task, descriptor, file_id, follow, ignored, is_seen, program,
        read_or_zero,
    },
    write::{FMODE_WRITE, PIPEFS, kind_of},
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use keytrail_abi::{
    FileId, OutKey, PASSED, ReadKey,
    globals::field as f,
    records::{access, target},
    state::counter,
};

/// include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
/// In place of a version: who writes, and not who reads.
const WRITES: u64 = 1;
/// Ancestors that may have the terminal themselves: a shell, and what started it.
const ANCESTORS: usize = 6;

/// Not more than the standard streams: who made a terminal (`script`) keeps that end of it open as well.
const STREAMS: u32 = 3;

/// Not where the kernel's verifier goes over what follows a call once for each way through it: it would not come to an end. Asked
/// for in each function as well, for functions of their own are gone over whether they are called or not.
#[inline(always)]
pub fn follows_opened() -> bool {
    field(f::FOLLOWS_OPENED) == 1
}

/// A pipe, with a name or without.
#[inline(always)]
pub fn is_pipe(mode: u16) -> bool {
    mode & S_IFMT == S_IFIFO
}

/// Is it a FIFO with a name?
#[inline(always)]
pub fn is_fifo(inode: u64) -> bool {
    if !is_pipe(read_or_zero(inode, field(f::INODE_MODE))) {
        return false;
    }
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    magic != PIPEFS
}

/// A process is about to read what may be a FIFO: what is in it may be a secret already, so it is unknown until user space has
/// decided, and so are those who read from it. Why this is a function of its own: see `payload`. Its result says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reads_fifo(inode: u64) -> u64 {
    if !follows_opened() || !is_fifo(inode) {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if ignored(tgid) {
        return 0;
    }
    let task = current_task();
    let program = program(task);
    let key = ReadKey {
        file: file_id(inode),
        ctime_ns: 0,
        tgid,
        access: access::FIFO,
    };
    if is_seen(&key, program) {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let id = counters.unique(counter::EXECS) | PASSED;
    let _ = PIPE_READERS.insert(&key.file, &tgid, 0);
    mark(tgid, id);
    let stdout = pipe_at(follow(table(task), field(f::FDTABLE_FD)), 1, false);
    pass_on(tgid as u64, stdout.ino, stdout.dev as u64, id);
    if send_opened(id, key.file, FileId::default(), 0) {
        let _ = READ_SEEN.insert(&key, &program, 0);
    }
    0
}

/// A process is about to write, to a FIFO or a terminal maybe: those who can read it are unknown under the number that is returned,
/// until the write was told. 0: nobody is. A function of its own as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn writes_opened(regs: u64, tgid: u64) -> u64 {
    if !follows_opened() {
        return 0;
    }
    // No bytes, or no segments: nothing is put in.
    if read_or_zero::<u64>(regs, field(f::REGS_ARG2)) == 0 {
        return 0;
    }
    let task = current_task();
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    let file = descriptor(task, number as u32);
    if file == 0 || read_or_zero::<u32>(file, field(f::FILE_MODE)) & FMODE_WRITE == 0 {
        return 0;
    }
    let inode = follow(file, field(f::FILE_INODE));
    let target = kind_of(inode);
    if target == 0 || target == target::FILE {
        return 0;
    }
    let program = program(task);
    // By itself, and not when its name is reported: that waits for a write that the budget has room for.
    let key = ReadKey {
        file: file_id(inode),
        ctime_ns: WRITES,
        tgid: tgid as u32,
        access: access::FIFO,
    };
    if is_seen(&key, program) {
        return 0;
    }
    let owner = if target == target::TERMINAL {
        let owner = owner_of(task, inode);
        if owner == 0 {
            return 0;
        }
        owner
    } else if is_fifo(inode) {
        0
    } else {
        return 0;
    };
    let out = OutKey {
        tgid: tgid as u32,
        slot: 1 + (key.file.ino % (SLOTS as u64 - 1)) as u32,
    };
    let _ = PIPE_OUT.insert(&out, &key.file, 0);
    if owner != 0 {
        let of: u32 = read_or_zero(owner, field(f::TASK_TGID));
        let _ = PIPE_READERS.insert(&key.file, &of, 0);
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let mut id = counters.unique(counter::EXECS) | PASSED;
    if pass_on(tgid, key.file.ino, key.file.dev as u64, id) == 0 {
        id = 0;
    }
    if send_opened(0, FileId::default(), key.file, owner) {
        let _ = READ_SEEN.insert(&key, &program, 0);
    }
    id
}

/// The write after [`writes_opened`] was told. As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decide_opened(id: u64) -> u64 {
    if !follows_opened() {
        return 0;
    }
    if id != 0 {
        send_opened(id, FileId::default(), FileId::default(), 0);
    }
    0
}

/// Who has the other end of a pseudo-terminal, as far as ancestors show it: the nearest one that does not have this one among
/// its standard streams. 0 where it is nobody: of the first process of the host nobody says so.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn owner_of(task: u64, inode: u64) -> u64 {
    if !follows_opened() {
        return 0;
    }
    // Documentation/admin-guide/devices.txt: the slaves of Unix98 pseudo-terminals.
    let device: u32 = read_or_zero(inode, field(f::INODE_RDEV));
    if !matches!(device >> 20, 136..=143) {
        return 0;
    }
    let mut at = task;
    for _ in 0..ANCESTORS {
        at = follow(at, field(f::TASK_REAL_PARENT));
        if read_or_zero::<u32>(at, field(f::TASK_TGID)) <= 1 {
            return 0;
        }
        let fds = follow(table(at), field(f::FDTABLE_FD));
        let mut has = false;
        for descriptor in 0..STREAMS {
            has |= follow(follow(fds, descriptor * 8), field(f::FILE_INODE)) == inode;
        }
        if !has {
            return at;
        }
    }
    0
}
