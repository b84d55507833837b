//! Who reads what a process writes: what it holds may go on by its pipes, and by nameless pairs of sockets, which some
//! programs (node) give their children in their place.
//!
//! Each exec notes which pipes it has as standard streams. When a process meets something, or begins, those who read from
//! it are unknown until user space has decided: so nobody has to be quicker than what goes through the pipe.

use crate::{
    arch::{
        call::{EXECVE, EXECVEAT},
        number,
    },
    maps::{PIPE_OUT, PIPE_READERS, PROCS, field},
    message::AF_UNIX,
    record::{
        Counters, Wake, current_task, file_id, follow, pointer, read_or_zero, stamp, start_ns,
        user_registers, wake,
    },
};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext,
};
use keytrail_abi::{
    FileId, Kind, OutKey, PASSED, PROC_IGNORED, PROC_UNKNOWN, Pipes, ProcState, SOCKET_PAIR,
    globals::{MISSING, field as f},
    state::counter,
};

/// Pipes in a row that are followed.
const HOPS: usize = 6;
/// Pipes of one process that are followed: its standard output, and standard inputs of its children.
pub const SLOTS: u32 = 4;
/// Every table of descriptors has room for so many (NR_OPEN_DEFAULT).
const DESCRIPTORS: u32 = 64;
/// Ancestors that have executed nothing themselves.
const FORKS: usize = 3;
/// Youngest children of an ancestor that are inspected.
const CHILDREN: usize = 8;

/// include/linux/fs.h.
const FMODE_READ: u64 = 1;
const FMODE_WRITE: u64 = 2;
/// include/linux/sched.h: forked, and not executed.
pub const PF_FORKNOEXEC: u32 = 0x40;

/// The pipe that a descriptor of the task is an end of, or the way through a pair of sockets that ends here or, if it is
/// not `reads`, begins here; number 0: it is neither.
#[inline(always)]
pub fn pipe_at(fds: u64, descriptor: u32, reads: bool) -> FileId {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFIFO: u16 = 0o010_000;
    const S_IFSOCK: u16 = 0o140_000;
    let file = follow(fds, descriptor * 8);
    let inode = follow(file, field(f::FILE_INODE));
    let mode: u16 = read_or_zero(inode, field(f::INODE_MODE));
    match mode & S_IFMT {
        S_IFIFO => file_id(inode),
        S_IFSOCK => FileId {
            ino: pair_end(file, reads as u64),
            dev: SOCKET_PAIR,
            pad: 0,
        },
        _ => FileId::default(),
    }
}

/// The socket of a nameless pair that reads what comes to this one (`reads`), or what this one sends; 0 where it is no such
/// pair: what has a name is a service. Why this is a function of its own: see `payload`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pair_end(file: u64, reads: u64) -> u64 {
    let sk = follow(follow(file, field(f::FILE_PRIVATE)), field(f::SOCKET_SK));
    if read_or_zero::<u16>(sk, field(f::SOCK_FAMILY)) != AF_UNIX {
        return 0;
    }
    let peer = follow(sk, field(f::UNIX_PEER));
    if peer == 0 || follow(sk, field(f::UNIX_ADDR)) != 0 || follow(peer, field(f::UNIX_ADDR)) != 0 {
        return 0;
    }
    if reads != 0 { sk } else { peer }
}

/// The descriptors of a task.
#[inline(always)]
pub fn table(task: u64) -> u64 {
    follow(follow(task, field(f::TASK_FILES)), field(f::FILES_FDT))
}

/// Whether the task has this end of a pipe among its first descriptors. Why this is a function of its own: see `payload`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has_end(task: u64, ino: u64, mode: u64) -> u64 {
    let table = table(task);
    let open: u64 = read_or_zero(follow(table, field(f::FDTABLE_OPEN)), 0);
    let fds = follow(table, field(f::FDTABLE_FD));
    for descriptor in 0..DESCRIPTORS {
        if open >> descriptor & 1 == 0 {
            continue;
        }
        let of: u32 = read_or_zero(follow(fds, descriptor * 8), field(f::FILE_MODE));
        if of as u64 & mode != 0 && pipe_at(fds, descriptor, mode == FMODE_READ).ino == ino {
            return 1;
        }
    }
    0
}

/// A child of `parent`, other than `task`, that has executed nothing and has this end of a pipe: a shell's own command in a
/// pipeline; 0 where there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn child_with(parent: u64, task: u64, ino: u64, mode: u64) -> u64 {
    // struct list_head (include/linux/types.h): next, prev. The youngest child is the last.
    const PREV: u32 = 8;
    let (last, prev) = (field(f::TASK_CHILDREN_PREV), field(f::TASK_SIBLING_PREV));
    if last == MISSING || prev == MISSING {
        return 0;
    }
    let head = parent + (last - PREV) as u64;
    let mut node = follow(parent, last);
    for _ in 0..CHILDREN {
        if node == 0 || node == head {
            return 0;
        }
        let child = node - (prev - PREV) as u64;
        let flags: u32 = read_or_zero(child, field(f::TASK_FLAGS));
        if child != task && flags & PF_FORKNOEXEC != 0 && has_end(child, ino, mode) != 0 {
            return child;
        }
        node = follow(node, PREV);
    }
    0
}

/// The nearest ancestor that has executed something, or a fork of it on the way there or, for who reads, beside it, if it has
/// this end of a pipe; else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ancestor_with(task: u64, ino: u64, mode: u64) -> u64 {
    let mut at = task;
    for _ in 0..FORKS {
        at = follow(at, field(f::TASK_REAL_PARENT));
        if has_end(at, ino, mode) != 0 {
            return at;
        }
        // Not who may write: what is about to become a program has what its shell has, and passes on nothing of it. When it
        // writes it is reported.
        if mode == FMODE_READ {
            let child = child_with(at, task, ino, mode);
            if child != 0 {
                return child;
            }
        }
        let flags: u32 = read_or_zero(at, field(f::TASK_FLAGS));
        if flags & PF_FORKNOEXEC == 0 {
            return 0;
        }
    }
    0
}

/// Those who read what the process writes, and so on, are unknown under this number; whether there are any: a number of them
/// would be as many states to older kernels' verifiers. `ino` and `dev`
/// are its standard output, as it is now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pass_on(tgid: u64, ino: u64, dev: u64, id: u64) -> u64 {
    let mut marked = 0;
    let mut at = tgid as u32;
    for hop in 0..HOPS {
        let mut next = 0;
        for slot in 0..SLOTS {
            let mut pipe = FileId {
                ino,
                dev: dev as u32,
                pad: 0,
            };
            if hop != 0 || slot != 0 {
                let Some(known) = PIPE_OUT.get_ptr(&OutKey { tgid: at, slot }) else {
                    continue;
                };
                // SAFETY: a live map value. Field by field: a copy of the whole becomes a call of memmove.
                unsafe {
                    pipe.ino = core::ptr::read_volatile(&raw const (*known).ino);
                    pipe.dev = core::ptr::read_volatile(&raw const (*known).dev);
                }
            }
            let Some(reader) = PIPE_READERS.get_ptr(&pipe) else {
                continue;
            };
            // SAFETY: a live map value.
            let reader = unsafe { *reader };
            if reader != at && reader != tgid as u32 {
                mark(reader, id);
                marked = 1;
                next = reader;
            }
        }
        if next == 0 {
            break;
        }
        at = next;
    }
    marked
}

/// A clean process is unknown from here on; of one that is unknown already the question is a newer one.
#[inline(always)]
pub fn mark(tgid: u32, id: u64) {
    match PROCS.get_ptr_mut(&tgid) {
        None => {
            if let Some(counters) = Counters::get() {
                counters.set_process(
                    tgid,
                    ProcState {
                        state: PROC_UNKNOWN,
                        met: 0,
                        exec_id: id,
                    },
                );
            }
        }
        // SAFETY: a live map value, aligned loads and stores.
        Some(known) => unsafe {
            if (*known).state == PROC_UNKNOWN {
                (*known).exec_id = id;
            }
        },
    }
}

/// Comes before `exec` at the same place. It is a program of its own because kernels before 6.4 go over what follows a call once for each
/// way through it, and `exec` is long: together they were more than these kernels go over at all.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_pipes(ctx: RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(state) = PROCS.get_ptr(&tgid) {
        // SAFETY: a live map value.
        if unsafe { (*state).state } == PROC_IGNORED {
            return 0;
        }
    }
    if let Some(counters) = Counters::get() {
        let exec_id = counters.unique(counter::EXECS);
        counters.begin(exec_id);
        pipes_of_exec(ctx.arg(0), exec_id);
    }
    0
}

/// A program begins: notes its pipes, and whose they are beside its own.
#[inline(always)]
fn pipes_of_exec(task: u64, exec_id: u64) {
    let fds = follow(table(task), field(f::FDTABLE_FD));
    let stdin = pipe_at(fds, 0, true);
    let stdout = pipe_at(fds, 1, false);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if stdin.ino == 0 && stdout.ino == 0 {
        return;
    }
    let mut feeder = 0;
    let mut taker = 0;
    if stdin.ino != 0 {
        let _ = PIPE_READERS.insert(&stdin, &tgid, 0);
        feeder = ancestor_with(task, stdin.ino, FMODE_WRITE);
        if feeder != 0 {
            let of = OutKey {
                tgid: read_or_zero(feeder, field(f::TASK_TGID)),
                slot: 1 + (stdin.ino % (SLOTS as u64 - 1)) as u32,
            };
            let _ = PIPE_OUT.insert(&of, &stdin, 0);
        }
    }
    let mut pass_id = 0;
    if stdout.ino != 0 {
        let _ = PIPE_OUT.insert(&OutKey { tgid, slot: 0 }, &stdout, 0);
        if PIPE_READERS.get_ptr(&stdout).is_none() {
            taker = ancestor_with(task, stdout.ino, FMODE_READ);
            if taker != 0 {
                let tgid: u32 = read_or_zero(taker, field(f::TASK_TGID));
                let _ = PIPE_READERS.insert(&stdout, &tgid, 0);
            }
        }
        // What it was started with is not known yet, and may go on at once.
        let id = exec_id | PASSED;
        if pass_on(tgid as u64, stdout.ino, stdout.dev as u64, id) != 0 {
            pass_id = id;
        }
    }
    send(exec_id, pass_id, stdin, stdout, feeder, taker);
}

/// The process meets what may be secret: so do those who read from it. `id`: under which number it is decided; 0 for one
/// of their own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pipes_of_reader(id: u64) -> u64 {
    // The kernel reads a program that is about to begin: not yet it, and its exec
    // reports its pipes.
    if matches!(number(user_registers()), EXECVE | EXECVEAT) {
        return 0;
    }
    let fds = follow(table(current_task()), field(f::FDTABLE_FD));
    let stdout = pipe_at(fds, 1, false);
    let tgid = bpf_get_current_pid_tgid() >> 32;
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let mut id = id;
    if id == 0 {
        id = counters.unique(counter::EXECS);
    }
    id |= PASSED;
    let passed = pass_on(tgid, stdout.ino, stdout.dev as u64, id);
    if passed == 0 {
        id = 0;
    }
    if stdout.ino != 0 || passed != 0 {
        send(0, id, FileId::default(), stdout, 0, 0);
    }
    0
}

/// A process that never executed anything, a shell's own commands in a pipeline, ends, or writes to a pipe: its pipes were
/// made its own after the fork, unseen.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pipes_of_fork(task: u64) -> u64 {
    let flags: u32 = read_or_zero(task, field(f::TASK_FLAGS));
    if flags & PF_FORKNOEXEC == 0 {
        return 0;
    }
    let fds = follow(table(task), field(f::FDTABLE_FD));
    let stdout = pipe_at(fds, 1, false);
    if stdout.ino == 0 {
        return 0;
    }
    let stdin = pipe_at(fds, 0, true);
    let tgid = bpf_get_current_pid_tgid() >> 32;
    // Who reads it may only be about to begin. What neither has anything nor could get it by a pipe is not worth a record:
    // most command substitutions.
    if stdin.ino == 0
        && PIPE_READERS.get_ptr(&stdout).is_none()
        && PROCS.get_ptr(&(tgid as u32)).is_none()
    {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let mut id = counters.unique(counter::EXECS) | PASSED;
    if pass_on(tgid, stdout.ino, stdout.dev as u64, id) == 0 {
        id = 0;
    }
    send(0, id, stdin, stdout, 0, 0);
    0
}

#[inline(always)]
fn send(exec_id: u64, pass_id: u64, stdin: FileId, stdout: FileId, feeder: u64, taker: u64) {
    tell((exec_id, pass_id), (stdin, stdout), (feeder, taker), 0);
}

/// What a process reads from or writes to beside its standard streams, and who reads what it writes there (0: whoever tells of
/// it by himself). False when there is no room.
#[inline(always)]
pub fn send_opened(pass_id: u64, reads: FileId, writes: FileId, taker: u64) -> bool {
    tell((0, pass_id), (reads, writes), (0, taker), 1)
}

#[inline(always)]
fn tell(
    (exec_id, pass_id): (u64, u64),
    (stdin, stdout): (FileId, FileId),
    (feeder, taker): (u64, u64),
    opened: u32,
) -> bool {
    let Some(counters) = Counters::get() else {
        return false;
    };
    let Some(mut slot) = counters.reserve::<Pipes>(Kind::PIPES) else {
        return false;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot; every field is written.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).exec_id = exec_id;
        (*record).pass_id = pass_id;
        (*record).stdin = stdin;
        (*record).stdout = stdout;
        (*record).feeder_start_ns = start_ns(feeder);
        (*record).taker_start_ns = start_ns(taker);
        (*record).feeder = read_or_zero(feeder, field(f::TASK_TGID));
        (*record).taker = read_or_zero(taker, field(f::TASK_TGID));
        (*record).opened = opened;
        (*record).pad = 0;
        counters.seal(
            &raw mut (*record).header,
            Kind::PIPES,
            size_of::<Pipes>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Later));
    true
}
