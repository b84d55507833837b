//! See docs/ARCHITECTURE.md.

pub mod classify;
