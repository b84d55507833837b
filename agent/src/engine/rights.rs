//! Capabilities without which the agent works and sees less, and no hook is refused that would say so. What the others
//! cost, the refused hooks say.

use keytrail_model::status::Refused;
use keytrail_model::{GapReason, GapSeen, Signal};

/// One of them, by linux/capability.h.
pub struct Right {
    name: &'static str,
    /// Any of these numbers will do, the first being its own.
    bits: &'static [u32],
    /// What it opens, as a hook is called.
    opens: &'static str,
    /// The signal that suffers.
    signal: Signal,
    reason: GapReason,
    cost: &'static str,
}

const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const SYSLOG: u32 = 34;

/// What they open was tried on Linux 6.18: proc(5) and capabilities(7) say the same.
const RIGHTS: [Right; 5] = [
    Right {
        name: "CAP_SYS_PTRACE",
        bits: &[SYS_PTRACE],
        opens: "/proc/PID/environ",
        signal: Signal::Exec,
        reason: GapReason::EnvironmentUnreadable,
        cost: "environments, executables, directories and mapped libraries of processes that ran before the agent, and \
               files as other mount namespaces have them, cannot be inspected",
    },
    Right {
        name: "CAP_DAC_READ_SEARCH",
        // Who may do anything to any file may read it.
        bits: &[2, 1],
        opens: "files of others",
        signal: Signal::FileRead,
        reason: GapReason::FileUnreadable,
        cost: "files that only their owners may read cannot be inspected: that they hold a credential stays unknown",
    },
    Right {
        name: "CAP_CHECKPOINT_RESTORE",
        bits: &[40, SYS_ADMIN],
        opens: "/proc/PID/map_files",
        signal: Signal::TlsWrite,
        reason: GapReason::LibraryNotCovered,
        cost: "libraries that a process has mapped cannot be opened: TLS of containers, and of files that were replaced, \
               is not probed",
    },
    Right {
        name: "CAP_SYS_ADMIN",
        bits: &[SYS_ADMIN],
        opens: "BPF_PROG_GET_NEXT_ID",
        signal: Signal::ProcessAttach,
        reason: GapReason::ForeignBpf,
        cost: "BPF programs of others are not known, nor whether one can write into users' memory",
    },
    Right {
        name: "CAP_SYSLOG",
        bits: &[SYSLOG],
        opens: "/proc/kallsyms",
        signal: Signal::ProcessAttach,
        reason: GapReason::ForeignBpf,
        cost: "it is not known whether a BPF program of somebody else can write into users' memory: the kernel does not show \
               which functions it calls",
    },
];

/// What the last two have in common.
const PROGRAMS: &[u32] = &[SYS_ADMIN, SYSLOG];

/// Whether this process may not inspect BPF programs of others.
pub fn lacks_programs() -> bool {
    lacking()
        .iter()
        .any(|right| right.bits.iter().all(|bit| PROGRAMS.contains(bit)))
}

/// Those this process lacks.
pub fn lacking() -> Vec<&'static Right> {
    own().map_or_else(Vec::new, of)
}

/// Whether this process may inspect any other.
pub fn may_trace() -> bool {
    own().is_some_and(|set| set & (1 << SYS_PTRACE) != 0)
}

/// What this process may.
fn own() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    effective(&status)
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn of(effective: u64) -> Vec<&'static Right> {
    RIGHTS
        .iter()
        .filter(|right| right.bits.iter().all(|bit| effective & (1 << bit) == 0))
        .collect()
}

impl Right {
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// As a hook that was refused.
    pub fn refused(&self) -> Refused {
        Refused {
            hook: self.opens.to_owned(),
            reason: format!("without {} {}", self.name, self.cost),
            remedy: format!("run the agent with {}", self.name),
        }
    }

    pub fn gap(&self, boot_ns: u64) -> GapSeen {
        let refused = self.refused();
        GapSeen {
            detail: refused.reason,
            remedy: refused.remedy,
            signal: Some(self.signal),
            ..GapSeen::new(self.reason, boot_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_missed_by_its_number_and_by_no_other() {
        let names = |effective: u64| of(effective).iter().map(|r| r.name).collect::<Vec<_>>();
        let all = u64::MAX;
        assert!(names(all).is_empty());
        assert_eq!(names(all & !(1 << 19)), ["CAP_SYS_PTRACE"]);
        assert_eq!(names(all & !(1 << 1 | 1 << 2)), ["CAP_DAC_READ_SEARCH"]);
        assert_eq!(
            names(all & !(1 << 40 | 1 << 21)),
            ["CAP_CHECKPOINT_RESTORE", "CAP_SYS_ADMIN"]
        );
        assert_eq!(names(all & !(1 << 21)), ["CAP_SYS_ADMIN"]);
        assert_eq!(names(all & !(1 << 34)), ["CAP_SYSLOG"]);
        for bit in [1, 2, 12, 38, 39, 40] {
            assert!(names(all & !(1 << bit)).is_empty(), "{bit}");
        }
        assert_eq!(
            effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective("Name:\tx\n"), None);
        let gap = RIGHTS[0].gap(7);
        assert!(
            gap.detail.starts_with("without CAP_SYS_PTRACE ")
                && gap.remedy.contains("CAP_SYS_PTRACE")
        );
    }
}
