//! Credentials in the environments and command lines of running processes, and the agent sockets they are pointed to.

use super::merge::Inventory;
use super::model::{Area, Location, ProcessLocation, Reach, SocketLocation};
use super::{names, sockets};
use keytrail_host::areas::area;
use keytrail_host::procfs;
use keytrail_model::{Pid, Workload};
use keytrail_secret::{Classifier, Finding, Fingerprinter};
use rustix::fs::{FileType, OFlags};
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What was inspected, and what was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub looked_at: u64,
    /// Environments that could not be read: another user's, without the capability, or of a process that does not let its
    /// memory be read.
    pub unreadable: u64,
    /// Environments or command lines longer than what is read of one.
    pub truncated: u64,
}

/// Inspects every process but this one.
pub fn scan(
    classifier: &Classifier,
    fingerprinter: &Fingerprinter,
    inventory: &mut Inventory,
    now: i64,
) -> Processes {
    let own = std::process::id();
    let mut scan = Scan {
        classifier,
        fingerprinter,
        inventory,
        now,
        report: Processes::default(),
        sockets: HashMap::new(),
        own_namespace: procfs::namespace(own, "mnt"),
    };
    for pid in procfs::list_pids() {
        if pid != own {
            scan.process(pid);
        }
    }
    scan.report
}

/// An inspection of all processes.
struct Scan<'a> {
    classifier: &'a Classifier,
    fingerprinter: &'a Fingerprinter,
    inventory: &'a mut Inventory,
    now: i64,
    report: Processes,
    /// By container and path.
    sockets: HashMap<(String, Vec<u8>), Option<SocketLocation>>,
    own_namespace: Option<u32>,
}

impl Scan<'_> {
    fn process(&mut self, pid: u32) {
        let Some(facts) = procfs::facts(pid) else {
            return;
        };
        let id = Pid {
            tgid: pid,
            start: facts.start,
        };
        let environment = area(id, facts.uid, "environ");
        let arguments = area(id, facts.uid, "cmdline");
        // The identity is checked again below: a pid that was given to another process between two reads would put one's
        // credentials into the other's account.
        let workload = Workload::from_path(&procfs::cgroup(pid).unwrap_or_default());
        let exe = procfs::exe(pid).map_or(facts.comm.clone(), |e| e.path);
        if procfs::pid_of(pid).map(|p| p.start) != Some(facts.start) {
            return;
        }
        let base = ProcessLocation {
            exe: names::escape(exe.as_bytes()),
            uid: facts.uid,
            unit: workload.unit.clone(),
            container: workload.container.clone(),
            pod: workload.pod.clone(),
            pids: vec![pid],
            count: 1,
            ..ProcessLocation::default()
        };
        match environment {
            Ok((bytes, cut)) => {
                self.report.looked_at += 1;
                self.report.truncated += u64::from(cut);
                self.environment(&base, &bytes);
                self.agent_sockets(pid, &workload.container, &bytes);
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::TimedOut
                ) =>
            {
                self.report.unreadable += 1;
            }
            // Gone.
            Err(_) => {}
        }
        if let Ok((bytes, cut)) = arguments {
            self.report.truncated += u64::from(cut);
            let argv: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
            for (index, finding) in self.classifier.classify_argv(&argv).found {
                self.observe(&base, Area::Argv, index.to_string(), &finding);
            }
        }
    }

    fn environment(&mut self, base: &ProcessLocation, bytes: &[u8]) {
        for (name, finding) in self.classifier.classify_env(variables(bytes)) {
            self.observe(base, Area::Env, names::escape(name.as_bytes()), &finding);
        }
    }

    fn observe(&mut self, base: &ProcessLocation, area: Area, name: String, finding: &Finding) {
        if finding.parts.is_empty() {
            return;
        }
        let place = ProcessLocation {
            area,
            name,
            ..base.clone()
        };
        self.inventory.observe_location(
            &finding.credential(self.fingerprinter),
            Location::Process(place),
            self.now,
        );
    }

    /// The sockets of agents that an environment names.
    fn agent_sockets(&mut self, pid: u32, container: &str, bytes: &[u8]) {
        for (name, value) in variables(bytes) {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            let Some((kind, path)) = sockets::of_variable(name, value) else {
                continue;
            };
            // A path means something else in another mount namespace.
            let elsewhere =
                !container.is_empty() || procfs::namespace(pid, "mnt") != self.own_namespace;
            let root = if elsewhere {
                PathBuf::from(format!("/proc/{pid}/root"))
            } else {
                PathBuf::from("/")
            };
            let place = self
                .sockets
                .entry((container.to_owned(), path.clone()))
                .or_insert_with(|| socket(&root, &path, container));
            let Some(place) = place else { continue };
            let place = SocketLocation {
                name: name.to_owned(),
                count: 1,
                ..place.clone()
            };
            let credential = sockets::credential(kind, container, &place.path, self.fingerprinter);
            self.inventory
                .observe_location(&credential, Location::Socket(place), self.now);
        }
    }
}

/// Names and values of an environment block.
fn variables(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    bytes.split(|b| *b == 0).filter_map(|entry| {
        let equals = memchr::memchr(b'=', entry)?;
        Some((entry.get(..equals)?, entry.get(equals + 1..)?))
    })
}

/// The socket at `path` below `root`; `None` when there is none.
fn socket(root: &Path, path: &[u8], container: &str) -> Option<SocketLocation> {
    use rustix::fs::{AtFlags, Mode, ResolveFlags};
    let root = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let relative = path.strip_prefix(b"/")?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // O_PATH: a socket is named, never opened.
    let fd = rustix::fs::openat2(
        &root,
        relative,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
    .ok()?;
    let stat = rustix::fs::statat(&fd, c"", AtFlags::EMPTY_PATH).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return None;
    }
    let reach = Path::new(std::ffi::OsStr::from_bytes(relative))
        .parent()
        .map_or(Reach::Owner, |parent| {
            let mut reach = Reach::World;
            let mut at = PathBuf::from(".");
            for part in std::iter::once(None).chain(parent.components().map(Some)) {
                if let Some(part) = part {
                    at.push(part);
                }
                let dir = rustix::fs::openat2(
                    &root,
                    &at,
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                    resolve,
                );
                match dir.and_then(|fd| rustix::fs::fstat(&fd)) {
                    Ok(s) => reach = reach.through(s.st_mode, s.st_gid),
                    Err(_) => return Reach::Owner,
                }
            }
            reach
        });
    Some(SocketLocation {
        path: names::escape(path),
        container: container.to_owned(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        reach,
        ..SocketLocation::default()
    })
}
