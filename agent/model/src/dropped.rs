//! What found no room in a table, or could only be inspected in part: counted where it happens, reported together.

use super::{GapReason, GapSeen, Signal};
use std::collections::BTreeMap;

/// Makes [`Bound`] of a table: a bound, and behind it the gap that it makes: the reason, what happened, the remedy and the
/// signal of which something was not seen.
macro_rules! bounds {
    ($($(#[doc = $doc:literal])+ $name:ident: $reason:ident, $signal:ident, $what:expr, $remedy:expr;)+) => {
        /// What has a bound, in `ingest` or in the core.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bound {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Bound {
            /// Reason, what happened, remedy, signal.
            fn words(self) -> (GapReason, &'static str, &'static str, Signal) {
                match self {
                    $(Self::$name => (GapReason::$reason, $what, $remedy, Signal::$signal),)+
                }
            }
        }
    };
}

const FEWER: &str = "report this: the bound is a constant of the agent";
const FEWER_PLACES: &str =
    "name fewer places under `watch`, or report this: the bound is a constant of the agent";
const LINEAGE: &str =
    "sends of who holds them are reported as lineage, with source and destination";

bounds! {
    /// Secrets looked for in what is sent.
    Secrets: TableFull, TcpSend,
        "secrets found no room among those that are looked for in what is sent",
        LINEAGE;
    /// Secrets that cannot be told from chance, or are too long to be looked for.
    Weak: SecretNotMatched, TcpSend,
        "secrets are too short, too monotonous or too long to be looked for in what is sent",
        LINEAGE;
    /// Programs being started.
    Execs: TableFull, Exec,
        "programs were started at once whose arguments and environment were not inspected",
        "they are inspected again in /proc as far as they still run";
    /// Files that hold credentials.
    Files: TableFull, FileRead,
        "files with credentials found no room: reads of them are not reported",
        FEWER_PLACES;
    /// Mount namespaces inspected.
    Roots: TableFull, FileRead,
        "times a process of a mount namespace that is not inspected was seen",
        "files in it are inspected when they are first read";
    /// Directories watched for new files.
    Directories: TableFull, FileRead,
        "directories are not watched for new files",
        "new files in them are found within half a minute";
    /// Files larger than what is read of one.
    Sampled: FileTruncated, FileRead,
        "files of text were larger than 8 MiB and inspected at their beginning only (1 MiB)",
        "split what must be known whole";
    /// Bytes of one send of a holder that are inspected.
    Payload: PayloadTruncated, TcpSend,
        "sends of holders were longer than what is inspected: a credential behind that was not seen",
        "the events of such a connection say so in `truncation`; who sent and where to is known";
    /// Sends of holders over Unix sockets whose bytes are not in a system call of theirs.
    UnixBytes: PayloadTruncated, UnixSend,
        "sends of holders over Unix sockets were not inspected: they came by io_uring, sendfile, splice or a 32-bit \
        program, or the bytes were gone",
        "none: who holds what is reported, and that it was sent is not known";
    /// The same by UDP.
    UdpBytes: PayloadTruncated, UdpSend,
        "datagrams of holders were not inspected: they came by io_uring, sendfile, splice or a 32-bit program, or the \
        bytes were gone",
        LINEAGE;
    /// Messages whose decoded form is not known, or larger than what is inspected.
    Decoding: PayloadTruncated, TcpSend,
        "parts of what holders sent could not be decoded (compressed beyond 1 MiB, encoded too deeply, headers that \
        refer to what was sent before the agent saw the connection, framing that was lost): they were inspected \
        as they were sent only",
        LINEAGE;
    /// Processes.
    Processes: TableFull, Exec,
        "processes found no room in the table: what they hold and send is not reported",
        FEWER;
    /// Credentials of one process.
    Holdings: TableFull, FileRead,
        "credentials found no room among those one process holds: sends of theirs are not reported as lineage",
        FEWER;
    /// Connections whose lineage is not decided yet.
    Connections: TableFull, TcpSend,
        "connections of holders were forgotten before it was decided whether to report them as lineage",
        FEWER;
    /// Proven destinations of TLS writes that wait for what may speak against them.
    Destinations: TableFull, TlsWrite,
        "destinations of TLS writes were given up: too many writes of one process waited for proof",
        "what was sent is reported all the same, with an unknown destination";
    /// Identifiers that the next payload may go on with.
    Identifiers: TableFull, TcpSend,
        "identifiers at the end of a payload were forgotten before it was known whether they end there",
        FEWER;
    /// Credentials of one file.
    InFile: FileTruncated, FileRead,
        "credentials or more were beyond what is searched of a file (its first 1,024 of them, and as much work as its size \
        may cost): who reads or sends them is not reported",
        "split what must be known whole";
    /// Files that were not inspected in time.
    InspectionTime: InspectionTimeout, FileRead,
        "files that were read could not be inspected in time: what was read and sent until they are is not known",
        "name file systems that do not answer under `exclude` in the configuration, or raise `inspect_timeout_ms`";
    /// Files that wait to be inspected, and records that wait for one.
    InspectionBacklog: InspectionBacklog, FileRead,
        "files that were read were not inspected because too many were waiting",
        "name what holds so many files, and no credential, under `exclude` in the configuration";
    /// Processor time that the files of one user may take.
    InspectionBudget: InspectionBudget, FileRead,
        "files were not inspected because those of their owner took more processor time than they may",
        "name what is so much under `exclude` in the configuration, or raise `inspect_share`";
    /// Pipes, readers of one, and processes in a row, that a credential is followed through.
    Pipes: TableFull, Pipes,
        "times a credential was not followed through a pipe: too many pipes, readers of one, or processes in a row; \
        lineage of who reads there is not reported",
        FEWER;
    /// Answers of metadata services that were not seen whole.
    Answers: PayloadTruncated, Answer,
        "answers of metadata services did not come whole within a second, or were longer than 128 KiB: credentials in \
        them are not known",
        "what asked is reported as credential_requested";
    /// Credentials that a process uses and nobody knew, and that are inspected.
    InUse: SecretNotMatched, TlsWrite,
        "credentials that nobody knew were used, by processes that had used many others a short while before, as proxies \
        do: they are not known",
        "none: whose they are is not known to who passes them on";
    /// Reads that are remembered, so that each is reported once.
    Reads: TableFull, FileRead,
        "reads found no room among those that are remembered: they may be reported again",
        FEWER;
    /// Opens that may still become reads.
    Opens: TableFull, FileRead,
        "opens of files with credentials found no room until a read may follow: they are not reported",
        FEWER;
    /// Bytes of one write to a file, a pipe or a terminal that are inspected.
    Written: PayloadTruncated, FdWrite,
        "writes of holders to files, pipes or terminals were longer than what is inspected (16 KiB): a credential \
        behind that was not seen",
        "files are inspected once they are written and when they are read";
    /// Pods whose names are kept, or waited for.
    Names: NamesUnavailable, Exec,
        "times a pod found no room among those whose names are kept or waited for",
        "events have the pod's uid and the container's id all the same";
    /// What is usual for credentials, and what is known of them beside it.
    Usual: TableFull, FileRead,
        "times what is known of the credential used longest ago was forgotten for another: what is usual for it is \
        learned anew, and until then nothing about it is unusual",
        FEWER;
    /// Different programs, places and so on of one credential.
    Values: TableFull, FileRead,
        "credentials had more different programs, workloads, sources or destinations than are remembered: none of these \
        is unusual for them any more",
        "see `keytrail baseline`, and accept or reset what is usual for them";
    /// Processes and their findings that are remembered, so that what belongs together is reported together.
    Runs: TableFull, FileRead,
        "processes or findings found no room among those that are remembered: a harvest may not be reported, or a finding \
        be reported again",
        FEWER;
}

impl Bound {
    /// The gap of everything that reached this bound.
    #[must_use]
    pub fn gap(self, count: u64, boot_ns: u64) -> GapSeen {
        let (reason, what, remedy, signal) = self.words();
        GapSeen {
            detail: format!("{count} {what}"),
            remedy: remedy.to_owned(),
            count,
            signal: Some(signal),
            ..GapSeen::new(reason, boot_ns)
        }
    }
}

/// How often which bound was reached since it was last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped(BTreeMap<Bound, u64>);

impl Dropped {
    /// Least time between two times it is reported, nanoseconds.
    pub const REPORT_INTERVAL_NS: u64 = 10_000_000_000;

    pub fn add(&mut self, bound: Bound, count: u64) {
        if count > 0 {
            *self.0.entry(bound).or_default() += count;
        }
    }

    /// Moves everything of another into this one.
    pub fn gather(&mut self, other: &mut Dropped) {
        for (bound, count) in other.take() {
            self.add(bound, count);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self) -> impl Iterator<Item = (Bound, u64)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }
}
