//! System calls by which a process writes to what is no socket, takes something out of another process, or reads a file in
//! memory.
//!
//! The only hook that sees them on kernels without trampolines fires at every call of the host: nearly all end at the
//! comparison of its number.

use crate::{
    maps::field,
    record::{current_task, read_or_zero},
    taking::{on_trace, pending, settle, take_by_getfd, take_by_vm_read},
    tmpfs::{on_read, read_settled},
    write::on_write,
};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext,
};
use keytrail_abi::globals::field as f;

// arch/x86/entry/syscalls/syscall_64.tbl. Those of x32 have a bit above.
pub const READ: u64 = 0;
const WRITE: u64 = 1;
pub const PREAD64: u64 = 17;
const PWRITE64: u64 = 18;
pub const READV: u64 = 19;
const WRITEV: u64 = 20;
pub const SENDFILE: u64 = 40;
const PTRACE: u64 = 101;
pub const SPLICE: u64 = 275;
pub const PREADV: u64 = 295;
const PROCESS_VM_READV: u64 = 310;
pub const COPY_FILE_RANGE: u64 = 326;
pub const PREADV2: u64 = 327;
const PIDFD_GETFD: u64 = 438;

// void sys_enter(struct pt_regs *regs, long id)
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    if pending() {
        let thread = bpf_get_current_pid_tgid();
        settle(thread);
        read_settled(thread);
    }
    let regs: u64 = ctx.arg(0);
    match ctx.arg::<u64>(1) {
        call
        @ (READ | PREAD64 | READV | SENDFILE | SPLICE | PREADV | COPY_FILE_RANGE | PREADV2) => {
            on_read(regs, call);
        }
        WRITE => on_write(regs, false, false),
        PWRITE64 => on_write(regs, false, true),
        WRITEV => on_write(regs, true, false),
        PTRACE => on_trace(regs),
        PROCESS_VM_READV => {
            take_by_vm_read(regs);
        }
        PIDFD_GETFD => {
            take_by_getfd(regs);
        }
        _ => {}
    }
    0
}

/// Is the task in a system call of 32 bits? Its numbers are those of other calls.
#[inline(always)]
pub fn is_compat() -> bool {
    // arch/x86/include/asm/thread_info.h.
    const TS_COMPAT: u32 = 2;
    read_or_zero::<u32>(current_task(), field(f::TASK_STATUS)) & TS_COMPAT != 0
}
