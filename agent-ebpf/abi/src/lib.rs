//! The records and map values that keytrail's kernel and user sides share.
//!
//! Everything here is `repr(C)`, made of integers and byte arrays, and has its size asserted: the two sides are
//! built by two compilers. No enums, no options, no padding that is not named.
#![no_std]
// The list of fields is taken apart one by one.
#![recursion_limit = "256"]

pub mod budget;
pub mod globals;
pub mod header;
pub mod records;
pub mod state;

pub use budget::{Budget, SessionKey, passed};
pub use header::{Header, Kind};
pub use records::*;
pub use state::*;
