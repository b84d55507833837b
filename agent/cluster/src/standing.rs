//! Who of those that know names serves, and why nobody better does.

use crate::known::{PodUpdate, Updates};
use crate::node::has_pods;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who knows what the pods of a node are called. Asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// By the socket of its Pods API.
    Kubelet,
    ApiServer,
    /// The container runtime, by its CRI socket.
    Runtime,
}

impl Source {
    /// As people and programs read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Source::Kubelet => "kubelet",
            Source::ApiServer => "api_server",
            Source::Runtime => "container_runtime",
        }
    }
}

/// How it stands with one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    pub source: Source,
    /// Path of a socket, or HOST:PORT.
    pub at: String,
    /// Names come from there now.
    pub serves: bool,
    /// Why they do not; empty where they do, and where it is not asked because one before it serves.
    pub reason: String,
}

#[derive(Debug, Default)]
struct State {
    sources: Vec<SourceStatus>,
    /// Those that refuse since they are not there at all.
    absent: BTreeSet<Source>,
    /// That nobody serves was reported.
    troubled: bool,
    /// Somebody did once.
    served: bool,
}

/// Shared with whoever asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    updates: Updates,
    cgroups: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Standing {
    /// `sources`: each with its place, in the order in which they are asked. Pods have their cgroups below `cgroups`.
    pub fn new(
        updates: Updates,
        cgroups: &Path,
        sources: impl IntoIterator<Item = (Source, String)>,
    ) -> Standing {
        let sources = sources
            .into_iter()
            .map(|(source, at)| SourceStatus {
                source,
                at,
                serves: false,
                reason: String::new(),
            })
            .collect();
        Standing {
            updates,
            cgroups: cgroups.to_owned(),
            state: Arc::new(Mutex::new(State {
                sources,
                ..State::default()
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn sources(&self) -> Vec<SourceStatus> {
        self.lock().sources.clone()
    }

    /// Names come from `source`, which was found at this place.
    pub fn serves_at(&self, source: Source, at: String) {
        let mut state = self.lock();
        if let Some(status) = state.sources.iter_mut().find(|s| s.source == source)
            && status.at != at
        {
            status.at = at;
            // Said anew where that is.
            status.serves = false;
        }
        drop(state);
        self.serves(source);
    }

    /// Names come from `source`. Those behind it are not asked.
    pub fn serves(&self, source: Source) {
        let mut state = self.lock();
        state.troubled = false;
        state.served = true;
        for status in &mut state.sources {
            if status.source == source && !status.serves {
                tracing::info!("names of pods come from {}", status.at);
            }
            status.serves = status.source == source;
            if status.source >= source {
                status.reason.clear();
            }
        }
    }

    /// `source` does not serve. It is reported when nobody does; not where there is no socket of anybody (`absent`), never
    /// was one, nobody else can be asked, and no pod has a cgroup: such a host has no names to miss.
    pub fn refused(&self, source: Source, why: &str, absent: bool) {
        let mut state = self.lock();
        for status in state.sources.iter_mut().filter(|s| s.source == source) {
            status.serves = false;
            if status.reason != why {
                match absent {
                    true => tracing::info!("names of pods: {why}"),
                    false => tracing::warn!("names of pods: {why}"),
                }
                why.clone_into(&mut status.reason);
            }
        }
        match absent {
            true => state.absent.insert(source),
            false => state.absent.remove(&source),
        };
        let nobody = state.sources.iter().all(|s| !s.reason.is_empty());
        let all_absent = state
            .sources
            .iter()
            .all(|s| state.absent.contains(&s.source));
        let unmissed = all_absent && !state.served && !has_pods(&self.cgroups);
        if nobody && !unmissed && !state.troubled {
            state.troubled = true;
            let reasons: Vec<_> = state.sources.iter().map(|s| s.reason.as_str()).collect();
            let why = reasons.join("; ");
            drop(state);
            self.updates.send(PodUpdate::Trouble(why));
        }
    }

    /// Nobody is asked any more, and nobody serves.
    pub fn ended(&self, why: &str) {
        for SourceStatus { source, .. } in self.sources() {
            self.refused(source, why, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn trouble_is_that_nobody_serves_and_reported_once() {
        let (sender, received) = channel();
        let updates = Updates::new(move |what| {
            let _ = sender.send(what);
        });
        let standing = Standing::new(
            updates,
            Path::new("/none"),
            [
                (Source::Kubelet, "/s".to_owned()),
                (Source::ApiServer, "h:1".to_owned()),
            ],
        );
        let of = |n: usize| standing.sources()[n].clone();
        standing.refused(Source::Kubelet, "no socket", true);
        assert!(received.try_recv().is_err());
        standing.refused(Source::ApiServer, "403", false);
        standing.refused(Source::ApiServer, "500", false);
        assert_eq!(
            received.try_recv(),
            Ok(PodUpdate::Trouble("no socket; 403".to_owned()))
        );
        assert!(received.try_recv().is_err());
        standing.serves(Source::ApiServer);
        assert!(of(1).serves && of(1).reason.is_empty() && of(0).reason == "no socket");
        // The better one comes: of the other nothing is known any more.
        standing.serves(Source::Kubelet);
        assert!(of(0).serves && of(0).reason.is_empty() && !of(1).serves);
        standing.refused(Source::Kubelet, "gone", false);
        assert!(received.try_recv().is_err());
        standing.refused(Source::ApiServer, "403", false);
        assert_eq!(
            received.try_recv(),
            Ok(PodUpdate::Trouble("gone; 403".to_owned()))
        );
    }

    /// A host with a kubelet that has no such socket, outside of a pod.
    #[test]
    fn a_socket_that_was_never_there_is_no_trouble() {
        let (sender, received) = channel();
        let updates = Updates::new(move |what| {
            let _ = sender.send(what);
        });
        let standing = Standing::new(
            updates,
            Path::new("/none"),
            [(Source::Kubelet, "/s".to_owned())],
        );
        standing.refused(Source::Kubelet, "no socket", true);
        assert!(received.try_recv().is_err());
        standing.serves(Source::Kubelet);
        standing.refused(Source::Kubelet, "no socket", true);
        assert!(matches!(received.try_recv(), Ok(PodUpdate::Trouble(_))));
    }

    /// Neither socket is there; then one is, and does not serve.
    #[test]
    fn a_runtime_that_refuses_is_trouble_and_one_that_is_not_there_is_none() {
        let (sender, received) = channel();
        let updates = Updates::new(move |what| {
            let _ = sender.send(what);
        });
        let sources = [Source::Kubelet, Source::Runtime].map(|of| (of, "/s".to_owned()));
        let standing = Standing::new(updates, Path::new("/none"), sources);
        standing.refused(Source::Kubelet, "no socket", true);
        standing.refused(Source::Runtime, "no other", true);
        assert!(received.try_recv().is_err());
        standing.refused(Source::Runtime, "no CRI", false);
        assert_eq!(
            received.try_recv(),
            Ok(PodUpdate::Trouble("no socket; no CRI".to_owned()))
        );
    }

    /// A runtime has its socket where nobody looks, and a pod has begun meanwhile.
    #[test]
    fn a_pod_without_anybody_to_ask_is_trouble() {
        let (sender, received) = channel();
        let updates = Updates::new(move |what| {
            let _ = sender.send(what);
        });
        let cgroups = tempfile::tempdir().unwrap();
        let sources = [Source::Kubelet, Source::Runtime].map(|of| (of, String::new()));
        let standing = Standing::new(updates, cgroups.path(), sources);
        standing.refused(Source::Kubelet, "no socket", true);
        standing.refused(Source::Runtime, "nowhere", true);
        assert!(received.try_recv().is_err());
        let pod = "kubepods/pod0f1e2d3c-1111-2222-3333-444455556666/container";
        std::fs::create_dir_all(cgroups.path().join(pod)).unwrap();
        standing.refused(Source::Runtime, "nowhere", true);
        assert_eq!(
            received.try_recv(),
            Ok(PodUpdate::Trouble("no socket; nowhere".to_owned()))
        );
        standing.refused(Source::Runtime, "nowhere", true);
        assert!(received.try_recv().is_err());
    }
}
