//! What comes out of a stage: observations, and what the kernel side has to know.

use keytrail_abi as abi;
use keytrail_model::{Observation, Pid, PlaceNews};
use std::path::PathBuf;

/// A process whose kernel state can be decided now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    pub pid: Pid,
    pub exec_id: u64,
}

/// What one record became.
#[derive(Default)]
pub struct Digested {
    pub observations: Vec<Observation>,
    pub decided: Vec<Decided>,
    /// Files found to hold credentials, to be watched from now on.
    pub watch: Vec<(PathBuf, abi::FileId)>,
    /// Files (and change times) that need no further look.
    pub clean: Vec<(abi::FileId, u64)>,
    /// What was found in files, for the inventory.
    pub places: Vec<PlaceNews>,
    /// Watched inodes that are other files by now.
    pub unwatch: Vec<abi::FileId>,
}
