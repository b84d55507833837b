//! What is deployed must let the agent do its work.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's result")]

use std::{fs, path::Path};

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/systemd/keytrail.service"
);

/// System calls of the agent that systemd keeps out of @system-service (systemd.exec(5), `systemd-analyze
/// syscall-filter`), and the spelling by which its sources call them.
const PRIVILEGED: [(&str, &str); 4] = [
    ("perf_event_open", "UProbeAttachPoint"),
    ("fanotify_init", "libc::fanotify_init"),
    ("fanotify_mark", "libc::fanotify_mark"),
    ("open_by_handle_at", "libc::open_by_handle_at"),
];

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_unit_allows_the_calls_the_agent_makes() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let allowed: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
        .flat_map(str::split_whitespace)
        .collect();
    assert!(allowed.contains(&"@system-service") && allowed.contains(&"bpf"));
    // It answers ENOSYS to openat2(2), whose flags a filter cannot see, and every look into a file is such a call.
    assert!(
        !unit
            .lines()
            .any(|line| line.starts_with("RestrictSUIDSGID=yes")),
        "with this no file can be inspected"
    );
    let mut text = String::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut text);
    for (call, spelling) in PRIVILEGED {
        assert!(text.contains(spelling), "{spelling} is no longer called");
        assert!(allowed.contains(&call), "the unit forbids {call}");
    }
    // Calls nobody has thought of yet: what libc's raw names in the sources add to the list above.
    for call in ["setns", "unshare", "mount", "quotactl", "ptrace", "kcmp"] {
        assert!(
            !text.contains(&format!("libc::{call}(")) || allowed.contains(&call),
            "the unit forbids {call}"
        );
    }
}
