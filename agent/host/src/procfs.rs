//! What /proc says about a process. Entries vanish and lie while they are read: every field is optional.

use keytrail_model::{ExeFacts, Pid, PipeId};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The facts of one /proc/PID.
#[derive(Debug, Default)]
pub struct ProcFacts {
    pub start: u64,
    pub ppid: u32,
    pub comm: String,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub ns_tgid: u32,
    pub loginuid: u32,
    pub session: u32,
}

/// Pids of all processes now, in ascending order.
#[must_use]
pub fn list_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

pub fn path(tgid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{tgid}/{name}"))
}

/// Reads the identity of a process; `None` when it is gone or is a kernel thread's odd entry.
pub fn facts(tgid: u32) -> Option<ProcFacts> {
    let (comm, ppid, start) = stat(tgid)?;
    let mut facts = ProcFacts {
        start,
        ppid,
        comm,
        ns_tgid: tgid,
        ..ProcFacts::default()
    };
    if let Some(status) = text(tgid, "status") {
        for line in status.lines() {
            let mut words = line.split_ascii_whitespace();
            let key = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|w| w.parse().ok());
            match key {
                "Uid:" => {
                    facts.uid = number().unwrap_or_default();
                    facts.euid = number().unwrap_or_default();
                }
                "Gid:" => facts.gid = number().unwrap_or_default(),
                "NSpid:" => {
                    facts.ns_tgid = words
                        .next_back()
                        .and_then(|w| w.parse().ok())
                        .unwrap_or(tgid)
                }
                _ => {}
            }
        }
    }
    let audit = |name| {
        text(tgid, name)
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(u32::MAX)
    };
    facts.loginuid = audit("loginuid");
    facts.session = audit("sessionid");
    Some(facts)
}

/// Name, parent and start time (clock ticks since boot) from /proc/PID/stat. The name may contain anything, `)` too.
fn stat(tgid: u32) -> Option<(String, u32, u64)> {
    let stat = text(tgid, "stat")?;
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let comm = stat.get(open + 1..close)?.to_owned();
    let mut fields = stat.get(close + 1..)?.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    // starttime is field 22; `state` was field 3 and ppid field 4.
    let start = fields.nth(17)?.parse().ok()?;
    Some((comm, ppid, start))
}

/// The identity of a pid now.
pub fn pid_of(tgid: u32) -> Option<Pid> {
    stat(tgid).map(|(_, _, start)| Pid { tgid, start })
}

fn text(tgid: u32, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path(tgid, name))
        .ok()?
        .take(64 * 1024)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process of a thread (or process) with this number; `None` when it is gone.
pub fn tgid_of(number: u32) -> Option<u32> {
    let status = text(number, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// The executable: path as the process sees it, device (kernel encoding) and inode.
pub fn exe(tgid: u32) -> Option<ExeFacts> {
    let link = path(tgid, "exe");
    let target = fs::read_link(&link).ok()?;
    let meta = fs::metadata(&link).ok();
    Some(ExeFacts {
        path: target.to_string_lossy().into_owned(),
        device: meta
            .as_ref()
            .map_or(0, |m| u64::from(crate::kernel_device(m.dev()))),
        inode: meta.map_or(0, |m| m.ino()),
        // It ran before anybody looked.
        fresh: false,
        upper_layer: false,
    })
}

/// The pipe that a descriptor of a process is an end of.
pub fn pipe(tgid: u32, descriptor: u32) -> Option<PipeId> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs::metadata(path(tgid, &format!("fd/{descriptor}"))).ok()?;
    meta.file_type().is_fifo().then(|| PipeId {
        device: u64::from(crate::kernel_device(meta.dev())),
        inode: meta.ino(),
    })
}

pub fn cwd(tgid: u32) -> Option<String> {
    Some(
        fs::read_link(path(tgid, "cwd"))
            .ok()?
            .to_string_lossy()
            .into_owned(),
    )
}

/// Who traces this process (its first thread), as it counts processes; 0 when nobody does.
#[must_use]
pub fn tracer() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// What `kernel.core_pattern` says (core(5)), 127 bytes at most; empty when it cannot be read.
#[must_use]
pub fn core_pattern() -> String {
    let text = fs::read("/proc/sys/kernel/core_pattern").unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// The cgroup path that says most: the unified one unless that is the root, then systemd's or any other.
pub fn cgroup(tgid: u32) -> Option<String> {
    Some(best_cgroup(&cgroups(tgid)?))
}

/// /proc/PID/cgroup.
pub fn cgroups(tgid: u32) -> Option<String> {
    text(tgid, "cgroup")
}

/// The lines of /proc/PID/cgroup: number of the hierarchy, controllers, path.
pub fn cgroup_lines(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    })
}

/// As [`cgroup`], of a text that was read.
pub fn best_cgroup(text: &str) -> String {
    let mut best = String::new();
    for (id, controllers, path) in cgroup_lines(text) {
        let better = (id == "0" && path != "/")
            || best.is_empty()
            || (best == "/" && path != "/")
            || (controllers == "name=systemd" && best == "/");
        if better {
            path.clone_into(&mut best);
        }
        if id == "0" && path != "/" {
            break;
        }
    }
    best
}

/// Inode of a namespace, for example `mnt` or `net`.
pub fn namespace(tgid: u32, name: &str) -> Option<u32> {
    let link = fs::read_link(path(tgid, &format!("ns/{name}"))).ok()?;
    let text = link.to_str()?;
    text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// Inode of the agent's own mount namespace, which it never leaves; 0 when it cannot be read.
pub fn own_mnt_ns() -> u32 {
    static OWN: OnceLock<u32> = OnceLock::new();
    *OWN.get_or_init(|| namespace(std::process::id(), "mnt").unwrap_or(0))
}

/// Inode of the host's mount namespace, which is that of PID 1: an agent in a pod or in a service's sandbox is in another. The
/// agent's own where that cannot be determined.
pub fn host_mnt_ns() -> u32 {
    static HOST: OnceLock<u32> = OnceLock::new();
    *HOST.get_or_init(|| namespace(1, "mnt").unwrap_or_else(own_mnt_ns))
}

/// The root of the host's files as the agent reaches it.
pub fn host_root() -> &'static Path {
    Path::new(if host_mnt_ns() == own_mnt_ns() {
        "/"
    } else {
        "/proc/1/root"
    })
}

/// The process through which the files of another mount namespace are best reached: PID 1 where it is the host's own,
/// which an agent in a service's sandbox is not in. Any other process may end at once, and the way through it with it.
pub fn lasting(tgid: u32) -> u32 {
    match namespace(tgid, "mnt") {
        Some(ns) if namespace(1, "mnt") == Some(ns) => 1,
        _ => tgid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_entry_is_read() {
        let me = std::process::id();
        let facts = facts(me).expect("own /proc entry");
        assert_eq!(facts.ns_tgid, me);
        assert!(facts.start > 0);
        assert!(exe(me).expect("own exe").inode > 0);
        assert!(namespace(me, "mnt").is_some());
    }

    #[test]
    fn a_process_that_is_not_there_is_none() {
        assert!(facts(u32::MAX - 1).is_none());
    }
}
