//! Where secret bytes end: records, environments and files go in, observations without a secret come out.
//!
//! Every finding is learnt (fingerprint and keyed forms), every payload is scanned, and the bytes are wiped before
//! the observation leaves. What the kernel side has to know (who holds something, which files are watched) goes
//! out through [`Kernel`].

pub mod background;
pub mod cgroups;
pub mod decode;
mod environment;
mod exec;
mod files;
mod names;
mod registry;
mod stage;
mod stamp;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

pub use files::{FileTable, Files, KnownFile, min_confidence};
pub use keytrail_host::procfs::list_pids;
pub use registry::Registry;
pub use stage::{Digest, DigestOptions, Digested, Settle};

use keytrail_abi::{FileId, ProcState};
use std::path::Path;

/// What the digest asks of the kernel side. The sensor implements it; tests record it.
pub trait Kernel {
    /// Sets the state of a process.
    fn set_process(&mut self, tgid: u32, state: ProcState);
    /// Declares a process clean, unless it has executed something newer than `exec_id`.
    fn clear_process(&mut self, tgid: u32, exec_id: u64);
    /// Watches a file (or directory); `path` reaches it from the agent's own mount namespace.
    fn watch(&mut self, path: &Path, file: FileId, flags: u32);
    fn unwatch(&mut self, file: FileId);
}

/// The process a record's header is about.
#[must_use]
pub fn pid_of_header(header: &keytrail_abi::Header) -> keytrail_model::Pid {
    stamp::pid(header.tgid, header.start_ns)
}

/// Why no file of another program can be looked into; `None` when they can.
#[must_use]
pub fn files_refused() -> Option<String> {
    use std::os::fd::AsFd as _;
    files::open_root(Path::new("/"))
        .and_then(|root| files::open_in(root.as_fd(), "/", rustix::fs::OFlags::PATH))
        .err()
        .map(|error| std::io::Error::from(error).to_string())
}

/// Start time of a process, clock ticks since boot; `None` when it is gone.
#[must_use]
pub fn start_of(tgid: u32) -> Option<u64> {
    keytrail_host::procfs::pid_of(tgid).map(|pid| pid.start)
}
