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

/// Who serves on a socket of the node.
#[derive(Debug)]
pub(crate) struct Server {
    /// As the subject of a sentence.
    pub name: &'static str,
    /// What to know where there is no socket.
    pub absent: &'static str,
}

/// Why it does not serve, whoever it is. What it writes itself is not repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("there is no socket {}: {}", .1.display(), .0.absent)]
    Absent(&'static Server, PathBuf),
    #[error("{} cannot be reached on {}: {}", .0.name, .1.display(), .2)]
    Unreachable(&'static Server, PathBuf, io::Error),
    #[error("what listens on {}'s socket does not speak gRPC", .0.name)]
    NotGrpc(&'static Server),
    #[error("{} does not answer", .0.name)]
    Silent(&'static Server),
}

pub(crate) async fn connect(
    server: &'static Server,
    socket: &Path,
) -> Result<Channel, SocketError> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(SocketError::Absent(server, socket.to_owned()));
        }
        Err(e) => return Err(SocketError::Unreachable(server, socket.to_owned(), e)),
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
        .map_err(|_| SocketError::NotGrpc(server))
}
