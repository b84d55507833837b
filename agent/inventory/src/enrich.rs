//! Adds to places what the host's records say about them: user and group names, homes, packages, git work trees.

use super::facts::{self, GitTrees, Packages, Reader, Users, packages};
use super::model::{Entry, FileLocation, Location};
use super::names;
use super::walk::Root;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};

/// Work trees are looked up for this many places of one credential.
const MAX_GIT: usize = 64;
/// Access control lists are read for this many places of one credential.
const MAX_ACL: usize = 64;

/// Who answers for the files below a root: the root itself when it is a whole system, else the host.
struct Records {
    fd: OwnedFd,
    /// The root's path below `fd`, with a slash at its end; empty when both are one.
    prefix: Vec<u8>,
    /// What is put before a path below `fd` when it is shown.
    shown: Vec<u8>,
}

impl Records {
    fn of(root: &Root) -> Option<Records> {
        let own = root.fd.try_clone().ok()?;
        let system = rustix::fs::statat(&own, c"etc/passwd", AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if system || root.shown.is_empty() {
            return Some(Records {
                fd: own,
                prefix: Vec::new(),
                shown: root.shown.clone(),
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(c"/", flags, Mode::empty()).ok()?;
        let prefix = [root.shown.strip_prefix(b"/").unwrap_or(&root.shown), b"/"].concat();
        Some(Records {
            fd,
            prefix,
            shown: Vec::new(),
        })
    }

    fn path(&self, raw: &[u8]) -> Vec<u8> {
        [&self.prefix, raw].concat()
    }
}

/// Records that were not read: path and reason.
pub type Unread = Vec<(String, String)>;

/// Fills in the facts of every place. The first root answers for processes.
pub fn enrich(entries: &mut [Entry], roots: &[Root]) -> Unread {
    let mut unread = Unread::new();
    for (index, root) in roots.iter().enumerate() {
        if index == 0
            && let Some(records) = Records::of(root)
        {
            people(entries, &Users::read(&records.fd));
        }
        unread.extend(enrich_files(entries, index, root));
    }
    // The roots of containers may have one root answer for them.
    unread.sort();
    unread.dedup();
    unread
}

/// Fills in the facts of the files that are below one root.
pub fn enrich_files(entries: &mut [Entry], index: usize, root: &Root) -> Unread {
    let mut unread = Unread::new();
    if let Some(records) = Records::of(root) {
        let users = Users::read(&records.fd);
        let mut git = GitTrees::new(&records.fd);
        let mut wanted = Vec::new();
        for entry in entries.iter_mut() {
            for (n, f) in files_of(entry, index).enumerate() {
                let path = records.path(&f.raw);
                f.user = users.name(f.uid);
                f.group = users.group(f.gid);
                f.shared_group = users.shared(f.gid, f.uid);
                f.home_of = users
                    .home_of(&path)
                    .map(|(name, _)| name.to_owned())
                    .unwrap_or_default();
                if n < MAX_ACL {
                    acl(f, &records.fd, &path, &users);
                }
                if n < MAX_GIT {
                    f.git = git.facts(&path, &records.shown);
                }
                wanted.push([b"/", path.as_slice()].concat());
            }
        }
        let units = facts::units(records.fd.as_fd(), &wanted);
        let Packages {
            owners,
            digests,
            unread: stores,
        } = packages(&records.fd, wanted);
        for (path, why) in stores {
            let path = names::escape(&[&records.shown, b"/".as_slice(), path].concat());
            unread.push((path, why.to_owned()));
        }
        for f in entries.iter_mut().flat_map(|e| files_of(e, index)) {
            let path = [b"/", records.path(&f.raw).as_slice()].concat();
            if let Some(package) = owners.get(path.as_slice()) {
                f.package.clone_from(package);
            }
            f.shipped = digests
                .get(path.as_slice())
                .is_some_and(|digest| facts::is_shipped(&records.fd, &path, *digest));
            if let Some(unit) = units.get(&path) {
                f.unit.clone_from(unit);
            }
        }
    }
    unread
}

/// Who may read a file by its access control list. With one, the mode's group bits are its mask and say nothing of the
/// file's own group, whose members then count for nothing.
fn acl(f: &mut FileLocation, root: &OwnedFd, path: &[u8], users: &Users) {
    let Some(file) = facts::handle(root, path) else {
        return;
    };
    let Some((readers, own_group)) = facts::readers(&file) else {
        return;
    };
    if !own_group {
        f.shared_group = false;
    }
    let name = |word: &str, name: String, id: u32| {
        if name.is_empty() {
            format!("{word} {id}")
        } else {
            format!("{word} {name}")
        }
    };
    f.acl = readers
        .into_iter()
        // The owner and root read it anyway.
        .filter(|r| *r != Reader::User(f.uid) && *r != Reader::User(0))
        .map(|reader| match reader {
            Reader::User(id) => name("user", users.name(id), id),
            Reader::Group(id) => name("group", users.group(id), id),
        })
        .collect();
}

/// User names of processes and sockets of the host.
fn people(entries: &mut [Entry], users: &Users) {
    for place in entries.iter_mut().flat_map(|e| &mut e.places) {
        match place {
            Location::Process(p) if p.container.is_empty() => p.user = users.name(p.uid),
            Location::Socket(s) if s.container.is_empty() => s.user = users.name(s.uid),
            _ => {}
        }
    }
}

fn files_of(entry: &mut Entry, root: usize) -> impl Iterator<Item = &mut FileLocation> {
    entry.places.iter_mut().filter_map(move |p| match p {
        Location::File(f) if f.root == root => Some(f),
        _ => None,
    })
}
