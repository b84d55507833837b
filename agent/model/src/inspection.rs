//! What one inspection of a file found: what the inventory is kept current by. No secret bytes.

use super::{Credential, FileFacts};
use std::path::PathBuf;

/// Why a file was inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It lay in a watched place when that place was inspected for the first time.
    Start,
    /// A watched place changed: what is in it now and was not before is new.
    Changed,
    /// It was written, moved or read somewhere.
    Accessed,
}

/// A file in one version.
#[derive(Clone, Debug)]
pub struct FileInspection {
    /// Root through which this process reaches it (`/` or `/proc/PID/root`).
    pub root: PathBuf,
    /// Path below that root as bytes; `facts.path` is the same as text.
    pub raw: Vec<u8>,
    pub facts: FileFacts,
    /// When its inode was made, nanoseconds since the epoch; 0 when the file system does not say.
    pub born_ns: u64,
    /// Seconds since the epoch.
    pub modified: i64,
    pub links: u32,
    /// Only a part of it was inspected.
    pub truncated: bool,
    /// Everything in it, in its order.
    pub held: Vec<Credential>,
    /// Below this confidence a credential in this place raises no event.
    pub min_confidence: f64,
    pub why: Why,
    /// Who wrote it last, as far as known; 0 when not.
    pub writer: u32,
    /// When it was inspected, nanoseconds since boot.
    pub boot_ns: u64,
}

/// News for the inventory.
#[derive(Clone, Debug)]
pub enum InventoryUpdate {
    Inspected(Box<FileInspection>),
    /// A file (kernel device number, inode) that holds nothing.
    Clean {
        device: u64,
        inode: u64,
    },
    /// There is no such file any more.
    Gone {
        root: PathBuf,
        raw: Vec<u8>,
    },
    /// A file was read and could not be inspected in that version: what is found under its name soon after may have been in it.
    Unread(Unread),
}

/// Under which name a file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// That of its directory; empty at the root of a file system.
    pub parent: Vec<u8>,
    pub name: Vec<u8>,
    pub boot_ns: u64,
}
