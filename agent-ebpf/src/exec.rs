//! Programs: who was executed, with which arguments and environment.
//!
//! At `sched_process_exec` the new argv and environment were written a moment ago and lie in the new program's
//! stack, so they are resident; reading them here means that a process which lives 5 ms is seen whole.

use crate::{
    maps::{PROCS, field},
    record::{
        Counters, Slot, Wake, blank, copy, copy_user, file_id, follow, forget, ns_tgid, pointer,
        read, read_or_zero, settle, stamp, start_ns, wake, zero,
    },
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use core::mem::MaybeUninit;
use keytrail_abi::{
    AREA_ARGV, AREA_ENV, EXEC_AREA_MAX, EXEC_CHUNK_DATA, Exec, ExecChunk, Header, Kind,
    PROC_IGNORED, PROC_UNKNOWN, ProcState, globals::field as f, header::flags, state::counter,
};

const FULL: u64 = EXEC_CHUNK_DATA as u64;
const CHUNKS_MAX: usize = EXEC_AREA_MAX / EXEC_CHUNK_DATA;

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
    let Some(counters) = Counters::get() else {
        return;
    };
    let exec_id = counters.unique(counter::EXECS);
    counters.set_process(
        tgid,
        ProcState {
            state: PROC_UNKNOWN,
            pad,
            exec_id,
        },
    );

    let mut head = MaybeUninit::<Header>::uninit();
    stamp(head.as_mut_ptr());
    blank(head.as_mut_ptr());
    let head = settle(head.as_ptr());
    let mm = follow(task, field(f::TASK_MM));
    let arg_start: u64 = read_or_zero(mm, field(f::MM_ARG_START));
    let arg_end: u64 = read_or_zero(mm, field(f::MM_ARG_END));
    let env_start: u64 = read_or_zero(mm, field(f::MM_ENV_START));
    let env_end: u64 = read_or_zero(mm, field(f::MM_ENV_END));
    let arg_len = arg_end.saturating_sub(arg_start);
    let env_len = env_end.saturating_sub(env_start);

    if let Some(mut slot) = counters.reserve::<Exec>(Kind::EXEC) {
        let record = pointer(&mut slot);
        let parent = follow(task, field(f::TASK_REAL_PARENT));
        let nsproxy = follow(task, field(f::TASK_NSPROXY));
        // SAFETY: `record` is the reserved slot; every field is written.
        unsafe {
            copy(&raw mut (*record).header, head);
            (*record).exec_id = exec_id;
            (*record).exe = file_id(follow(
                follow(mm, field(f::MM_EXE_FILE)),
                field(f::FILE_INODE),
            ));
            (*record).parent_start_ns = start_ns(parent);
            (*record).arg_len = arg_len;
            (*record).env_len = env_len;
            (*record).mnt_ns = read_or_zero(
                follow(nsproxy, field(f::NSPROXY_MNT_NS)),
                field(f::MNT_NS_INUM),
            );
            (*record).net_ns = read_or_zero(
                follow(nsproxy, field(f::NSPROXY_NET_NS)),
                field(f::NET_INUM),
            );
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
            counters.seal(
                &raw mut (*record).header,
                Kind::EXEC,
                size_of::<Exec>() as u32,
                0,
            );
        }
        slot.submit(wake(Wake::Later));
    }
    let later = wake(Wake::Later);
    Area {
        counters,
        head,
        exec_id,
        area: AREA_ARGV,
        later,
    }
    .send(arg_start, arg_len);
    Area {
        counters,
        head,
        exec_id,
        area: AREA_ENV,
        later,
    }
    .send(env_start, env_len);
}

/// What the chunks of one area have in common.
struct Area {
    counters: Counters,
    /// A header filled by `stamp`.
    head: *const Header,
    exec_id: u64,
    area: u32,
    /// Flags to submit with when user space need not hurry.
    later: u64,
}

impl Area {
    /// Sends an area in full chunks and a last one that is not.
    #[inline(always)]
    fn send(&self, start: u64, len: u64) {
        let (mut all, mut cut) = (len, 0);
        if len > EXEC_AREA_MAX as u64 {
            (all, cut) = (EXEC_AREA_MAX as u64, flags::TRUNCATED);
        }
        let mut offset: u64 = 0;
        for _ in 0..CHUNKS_MAX {
            if all - offset <= FULL {
                break;
            }
            self.emit::<EXEC_CHUNK_DATA>(start.wrapping_add(offset), offset as u32, FULL, 0, 0);
            offset = forget(offset + FULL, start);
        }
        // The environment is sent last.
        let last = if self.area == AREA_ENV { 1 } else { 0 };
        let (source, rest) = (start.wrapping_add(offset), all - offset);
        // The smallest slot that fits: the ring is shared by everything that happens on the host.
        if rest <= 256 {
            self.emit::<256>(source, offset as u32, rest, cut, last);
        } else if rest <= 1024 {
            self.emit::<1024>(source, offset as u32, rest, cut, last);
        } else if rest <= 2048 {
            self.emit::<2048>(source, offset as u32, rest, cut, last);
        } else {
            self.emit::<EXEC_CHUNK_DATA>(source, offset as u32, rest, cut, last);
        }
    }

    #[inline(always)]
    fn emit<const N: usize>(&self, source: u64, offset: u32, size: u64, bits: u16, last: u32) {
        let Some(mut slot) = self
            .counters
            .reserve::<Slot<ExecChunk, N>>(Kind::EXEC_CHUNK)
        else {
            return;
        };
        let record = pointer(&mut slot);
        // SAFETY: `record` is the reserved slot with N bytes of data; every field is written.
        unsafe {
            let data = (&raw mut (*record).data).cast::<u8>();
            zero::<N>(data);
            let failed = copy_user::<N>(data, source, size);
            // Nothing of it is there when a page of it is not.
            let kept = (size & failed.wrapping_sub(1)) as u32;
            let bits = bits | (failed as u16 * flags::UNREADABLE);
            let head = &raw mut (*record).record.header;
            copy(head, self.head);
            (*record).record.exec_id = self.exec_id;
            (*record).record.area = self.area;
            (*record).record.offset = offset;
            (*record).record.data_len = kept;
            (*record).record.last = last;
            self.counters.seal(
                head,
                Kind::EXEC_CHUNK,
                size_of::<ExecChunk>() as u32 + kept,
                bits,
            );
        }
        slot.submit(if last == 1 {
            wake(Wake::Now)
        } else {
            self.later
        });
    }
}
