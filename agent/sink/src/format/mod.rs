//! An event as bytes, in the formats users have. Each is a function of the event and of who tells it, and gives one line
//! without an end; OTLP gives a message of protobuf.
//!
//! Every string may come from a hostile host: each format escapes what would end a field or a line. None claims more than
//! the event: the grade goes along in all of them.

mod cef;
mod ecs;
mod ocsf;
pub(crate) mod otlp;
pub(crate) mod parquet;
mod parts;

use crate::spec::Format;
use keytrail_proto::v1::Event;

/// Who reports the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reporter {
    /// Name of the host.
    pub host: String,
    /// Of the agent.
    pub version: String,
    /// Identity of the agent, for events that have none.
    pub agent: String,
}

/// One line (a message, of OTLP), or nothing when it cannot be said (a time out of the range of JSON's).
#[must_use]
pub fn encode(format: Format, event: &Event, reporter: &Reporter) -> Option<Vec<u8>> {
    match format {
        Format::Json => keytrail_proto::json(event).ok().map(String::into_bytes),
        Format::Ocsf | Format::OcsfParquet => {
            serde_json::to_vec(&ocsf::event(event, reporter)).ok()
        }
        Format::Ecs => serde_json::to_vec(&ecs::event(event, reporter)).ok(),
        Format::Cef => Some(cef::event(event, reporter).into_bytes()),
        Format::Otlp => Some(otlp::event(event)),
    }
}

pub(crate) use ocsf::class_uid;
pub(crate) use parts::{rfc3339, severity, time_ns, uid};

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
