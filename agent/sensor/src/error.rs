//! Why there is no sensor at all.

use std::fmt;

/// Each variant is displayed as one plain sentence that says what is missing.
#[derive(Debug)]
pub enum SensorError {
    /// Not root and without the capabilities.
    Privilege,
    /// The kernel numbers processes otherwise than /proc does here.
    PidNamespace,
    /// No usable `/sys/kernel/btf/vmlinux`.
    Btf(String),
    /// The kernel did not take the object or one of its maps.
    Load(String),
    /// The ring cannot be mapped.
    Ring(String),
}

impl fmt::Display for SensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privilege => f.write_str(
                "keytrail needs root (or CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH) \
                 to load its kernel side: start it with sudo",
            ),
            Self::PidNamespace => f.write_str(
                "keytrail runs in a pid namespace of its own, where processes have other numbers than the kernel's \
                 records say: nothing could be reported of any process; run it in the host's pid namespace (docker run \
                 --pid=host, podman run --pid=host, hostPID: true in Kubernetes)",
            ),
            Self::Btf(reason) => write!(
                f,
                "this kernel does not describe its own types, which keytrail needs to find its fields: \
                 /sys/kernel/btf/vmlinux: {reason}; a kernel with CONFIG_DEBUG_INFO_BTF=y has it"
            ),
            Self::Load(reason) => write!(f, "the kernel did not take keytrail's kernel side: {reason}"),
            Self::Ring(reason) => write!(f, "the ring buffer cannot be mapped: {reason}"),
        }
    }
}

impl std::error::Error for SensorError {}
