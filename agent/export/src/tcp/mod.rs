//! The same API over TCP: TLS 1.3, both sides show a certificate, and only names of the configuration are let in.
//!
//! Everything a client can take is bounded by who it is (`accounts`), and before that is known by where it comes from. What
//! goes wrong here never ends the agent: a certificate that is not there yet or a port that is taken is tried again.

mod accounts;
mod connection;
mod gate;
mod identity;
mod material;

pub use identity::{Identity, IdentityError, Role};
pub use material::{TlsError, TlsFiles};

use super::services::Services;
use accounts::{Account, Accounts, PendingHandshakes, Share};
use connection::TlsConnection;
use gate::GateLayer;
use identity::names_of;
use material::{FileVersions, Material};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Between inspections of the files, and before what failed is tried again.
const LOOK: Duration = Duration::from_secs(2);
/// Rest after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a client without any role may stay, to be told so.
const NO_ROLE: Duration = Duration::from_secs(10);
/// How long streams may take to send what is queued when the agent stops.
const GRACE: Duration = Duration::from_millis(500);
/// Streams of one connection.
const STREAMS: u32 = 16;
/// Bytes a client may send ahead, on a stream and on a connection: requests are a filter at most.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of a request's headers.
const HEADERS: u32 = 16 << 10;
/// A client that does not answer a ping has gone, or does not read.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(20);

/// Where, with what, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSpec {
    pub listen: SocketAddr,
    pub files: TlsFiles,
    /// Who may ask.
    pub read: Vec<Identity>,
    /// Who may also change something.
    pub administer: Vec<Identity>,
}

/// A server by TCP. Stop it with [`TcpServer::shutdown`].
#[derive(Debug)]
pub struct TcpServer {
    stop: watch::Sender<bool>,
    bound: watch::Receiver<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl TcpServer {
    /// Serves as `spec` says, as soon as that is possible, with the tasks of `runtime`. What is in the way is logged.
    pub fn start(runtime: &Handle, spec: TcpSpec, services: Services) -> TcpServer {
        let (stop, stopped) = watch::channel(false);
        let (set_bound, bound) = watch::channel(None);
        let task = runtime.spawn(async move { serve(&spec, &services, &set_bound, stopped).await });
        TcpServer { stop, bound, task }
    }

    /// Where it listens, once it does.
    pub async fn bound(&self) -> Option<SocketAddr> {
        let mut bound = self.bound.clone();
        bound.wait_for(Option::is_some).await.ok().and_then(|b| *b)
    }

    /// Waits for clients to take what is queued, half a second at most, and ends all connections. The hub has to be closed
    /// before or meanwhile: its streams end with it.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(GRACE, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Says what is in the way once, not at every try.
#[derive(Default)]
struct Said(String);

impl Said {
    fn error(&mut self, what: String) {
        if self.0 != what {
            tracing::error!("the API by TCP: {what}");
            self.0 = what;
        }
    }
}

async fn load(spec: &TcpSpec) -> Result<(Material, FileVersions), TlsError> {
    let files = spec.files.clone();
    // Before the files are read: what changes meanwhile is seen at the next look.
    tokio::task::spawn_blocking(move || {
        let versions = files.versions();
        Material::load(&files).map(|material| (material, versions))
    })
    .await
    .unwrap_or_else(|_| Err(TlsError::new("the certificates could not be read")))
}

async fn serve(
    spec: &TcpSpec,
    services: &Services,
    bound: &watch::Sender<Option<SocketAddr>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut said = Said::default();
    while !*stop.borrow() {
        match load(spec).await {
            Err(e) => said.error(e.to_string()),
            Ok((material, versions)) => match TcpListener::bind(spec.listen).await {
                Err(e) => said.error(format!("cannot listen on {}: {e}", spec.listen)),
                Ok(listener) => {
                    said = Said::default();
                    if let Ok(address) = listener.local_addr() {
                        tracing::info!(%address, "serving the API by TCP to who has a certificate");
                        bound.send_replace(Some(address));
                    }
                    let door = Door::new(spec, material);
                    let (incoming, accepted) = mpsc::channel(16);
                    tokio::select! {
                        () = door.accept(listener, incoming) => {}
                        () = door.follow(spec, versions) => {}
                        ended = speak(accepted, services, stop.clone()) => {
                            // Nothing to say when it was told to.
                            if let Err(e) = ended {
                                said.error(e.to_string());
                            }
                        }
                    }
                }
            },
        }
        let _ = tokio::time::timeout(LOOK, stop.wait_for(|stop| *stop)).await;
    }
}

/// Why gRPC is not spoken on a port any more.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the schema cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

/// Speaks gRPC with who was let in, until it is told to stop.
async fn speak(
    accepted: mpsc::Receiver<TlsConnection>,
    services: &Services,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let (routes, health) = services.routes().await?;
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .layer(GateLayer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            let _ = stop.wait_for(|stop| *stop).await;
            Services::end(&health).await;
        })
        .await?;
    Ok(())
}

/// Who is let in, and with what.
struct Door {
    accounts: Accounts,
    material: Mutex<Material>,
    pending: Arc<PendingHandshakes>,
    /// Counts up when other authorities vouch for clients.
    authorities: watch::Sender<u64>,
}

impl Door {
    fn new(spec: &TcpSpec, material: Material) -> Arc<Door> {
        Arc::new(Door {
            accounts: Accounts::new(&spec.read, &spec.administer),
            material: Mutex::new(material),
            pending: Arc::default(),
            authorities: watch::Sender::new(0),
        })
    }

    fn material(&self) -> Material {
        self.material
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn accept(self: &Arc<Self>, listener: TcpListener, to: mpsc::Sender<TlsConnection>) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                // Without a free descriptor the next try fails as well: not at once.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let Some(place) = self.pending.admit(from.ip()) else {
                tracing::debug!(%from, "too many clients that have not said who they are");
                continue;
            };
            let (door, to) = (self.clone(), to.clone());
            tokio::spawn(async move {
                let met = tokio::time::timeout(HANDSHAKE, door.meet(stream)).await;
                drop(place);
                match met {
                    Ok(Ok(connection)) => {
                        let _ = to.send(connection).await;
                    }
                    Ok(Err(e)) => tracing::debug!(%from, error = %e, "a client was not let in"),
                    Err(_) => tracing::debug!(%from, "a client did not say who it is"),
                }
            });
        }
    }

    /// The handshake, and who that is.
    async fn meet(&self, stream: TcpStream) -> io::Result<TlsConnection> {
        let _ = stream.set_nodelay(true);
        // Both before the handshake: authorities that change during it end the connection.
        let authorities = self.authorities.subscribe();
        let acceptor = TlsAcceptor::from(self.material().config);
        let stream = acceptor.accept(stream).await?;
        let (account, lifetime) = self.account(&stream);
        let share: Share = account.connection().ok_or_else(|| {
            io::Error::other(format!("{} has too many connections", account.name))
        })?;
        Ok(TlsConnection::new(
            stream,
            account,
            share,
            lifetime,
            authorities,
        ))
    }

    fn account(&self, stream: &TlsStream<TcpStream>) -> (Arc<Account>, Duration) {
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let names = certificate.map(|c| names_of(c)).unwrap_or_default();
        let account = self.accounts.of(&names);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let end = Duration::from_secs(u64::try_from(names.not_after).unwrap_or(0));
        // tokio's timer takes about two years.
        let mut lifetime = end
            .saturating_sub(now)
            .min(Duration::from_secs(86_400 * 365));
        if account.role == Role::None {
            lifetime = lifetime.min(NO_ROLE);
        }
        (account, lifetime)
    }

    /// Takes new files as they come. What cannot be used leaves the old in use.
    async fn follow(&self, spec: &TcpSpec, mut versions: FileVersions) {
        let mut said = Said::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let files = spec.files.clone();
            let now = tokio::task::spawn_blocking(move || files.versions()).await;
            if now.is_ok_and(|now| now == versions) {
                continue;
            }
            match load(spec).await {
                Ok((material, at)) => {
                    versions = at;
                    said = Said::default();
                    self.take(material);
                }
                // Tried again at the next look: certificate and key come one after the other.
                Err(e) => said.error(format!("{e}; the certificates of before stay in use")),
            }
        }
    }

    fn take(&self, material: Material) {
        let mut current = self.material.lock().unwrap_or_else(PoisonError::into_inner);
        let others = current.authorities != material.authorities;
        *current = material;
        drop(current);
        tracing::info!(
            authorities_changed = others,
            "the API by TCP has new certificates"
        );
        if others {
            self.authorities.send_modify(|n| *n += 1);
        }
    }
}
