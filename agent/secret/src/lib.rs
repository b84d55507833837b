//! Everything that touches a secret's bytes: rules, classification, fingerprints. Nothing after this stage and
//! `wire` ever holds them.
//!
//! A text is scanned once for the literals of all rules (`scan::prefilter`); a literal decides which expression is tried
//! where (`scan::token`), whether a name with a value stands there (`scan::assign`), or whether the whole text is worth a
//! parser (`formats`). `resolve` decides between overlaps and merges pairs and duplicates. What is public about a secret comes from `derive`.

pub mod api;
pub mod checks;
pub mod classifier;
pub mod derive;
pub mod fingerprint;
pub mod form;
pub mod formats;
mod hide;
mod resolve;
pub mod rules;
pub mod ruleset;
pub mod scan;
#[cfg(test)]
mod tests;
pub(crate) mod tests_support;
pub mod wide;

pub use api::*;
pub use classifier::{Arguments, is_source, is_specimen};
pub use fingerprint::Fingerprinter;
pub use ruleset::Classifier;
