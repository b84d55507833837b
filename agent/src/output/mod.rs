//! Events for people and for programs: compact and wide columns, JSON lines, footers and summaries.
//!
//! Every string here comes from the host and may be hostile: nothing reaches a terminal unescaped.

mod columns;
mod describe;
mod escape;
pub mod inventory;
mod json;
mod style;
mod summary;
mod table;
mod writer;

pub use escape::{Cut, escape, fit};
pub use json::json;
pub use style::{Colour, Style};
pub use summary::{Summary, TraceEnd};
pub use table::Table;
pub use writer::{Writer, gap_event};

/// Shape of event output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns fitted to the terminal.
    #[default]
    Compact,
    /// Columns with everything that is known, nothing cut.
    Wide,
    /// Canonical proto3 JSON of keytrail.v1.Event, one per line.
    Json,
}
