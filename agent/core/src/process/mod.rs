//! Who is who: processes by identity, with ancestry and what each one holds. Pure: time comes with the record.

mod table;

pub use table::{Holding, HoldingPlace, Proc, ProcessTable};

/// Nanoseconds since the epoch as a protobuf timestamp.
#[must_use]
pub fn timestamp(wall_ns: u64) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: (wall_ns % 1_000_000_000) as i32,
    }
}
