//! A small reader of BTF, the kernel's own type information (`/sys/kernel/btf/vmlinux`): where a struct keeps a
//! field on the running kernel.
//!
//! Format: Documentation/bpf/btf.rst of the kernel. Every access is bounded and every walk has a budget, because a
//! file that lies must cost an error and nothing else.

#[cfg(test)]
mod builder;
mod fields;
mod parse;
mod registers;

pub use fields::{Fields, resolve};
pub use parse::{Btf, BtfError, Field};
