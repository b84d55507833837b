//! What the sensors could not get, as gaps in the stream.

use super::budgets::BudgetReport;
use keytrail_export::convert;
use keytrail_host::areas;
use keytrail_model::status::{LibraryReport, Refused, SensorStatus};
use keytrail_model::{GapReason, GapSeen, Observation, Pid, Signal, TlsStack, UnhookedSeen};
use keytrail_proto::v1;
use keytrail_sensor::Limit;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Paths named in one gap.
const NAMED: usize = 3;

/// The sensor's status as the API shows it; node and counters are the caller's.
pub fn status(
    sensor: &SensorStatus,
    counts: impl Fn(&LibraryReport) -> bool,
) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        signals: sensor.signals.iter().map(convert::signal).collect(),
        libraries: sensor
            .libraries
            .iter()
            .filter(|library| counts(library))
            .map(convert::library)
            .collect(),
        unproven_offsets: sensor.offsets.clone(),
        ..v1::GetStatusResponse::default()
    }
}

/// Gaps that hold from the start: signals without a hook, offsets that could not be proven.
pub fn initial(sensor: &SensorStatus, boot_ns: u64) -> Vec<GapSeen> {
    let mut gaps = Vec::new();
    for signal in sensor.signals.iter().filter(|s| s.hook.is_empty()) {
        let why: Vec<String> = signal
            .refused
            .iter()
            .map(|r| format!("{}: {}", r.hook, r.reason))
            .collect();
        gaps.push(GapSeen {
            detail: format!("no hook for {}: {}", signal.signal, why.join("; ")),
            remedy: signal
                .refused
                .iter()
                .map(|r| r.remedy.clone())
                .find(|r| !r.is_empty())
                .unwrap_or_default(),
            signal: Some(signal.signal),
            ..GapSeen::new(GapReason::HookRefused, boot_ns)
        });
    }
    for offset in &sensor.offsets {
        gaps.push(GapSeen {
            detail: offset.clone(),
            remedy: "report this kernel's version: what rests on these fields is not used"
                .to_owned(),
            ..GapSeen::new(GapReason::Offsets, boot_ns)
        });
    }
    gaps
}

/// The call by which files are inspected is refused.
pub fn openat2(why: &str) -> Refused {
    Refused {
        hook: "openat2(2)".to_owned(),
        reason: why.to_owned(),
        remedy:
            "let openat2(2) through: a seccomp filter forbids it (systemd's RestrictSUIDSGID= does)"
                .to_owned(),
    }
}

/// Without it no file can be inspected, so that no read of one is known to be of a credential.
pub fn files_closed(refused: &Refused, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "no file can be inspected, and no read is reported: {}: {}",
            refused.hook, refused.reason
        ),
        remedy: refused.remedy.clone(),
        signal: Some(Signal::FileRead),
        ..GapSeen::new(GapReason::FilesClosed, boot_ns)
    }
}

/// Libraries and programs whose writes are not seen, one gap a TLS stack: a host has dozens of Go programs, and each
/// is named when a holder really talks through it.
pub fn uncovered(libraries: &[&LibraryReport], boot_ns: u64) -> Vec<GapSeen> {
    let mut stacks: BTreeMap<&str, Vec<&LibraryReport>> = BTreeMap::new();
    for library in libraries {
        let stack = library.stack.map_or("TLS", TlsStack::word);
        stacks.entry(stack).or_default().push(library);
    }
    let gap = |(stack, members): (&str, Vec<&LibraryReport>)| {
        let named: Vec<&str> = members
            .iter()
            .take(NAMED)
            .map(|l| l.path.as_str())
            .collect();
        let more = if members.len() > NAMED { ", ..." } else { "" };
        let reason = members
            .first()
            .map(|l| l.reason.as_str())
            .unwrap_or_default();
        GapSeen {
            detail: format!("{stack}: {reason} ({}{more})", named.join(", ")),
            remedy: members
                .first()
                .map(|l| l.remedy.clone())
                .unwrap_or_default(),
            count: members.len() as u64,
            signal: Some(Signal::TlsWrite),
            ..GapSeen::new(GapReason::LibraryNotCovered, boot_ns)
        }
    };
    stacks.into_iter().map(gap).collect()
}

/// Who is to be told of a library, which each program that maps it is once: what it sends by it has the reason. `known` was
/// told before; `None`: nobody is new.
pub fn fresh(known: Option<&HashSet<u32>>, users: &[u32]) -> Option<Vec<u32>> {
    let is_new = |user: &u32| known.is_none_or(|known| !known.contains(user));
    let fresh: Vec<u32> = users.iter().copied().filter(is_new).collect();
    (known.is_none() || !fresh.is_empty()).then_some(fresh)
}

/// The same for the core, which says so of who sends by it.
pub fn unhooked(library: &LibraryReport, users: Vec<u32>) -> Observation {
    // What is said of a stack names its version, where that is known.
    let stack = library.stack.map_or("TLS", TlsStack::word);
    let reason = if library.reason.to_lowercase().contains(stack) {
        library.reason.clone()
    } else {
        format!("{stack}: {}", library.reason)
    };
    Observation::Unhooked(Box::new(UnhookedSeen {
        path: library.path.clone(),
        reason,
        users,
    }))
}

/// Records that were there when the agent ended, and that it did not get to.
pub fn not_taken_in(count: u64, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("{count} records were not taken in before the end"),
        remedy: "let the host come to rest before the agent is stopped".to_owned(),
        count,
        ..GapSeen::new(GapReason::RecordsLeft, boot_ns)
    }
}

/// Events that were told to who watched, and that the state directory does not have.
pub fn unwritten(count: u64, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("{count} events, or notes of places and programs, were not written to the state directory"),
        remedy: "see the agent's log for why it cannot be written, or put it on a faster disk with `state_dir`"
            .to_owned(),
        count,
        ..GapSeen::new(GapReason::LedgerLost, boot_ns)
    }
}

/// What was learned and was not written to the state directory by the end of the run.
pub fn unlearned(credentials: usize, findings: usize, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "what was learned of {credentials} credentials, and how often {findings} findings were made again, was not written \
             to the state directory in time: the next run knows what was written before, or learns it anew"
        ),
        remedy: "see the agent's log for why it cannot be written, or put it on a faster disk with `state_dir`"
            .to_owned(),
        count: (credentials + findings) as u64,
        ..GapSeen::new(GapReason::LearnedLost, boot_ns)
    }
}

/// What a process was started with is not known.
/// `may_trace`: the agent has the right that reading it takes.
pub fn unreadable_environment(pid: Pid, why: &str, may_trace: bool, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "the environment of process {} cannot be read: {why}",
            pid.tgid
        ),
        remedy: if why == areas::LATE {
            "end or continue what it waits for (see /proc/PID/wchan and stack); nothing on this host can read it until then"
        } else if may_trace {
            "none by rights, which the agent has: a security module keeps everybody out of this process; what it is started with \
             next is seen"
        } else {
            "run the agent with CAP_SYS_PTRACE"
        }
        .to_owned(),
        count: 1,
        signal: Some(Signal::Exec),
        pid: Some(pid),
        ..GapSeen::new(GapReason::EnvironmentUnreadable, boot_ns)
    }
}

/// Changes of the inventory that the state directory did not take.
pub fn unlisted(count: u64, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("{count} changes of the inventory were not written to the state directory"),
        ..unwritten(count, boot_ns)
    }
}

/// Places that are not inspected because the configuration says so.
pub fn excluded(patterns: &[String], boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("files below {} are not inspected", patterns.join(", ")),
        remedy: "take them out of `exclude` in the configuration".to_owned(),
        count: patterns.len() as u64,
        signal: Some(Signal::FileRead),
        ..GapSeen::new(GapReason::Excluded, boot_ns)
    }
}

/// A file whose reads are not seen.
pub fn unwatched(path: &Path, error: &std::io::Error, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("{} is not watched: {error}", path.display()),
        remedy:
            "see `keytrail doctor` for the hooks in use; a full table needs fewer watched files"
                .to_owned(),
        count: 1,
        signal: Some(Signal::FileRead),
        ..GapSeen::new(GapReason::FileUnwatched, boot_ns)
    }
}

/// Records the kernel side could not hand over.
pub fn lost(
    signal: &str,
    cpu: u32,
    count: u64,
    boot_ns: u64,
    from_wall_ns: u64,
    to_wall_ns: u64,
) -> GapSeen {
    let queue = "raise fs.fanotify.max_queued_events (sysctl)";
    let (detail, remedy) = match signal {
        "fanotify" => (
            format!(
                "the queue of opens and reads was full {count} times: what it dropped is not counted"
            ),
            queue,
        ),
        "process_read" => (
            format!(
                "the queue of reads in /proc was full {count} times: reads of environments and memory may be among what it \
                 dropped"
            ),
            queue,
        ),
        "process_table" => (
            format!(
                "{count} processes found no room in the kernel side's table: what they hold is not known"
            ),
            "fewer processes at a time",
        ),
        "hook_nested" => (
            format!("{count} times the kernel passed a hook over because it was hit inside itself"),
            "none is needed unless it repeats: the kernel does so when an interrupt hits a probe",
        ),
        "answer" => (
            format!(
                "{count} times what a metadata service answered was not seen (CPU {cpu}): there was no room for it, it was more \
                 than 4 MiB in a second, or a call took it in that is not followed (recvmmsg, io_uring)"
            ),
            "what asked is reported as credential_requested",
        ),
        keytrail_sensor::ATTACH_LIMIT => (
            format!(
                "{count} calls that may have taken something out of a process are not reported: one program is reported with 32 \
                 a second that nothing proves, and 256 in all"
            ),
            "find out which program calls process_vm_readv or pidfd_getfd that often: what it reported before names it",
        ),
        _ => (
            format!("{count} {signal} records of CPU {cpu} did not fit into the ring"),
            "raise ring_bytes, or exclude what makes so many records",
        ),
    };
    GapSeen {
        detail,
        remedy: remedy.to_owned(),
        count,
        signal: of_loss(signal),
        from_wall_ns,
        to_wall_ns,
        ..GapSeen::new(GapReason::RecordsLost, boot_ns)
    }
}

/// The signal whose records were lost.
fn of_loss(kind: &str) -> Option<Signal> {
    if kind == keytrail_sensor::ATTACH_LIMIT {
        return Some(Signal::ProcessAttach);
    }
    Signal::of_word(kind)
}

/// Something was taken out of a process of another pid namespace that was not found again.
pub fn victim_unknown(boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: "something was taken out of a process by a system call, and the process could not be found".to_owned(),
        remedy: "processes of nested pid namespaces are not found, nor threads of one by their own number"
            .to_owned(),
        count: 1,
        signal: Some(Signal::ProcessAttach),
        ..GapSeen::new(GapReason::RecordsLost, boot_ns)
    }
}

/// Payloads that were not inspected because a budget was used up.
pub fn budget(reported: &BudgetReport, pid: Option<Pid>, exe: &str, boot_ns: u64) -> GapSeen {
    let (what, key) = match reported.limit {
        Limit::Answers => (
            "answered on connections it accepted",
            "capture.answer_bytes",
        ),
        Limit::Keys => (
            "answered on connections it accepted, holding nothing but private keys",
            "capture.key_server_bytes",
        ),
        Limit::Process => ("sent", "capture.process_bytes"),
        Limit::Connection => ("sent on one connection", "capture.connection_bytes"),
        Limit::Writes => ("wrote to files, pipes and terminals", "capture.write_bytes"),
    };
    let who = match (reported.tgid, exe) {
        (0, _) => "processes beyond those that are reported one by one".to_owned(),
        (tgid, "") => format!("process {tgid}"),
        (tgid, exe) => format!("{exe} (process {tgid})"),
    };
    GapSeen {
        detail: format!(
            "{} payloads ({} bytes) that {who} {what} were beyond what is inspected per second",
            reported.payloads, reported.bytes
        ),
        remedy: format!("raise {key} in the configuration; it costs the process time"),
        count: reported.payloads,
        signal: Some(match reported.limit {
            Limit::Writes => Signal::FdWrite,
            _ => Signal::TcpSend,
        }),
        pid,
        ..GapSeen::new(GapReason::BudgetUsed, boot_ns)
    }
}

/// Files that are written somewhere without the agent being told.
pub fn writes_unseen(what: &str, error: &str, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("{what}: {error}"),
        remedy: "name places of credentials under `watch` in the configuration".to_owned(),
        count: 1,
        signal: Some(Signal::FileWrite),
        ..GapSeen::new(GapReason::WritesUnseen, boot_ns)
    }
}

/// The thread that inspects what is written waits for a file system that does not answer.
pub fn writes_stuck(boot_ns: u64) -> GapSeen {
    GapSeen {
        remedy: "mend or unmount the file system that does not answer, or name it under `exclude` in the configuration"
            .to_owned(),
        ..writes_unseen(
            "files that are written are inspected only when they are read",
            "the file system of one of them does not answer",
            boot_ns,
        )
    }
}

/// Files that were written and not inspected.
pub fn not_inspected(count: u64, why: &str, boot_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!("files that were written were not inspected, {count} times: {why}"),
        remedy: "they are inspected when they are read; `keytrail inventory` finds what they hold"
            .to_owned(),
        count,
        signal: Some(Signal::FileWrite),
        ..GapSeen::new(GapReason::FilesSkipped, boot_ns)
    }
}

/// Files that were read and could not be found again to be inspected.
pub fn unlocated(count: u64, boot_ns: u64, from_wall_ns: u64, to_wall_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "{count} files that were read were gone, or not to be found, before they could be inspected"
        ),
        remedy: "name places of short-lived secrets under `watch` in the configuration".to_owned(),
        count,
        signal: Some(Signal::FileRead),
        from_wall_ns,
        to_wall_ns,
        ..GapSeen::new(GapReason::FileUnreadable, boot_ns)
    }
}

/// Reads in /proc that could not be told apart because the process that was read had ended.
pub fn reads_gone(count: u64, boot_ns: u64, from_wall_ns: u64, to_wall_ns: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "{count} files in /proc (environment, memory or map) were read of processes that had ended before it could be reported of \
             which"
        ),
        remedy: "none for processes that live so shortly; short of descriptors, raise LimitNOFILE= of the agent"
            .to_owned(),
        count,
        signal: Some(Signal::ProcessRead),
        from_wall_ns,
        to_wall_ns,
        ..GapSeen::new(GapReason::FileUnreadable, boot_ns)
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
