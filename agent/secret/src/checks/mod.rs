//! Tests of a candidate value that an expression cannot make.

pub mod checksum;
pub mod placeholder;
mod reference;
pub mod strength;
mod userpass;

pub use placeholder::{Doubt, documented, doubt, doubt_of_password};
pub use reference::{named_for_reference, refers};
pub use strength::{entropy, looks_random};
pub use userpass::user_is_secret;
