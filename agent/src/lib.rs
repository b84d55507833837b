//! The `keytrail` binary: the engine that puts the stages together, configuration, command line and output.
//!
//! Data flows one way, a crate a stage: `keytrail-sensor` (kernel records) -> `keytrail-ingest` with `keytrail-secret` and
//! `keytrail-payload` (typed records; classify, match, wipe) -> `keytrail_model::Observation` (no secret bytes from here on)
//! -> `keytrail-core` (a pure state machine) -> `keytrail.v1.Event` -> `keytrail-store`, `keytrail-export`, `output`.
//! See docs/ARCHITECTURE.md.

mod answers;
pub mod cli;
pub mod config;
pub mod engine;
pub mod memory;
pub mod output;
mod pods;
mod sinks;
