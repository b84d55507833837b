//! What credentials are on this host, where, whose, and how exposed.
//!
//! A run: `roots` (the host, and containers through /proc/PID/root) -> `walk` (directories, in parallel) -> `inspect`
//! (one file's bytes) -> `scan` (classify, wipe) -> `merge` (one entry a credential), joined by `process`; then `facts`
//! (owners), `exposure`, and `state` (earlier runs) for what changed. Nothing after `scan` and `process` has secret bytes.

mod class;
pub mod clock;
pub mod diff;
mod enrich;
pub mod exposure;
mod facts;
#[cfg(test)]
mod fixtures;
mod inspect;
pub mod live;
mod mask;
mod merge;
pub mod model;
pub mod names;
mod process;
mod roots;
pub mod rotation;
pub mod run;
mod scan;
mod sockets;
pub mod state;
pub mod walk;

pub use merge::{Inventory, Observed};
