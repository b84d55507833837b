//! The types that travel between stages. None of them holds a secret's bytes.

pub mod credential;
pub mod dropped;
pub mod look;
pub mod observation;
mod workload;

pub use credential::{Credential, CredentialRef};
pub use dropped::{Bound, Dropped};
pub use look::{FileLook, PlaceNews, Why};
pub use observation::*;
pub use workload::Workload;
