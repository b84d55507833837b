//! Signals that end a capture early: counted, and inspected where it is safe to stop.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: c_int) {
    LAST.store(signal, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// SIGINT, SIGTERM and SIGHUP of this process.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// From here on they are counted and end nothing. To be called after the command was forked, which keeps what this
    /// process was started with.
    pub fn take() -> Signals {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the structs are whole and ours; the handler only stores to atomics.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                // What was ignored when we were started (nohup) stays ignored.
                if libc::sigaction(signal, ptr::null(), &mut old) == 0
                    && old.sa_sigaction == libc::SIG_IGN
                {
                    continue;
                }
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
        Signals(())
    }

    pub fn count(&self) -> u32 {
        COUNT.load(Ordering::Relaxed)
    }

    /// The latest; SIGTERM when there was none.
    pub fn last(&self) -> c_int {
        match LAST.load(Ordering::Relaxed) {
            0 => libc::SIGTERM,
            signal => signal,
        }
    }
}
