//! x86-64.

use crate::{
    maps::field,
    record::{current_task, read, read_or_zero},
};
use keytrail_abi::globals::field as f;

/// arch/x86/entry/syscalls/syscall_64.tbl. Those of x32 have a bit above; none that sends, receives or executes anything
/// does so in the 32-bit table.
pub mod call {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const PREAD64: u64 = 17;
    pub const PWRITE64: u64 = 18;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDFILE: u64 = 40;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const EXECVE: u64 = 59;
    pub const PTRACE: u64 = 101;
    pub const IO_SUBMIT: u64 = 209;
    pub const SPLICE: u64 = 275;
    pub const PREADV: u64 = 295;
    pub const SENDMMSG: u64 = 307;
    pub const PROCESS_VM_READV: u64 = 310;
    pub const EXECVEAT: u64 = 322;
    pub const COPY_FILE_RANGE: u64 = 326;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;
    pub const PIDFD_GETFD: u64 = 438;
}

/// Are these the registers of a thread that is inside the system call of [`number`]? What the call returns stands there as
/// ENOSYS from its entry to its end: work of io_uring that runs on the way out, or in a worker with a copy of the registers,
/// is no part of the call.
#[inline(always)]
pub fn is_inside(regs: u64) -> bool {
    const ENOSYS: u64 = (-38i64) as u64;
    read::<u64>(regs, field(f::REGS_RESULT)) == Some(ENOSYS)
}

/// Of the system call that the registers are of.
#[inline(always)]
pub fn number(regs: u64) -> u64 {
    read_or_zero(regs, field(f::REGS_SYSCALL))
}

/// Is the task in a system call of 32 bits? Its numbers are those of other calls.
#[inline(always)]
pub fn is_compat() -> bool {
    // arch/x86/include/asm/thread_info.h.
    const TS_COMPAT: u32 = 2;
    read_or_zero::<u32>(current_task(), field(f::TASK_STATUS)) & TS_COMPAT != 0
}

/// Does this request of ptrace read the tracee's memory or registers? include/uapi/linux/ptrace.h,
/// arch/x86/include/uapi/asm/ptrace-abi.h: PEEKTEXT, PEEKDATA, PEEKUSR, GETREGS, GETFPREGS, GETREGSET.
#[inline(always)]
pub fn is_trace_read(request: u64) -> bool {
    matches!(request, 1 | 2 | 3 | 12 | 14 | 0x4204)
}

/// Receiver, bytes and their number of a method `Write([]byte)` of Go, in `ax`, `bx` and `cx`. `None` where the jump is
/// taken that the probe sits on, when the stack has to grow: the function then begins anew. Carry or zero: it is taken
/// ("below or equal").
#[inline(always)]
pub fn go_write(regs: u64) -> Option<[u64; 3]> {
    let (Some(receiver), Some(buffer), Some(total), Some(flags)) = (
        read::<u64>(regs, field(f::REGS_RESULT)),
        read::<u64>(regs, field(f::REGS_BX)),
        read::<u64>(regs, field(f::REGS_CX)),
        read::<u64>(regs, field(f::REGS_FLAGS)),
    ) else {
        return None;
    };
    (flags & 0x41 == 0).then_some([receiver, buffer, total])
}

/// Calls leave their return address on the stack.
pub const RETURN_IN_REGISTER: bool = false;

#[inline(always)]
pub fn unsaved_return(_regs: u64) -> u64 {
    0
}

#[inline(always)]
pub fn plain_return(address: u64) -> u64 {
    address
}
