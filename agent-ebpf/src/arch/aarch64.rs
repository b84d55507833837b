//! aarch64.

use crate::{
    maps::field,
    record::{current_task, follow, read, read_or_zero},
};
use keytrail_abi::globals::{MISSING, field as f};

/// include/uapi/asm-generic/unistd.h. None that sends, receives or executes anything does so in the table of 32 bits
/// (arch/arm/tools/syscall.tbl).
pub mod call {
    pub const IO_SUBMIT: u64 = 2;
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const PREAD64: u64 = 67;
    pub const PWRITE64: u64 = 68;
    pub const PREADV: u64 = 69;
    pub const SENDFILE: u64 = 71;
    pub const SPLICE: u64 = 76;
    pub const PTRACE: u64 = 117;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const EXECVE: u64 = 221;
    pub const SENDMMSG: u64 = 269;
    pub const PROCESS_VM_READV: u64 = 270;
    pub const EXECVEAT: u64 = 281;
    pub const COPY_FILE_RANGE: u64 = 285;
    pub const PREADV2: u64 = 286;
    pub const PWRITEV2: u64 = 287;
    pub const PIDFD_GETFD: u64 = 438;
}

/// Are these the registers of a thread that is inside the system call of [`number`]? arch/arm64/kernel/syscall.c: `x0` has
/// the first argument until the result takes its place, and a copy of it stays (`orig_x0`). A call that has returned the
/// very number of its first argument looks the same, and on the way out the kernel runs what a thread has asked io_uring
/// for; so of a thread that has an io_uring nothing is believed.
#[inline(always)]
pub fn is_inside(regs: u64) -> bool {
    // include/asm/ptrace.h: NO_SYSCALL.
    if read::<i32>(regs, field(f::REGS_SYSCALL)).unwrap_or(-1) < 0 {
        return false;
    }
    let rings = field(f::TASK_IO_URING);
    if rings != MISSING && follow(current_task(), rings) != 0 {
        return false;
    }
    read::<u64>(regs, field(f::REGS_ORIGINAL)) == read::<u64>(regs, field(f::REGS_ARG0))
}

/// Of the system call that the registers are of; of no call where they are of none.
#[inline(always)]
pub fn number(regs: u64) -> u64 {
    // Sign and all: -1 is no call's number.
    read::<i32>(regs, field(f::REGS_SYSCALL)).unwrap_or(-1) as i64 as u64
}

/// Is the task one of 32 bits? The numbers of its calls are those of others.
#[inline(always)]
pub fn is_compat() -> bool {
    // arch/arm64/include/asm/thread_info.h: TIF_32BIT.
    const TIF_32BIT: u32 = 22;
    read_or_zero::<u32>(current_task(), field(f::TASK_STATUS)) & 1 << TIF_32BIT != 0
}

/// Does this request of ptrace read the tracee's memory or registers? include/uapi/linux/ptrace.h: PEEKTEXT, PEEKDATA,
/// GETREGSET; others come to nothing.
#[inline(always)]
pub fn is_trace_read(request: u64) -> bool {
    matches!(request, 1 | 2 | 0x4204)
}

/// Receiver, bytes and their number of a method `Write([]byte)` of Go, in `x0` to `x2`. `None` where the branch is taken
/// that the probe sits on, when the stack has to grow: the function then begins anew. No carry, or zero: it is taken
/// (`b.ls`).
#[inline(always)]
pub fn go_write(regs: u64) -> Option<[u64; 3]> {
    const CARRY: u64 = 1 << 29;
    const ZERO: u64 = 1 << 30;
    let (Some(receiver), Some(buffer), Some(total), Some(flags)) = (
        read::<u64>(regs, field(f::REGS_RESULT)),
        read::<u64>(regs, field(f::REGS_BX)),
        read::<u64>(regs, field(f::REGS_CX)),
        read::<u64>(regs, field(f::REGS_FLAGS)),
    ) else {
        return None;
    };
    (flags & (CARRY | ZERO) == CARRY).then_some([receiver, buffer, total])
}

/// Calls leave their return address in a register; functions that call others save it.
pub const RETURN_IN_REGISTER: bool = true;

/// The return address of a function that has not saved it yet, in `x30`; 0 where it cannot be read. Without the bits in which
/// it may be signed.
#[inline(always)]
pub fn unsaved_return(regs: u64) -> u64 {
    plain_return(read_or_zero(regs, field(f::REGS_LINK)))
}

/// A return address without the bits in which it may be signed (arch/arm64/include/asm/pointer_auth.h), of the largest
/// address space.
#[inline(always)]
pub fn plain_return(address: u64) -> u64 {
    address & ((1 << 48) - 1)
}
