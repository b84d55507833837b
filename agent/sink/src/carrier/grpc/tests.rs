//! Against a collector that answers by tonic, which is strict, or as no gRPC server should.

use super::*;
use crate::carrier::certificate::certificate;
use crate::format::otlp::wire;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use prost::Message as _;
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

const METHOD: &str = "/a.B/C";
const SECRET: &str = "Bearer of-the-test-only";

/// What the collector does with a call.
pub(in crate::carrier) enum Answer {
    /// What tonic makes of this.
    Says(Result<wire::Response, Status>),
    /// Exactly this.
    Is(Response<Body>),
    Silence,
    /// It ends the connection.
    Closes,
}

pub(in crate::carrier) struct Call {
    pub path: String,
    headers: HeaderMap,
    /// Of which connection, counted from 1.
    connection: usize,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Call>>,
    messages: Mutex<Vec<wire::Request>>,
}

pub(in crate::carrier) struct Server {
    pub url: String,
    shared: Arc<Shared>,
    /// Dropped, it ends.
    _runtime: Runtime,
}

impl Server {
    pub fn start(answers: Vec<Answer>) -> Server {
        Server::with(answers, None)
    }

    fn with(answers: Vec<Answer>, tls: Option<ServerConfig>) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.into()),
            ..Shared::default()
        });
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        runtime.spawn(accept(listener, tls, shared.clone()));
        Server {
            url,
            shared,
            _runtime: runtime,
        }
    }

    pub fn messages(&self) -> Vec<wire::Request> {
        self.shared.messages.lock().unwrap().clone()
    }

    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    for connection in 1.. {
        let (peer, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        match &tls {
            None => tokio::spawn(serve(peer, connection, shared)),
            Some(tls) => {
                let handshake = tls.accept(peer);
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    if let Ok(peer) = handshake.await {
                        serve(peer, connection, shared).await;
                    }
                })
            }
        };
    }
}

async fn serve<S>(peer: S, connection: usize, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let closes = Arc::new(Notify::new());
    let over = closes.clone();
    let service = service_fn(move |request| {
        shared
            .calls
            .lock()
            .unwrap()
            .push(note(&request, connection));
        answer(request, shared.clone(), closes.clone())
    });
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(peer), service);
    tokio::select! {
        _ = served => {}
        () = over.notified() => {}
    }
}

fn note(request: &Request<Incoming>, connection: usize) -> Call {
    Call {
        path: request.uri().path().to_owned(),
        headers: request.headers().clone(),
        connection,
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    closes: Arc<Notify>,
) -> Result<Response<Body>, Infallible> {
    let next = shared.answers.lock().unwrap().pop_front();
    Ok(match next.expect("a call too many") {
        Answer::Is(response) => response,
        Answer::Silence => std::future::pending().await,
        Answer::Closes => {
            closes.notify_one();
            std::future::pending().await
        }
        Answer::Says(said) => {
            let service = tower::service_fn(move |request: tonic::Request<wire::Request>| {
                shared.messages.lock().unwrap().push(request.into_inner());
                let said = said.clone();
                async move { said.map(tonic::Response::new) }
            });
            let codec = ProstCodec::<wire::Response, wire::Request>::default();
            Grpc::new(codec).unary(service, request).await
        }
    })
}

fn fine() -> Answer {
    Answer::Says(Ok(wire::Response::default()))
}

/// An answer with this body and these trailers.
fn whole(body: &[u8], trailers: &[(&'static str, &'static str)]) -> Answer {
    let trailers = trailers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
    let body = Full::new(Bytes::copy_from_slice(body));
    Answer::Is(Response::new(Body::new(
        body.with_trailers(std::future::ready(Some(Ok(trailers)))),
    )))
}

/// An answer without a body.
fn head(status: u16, headers: &[(&str, &str)]) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Answer::Is(response.body(Body::new(Empty::<Bytes>::new())).unwrap())
}

fn client(timeout_ms: u64) -> Client {
    Client::new(Duration::from_millis(timeout_ms), None, "1")
}

fn call(client: &mut Client, url: &str) -> Result<Vec<u8>, Failure> {
    let mut value = HeaderValue::from_static(SECRET);
    value.set_sensitive(true);
    let headers = vec![(HeaderName::from_static("authorization"), value)];
    let message = wire::Request {
        resources: vec![wire::ResourceLogs::default()],
    };
    let done = client.call(url, METHOD, headers, &message.encode_to_vec());
    // Nothing of what is secret is in what is said.
    assert!(!format!("{done:?}").contains("of-the-test"));
    done
}

/// Why it will be tried again.
fn later(done: Result<Vec<u8>, Failure>) -> String {
    match done {
        Err(Failure::Later { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_is_one_of_grpc_and_the_connection_stays() {
    let partial = wire::Response {
        partial_success: Some(wire::PartialSuccess {
            rejected_log_records: 3,
            error_message: "x".into(),
        }),
    };
    let server = Server::start(vec![fine(), Answer::Says(Ok(partial.clone()))]);
    let mut client = client(10_000);
    assert!(call(&mut client, &server.url).unwrap().is_empty());
    let url = format!("{}/", server.url);
    assert_eq!(call(&mut client, &url).unwrap(), partial.encode_to_vec());
    let messages = server.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].resources.len(), 1);
    for got in server.calls() {
        assert_eq!((got.path.as_str(), got.connection), (METHOD, 1));
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "10000m"),
            ("user-agent", "keytrail/1"),
            ("authorization", SECRET),
        ] {
            assert_eq!(got.headers[name], value);
        }
    }
}

#[test]
fn a_status_is_understood_wherever_it_stands() {
    let message = framed(b"");
    let server = Server::start(vec![
        Answer::Says(Err(Status::resource_exhausted("of-the-test"))),
        whole(&message, &[("grpc-status", "14")]),
        whole(&message, &[("grpc-status", "0")]),
        // Trailers are the last word.
        head(200, &[("grpc-status", "0")]),
        head(
            200,
            &[
                ("grpc-status", "8"),
                ("grpc-status-details-bin", "no Base64!"),
            ],
        ),
        head(503, &[]),
        head(404, &[]),
        whole(b"<html>", &[]),
        head(200, &[]),
    ]);
    let mut client = client(10_000);
    let mut done = || call(&mut client, &server.url);
    assert!(
        matches!(done(), Err(Failure::Refused(why)) if why == "it answered RESOURCE_EXHAUSTED")
    );
    assert_eq!(later(done()), "it answered UNAVAILABLE");
    assert!(done().is_ok() && done().is_ok());
    assert!(matches!(done(), Err(Failure::Refused(_))));
    assert_eq!(later(done()), "it answered 503");
    assert!(matches!(done(), Err(Failure::Refused(why)) if why == "it answered 404"));
    assert_eq!(later(done()), "its answer is not gRPC");
    assert_eq!(later(done()), "its answer is not gRPC");
}

#[test]
fn messages_have_their_length_before_them() {
    assert_eq!(framed(b"ab").as_ref(), b"\0\0\0\0\x02ab");
    assert_eq!(unframed(&framed(b"ab")), b"ab");
    assert_eq!(unframed(b"\0\0\0\0\x01ab"), b"a");
    for bad in [
        b"".as_slice(),
        b"\0\0\0\0",
        b"\0\0\0\0\x03ab",
        b"\x01\0\0\0\x02ab",
        b"\0\xff\xff\xff\xff",
    ] {
        assert!(unframed(bad).is_empty(), "{bad:?}");
    }
}

#[test]
fn what_answers_too_much_has_not_answered() {
    let much = vec![0; ANSWER_MAX + 1];
    let server = Server::start(vec![whole(&much, &[("grpc-status", "0")]), fine()]);
    let mut client = client(10_000);
    assert_eq!(
        later(call(&mut client, &server.url)),
        "it answers with more than 65536 bytes"
    );
    assert!(call(&mut client, &server.url).is_ok());
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    let server = Server::start(vec![Answer::Silence, fine(), Answer::Silence]);
    // Takes connections, and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap();
    let started = Instant::now();
    let mut client = client(300);
    for url in [server.url.clone(), format!("http://{mute}")] {
        assert_eq!(later(call(&mut client, &url)), LATE);
    }
    client.timeout = Duration::from_secs(10);
    assert!(call(&mut client, &server.url).is_ok());
    // The connection that worked a moment ago as well.
    client.timeout = Duration::from_millis(300);
    assert_eq!(later(call(&mut client, &server.url)), LATE);
    assert!(started.elapsed() < Duration::from_secs(10));
    let connections: Vec<usize> = server.calls().iter().map(|call| call.connection).collect();
    assert_eq!(connections, [1, 2, 2]);
}

#[test]
fn a_connection_that_ended_meanwhile_is_made_anew() {
    let server = Server::start(vec![
        fine(),
        Answer::Closes,
        fine(),
        Answer::Closes,
        Answer::Closes,
    ]);
    let mut client = client(10_000);
    assert!(call(&mut client, &server.url).is_ok());
    assert!(call(&mut client, &server.url).is_ok());
    // Twice in a row is a failure.
    assert!(later(call(&mut client, &server.url)).starts_with("the connection failed: "));
    let connections: Vec<usize> = server.calls().iter().map(|call| call.connection).collect();
    assert_eq!(connections, [1, 1, 2, 2, 3]);
}

#[test]
fn what_is_no_collector_gets_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let mut client = client(10_000);
    assert!(later(call(&mut client, &closed)).contains("refused"));
    for bad in [
        "http://127.0.0.1:1/v1/of-the-test",
        "http://127.0.0.1:1?of-the-test",
        "http://u:of-the-test@127.0.0.1:1",
        "ftp://127.0.0.1:1",
        "of the test",
        "https://[of-the-test",
    ] {
        let why = later(call(&mut client, bad));
        assert!(why.starts_with("the URL is not https://HOST:PORT"), "{why}");
    }
    // HTTP/1 only.
    let old = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", old.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut peer, _) = old.accept().unwrap();
        let _ = peer.read(&mut [0; 1024]);
        let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    assert!(later(call(&mut client, &url)).starts_with("the connection failed: "));
    thread.join().unwrap();
}

#[test]
fn by_tls_the_collector_is_who_the_authorities_say() {
    let (pem, config) = certificate("127.0.0.1", &[ALPN]);
    let (other, without) = certificate("127.0.0.1", &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (pem, other) = (file("ca", &pem), file("other", &other));
    let server = Server::with(vec![fine(), fine()], Some(config));
    let client = |ca| Client::new(Duration::from_secs(10), Some(ca), "1");
    let mut good = client(pem.clone());
    assert!(call(&mut good, &server.url).is_ok() && call(&mut good, &server.url).is_ok());
    assert_eq!(server.messages().len(), 2);
    let why = later(call(&mut client(other.clone()), &server.url));
    assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    let plain = server.url.replace("https", "http");
    assert!(later(call(&mut client(pem), &plain)).starts_with("the connection failed: "));
    let server = Server::with(Vec::new(), Some(without));
    let why = later(call(&mut client(other), &server.url));
    assert_eq!(why, "it does not speak HTTP/2 by TLS");
}
