//! Everything that touches a secret's bytes: rules, classification, fingerprints. Nothing after this stage and
//! `wire` ever holds them.

pub mod api;

pub use api::*;
