//! What pods are called. A name is never waited for: an event goes out without, and the name is reported when it comes.
//!
//! A pod is found by the uid in the cgroup of a process, which Kubernetes gives once, and a container of it by its id there.
//! So neither a path nor an image nor a pid that two tenants share can mix them.

use keytrail_model::PodNames;
use keytrail_model::event::{Process, WorkloadNames};
use std::collections::BTreeMap;

/// Pods kept; a large node has 500.
const MAX_PODS: usize = 2_048;
/// Pods and containers whose names are waited for.
const MAX_WAITING: usize = 1_024;
/// How long the names of a pod that has gone are kept: its last events may still come.
const KEPT_NS: u64 = 300_000_000_000;
/// How long a name is waited for.
const WAITED_NS: u64 = 900_000_000_000;

/// The pods of this node.
#[derive(Debug, Default)]
pub struct Names {
    pods: BTreeMap<String, Known>,
    /// The uid by which the node knows a pod from a file, and the pods that say they mirror it.
    mirrors: BTreeMap<String, Vec<String>>,
    /// Uid of a pod and id of a container that events were reported without a name, and when the last of these was.
    waiting: BTreeMap<(String, String), u64>,
    /// What found no room, until it is reported.
    pub dropped: u64,
}

#[derive(Debug)]
struct Known {
    names: PodNames,
    gone_ns: Option<u64>,
}

impl Names {
    /// Takes a pod in; the names that were waited for.
    pub fn put(&mut self, boot_ns: u64, names: &PodNames) -> Vec<WorkloadNames> {
        if !self.pods.contains_key(&names.uid) && self.pods.len() >= MAX_PODS {
            self.make_room();
            if self.pods.len() >= MAX_PODS {
                self.dropped += 1;
                return Vec::new();
            }
        }
        self.forget_mirror(&names.uid);
        if let Some(mirror) = &names.mirror {
            let uids = self.mirrors.entry(mirror.clone()).or_default();
            uids.push(names.uid.clone());
        }
        let known = Known {
            names: names.clone(),
            gone_ns: None,
        };
        self.pods.insert(names.uid.clone(), known);
        let reported: Vec<WorkloadNames> = self
            .waiting
            .keys()
            .filter(|(pod, _)| *pod == names.uid || names.mirror.as_ref() == Some(pod))
            .filter_map(|(pod, container)| self.find(pod, container))
            .filter(|found| found.container_id.is_empty() || !found.container.is_empty())
            .collect();
        for found in &reported {
            let key = (found.pod_uid.clone(), found.container_id.clone());
            self.waiting.remove(&key);
        }
        self.expire(boot_ns);
        reported
    }

    /// The pod of this uid has gone.
    pub fn gone(&mut self, boot_ns: u64, uid: &str) {
        if let Some(known) = self.pods.get_mut(uid) {
            known.gone_ns.get_or_insert(boot_ns);
        }
    }

    /// Names a process of an event that is about to go out, or notes that it has no name yet.
    pub fn name(&mut self, process: &mut Process, boot_ns: u64) {
        if process.pod.is_empty() || !is_of_the_node(&process.cgroup) {
            return;
        }
        let found = self.find(&process.pod, &process.container);
        let whole = found
            .as_ref()
            .is_some_and(|f| process.container.is_empty() || !f.container.is_empty());
        process.workload = found.map(Box::new);
        if whole {
            return;
        }
        let key = (process.pod.clone(), process.container.clone());
        if self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(&key) {
            // Where nobody tells names, nothing is missed.
            self.dropped += u64::from(!self.pods.is_empty());
            return;
        }
        self.waiting.insert(key, boot_ns);
    }

    fn find(&self, pod: &str, container: &str) -> Option<WorkloadNames> {
        if let Some(known) = self.pods.get(pod) {
            return Some(workload(&known.names, pod, container));
        }
        // Of one that only says that it is the pod, the container has to be its own: that, its kubelet says.
        self.mirrors
            .get(pod)?
            .iter()
            .filter_map(|uid| self.pods.get(uid))
            .map(|known| workload(&known.names, pod, container))
            .find(|found| !found.container.is_empty())
    }

    /// Forgets what has gone, and what is not waited for any more.
    pub fn expire(&mut self, boot_ns: u64) {
        self.waiting
            .retain(|_, last| last.saturating_add(WAITED_NS) > boot_ns);
        let old: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, known)| {
                known
                    .gone_ns
                    .is_some_and(|gone| gone.saturating_add(KEPT_NS) <= boot_ns)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in old {
            self.remove(&uid);
        }
    }

    /// Forgets the pod that has gone first.
    fn make_room(&mut self) {
        let first = self
            .pods
            .iter()
            .filter_map(|(uid, known)| Some((known.gone_ns?, uid.clone())))
            .min();
        if let Some((_, uid)) = first {
            self.remove(&uid);
        }
    }

    fn remove(&mut self, uid: &str) {
        self.forget_mirror(uid);
        self.pods.remove(uid);
    }

    fn forget_mirror(&mut self, uid: &str) {
        let mirror = self.pods.get(uid).and_then(|k| k.names.mirror.clone());
        if let Some(mirror) = mirror
            && let Some(uids) = self.mirrors.get_mut(&mirror)
        {
            uids.retain(|known| known != uid);
            if uids.is_empty() {
                self.mirrors.remove(&mirror);
            }
        }
    }
}

/// A user of the host may call the cgroups below its own what it likes; it cannot leave them.
fn is_of_the_node(cgroup: &str) -> bool {
    cgroup.split('/').all(|part| part != "user.slice")
}

fn workload(names: &PodNames, pod: &str, container: &str) -> WorkloadNames {
    let of = names
        .containers
        .iter()
        .find(|known| !container.is_empty() && known.id == container);
    WorkloadNames {
        pod_uid: pod.to_owned(),
        container_id: container.to_owned(),
        namespace: names.namespace.clone(),
        pod: names.name.clone(),
        container: of.map(|c| c.name.clone()).unwrap_or_default(),
        image: of.map(|c| c.image.clone()).unwrap_or_default(),
        image_digest: of.map(|c| c.image_digest.clone()).unwrap_or_default(),
        service_account: names.service_account.clone(),
        node: names.node.clone(),
        owner: names.owner.clone(),
        labels: names.labels.clone(),
    }
}
