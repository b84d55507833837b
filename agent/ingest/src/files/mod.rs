//! Watched files: where they are, which version of them holds which credentials.

mod discover;
mod globs;
mod inspect;
mod own;
mod read;
mod roots;
mod table;

pub use discover::{Discovered, Discovery};
pub use inspect::{Inspected, inspect};
pub use own::OwnFiles;
pub use read::{Version, open_in, open_root, renamed, reopen, version};
pub use roots::Files;
pub use table::{FileTable, KnownFile};

/// In a place that no rule names, a name with a random-looking value is not enough of a reason to take what is in a
/// file for a credential.
const MIN_CONFIDENCE: f64 = 0.5;

/// From which confidence on a finding counts in a place.
#[must_use]
pub fn min_confidence(named: bool) -> f64 {
    if named { 0.0 } else { MIN_CONFIDENCE }
}
