//! Facts about this host that decide what can be seen.

use std::fs;
use std::path::Path;

/// Name, value, and what follows from it (empty when nothing does).
pub(super) struct Fact {
    pub name: &'static str,
    pub value: String,
    pub note: String,
}

/// Reads all facts. Nothing here needs privileges; what cannot be read is said so.
pub(super) fn facts() -> Vec<Fact> {
    vec![
        kernel(),
        lockdown(),
        btf(),
        memlock(),
        paranoid(),
        cgroup2(),
    ]
}

fn fact(name: &'static str, value: impl Into<String>, note: &str) -> Fact {
    Fact {
        name,
        value: value.into(),
        note: note.into(),
    }
}

fn kernel() -> Fact {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    fact(
        "kernel",
        format!("{} {}", text(uname.release()), text(uname.machine())),
        "",
    )
}

fn lockdown() -> Fact {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) => lockdown_of(&text),
        Err(_) => fact("lockdown", "not available", ""),
    }
}

/// The file reads `none [integrity] confidentiality`.
fn lockdown_of(text: &str) -> Fact {
    let mode = text.split(['[', ']']).nth(1).unwrap_or("unknown");
    let note = match mode {
        "confidentiality" => "kernel memory cannot be read: boot with lockdown=integrity",
        _ => "",
    };
    fact("lockdown", mode, note)
}

fn btf() -> Fact {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(meta) => fact("BTF", format!("{} KiB", meta.len() / 1024), ""),
        Err(_) => fact(
            "BTF",
            "none",
            "kernel fields cannot be found: a kernel with CONFIG_DEBUG_INFO_BTF is needed",
        ),
    }
}

fn memlock() -> Fact {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let value = limit
        .current
        .map_or_else(|| "unlimited".into(), |b| format!("{} KiB", b / 1024));
    // Since 5.11 BPF memory is charged to the cgroup instead; an agent before that raises the limit itself.
    fact("memlock", value, "")
}

fn paranoid() -> Fact {
    match fs::read_to_string("/proc/sys/kernel/perf_event_paranoid") {
        Ok(text) => {
            let value = text.trim().to_owned();
            let strict = value.parse::<i32>().is_ok_and(|n| n >= 3);
            let note = if strict {
                "uprobes need CAP_SYS_ADMIN here, CAP_PERFMON is not enough"
            } else {
                ""
            };
            fact("perf_event_paranoid", value, note)
        }
        Err(_) => fact(
            "perf_event_paranoid",
            "none",
            "this kernel has no perf events: uprobes will be refused",
        ),
    }
}

fn cgroup2() -> Fact {
    match fs::read_to_string("/proc/self/mounts") {
        Ok(mounts) => match mounts
            .lines()
            .find(|l| l.split(' ').nth(2) == Some("cgroup2"))
        {
            Some(line) => fact("cgroup2", line.split(' ').nth(1).unwrap_or_default(), ""),
            None => fact(
                "cgroup2",
                "not mounted",
                "cgroup hooks (connect) will be refused: mount -t cgroup2 none /sys/fs/cgroup",
            ),
        },
        Err(_) if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => {
            fact("cgroup2", "/sys/fs/cgroup", "")
        }
        Err(e) => fact("cgroup2", format!("unknown ({e})"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_modes() {
        assert_eq!(
            lockdown_of("none [integrity] confidentiality\n").value,
            "integrity"
        );
        assert!(
            !lockdown_of("none integrity [confidentiality]\n")
                .note
                .is_empty()
        );
        assert_eq!(lockdown_of("").value, "unknown");
    }

    #[test]
    fn this_host_has_a_kernel() {
        let facts = facts();
        assert_eq!(facts.len(), 6);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert!(facts[0].value.starts_with(release.trim()));
    }
}
