//! `keytrail.v1.EventService`.

use super::answers::AnswersSource;
use super::condense::Condense;
use super::filter::EventFilter;
use super::history::Replay;
use super::hub::{Hub, Item, Subscription};
use super::response::{StreamItem, refused};
use super::resume;
use keytrail_proto::v1::event_service_server::EventService;
use keytrail_proto::v1::stream_events_response::Response as Payload;
use keytrail_proto::v1::{
    Gap, GetStatusRequest, GetStatusResponse, NodeStatus, StreamEventsRequest, StreamEventsResponse,
};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// Asked for the agent's state whenever a client asks; may take its time (it runs off the async threads).
pub type StatusSource = Arc<dyn Fn() -> GetStatusResponse + Send + Sync>;

pub(super) struct Service {
    pub hub: Arc<Hub>,
    pub status: StatusSource,
    pub answers: Option<AnswersSource>,
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
    type StreamEventsStream = Pin<Box<dyn Stream<Item = StreamItem> + Send>>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let request = request.into_inner();
        let filter = EventFilter::new(request.filter.unwrap_or_default())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(after) = request.after {
            let answers = self.answers.clone().ok_or_else(|| {
                Status::failed_precondition(
                    "this agent keeps no events: begin with `since` or `last`",
                )
            })?;
            let node = self.status().await?.node.unwrap_or_default();
            let stream = resume::stream(self.hub.clone(), answers, filter, after, node).await?;
            return Ok(Response::new(Box::pin(stream)));
        }
        let replay = Replay {
            since: request.since,
            last: request.last,
            until: request.until,
            past_only: request.past_only,
        };
        let condense = filter.narrows().then(Condense::default);
        // Subscribed before the status is asked for: a client that has the first message has missed nothing since.
        let Some(mut events) = self.hub.subscribe_from(filter, replay) else {
            return Err(refused(&self.hub));
        };
        let node = self.status().await?.node.unwrap_or_default();
        Ok(Response::new(Box::pin(EventStream {
            first: Some(node),
            forgotten: events.forgotten(),
            events,
            condense,
            waiting: VecDeque::new(),
            replay,
            ended: false,
        })))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.status().await.map(Response::new)
    }
}

/// Who we are, then what happens.
struct EventStream {
    first: Option<NodeStatus>,
    forgotten: Option<Gap>,
    events: Subscription,
    /// For who asked for less than gaps concern.
    condense: Option<Condense>,
    /// What is to be sent before the next of `events`.
    waiting: VecDeque<Payload>,
    replay: Replay,
    /// It was said why it ended.
    ended: bool,
}

impl EventStream {
    /// What becomes of an item: something to send now, or nothing.
    fn take(&mut self, item: Item) -> Option<Payload> {
        let event = match item {
            Item::Event(event) => event,
            Item::Missed { count, from, to } => {
                return Some(Payload::Gap(Item::gap(count, from, to)));
            }
        };
        if !self.replay.is_in_time(event.time) {
            return None;
        }
        if let Some(condense) = &mut self.condense {
            let now = Instant::now();
            let kept = match &event.gap {
                Some(gap) if condense.is_first(gap, now) => Vec::new(),
                Some(_) => {
                    let due = condense.due(now);
                    self.waiting.extend(due.into_iter().map(Payload::Gap));
                    return self.waiting.pop_front();
                }
                None => condense.all(now),
            };
            self.waiting.extend(kept.into_iter().map(Payload::Gap));
        }
        self.waiting
            .push_back(Payload::Event(Arc::unwrap_or_clone(event)));
        self.waiting.pop_front()
    }

    /// The next item, or that there is none and never will be.
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.replay.past_only {
            return Poll::Ready(self.events.before().map(Item::Event));
        }
        Pin::new(&mut self.events).poll_next(context)
    }

    /// What comes next.
    fn poll_payload(&mut self, context: &mut Context<'_>) -> Poll<Option<Payload>> {
        if let Some(node) = self.first.take() {
            return Poll::Ready(Some(Payload::Status(node)));
        }
        if let Some(gap) = self.forgotten.take() {
            return Poll::Ready(Some(Payload::Gap(gap)));
        }
        loop {
            if let Some(payload) = self.waiting.pop_front() {
                return Poll::Ready(Some(payload));
            }
            match self.poll_item(context) {
                Poll::Ready(Some(item)) => {
                    if let Some(payload) = self.take(item) {
                        return Poll::Ready(Some(payload));
                    }
                }
                Poll::Ready(None) => {
                    // What was kept back is reported before the end.
                    let kept = self.condense.take().map(|mut c| c.all(Instant::now()));
                    self.waiting
                        .extend(kept.into_iter().flatten().map(Payload::Gap));
                    return Poll::Ready(self.waiting.pop_front());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for EventStream {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let payload = std::task::ready!(self.poll_payload(context));
        if payload.is_none() && self.events.was_evicted() && !self.ended {
            self.ended = true;
            return Poll::Ready(Some(Err(Status::resource_exhausted(format!(
                "the agent serves at most {} streams, and this one was read slowest",
                super::MAX_READERS
            )))));
        }
        Poll::Ready(payload.map(|payload| {
            Ok(StreamEventsResponse {
                response: Some(payload),
            })
        }))
    }
}
