//! Which pods this node has, and what they are called: one list and one watch of the API server, by the account that
//! Kubernetes gives the agent's own pod. What comes is names; everything else of a pod is passed over.

mod account;
mod client;
mod pod;
mod watch;

pub use account::{ACCOUNT_DIR, Cluster};
pub use watch::{Told, Watch};
