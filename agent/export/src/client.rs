//! Connecting to an agent, with failures in plain words.

use super::Address;
use hyper_util::rt::TokioIo;
use keytrail_proto::v1::event_service_client::EventServiceClient;
use std::fmt;
use std::io;
use tokio::net::UnixStream;
pub use tonic::transport::Channel;
use tonic::transport::Endpoint;

/// A client of one agent.
pub type Client = EventServiceClient<Channel>;

/// Largest message taken from an agent: an event with every field at its limit is far below.
const MAX_MESSAGE: usize = 16 << 20;

/// Why there is no connection.
#[derive(Debug)]
pub enum ClientError {
    /// No socket there, or nobody behind it.
    NoAgent(Address),
    /// The socket is there, but not for us.
    Denied(Address),
    Other {
        address: Address,
        message: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoAgent(address) => write!(
                f,
                "no agent is listening on {address}: start one with `keytrail agent` (or `systemctl start keytrail`)"
            ),
            ClientError::Denied(address) => write!(
                f,
                "permission denied on {address}: only root and the socket's group may talk to the agent (try sudo)"
            ),
            ClientError::Other { address, message } => write!(f, "{address}: {message}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    fn from_io(address: &Address, e: &io::Error) -> ClientError {
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

/// Connects to the agent at `address`.
///
/// # Errors
/// [`ClientError`], made for showing to a person.
pub async fn connect(address: &Address) -> Result<Client, ClientError> {
    let channel = connect_channel(address).await?;
    Ok(EventServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

/// As [`connect`], for clients of any of the agent's services.
///
/// # Errors
/// As [`connect`].
pub async fn connect_channel(address: &Address) -> Result<Channel, ClientError> {
    // The transport wraps errors beyond recognition: the connection is made here and handed over.
    let stream = UnixStream::connect(address.path())
        .await
        .map_err(|e| ClientError::from_io(address, &e))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        async move { stream }
    });
    // The name is only the `:authority` of the requests: the socket is above.
    Endpoint::from_static("http://keytrail")
        .connect_with_connector(connector)
        .await
        .map_err(|e| ClientError::Other {
            address: address.clone(),
            message: format!("does not speak gRPC: {e}"),
        })
}
