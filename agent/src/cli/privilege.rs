//! Whether this process may load the kernel side at all, asked before anything is tried.

/// Capability numbers, from linux/capability.h.
const CAPS: &[(u32, &str)] = &[(39, "CAP_BPF"), (38, "CAP_PERFMON")];
const SYS_ADMIN: u32 = 21;
/// One sentence that says what is missing to load the kernel side; `None` when nothing is.
pub(super) fn missing() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = effective(&status)?;
    let uid = rustix::process::geteuid().as_raw();
    lacking(effective, uid)
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn lacking(effective: u64, uid: u32) -> Option<String> {
    if effective & (1 << SYS_ADMIN) != 0 {
        return None;
    }
    let names: Vec<_> = CAPS
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|c| c.1)
        .collect();
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "not permitted: loading kernel probes needs root, and this process (uid {uid}) lacks {}: run it with sudo",
        names.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        assert_eq!(
            effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective("Name:\tx\n"), None);
        assert!(lacking(0x1ff_ffff_ffff, 0).is_none());
        assert!(lacking(1 << 39 | 1 << 38, 1000).is_none());
        let sentence = lacking(1 << 39, 1000).unwrap();
        assert!(
            sentence.contains("uid 1000")
                && sentence.contains("CAP_PERFMON")
                && !sentence.contains("CAP_BPF")
        );
        // In a container root may have nothing.
        assert!(lacking(0, 0).unwrap().contains("CAP_BPF and CAP_PERFMON"));
    }
}
