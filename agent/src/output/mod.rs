//! Events for people and for programs: compact and wide columns, JSON lines, footers and summaries.
//!
//! Every string here comes from the host and may be hostile: nothing reaches a terminal unescaped.

mod acts;
mod changed;
mod clock;
mod columns;
pub(crate) mod describe;
mod escape;
pub(crate) mod fingerprint;
pub mod history;
pub mod inventory;
pub mod report;
mod rows;
pub mod sarif;
mod style;
mod summary;
mod table;
mod wide;
mod writer;

pub use clock::{Local, parse as parse_time, utc};
pub use escape::{Cut, escape, fit, fold};
pub use keytrail_proto::json;
pub use rows::{Rows, document, yaml};
pub use style::{Colour, Style};
pub use summary::{Summary, TraceEnd};
pub use table::Table;
pub use writer::{Writer, gap_event};

/// Shape of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns fitted to the terminal.
    #[default]
    #[value(name = "table", alias = "compact")]
    Compact,
    /// Columns with everything that is known, nothing cut.
    Wide,
    /// Canonical proto3 JSON of keytrail.v1.Event, one per line.
    Json,
    /// The same as YAML, a document each.
    Yaml,
    /// The columns that most questions are about, for spreadsheets and databases.
    Csv,
}

impl Format {
    /// Whether headings, footers and notes belong into it.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        matches!(self, Format::Compact | Format::Wide)
    }
}
