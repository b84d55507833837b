//! System calls by which a process writes to what is no socket, takes something out of another process, or reads a file in
//! memory.
//!
//! The only hook that sees them on kernels without trampolines fires at every call of the host: nearly all end at the
//! comparison of its number. With trampolines each of these calls has a hook of its own, and all others pass nothing.

use crate::{
    arch::call::{
        COPY_FILE_RANGE, IO_SUBMIT, PIDFD_GETFD, PREAD64, PREADV, PREADV2, PROCESS_VM_READV,
        PTRACE, PWRITE64, READ, READV, SENDFILE, SPLICE, WRITE, WRITEV,
    },
    maps::field,
    opened::follows_opened,
    record::{Load as _, Typed, follow, interesting, plain_argument, read_or_zero},
    taking::{on_trace, pending, report_completed_call, take_by_getfd, take_by_vm_read},
    tmpfs::{fifo_files, memory_files, on_read, own_descriptor, report_completed_read},
    write::on_write,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext},
};
use keytrail_abi::globals::field as f;

// void sys_enter(struct pt_regs *regs, long id)
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    if pending() {
        let thread = bpf_get_current_pid_tgid();
        report_completed_call(thread);
        report_completed_read(thread);
    }
    dispatch(ctx.arg(0), ctx.arg(1));
    0
}

// The same, where the kernel knows the types of the arguments: what goes to a socket, which is most of what servers
// write, and what is read from other files than those in memory is told from the rest with few calls.
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter_typed(ctx: BtfTracePointContext) -> i32 {
    if pending() {
        let thread = bpf_get_current_pid_tgid();
        report_completed_call(thread);
        report_completed_read(thread);
    }
    let number: u64 = ctx.arg(1);
    let wanted = match number {
        WRITE | WRITEV => !goes_to_socket(ctx.arg(0)),
        READ | PREAD64 | READV | PREADV | PREADV2 => reads_memory(ctx.arg(0)),
        SENDFILE | SPLICE | COPY_FILE_RANGE | IO_SUBMIT | PWRITE64 | PTRACE | PROCESS_VM_READV
        | PIDFD_GETFD => true,
        _ => false,
    };
    if wanted {
        dispatch(plain_argument(ctx.as_ptr(), 0), number);
    }
    0
}

// long __x64_sys_write(const struct pt_regs *regs), and so on (SYSCALL_DEFINE, arch/x86/include/asm/syscall_wrapper.h):
// those of 64 bits only. On aarch64 they are called __arm64_sys_write and so on; user space names them when it loads.
#[fentry]
pub fn call_write(ctx: FEntryContext) -> i32 {
    if !goes_to_socket(ctx.arg(0)) {
        on_write(plain_argument(ctx.as_ptr(), 0), false, false);
    }
    0
}

#[fentry]
pub fn call_pwrite(ctx: FEntryContext) -> i32 {
    on_write(plain_argument(ctx.as_ptr(), 0), false, true);
    0
}

#[fentry]
pub fn call_writev(ctx: FEntryContext) -> i32 {
    if !goes_to_socket(ctx.arg(0)) {
        on_write(plain_argument(ctx.as_ptr(), 0), true, false);
    }
    0
}

#[fentry]
pub fn call_ptrace(ctx: FEntryContext) -> i32 {
    on_trace(plain_argument(ctx.as_ptr(), 0));
    0
}

#[fentry]
pub fn call_vm_read(ctx: FEntryContext) -> i32 {
    take_by_vm_read(plain_argument(ctx.as_ptr(), 0));
    0
}

#[fentry]
pub fn call_getfd(ctx: FEntryContext) -> i32 {
    take_by_getfd(plain_argument(ctx.as_ptr(), 0));
    0
}

// The end of the same two: what they took is reported at once.
#[fexit]
pub fn called_vm_read(_: FExitContext) -> i32 {
    report_completed_call(bpf_get_current_pid_tgid());
    0
}

#[fexit]
pub fn called_getfd(_: FExitContext) -> i32 {
    report_completed_call(bpf_get_current_pid_tgid());
    0
}

#[inline(always)]
fn dispatch(regs: u64, number: u64) {
    match number {
        READ | PREAD64 | READV | SENDFILE | SPLICE | PREADV | COPY_FILE_RANGE | PREADV2
        | IO_SUBMIT => {
            on_read(regs, number);
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
}

/// The file that the first argument names; 0 when there is none, and where the kernel does not show this task's own.
/// `regs` are typed.
#[inline(always)]
fn file_of(regs: u64) -> u64 {
    own_descriptor(Typed::load::<u64>(regs, field(f::REGS_ARG0)) as u32)
}

/// Is what the first argument names a socket, or nobody's business?
#[inline(always)]
fn goes_to_socket(regs: u64) -> bool {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    if interesting((bpf_get_current_pid_tgid() >> 32) as u32).is_none() {
        return true;
    }
    if field(f::HAS_TASK_REGS) != 1 {
        // `own_descriptor` finds nothing on these kernels; what captures the write looks by itself.
        return false;
    }
    let inode = follow(file_of(regs), field(f::FILE_INODE));
    inode == 0 || read_or_zero::<u16>(inode, field(f::INODE_MODE)) & S_IFMT == S_IFSOCK
}

/// Does it name a file on tmpfs, or a FIFO?
#[inline(always)]
fn reads_memory(regs: u64) -> bool {
    let files = memory_files();
    if files == 0 {
        return false;
    }
    let ops = follow(file_of(regs), field(f::FILE_OP));
    ops == files || ops != 0 && follows_opened() && ops == fifo_files()
}
