//! Birth and death of processes.

use crate::{
    maps::{PROCS, TLS_CALLS, field},
    pipes::pipes_of_fork,
    record::{Counters, Wake, follow, ns_tgid, pointer, read, read_or_zero, stamp, wake},
    taking::{pending, report_completed_call},
    tmpfs::report_completed_read,
};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext,
};
use keytrail_abi::{
    Exit, Fork, Kind, PROC_IGNORED, ProcState,
    globals::{MISSING, field as f},
};

// void sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork(ctx: RawTracePointContext) -> i32 {
    trace!(&ctx, "fork of task {:x}", ctx.arg::<u64>(1));
    on_fork(ctx.arg(1));
    0
}

// void sched_process_exit(struct task_struct *p)                     up to 6.15
// void sched_process_exit(struct task_struct *p, bool group_dead)    from 6.16
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit(ctx: RawTracePointContext) -> i32 {
    // It makes no further call.
    if pending() {
        let thread = bpf_get_current_pid_tgid();
        report_completed_call(thread);
        report_completed_read(thread);
    }
    let dead = if field(f::HAS_GROUP_DEAD) == 1 {
        ctx.arg::<u64>(1) & 1
    } else {
        UNKNOWN_DEAD
    };
    thread_ends(ctx.arg(0), dead);
    0
}

/// In place of whether the last thread of a group has ended, where the tracepoint does not say.
const UNKNOWN_DEAD: u64 = 2;

/// Why this is a function of its own: before 6.13 the stacks of all that call each other share 512 bytes, and what is done
/// about the thread's last call needs most of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn thread_ends(task: u64, dead: u64) -> u64 {
    on_exit(task, (dead != UNKNOWN_DEAD).then_some(dead == 1));
    0
}

#[inline(always)]
fn on_fork(child: u64) {
    let tgid: u32 = read_or_zero(child, field(f::TASK_TGID));
    let pid: u32 = read_or_zero(child, field(f::TASK_PID));
    if pid != tgid || tgid == 0 {
        return;
    }
    let Some(counters) = Counters::get() else {
        return;
    };
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(state) = PROCS.get_ptr(&parent) {
        // SAFETY: a live map value, copied at once.
        let ProcState {
            state,
            met,
            exec_id,
        } = unsafe { *state };
        // A child of the agent is a process like any other: `trace` starts what it follows.
        if state == PROC_IGNORED {
            let _ = PROCS.remove(&tgid);
        } else {
            counters.set_process(
                tgid,
                ProcState {
                    state,
                    met,
                    exec_id,
                },
            );
        }
    } else {
        // What an earlier process of this number left behind is not the child's.
        let _ = PROCS.remove(&tgid);
    }
    let Some(mut slot) = counters.reserve::<Fork>(Kind::FORK) else {
        return;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).child_start_ns = read_or_zero(child, field(f::TASK_START_BOOTTIME));
        (*record).child_tgid = tgid;
        (*record).child_ns_tgid = ns_tgid(child);
        counters.seal(
            &raw mut (*record).header,
            Kind::FORK,
            size_of::<Fork>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Later));
}

#[inline(always)]
fn on_exit(task: u64, group_dead: Option<bool>) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    let last = match group_dead {
        Some(dead) => dead,
        // The tracepoint comes after this thread was taken off the count.
        None => match read::<u32>(follow(task, field(f::TASK_SIGNAL)), field(f::SIGNAL_LIVE)) {
            Some(live) => live == 0,
            None => field(f::SIGNAL_LIVE) == MISSING && tgid == tid,
        },
    };
    if last {
        pipes_of_fork(task);
    }
    if PROCS.get_ptr(&tgid).is_some() {
        let _ = TLS_CALLS.remove(&pid_tgid);
        if last {
            let _ = PROCS.remove(&tgid);
        }
    }
    if !last {
        return;
    }
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<Exit>(Kind::EXIT) else {
        return;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).exit_code = read_or_zero(task, field(f::TASK_EXIT_CODE));
        (*record).pad = 0;
        counters.seal(
            &raw mut (*record).header,
            Kind::EXIT,
            size_of::<Exit>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Later));
}
