//! Connecting to an agent, with failures in plain words.

use super::Target;
use super::tcp::{TlsError, TlsFiles};
use hyper_util::rt::TokioIo;
use keytrail_proto::v1::event_service_client::EventServiceClient;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
pub use tonic::transport::Channel;
use tonic::transport::Endpoint;

/// A client of one agent.
pub type Client = EventServiceClient<Channel>;

/// Largest message taken from an agent: an event with every field at its limit is far below.
const MAX_MESSAGE: usize = 16 << 20;

/// How long another host may take to answer, TLS included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket there, or nobody behind it.
    #[error("no agent is listening on {0}: {hint}", hint = hint(.0))]
    NoAgent(Target),
    /// The socket is there, but not for us.
    #[error(
        "permission denied on {0}: only root and the socket's group may talk to the agent (try sudo)"
    )]
    Denied(Target),
    #[error("{address}: {message}")]
    Other { address: Target, message: String },
}

/// What helps where nobody listens.
fn hint(address: &Target) -> &'static str {
    match address {
        Target::Unix(_) => "start one with `keytrail agent` (or `systemctl start keytrail`)",
        _ => "`[tcp]` in its configuration says where it does",
    }
}

impl ClientError {
    fn from_io(address: &Target, e: &io::Error) -> ClientError {
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoAgent(address.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(address.clone()),
            _ => ClientError::Other {
                address: address.clone(),
                message: format!("cannot connect: {e}"),
            },
        }
    }
}

/// Connects to the agent at `target`.
///
/// # Errors
/// [`ClientError`], made for showing to a person.
pub async fn connect(target: impl Into<Target>) -> Result<Client, ClientError> {
    let channel = connect_channel(target).await?;
    Ok(EventServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

/// As [`connect`], for clients of any of the agent's services.
///
/// # Errors
/// As [`connect`].
pub async fn connect_channel(target: impl Into<Target>) -> Result<Channel, ClientError> {
    let target = target.into();
    match &target {
        Target::Unix(address) => {
            let stream = UnixStream::connect(address.path())
                .await
                .map_err(|e| ClientError::from_io(&target, &e))?;
            // The name is only the `:authority` of the requests: the socket is above.
            speak(&target, stream, "http://keytrail").await
        }
        Target::Tcp { host, port, files } => {
            let stream =
                tokio::time::timeout(PATIENCE, secure(&target, host, *port, files.as_deref()))
                    .await
                    .map_err(|_| other(&target, "does not answer"))??;
            speak(&target, stream, &target.to_string()).await
        }
    }
}

fn other(target: &Target, message: impl fmt::Display) -> ClientError {
    ClientError::Other {
        address: target.clone(),
        message: message.to_string(),
    }
}

/// A TLS connection on which both sides have shown who they are.
async fn secure(
    target: &Target,
    host: &str,
    port: u16,
    files: Option<&TlsFiles>,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let files = files.ok_or_else(|| {
        other(
            target,
            "needs --tls-ca, --tls-cert and --tls-key (or KEYTRAIL_TLS_CA, KEYTRAIL_TLS_CERT, KEYTRAIL_TLS_KEY)",
        )
    })?;
    let config = client_config(files).map_err(|e| other(target, e))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|e| other(target, e))?;
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| ClientError::from_io(target, &e))?;
    let _ = stream.set_nodelay(true);
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|e| {
            other(
                target,
                format_args!("is not to be trusted, or does not trust this client: {e}"),
            )
        })
}

fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let (roots, _) = files.roots()?;
    let (chain, key) = files.own()?;
    let failed = |e: rustls::Error| TlsError::new(format!("{}: {e}", files.certificate.display()));
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// HTTP/2 on a connection. The transport wraps errors beyond recognition: so it is made before and handed over.
async fn speak<S>(target: &Target, stream: S, authority: &str) -> Result<Channel, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        async move { stream }
    });
    // The scheme is of no matter to the transport: the connection is above, and this keeps it from asking for TLS again.
    let authority = authority.replacen("https://", "http://", 1);
    Endpoint::from_shared(authority)
        .map_err(|e| other(target, e))?
        .connect_with_connector(connector)
        .await
        .map_err(|e| other(target, format_args!("does not speak gRPC: {e}")))
}
