//! keytrail: who uses which credential on this host, and where it goes.
//!
//! Data flows one way: `sensor` (kernel records) -> `decode` (typed records, still with secret bytes)
//! -> `digest` with `secret` and `wire` (classify, match, wipe) -> `model::Observation` (no secret bytes from here on)
//! -> `process` and `correlate` (a pure state machine) -> `keytrail.v1.Event` -> `ledger`, `serve`, `cli`.
//! Nothing names a stage that comes after it; `engine` puts them together. See docs/ARCHITECTURE.md.

pub mod cli;
pub mod config;
pub mod correlate;
pub mod decode;
pub mod digest;
pub mod engine;
pub mod host;
pub mod inventory;
pub mod ledger;
pub mod model;
pub mod output;
pub mod process;
pub mod secret;
pub mod sensor;
pub mod serve;
pub mod wire;
