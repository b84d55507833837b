//! Unary calls of gRPC (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), by hyper's HTTP/2.
//!
//! Not by tonic's client: it panics at details of a status that are no Base64, and what the receiver says and what befalls
//! the connection are the same kind of error there. Here the one may mean never, and the other means later.
//!
//! No error text has a URL, a header or what the receiver wrote in it.

mod status;

use super::Failure;
use super::reach::{self, LATE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

/// Bytes of an answer, and of its head and its trailers.
const ANSWER_MAX: usize = 64 << 10;
const HEAD_MAX: u32 = 16 << 10;
const ALPN: &[u8] = b"h2";

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("it does not speak HTTP/2 by TLS")]
    NoHttp2,
    /// Without its source: that may repeat what the receiver wrote.
    #[error("the connection failed: {0}")]
    Http(hyper::Error),
    #[error("it answers with more than {} bytes", ANSWER_MAX)]
    Large,
    #[error("{}", LATE)]
    Late,
}

pub(super) struct Client {
    timeout: Duration,
    /// Certificates of authorities, PEM; the system's when there is none.
    ca_file: Option<PathBuf>,
    user_agent: String,
    connection: Option<Connection>,
}

struct Connection {
    to: Target,
    sender: SendRequest<Full<Bytes>>,
    /// Has the connection's tasks, which go on while somebody waits for them; dropped, it closes the connection.
    runtime: Runtime,
}

#[derive(Clone, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
}

struct Reply {
    status: StatusCode,
    /// Headers, and the trailers over them.
    said: HeaderMap,
    body: Vec<u8>,
}

impl Client {
    pub fn new(timeout: Duration, ca_file: Option<PathBuf>, version: &str) -> Client {
        Client {
            timeout,
            ca_file,
            user_agent: format!("keytrail/{version}"),
            connection: None,
        }
    }

    /// Calls a method (`/SERVICE/METHOD`) with a message, and gives that of the answer when the call succeeded.
    pub fn call(
        &mut self,
        url: &str,
        method: &'static str,
        headers: Vec<(HeaderName, HeaderValue)>,
        message: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let (to, request) = self.request(url, method, headers, message).ok_or_else(|| {
            Failure::later("the URL is not https://HOST:PORT or http://HOST:PORT")
        })?;
        let reply = self.reply(to, request).map_err(Failure::later)?;
        match status::failure(reply.status, &reply.said) {
            None => Ok(unframed(&reply.body).to_vec()),
            Some(failure) => {
                // Certificates may be others by the next time, and so may be who answers.
                self.connection = None;
                Err(failure)
            }
        }
    }

    fn request(
        &self,
        url: &str,
        method: &'static str,
        headers: Vec<(HeaderName, HeaderValue)>,
        message: &[u8],
    ) -> Option<(Target, Request<Full<Bytes>>)> {
        let uri: Uri = url.parse().ok()?;
        let to = Target::of(&uri)?;
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(method.parse().ok()?);
        let mut request = Request::new(Full::new(framed(message)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        let all = request.headers_mut();
        for (name, value) in headers {
            all.append(name, value);
        }
        if !all.contains_key(USER_AGENT) {
            all.insert(USER_AGENT, self.user_agent.parse().ok()?);
        }
        // What the protocol has a meaning for is nobody else's to say.
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        all.insert(TE, HeaderValue::from_static("trailers"));
        let timeout = format!("{}m", self.timeout.as_millis());
        all.insert("grpc-timeout", timeout.parse().ok()?);
        Some((to, request))
    }

    fn reply(&mut self, to: Target, request: Request<Full<Bytes>>) -> Result<Reply, CallError> {
        let deadline = Instant::now() + self.timeout;
        if let Some(mut kept) = self.connection.take().filter(|kept| kept.to == to)
            && let Ok(reply) = kept.exchange(request.clone(), deadline)
        {
            self.connection = Some(kept);
            return Ok(reply);
        }
        // One that was kept was left alone for long, or the receiver was started anew: that is no failure yet.
        let mut connection = self.connect(to, deadline)?;
        let reply = connection.exchange(request, deadline)?;
        self.connection = Some(connection);
        Ok(reply)
    }

    fn connect(&self, to: Target, deadline: Instant) -> Result<Connection, CallError> {
        let tls = to
            .tls
            .then(|| reach::tls(&to.host, self.ca_file.as_deref(), &[ALPN]))
            .transpose()?;
        let socket = reach::open(&to.host, to.port, deadline)?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let sender = wait(&runtime, deadline, begin(socket, tls))?;
        Ok(Connection {
            to,
            sender,
            runtime,
        })
    }
}

impl Connection {
    fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        wait(&self.runtime, deadline, exchange(&mut self.sender, request))
    }
}

impl Target {
    /// Of a URL that names a host, and nothing in it.
    fn of(uri: &Uri) -> Option<Target> {
        let (tls, usual) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        let authority = uri.authority()?;
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        (plain && !authority.as_str().contains('@')).then(|| Target {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(usual),
        })
    }
}

fn wait<T>(
    runtime: &Runtime,
    deadline: Instant,
    what: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    // The clock is the runtime's: it is asked inside.
    let bounded = async { tokio::time::timeout_at(deadline.into(), what).await };
    runtime.block_on(bounded).unwrap_or(Err(CallError::Late))
}

async fn begin(
    socket: std::net::TcpStream,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let socket = TcpStream::from_std(socket)?;
    let Some((config, name)) = tls else {
        return speak(socket).await;
    };
    let connecting = TlsConnector::from(config).connect(name, socket);
    let stream = connecting.await.map_err(CallError::Tls)?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(CallError::NoHttp2);
    }
    speak(stream).await
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, CallError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(ANSWER_MAX as u32)
        .initial_connection_window_size(ANSWER_MAX as u32)
        .max_header_list_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(CallError::Http)?;
    // How it ends is told to who waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, CallError> {
    let answer = sender
        .send_request(request)
        .await
        .map_err(CallError::Http)?;
    let (head, mut body) = answer.into_parts();
    let mut reply = Reply {
        status: head.status,
        said: head.headers,
        body: Vec::new(),
    };
    if reply.status != StatusCode::OK {
        // Somebody between, whose page nobody reads.
        return Ok(reply);
    }
    while let Some(frame) = body.frame().await {
        match frame.map_err(CallError::Http)?.into_data() {
            Ok(data) if reply.body.len() + data.len() > ANSWER_MAX => {
                return Err(CallError::Large);
            }
            Ok(data) => reply.body.extend_from_slice(&data),
            Err(other) => reply.said.extend(other.into_trailers().unwrap_or_default()),
        }
    }
    Ok(reply)
}

/// A message with what stands before it: not compressed, and its length.
fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(5 + message.len());
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

/// The message of an answer; nothing when none is there that is whole and, as it was asked for, not compressed.
fn unframed(answer: &[u8]) -> &[u8] {
    match answer.split_first_chunk::<5>() {
        Some(([0, length @ ..], rest)) => rest
            .get(..u32::from_be_bytes(*length) as usize)
            .unwrap_or_default(),
        _ => &[],
    }
}

#[cfg(test)]
pub(super) mod tests;
