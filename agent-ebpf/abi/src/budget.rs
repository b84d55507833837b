//! What a process and a connection may have captured: beyond it payloads are passed over, and counted.

/// Which limit a payload reached. Each is a number of the configuration (bytes a second), handed over in the globals.
pub mod passed {
    /// What a holder sent on connections that it accepted.
    pub const ANSWERS: usize = 0;
    /// The same of a process that holds nothing but keys which are not sent: its sample.
    pub const KEYS: usize = 1;
    /// What a process sent on all other connections.
    pub const PROCESS: usize = 2;
    /// What it sent on one of them.
    pub const CONNECTION: usize = 3;
    /// What it wrote to files, pipes and terminals.
    pub const WRITES: usize = 4;
    pub const COUNT: usize = 5;
}

/// Value of the `BUDGETS` map (key tgid).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The second `sent` and `answered` are of: `boot_ns >> BUDGET_SHIFT`.
    pub window: u64,
    /// Spent on connections the process made, and on those it accepted.
    pub sent: u64,
    pub answered: u64,
    /// Spent on what it wrote to files, pipes and terminals.
    pub written: u64,
    /// Runs of such writes that were passed over: what was written before one does not go on behind it.
    pub holes: u64,
    /// Payloads passed over since the process is known, by limit, and their bytes.
    pub passed: [u64; passed::COUNT],
    pub bytes: [u64; passed::COUNT],
}

const _: () = assert!(size_of::<Budget>() == 40 + 16 * passed::COUNT);

/// A window of budgets is 2^30 nanoseconds: about a second, without a division.
pub const BUDGET_SHIFT: u32 = 30;
/// What a record costs beside its payload, bytes: many small ones are dear too.
pub const BUDGET_RECORD: u64 = 256;

/// Key of the `SESSIONS` map: a TLS session of a process. The value is the `struct sock` it was seen to write to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionKey {
    pub session: u64,
    pub tgid: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<SessionKey>() == 16);
