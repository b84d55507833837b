//! gRPC clients of the agent: one that reads at once, and one that takes its time.

use crate::events::{Event, Gap};
use hyper_util::rt::TokioIo;
use keytrail_proto::v1::{
    Filter, GetStatusRequest, GetStatusResponse, NodeStatus, StreamEventsRequest,
    StreamEventsResponse, event_service_client::EventServiceClient,
    stream_events_response::Response,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A channel over the agent's socket.
pub async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket: PathBuf = socket.to_owned();
    Endpoint::from_static("http://keytrail.test")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
}

/// Runs something on a channel to the agent.
pub fn on_channel<T, F: Future<Output = T>>(socket: &Path, work: impl FnOnce(Channel) -> F) -> T {
    runtime().block_on(async { work(channel(socket).await.unwrap()).await })
}

/// `GetStatus`.
#[must_use]
pub fn status(socket: &Path) -> GetStatusResponse {
    on_channel(socket, |channel| async {
        EventServiceClient::new(channel)
            .get_status(GetStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    })
}

/// A stream of events that is read as fast as it comes.
pub struct Reader {
    pub node: NodeStatus,
    got: Arc<Mutex<Vec<Event>>>,
    missed: Arc<AtomicU64>,
    // Dropping it ends the stream.
    _runtime: Runtime,
}

impl Reader {
    /// Subscribes; when this returns the stream has begun.
    #[must_use]
    pub fn start(socket: &Path, filter: Option<Filter>) -> Self {
        let request = StreamEventsRequest {
            filter,
            ..StreamEventsRequest::default()
        };
        Self::ask(socket, request)
    }

    /// As [`Reader::start`], with a request of its own.
    #[must_use]
    pub fn ask(socket: &Path, request: StreamEventsRequest) -> Self {
        let runtime = runtime();
        let mut slow = Slow::open(&runtime, socket, request);
        let got: Arc<Mutex<Vec<Event>>> = Arc::default();
        let missed: Arc<AtomicU64> = Arc::default();
        let (sink, count) = (got.clone(), missed.clone());
        runtime.spawn(async move {
            while let Ok(Some(message)) = slow.stream.message().await {
                match message.response {
                    Some(Response::Event(event)) => sink.lock().unwrap().push(event),
                    Some(Response::Gap(gap)) => {
                        count.fetch_add(gap.count, Ordering::SeqCst);
                    }
                    _ => {}
                }
            }
        });
        Self {
            node: slow.node,
            got,
            missed,
            _runtime: runtime,
        }
    }

    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.got.lock().unwrap().clone()
    }

    /// Events it was told it did not get.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::SeqCst)
    }
}

/// What a slow reader got, in order.
#[derive(Debug)]
pub enum Item {
    Event(Box<Event>),
    Gap(Gap),
}

/// A client that subscribes and then does not read for a while.
pub struct SlowReader {
    runtime: Runtime,
    inner: Slow,
}

struct Slow {
    node: NodeStatus,
    stream: Streaming<StreamEventsResponse>,
}

impl Slow {
    fn open(runtime: &Runtime, socket: &Path, request: StreamEventsRequest) -> Self {
        runtime.block_on(async {
            let mut client = EventServiceClient::new(channel(socket).await.unwrap());
            let mut stream = client.stream_events(request).await.unwrap().into_inner();
            // The first message says whom we talk to; after it the subscription stands.
            let first = stream.message().await.unwrap().unwrap();
            let Some(Response::Status(node)) = first.response else {
                panic!("the stream does not begin with the node's status: {first:?}");
            };
            Self { node, stream }
        })
    }
}

impl SlowReader {
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let runtime = runtime();
        let inner = Slow::open(&runtime, socket, StreamEventsRequest::default());
        Self { runtime, inner }
    }

    /// Reads at last, until `done` or until nothing comes for `quiet`.
    pub fn read(&mut self, quiet: Duration, mut done: impl FnMut(&Item) -> bool) -> Vec<Item> {
        let mut items = Vec::new();
        self.runtime.block_on(async {
            while let Ok(Ok(Some(message))) =
                tokio::time::timeout(quiet, self.inner.stream.message()).await
            {
                let item = match message.response {
                    Some(Response::Event(event)) => Item::Event(Box::new(event)),
                    Some(Response::Gap(gap)) => Item::Gap(gap),
                    _ => continue,
                };
                let last = done(&item);
                items.push(item);
                if last {
                    break;
                }
            }
        });
        items
    }
}
