//! What the pods of a node are called, as somebody who knows the cluster tells it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pod. Everything but the ids is what people of the cluster chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNames {
    /// By which its cgroup is known. Kubernetes never gives one twice.
    pub uid: String,
    /// Another uid that its cgroup may have: that of a file on the node, of which the pod is only the mirror. Any pod can
    /// say so; it counts for the containers below and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    pub namespace: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those that have begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerNames>,
}

/// What made a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// For example Deployment, StatefulSet, DaemonSet, Job.
    pub kind: String,
    pub name: String,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNames {
    /// 64 hex digits, as in its cgroup.
    pub id: String,
    pub name: String,
    pub image: String,
    /// `sha256:...` by which the image was fetched; empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_digest: String,
}
