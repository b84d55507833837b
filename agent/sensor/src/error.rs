//! Why there is no sensor at all.

/// Each variant is displayed as one plain sentence that says what is missing.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Not root and without the capabilities.
    #[error(
        "keytrail needs root (or CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH) to load its \
         kernel side: start it with sudo"
    )]
    Privilege,
    /// The kernel numbers processes otherwise than /proc does here.
    #[error(
        "keytrail runs in a pid namespace of its own, where processes have other numbers than the kernel's records say: \
         nothing could be reported of any process; run it in the host's pid namespace (docker run --pid=host, podman run \
         --pid=host, hostPID: true in Kubernetes)"
    )]
    PidNamespace,
    /// No usable `/sys/kernel/btf/vmlinux`.
    #[error(
        "this kernel does not describe its own types, which keytrail needs to find its fields: /sys/kernel/btf/vmlinux: \
         {0}; a kernel with CONFIG_DEBUG_INFO_BTF=y has it"
    )]
    Btf(String),
    /// The kernel did not take the object or one of its maps.
    #[error("the kernel did not take keytrail's kernel side: {0}")]
    Load(String),
    /// The ring cannot be mapped.
    #[error("the ring buffer cannot be mapped: {0}")]
    Ring(String),
}
