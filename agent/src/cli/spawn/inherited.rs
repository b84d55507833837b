//! What whoever started this process gave it, before Rust's runtime changed it: the runtime ignores SIGPIPE and opens
//! /dev/null where stdin, stdout or stderr is closed. keytrail itself ignores SIGXFSZ: what it cannot write for a limit of the
//! size of files is an error like any other. A command that keytrail wraps gets what it would have got alone.

use rustix::fd::RawFd;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Whether SIGPIPE was ignored.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// The same of SIGXFSZ.
static LIMIT_IGNORED: AtomicBool = AtomicBool::new(false);
/// One bit for each of the descriptors 0, 1 and 2 that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Runs before `main`, and so before the runtime: nothing here may use more than the C library.
extern "C" fn note() {
    // SAFETY: the struct is whole and ours; sigaction with a null action and fcntl with F_GETFD change nothing, and to ignore a
    // signal calls nothing of ours.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut old) == 0 {
            PIPE_IGNORED.store(old.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
        }
        let limit = libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        LIMIT_IGNORED.store(limit == libc::SIG_IGN, Ordering::Relaxed);
        let mut closed = 0;
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                closed |= 1u8 << fd;
            }
        }
        CLOSED.store(closed, Ordering::Relaxed);
    }
}

// SAFETY: the section holds pointers to functions of the C ABI without arguments that matter, which the C library's
// start code calls once; `note` is one.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Signals whose dispositions are not those this process was started with, each with what it was.
pub(super) fn dispositions() -> [(c_int, libc::sighandler_t); 2] {
    let was = |ignored: &AtomicBool| match ignored.load(Ordering::Relaxed) {
        true => libc::SIG_IGN,
        false => libc::SIG_DFL,
    };
    [
        (libc::SIGPIPE, was(&PIPE_IGNORED)),
        (libc::SIGXFSZ, was(&LIMIT_IGNORED)),
    ]
}

/// Which of stdin, stdout and stderr were closed when this process was started.
pub(super) fn closed() -> [Option<c_int>; 3] {
    let closed = CLOSED.load(Ordering::Relaxed);
    [0, 1, 2].map(|fd: RawFd| (closed & (1 << fd) != 0).then_some(fd))
}
