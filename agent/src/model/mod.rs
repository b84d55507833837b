//! The types that travel between stages. None of them holds a secret's bytes.

pub mod credential;
pub mod observation;

pub use credential::{Credential, CredentialRef};
pub use observation::*;
