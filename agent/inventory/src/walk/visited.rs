//! Directories entered so far: bind mounts, and one tree seen from several mount namespaces, are walked once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Parts, so that threads seldom wait for each other.
const SHARDS: u64 = 16;
/// Directories remembered in each part, 32 million in all.
const MAX: usize = 2_000_000;

#[derive(Debug)]
pub struct Visited {
    shards: Vec<Mutex<HashSet<(u64, u64)>>>,
}

impl Default for Visited {
    fn default() -> Self {
        Visited {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Visited {
    pub fn enter(&self, device: u64, inode: u64) -> Entered {
        let index = usize::try_from(inode % SHARDS).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else {
            return Entered::Full;
        };
        let mut set = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if set.contains(&(device, inode)) {
            Entered::Before
        } else if set.len() >= MAX {
            // A walk that ends is worth more than one that is complete.
            Entered::Full
        } else {
            set.insert((device, inode));
            Entered::First
        }
    }
}

/// Whether a directory is new to the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    First,
    Before,
    /// No room to remember it.
    Full,
}
