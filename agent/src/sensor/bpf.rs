//! The one bpf(2) command aya has no wrapper for.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const BPF_PROG_TEST_RUN: libc::c_int = 10;

/// `struct { ... } test` of `union bpf_attr` (include/uapi/linux/bpf.h), up to what 5.10 knows.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
}

/// Runs a raw tracepoint program once in the calling thread and returns its result.
///
/// # Errors
/// EINVAL before 5.10, which cannot run programs of this type.
pub fn run(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        ..TestRun::default()
    };
    // SAFETY: `attr` is laid out as the kernel expects and its true size is given; no pointers in it are set.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<TestRun>() as libc::c_uint,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(attr.retval)
    }
}
