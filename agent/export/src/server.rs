//! The gRPC server on its socket.

use super::answers::AnswersSource;
use super::authority::Connection;
use super::hub::Hub;
use super::service::StatusSource;
use super::services::Services;
use super::socket::BoundSocket;
use super::{Address, ServeError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;

/// Rest after a connection that could not be accepted.
const ACCEPT_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);
/// How long streams may take to send what is queued when the agent stops.
const GRACE: Duration = Duration::from_millis(500);

/// A running server. Stop it with [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
    socket: BoundSocket,
}

impl Server {
    /// Serves events of `hub`, health and reflection on `socket` with the tasks of `runtime`.
    ///
    /// # Errors
    /// The runtime refuses the socket.
    pub fn start(
        runtime: &Handle,
        socket: BoundSocket,
        hub: Arc<Hub>,
        status: StatusSource,
    ) -> Result<Server, ServeError> {
        Server::start_with(runtime, socket, hub, status, None)
    }

    /// As [`Server::start`], and answers questions about the past.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(
        runtime: &Handle,
        socket: BoundSocket,
        hub: Arc<Hub>,
        status: StatusSource,
        answers: Option<AnswersSource>,
    ) -> Result<Server, ServeError> {
        let address = socket.address().clone();
        let fail = |source: std::io::Error| ServeError::Socket {
            address: address.clone(),
            what: "cannot serve".into(),
            source,
        };
        let _entered = runtime.enter();
        let incoming = UnixListenerStream::new(
            socket
                .listener()
                .and_then(UnixListener::from_std)
                .map_err(fail)?,
        )
        .then(|accepted| async {
            // Without a free descriptor the next try fails as well: not at once.
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
            accepted.map(Connection::new)
        });
        let services = Services::new(hub.clone(), status, answers);
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(async move {
            let (routes, health) = services.routes().await.map_err(io::Error::other)?;
            tonic::transport::Server::builder()
                .concurrency_limit_per_connection(64)
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = stopped.await;
                    Services::end(&health).await;
                })
                .await
                .map_err(io::Error::other)
        });
        Ok(Server {
            hub,
            stop,
            task,
            socket,
        })
    }

    pub fn address(&self) -> &Address {
        self.socket.address()
    }

    /// Ends all streams after what is queued, waits for clients to take it (half a second at most) and removes the socket.
    pub async fn shutdown(self) {
        self.hub.close();
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        match tokio::time::timeout(GRACE, self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(e))) => tracing::warn!(error = %e, "the gRPC server ended with an error"),
            Ok(Err(e)) => tracing::warn!(error = %e, "the gRPC server's task failed"),
            Err(_) => {
                tracing::info!("clients that do not read were disconnected");
                abort.abort();
            }
        }
        drop(self.socket);
    }
}
