//! The core: observations in, events out. A pure state machine: no clock, no IO, no randomness, no iteration over
//! hash maps where the order could show. A recording of observations replays to byte-identical events.

mod core;
mod event;
mod flow;
mod schedule;
mod tls;

#[cfg(test)]
mod tests;

pub use self::core::{Core, Step};
