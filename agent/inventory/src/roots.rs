//! What is walked: the host's root (or a directory), and the roots of containers, reached through their processes.

use super::model::Reach;
use super::walk::Root;
use keytrail_host::mounts as host_mounts;
use keytrail_host::procfs;
use keytrail_host::verdict::{self, MountTable, Verdict};
use keytrail_model::Workload;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Mount namespaces walked beside our own.
const MAX_NAMESPACES: usize = 1_024;

/// A directory as root.
///
/// # Errors
/// It does not exist, is no directory, may not be entered, or is a pseudo file system.
pub fn directory(path: &Path) -> io::Result<Root> {
    let real = std::fs::canonicalize(path)?;
    let fd = open_dir(&real)?;
    if verdict::by_magic(rustix::fs::fstatfs(&fd)?.f_type as u64) == Verdict::Pseudo {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            Verdict::Pseudo.reason(),
        ));
    }
    let mounts = MountTable::new(host_mounts::read(Path::new("/proc/self/mountinfo"))).below(&real);
    let shown = real.as_os_str().as_bytes();
    Ok(Root {
        fd,
        shown: shown.strip_suffix(b"/").unwrap_or(shown).to_vec(),
        mounts,
        container: String::new(),
        pod: String::new(),
        reach: reach_of(&real),
        layer_device: None,
        starts: vec![Vec::new()],
    })
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Who reaches a directory: what the directories above it allow, its own mode left out.
pub fn reach_of(real: &Path) -> Reach {
    let mut above: Vec<&Path> = real.ancestors().skip(1).collect();
    above.reverse();
    above
        .into_iter()
        .fold(Reach::World, |reach, dir| match rustix::fs::stat(dir) {
            Ok(stat) => reach.through(stat.st_mode, stat.st_gid),
            Err(_) => Reach::Owner,
        })
}

/// The roots of other mount namespaces. `host` is the root of our own.
///
/// A namespace with our own root directory (a service with PrivateTmp=) adds only the mounts the host does not have.
/// Whether a user of the host reaches files of a container depends on directories outside its view: nobody is taken to,
/// so `reach` is about users inside.
#[must_use]
pub fn containers(host: &Root) -> Vec<Root> {
    let mut roots = Vec::new();
    // Layers are named as the host sees them, whatever root was asked for.
    let top = open_dir(Path::new("/")).ok();
    let mut namespaces = HashSet::from([procfs::namespace(std::process::id(), "mnt")]);
    let devices: HashSet<u32> = host.mounts.iter().map(|m| m.device).collect();
    // Several namespaces (the containers of one pod, a service and its helpers) may have one root.
    let mut seen: HashMap<(u64, u64), HashSet<u32>> = HashMap::new();
    if let Ok(stat) = rustix::fs::fstat(&host.fd) {
        seen.insert((stat.st_dev, stat.st_ino), devices.clone());
    }
    for pid in procfs::list_pids() {
        let Some(namespace) = procfs::namespace(pid, "mnt") else {
            continue;
        };
        if namespaces.len() > MAX_NAMESPACES || !namespaces.insert(Some(namespace)) {
            continue;
        }
        let Ok(fd) = open_dir(Path::new(&format!("/proc/{pid}/root"))) else {
            continue;
        };
        let Ok(stat) = rustix::fs::fstat(&fd) else {
            continue;
        };
        let table = MountTable::new(host_mounts::read(Path::new(&format!(
            "/proc/{pid}/mountinfo"
        ))));
        let workload = Workload::from_path(&procfs::cgroup(pid).unwrap_or_default());
        let known = seen.entry((stat.st_dev, stat.st_ino)).or_default();
        let new_root = known.is_empty();
        let mut starts = Vec::new();
        if new_root {
            starts.push(Vec::new());
        }
        for mount in table.iter() {
            let fresh = !devices.contains(&mount.device) && known.insert(mount.device);
            let walked = verdict::by_type(&mount.kind, &mount.source) == Verdict::Walk;
            if fresh && walked && !new_root && mount.point != b"/" {
                starts.push(
                    mount
                        .point
                        .strip_prefix(b"/")
                        .unwrap_or(&mount.point)
                        .to_vec(),
                );
            }
        }
        // No device has this number: the root itself is known now.
        known.insert(0);
        // A root that is a pseudo or remote file system (a sandbox with an empty /proc) is not walked.
        if table
            .at(b"/")
            .is_some_and(|m| verdict::by_type(&m.kind, &m.source) != Verdict::Walk)
        {
            starts.retain(|s: &Vec<u8>| !s.is_empty());
        }
        if starts.is_empty() {
            continue;
        }
        let layer_device = table
            .at(b"/")
            .filter(|m| m.kind == "overlay")
            .and_then(|m| layer_device(top.as_ref()?, m));
        roots.push(Root {
            fd,
            shown: Vec::new(),
            mounts: table,
            container: if workload.container.is_empty() {
                format!("mnt:[{namespace}]")
            } else {
                workload.container
            },
            pod: workload.pod,
            reach: Reach::World,
            layer_device,
            starts,
        });
    }
    roots
}

/// The device of an overlay's upper layer, when the host can see that layer.
fn layer_device(top: &OwnedFd, overlay: &verdict::Mount) -> Option<u64> {
    let upper = overlay.upper.as_deref()?.strip_prefix(b"/")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(top, upper, flags, Mode::empty(), resolve).ok()?;
    Some(rustix::fs::fstat(&fd).ok()?.st_dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_as_root() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("in");
        std::fs::create_dir(&inner).unwrap();
        let mode =
            |m| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o755);
        let root = directory(&inner).unwrap();
        assert_eq!(
            root.shown,
            std::fs::canonicalize(&inner)
                .unwrap()
                .as_os_str()
                .as_bytes()
        );
        assert_eq!(
            root.reach,
            reach_of(std::fs::canonicalize(dir.path()).unwrap().as_path())
        );
        mode(0o700);
        assert_eq!(directory(&inner).unwrap().reach, Reach::Owner);
        assert!(directory(&dir.path().join("none")).is_err());
        assert_eq!(directory(Path::new("/")).unwrap().shown, b"");
    }
}
