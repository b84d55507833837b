//! What says of a host that it is a node of a cluster: where runtimes have their sockets, and pods their cgroups.

use std::fs;
use std::path::{Path, PathBuf};

/// Where containerd has its socket, on nodes as on any other host.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Sockets that are there on nodes alone: of k3s and RKE2, k0s, MicroK8s, CRI-O, and Docker's shim.
const OF_NODES: [&str; 5] = [
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];
/// Where cgroups are mounted.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Where the kubelet has all pods, by the driver of cgroupfs and of systemd.
const ABOVE_PODS: [&str; 2] = ["kubepods", "kubepods.slice"];
/// Entries of a directory that are looked at: hierarchies, classes of service, and pods.
const MAX_ENTRIES: usize = 256;

/// Where a runtime may have its CRI socket. The plain containerd comes last: it may be Docker's, beside the one that runs pods.
pub(crate) fn runtime_sockets() -> Vec<PathBuf> {
    let all = OF_NODES.iter().chain([&CONTAINERD]);
    all.map(PathBuf::from).collect()
}

/// Whether this host is a node whatever its kubelet is called: it has a runtime that only nodes have, or pods.
#[must_use]
pub fn is_node(cgroups: &Path) -> bool {
    OF_NODES.iter().any(|socket| Path::new(socket).exists()) || has_pods(cgroups)
}

/// Whether pods have cgroups here now, in whichever hierarchy.
pub(crate) fn has_pods(cgroups: &Path) -> bool {
    let mut roots = directories(cgroups);
    roots.push(cgroups.to_owned());
    roots
        .iter()
        .flat_map(|root| ABOVE_PODS.map(|name| root.join(name)))
        .any(|above| {
            let classes = directories(&above);
            classes.iter().any(|path| is_pod(path))
                || classes
                    .iter()
                    .any(|class| directories(class).iter().any(|path| is_pod(path)))
        })
}

/// `podUID`, or `kubepods-CLASS-podUID.slice`, with a container in it: empty ones may be left over.
fn is_pod(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("pod") || name.contains("-pod"))
        && !directories(path).is_empty()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|of| of.is_dir()))
        .take(MAX_ENTRIES)
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_by_either_driver_and_what_they_leave_is_none() {
        let pods = [
            "systemd/kubepods/besteffort/pod0f1e2d3c-1111-2222-3333-444455556666",
            "kubepods/pod0f1e2d3c-1111-2222-3333-444455556666",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f1e2d3c_1111_2222_3333_444455556666.slice",
            "kubepods.slice/kubepods-pod0f1e2d3c_1111_2222_3333_444455556666.slice",
        ];
        for pod in pods {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(pod);
            let above = path.parent().unwrap();
            fs::create_dir_all(above).unwrap();
            fs::create_dir_all(dir.path().join("system.slice/podman.service")).unwrap();
            fs::create_dir_all(dir.path().join("kubepods/burstable/x")).unwrap();
            assert!(!has_pods(dir.path()), "{pod}");
            fs::create_dir(&path).unwrap();
            assert!(!has_pods(dir.path()), "{pod}");
            fs::create_dir(path.join("container")).unwrap();
            assert!(has_pods(dir.path()) && is_node(dir.path()), "{pod}");
        }
    }
}
