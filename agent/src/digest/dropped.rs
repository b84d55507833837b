//! What found no room or could only be looked at in part: counted where it happens, told together.

use std::collections::BTreeMap;

/// What has a bound here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Credentials known at the same time.
    Credentials,
    /// Secrets looked for in what is sent.
    Secrets,
    /// Secrets that cannot be told from chance, or are too long to be looked for.
    Weak,
    /// Programs being started.
    Execs,
    /// Files that hold credentials.
    Files,
    /// Mount namespaces looked into.
    Roots,
    /// Directories watched for new files.
    Directories,
    /// Files larger than what is read of one.
    Sampled,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped(BTreeMap<Bound, u64>);

impl Dropped {
    pub fn add(&mut self, bound: Bound, count: u64) {
        if count > 0 {
            *self.0.entry(bound).or_default() += count;
        }
    }

    /// Moves everything of another into this one.
    pub fn gather(&mut self, other: &mut Dropped) {
        for (bound, count) in std::mem::take(&mut other.0) {
            self.add(bound, count);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self) -> impl Iterator<Item = (Bound, u64)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }
}
