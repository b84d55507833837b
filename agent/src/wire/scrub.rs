//! Overwrites the stack below the caller, where digests and scans leave bytes of what they worked on.

use std::sync::atomic::{Ordering, compiler_fence};

/// Bytes of stack that are overwritten: several times what a scan, a digest and a classification use.
pub const SCRUB_BYTES: usize = 64 * 1024;

/// Wipes what returned calls left on the stack of this thread. Call it from the frame that called them
/// (or one above): it reaches [`SCRUB_BYTES`] down from its caller.
#[inline(never)]
pub fn scrub_stack() {
    let mut area = [std::mem::MaybeUninit::<u64>::uninit(); SCRUB_BYTES / 8];
    for word in &mut area {
        // SAFETY: `word` is a valid, aligned, exclusive reference; a volatile write is not optimised away.
        unsafe { std::ptr::write_volatile(word.as_mut_ptr(), 0) };
    }
    compiler_fence(Ordering::SeqCst);
}
