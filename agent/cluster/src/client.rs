//! One request, one connection, and an answer that is read piece by piece.

use crate::account::{Cluster, Credentials};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection, and then the head of an answer, may take.
const CONNECT: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a head and of what is read at a time.
const BUFFER: usize = 64 << 10;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// What was asked from does not exist any more (410): everything is asked for anew.
    Gone,
    Other(String),
}

impl Failure {
    pub fn other(what: impl ToString) -> Failure {
        Failure::Other(what.to_string())
    }
}

/// An answer that is being read. Dropping it ends the connection.
pub(crate) struct Answer {
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame =
                std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context));
            match timeout(patience, frame).await {
                Err(_) => return Err(Failure::other("the API server says nothing any more")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(e))) => return Err(Failure::other(e)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// Asks for `path` with the account's credentials.
pub(crate) async fn get(cluster: &Cluster, path: &str) -> Result<Answer, Failure> {
    let account = cluster.clone();
    let credentials = tokio::task::spawn_blocking(move || account.credentials())
        .await
        .map_err(Failure::other)?
        .map_err(Failure::other)?;
    let Credentials {
        config,
        name,
        authorization,
    } = credentials;
    let reach = async {
        let stream = TcpStream::connect((cluster.host.as_str(), cluster.port)).await?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = timeout(CONNECT, reach)
        .await
        .map_err(|_| Failure::other("the API server does not answer"))?
        .map_err(|e| Failure::Other(format!("the API server cannot be reached: {e}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::other)?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::get(path)
        .header(HOST, format!("{}:{}", cluster.host, cluster.port))
        .header(USER_AGENT, concat!("keytrail/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, authorization)
        .body(String::new())
        .map_err(Failure::other)?;
    let response = match timeout(HEAD, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        failed => {
            connection.abort();
            return Err(match failed {
                Ok(Err(e)) => Failure::other(e),
                _ => Failure::other("the API server does not answer"),
            });
        }
    };
    let status = response.status();
    let answer = Answer {
        body: response.into_body(),
        connection,
    };
    match status {
        StatusCode::OK => Ok(answer),
        StatusCode::GONE => Err(Failure::Gone),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Other(format!(
            "the API server answers {}: the agent's service account may not list and watch pods",
            status.as_u16()
        ))),
        _ => Err(Failure::Other(format!(
            "the API server answers {}",
            status.as_u16()
        ))),
    }
}
