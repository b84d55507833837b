//! What the kubelet's Pods API and core/v1 look like in protobuf, in the fields that are of use: the rest is passed over by its
//! length, the specification of containers among it. Numbers are those of Kubernetes
//! (`kubelet/pkg/apis/pods/v1alpha1/api.proto`, `api/core/v1/generated.proto`, `apimachinery/.../meta/v1/generated.proto`).

pub(crate) mod cri;
pub(crate) mod items;

use prost::Message;
use std::collections::BTreeMap;
use std::fmt;

/// `v1alpha1.WatchPodsEvent`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct WatchPodsEvent {
    /// An enum; its numbers were moved once, so they are kept as they are.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// A [`Pod`]; empty in the event that ends the beginning.
    #[prost(bytes = "vec", tag = "2")]
    pub pod: Vec<u8>,
}

/// Without the pod: its specification may hold secrets.
impl fmt::Debug for WatchPodsEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchPodsEvent")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// `core/v1` Pod.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pod {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    pub spec: Option<PodSpec>,
    #[prost(message, optional, tag = "3")]
    pub status: Option<PodStatus>,
}

/// `meta/v1` ObjectMeta. Without annotations: the kubelet reports a pod from a file under the uid that its cgroup has, so
/// that no mirror has to be looked for.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ObjectMeta {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, tag = "5")]
    pub uid: String,
    #[prost(btree_map = "string, string", tag = "11")]
    pub labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    pub owner_references: Vec<OwnerReference>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OwnerReference {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(bool, optional, tag = "6")]
    pub controller: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSpec {
    #[prost(string, tag = "8")]
    pub service_account_name: String,
    #[prost(string, tag = "10")]
    pub node_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodStatus {
    #[prost(message, repeated, tag = "8")]
    pub container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "10")]
    pub init_container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "13")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "6")]
    pub image: String,
    #[prost(string, tag = "7")]
    pub image_id: String,
    #[prost(string, tag = "8")]
    pub container_id: String,
}
