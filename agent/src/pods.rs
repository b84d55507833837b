//! Names of pods, where the agent runs on a node of a cluster.

use crate::config::KubernetesConfig;
use crate::engine::CommandSender;
use keytrail_cluster::{
    CGROUPS, Cluster, PodUpdate, RuntimeAt, SourceStatus, Sources, Watch, is_node,
};
use keytrail_host::clock::boot_ns;
use keytrail_model::{Bound, GapReason, GapSeen};
use keytrail_proto::v1::NameSource;
use std::path::Path;

/// Watches the pods of this node and tells the engine what they are called; `None` on a host that is no node, and where names
/// are not wanted or cannot be had at all, which is reported.
pub fn start(config: &KubernetesConfig, commands: CommandSender) -> Option<Watch> {
    if !config.names {
        return None;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let server = Cluster::find(variable, &config.account_dir);
    let cgroups = Path::new(CGROUPS);
    if server.is_none()
        && config.runtime_socket.is_none()
        && !has_kubelet(&config.pods_socket)
        && !is_node(cgroups)
    {
        return None;
    }
    let runtime = config.runtime_socket.clone();
    let sources = Sources {
        kubelet: Some(config.pods_socket.clone()),
        server,
        runtime: Some(runtime.map_or(RuntimeAt::Usual, RuntimeAt::Socket)),
        cgroups: cgroups.to_owned(),
    };
    let lost = commands.clone();
    let watch = Watch::start(sources, move |update| match update {
        PodUpdate::Pod(names) => commands.pod(names),
        PodUpdate::Gone(uid) => commands.pod_gone(uid),
        PodUpdate::Trouble(why) => commands.gap(unavailable(&why)),
        PodUpdate::NoRoom(count) => commands.gap(Bound::Names.gap(count, boot_ns())),
        PodUpdate::Unreadable => commands.gap(unreadable()),
    });
    match watch {
        Ok(watch) => Some(watch),
        Err(e) => {
            lost.gap(unavailable(&e.to_string()));
            None
        }
    }
}

/// Where names come from, for `keytrail doctor`.
pub fn sources(watch: &Watch) -> Vec<NameSource> {
    let source = |status: SourceStatus| NameSource {
        source: status.source.word().to_owned(),
        at: status.at,
        serves: status.serves,
        reason: status.reason,
    };
    watch.sources().into_iter().map(source).collect()
}

/// Outside of a pod: whether a kubelet is at home here. Its directory is there before the socket is, which may come long after
/// the agent has begun.
fn has_kubelet(socket: &Path) -> bool {
    let home = socket.parent().and_then(Path::parent);
    socket.exists() || home.is_some_and(|home| home != Path::new("/") && home.is_dir())
}

fn unavailable(why: &str) -> GapSeen {
    GapSeen {
        detail: format!("what pods are called is not known: {why}"),
        remedy: "give the agent the kubelet's Pods API (`pods_socket`), or its service account get, list and watch on pods and \
                 NODE_NAME, as the chart does both; outside of a pod the runtime's CRI socket (`runtime_socket`); or set `names = false` under [kubernetes]"
            .to_owned(),
        ..GapSeen::new(GapReason::NamesUnavailable, boot_ns())
    }
}

fn unreadable() -> GapSeen {
    GapSeen {
        detail: "the kubelet reported a pod that could not be read: it has no name".to_owned(),
        remedy: "report this, with the kubelet's version".to_owned(),
        count: 1,
        ..GapSeen::new(GapReason::NamesUnavailable, boot_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_at_home_where_its_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("kubelet/pods-api/pods-api.sock");
        assert!(!has_kubelet(&socket));
        std::fs::create_dir(dir.path().join("kubelet")).unwrap();
        assert!(has_kubelet(&socket));
        // Every host has these.
        assert!(!has_kubelet(Path::new("/nonexistent-dir/pods-api.sock")));
    }
}
