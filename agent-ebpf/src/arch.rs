//! What differs between architectures: the numbers of system calls, what the registers of a thread tell of the call that it
//! is in, and in which Go has its arguments. Where the registers are, user space has found out (`field::REGS_*`).

//!
//! For x86-64, unless `--cfg bpf_target_arch="aarch64"` is given, as aya-ebpf wants it too.

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64;
#[cfg(not(bpf_target_arch = "aarch64"))]
mod x86_64;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::*;
#[cfg(not(bpf_target_arch = "aarch64"))]
pub use x86_64::*;
