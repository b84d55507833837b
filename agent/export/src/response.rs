//! What a stream hands to its client, one item after another.

use super::hub::{Hub, Item};
use keytrail_proto::v1::StreamEventsResponse;
use keytrail_proto::v1::stream_events_response::Response as Payload;
use std::sync::Arc;
use tonic::Status;

/// Why there is no further stream.
pub(super) fn refused(hub: &Hub) -> Status {
    match hub.is_closed() {
        true => Status::unavailable("the agent is stopping"),
        false => Status::resource_exhausted(format!(
            "the agent serves at most {} streams",
            super::MAX_READERS
        )),
    }
}

pub(super) type StreamItem = Result<StreamEventsResponse, Status>;

/// An item of a subscription as the client gets it.
pub(super) fn payload(item: Item) -> Payload {
    match item {
        Item::Event(event) => Payload::Event(Arc::unwrap_or_clone(event)),
        Item::Missed { count, from, to } => Payload::Gap(Item::gap(count, from, to)),
    }
}
