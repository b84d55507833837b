//! The place inside a function that costs least to probe, and from which the return address is known.
//!
//! A uprobe replaces an instruction by a breakpoint; the kernel then either emulates the instruction or runs a copy
//! of it under single step, which takes a second trap and many times as long. So the probe goes to the first instruction
//! that the kernel emulates, provided that on the way there control cannot have gone elsewhere, the three arguments are
//! still in their registers, and the stack has moved by a known amount.

mod aarch64;
pub mod x86_64;

use super::elf::Elf;

/// Where to probe a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePoint {
    /// From the function's first instruction, bytes.
    pub offset: u64,
    /// Bytes between the stack pointer at that place and the return address; `None`: unknown.
    pub pushed: Option<u32>,
    /// The instruction there, when the kernel emulates it. `None`: it is single-stepped, about eight times dearer.
    pub emulated: Option<&'static str>,
}

/// What is known beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The code is the entire function; without that nothing is known of jumps back into the prologue, and only the
    /// first instruction will do.
    pub whole: bool,
    /// Calls may be emulated: see [`calls_are_safe`].
    pub calls: bool,
}

/// Whether the kernel may emulate a call here. It leaves the return address in its ordinary place alone; a process
/// with a shadow stack would be killed by the return. `cpuinfo`: /proc/cpuinfo, whose flags (on aarch64 features) say that
/// processor and kernel offer one.
pub fn calls_are_safe(cpuinfo: &str) -> bool {
    !cpuinfo.lines().any(|line| {
        (line.starts_with("flags") || line.starts_with("Features"))
            && line
                .split_whitespace()
                .any(|flag| flag == "user_shstk" || flag == "gcs")
    })
}

/// Finds the place for a function of a file.
pub fn probe_point(elf: &Elf<'_>, code: &[u8], given: Given) -> ProbePoint {
    if elf.x86_64() {
        x86_64::probe_point(code, given)
    } else {
        aarch64::probe_point(code, given)
    }
}

/// Where a function's first instruction leaves its return address, before anything is pushed: known on x86-64 alone.
pub const ENTRY: ProbePoint = if cfg!(target_arch = "aarch64") {
    aarch64::ENTRY
} else {
    x86_64::ENTRY
};

#[cfg(test)]
mod tests {
    use super::calls_are_safe;

    #[test]
    fn calls_are_left_alone_where_a_shadow_stack_watches_them() {
        assert!(calls_are_safe("processor : 0\nflags : fpu vme shstk\n"));
        assert!(!calls_are_safe(
            "processor : 0\nflags : fpu user_shstk vme\n"
        ));
        assert!(calls_are_safe("Features\t: fp asimd paca\n"));
        assert!(!calls_are_safe("Features\t: fp asimd gcs\n"));
        assert!(calls_are_safe("model name\t: user_shstk gcs\n"));
    }
}
