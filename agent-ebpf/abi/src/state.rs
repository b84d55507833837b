//! Values of the maps through which the user side steers the kernel side.

/// State of a process in the `PROCS` map. No entry means clean: the process costs one look-up.
///
/// A program just executed is *unknown*: its payloads are captured until user space, having classified its argv
/// and environment, removes the entry or makes it a holder. So even a process that lives 5 ms is seen whole.
pub const PROC_UNKNOWN: u32 = 1;
/// The process holds at least one credential.
pub const PROC_HOLDER: u32 = 2;
/// The agent itself: nothing it does is recorded.
pub const PROC_IGNORED: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcState {
    /// One of `PROC_*`.
    pub state: u32,
    /// Bits for the user side's use; copied to children at fork.
    pub pad: u32,
    /// `exec_id` of the exec that made this state: user space clears only what it has seen.
    pub exec_id: u64,
}

const _: () = assert!(size_of::<ProcState>() == 16);

/// Value of the `WATCHED` map (key [`crate::FileId`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// Bits of [`watch`].
    pub flags: u32,
    pub pad: u32,
}

pub mod watch {
    /// A file known to hold credentials.
    pub const FILE: u32 = 1;
    /// A directory in which new files are of interest.
    pub const DIRECTORY: u32 = 2;
    /// Seen and found clean in this version (live discovery).
    pub const CLEAN: u32 = 4;
}

/// The TLS call a thread is in: key is pid_tgid, value of the `TLS_CALLS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsCall {
    pub tls_call: u64,
    pub tls_session: u64,
    pub boot_ns: u64,
    pub total: u64,
}

const _: () = assert!(size_of::<TlsCall>() == 32);
