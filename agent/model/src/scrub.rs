//! Overwrites the stack below the caller, where digests and scans leave bytes of what they worked on, and the vector
//! registers, through which the C library copies.
//!
//! What is built once and kept (an expression, a searcher) is built on a scrubbed stack: types with unions and padding are
//! moved with whatever lay there before.

/// Bytes of stack that are overwritten: several times what a scan, a digest and a classification use.
pub const SCRUB_BYTES: usize = 64 * 1024;

/// Wipes what returned calls left on the stack of this thread and in its vector registers. Call it from the frame that called them
/// (or one above): it reaches [`SCRUB_BYTES`] down from its caller.
#[inline(never)]
pub fn scrub_stack() {
    let mut area = [0u8; SCRUB_BYTES];
    // Who may read the area cannot be seen by the compiler, so that it has to be written.
    // SAFETY: no instruction at all; the pointer is to a live local.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) area.as_mut_ptr(), options(nostack, preserves_flags))
    };
    scrub_registers();
}

/// A copy leaves its last bytes in vector registers. Those from the sixteenth on are used by the C library alone (glibc's
/// memcpy where there is AVX-512), so that a thread that waits keeps them for ever, and an image of the process has them.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn scrub_registers() {
    use std::arch::{asm, is_x86_feature_detected};
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: it writes only registers that any call may overwrite, and the processor has them.
        unsafe {
            asm!(
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
    if is_x86_feature_detected!("avx") {
        // SAFETY: as above; it empties the lower sixteen in all their width.
        unsafe {
            asm!(
                "vzeroall",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            )
        };
    } else {
        // SAFETY: as above; every x86-64 has these.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)]
fn scrub_registers() {
    // SAFETY: it writes only registers that any call may overwrite: v8 to v15 are kept in their lower half, so those are left.
    unsafe {
        std::arch::asm!(
            "movi v0.16b, #0",
            "movi v1.16b, #0",
            "movi v2.16b, #0",
            "movi v3.16b, #0",
            "movi v4.16b, #0",
            "movi v5.16b, #0",
            "movi v6.16b, #0",
            "movi v7.16b, #0",
            "movi v16.16b, #0",
            "movi v17.16b, #0",
            "movi v18.16b, #0",
            "movi v19.16b, #0",
            "movi v20.16b, #0",
            "movi v21.16b, #0",
            "movi v22.16b, #0",
            "movi v23.16b, #0",
            "movi v24.16b, #0",
            "movi v25.16b, #0",
            "movi v26.16b, #0",
            "movi v27.16b, #0",
            "movi v28.16b, #0",
            "movi v29.16b, #0",
            "movi v30.16b, #0",
            "movi v31.16b, #0",
            clobber_abi("C"),
            options(nomem, nostack, preserves_flags)
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn scrub_registers() {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::arch::{asm, is_x86_feature_detected};
    use std::hint::black_box;

    /// What the upper sixteen hold.
    fn registers(out: &mut [u8; 16 * 64]) {
        // SAFETY: the caller has seen that the processor has them; 16 times 64 bytes are written to as many.
        unsafe {
            asm!(
                "vmovdqu64 [{0}], zmm16", "vmovdqu64 [{0} + 64], zmm17",
                "vmovdqu64 [{0} + 128], zmm18", "vmovdqu64 [{0} + 192], zmm19",
                "vmovdqu64 [{0} + 256], zmm20", "vmovdqu64 [{0} + 320], zmm21",
                "vmovdqu64 [{0} + 384], zmm22", "vmovdqu64 [{0} + 448], zmm23",
                "vmovdqu64 [{0} + 512], zmm24", "vmovdqu64 [{0} + 576], zmm25",
                "vmovdqu64 [{0} + 640], zmm26", "vmovdqu64 [{0} + 704], zmm27",
                "vmovdqu64 [{0} + 768], zmm28", "vmovdqu64 [{0} + 832], zmm29",
                "vmovdqu64 [{0} + 896], zmm30", "vmovdqu64 [{0} + 960], zmm31",
                in(reg) out.as_mut_ptr(), options(nostack, preserves_flags)
            );
        }
    }

    #[test]
    fn what_a_copy_leaves_in_registers_goes() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let marked: Vec<u8> = (0..2048u32).map(|n| (n % 250 + 3) as u8).collect();
        // SAFETY: as in `registers`; one of them is written to.
        unsafe {
            asm!("vmovdqu64 zmm21, [{0}]", in(reg) marked.as_ptr(), out("zmm21") _, options(nostack, preserves_flags))
        };
        for length in [100, 300, 606, 1500, 2048] {
            let mut copy = vec![0; length];
            black_box(&mut copy[..]).copy_from_slice(black_box(&marked[..length]));
            black_box(&copy);
        }
        // Its room is made before: to fill it takes one of them.
        let mut held = [[1; 16 * 64]; 2];
        registers(&mut held[0]);
        assert!(held[0].iter().any(|byte| *byte > 1), "none was in use");
        scrub_stack();
        registers(&mut held[1]);
        assert!(held[1].iter().all(|byte| *byte == 0), "{:?}", held[1]);
    }
}
