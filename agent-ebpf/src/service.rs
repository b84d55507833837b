//! Programs that user space runs itself (BPF_PROG_TEST_RUN): the proof of the offsets and the wiping of the ring.

use crate::{
    maps::{PAYLOADS, RING, SELF_TEST, field},
    record::{
        Counters, Wake, ctime_ns, current_task, file_id, follow, ns_tgid, pointer, read,
        read_or_zero, stamp, start_ns, wake, zero,
    },
};
use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_current_cgroup_id, generated::bpf_get_current_comm},
    macros::raw_tracepoint,
    maps::RingBuf,
    programs::RawTracePointContext,
};
use keytrail_abi::{
    Header, Kind,
    globals::field as f,
    state::{SKIP_SLOT, WIPE_SLOT},
};

/// Never attached: run by user space, whose own task is then the current one.
#[raw_tracepoint]
pub fn self_test(_ctx: RawTracePointContext) -> i32 {
    let Some(result) = SELF_TEST.get_ptr_mut(0) else {
        return 0;
    };
    let task = current_task();
    let mm = follow(task, field(f::TASK_MM));
    let exe = follow(follow(mm, field(f::MM_EXE_FILE)), field(f::FILE_INODE));
    let cred = follow(task, field(f::TASK_CRED));
    let nsproxy = follow(task, field(f::TASK_NSPROXY));
    // SAFETY: a live map value of the type SelfTest; the helper is given the size of `comm`.
    unsafe {
        (*result).start_ns = start_ns(task);
        (*result).cgroup_id = bpf_get_current_cgroup_id();
        (*result).arg_start = read_or_zero(mm, field(f::MM_ARG_START));
        (*result).arg_end = read_or_zero(mm, field(f::MM_ARG_END));
        (*result).env_start = read_or_zero(mm, field(f::MM_ENV_START));
        (*result).env_end = read_or_zero(mm, field(f::MM_ENV_END));
        (*result).exe = file_id(exe);
        (*result).exe_size = read_or_zero(exe, field(f::INODE_SIZE));
        (*result).exe_ctime_ns = ctime_ns(exe);
        (*result).pid = read_or_zero(task, field(f::TASK_PID));
        (*result).tgid = read_or_zero(task, field(f::TASK_TGID));
        let leader = follow(task, field(f::TASK_GROUP_LEADER));
        (*result).leader_pid = read_or_zero(leader, field(f::TASK_PID));
        (*result).ns_tgid = ns_tgid(task);
        (*result).parent_tgid = read_or_zero(
            follow(task, field(f::TASK_REAL_PARENT)),
            field(f::TASK_TGID),
        );
        (*result).euid = read_or_zero(cred, field(f::CRED_EUID));
        (*result).suid = read_or_zero(cred, field(f::CRED_SUID));
        (*result).loginuid = read(task, field(f::TASK_LOGINUID)).unwrap_or(u32::MAX);
        (*result).sessionid = read(task, field(f::TASK_SESSIONID)).unwrap_or(u32::MAX);
        (*result).mnt_ns = read_or_zero(
            follow(nsproxy, field(f::NSPROXY_MNT_NS)),
            field(f::MNT_NS_INUM),
        );
        (*result).net_ns = read_or_zero(
            follow(nsproxy, field(f::NSPROXY_NET_NS)),
            field(f::NET_INUM),
        );
        (*result).live = read_or_zero(follow(task, field(f::TASK_SIGNAL)), field(f::SIGNAL_LIVE));
        bpf_get_current_comm((&raw mut (*result).comm).cast(), 16);
        (*result).ran = 1;
    }
    0
}

/// Never attached: overwrites one slot of the ring with zeros and gives it back.
///
/// What user space has consumed stays in the ring's pages until something is written over it, secrets included.
#[raw_tracepoint]
pub fn wipe_ring(_ctx: RawTracePointContext) -> i32 {
    wipe(&RING)
}

/// The same for the ring of payloads.
#[raw_tracepoint]
pub fn wipe_payloads(_ctx: RawTracePointContext) -> i32 {
    wipe(&PAYLOADS)
}

#[inline(always)]
fn wipe(ring: &'static RingBuf) -> i32 {
    let Some(mut slot) = ring.reserve::<[u8; WIPE_SLOT]>(0) else {
        return 1;
    };
    // SAFETY: the slot has WIPE_SLOT bytes.
    unsafe { zero::<WIPE_SLOT>(pointer(&mut slot).cast()) };
    slot.discard(BPF_RB_NO_WAKEUP as u64);
    0
}

/// Never attached: skips a piece of the ring in which nothing is left.
#[raw_tracepoint]
pub fn skip_ring(_ctx: RawTracePointContext) -> i32 {
    skip(&RING)
}

/// The same for the ring of payloads.
#[raw_tracepoint]
pub fn skip_payloads(_ctx: RawTracePointContext) -> i32 {
    skip(&PAYLOADS)
}

#[inline(always)]
fn skip(ring: &'static RingBuf) -> i32 {
    let Some(slot) = ring.reserve::<[u8; SKIP_SLOT]>(0) else {
        return 1;
    };
    slot.discard(BPF_RB_NO_WAKEUP as u64);
    0
}

/// Never attached: sends one record, to prove that the ring works.
#[raw_tracepoint]
pub fn canary(_ctx: RawTracePointContext) -> i32 {
    let Some(counters) = Counters::get() else {
        return 1;
    };
    let Some(mut slot) = counters.reserve::<Header>(Kind::CANARY) else {
        return 1;
    };
    let record = pointer(&mut slot);
    stamp(record);
    counters.seal(record, Kind::CANARY, size_of::<Header>() as u32, 0);
    slot.submit(wake(Wake::Now));
    0
}
