//! A server of the kubelet's Pods API on a unix socket, which sends what it is told. There is no kubelet to be had here; what it
//! says is written down from the published protocol, byte by byte and without the reader's own types.

use prost::Message;
use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

pub const ADDED: i32 = 1;
pub const MODIFIED: i32 = 2;
pub const DELETED: i32 = 3;
pub const INITIAL_SYNC_COMPLETE: i32 = 4;

/// `WatchPodsEvent`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub pod: Vec<u8>,
}

/// A field of protobuf that has a length.
pub fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(u64::from(number << 3 | 2), &mut bytes);
    varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn fields(of: &[(u32, &[u8])]) -> Vec<u8> {
    of.iter()
        .flat_map(|(number, content)| field(*number, content))
        .collect()
}

/// A core/v1 Pod.
#[derive(Clone, Debug)]
pub struct PodText<'a> {
    pub uid: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub container: &'a str,
    pub image: &'a str,
    pub image_id: &'a str,
    /// Of a container's environment.
    pub secret: &'a str,
}

impl PodText<'_> {
    /// With an owner, labels and a specification, and with what is of no use here as well.
    pub fn encoded(&self) -> Vec<u8> {
        let label = |key: &str, value: &str| fields(&[(1, key.as_bytes()), (2, value.as_bytes())]);
        let mut owner = fields(&[
            (1, b"ReplicaSet"),
            (3, b"api-7f9c8d"),
            (4, b"0"),
            (5, b"apps/v1"),
        ]);
        // controller: true
        owner.extend([6 << 3, 1]);
        let metadata = fields(&[
            (1, self.name.as_bytes()),
            (2, b"api-"),
            (3, self.namespace.as_bytes()),
            (5, self.uid.as_bytes()),
            (6, b"77"),
            (11, &label("app", "api")),
            (11, &label("pod-template-hash", "7f9c8d")),
            (
                12,
                &label(
                    "kubectl.kubernetes.io/last-applied-configuration",
                    self.secret,
                ),
            ),
            (13, &owner),
        ]);
        let variable = fields(&[(1, b"K"), (2, self.secret.as_bytes())]);
        let container = fields(&[(1, b"app"), (2, self.image.as_bytes()), (7, &variable)]);
        let spec = fields(&[(2, &container), (8, b"api"), (9, b"api"), (10, b"n1")]);
        let id = format!("containerd://{}", self.container);
        let mut running = fields(&[
            (1, b"app"),
            (6, self.image.as_bytes()),
            (7, self.image_id.as_bytes()),
            (8, id.as_bytes()),
        ]);
        // ready: true, restartCount: 3
        running.extend([4 << 3, 1, 5 << 3, 3]);
        let status = fields(&[(1, b"Running"), (5, b"10.0.0.1"), (8, &running)]);
        fields(&[(1, &metadata), (2, &spec), (3, &status)])
    }

    /// As the kubelet reports a pod that has gone: its specification and status are there, and empty.
    pub fn deleted(&self) -> Vec<u8> {
        let metadata = fields(&[
            (1, self.name.as_bytes()),
            (3, self.namespace.as_bytes()),
            (5, self.uid.as_bytes()),
        ]);
        fields(&[(1, &metadata), (2, &[]), (3, &[])])
    }
}

/// What a watch is answered with: changes, and then it stays open; or a refusal.
pub type Answer = Result<Vec<Event>, Status>;

struct Shared {
    answer: Box<dyn Fn(usize) -> Answer + Send + Sync>,
    /// The field mask of each watch, or nothing.
    asked: Mutex<Vec<Option<String>>>,
    open: Mutex<Vec<mpsc::Sender<Result<Event, Status>>>>,
}

/// A kubelet. Dropping it ends it and takes the socket away.
pub struct Kubelet {
    shared: Arc<Shared>,
    socket: PathBuf,
    runtime: Option<Runtime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Kubelet {
    /// `answer` gets how many watches came before.
    pub fn start(
        socket: &Path,
        answer: impl Fn(usize) -> Answer + Send + Sync + 'static,
    ) -> Kubelet {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            asked: Mutex::default(),
            open: Mutex::default(),
        });
        let pods = Pods(shared.clone());
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(async move {
            let connections = UnixListenerStream::new(listener);
            let _ = Server::builder()
                .add_service(pods)
                .serve_with_incoming(connections)
                .await;
        });
        Kubelet {
            shared,
            socket: socket.to_owned(),
            runtime: Some(runtime),
        }
    }

    /// A change, to every watch that is open.
    pub fn send(&self, kind: i32, pod: Vec<u8>) {
        for watch in lock(&self.shared.open).iter() {
            let _ = watch.blocking_send(Ok(Event {
                kind,
                pod: pod.clone(),
            }));
        }
    }

    /// Ends the watches that are open with this status, in their trailers.
    pub fn fail(&self, status: &Status) {
        for watch in lock(&self.shared.open).drain(..) {
            let _ = watch.blocking_send(Err(status.clone()));
        }
    }

    /// Ends the watches that are open.
    pub fn cut(&self) {
        lock(&self.shared.open).clear();
    }

    /// The field masks of the watches that were asked for.
    pub fn asked(&self) -> Vec<Option<String>> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Clone)]
struct Pods(Arc<Shared>);

impl NamedService for Pods {
    const NAME: &'static str = "v1alpha1.Pods";
}

impl Service<http::Request<Body>> for Pods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            if request.uri().path() != "/v1alpha1.Pods/WatchPods" {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<Event, ()>::default());
            Ok(grpc.server_streaming(WatchPods(shared), request).await)
        })
    }
}

struct WatchPods(Arc<Shared>);

impl ServerStreamingService<()> for WatchPods {
    type Response = Event;
    type ResponseStream = ReceiverStream<Result<Event, Status>>;
    type Future = Later<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let mask = request.metadata().get("x-kubernetes-fieldmask");
            let mask = mask.and_then(|mask| mask.to_str().ok()).map(str::to_owned);
            let n = {
                let mut asked = lock(&shared.asked);
                asked.push(mask);
                asked.len() - 1
            };
            let events = (shared.answer)(n)?;
            let (watch, changes) = mpsc::channel(events.len() + 100);
            for event in events {
                let _ = watch.try_send(Ok(event));
            }
            lock(&shared.open).push(watch);
            Ok(Response::new(ReceiverStream::new(changes)))
        })
    }
}
