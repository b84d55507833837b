//! System calls by which a process writes to what is no socket, or takes something out of another process.
//!
//! The only hook that sees them on kernels without trampolines fires at every call of the host: nearly all end at the
//! comparison of its number.

use crate::{
    maps::field,
    record::{
        Load as _, Typed, current_task, follow, interesting, peek, plain_argument, read_or_zero,
    },
    taking::{on_trace, pending, settle, take_by_getfd, take_by_vm_read},
    write::on_write,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use keytrail_abi::globals::field as f;

// arch/x86/entry/syscalls/syscall_64.tbl. Those of x32 have a bit above.
const WRITE: u64 = 1;
const PWRITE64: u64 = 18;
const WRITEV: u64 = 20;
const PTRACE: u64 = 101;
const PROCESS_VM_READV: u64 = 310;
const PIDFD_GETFD: u64 = 438;

// void sys_enter(struct pt_regs *regs, long id)
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    if pending() {
        settle(bpf_get_current_pid_tgid());
    }
    dispatch(ctx.arg(0), ctx.arg(1));
    0
}

// The same, where the kernel knows the types of the arguments: what goes to a socket, which is most of what servers
// write, is told from the rest with few calls.
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter_typed(ctx: BtfTracePointContext) -> i32 {
    if pending() {
        settle(bpf_get_current_pid_tgid());
    }
    let number: u64 = ctx.arg(1);
    match number {
        WRITE | WRITEV if goes_to_socket(ctx.arg(0)) => {}
        WRITE | WRITEV | PWRITE64 | PTRACE | PROCESS_VM_READV | PIDFD_GETFD => {
            dispatch(plain_argument(ctx.as_ptr(), 0), number);
        }
        _ => {}
    }
    0
}

#[inline(always)]
fn dispatch(regs: u64, number: u64) {
    match number {
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
}

/// Is what the first argument names a socket, or nobody's business? `regs` are typed.
#[inline(always)]
fn goes_to_socket(regs: u64) -> bool {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    if interesting((bpf_get_current_pid_tgid() >> 32) as u32).is_none() {
        return true;
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let files = Typed::load(task, field(f::TASK_FILES));
    let table = Typed::load(files, field(f::FILES_FDT));
    let number: u64 = Typed::load(regs, field(f::REGS_ARG0));
    if number as u32 >= Typed::load(table, field(f::FDTABLE_MAX)) {
        return true;
    }
    let entries: u64 = Typed::load(table, field(f::FDTABLE_FD));
    let file: u64 = peek(entries + (number as u32) as u64 * 8);
    let mode: u16 = read_or_zero(follow(file, field(f::FILE_INODE)), field(f::INODE_MODE));
    mode & S_IFMT == S_IFSOCK
}

/// Is the task in a system call of 32 bits? Its numbers are those of other calls.
#[inline(always)]
pub fn is_compat() -> bool {
    // arch/x86/include/asm/thread_info.h.
    const TS_COMPAT: u32 = 2;
    read_or_zero::<u32>(current_task(), field(f::TASK_STATUS)) & TS_COMPAT != 0
}
