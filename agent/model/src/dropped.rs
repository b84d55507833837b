//! What found no room in a table, or could only be looked at in part: counted where it happens, told together.

use super::GapSeen;
use std::collections::BTreeMap;

/// What has a bound, in `digest` or in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Secrets looked for in what is sent.
    Secrets,
    /// Secrets that cannot be told from chance, or are too long to be looked for.
    Weak,
    /// Programs being started.
    Execs,
    /// Files that hold credentials.
    Files,
    /// Mount namespaces looked into.
    Roots,
    /// Directories watched for new files.
    Directories,
    /// Files larger than what is read of one.
    Sampled,
    /// Bytes of one send of a holder that are looked into.
    Payload,
    /// Processes.
    Processes,
    /// Credentials of one process.
    Holdings,
    /// Connections whose lineage is not decided yet.
    Connections,
    /// Identifiers that the next payload may go on with.
    Identifiers,
}

impl Bound {
    /// The gap of everything that met this bound.
    #[must_use]
    pub fn gap(self, count: u64, boot_ns: u64) -> GapSeen {
        let (reason, what, remedy, signal) = self.words();
        GapSeen {
            boot_ns,
            reason: reason.to_owned(),
            detail: format!("{count} {what}"),
            remedy: remedy.to_owned(),
            count,
            signal: signal.to_owned(),
            ..GapSeen::default()
        }
    }

    /// Reason, what happened, remedy, signal.
    fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const FEWER: &str =
            "exclude what makes so many, or report this: the bound is a constant of the agent";
        const FEWER_PLACES: &str =
            "name fewer places under `watch`, or report this: the bound is a constant of the agent";
        const LINEAGE: &str =
            "sends of who holds them are told as lineage, with source and destination";
        match self {
            Self::Secrets => (
                "table_full",
                "secrets found no room among those that are looked for in what is sent",
                LINEAGE,
                "tcp_send",
            ),
            Self::Weak => (
                "secret_not_matched",
                "secrets are too short, too monotonous or too long to be looked for in what is sent",
                LINEAGE,
                "tcp_send",
            ),
            Self::Execs => (
                "table_full",
                "programs were started at once whose arguments and environment were not looked at",
                "they are looked at again in /proc as far as they still run",
                "exec",
            ),
            Self::Files => (
                "table_full",
                "files with credentials found no room: reads of them are not told",
                FEWER_PLACES,
                "file_read",
            ),
            Self::Roots => (
                "table_full",
                "times a process of a mount namespace that is not looked into was met",
                "files in it are looked into when they are first read",
                "file_read",
            ),
            Self::Directories => (
                "table_full",
                "directories are not watched for new files",
                "new files in them are found within half a minute",
                "file_read",
            ),
            Self::Sampled => (
                "file_truncated",
                "files of text were larger than 8 MiB and looked into at their beginning only (1 MiB)",
                "split what must be known whole",
                "file_read",
            ),
            Self::Payload => (
                "payload_truncated",
                "sends of holders were longer than what is looked into: a credential behind that was not seen",
                "the events of such a connection say so in `truncation`; who sent and where to is known",
                "tcp_send",
            ),
            Self::Processes => (
                "table_full",
                "processes found no room in the table: what they hold and send is not told",
                FEWER,
                "exec",
            ),
            Self::Holdings => (
                "table_full",
                "credentials found no room among those one process holds: sends of theirs are not told as lineage",
                FEWER,
                "file_read",
            ),
            Self::Connections => (
                "table_full",
                "connections of holders were forgotten before it was decided whether to tell of them as lineage",
                FEWER,
                "tcp_send",
            ),
            Self::Identifiers => (
                "table_full",
                "identifiers at the end of a payload were forgotten before it was known whether they end there",
                FEWER,
                "tcp_send",
            ),
        }
    }
}

/// How often which bound was met since it was last told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped(BTreeMap<Bound, u64>);

impl Dropped {
    /// Least time between two times it is told, nanoseconds.
    pub const TELL_NS: u64 = 10_000_000_000;

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
