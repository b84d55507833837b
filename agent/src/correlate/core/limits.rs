//! What found no room in a table, or was cut: counted, and told once in a while instead of one by one.

use super::Core;
use crate::model::GapSeen;
use std::collections::BTreeMap;

/// Least time between two gaps of the same reason.
const TELL_NS: u64 = 10_000_000_000;

/// What has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
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

impl Limit {
    /// Reason, what happened, remedy, signal.
    fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const FEWER: &str =
            "exclude what makes so many, or report this: the bound is a constant of the agent";
        match self {
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

#[derive(Debug, Default)]
pub(super) struct Dropped {
    counts: BTreeMap<Limit, u64>,
    due_ns: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, limit: Limit, count: u64) {
        if count > 0 {
            *self.counts.entry(limit).or_default() += count;
        }
    }
}

impl Core {
    /// Makes a gap of everything that was dropped since the last time.
    pub(super) fn tell_dropped(&mut self, boot_ns: u64, now: bool) {
        self.dropped
            .add(Limit::Connections, std::mem::take(&mut self.flows.dropped));
        self.dropped
            .add(Limit::Processes, self.table.take_refused());
        if self.dropped.counts.is_empty() || !now && boot_ns < self.dropped.due_ns {
            return;
        }
        self.dropped.due_ns = boot_ns.saturating_add(TELL_NS);
        for (limit, count) in std::mem::take(&mut self.dropped.counts) {
            let (reason, what, remedy, signal) = limit.words();
            self.on_gap(&GapSeen {
                boot_ns,
                reason: reason.to_owned(),
                detail: format!("{count} {what}"),
                remedy: remedy.to_owned(),
                count,
                signal: signal.to_owned(),
                ..GapSeen::default()
            });
        }
    }
}
