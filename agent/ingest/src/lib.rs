//! Where secret bytes end: records, environments and files go in, observations without a secret come out.
//!
//! Every finding is learnt (fingerprint and keyed forms), every payload is scanned, and the bytes are wiped before
//! the observation leaves. What is to be done besides (decide who holds something, watch a file) goes out behind the
//! observations, as effects.

mod answers;
mod asked;
pub mod background;
pub mod cgroups;
mod convert;
pub mod decode;
mod digested;
mod dns_pieces;
mod environment;
mod exec;
mod files;
mod handed;
mod in_use;
#[cfg(test)]
mod in_use_tests;
mod inspection;
mod message;
#[cfg(test)]
mod message_tests;
mod names;
mod pending;
mod registry;
mod shown;
mod stage;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
mod written;

pub use asked::{Inspection, Verdict};
pub use digested::{Digested, file_key};
pub use files::{Excluded, FileTable, Files, KnownFile, min_confidence};
pub use inspection::InspectionOptions;
pub use keytrail_host::procfs::list_pids;
pub use registry::Registry;
pub use stage::{Digest, DigestOptions};

use std::path::Path;

/// The process a record's header is about.
#[must_use]
pub fn pid_of_header(header: &keytrail_abi::Header) -> keytrail_model::Pid {
    convert::pid(header.tgid, header.start_ns)
}

/// The process that a fork made.
#[must_use]
pub fn child_of(fork: &keytrail_abi::Fork) -> keytrail_model::Pid {
    convert::pid(fork.child_tgid, fork.child_start_ns)
}

/// A pipe as the kernel side names it; inode 0 is none.
#[must_use]
pub fn pipe_of(id: keytrail_abi::FileId) -> Option<keytrail_model::PipeId> {
    convert::pipe(id)
}

/// The pipes that a process has as standard streams now, standard input first.
#[must_use]
pub fn streams(tgid: u32) -> [Option<keytrail_model::PipeId>; 2] {
    [0, 1].map(|descriptor| keytrail_host::procfs::pipe(tgid, descriptor))
}

/// Why no file of another program can be inspected; `None` when they can.
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
