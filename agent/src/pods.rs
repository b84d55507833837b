//! Names of pods, where the agent runs in a cluster.

use crate::config::KubernetesConfig;
use crate::engine::Teller;
use keytrail_cluster::{Cluster, Told, Watch};
use keytrail_host::clock::boot_ns;
use keytrail_model::{Bound, GapReason, GapSeen};

/// Watches the pods of this node and tells the engine what they are called; `None` outside of a cluster, and where names are
/// not wanted or cannot be had at all, which is told.
pub fn start(config: &KubernetesConfig, teller: Teller) -> Option<Watch> {
    if !config.names {
        return None;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let cluster = match Cluster::find(variable, &config.account_dir)? {
        Ok(cluster) => cluster,
        Err(why) => {
            tracing::warn!("names of pods: {why}");
            teller.gap(unavailable(&why));
            return None;
        }
    };
    let lost = teller.clone();
    let watch = Watch::start(cluster, move |told| match told {
        Told::Pod(names) => teller.pod(names),
        Told::Gone(uid) => teller.pod_gone(uid),
        Told::Trouble(why) => teller.gap(unavailable(&why)),
        Told::NoRoom(count) => teller.gap(Bound::Names.gap(count, boot_ns())),
    });
    match watch {
        Ok(watch) => Some(watch),
        Err(e) => {
            lost.gap(unavailable(&e.to_string()));
            None
        }
    }
}

fn unavailable(why: &str) -> GapSeen {
    GapSeen {
        detail: format!("what pods are called is not known: {why}"),
        remedy: "give the agent's service account get, list and watch on pods, as the chart does, and NODE_NAME; or set \
                 `names = false` under [kubernetes]"
            .to_owned(),
        ..GapSeen::new(GapReason::NamesUnavailable, boot_ns())
    }
}
