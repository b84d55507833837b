//! What was reported about pods, whoever reported it: each change goes out once.

use keytrail_model::PodNames;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Pods of a node that are kept; Kubernetes is made for 110, and large nodes have 500.
pub(crate) const MAX_PODS: usize = 2_000;
/// After each change: a source that sends as fast as it can is read at this pace.
const PACE: Duration = Duration::from_millis(1);

/// What was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodUpdate {
    /// A pod is here, or is called otherwise than before.
    Pod(Box<PodNames>),
    /// The pod of this uid is not here any more.
    Gone(String),
    /// Names cannot be had at present, and why: reported once until it is well again.
    Trouble(String),
    /// So many pods found no room, since the last time.
    NoRoom(u64),
    /// A pod could not be read and is left out: reported once for each time that the kubelet is asked.
    Unreadable,
}

/// Where it is reported. Called on the thread of the watch; it must not wait.
#[derive(Clone)]
pub(crate) struct Updates(Arc<dyn Fn(PodUpdate) + Send + Sync>);

impl Updates {
    pub fn new(updates: impl Fn(PodUpdate) + Send + Sync + 'static) -> Updates {
        Updates(Arc::new(updates))
    }

    pub fn send(&self, update: PodUpdate) {
        (self.0)(update);
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Updates")
    }
}

/// The pods that were reported, by uid, with what they were said to be called. It outlives a change of the source.
#[derive(Debug)]
pub(crate) struct Known {
    updates: Updates,
    pods: BTreeMap<String, PodNames>,
}

impl Known {
    pub fn new(updates: Updates) -> Known {
        Known {
            updates,
            pods: BTreeMap::new(),
        }
    }

    /// A pod is here. Nothing is reported if that is known.
    pub async fn put(&mut self, names: PodNames) {
        if self.pods.get(&names.uid) == Some(&names) {
            return;
        }
        self.pods.insert(names.uid.clone(), names.clone());
        self.updates.send(PodUpdate::Pod(Box::new(names)));
        tokio::time::sleep(PACE).await;
    }

    /// As [`Known::put`], of a single change: where there is no room, that is reported.
    pub async fn change(&mut self, names: PodNames) {
        match self.pods.len() >= MAX_PODS && !self.pods.contains_key(&names.uid) {
            true => self.no_room(1),
            false => self.put(names).await,
        }
    }

    pub fn remove(&mut self, uid: &str) {
        if self.pods.remove(uid).is_some() {
            self.updates.send(PodUpdate::Gone(uid.to_owned()));
        }
    }

    /// The whole of it is reported: whoever is not among these uids has gone.
    pub fn only(&mut self, there: &BTreeSet<String>) {
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(|uid| !there.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    pub fn no_room(&self, pods: u64) {
        if pods > 0 {
            self.updates.send(PodUpdate::NoRoom(pods));
        }
    }

    pub fn unreadable(&self) {
        self.updates.send(PodUpdate::Unreadable);
    }
}
