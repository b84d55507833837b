//! What the sensors could not get, as gaps in the stream.

use crate::model::GapSeen;
use keytrail_proto::v1;

/// Gaps that hold from the start: signals without a hook, libraries that are not covered.
pub fn initial(status: &v1::GetStatusResponse, boot_ns: u64) -> Vec<GapSeen> {
    let mut gaps = Vec::new();
    for signal in &status.signals {
        if !signal.hook.is_empty() {
            continue;
        }
        let why: Vec<String> = signal.refused.iter().map(|r| format!("{}: {}", r.hook, r.reason)).collect();
        gaps.push(GapSeen {
            boot_ns,
            reason: "hook_refused".to_owned(),
            detail: format!("no hook for {}: {}", signal.signal, why.join("; ")),
            remedy: signal.refused.iter().map(|r| r.remedy.as_str()).find(|r| !r.is_empty()).unwrap_or("").to_owned(),
            signal: signal.signal.clone(),
            ..GapSeen::default()
        });
    }
    for library in status.libraries.iter().filter(|l| !l.covered) {
        gaps.push(GapSeen {
            boot_ns,
            reason: "library_not_covered".to_owned(),
            detail: format!("{} ({}): {}", library.path, library.stack, library.reason),
            remedy: library.remedy.clone(),
            signal: "tls_write".to_owned(),
            ..GapSeen::default()
        });
    }
    gaps
}

/// Records the kernel side could not hand over.
pub fn lost(signal: &str, cpu: u32, count: u64, boot_ns: u64, from_wall_ns: u64, to_wall_ns: u64) -> GapSeen {
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
