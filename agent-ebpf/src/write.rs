//! What holders write to files, pipes and terminals: seen when they ask for it.

use crate::{
    arch::is_compat,
    budget::{Charge, granted_write},
    discover::made_up,
    maps::{PATHS, PAYLOADS, TARGETS, WRITES, field},
    opened::{decide_opened, follows_opened, writes_opened},
    payload::{Carrier, Progress, step},
    pipes::{PF_FORKNOEXEC, pipes_of_fork},
    record::{
        Counters, Wake, at_most, current_task, descriptor, file_id, follow, interesting, peek,
        program, read_or_zero, segments, stamp, unclassified, wake, zero,
    },
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns,
    generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
};
use keytrail_abi::{
    FdTarget, FdWrite, FileId, Kind, TARGET_DEPTH, TARGET_NAME, WRITE_MAX, WRITE_SEGMENTS,
    globals::{MISSING, field as f},
    records::target,
    state::counter,
};

/// include/uapi/linux/magic.h.
pub const PIPEFS: u64 = 0x5049_5045;
const ANON_INODE_FS: u64 = 0x0904_1934;
/// include/linux/fs.h.
pub const FMODE_WRITE: u32 = 2;

/// Steps of a write that is captured: its segments, after a failed read its pages, and the failure.
const STEPS: usize = WRITE_SEGMENTS + WRITE_MAX / 4096 + 2;
/// Steps to the root of a mount namespace: names, and mounts on the way.
const PATH_STEPS: usize = TARGET_DEPTH + 8;

/// A write, how far it is captured, and what its records have in common.
#[repr(C)]
pub struct WriteState {
    pub progress: Progress,
    pub record: FdWrite,
}

/// A path that is being spelt out, from its end on.
#[repr(C)]
pub struct PathState {
    pub mount: u64,
    pub dentry: u64,
    pub record: FdTarget,
}

/// Key of the `TARGETS` map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TargetKey {
    pub file: FileId,
    pub tgid: u32,
    /// `inode->i_generation`: a number that is used again is another file.
    pub generation: u32,
}

impl Carrier for FdWrite {
    const KIND: u16 = Kind::FD_WRITE;
    #[inline(always)]
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*this).offset = offset;
            (*this).data_len = data_len;
        }
    }
}

/// write(fd, buffer, length), pwrite64(fd, buffer, length, position), writev(fd, segments, count).
#[inline(always)]
pub fn on_write(regs: u64, vector: bool, positioned: bool) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(state) = interesting(tgid) else {
        return;
    };
    if is_compat() {
        return;
    }
    let mut passed = 0;
    if follows_opened() {
        passed = writes_opened(regs, tgid as u64);
    }
    capture_write(
        regs,
        (vector as u64) << 1 | positioned as u64,
        tgid as u64,
        state as u64,
    );
    // What is in it is known from here on, and so who may have it.
    if follows_opened() {
        decide_opened(passed);
    }
}

/// Why this is a function of its own: see `payload`. `how`: 1 at a position, 2 in segments. Its result says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_write(regs: u64, how: u64, tgid: u64, state: u64) -> u64 {
    capture(regs, how, tgid as u32, state as u32);
    0
}

#[inline(always)]
fn capture(regs: u64, how: u64, tgid: u32, state: u32) {
    let task = current_task();
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    let file = descriptor(task, number as u32);
    if file == 0 || read_or_zero::<u32>(file, field(f::FILE_MODE)) & FMODE_WRITE == 0 {
        return;
    }
    let inode = follow(file, field(f::FILE_INODE));
    let target = kind_of(inode);
    if target == 0 {
        return;
    }
    // Who has executed something reported its pipes then.
    if target == target::PIPE
        && read_or_zero::<u32>(task, field(f::TASK_FLAGS)) & PF_FORKNOEXEC != 0
        && begins_pipe(inode, tgid as u64) != 0
    {
        pipes_of_fork(task);
    }
    let at: u64 = read_or_zero(regs, field(f::REGS_ARG1));
    let length: u64 = read_or_zero(regs, field(f::REGS_ARG2));
    let vector = how & 2 != 0;
    let (total, cut) = if vector {
        sum_of_segments(at, length)
    } else {
        (length, false)
    };
    if total == 0 {
        return;
    }
    let Some(state_of_write) = WRITES.get_ptr_mut(0) else {
        return;
    };
    let mut limit = total;
    if limit > WRITE_MAX as u64 {
        limit = WRITE_MAX as u64;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let charge = Charge {
        tgid,
        state,
        kind: Kind::FD_WRITE,
        bytes: limit,
        now,
    };
    let Some(holes) = granted_write(charge) else {
        return;
    };
    let id = file_id(inode);
    report_target(file, tgid as u64, target as u64);
    // SAFETY: a live map value of this CPU; every field is written.
    unsafe {
        let mut progress = Progress::new(at, length, total + cut as u64);
        if vector {
            progress.left = 0;
        }
        progress.limit = limit;
        progress.bits = unclassified(state) as u32;
        (*state_of_write).progress = progress;
        let record = &raw mut (*state_of_write).record;
        stamp(&raw mut (*record).header);
        (*record).file = id;
        (*record).total = total;
        (*record).holes = holes;
        (*record).offset = 0;
        (*record).data_len = 0;
        (*record).target = target;
        (*record).positioned = (how & 1) as u32;
    }
    write_pieces(at, if vector { length } else { 0 });
}

/// Captures the pieces of the write this CPU is at: of `count` segments at `vector`, or of the one it has. A function of
/// its own as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_pieces(vector: u64, count: u64) -> u64 {
    let Some(state) = WRITES.get_ptr_mut(0) else {
        return 0;
    };
    let mut next = 0;
    for _ in 0..STEPS {
        // SAFETY: a live map value of this CPU.
        if unsafe { (*state).progress.left } == 0 {
            if next >= count || next >= WRITE_SEGMENTS as u64 {
                return 0;
            }
            // The helper zeroes a segment that it cannot read.
            let mut segment = [0u64; 2];
            // SAFETY: as above; the helper checks the address.
            unsafe {
                bpf_probe_read_user(
                    (&raw mut segment).cast(),
                    16,
                    (vector + next * 16) as *const _,
                );
                (*state).progress.at = segment[0];
                (*state).progress.left = segment[1];
            }
            next += 1;
        } else if write_step() == 0 {
            return 0;
        }
    }
    // More segments and pages than there are steps: what they hold was not seen.
    if let Some(counters) = Counters::get() {
        counters.lost(Kind::FD_WRITE);
    }
    0
}

/// One step of the write this CPU captures; 0 when nothing is left to do. Why this is a function of its own: see `payload`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_step() -> u64 {
    let Some(state) = WRITES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a live map value of this CPU.
    unsafe { step(&mut (*state).progress, &raw const (*state).record) }
}

/// Bytes of the segments that are followed, and whether there are more.
#[inline(always)]
fn sum_of_segments(vector: u64, count: u64) -> (u64, bool) {
    let total = segments(vector, count)
        .iter()
        .fold(0u64, |sum, segment| sum.wrapping_add(segment[1]));
    (total, count > WRITE_SEGMENTS as u64)
}

/// One of `target`; 0 for what is none of them.
#[inline(always)]
pub fn kind_of(inode: u64) -> u32 {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFIFO: u16 = 0o010_000;
    const S_IFCHR: u16 = 0o020_000;
    const S_IFREG: u16 = 0o100_000;
    let mode: u16 = read_or_zero(inode, field(f::INODE_MODE));
    match mode & S_IFMT {
        S_IFIFO => target::PIPE,
        S_IFCHR if is_terminal(read_or_zero(inode, field(f::INODE_RDEV))) => target::TERMINAL,
        S_IFREG => {
            let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
            // Counters and timers count as files on some kernels.
            if made_up(magic) || magic == ANON_INODE_FS {
                0
            } else {
                target::FILE
            }
        }
        _ => 0,
    }
}

/// Documentation/admin-guide/devices.txt. Not the master of a pseudo-terminal: what goes in there is typed, not shown.
#[inline(always)]
fn is_terminal(device: u32) -> bool {
    const PTMX: u32 = 5 << 20 | 2;
    device != PTMX && matches!(device >> 20, 4 | 5 | 136..=143 | 166 | 188 | 204 | 229)
}

#[inline(always)]
fn is_nameless(inode: u64) -> bool {
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    magic == PIPEFS
}

#[inline(always)]
fn key_of(inode: u64, tgid: u32) -> TargetKey {
    TargetKey {
        file: file_id(inode),
        tgid,
        generation: read_or_zero(inode, field(f::INODE_GENERATION)),
    }
}

#[inline(always)]
fn is_reported(key: &TargetKey, program: u64) -> bool {
    TARGETS.get_ptr(key).is_some_and(|reported| {
        // SAFETY: a live map value.
        unsafe { *reported == program }
    })
}

/// Whether this is the first write of the program to a nameless pipe; it is not from here on. A function of its own as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begins_pipe(inode: u64, tgid: u64) -> u64 {
    if !is_nameless(inode) {
        return 0;
    }
    let key = key_of(inode, tgid as u32);
    let program = program(current_task());
    if is_reported(&key, program) {
        return 0;
    }
    let _ = TARGETS.insert(&key, &program, 0);
    1
}

/// Tells the path of what is written to, once a program. A function of its own as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_target(file: u64, tgid: u64, target: u64) -> u64 {
    report(file, tgid as u32, target as u32);
    0
}

#[inline(always)]
fn report(file: u64, tgid: u32, target: u32) {
    let inode = follow(file, field(f::FILE_INODE));
    if target == target::PIPE && is_nameless(inode) {
        return;
    }
    let key = key_of(inode, tgid);
    let program = program(current_task());
    if is_reported(&key, program) {
        return;
    }
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(state) = PATHS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a live map value of this CPU; every field of the record is written.
    let reported = unsafe {
        (*state).mount = follow(file, field(f::FILE_MNT));
        (*state).dentry = follow(file, field(f::FILE_DENTRY));
        let record = &raw mut (*state).record;
        stamp(&raw mut (*record).header);
        (*record).file = key.file;
        (*record).target = target;
        (*record).depth = 0;
        zero::<{ TARGET_NAME * TARGET_DEPTH }>((&raw mut (*record).names).cast());
        for _ in 0..PATH_STEPS {
            if path_step() == 0 {
                break;
            }
        }
        counters.seal(
            &raw mut (*record).header,
            Kind::FD_TARGET,
            size_of::<FdTarget>() as u32,
            0,
        );
        PAYLOADS.output::<FdTarget>(&*record, wake(Wake::Later))
    };
    // Only what was reported counts as reported.
    match reported {
        Ok(()) => {
            let _ = TARGETS.insert(&key, &program, 0);
        }
        Err(_) => counters.add(counter::LOST + Kind::FD_TARGET as usize),
    }
}

/// One step on the way to the root of the mount namespace, a name or out of a mount (fs/d_path.c: `__prepend_path`); 0 at
/// its end. A function of its own as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_step() -> u64 {
    if field(f::DENTRY_PARENT) == MISSING
        || field(f::DENTRY_NAME) == MISSING
        || field(f::VFSMOUNT_ROOT) == MISSING
        || field(f::MOUNT_MNT) == MISSING
        || field(f::MOUNT_PARENT) == MISSING
        || field(f::MOUNT_MOUNTPOINT) == MISSING
    {
        return 0;
    }
    let Some(state) = PATHS.get_ptr_mut(0) else {
        return 0;
    };
    let offset = |place: usize| field(place) as u64;
    // SAFETY: a live map value of this CPU.
    let (at, mount, depth) = unsafe { ((*state).dentry, (*state).mount, (*state).record.depth) };
    if at == 0 || mount == 0 || depth >= TARGET_DEPTH as u32 {
        return 0;
    }
    let up: u64 = peek(at + offset(f::DENTRY_PARENT));
    let root: u64 = peek(mount + offset(f::VFSMOUNT_ROOT));
    if at == up || at == root {
        let outer = mount - offset(f::MOUNT_MNT);
        let parent: u64 = peek(outer + offset(f::MOUNT_PARENT));
        if parent == 0 || parent == outer {
            return 0;
        }
        // SAFETY: as above.
        unsafe {
            (*state).dentry = peek(outer + offset(f::MOUNT_MOUNTPOINT));
            (*state).mount = parent + offset(f::MOUNT_MNT);
        }
        return 1;
    }
    let name: u64 = peek(at + offset(f::DENTRY_NAME));
    let place = at_most::<{ TARGET_DEPTH - 1 }>(depth as u64) as usize * TARGET_NAME;
    // SAFETY: as above; `place` is that of one of the names, and the helper checks the source.
    unsafe {
        bpf_probe_read_kernel_str(
            (&raw mut (*state).record.names)
                .cast::<u8>()
                .add(place)
                .cast(),
            TARGET_NAME as u32,
            name as *const _,
        );
        (*state).record.depth = depth + 1;
        (*state).dentry = up;
    }
    1
}
