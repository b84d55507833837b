//! Watched files: where they are, which version of them holds which credentials.

mod exclude;
mod globs;
mod homes;
mod inspect;
mod locate;
mod own;
mod owner;
mod read;
mod roots;
mod table;
mod tree;
mod views;

pub use exclude::Excluded;
pub use globs::{Component, Pattern, expand};
pub use homes::homes;
pub use inspect::{Content, Inspected, read_worthy, worthy};
pub use locate::{Found, Locator};
pub use own::OwnFiles;
pub use owner::is_orphaned;
pub use read::{Version, content, open_in, open_root, reach, renamed, reopen, version};
pub use roots::{Files, NewVersion};
pub use table::{FileTable, KnownFile};
pub use tree::is_tracked;
pub use views::{Views, in_layers};

/// In a place that no rule names, a name with a random-looking value is not enough of a reason to take what is in a
/// file for a credential.
const MIN_CONFIDENCE: f64 = 0.5;

/// From which confidence on a finding counts in a place.
#[must_use]
pub fn min_confidence(named: bool) -> f64 {
    if named { 0.0 } else { MIN_CONFIDENCE }
}
