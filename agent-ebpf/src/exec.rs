//! Programs: who was executed, with which arguments and environment.
//!
//! At `sched_process_exec` the new argv and environment were written a moment ago and lie in the new program's
//! stack, so they are resident; reading them here means that a process which lives 5 ms is seen whole.

use crate::{
    maps::{EXECS, ExecState, PROCS, exec_state, field},
    record::{
        Counters, Slot, Wake, copy, copy_user, ctime_ns, file_id, follow, ns_tgid, pointer, read,
        read_or_zero, stamp, start_ns, wake, zero,
    },
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use keytrail_abi::{
    AREA_ARGV, AREA_ENV, EXEC_AREA_MAX, EXEC_CHUNK_DATA, Exec, ExecChunk, Kind, PROC_IGNORED,
    PROC_UNKNOWN, PathId, ProcState, cgroup_mix,
    globals::{MISSING, field as f},
    header::flags,
};

/// Steps of one area: full chunks and a last one.
const STEPS: usize = EXEC_AREA_MAX / EXEC_CHUNK_DATA + 1;

// void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    trace!(&ctx, "exec by thread {}", ctx.arg::<u64>(1) as u32);
    on_exec(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2));
    0
}

#[inline(always)]
fn on_exec(task: u64, old_tid: u32, bprm: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let mut met = 0;
    if let Some(state) = PROCS.get_ptr(&tgid) {
        // SAFETY: a live map value.
        let known = unsafe { *state };
        if known.state == PROC_IGNORED {
            return;
        }
        met = known.met;
    }
    let Some(counters) = Counters::get() else {
        return;
    };
    let exec_id = counters.begun();
    counters.set_process(
        tgid,
        ProcState {
            state: PROC_UNKNOWN,
            met,
            exec_id,
        },
    );

    let Some(state) = exec_state(tgid as u64) else {
        counters.lost(Kind::EXEC);
        return;
    };
    // SAFETY: a live map value; this thread is the only one of its process.
    let head = unsafe { &raw mut (*state).record.header };
    stamp(head);
    let mm = follow(task, field(f::TASK_MM));
    let areas = areas_of(mm);
    if let Some(mut slot) = counters.reserve::<Exec>(Kind::EXEC) {
        let record = pointer(&mut slot);
        // SAFETY: `record` is the reserved slot; every field is written, here and in the parts.
        unsafe {
            copy(&raw mut (*record).header, head);
            (*record).exec_id = exec_id;
            (*record).old_tid = old_tid;
            (*record).arg_len = areas.arg_len;
            (*record).env_len = areas.env_len;
            (*record).pad = 0;
            fill_places(record, task, mm);
            fill_process(record, task);
            fill_program(record, bprm);
            counters.seal(
                &raw mut (*record).header,
                Kind::EXEC,
                size_of::<Exec>() as u32,
                0,
            );
        }
        slot.submit(wake(Wake::Later));
    }
    send_areas(tgid, state, exec_id, &areas);
}

/// Where arguments and environment lie.
struct Areas {
    arg_start: u64,
    arg_len: u64,
    env_start: u64,
    env_len: u64,
}

#[inline(always)]
fn areas_of(mm: u64) -> Areas {
    let arg_start: u64 = read_or_zero(mm, field(f::MM_ARG_START));
    let arg_end: u64 = read_or_zero(mm, field(f::MM_ARG_END));
    let env_start: u64 = read_or_zero(mm, field(f::MM_ENV_START));
    let env_end: u64 = read_or_zero(mm, field(f::MM_ENV_END));
    Areas {
        arg_start,
        arg_len: arg_end.saturating_sub(arg_start),
        env_start,
        env_len: env_end.saturating_sub(env_start),
    }
}

/// Its executable, its working directory, its cgroups and namespaces.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn fill_places(record: *mut Exec, task: u64, mm: u64) {
    let nsproxy = follow(task, field(f::TASK_NSPROXY));
    let exe = follow(mm, field(f::MM_EXE_FILE));
    let inode = follow(exe, field(f::FILE_INODE));
    let fs = follow(task, field(f::TASK_FS));
    let cwd = follow(fs, field(f::FS_PWD_DENTRY));
    // SAFETY: the caller's.
    unsafe {
        (*record).exe = path_id(
            follow(exe, field(f::FILE_MNT)),
            follow(exe, field(f::FILE_DENTRY)),
            inode,
        );
        (*record).exe_ctime_ns = ctime_ns(inode);
        (*record).upper_layer = in_upper_layer(inode);
        (*record).cwd = path_id(
            follow(fs, field(f::FS_PWD_MNT)),
            cwd,
            follow(cwd, field(f::DENTRY_INODE)),
        );
        (*record).cgroups = cgroups(task);
        (*record).mnt_ns = read_or_zero(
            follow(nsproxy, field(f::NSPROXY_MNT_NS)),
            field(f::MNT_NS_INUM),
        );
        (*record).net_ns = read_or_zero(
            follow(nsproxy, field(f::NSPROXY_NET_NS)),
            field(f::NET_INUM),
        );
    }
}

/// Its parent, and who it is for the kernel and for who logged in.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn fill_process(record: *mut Exec, task: u64) {
    let parent = follow(task, field(f::TASK_REAL_PARENT));
    // SAFETY: the caller's.
    unsafe {
        (*record).parent_start_ns = start_ns(parent);
        (*record).parent_tgid = read_or_zero(parent, field(f::TASK_TGID));
        (*record).ns_tgid = ns_tgid(task);
        (*record).suid = read_or_zero(follow(task, field(f::TASK_CRED)), field(f::CRED_SUID));
        (*record).loginuid = read(task, field(f::TASK_LOGINUID)).unwrap_or(u32::MAX);
        (*record).sessionid = read(task, field(f::TASK_SESSIONID)).unwrap_or(u32::MAX);
    }
}

/// What execve was asked for.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn fill_program(record: *mut Exec, bprm: u64) {
    let secure: u8 = read_or_zero(bprm, field(f::BPRM_SECUREEXEC));
    // SAFETY: the caller's; the helper checks the address of the name.
    unsafe {
        (*record).argc = read(bprm, field(f::BPRM_ARGC)).unwrap_or(u32::MAX);
        (*record).envc = read(bprm, field(f::BPRM_ENVC)).unwrap_or(u32::MAX);
        (*record).secureexec = (secure >> (field(f::BPRM_SECUREEXEC_BIT) & 7) & 1) as u32;
        let name = (&raw mut (*record).filename).cast::<u8>();
        zero::<256>(name);
        let written = bpf_probe_read_kernel_str(
            name.cast(),
            256,
            follow(bprm, field(f::BPRM_FILENAME)) as *const _,
        );
        // The helper counts the terminating NUL.
        (*record).filename_len = if written > 0 { written as u32 - 1 } else { 0 };
    }
}

/// Sends what the areas hold, in chunks.
#[inline(always)]
fn send_areas(tgid: u32, state: *mut ExecState, exec_id: u64, areas: &Areas) {
    for (area, start, len) in [
        (AREA_ARGV, areas.arg_start, areas.arg_len),
        (AREA_ENV, areas.env_start, areas.env_len),
    ] {
        let cut = len.saturating_sub(EXEC_AREA_MAX as u64);
        // SAFETY: a live map value; this thread is the only one of its process.
        unsafe {
            (*state).at = start;
            (*state).left = len - cut;
            (*state).cut = cut;
            (*state).record.exec_id = exec_id;
            (*state).record.area = area;
            (*state).record.offset = 0;
        }
        for _ in 0..STEPS {
            if exec_step(tgid as u64) == 0 {
                break;
            }
        }
    }
}

/// The odd multiplier of Fibonacci hashing (2^64 by the golden ratio) spreads addresses that are much alike.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hierarchies of cgroups beyond which their hash is not made: there are about a dozen controllers.
const HIERARCHIES: usize = 20;

/// What tells a task's cgroups from others.
#[inline(always)]
fn cgroups(task: u64) -> u64 {
    if field(f::LINK_NODE) == MISSING || field(f::CSET_LINKS) == MISSING {
        return 0;
    }
    let set = follow(task, field(f::TASK_CGROUPS));
    if set == 0 {
        return 0;
    }
    let end = set + field(f::CSET_LINKS) as u64;
    let mut at = follow(end, 0);
    let mut sum = 0u64;
    for _ in 0..HIERARCHIES {
        if at == 0 || at == end {
            break;
        }
        let link = at - field(f::LINK_NODE) as u64;
        let Some(id) = read::<u64>(
            follow(follow(link, field(f::LINK_CGROUP)), field(f::CGROUP_KN)),
            field(f::KN_ID),
        ) else {
            return 0;
        };
        sum = sum.wrapping_add(cgroup_mix(id));
        at = follow(at, 0);
    }
    if at == end { sum } else { 0 }
}

/// Directories whose names tell a path from another; what lies above them counts by its address.
const PATH_DEPTH: usize = 8;

#[inline(always)]
fn path_id(mount: u64, dentry: u64, inode: u64) -> PathId {
    let file = file_id(inode);
    if mount == 0 || dentry == 0 || field(f::DENTRY_HASH_LEN) == MISSING {
        return PathId { names: 0, file };
    }
    let mut names = mount.wrapping_mul(SPREAD);
    let mut at = dentry;
    for _ in 0..PATH_DEPTH {
        let up = follow(at, field(f::DENTRY_PARENT));
        // The root of a file system is its own parent.
        if up == 0 || up == at {
            break;
        }
        let name: u64 = read_or_zero(at, field(f::DENTRY_HASH_LEN));
        names = (names.rotate_left(5) ^ name).wrapping_mul(SPREAD);
        at = up;
    }
    PathId {
        names: (names ^ at).wrapping_mul(SPREAD),
        file,
    }
}

/// Sends the next chunk of the area that `EXECS` has for the process; 0 when it was the last. Why this is a function
/// of its own: see `payload`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exec_step(tgid: u64) -> u64 {
    let Some(state) = EXECS.get_ptr_mut(&tgid) else {
        return 0;
    };
    // SAFETY: a live map value.
    let left = unsafe { (*state).left };
    // The smallest slot that fits: the ring is shared by everything that happens on the host.
    if left <= 256 {
        emit::<256>(state, left);
    } else if left <= 1024 {
        emit::<1024>(state, left);
    } else if left <= 2048 {
        emit::<2048>(state, left);
    } else if left <= EXEC_CHUNK_DATA as u64 {
        emit::<EXEC_CHUNK_DATA>(state, left);
    } else {
        emit::<EXEC_CHUNK_DATA>(state, EXEC_CHUNK_DATA as u64);
        // SAFETY: a live map value.
        unsafe {
            (*state).at += EXEC_CHUNK_DATA as u64;
            (*state).left = left - EXEC_CHUNK_DATA as u64;
            (*state).record.offset += EXEC_CHUNK_DATA as u32;
        }
        return 1;
    }
    0
}

#[inline(always)]
fn emit<const N: usize>(state: *mut ExecState, size: u64) {
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<Slot<ExecChunk, N>>(Kind::EXEC_CHUNK) else {
        return;
    };
    let record = pointer(&mut slot);
    let mut bits = 0;
    let mut kept = size as u32;
    let last;
    // SAFETY: `record` is the reserved slot with N bytes of data, `state` a live map value; every field is written.
    unsafe {
        let data = (&raw mut (*record).data).cast::<u8>();
        zero::<N>(data);
        if size != 0 && !copy_user::<N>(data, (*state).at, size) {
            // Nothing of it is there when a page of it is not.
            bits |= flags::UNREADABLE;
            kept = 0;
        }
        let done = (*state).left == size;
        if done && (*state).cut != 0 {
            bits |= flags::TRUNCATED;
        }
        copy(&raw mut (*record).record, &raw const (*state).record);
        (*record).record.data_len = kept;
        // The environment is sent last.
        last = done && (*state).record.area == AREA_ENV;
        (*record).record.last = last as u32;
        let head = &raw mut (*record).record.header;
        counters.seal(
            head,
            Kind::EXEC_CHUNK,
            size_of::<ExecChunk>() as u32 + kept,
            bits,
        );
    }
    slot.submit(wake(if last { Wake::Now } else { Wake::Later }));
}

/// 1: the inode is of an overlay, and the file is its upper layer's own or a copy there.
#[inline(always)]
fn in_upper_layer(inode: u64) -> u32 {
    // include/uapi/linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    (magic == OVERLAYFS && follow(inode, field(f::INODE_END)) != 0) as u32
}
