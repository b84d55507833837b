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
pub use read::{
    Version, content, link_version, open_in, open_root, reach, renamed, reopen, version,
};
pub use roots::{Files, NewVersion};
pub use table::{FileTable, KnownFile};
pub use views::{Views, in_layers};

use keytrail_model::FileFacts;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What is reported about a file that holds something, beside its version: whether git has it in an index, and whether its owner has an
/// account. `top` is the opened root.
pub fn complete(facts: &mut FileFacts, root: &Path, top: BorrowedFd<'_>) {
    facts.tracked = tree::is_tracked(top, &facts.path);
    facts.orphaned = owner::is_orphaned(root, top, facts.owner_uid);
}

/// In a place that no rule names, a name with a random-looking value is not enough of a reason to take what is in a
/// file for a credential.
const MIN_CONFIDENCE: f64 = 0.5;

/// From which confidence on a finding counts in a place.
#[must_use]
pub fn min_confidence(named: bool) -> f64 {
    if named { 0.0 } else { MIN_CONFIDENCE }
}
