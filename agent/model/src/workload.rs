//! Reads container, unit and pod off a cgroup path. Paths are host data: anything may be in them.

/// What a cgroup path says about the workload. Empty fields mean the path does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Container id, 64 hex digits.
    pub container: String,
    /// systemd unit, for example `nginx.service`.
    pub unit: String,
    /// Kubernetes pod uid.
    pub pod: String,
}

impl Workload {
    /// Parses a path as /proc/PID/cgroup gives it, for example
    /// `/kubepods.slice/kubepods-burstable-pod1234_..slice/cri-containerd-<64 hex>.scope`.
    #[must_use]
    pub fn from_path(path: &str) -> Self {
        let mut workload = Self::default();
        // What is below a pod is the pod's own, and may be called anything: the outermost counts.
        let mut inside = false;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            if let Some(id) = container_id(part)
                && !inside
            {
                workload.container = id.to_owned();
                inside = !workload.pod.is_empty();
            }
            if let Some(uid) = pod_uid(part)
                && workload.pod.is_empty()
            {
                workload.pod = uid;
                // A container around the node itself is none of the pod's.
                workload.container.clear();
            }
            // The innermost unit wins: `user@1000.service/app.slice/foo.service` is foo.
            if part.ends_with(".service")
                || part.ends_with(".scope") && container_id(part).is_none()
            {
                workload.unit = part.to_owned();
            }
        }
        workload
    }
}

/// A 64-digit hex id, bare (cgroupfs driver) or as `RUNTIME-ID.scope` (systemd driver). CRI-O and podman have their monitor of a
/// container beside it, as `RUNTIME-conmon-ID`: it is a program of the host.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next().unwrap_or(part);
    if part[..part.len() - id.len()].ends_with("-conmon-") {
        return None;
    }
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// `pod<uid>` (cgroupfs) or `kubepods[-class]-pod<uid with _>.slice` (systemd).
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let start = if part.starts_with("pod") {
        3
    } else {
        part.find("-pod")? + 4
    };
    let uid = part.get(start..)?.replace('_', "-");
    let ok =
        (32..=36).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ok.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_driver_pod() {
        let id = "ab".repeat(32);
        let w = Workload::from_path(&format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f1e2d3c_1111_2222_3333_444455556666.slice/cri-containerd-{id}.scope"
        ));
        assert_eq!(w.container, id);
        assert_eq!(w.pod, "0f1e2d3c-1111-2222-3333-444455556666");
        assert_eq!(w.unit, "");
    }

    #[test]
    fn cgroupfs_driver_and_docker() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Workload::from_path(&format!("/docker/{id}")).container, id);
        let w = Workload::from_path(&format!(
            "/kubepods/pod0f1e2d3c-1111-2222-3333-444455556666/{id}"
        ));
        assert_eq!(w.pod, "0f1e2d3c-1111-2222-3333-444455556666");
    }

    /// Who may make cgroups of its own in a container cannot pass for another pod.
    #[test]
    fn the_outermost_pod_and_container_count() {
        let (own, other, node) = ("ab".repeat(32), "cd".repeat(32), "ef".repeat(32));
        let pod = "0f1e2d3c-1111-2222-3333-444455556666";
        let path = format!(
            "/docker/{node}/kubepods/burstable/pod{pod}/{own}/podffffffff-1111-2222-3333-444455556666/{other}"
        );
        let w = Workload::from_path(&path);
        assert_eq!((w.pod.as_str(), w.container), (pod, own));
        let w = Workload::from_path(&format!("/docker/{node}/kubepods/pod{pod}/x"));
        assert_eq!((w.pod.as_str(), w.container.as_str()), (pod, ""));
    }

    /// CRI-O and podman, by either driver; crun makes a cgroup of its own below the scope.
    #[test]
    fn crio_and_podman() {
        let id = "ab".repeat(32);
        let pod = "kubepods-burstable-pod0f1e2d3c_1111_2222_3333_444455556666.slice";
        let above = format!("/kubepods.slice/kubepods-burstable.slice/{pod}");
        for path in [
            format!("{above}/crio-{id}.scope"),
            format!("{above}/crio-{id}.scope/container"),
            format!("/kubepods/burstable/pod0f1e2d3c-1111-2222-3333-444455556666/crio-{id}"),
        ] {
            let w = Workload::from_path(&path);
            assert_eq!(w.container, id, "{path}");
            assert_eq!(w.pod, "0f1e2d3c-1111-2222-3333-444455556666", "{path}");
        }
        for path in [
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container"
            ),
            format!("/libpod_parent/libpod-{id}"),
        ] {
            let w = Workload::from_path(&path);
            assert_eq!((w.container, w.pod.as_str()), (id.clone(), ""), "{path}");
        }
        let monitor = format!("crio-conmon-{id}.scope");
        let w = Workload::from_path(&format!("{above}/{monitor}"));
        assert_eq!((w.container.as_str(), w.unit), ("", monitor));
        let w = Workload::from_path(&format!("/libpod_parent/libpod-conmon-{id}"));
        assert_eq!(w, Workload::default());
    }

    #[test]
    fn units_and_noise() {
        assert_eq!(
            Workload::from_path("/system.slice/ssh.service").unit,
            "ssh.service"
        );
        assert_eq!(
            Workload::from_path("/user.slice/user-0.slice/session-3.scope").unit,
            "session-3.scope"
        );
        assert_eq!(Workload::from_path("/podcast/../x"), Workload::default());
        assert_eq!(Workload::from_path("-pod"), Workload::default());
    }
}
