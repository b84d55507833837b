//! The agent inspects itself: whether it stood still, whether somebody traces it, and whether its program and its
//! configuration on the disk are those that it runs by.

use keytrail_host::clock::{boot_ns, running_ns, wall_ns};
use keytrail_host::procfs;
use keytrail_model::{GapReason, GapSeen};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::path::{Path, PathBuf};

/// The loop waits a quarter of a second at most; a host that gives it no processor for this long is as bad as a stop.
const STILL_NS: u64 = 3_000_000_000;
/// Between two looks.
const LOOK_NS: u64 = 2_000_000_000;

/// A point in time, by three clocks in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    boot_ns: u64,
    /// Without the time that the host was suspended.
    running_ns: u64,
    wall_ns: u64,
}

impl Moment {
    fn now() -> Self {
        Moment {
            boot_ns: boot_ns(),
            running_ns: running_ns(),
            wall_ns: wall_ns(),
        }
    }
}

/// Tells one version of a file from another: device, inode, size, time of its last change.
type Version = (u32, u32, u64, u64, i64, u32);

/// A file that the agent runs by.
struct Origin {
    what: &'static str,
    path: PathBuf,
    version: Option<Version>,
}

pub(super) struct Guard {
    last: Option<Moment>,
    looked_ns: u64,
    /// Who traces the agent, and since when by the wall clock.
    tracer: Option<(u32, u64)>,
    origins: Vec<Origin>,
}

impl Guard {
    pub fn new(configuration: Option<PathBuf>) -> Self {
        let program = std::fs::read_link("/proc/self/exe").ok();
        let program = program.map(|path| ("program", path));
        let files = program
            .into_iter()
            .chain(configuration.map(|path| ("configuration", path)));
        Guard {
            last: None,
            looked_ns: 0,
            tracer: None,
            origins: files
                .map(|(what, path)| Origin {
                    what,
                    version: version(&path),
                    path,
                })
                .collect(),
        }
    }

    /// The loop is at its beginning again.
    pub fn turn(&mut self) -> Vec<GapSeen> {
        let now = Moment::now();
        let mut gaps: Vec<GapSeen> = self.stood_still(now).into_iter().collect();
        if now.boot_ns >= self.looked_ns.saturating_add(LOOK_NS) {
            self.looked_ns = now.boot_ns;
            gaps.extend(self.traced(procfs::tracer(), now));
            gaps.extend(self.changed(now));
        }
        gaps
    }

    fn stood_still(&mut self, now: Moment) -> Option<GapSeen> {
        let last = self.last.replace(now)?;
        let still = now.running_ns.saturating_sub(last.running_ns);
        (still >= STILL_NS).then(|| GapSeen {
            detail: format!(
                "the agent stood still for {}.{} s: it was stopped (SIGSTOP, a debugger, a frozen cgroup), or got no \
                 processor; what the kernel kept was taken in afterwards, what was gone by then was not inspected",
                still / 1_000_000_000,
                still / 100_000_000 % 10
            ),
            remedy: "find out who stopped it; if nobody did, give it more processor time".to_owned(),
            count: 1,
            from_wall_ns: last.wall_ns,
            to_wall_ns: now.wall_ns,
            ..GapSeen::new(GapReason::AgentStopped, now.boot_ns)
        })
    }

    fn traced(&mut self, tracer: u32, now: Moment) -> Vec<GapSeen> {
        let gap = |detail: String, from_wall_ns: u64, to_wall_ns: u64| GapSeen {
            detail,
            remedy: "find out who traces it, and why".to_owned(),
            count: 1,
            from_wall_ns,
            to_wall_ns,
            ..GapSeen::new(GapReason::AgentTraced, now.boot_ns)
        };
        let mut gaps = Vec::new();
        if let Some((before, since)) = self.tracer
            && before != tracer
        {
            self.tracer = None;
            let detail = format!("process {before} traces the agent no longer");
            gaps.push(gap(detail, since, now.wall_ns));
        }
        if tracer != 0 && self.tracer.is_none() {
            self.tracer = Some((tracer, now.wall_ns));
            let program = procfs::exe(tracer).map_or_else(|| "?".to_owned(), |exe| exe.path);
            let detail = format!(
                "{program}[{tracer}] traces the agent (ptrace): it can stop it, read its memory and change what it says"
            );
            gaps.push(gap(detail, now.wall_ns, 0));
        }
        gaps
    }

    fn changed(&mut self, now: Moment) -> Vec<GapSeen> {
        let mut gaps = Vec::new();
        for origin in &mut self.origins {
            let version = version(&origin.path);
            if version == origin.version {
                continue;
            }
            let how = match (version, origin.version) {
                (None, _) => "is gone",
                (Some(_), None) => "is there now",
                (Some(_), Some(_)) => "was changed",
            };
            origin.version = version;
            gaps.push(GapSeen {
                detail: format!(
                    "the agent's {} {how}: {}; it runs on by what it was started with",
                    origin.what,
                    origin.path.display()
                ),
                remedy: "restart the agent if this was an upgrade or an administrator; otherwise find out who wrote it"
                    .to_owned(),
                count: 1,
                ..GapSeen::new(GapReason::AgentReplaced, now.boot_ns)
            });
        }
        gaps
    }
}

fn version(path: &Path) -> Option<Version> {
    let mask = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME;
    let s = statx(CWD, path, AtFlags::empty(), mask).ok()?;
    Some((
        s.stx_dev_major,
        s.stx_dev_minor,
        s.stx_ino,
        s.stx_size,
        s.stx_mtime.tv_sec,
        s.stx_mtime.tv_nsec,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Moment {
        Moment {
            boot_ns: 100 * SEC + seconds * SEC,
            running_ns: 50 * SEC + seconds * SEC,
            wall_ns: 1_000 * SEC + seconds * SEC,
        }
    }

    #[test]
    fn a_stop_is_an_interval_and_a_suspended_host_is_none() {
        let mut guard = Guard::new(None);
        assert!(guard.stood_still(at(0)).is_none());
        assert!(guard.stood_still(at(1)).is_none());
        let gap = guard.stood_still(at(6)).unwrap();
        assert_eq!(gap.reason, GapReason::AgentStopped);
        assert_eq!(
            (gap.from_wall_ns, gap.to_wall_ns),
            (1_001 * SEC, 1_006 * SEC)
        );
        assert!(gap.detail.contains("5.0 s"), "{}", gap.detail);
        let asleep = Moment {
            running_ns: at(6).running_ns + SEC,
            ..at(60)
        };
        assert!(guard.stood_still(asleep).is_none());
    }

    #[test]
    fn a_tracer_is_reported_when_it_comes_and_when_it_goes() {
        let mut guard = Guard::new(None);
        assert!(guard.traced(0, at(0)).is_empty());
        let me = std::process::id();
        let came = guard.traced(me, at(1));
        assert!(came.len() == 1 && came[0].detail.contains(&format!("[{me}] traces")));
        assert!(guard.traced(me, at(2)).is_empty());
        let went = guard.traced(0, at(3));
        assert_eq!(
            (went[0].from_wall_ns, went[0].to_wall_ns),
            (at(1).wall_ns, at(3).wall_ns)
        );
        assert!(guard.traced(0, at(4)).is_empty());
    }

    #[test]
    fn what_it_runs_by_is_reported_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "one").unwrap();
        let mut guard = Guard::new(Some(file.clone()));
        assert!(guard.changed(at(0)).is_empty());
        std::fs::write(&file, "other").unwrap();
        let gaps = guard.changed(at(1));
        assert!(gaps.len() == 1 && gaps[0].detail.contains("configuration was changed"));
        assert!(guard.changed(at(2)).is_empty());
        std::fs::remove_file(&file).unwrap();
        assert!(
            guard.changed(at(3))[0]
                .detail
                .contains("configuration is gone")
        );
        guard.origins.retain(|o| o.what == "program");
        guard.origins[0].version = None;
        assert!(
            guard.changed(at(4))[0]
                .detail
                .contains("program is there now")
        );
    }
}
