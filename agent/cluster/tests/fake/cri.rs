//! A server of CRI v1 on a unix socket, for what no runtime that can be had here would say; what it says is written down from the
//! published protocol, byte by byte and without the reader's own types.

use prost::Message;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A field of protobuf that has a length.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

/// A `PodSandbox`, with labels of its own.
pub fn pod(id: &str, uid: &str, name: &str, labels: &[(String, String)]) -> Vec<u8> {
    let metadata = [
        field(1, name.as_bytes()),
        field(2, uid.as_bytes()),
        field(3, b"payments"),
    ];
    let mut bytes = field(1, id.as_bytes());
    bytes.extend(field(2, &metadata.concat()));
    for (key, value) in labels {
        let label = [field(1, key.as_bytes()), field(2, value.as_bytes())];
        bytes.extend(field(5, &label.concat()));
    }
    bytes
}

/// A `Container` of a pod.
pub fn container(id: &str, of: &str, name: &str) -> Vec<u8> {
    let parts = [
        field(1, id.as_bytes()),
        field(2, of.as_bytes()),
        field(3, &field(1, name.as_bytes())),
    ];
    parts.concat()
}

/// Both lists have their items in the field 1.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(bytes = "vec", repeated, tag = "1")]
    items: Vec<Vec<u8>>,
}

/// What a runtime lists.
#[derive(Clone, Default)]
pub struct Lists {
    pub pods: Vec<Vec<u8>>,
    pub containers: Vec<Vec<u8>>,
}

/// A runtime. Dropping it ends it; its socket stays, as when one is killed.
pub struct Cri {
    pub lists: Arc<Mutex<Lists>>,
    runtime: Option<Runtime>,
}

impl Cri {
    pub fn start(socket: &Path, lists: Lists) -> Cri {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let lists = Arc::new(Mutex::new(lists));
        let service = Serving(lists.clone());
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(async move {
            let connections = UnixListenerStream::new(listener);
            let _ = Server::builder()
                .add_service(service)
                .serve_with_incoming(connections)
                .await;
        });
        Cri {
            lists,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Serving(Arc<Mutex<Lists>>);

impl NamedService for Serving {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl Service<http::Request<Body>> for Serving {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let lists = self.0.lock().unwrap();
        let items = match request.uri().path().rsplit('/').next() {
            Some("ListPodSandbox") => lists.pods.clone(),
            Some("ListContainers") => lists.containers.clone(),
            _ => return Box::pin(ready(Ok(Status::not_found("").into_http()))),
        };
        drop(lists);
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<List, ()>::default());
            Ok(grpc.unary(Answer(List { items }), request).await)
        })
    }
}

struct Answer(List);

impl UnaryService<()> for Answer {
    type Response = List;
    type Future = Ready<Result<Response<List>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(std::mem::take(&mut self.0))))
    }
}
