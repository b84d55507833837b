//! When there is no memory left: a sentence and an exit status, in place of an abort in the middle of one.

use crate::cli::exit;
use rustix::process::{Resource, getrlimit};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;

/// What is refused below this size is the end, bytes. Larger requests may be made by sizes that others claim, and who
/// makes them can do without.
const LARGE: usize = 16 << 20;

/// Buffers of this size and more have mappings of their own, bytes: what is looked for in a large program is such a buffer.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 256 << 10;
/// So much that is free at the end of a heap stays, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 1 << 20;
/// Threads share this many heaps: each keeps what its busiest moment needed.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Has what is freed go back to the system. The C library of GNU otherwise learns from the first large buffer to keep the
/// next ones of up to 32 MiB, and has eight heaps for each processor (mallopt(3)). Of an agent at rest that was 30 of 60 MiB.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_MMAP_THRESHOLD, OWN_MAPPING),
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_ARENA_MAX, HEAPS),
    ] {
        // SAFETY: takes numbers only; what it refuses stays as it was.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Gives back what is free between what is used (malloc_trim(3)); some tenths of a millisecond, and a heap at a time is
/// closed meanwhile.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only; what is in use stays where it is.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The system's allocator. It says why it ends the process when it must.
#[derive(Debug)]
pub struct OrSayWhy;

// SAFETY: every call goes to the system's allocator as it came; what is added never returns.
unsafe impl GlobalAlloc for OrSayWhy {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        checked(unsafe { System.realloc(at, layout, size) }, size)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[inline(always)]
fn checked(at: *mut u8, size: usize) -> *mut u8 {
    if at.is_null() && size < LARGE {
        end();
    }
    at
}

/// Nothing here may ask for memory.
#[cold]
fn end() -> ! {
    let mut text = [0_u8; 256];
    let sentence = sentence(getrlimit(Resource::As).current, &mut text);
    // SAFETY: bytes that live; a descriptor that is closed is an error nobody can be told.
    let _ = unsafe { libc::write(2, sentence.as_ptr().cast(), sentence.len()) };
    // SAFETY: ends the process at once; the kernel takes back its memory, its probes and its maps.
    unsafe { libc::_exit(i32::from(exit::FAILED)) }
}

fn sentence(limit: Option<u64>, text: &mut [u8; 256]) -> &[u8] {
    let mut cursor = std::io::Cursor::new(&mut text[..]);
    // The buffer is longer than any of them.
    let _ = match limit {
        Some(bytes) => writeln!(
            cursor,
            "keytrail: out of memory: its address space may have {} KiB (`ulimit -v`; LimitAS= of a unit), which is too little",
            bytes >> 10
        ),
        None => writeln!(cursor, "keytrail: out of memory"),
    };
    let len = usize::try_from(cursor.position()).unwrap_or(0);
    text.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_is_whole() {
        for limit in [None, Some(0), Some(200 << 20), Some(u64::MAX)] {
            let mut text = [0; 256];
            let text = sentence(limit, &mut text);
            assert!(text.starts_with(b"keytrail: out of memory") && text.ends_with(b"\n"));
        }
    }

    #[test]
    fn what_is_large_may_be_refused() {
        assert!(checked(std::ptr::null_mut(), LARGE).is_null());
    }
}
