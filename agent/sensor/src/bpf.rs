//! What aya has no wrapper for in bpf(2): running a program, and asking how often one was passed over.

use aya::Ebpf;
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Where `struct bpf_prog_info` (include/uapi/linux/bpf.h) has `recursion_misses`, and its end. Since 5.12.
const RECURSION_MISSES: usize = 208;
const INFO_LEN: usize = RECURSION_MISSES + 8;

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

/// `struct { ... } info` of `union bpf_attr`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// How often the kernel passed the program over because the CPU was inside it already. 0 before 5.12.
///
/// # Errors
/// Those of bpf(2).
fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // All zeros: the kernel is asked for no instructions, maps or functions. One that knows less leaves the rest alone.
    let mut info = [0u64; INFO_LEN / 8];
    let mut attr = GetInfo {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: INFO_LEN as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` is laid out as the kernel expects, with its true size; it names a buffer of `info_len` bytes that
    // outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<GetInfo>() as libc::c_uint,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(info[RECURSION_MISSES / 8])
    }
}

/// Calls of hooks that the kernel passed over.
#[derive(Debug, Default)]
pub struct Misses {
    asked: Option<Instant>,
    before: u64,
}

impl Misses {
    /// One system call a program: not to be asked at every look for losses.
    const INTERVAL: Duration = Duration::from_secs(10);

    /// How many there were since the last answer.
    pub fn news(&mut self, ebpf: &Ebpf) -> u64 {
        if self
            .asked
            .is_some_and(|asked| asked.elapsed() < Self::INTERVAL)
        {
            return 0;
        }
        self.asked = Some(Instant::now());
        let now: u64 = ebpf
            .programs()
            .filter_map(|(_, program)| recursion_misses(program.fd().ok()?.as_fd()).ok())
            .sum();
        // A program that was taken off its hook takes its count with it.
        let count = now.saturating_sub(self.before);
        self.before = now;
        count
    }
}
