//! Control groups: are those that /proc shows now the ones that the kernel side reported?
//!
//! A container's first program is executed in the cgroup of what starts it, and moved a moment later. What is read then
//! is true of that process and of no other in the cgroup it came from.

use keytrail_abi::cgroup_mix;
use keytrail_host::mounts;
use keytrail_host::procfs;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where hierarchies are mounted is read again after this time.
const FRESH_NS: u64 = 10_000_000_000;

/// A process's cgroups as /proc shows them.
pub struct Cgroups {
    /// The path that says most.
    pub path: String,
    /// As `keytrail_abi::Exec::cgroups`; `None` when a hierarchy is mounted nowhere.
    pub sum: Option<u64>,
}

/// Where the hierarchies are mounted.
#[derive(Default)]
pub struct Hierarchies {
    /// Controllers or names (none for the second version) and mount point.
    mounts: Vec<(Vec<Vec<u8>>, PathBuf)>,
    read_ns: Option<u64>,
}

impl Hierarchies {
    /// The cgroups of a process; `None` when it is gone.
    pub fn of(&mut self, tgid: u32, now_ns: u64) -> Option<Cgroups> {
        let text = procfs::cgroups(tgid)?;
        if self
            .read_ns
            .is_none_or(|read| now_ns.saturating_sub(read) > FRESH_NS)
        {
            self.read_ns = Some(now_ns);
            self.mounts = mounts::read(Path::new("/proc/self/mountinfo"))
                .into_iter()
                .filter(|m| m.kind.starts_with("cgroup") && m.root == b"/")
                .map(|m| {
                    let of = if m.kind == "cgroup2" {
                        Vec::new()
                    } else {
                        m.cgroup
                    };
                    (of, PathBuf::from(OsStr::from_bytes(&m.point)))
                })
                .collect();
        }
        Some(Cgroups {
            path: procfs::best_cgroup(&text),
            sum: self.sum(&text),
        })
    }

    fn sum(&self, text: &str) -> Option<u64> {
        let mut sum = 0u64;
        let mut unified = false;
        for (_, controllers, path) in procfs::cgroup_lines(text) {
            unified |= controllers.is_empty();
            let (_, point) = self.mounts.iter().find(|(of, _)| {
                if controllers.is_empty() {
                    of.is_empty()
                } else {
                    controllers
                        .split(',')
                        .all(|c| of.iter().any(|o| o == c.as_bytes()))
                }
            })?;
            let place = point.join(path.trim_start_matches('/'));
            sum = sum.wrapping_add(cgroup_mix(fs::metadata(place).ok()?.ino()));
        }
        // The root of the unified hierarchy counts where that is not even shown.
        Some(if unified {
            sum
        } else {
            sum.wrapping_add(cgroup_mix(1))
        })
    }
}
