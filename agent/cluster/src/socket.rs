//! gRPC on a unix socket of the node.

use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A connection may say nothing for days, so its other end is asked whether it lives. Servers of gRPC for Go end connections
/// that ask more often than every five minutes.
const PING: Duration = Duration::from_secs(360);
const PONG: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Unconnected {
    Absent(PathBuf),
    Unreachable(PathBuf, io::Error),
    NotGrpc,
}

pub(crate) async fn connect(socket: &Path) -> Result<Channel, Unconnected> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Unconnected::Absent(socket.to_owned()));
        }
        Err(e) => return Err(Unconnected::Unreachable(socket.to_owned(), e)),
    };
    // The transport wraps errors beyond recognition: so the connection is made before and handed over.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        async move { stream }
    });
    // The name is only the `:authority` of the requests.
    Endpoint::from_static("http://localhost")
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|_| Unconnected::NotGrpc)
}
