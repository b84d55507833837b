//! Where a thread's registers are (`struct pt_regs`), and what tells its 32-bit system calls, by architecture. What each is
//! read for stands in `keytrail_abi::globals` and `agent-ebpf/src/arch`.

use keytrail_abi::globals::field as f;

/// A register, by the field it is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Place in the global array.
    pub place: usize,
    pub path: &'static str,
    /// Bytes behind the field's beginning.
    pub behind: u32,
}

const fn field(place: usize, path: &'static str) -> Register {
    Register {
        place,
        path,
        behind: 0,
    }
}

/// One of the numbered registers, which are one array (arch/arm64/include/asm/ptrace.h).
const fn numbered(place: usize, number: u32) -> Register {
    Register {
        place,
        path: "pt_regs.regs",
        behind: number * 8,
    }
}

const X86_64: &[Register] = &[
    field(f::REGS_SP, "pt_regs.sp"),
    field(f::REGS_SYSCALL, "pt_regs.orig_ax"),
    field(f::REGS_RESULT, "pt_regs.ax"),
    field(f::REGS_BX, "pt_regs.bx"),
    field(f::REGS_CX, "pt_regs.cx"),
    field(f::REGS_IP, "pt_regs.ip"),
    field(f::REGS_FLAGS, "pt_regs.flags"),
    field(f::REGS_ARG0, "pt_regs.di"),
    field(f::REGS_ARG1, "pt_regs.si"),
    field(f::REGS_ARG2, "pt_regs.dx"),
    field(f::REGS_ARG3, "pt_regs.r10"),
    field(f::REGS_ARG4, "pt_regs.r8"),
    field(f::REGS_ARG5, "pt_regs.r9"),
    field(f::TASK_STATUS, "task_struct.thread_info.status"),
];

const AARCH64: &[Register] = &[
    field(f::REGS_SP, "pt_regs.sp"),
    field(f::REGS_SYSCALL, "pt_regs.syscallno"),
    field(f::REGS_ORIGINAL, "pt_regs.orig_x0"),
    field(f::REGS_IP, "pt_regs.pc"),
    field(f::REGS_FLAGS, "pt_regs.pstate"),
    numbered(f::REGS_RESULT, 0),
    numbered(f::REGS_BX, 1),
    numbered(f::REGS_CX, 2),
    numbered(f::REGS_LINK, 30),
    numbered(f::REGS_ARG0, 0),
    numbered(f::REGS_ARG1, 1),
    numbered(f::REGS_ARG2, 2),
    numbered(f::REGS_ARG3, 3),
    numbered(f::REGS_ARG4, 4),
    numbered(f::REGS_ARG5, 5),
    field(f::TASK_STATUS, "task_struct.thread_info.flags"),
];

/// Those of the machine this agent is built for; none where the kernel side knows no registers.
pub const OF_THIS: &[Register] = if cfg!(target_arch = "x86_64") {
    X86_64
} else if cfg!(target_arch = "aarch64") {
    AARCH64
} else {
    &[]
};

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel side reads of registers is there on both: what one has for itself is named.
    #[test]
    fn both_have_what_the_kernel_side_reads() {
        let places = |of: &[Register]| -> Vec<usize> {
            let mut places: Vec<usize> = of.iter().map(|register| register.place).collect();
            places.sort_unstable();
            places
        };
        let mut of_both = places(X86_64);
        of_both.extend([f::REGS_ORIGINAL, f::REGS_LINK]);
        of_both.sort_unstable();
        assert_eq!(places(AARCH64), of_both);
        assert!(
            of_both.windows(2).all(|two| two[0] != two[1]),
            "{of_both:?}"
        );
        assert_eq!(numbered(f::REGS_LINK, 30).behind, 240);
    }
}
