//! What an inventory says: credentials, the places they are in, and how exposed they are there. No secret bytes.

use keytrail_model::Credential;
use serde::{Deserialize, Serialize};

/// Who can come as far as a file, by the execute permission of the directories above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Everyone.
    World,
    /// Members of this group.
    Group(u32),
    /// The owner and root.
    #[default]
    Owner,
}

impl Reach {
    /// The reach below a directory with this mode and group.
    #[must_use]
    pub fn through(self, mode: u32, gid: u32) -> Reach {
        match self {
            Reach::Owner => Reach::Owner,
            reach if mode & 0o001 != 0 => reach,
            Reach::World if mode & 0o010 != 0 => Reach::Group(gid),
            Reach::Group(group) if mode & 0o010 != 0 && group == gid => self,
            // Two groups in a row: only who is in both gets through; that is not claimed as exposure.
            Reach::Group(_) | Reach::World => Reach::Owner,
        }
    }
}

/// The git work tree a file is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitFacts {
    /// Top directory, escaped.
    pub top: String,
    /// Host and path of the remote `origin` (or the first one), never its user name or password; empty without one.
    pub remote: String,
    /// In the index: committed or about to be.
    pub tracked: bool,
    /// An ignore file names it.
    pub ignored: bool,
}

/// A file with a credential in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileLocation {
    /// As seen on the host, or inside `container` when that is set; escaped as by [`super::names::escape`].
    pub path: String,
    /// Container id, empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// `major << 32 | minor`, and inode.
    pub device: u64,
    pub inode: u64,
    /// Hard links.
    pub links: u64,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: i64,
    pub reach: Reach,
    /// Which one it is among the credentials of its kind in this file.
    pub ordinal: u32,
    /// Only a part of the file was inspected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
    /// User name of the owner, empty when the host does not know the uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Name of the group, as `user`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Others are in the file's group, and it is not an access control list that keeps them out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_group: bool,
    /// User whose home directory it is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub home_of: String,
    /// Package (dpkg, rpm) that installed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// systemd unit that names it: as environment file, as credential, on its command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Users and groups that an access control list lets read it (`user ann`, `group ops`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitFacts>,
    /// The package's own checksum proves that the file is as it was shipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shipped: bool,
    /// As the walk found them; not stored.
    #[serde(skip)]
    pub times: Option<Box<Times>>,
    /// Which walked root it is below, for questions asked after the walk.
    #[serde(skip)]
    pub root: usize,
    /// The path below that root as bytes.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// Times of a file besides [`FileLocation::modified`], seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Last read by somebody; the inventory's own look leaves it alone where it may (see `inspect::open`).
    pub accessed: i64,
    /// Last change of the inode.
    pub changed: i64,
    /// When it was made; 0 where the file system does not say.
    pub born: i64,
}

/// [`FileLocation::root`] of what the agent noted: what the host knows about the file is still to be asked.
pub const JOURNAL: usize = usize::MAX;

/// Where in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    #[default]
    Env,
    Argv,
}

/// Processes of one program that were given a credential in the same way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessLocation {
    pub area: Area,
    /// Name of the environment variable, or index of the argument.
    pub name: String,
    /// Escaped.
    pub exe: String,
    pub uid: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Some of the processes, at most [`MAX_PIDS`].
    pub pids: Vec<u32>,
    /// All of them.
    pub count: u64,
}

/// Processes named in one place.
pub const MAX_PIDS: usize = 16;

/// A socket behind which something holds credentials and uses or hands them out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SocketLocation {
    /// Escaped.
    pub path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub reach: Reach,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Name of the environment variable that named it; empty when the walk found it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Processes that have it in their environment.
    pub count: u64,
}

/// One location of a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Location {
    File(FileLocation),
    Process(ProcessLocation),
    Socket(SocketLocation),
}

impl Location {
    /// Says which place it is, the same in every run: two credentials of one kind under one key, one after the other,
    /// are a rotation.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Location::File(f) => format!("file:{}:{}", f.container, f.path),
            Location::Process(p) => {
                let area = if p.area == Area::Env { "env" } else { "argv" };
                format!(
                    "{area}:{}:{}:{}:{}:{}",
                    p.container, p.unit, p.uid, p.exe, p.name
                )
            }
            Location::Socket(s) => format!("socket:{}:{}", s.container, s.path),
        }
    }

    /// Whether [`Location::key`] is `key`; files, of which there are many, are compared without making theirs.
    #[must_use]
    pub fn is_at(&self, key: &str) -> bool {
        match self {
            Location::File(f) => key
                .strip_prefix("file:")
                .and_then(|rest| rest.strip_prefix(f.container.as_str()))
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|path| path == f.path),
            _ => self.key() == key,
        }
    }

    #[must_use]
    pub fn container(&self) -> &str {
        match self {
            Location::File(f) => &f.container,
            Location::Process(p) => &p.container,
            Location::Socket(s) => &s.container,
        }
    }
}

/// One way in which a credential is worse off than it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exposure {
    /// `world-readable`, `world-writable`, `world-connectable`, `group-readable`, `acl-readable`, `git-work-tree`, `shell-history`,
    /// `in-argv`, `in-env`, `many-places`, `expired`, `older-than-policy`, `in-home-of-other-user`, `published`.
    pub code: String,
    pub detail: String,
}

/// What an entry is to the owner of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// To be kept secret.
    #[default]
    Secret,
    /// A package ships it to everybody, unchanged: its own checksums prove it.
    Public,
    /// In what others published, or in test data and documentation: most likely no secret of this host, and not proven.
    Sample,
}

impl Class {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Secret => "secret",
            Class::Public => "public",
            Class::Sample => "sample",
        }
    }
}

/// One credential with everything known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    pub credential: Credential,
    #[serde(default)]
    pub class: Class,
    /// Seconds since the epoch; when keytrail first saw it.
    pub first_seen: i64,
    /// When it was first seen in a place that held another one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<i64>,
    /// Fingerprint of that other one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous: String,
    pub places: Vec<Location>,
    /// Places beyond the first [`MAX_LOCATIONS`].
    #[serde(default)]
    pub more_places: u64,
    #[serde(default)]
    pub exposures: Vec<Exposure>,
}

/// 1990-01-01: reproducible builds and archives without dates set times up to 1980, which say nothing.
const NO_DATE: i64 = 631_152_000;

/// Places of one credential that are kept.
pub const MAX_LOCATIONS: usize = 256;

impl Entry {
    /// It exists at least since this time: the oldest file with it, or when it was first seen.
    #[must_use]
    pub fn since(&self) -> i64 {
        let files = self.places.iter().filter_map(|p| match p {
            Location::File(f) if f.modified > NO_DATE => Some(f.modified),
            _ => None,
        });
        files
            .chain([self.first_seen])
            .min()
            .unwrap_or(self.first_seen)
    }

    /// Number of places, the ones not kept included.
    #[must_use]
    pub fn place_count(&self) -> u64 {
        self.places.len() as u64 + self.more_places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_narrows_and_never_widens() {
        let w = Reach::World;
        assert_eq!(w.through(0o755, 5), Reach::World);
        assert_eq!(w.through(0o750, 5), Reach::Group(5));
        assert_eq!(w.through(0o750, 5).through(0o755, 9), Reach::Group(5));
        assert_eq!(w.through(0o750, 5).through(0o750, 5), Reach::Group(5));
        assert_eq!(w.through(0o750, 5).through(0o750, 9), Reach::Owner);
        assert_eq!(w.through(0o700, 5).through(0o777, 5), Reach::Owner);
        // Readable but not searchable: nobody opens what is below.
        assert_eq!(w.through(0o744, 5), Reach::Owner);
    }
}
