//! What credentials are on this host, where, whose, and how exposed.

pub mod clock;
mod merge;
pub mod model;
mod mounts;
pub mod names;
mod priority;
pub mod rotation;
pub mod walk;

pub use merge::{Inventory, Observed};
