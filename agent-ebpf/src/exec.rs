//! Programs: who was executed, with which arguments and environment.
//!
//! At `sched_process_exec` the new argv and environment were written a moment ago and lie in the new program's
//! stack, so they are resident; reading them here means that a process which lives 5 ms is seen whole.

use crate::{
    maps::{PROCS, field},
    record::{
        Slot, Wake, copy_user, file_id, follow, ns_tgid, pointer, read, read_or_zero, reserve, seal,
        set_process, stamp, start_ns, unique, wake, zero,
    },
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use keytrail_abi::{
    AREA_ARGV, AREA_ENV, EXEC_AREA_MAX, EXEC_CHUNK_DATA, Exec, ExecChunk, Header, Kind, PROC_IGNORED,
    PROC_UNKNOWN, ProcState,
    globals::field as f,
    header::flags,
    state::counter,
};

const PAGE: u64 = EXEC_CHUNK_DATA as u64;
/// An area that does not begin on a page touches one page more.
const CHUNKS_MAX: u32 = (EXEC_AREA_MAX / EXEC_CHUNK_DATA) as u32 + 1;

// void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    on_exec(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2));
    0
}

#[inline(always)]
fn on_exec(task: u64, old_tid: u32, bprm: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let mut pad = 0;
    if let Some(state) = PROCS.get_ptr(&tgid) {
        // SAFETY: a live map value.
        let known = unsafe { *state };
        if known.state == PROC_IGNORED {
            return;
        }
        pad = known.pad;
    }
    let exec_id = unique(counter::EXECS);
    set_process(tgid, ProcState { state: PROC_UNKNOWN, pad, exec_id });

    let mut head = Header::default();
    stamp(&mut head);
    let mm = follow(task, field(f::TASK_MM));
    let arg_start: u64 = read_or_zero(mm, field(f::MM_ARG_START));
    let arg_end: u64 = read_or_zero(mm, field(f::MM_ARG_END));
    let env_start: u64 = read_or_zero(mm, field(f::MM_ENV_START));
    let env_end: u64 = read_or_zero(mm, field(f::MM_ENV_END));
    let arg_len = arg_end.saturating_sub(arg_start);
    let env_len = env_end.saturating_sub(env_start);

    if let Some(mut slot) = reserve::<Exec>(Kind::EXEC) {
        let record = pointer(&mut slot);
        let parent = follow(task, field(f::TASK_REAL_PARENT));
        let nsproxy = follow(task, field(f::TASK_NSPROXY));
        // SAFETY: `record` is the reserved slot; every field is written.
        unsafe {
            (*record).header = head;
            (*record).exec_id = exec_id;
            (*record).exe = file_id(follow(follow(mm, field(f::MM_EXE_FILE)), field(f::FILE_INODE)));
            (*record).parent_start_ns = start_ns(parent);
            (*record).arg_len = arg_len;
            (*record).env_len = env_len;
            (*record).mnt_ns =
                read_or_zero(follow(nsproxy, field(f::NSPROXY_MNT_NS)), field(f::MNT_NS_INUM));
            (*record).net_ns =
                read_or_zero(follow(nsproxy, field(f::NSPROXY_NET_NS)), field(f::NET_INUM));
            (*record).parent_tgid = read_or_zero(parent, field(f::TASK_TGID));
            (*record).old_tid = old_tid;
            (*record).ns_tgid = ns_tgid(task);
            (*record).argc = read(bprm, field(f::BPRM_ARGC)).unwrap_or(u32::MAX);
            (*record).envc = read(bprm, field(f::BPRM_ENVC)).unwrap_or(u32::MAX);
            (*record).suid = read_or_zero(follow(task, field(f::TASK_CRED)), field(f::CRED_SUID));
            (*record).loginuid = read(task, field(f::TASK_LOGINUID)).unwrap_or(u32::MAX);
            (*record).sessionid = read(task, field(f::TASK_SESSIONID)).unwrap_or(u32::MAX);
            let secure: u8 = read_or_zero(bprm, field(f::BPRM_SECUREEXEC));
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
            seal(&raw mut (*record).header, Kind::EXEC, size_of::<Exec>() as u32, 0);
        }
        slot.submit(wake(Wake::Later));
    }
    area(&head, exec_id, AREA_ARGV, arg_start, arg_len);
    area(&head, exec_id, AREA_ENV, env_start, env_len);
}

/// What the chunks of one area have in common.
struct Area<'a> {
    head: &'a Header,
    exec_id: u64,
    area: u32,
    /// More was there than is captured.
    cut: bool,
}

/// Sends one area page by page: a page that is not resident costs that page only.
#[inline(always)]
fn area(head: &Header, exec_id: u64, area: u32, start: u64, len: u64) {
    let all = if len > EXEC_AREA_MAX as u64 { EXEC_AREA_MAX as u64 } else { len };
    let area = Area { head, exec_id, area, cut: len > all };
    let mut offset: u64 = 0;
    for _ in 0..CHUNKS_MAX {
        let source = start.wrapping_add(offset);
        let to_page_end = PAGE - (source & (PAGE - 1));
        let left = all - offset;
        let size = if left < to_page_end { left } else { to_page_end };
        let done = size == left;
        chunk(&area, source, offset as u32, size as u32, done);
        if done {
            break;
        }
        offset += size;
    }
}

/// Picks the smallest slot: the ring is shared by everything that happens on the host.
#[inline(always)]
fn chunk(area: &Area, source: u64, offset: u32, size: u32, done: bool) {
    if size <= 256 {
        emit::<256>(area, source, offset, size, done);
    } else if size <= 1024 {
        emit::<1024>(area, source, offset, size, done);
    } else if size <= 2048 {
        emit::<2048>(area, source, offset, size, done);
    } else {
        emit::<EXEC_CHUNK_DATA>(area, source, offset, size, done);
    }
}

#[inline(always)]
fn emit<const N: usize>(area: &Area, source: u64, offset: u32, size: u32, done: bool) {
    let Some(mut slot) = reserve::<Slot<ExecChunk, N>>(Kind::EXEC_CHUNK) else {
        return;
    };
    let record = pointer(&mut slot);
    // The environment is sent last.
    let last = done && area.area == AREA_ENV;
    let mut bits = if done && area.cut { flags::TRUNCATED } else { 0 };
    // SAFETY: `record` is the reserved slot with N bytes of data; every field is written.
    unsafe {
        let data = (&raw mut (*record).data).cast::<u8>();
        zero::<N>(data);
        let mut kept = size;
        if size != 0 && !copy_user::<N>(data, source, size) {
            bits |= flags::UNREADABLE;
            kept = 0;
        }
        let head = &raw mut (*record).record.header;
        *head = *area.head;
        (*record).record.exec_id = area.exec_id;
        (*record).record.area = area.area;
        (*record).record.offset = offset;
        (*record).record.data_len = kept;
        (*record).record.last = last as u32;
        seal(head, Kind::EXEC_CHUNK, size_of::<ExecChunk>() as u32 + kept, bits);
    }
    slot.submit(wake(if last { Wake::Now } else { Wake::Later }));
}

