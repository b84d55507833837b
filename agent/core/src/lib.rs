//! The core: observations in, graded events out. A pure state machine: no clock, no IO, no randomness, and no order that
//! depends on a hash map.

pub mod correlate;
pub mod process;

pub use correlate::{Core, Step};
