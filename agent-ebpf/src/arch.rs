//! What differs between architectures: the numbers of system calls, what the registers of a thread report the call that it
//! is in, and in which Go has its arguments. Where the registers are, user space has found out (`field::REGS_*`).

//!
//! For x86-64, unless the feature `aarch64` is given, and to aya-ebpf `AYA_BPF_TARGET_ARCH`.

#[cfg(feature = "aarch64")]
mod aarch64;
#[cfg(not(feature = "aarch64"))]
mod x86_64;

#[cfg(feature = "aarch64")]
pub use aarch64::*;
#[cfg(not(feature = "aarch64"))]
pub use x86_64::*;
