//! Canonical proto3 JSON.

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use std::sync::OnceLock;

/// Fields of the schema that are timestamps, as JSON names them.
const TIMES: [&str; 19] = [
    "time",
    "from",
    "to",
    "expires",
    "startTime",
    "firstSeen",
    "started",
    "first",
    "last",
    "lastSeen",
    "lastUsed",
    "lastSent",
    "created",
    "rotated",
    "alive",
    "usesSince",
    "eventsSince",
    "failingSince",
    "lastDelivered",
];
const OFFSET: &str = "+00:00\"";

/// Canonical proto3 JSON of a message: one line, no line break at its end. A value of an enum that this version has no
/// name for (a newer agent's) is a number, as the mapping wants it.
///
/// # Errors
/// A value JSON cannot carry (a timestamp out of range).
pub fn json<T: Serialize + prost::Name>(message: &T) -> Result<String, serde_json::Error> {
    match serde_json::to_string(message) {
        Ok(text) => Ok(with_z(&text)),
        Err(error) => by_schema(message).ok_or(error),
    }
}

/// The same by the schema at run time: slower, and at home with numbers that have no name.
fn by_schema<T: prost::Name>(message: &T) -> Option<String> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(crate::DESCRIPTORS).ok());
    let schema = pool.as_ref()?.get_message_by_name(&T::full_name())?;
    let message = DynamicMessage::decode(schema, message.encode_to_vec().as_slice()).ok()?;
    let mut out = serde_json::Serializer::new(Vec::new());
    message
        .serialize_with_options(&mut out, &SerializeOptions::new())
        .ok()?;
    String::from_utf8(out.into_inner()).ok()
}

/// The mapping of timestamps asks for `Z` (<https://protobuf.dev/programming-guides/json/>); the serializer writes
/// `+00:00`, which is the same moment but not the canonical form.
fn with_z(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OFFSET) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if is_timestamp(&out) {
            out.push_str("Z\"");
        } else {
            out.push_str(OFFSET);
        }
        rest = &after[OFFSET.len()..];
    }
    out.push_str(rest);
    out
}

/// Whether a text ends in `"FIELD":"DATE`, where FIELD is a timestamp. A quote within a JSON string is written `\"`,
/// so no string of the host can look like this.
fn is_timestamp(text: &str) -> bool {
    let name =
        text.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T'));
    let Some(name) = name.strip_suffix("\":\"") else {
        return false;
    };
    TIMES
        .iter()
        .any(|t| name.strip_suffix(t).is_some_and(|n| n.ends_with('"')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Event, Gap, Process};
    use pbjson_types::Timestamp;

    #[test]
    fn a_value_of_a_newer_agent_is_a_number() {
        let event = Event {
            kind: 4_321,
            process: Some(Process {
                pid: 7,
                ..Process::default()
            }),
            ..Event::default()
        };
        let text = json(&event).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["kind"], &value["process"]["pid"]),
            (&4_321.into(), &7.into())
        );
    }

    #[test]
    fn timestamps_end_in_z_and_strings_stay_as_they_are() {
        let moment = Timestamp {
            seconds: 1_700_000_000,
            nanos: 5_000_000,
        };
        let hostile = [
            "2026-01-01T00:00:00+00:00",
            "\"time\":\"2026-01-01T00:00:00+00:00",
            "x\",\"time\":\"2026-01-01T00:00:00+00:00\"",
            "time\\\":\"1+00:00",
        ];
        let event = Event {
            time: Some(moment),
            process: Some(Process {
                comm: hostile[0].into(),
                argv: hostile.map(str::to_owned).to_vec(),
                start_time: Some(moment),
                ..Default::default()
            }),
            gap: Some(Gap {
                from: Some(moment),
                to: Some(moment),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = json(&event).unwrap();
        assert_eq!(
            text.matches("\"2023-11-14T22:13:20.005Z\"").count(),
            4,
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
