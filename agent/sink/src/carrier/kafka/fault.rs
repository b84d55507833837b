//! What can go wrong between the sink and a broker. No text has a password in it.

use super::protocol::Code;
use super::scram::ScramError;
use crate::carrier::http::FileError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection is of no more use.
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error("what answers there is not Kafka")]
    Strange,
    #[error("the broker does not speak the version of {0} that all brokers since Kafka 1.0 do")]
    Version(&'static str),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("the broker says: {0}")]
    Said(Code),
    #[error("the topic has no leader for partition {0}")]
    Leaderless(i32),
}

impl Fault {
    /// Whether it may be over when the cluster is asked anew, by new connections.
    pub fn is_of_old_news(&self) -> bool {
        match self {
            Fault::Connection(_) | Fault::Leaderless(_) => true,
            Fault::Said(code) => code.is_of_old_news(),
            Fault::Strange | Fault::Version(_) | Fault::Login(_) => false,
        }
    }
}

/// Why a broker does not let the agent in.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not one line USER:PASSWORD", .0.display())]
    Content(PathBuf),
    #[error("the broker does not take this mechanism, but: {0}")]
    Mechanism(String),
    #[error("the broker refuses the login: {0}")]
    Refused(String),
    #[error(transparent)]
    Scram(#[from] ScramError),
    #[error("the system gave no random numbers")]
    Random,
}
