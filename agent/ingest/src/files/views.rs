//! One file, several paths: as its reader has it, and as the host has it.
//!
//! The mount table of a namespace says where a file system, or a part of it, is shown there, and of which directories an
//! overlay is made. So a path of one namespace is one of another, where both show the file, and nothing has to be opened:
//! that could wait for a file system. Where more than one place would do, or none, nothing is said.

use super::read;
use keytrail_host::mounts::{self, Mount};
use keytrail_host::procfs;
use keytrail_model::FileFacts;
use rustix::fs::OFlags;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Namespaces whose tables are kept; the one read first goes first.
const MAX_VIEWS: usize = 256;
/// Roots of which it is remembered whose they are.
const MAX_ROOTS: usize = 1_024;
/// A table is read again after this time.
const FRESH_NS: u64 = 10_000_000_000;

struct View {
    mounts: Vec<Mount>,
    read_ns: u64,
}

/// What mount namespaces show.
#[derive(Default)]
pub struct Views {
    of: BTreeMap<u32, View>,
    /// Processes in another mount namespace than the host's, as the kernel reported it when they began their program.
    away: HashMap<u32, u32>,
    /// The namespace behind `/proc/PID/root`, whose process may be gone.
    roots: BTreeMap<PathBuf, u32>,
}

impl Views {
    /// A process has begun a program in this mount namespace. Its table is read at once: it may not live long.
    pub fn begun(&mut self, tgid: u32, mnt_ns: u32, boot_ns: u64) {
        if mnt_ns == 0 || mnt_ns == procfs::own_mnt_ns() || mnt_ns == procfs::host_mnt_ns() {
            self.away.remove(&tgid);
            return;
        }
        self.away.insert(tgid, mnt_ns);
        self.refresh(mnt_ns, tgid, boot_ns);
    }

    /// What is kept of a process outlives it: what it wrote is reported later. Its number may be another's by now.
    pub fn forked(&mut self, parent: u32, child: u32) {
        match self.away.get(&parent).copied() {
            Some(ns) => self.away.insert(child, ns),
            None => self.away.remove(&child),
        };
    }

    pub fn forget_dead(&mut self, lives: impl Fn(u32) -> bool) {
        self.away.retain(|tgid, _| lives(*tgid));
    }

    /// The facts of a file with its path as this process has it, and beside it the host's.
    pub fn seen_by(
        &mut self,
        tgid: u32,
        root: &Path,
        mut facts: FileFacts,
        boot_ns: u64,
    ) -> FileFacts {
        let host_ns = procfs::host_mnt_ns();
        let Some(reader) = self.namespace(tgid) else {
            return facts;
        };
        let known = self.behind(root, tgid, reader);
        if known == Some(host_ns) && reader == host_ns {
            return facts;
        }
        let Some(known) = known else {
            return facts;
        };
        let path = std::mem::take(&mut facts.path);
        let across = |views: &mut Self, from: u32, to: u32| {
            for ns in [from, to] {
                let through = if ns == reader { tgid } else { 0 };
                views.refresh(ns, through, boot_ns);
            }
            let (from, to) = (views.of.get(&from)?, views.of.get(&to)?);
            translate(&from.mounts, &path, &to.mounts)
        };
        let host = if known == host_ns {
            Some(path.clone())
        } else if facts.host_path.is_empty() {
            across(self, known, host_ns)
        } else {
            Some(std::mem::take(&mut facts.host_path))
        };
        let seen = if reader == known {
            Some(path.clone())
        } else if reader == host_ns {
            host.clone()
        } else {
            across(self, known, reader)
        };
        facts.path = seen.unwrap_or(path);
        facts.host_path = host.filter(|host| *host != facts.path).unwrap_or_default();
        facts
    }

    /// A path of the host as this process has it, where it is one of a layer of its overlay.
    pub fn in_overlay(&mut self, tgid: u32, path: &str, boot_ns: u64) -> Option<String> {
        let ns = self.namespace(tgid)?;
        if ns == procfs::host_mnt_ns() {
            return None;
        }
        self.refresh(ns, tgid, boot_ns);
        let seen = through_layers(path.as_bytes(), &self.of.get(&ns)?.mounts)?;
        String::from_utf8(seen).ok()
    }

    /// The mount namespace of a process, which may be gone.
    fn namespace(&self, tgid: u32) -> Option<u32> {
        let recorded = self.away.get(&tgid).copied();
        procfs::namespace(tgid, "mnt").or(recorded)
    }

    /// The namespace to which a root belongs.
    fn behind(&mut self, root: &Path, tgid: u32, reader: u32) -> Option<u32> {
        if root == Path::new("/") {
            return Some(procfs::own_mnt_ns());
        }
        let of = root.to_str()?.strip_prefix("/proc/")?;
        let of: u32 = of.strip_suffix("/root")?.parse().ok()?;
        let now = if of == tgid {
            Some(reader)
        } else {
            self.namespace(of)
        };
        match now {
            Some(ns) => {
                if self.roots.len() >= MAX_ROOTS && !self.roots.contains_key(root) {
                    self.roots.pop_first();
                }
                self.roots.insert(root.to_owned(), ns);
                Some(ns)
            }
            None => self.roots.get(root).copied(),
        }
    }

    /// Reads the table of a namespace through one of its processes, where it is not known.
    fn refresh(&mut self, ns: u32, tgid: u32, boot_ns: u64) {
        let is_fresh = |view: &View| view.read_ns.saturating_add(FRESH_NS) >= boot_ns;
        if self.of.get(&ns).is_some_and(is_fresh) {
            return;
        }
        let through = if ns == procfs::own_mnt_ns() {
            std::process::id()
        } else if ns == procfs::host_mnt_ns() {
            1
        } else {
            tgid
        };
        let mounts = mounts::read(Path::new(&format!("/proc/{through}/mountinfo")));
        // Of a process that is gone or has moved on nothing is learnt.
        if !mounts.is_empty() && procfs::namespace(through, "mnt") == Some(ns) {
            self.make_room(ns);
            let view = View {
                mounts,
                read_ns: boot_ns,
            };
            self.of.insert(ns, view);
        }
    }

    fn make_room(&mut self, ns: u32) {
        if self.of.len() < MAX_VIEWS || self.of.contains_key(&ns) {
            return;
        }
        let oldest = self.of.iter().min_by_key(|(_, view)| view.read_ns);
        if let Some(oldest) = oldest.map(|(ns, _)| *ns) {
            self.of.remove(&oldest);
        }
    }
}

/// Where the host has what lies at a path of a container's overlay: in the first of its layers that has it. It is looked up
/// there, and has to be the very inode.
pub fn in_layers(root: &Path, path: &str, inode: u64) -> Option<String> {
    let host = procfs::host_root();
    if root == Path::new("/") || root == host {
        return None;
    }
    let table = mounts::read(&root.with_file_name("mountinfo"));
    let mount = covering(&table, path.as_bytes())?;
    let inner = join(&mount.root, below(path.as_bytes(), &mount.point)?);
    let top = read::open_root(host).ok()?;
    for layer in &mount.layers {
        let there = String::from_utf8(join(layer, &inner)).ok()?;
        let Ok(fd) = read::open_in(top.as_fd(), &there, OFlags::PATH) else {
            continue;
        };
        let found = read::version(&fd, "").ok()??;
        return (found.id.ino == inode).then_some(there);
    }
    None
}

/// A path of one table as a path of another.
fn translate(from: &[Mount], path: &str, to: &[Mount]) -> Option<String> {
    let path = path.as_bytes();
    let found = through_layers(path, to).or_else(|| {
        let mount = covering(from, path)?;
        let inner = join(&mount.root, below(path, &mount.point)?);
        shown(to, mount.device, &inner)
    })?;
    String::from_utf8(found).ok()
}

/// Where a table shows this part of a file system; `None` when nowhere, or another mount lies above it.
fn shown(to: &[Mount], device: u32, inner: &[u8]) -> Option<Vec<u8>> {
    to.iter()
        .filter(|mount| mount.device == device)
        .find_map(|mount| at(to, mount, below(inner, &mount.root)?))
}

/// Where an overlay of this table shows what lies in one of its layers.
fn through_layers(path: &[u8], to: &[Mount]) -> Option<Vec<u8>> {
    to.iter()
        .filter(|mount| !mount.layers.is_empty())
        .find_map(|mount| {
            let rest = mount.layers.iter().find_map(|layer| below(path, layer))?;
            at(to, mount, below(rest, &mount.root)?)
        })
}

/// The path at a mount, if it is that mount which is seen there.
fn at(to: &[Mount], mount: &Mount, rest: &[u8]) -> Option<Vec<u8>> {
    let path = join(&mount.point, rest);
    covering(to, &path)
        .is_some_and(|seen| std::ptr::eq(seen, mount))
        .then_some(path)
}

/// The mount that is seen at a path: the deepest, and of two on one point the later one.
fn covering<'a>(table: &'a [Mount], path: &[u8]) -> Option<&'a Mount> {
    table
        .iter()
        .filter(|mount| below(path, &mount.point).is_some())
        .max_by_key(|mount| mount.point.len())
}

/// What is left of a path below a directory: empty, or beginning with a slash.
fn below<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    if dir == b"/" {
        return path.starts_with(b"/").then_some(path);
    }
    let rest = path.strip_prefix(dir)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

fn join(dir: &[u8], rest: &[u8]) -> Vec<u8> {
    let dir = if dir == b"/" { &b""[..] } else { dir };
    let path = [dir, rest].concat();
    if path.is_empty() { b"/".to_vec() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Vec<Mount> {
        mounts::parse(text.as_bytes()).collect()
    }

    const HOST: &str =
        "22 1 254:1 / / rw - ext4 /dev/vda rw\n23 22 0:20 / /run rw - tmpfs tmpfs rw\n";
    /// Root of two layers below one that is written to, a file and a directory of the host, and what hides a part.
    const INSIDE: &str = "90 80 0:50 / / rw - overlay overlay rw,lowerdir=/var/l/2/fs:/var/l/1/fs,upperdir=/var/l/3/fs,workdir=/w\n\
        91 90 254:1 /srv/token /run/secrets/token ro - ext4 /dev/vda rw\n\
        92 90 254:1 /srv/data /data rw - ext4 /dev/vda rw\n\
        93 92 0:60 / /data/hidden rw - tmpfs tmpfs rw\n";

    #[test]
    fn paths_lead_into_a_container_and_out_of_it() {
        let (host, inside) = (table(HOST), table(INSIDE));
        let to = |path: &str| translate(&host, path, &inside);
        for (path, expected) in [
            (
                "/var/l/3/fs/root/.aws/credentials",
                Some("/root/.aws/credentials"),
            ),
            ("/var/l/1/fs/etc/token", Some("/etc/token")),
            ("/srv/token", Some("/run/secrets/token")),
            ("/srv/data/a/b", Some("/data/a/b")),
            ("/srv/data/hidden/b", None),
            ("/srv/tokens", None),
            ("/var/l/33/fs/x", None),
            ("/run/x", None),
        ] {
            assert_eq!(to(path).as_deref(), expected, "{path}");
        }
        let back = |path: &str| translate(&inside, path, &host);
        assert_eq!(back("/run/secrets/token").as_deref(), Some("/srv/token"));
        assert_eq!(back("/data/a").as_deref(), Some("/srv/data/a"));
        // Which layer it is in, the table does not say.
        assert_eq!(back("/root/.aws/credentials"), None);
    }

    #[test]
    fn an_overlay_that_renames_directories_is_left_alone() {
        let text = INSIDE.replace("workdir=/w", "workdir=/w,redirect_dir=on");
        let to = translate(&table(HOST), "/var/l/3/fs/x", &table(&text));
        assert_eq!(to, None);
    }
}
