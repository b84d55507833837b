//! What is kept of a pod, whoever sends it and in whatever form: names, and never its specification, which may hold secrets.

use crate::wire;
use crate::wire::cri;
use keytrail_model::{ContainerNames, Owner, PodNames};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Labels kept of a pod, in the order of their keys; Kubernetes itself has no bound but that of the whole object.
const MAX_LABELS: usize = 32;
/// And their bytes: each event of the pod has them, and who runs a pod chooses them.
const MAX_LABEL_BYTES: usize = 2 << 10;
/// Bytes of a name, a key or a value (Kubernetes: 253, 317 and 63) and of an image.
const MAX_NAME: usize = 317;
const MAX_IMAGE: usize = 512;
/// Containers kept of a pod, those that began and ended before the others among them.
pub(crate) const MAX_CONTAINERS: usize = 64;
/// What the kubelet adds to a pod's own labels when it hands them to the runtime.
const OF_KUBELET: &str = "io.kubernetes.pod.";

/// A pod, core/v1, in the fields that are of use. The rest is passed over without being kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Pod {
    pub metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    pub resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// Of a pod that the kubelet runs from a file: the uid by which the node knows it.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// The kubelet's form; the API server's is read by serde.
impl From<wire::Pod> for Pod {
    fn from(pod: wire::Pod) -> Pod {
        let metadata = pod.metadata.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let owners = metadata.owner_references.into_iter();
        let statuses = |statuses: Vec<wire::ContainerStatus>| {
            let statuses = statuses.into_iter().map(|status| ContainerStatus {
                name: status.name,
                image: status.image,
                image_id: status.image_id,
                container_id: Some(status.container_id),
            });
            Some(statuses.collect())
        };
        Pod {
            metadata: Metadata {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: String::new(),
                labels: Some(metadata.labels),
                annotations: None,
                owner_references: Some(
                    owners
                        .map(|owner| OwnerReference {
                            kind: owner.kind,
                            name: owner.name,
                            controller: owner.controller,
                        })
                        .collect(),
                ),
            },
            spec: Spec {
                service_account_name: Some(spec.service_account_name),
                node_name: Some(spec.node_name),
            },
            status: Status {
                container_statuses: statuses(status.container_statuses),
                init_container_statuses: statuses(status.init_container_statuses),
                ephemeral_container_statuses: statuses(status.ephemeral_container_statuses),
            },
        }
    }
}

impl Pod {
    /// The runtime's form: it knows nothing of owners and accounts. Of each container whether its image is known, and which.
    pub fn of_runtime(
        pod: cri::PodSandbox,
        containers: Vec<(Option<cri::ContainerStatus>, cri::Container)>,
    ) -> Pod {
        let metadata = pod.metadata.unwrap_or_default();
        let mut labels = pod.labels;
        labels.retain(|key, _| !key.starts_with(OF_KUBELET));
        let container = |(status, container): (Option<cri::ContainerStatus>, cri::Container)| {
            let status = status.unwrap_or_default();
            ContainerStatus {
                name: container.metadata.unwrap_or_default().name,
                image: status.image.unwrap_or_default().image,
                image_id: status.image_ref,
                container_id: Some(container.id),
            }
        };
        Pod {
            metadata: Metadata {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                labels: Some(labels),
                ..Metadata::default()
            },
            spec: Spec::default(),
            status: Status {
                container_statuses: Some(containers.into_iter().map(container).collect()),
                ..Status::default()
            },
        }
    }

    /// Its names; `None` when it has no uid, or one that is none.
    pub fn names(self) -> Option<PodNames> {
        let Pod {
            metadata,
            spec,
            status,
        } = self;
        if !is_uid(&metadata.uid) {
            return None;
        }
        let mut bytes = 0;
        let labels: BTreeMap<String, String> = metadata
            .labels
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, value)| key.len() <= MAX_NAME && value.len() <= MAX_NAME)
            .take(MAX_LABELS)
            .take_while(|(key, value)| {
                bytes += key.len() + value.len();
                bytes <= MAX_LABEL_BYTES
            })
            .collect();
        let owner = metadata
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| resolve(owner, labels.get("pod-template-hash").map(String::as_str)));
        // Whoever may write a pod can say that it mirrors another one. So such a uid alone proves nothing: only the ids
        // of containers do, which the kubelet writes.
        let mirror = metadata
            .annotations
            .and_then(|a| a.mirror)
            .filter(|uid| is_uid(uid));
        let containers = [
            status.container_statuses,
            status.init_container_statuses,
            status.ephemeral_container_statuses,
        ];
        Some(PodNames {
            uid: metadata.uid,
            mirror,
            namespace: short(metadata.namespace, MAX_NAME),
            name: short(metadata.name, MAX_NAME),
            service_account: short(spec.service_account_name.unwrap_or_default(), MAX_NAME),
            node: short(spec.node_name.unwrap_or_default(), MAX_NAME),
            owner,
            labels,
            containers: containers
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(container)
                .take(MAX_CONTAINERS)
                .collect(),
        })
    }
}

/// A uid of an object (a UUID), or of a pod from a file (32 hex digits).
fn is_uid(text: &str) -> bool {
    (32..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn short(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut at = limit;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
    }
    text
}

/// A ReplicaSet that a Deployment made is called DEPLOYMENT-HASH, where HASH is the pods' own label; then the Deployment is
/// certain. Of others the owner itself is named.
fn resolve(owner: OwnerReference, hash: Option<&str>) -> Owner {
    let deployment = hash
        .filter(|hash| owner.kind == "ReplicaSet" && !hash.is_empty())
        .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'))
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    match deployment {
        Some(name) => Owner {
            kind: "Deployment".to_owned(),
            name: short(name, MAX_NAME),
        },
        None => Owner {
            kind: short(owner.kind, MAX_NAME),
            name: short(owner.name, MAX_NAME),
        },
    }
}

/// A container that runs or ran; one that is still to come has no id.
fn container(status: ContainerStatus) -> Option<ContainerNames> {
    let id = status.container_id?;
    // RUNTIME://ID
    let id = id.rsplit_once("://").map_or(id.as_str(), |(_, id)| id);
    if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    // Only behind a name is it the digest by which the image was fetched; alone it is that of the image's configuration.
    let digest = status
        .image_id
        .rsplit_once('@')
        .map(|(_, digest)| digest)
        .filter(|digest| {
            digest
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        })
        .unwrap_or_default();
    Some(ContainerNames {
        id: id.to_ascii_lowercase(),
        name: short(status.name, MAX_NAME),
        image_digest: digest.to_owned(),
        image: short(status.image, MAX_IMAGE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const UID: &str = "0f1e2d3c-1111-2222-3333-444455556666";

    fn names(value: Value) -> Option<PodNames> {
        serde_json::from_value::<Pod>(value).unwrap().names()
    }

    fn owned(kind: &str, name: &str, hash: &str) -> Option<Owner> {
        let pod = json!({"metadata": {
            "uid": UID,
            "labels": {"pod-template-hash": hash},
            "ownerReferences": [
                {"kind": "Other", "name": "x"},
                {"kind": kind, "name": name, "controller": true},
            ],
        }});
        names(pod).unwrap().owner
    }

    #[test]
    fn names_and_nothing_of_the_specification() {
        let pod = names(json!({
            "metadata": {"name": "api-7f9c-x", "namespace": "payments", "uid": UID, "labels": {"app": "api"}, "annotations": {"x": "y"}},
            "spec": {"serviceAccountName": "api", "nodeName": "n1", "containers": [{"env": [{"name": "KEY", "value": "hunter2"}]}]},
            "status": {
                "containerStatuses": [
                    {"name": "app", "image": "r/app:1", "imageID": format!("r/app@sha256:{}", "ab".repeat(32)), "containerID": format!("containerd://{}", "CD".repeat(32))},
                    {"name": "to-come", "image": "r/x"},
                ],
                "initContainerStatuses": [{"name": "init", "image": "r/i", "imageID": format!("sha256:{}", "ef".repeat(32)), "containerID": format!("cri-o://{}", "12".repeat(32))}],
            },
        }))
        .unwrap();
        assert_eq!(
            (
                pod.namespace.as_str(),
                pod.service_account.as_str(),
                pod.node.as_str()
            ),
            ("payments", "api", "n1")
        );
        assert_eq!(pod.labels["app"], "api");
        assert_eq!(pod.containers.len(), 2);
        assert_eq!(pod.containers[0].id, "cd".repeat(32));
        assert_eq!(
            pod.containers[0].image_digest,
            format!("sha256:{}", "ab".repeat(32))
        );
        assert_eq!(pod.containers[1].image_digest, "");
        assert!(!format!("{pod:?}").contains("hunter2"));
    }

    #[test]
    fn a_deployment_is_named_where_it_is_certain() {
        let owner = |kind: &str, name: &str| {
            Some(Owner {
                kind: kind.into(),
                name: name.into(),
            })
        };
        assert_eq!(
            owned("ReplicaSet", "api-7f9c8d", "7f9c8d"),
            owner("Deployment", "api")
        );
        assert_eq!(
            owned("ReplicaSet", "api-7f9c8d", "other"),
            owner("ReplicaSet", "api-7f9c8d")
        );
        assert_eq!(
            owned("ReplicaSet", "7f9c8d", "7f9c8d"),
            owner("ReplicaSet", "7f9c8d")
        );
        assert_eq!(
            owned("StatefulSet", "db-7f9c8d", "7f9c8d"),
            owner("StatefulSet", "db-7f9c8d")
        );
        assert_eq!(
            names(json!({"metadata": {"uid": UID}})).unwrap().owner,
            None
        );
    }

    #[test]
    fn hostile_pods() {
        for uid in [
            "",
            "x",
            "../../../../../../../../../../etc/shadow",
            &"a".repeat(37),
        ] {
            assert!(names(json!({"metadata": {"uid": uid}})).is_none(), "{uid}");
        }
        let labels: BTreeMap<_, _> = (0..1000)
            .map(|n| (format!("l{n:04}"), "v".repeat(10)))
            .collect();
        let large = BTreeMap::from([
            ("a", "v".repeat(300)),
            ("b", "v".repeat(400)),
            ("c", "d".to_owned()),
        ]);
        let kept = names(json!({"metadata": {"uid": UID, "labels": large}}))
            .unwrap()
            .labels;
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["a", "c"]);
        let many: BTreeMap<_, _> = (0..30)
            .map(|n| (format!("l{n}"), "v".repeat(300)))
            .collect();
        let kept = names(json!({"metadata": {"uid": UID, "labels": many}}))
            .unwrap()
            .labels;
        assert_eq!(kept.len(), 6);
        let status: Vec<_> = (0..1000)
            .map(|n| json!({"name": "é".repeat(1000), "image": "i".repeat(10_000), "containerID": format!("x://{n:064x}")}))
            .collect();
        let pod = names(json!({"metadata": {"uid": UID, "labels": labels}, "status": {"containerStatuses": status}})).unwrap();
        assert_eq!(
            (pod.labels.len(), pod.containers.len()),
            (MAX_LABELS, MAX_CONTAINERS)
        );
        let container = &pod.containers[0];
        assert!(container.name.len() <= MAX_NAME && container.image.len() <= MAX_IMAGE);
        assert!(serde_json::from_value::<Pod>(json!({"metadata": {"labels": "x"}})).is_err());
    }
}
