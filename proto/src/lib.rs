//! `keytrail.v1`: the one schema of gRPC, files and tests.

mod json;

pub use json::json;

/// Generated from `keytrail/v1/*.proto`.
pub mod v1 {
    #![allow(clippy::all, reason = "generated code")]
    #![allow(
        clippy::too_many_lines,
        clippy::undocumented_unsafe_blocks,
        clippy::unwrap_used,
        reason = "generated code"
    )]
    tonic::include_proto!("keytrail.v1");
    include!(concat!(env!("OUT_DIR"), "/keytrail.v1.serde.rs"));
}

impl v1::Event {
    /// How many acts this event reports: one, but for what is reported together.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        self.repeats
            .as_ref()
            .map_or(1, |repeats| repeats.count.max(1))
    }
}

/// The encoded descriptor set, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keytrail.bin"));
