//! Overwrites the stack below the caller, where digests and scans leave bytes of what they worked on.
//!
//! What is built once and kept (an expression, a searcher) is built on a scrubbed stack: types with unions and padding are
//! moved with whatever lay there before.

/// Bytes of stack that are overwritten: several times what a scan, a digest and a classification use.
pub const SCRUB_BYTES: usize = 64 * 1024;

/// Wipes what returned calls left on the stack of this thread. Call it from the frame that called them
/// (or one above): it reaches [`SCRUB_BYTES`] down from its caller.
#[inline(never)]
pub fn scrub_stack() {
    let mut area = [0u8; SCRUB_BYTES];
    // Who may read the area cannot be seen by the compiler, so that it has to be written.
    // SAFETY: no instruction at all; the pointer is to a live local.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) area.as_mut_ptr(), options(nostack, preserves_flags))
    };
}
