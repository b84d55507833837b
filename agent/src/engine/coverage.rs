//! What the sensors could not get, as gaps in the stream.

use keytrail_model::GapSeen;
use keytrail_proto::v1;
use keytrail_sensor::{LibraryReport, Refused, SensorStatus};
use std::collections::BTreeMap;
use std::path::Path;

/// Paths named in one gap.
const NAMED: usize = 3;

/// The sensor's status as the API shows it; node and counters are the caller's.
pub fn status(
    sensor: &SensorStatus,
    counts: impl Fn(&LibraryReport) -> bool,
) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        signals: sensor.signals.iter().map(Into::into).collect(),
        libraries: sensor
            .libraries
            .iter()
            .filter(|library| counts(library))
            .map(Into::into)
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
            boot_ns,
            reason: "hook_refused".to_owned(),
            detail: format!("no hook for {}: {}", signal.signal, why.join("; ")),
            remedy: signal
                .refused
                .iter()
                .map(|r| r.remedy.clone())
                .find(|r| !r.is_empty())
                .unwrap_or_default(),
            signal: signal.signal.to_owned(),
            ..GapSeen::default()
        });
    }
    for offset in &sensor.offsets {
        gaps.push(GapSeen {
            boot_ns,
            reason: "offsets".to_owned(),
            detail: offset.clone(),
            remedy: "report this kernel's version: what rests on these fields is not used"
                .to_owned(),
            ..GapSeen::default()
        });
    }
    gaps
}

/// The call by which files are looked into is refused.
pub fn openat2(why: &str) -> Refused {
    Refused {
        hook: "openat2(2)".to_owned(),
        reason: why.to_owned(),
        remedy:
            "let openat2(2) through: a seccomp filter forbids it (systemd's RestrictSUIDSGID= does)"
                .to_owned(),
    }
}

/// Without it no file can be looked into, so that no read of one is known to be of a credential.
pub fn files_closed(refused: &Refused, boot_ns: u64) -> GapSeen {
    GapSeen {
        boot_ns,
        reason: "files_closed".to_owned(),
        detail: format!(
            "no file can be looked into, and no read is told: {}: {}",
            refused.hook, refused.reason
        ),
        remedy: refused.remedy.clone(),
        signal: "file_read".to_owned(),
        ..GapSeen::default()
    }
}

/// Libraries and programs whose writes are not seen, one gap a TLS stack: a host has dozens of Go programs, and each
/// is named when a holder really talks through it.
pub fn uncovered(libraries: &[&LibraryReport], boot_ns: u64) -> Vec<GapSeen> {
    let mut stacks: BTreeMap<&str, Vec<&LibraryReport>> = BTreeMap::new();
    for library in libraries {
        stacks.entry(&library.stack).or_default().push(library);
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
            boot_ns,
            reason: "library_not_covered".to_owned(),
            detail: format!("{stack}: {reason} ({}{more})", named.join(", ")),
            remedy: members
                .first()
                .map(|l| l.remedy.clone())
                .unwrap_or_default(),
            count: members.len() as u64,
            signal: "tls_write".to_owned(),
            ..GapSeen::default()
        }
    };
    stacks.into_iter().map(gap).collect()
}

/// A file whose reads are not seen.
pub fn unwatched(path: &Path, error: &std::io::Error, boot_ns: u64) -> GapSeen {
    GapSeen {
        boot_ns,
        reason: "file_unwatched".to_owned(),
        detail: format!("{} is not watched: {error}", path.display()),
        remedy:
            "see `keytrail doctor` for the hooks in use; a full table needs fewer watched files"
                .to_owned(),
        count: 1,
        signal: "file_read".to_owned(),
        ..GapSeen::default()
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
    GapSeen {
        boot_ns,
        reason: "records_lost".to_owned(),
        detail: format!("{count} {signal} records of CPU {cpu} did not fit into the ring"),
        remedy: "raise ring_bytes, or exclude what makes so many records".to_owned(),
        count,
        signal: signal.to_owned(),
        from_wall_ns,
        to_wall_ns,
        ..GapSeen::default()
    }
}

/// Files that are written somewhere without the agent being told.
pub fn writes_unseen(what: &str, error: &str, boot_ns: u64) -> GapSeen {
    GapSeen {
        boot_ns,
        reason: "writes_unseen".to_owned(),
        detail: format!("{what}: {error}"),
        remedy: "name places of credentials under `watch` in the configuration".to_owned(),
        count: 1,
        signal: "file_write".to_owned(),
        ..GapSeen::default()
    }
}

/// Files that were written and not looked at.
pub fn not_looked_at(count: u64, why: &str, boot_ns: u64) -> GapSeen {
    GapSeen {
        boot_ns,
        reason: "files_skipped".to_owned(),
        detail: format!("files that were written were not looked at, {count} times: {why}"),
        remedy: "they are looked at when they are read; `keytrail inventory` finds what they hold"
            .to_owned(),
        count,
        signal: "file_write".to_owned(),
        ..GapSeen::default()
    }
}

/// Files that were read and could not be found again to be looked into.
pub fn unlocated(count: u64, boot_ns: u64, from_wall_ns: u64, to_wall_ns: u64) -> GapSeen {
    GapSeen {
        boot_ns,
        reason: "file_unreadable".to_owned(),
        detail: format!(
            "{count} files that were read were gone, or not to be found, before they could be looked into"
        ),
        remedy: "name places of short-lived secrets under `watch` in the configuration".to_owned(),
        count,
        signal: "file_read".to_owned(),
        from_wall_ns,
        to_wall_ns,
        ..GapSeen::default()
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
