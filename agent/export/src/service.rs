//! `keytrail.v1.EventService`.

use super::filter::EventFilter;
use super::history::Replay;
use super::hub::{Hub, Item, Subscription};
use keytrail_proto::v1::event_service_server::EventService;
use keytrail_proto::v1::stream_events_response::Response as Payload;
use keytrail_proto::v1::{
    Gap, GetStatusRequest, GetStatusResponse, NodeStatus, StreamEventsRequest, StreamEventsResponse,
};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// Asked for the agent's state whenever a client asks; may take its time (it runs off the async threads).
pub type StatusSource = Arc<dyn Fn() -> GetStatusResponse + Send + Sync>;

pub(super) struct Service {
    pub hub: Arc<Hub>,
    pub status: StatusSource,
}

impl Service {
    async fn status(&self) -> Result<GetStatusResponse, Status> {
        let status = self.status.clone();
        tokio::task::spawn_blocking(move || status())
            .await
            .map_err(|_| Status::internal("the agent has no status"))
    }
}

#[tonic::async_trait]
impl EventService for Service {
    type StreamEventsStream = EventStream;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        let filter = EventFilter::new(request.filter.unwrap_or_default())
            .map_err(Status::invalid_argument)?;
        let replay = Replay {
            since: request.since,
            last: request.last,
        };
        // Subscribed before the status is asked for: a client that has the first message has missed nothing since.
        let Some(mut events) = self.hub.subscribe_from(filter, replay) else {
            return Err(match self.hub.is_closed() {
                true => Status::unavailable("the agent is stopping"),
                false => Status::resource_exhausted(format!(
                    "the agent serves at most {} streams",
                    super::MAX_READERS
                )),
            });
        };
        let node = self.status().await?.node.unwrap_or_default();
        Ok(Response::new(EventStream {
            first: Some(node),
            forgotten: events.forgotten(),
            events,
        }))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.status().await.map(Response::new)
    }
}

/// Who we are, then what happens.
pub struct EventStream {
    first: Option<NodeStatus>,
    forgotten: Option<Gap>,
    events: Subscription,
}

impl Stream for EventStream {
    type Item = Result<StreamEventsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let payload = match (self.first.take(), self.forgotten.is_some()) {
            (Some(node), _) => Payload::Status(node),
            (None, true) => Payload::Gap(self.forgotten.take().unwrap_or_default()),
            (None, false) => match Pin::new(&mut self.events).poll_next(context) {
                Poll::Ready(Some(Item::Event(event))) => {
                    Payload::Event(Arc::unwrap_or_clone(event))
                }
                Poll::Ready(Some(Item::Missed { count, from, to })) => {
                    Payload::Gap(Item::gap(count, from, to))
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(Some(Ok(StreamEventsResponse {
            response: Some(payload),
        })))
    }
}
