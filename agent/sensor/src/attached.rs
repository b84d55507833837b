//! Whether what was attached is still at its place. A link on a cgroup can be taken off, or be made to run another
//! program, by whoever may open it by its number (BPF_LINK_DETACH, BPF_LINK_UPDATE); the kernel has neither for the links
//! of tracepoints, trampolines and probes. It says the truth about each to who has its descriptor.

use super::{
    bpf::{self, Link},
    hooks::{self, Hook},
};
use aya::Ebpf;
use keytrail_model::Signal;
use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd as _, RawFd},
};

/// The links of the agent's hooks, but for probes of functions, which come and go with the files they are in.
#[derive(Debug, Default)]
pub struct Attached {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    hook: Hook,
    signals: Vec<Signal>,
    fd: RawFd,
    link: Link,
}

/// A hook that is not at its place any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Off {
    pub hook: Hook,
    pub signals: Vec<Signal>,
    pub how: &'static str,
}

impl Attached {
    /// What is attached now. The descriptors are aya's, which keeps them as long as the programs.
    pub fn find(ebpf: &Ebpf) -> Self {
        let programs: HashMap<u32, &str> = ebpf
            .programs()
            .filter_map(|(name, program)| {
                let id = bpf::program_id(program.fd().ok()?.as_fd()).ok()?;
                Some((id, name))
            })
            .collect();
        let kept = links()
            .into_iter()
            .filter_map(|(fd, link)| {
                let (hook, signals) = hooks::of_program(programs.get(&link.program)?)?;
                Some(Kept {
                    hook,
                    signals,
                    fd,
                    link,
                })
            })
            .collect();
        Self { kept }
    }

    /// Hooks that were taken off since they were attached, each once. One system call a hook.
    pub fn check(&mut self) -> Vec<Off> {
        let mut off = Vec::new();
        self.kept.retain(|kept| {
            let Some(how) = changed(&kept.link, bpf::link(kept.fd).ok().as_ref()) else {
                return true;
            };
            off.push(Off {
                hook: kept.hook,
                signals: kept.signals.clone(),
                how,
            });
            false
        });
        off
    }
}

/// What happened to a link; `None`: nothing.
fn changed(before: &Link, now: Option<&Link>) -> Option<&'static str> {
    match now.filter(|now| now.id == before.id) {
        None => Some("its descriptor was closed"),
        Some(now) if now.program != before.program => {
            Some("it was made to run another program (BPF_LINK_UPDATE)")
        }
        Some(now) if now.cgroup == Some(0) => {
            Some("it was taken off its cgroup (BPF_LINK_DETACH), or the cgroup is gone")
        }
        Some(_) => None,
    }
}

/// The links this process has open.
fn links() -> Vec<(RawFd, Link)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let target = target.to_str()?;
            if !(target.starts_with("anon_inode:bpf") && target.contains("link")) {
                return None;
            }
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, bpf::link(fd).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_number_program_and_cgroup() {
        let before = Link {
            id: 7,
            program: 70,
            cgroup: Some(1),
        };
        assert_eq!(changed(&before, Some(&before)), None);
        let off = |now: Option<Link>| changed(&before, now.as_ref()).unwrap();
        assert!(off(None).contains("closed"));
        assert!(off(Some(Link { id: 8, ..before })).contains("closed"));
        let other = Link {
            program: 71,
            ..before
        };
        assert!(off(Some(other)).contains("LINK_UPDATE"));
        let taken = Link {
            cgroup: Some(0),
            ..before
        };
        assert!(off(Some(taken)).contains("LINK_DETACH"));
        let tracepoint = Link {
            cgroup: None,
            ..before
        };
        assert_eq!(changed(&tracepoint, Some(&tracepoint)), None);
    }
}
