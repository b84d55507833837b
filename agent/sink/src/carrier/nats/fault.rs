//! What can go wrong between the sink and a server. No text has a password in it.

use crate::carrier::http::FileError;
use std::io;
use std::path::PathBuf;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("what answers there is no NATS server")]
    Strange,
    #[error("the server has no JetStream")]
    NoStreams,
    #[error("the server wants TLS: write tls:// in `url`")]
    WantsTls,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("the system gave no random numbers")]
    Random,
    #[error("the server says: {0}")]
    Said(String),
}

/// Why the agent cannot say who it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {why}", .path.display())]
    Content { path: PathBuf, why: BadLogin },
    #[error("the server asks for no signature: it knows no keys")]
    Unasked,
}

/// What is wrong with a file of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLogin {
    #[error("its seed is damaged")]
    Damaged,
    #[error("has no seed beside the JWT")]
    NoSeed,
    #[error("is neither credentials of nsc nor one line")]
    Unknown,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection is of no more use.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("no stream of JetStream takes the subject {0}")]
    NoStream(String),
    #[error("the stream says: {0}")]
    Stream(String),
    #[error("somebody else than JetStream answers on this subject")]
    Stranger,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Connection(error.into())
    }
}
