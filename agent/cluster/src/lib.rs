//! Which pods this node has, and what they are called: asked of the kubelet, by the socket of its Pods API, and where that is
//! not to be had of the API server, by the account that Kubernetes gives the agent's own pod, or without such an account of the
//! container runtime. What comes is names; everything else of a pod is passed over.

mod account;
mod client;
mod details;
mod known;
mod kubelet;
mod node;
mod pod;
mod runtime;
mod server;
mod socket;
mod standing;
mod watch;
mod wire;

pub use account::{ACCOUNT_DIR, Cluster, ClusterError};
pub use known::PodUpdate;
pub use kubelet::PODS_SOCKET;
pub use node::{CGROUPS, is_node};
pub use standing::{Source, SourceStatus};
pub use watch::{RuntimeAt, Sources, Watch};
