//! A stream that goes on after an event its client has: first from what is remembered, then live, each event once.

use super::answers::{AnswersSource, Page};
use super::filter::EventFilter;
use super::hub::{Hub, Item};
use super::response::{StreamItem, payload, refused};
use keytrail_model::{EventKind, GapReason};
use keytrail_proto::v1::stream_events_response::Response as Payload;
use keytrail_proto::v1::{EventId, Filter, Gap, NodeStatus, StreamEventsResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

/// Responses that wait for the client.
const QUEUE: usize = 64;
/// How long events that were published and are not on disk are waited for.
const DISK: Duration = Duration::from_millis(200);
const DISK_TURNS: usize = 25;

/// Who sends ends when the client goes away.
struct Gone;

struct Resume {
    answers: AnswersSource,
    filter: EventFilter,
    /// The last event that was sent or passed over.
    after: EventId,
    client: Sender<StreamItem>,
}

/// Begins the stream. A first part is read at once, so that a question that makes no sense is refused.
pub(super) async fn stream(
    hub: Arc<Hub>,
    answers: AnswersSource,
    filter: EventFilter,
    after: EventId,
    node: NodeStatus,
) -> Result<impl Stream<Item = StreamItem> + Send + use<>, Status> {
    let (client, responses) = channel(QUEUE);
    let mut resume = Resume {
        answers,
        filter,
        after,
        client,
    };
    let first = resume.page().await?;
    tokio::spawn(async move {
        // The client is gone, or the agent stops: nobody is left to tell.
        let _ = resume.run(&hub, node, first).await;
    });
    Ok(ReceiverStream::new(responses))
}

impl Resume {
    async fn page(&self) -> Result<Page, Status> {
        let (answers, after) = (self.answers.clone(), self.after.clone());
        let page = tokio::task::spawn_blocking(move || answers.events_after(&after))
            .await
            .map_err(|_| Status::internal("what is remembered could not be read"))?;
        Ok(page?)
    }

    async fn send(&self, payload: Payload) -> Result<(), Gone> {
        let response = StreamEventsResponse {
            response: Some(payload),
        };
        self.client.send(Ok(response)).await.map_err(|_| Gone)
    }

    async fn run(&mut self, hub: &Arc<Hub>, node: NodeStatus, first: Page) -> Result<(), Gone> {
        self.send(Payload::Status(node)).await?;
        let mut page = first;
        // Most of it before anything is queued for this client.
        while page.more {
            self.remembered(page).await?;
            page = self.next_page().await?;
        }
        self.remembered(page).await?;
        let all = Filter {
            kinds: EventKind::ALL.iter().map(|kind| kind.number()).collect(),
            ..Filter::default()
        };
        let live = EventFilter::new(all)
            .ok()
            .and_then(|all| hub.subscribe(all));
        let Some(mut live) = live else {
            let _ = self.client.send(Err(refused(hub))).await;
            return Err(Gone);
        };
        self.catch_up(live.published()).await?;
        loop {
            let item = tokio::select! {
                item = live.next() => item.ok_or(Gone)?,
                () = self.client.closed() => return Err(Gone),
            };
            if let Item::Event(event) = &item {
                let id = event.id.clone().unwrap_or_default();
                if (id.epoch, id.sequence) <= (self.after.epoch, self.after.sequence) {
                    continue;
                }
                self.after = id;
                if !self.filter.passes(event) {
                    continue;
                }
            }
            self.send(payload(item)).await?;
        }
    }

    async fn next_page(&self) -> Result<Page, Gone> {
        match self.page().await {
            Ok(page) => Ok(page),
            Err(status) => {
                let _ = self.client.send(Err(status)).await;
                Err(Gone)
            }
        }
    }

    async fn remembered(&mut self, page: Page) -> Result<(), Gone> {
        if let Some(gap) = page.gap {
            self.send(Payload::Gap(gap)).await?;
        }
        for event in page.events {
            self.after = event.id.clone().unwrap_or_default();
            if self.filter.passes(&event) {
                self.send(Payload::Event(Arc::unwrap_or_clone(event)))
                    .await?;
            }
        }
        Ok(())
    }

    /// What was published before the live part began has to come from the disk, where it may not be yet.
    async fn catch_up(&mut self, published: (u64, u64)) -> Result<(), Gone> {
        let mut turns = 0;
        while turns < DISK_TURNS {
            let page = self.next_page().await?;
            let (more, written) = (page.more, page.written);
            self.remembered(page).await?;
            if more {
                continue;
            }
            if written >= published {
                return Ok(());
            }
            turns += 1;
            tokio::time::sleep(DISK).await;
        }
        let missing = if self.after.epoch == published.0 {
            published.1.saturating_sub(self.after.sequence)
        } else {
            published.1
        };
        self.send(Payload::Gap(Gap {
            reason: GapReason::ReplayLimited.number(),
            detail: format!("at most {missing} events were published and could not be written"),
            remedy: "make room in the state directory, or move it to a faster disk".into(),
            count: missing,
            ..Gap::default()
        }))
        .await
    }
}
