//! What happened to a followed file, told from what it was, what lies under its name now, and what the kernel said of the
//! file itself. Nothing is told that another course of things explains as well.

use super::Keeper;
use super::follow::{Kept, Path as Way, mount_of, real};
use super::queue::By;
use crate::files::{self, Version};
use keytrail_model::{FileAccess, FileAction, FileFacts};
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// Change times come from a clock that ticks (CONFIG_HZ of 100 at least).
const TICK_NS: u64 = 20_000_000;

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub action: FileAction,
    /// As in `keytrail_model::FileChange`.
    pub new_path: String,
    pub link: String,
}

/// What happened to a file between two looks.
#[derive(Clone, Debug)]
pub struct Life {
    pub before: FileFacts,
    pub acts: Vec<Act>,
    /// Who did it; 0 when that is not known.
    pub writer: u32,
    pub boot_ns: u64,
}

impl Life {
    /// Something was mounted over the file.
    #[must_use]
    pub fn covers(&self) -> bool {
        self.acts
            .iter()
            .any(|act| act.action == FileAction::Covered)
    }
}

/// Where the file is that lay under a followed name.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// It has no name any more.
    Gone,
    /// Proven: this path leads to it.
    At(Vec<u8>),
    /// It has a name, which is not known.
    Somewhere,
    Unknown,
}

impl Keeper {
    /// What happened to a file since it was last looked up; `now` is what lies under its name.
    pub(super) fn life(
        &mut self,
        way: &Way,
        before: &Kept,
        now: Option<&Version>,
        by: By,
    ) -> Option<Life> {
        let acts = match now {
            Some(now) if now.id == before.version.id => self.same_file(way, before, now),
            _ => self.other_file(way, before, now).into_iter().collect(),
        };
        (!acts.is_empty()).then(|| Life {
            before: FileFacts {
                path: String::from_utf8_lossy(&way.raw).into_owned(),
                ..before.version.facts.clone()
            },
            acts,
            writer: by.pid,
            boot_ns: by.at_ns,
        })
    }

    fn same_file(&mut self, way: &Way, before: &Kept, now: &Version) -> Vec<Act> {
        let mut acts = Vec::new();
        if FileAccess::of(&before.version.facts) != FileAccess::of(&now.facts) {
            acts.push(act(FileAction::Permissions, &[]));
        }
        if now.links > before.version.links && before.version.links > 0 {
            // Of several names the newest is found first.
            let name = match self.whereabouts(way, before) {
                Whereabouts::At(path) if path != before.real => path,
                _ => Vec::new(),
            };
            acts.push(act(FileAction::Linked, &name));
        }
        acts
    }

    fn other_file(&mut self, way: &Way, before: &Kept, now: Option<&Version>) -> Option<Act> {
        let at = self.whereabouts(way, before);
        let happened = before.happened;
        let reported = happened.attributes || happened.moved || happened.deleted;
        if !reported && at != Whereabouts::Gone && self.is_covered(way, before, now.is_some()) {
            return Some(act(FileAction::Covered, &[]));
        }
        if matches!(&at, Whereabouts::At(path) if *path == before.real) {
            // It lies where it lay, and a symbolic link on the way leads elsewhere.
            let now = now.filter(|now| is_new(before, now));
            return now.map(|_| act(FileAction::Replaced, &[]));
        }
        if let Some(now) = now {
            let elsewhere = match at {
                Whereabouts::At(path) => path,
                _ => Vec::new(),
            };
            // What lay there before may be seen again, when something is unmounted.
            return (reported || is_new(before, now)).then(|| Act {
                link: links_to(way, before),
                ..act(FileAction::Replaced, &elsewhere)
            });
        }
        match at {
            Whereabouts::At(path) => Some(act(FileAction::Moved, &path)),
            Whereabouts::Gone if happened.attributes || happened.deleted || lacks(way, before) => {
                Some(act(FileAction::Deleted, &[]))
            }
            Whereabouts::Somewhere | Whereabouts::Unknown if happened.moved => {
                Some(act(FileAction::Moved, &[]))
            }
            Whereabouts::Unknown if happened.deleted => Some(act(FileAction::Deleted, &[])),
            Whereabouts::Somewhere | Whereabouts::Unknown
                if happened.attributes && lacks(way, before) =>
            {
                Some(act(FileAction::Deleted, &[]))
            }
            _ => None,
        }
    }

    /// Whether the path leads through another mount than before, and that one is there still: after an unmount it is not.
    fn is_covered(&self, way: &Way, before: &Kept, there: bool) -> bool {
        let here = if there {
            self.followed.get(way).map_or(0, |kept| kept.mount)
        } else {
            mount_above(way)
        };
        let known = before.mount != 0 && here != 0;
        known && here != before.mount && is_mounted(way, before.mount)
    }

    fn whereabouts(&mut self, way: &Way, before: &Kept) -> Whereabouts {
        let Some(key) = &before.key else {
            return Whereabouts::Unknown;
        };
        let (root, file) = match self.places.open(key) {
            Some(Ok(found)) => found,
            Some(Err(e)) if Errno::from_io_error(&e) == Some(Errno::STALE) => {
                return Whereabouts::Gone;
            }
            _ => return Whereabouts::Unknown,
        };
        let at = named(&way.root, &root, &file, before);
        self.followed.release(key, &file);
        at
    }
}

fn act(action: FileAction, new_path: &[u8]) -> Act {
    Act {
        action,
        new_path: String::from_utf8_lossy(new_path).into_owned(),
        link: String::new(),
    }
}

/// Where a name leads that is a symbolic link now, and was the file's own.
fn links_to(way: &Way, before: &Kept) -> String {
    if before.real != way.raw {
        return String::new();
    }
    let link = files::open_root(&way.root)
        .and_then(|root| files::open_in(root.as_fd(), &way.raw, OFlags::PATH | OFlags::NOFOLLOW))
        .and_then(|name| rustix::fs::readlinkat(&name, "", Vec::new()));
    link.map(|target| target.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The name of an open file, if it leads there in the view that is asked about.
fn named(asked: &Path, root: &Path, file: &OwnedFd, before: &Kept) -> Whereabouts {
    match files::version(file, "") {
        Ok(Some(version)) if version.links == 0 => return Whereabouts::Gone,
        Ok(Some(version)) if version.id == before.version.id => {}
        _ => return Whereabouts::Unknown,
    }
    let Some(path) = real(file).filter(|_| asked == root) else {
        return Whereabouts::Somewhere;
    };
    let text = String::from_utf8_lossy(&path).into_owned();
    let there = files::open_root(root)
        .and_then(|root| files::open_in(root.as_fd(), &text, OFlags::PATH | OFlags::NOFOLLOW))
        .and_then(|fd| files::version(fd, ""));
    match there {
        Ok(Some(version)) if version.id == before.version.id => Whereabouts::At(path),
        // Covered: the mount it is on has it where it was.
        _ if path == before.real => Whereabouts::At(path),
        _ => Whereabouts::Somewhere,
    }
}

/// Whether a file was put (made, renamed) where it is after the last look. A rename changes the change time.
fn is_new(before: &Kept, now: &Version) -> bool {
    now.facts.ctime_ns.saturating_add(TICK_NS) >= before.looked_ns
}

/// Whether the directory of a followed file is there, on the same file system, and has no such name.
fn lacks(way: &Way, before: &Kept) -> bool {
    let mut parts = way.raw.rsplitn(2, |b| *b == b'/');
    let (Some(name), Some(parent)) = (parts.next(), parts.next()) else {
        return false;
    };
    let dir = files::open_root(&way.root)
        .and_then(|root| files::open_in(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY));
    let Ok(dir) = dir else { return false };
    let device = rustix::fs::fstat(&dir).map(|s| keytrail_host::kernel_device(s.st_dev));
    let same = device.is_ok_and(|device| u64::from(device) == before.version.facts.device);
    same && matches!(
        rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW),
        Err(Errno::NOENT)
    )
}

/// The mount of the nearest directory above a path; 0 when it is not known.
fn mount_above(way: &Way) -> u64 {
    let Ok(root) = files::open_root(&way.root) else {
        return 0;
    };
    let path = String::from_utf8_lossy(&way.raw).into_owned();
    let above = Path::new(&path).ancestors().skip(1);
    let dirs = above.filter_map(|dir| {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        files::open_in(root.as_fd(), dir.to_str()?, flags).ok()
    });
    dirs.map(|dir| mount_of(&dir)).next().unwrap_or(0)
}

/// Whether there is a mount of this number where the path is looked up (the first field of a line of mountinfo).
fn is_mounted(way: &Way, mount: u64) -> bool {
    let process = way.root.parent().filter(|p| p.starts_with("/proc/"));
    let table = process.unwrap_or(Path::new("/proc/self")).join("mountinfo");
    let table = std::fs::read(table).unwrap_or_default();
    let number = format!("{mount} ");
    table
        .split(|b| *b == b'\n')
        .any(|line| line.starts_with(number.as_bytes()))
}
