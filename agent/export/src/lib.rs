//! The gRPC API on a unix socket and by TLS, metrics by HTTP, and what makes protobuf of events: the only part of the agent that knows tonic.

mod address;
mod answers;
mod authority;
mod client;
mod condense;
pub mod convert;
mod filter;
mod history;
mod hub;
mod metrics;
mod names;
mod response;
mod resume;
mod server;
mod service;
mod services;
mod socket;
mod target;
mod tcp;

pub use address::{Address, AddressError};
pub use answers::{AnswerError, Answers, AnswersSource, Page};
pub use client::{Channel, Client, ClientError, connect, connect_channel};
pub use condense::Condense;
pub use filter::{EventFilter, FilterError};
pub use history::Replay;
pub use hub::{Counts, Hub, Item, MAX_READERS, Next, QUEUE, Subscription};
pub use metrics::{Metrics, MetricsServer, ProgressSource, measures};
pub use server::Server;
pub use service::StatusSource;
pub use services::Services;
pub use socket::BoundSocket;
pub use target::Target;
pub use tcp::{Identity, IdentityError, Role, TcpServer, TcpSpec, TlsError, TlsFiles};

use std::io;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another agent listens, or is about to.
    #[error(
        "an agent is already listening on {0}: watch it with `keytrail watch`, or stop it first"
    )]
    AlreadyRunning(Address),
    #[error("{address}: {what}: {source}")]
    Socket {
        address: Address,
        what: String,
        source: io::Error,
    },
}
