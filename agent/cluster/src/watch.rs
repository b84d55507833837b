//! The thread that watches: the best source that serves, and the next one meanwhile.

use crate::account::{Cluster, ClusterError};
use crate::known::{Known, PodUpdate, Updates};
use crate::kubelet::Kubelet;
use crate::runtime::Runtime;
use crate::server::Server;
use crate::standing::{Source, SourceStatus, Standing};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Who can be asked.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The socket of the kubelet's Pods API, whether it is there or not.
    pub kubelet: Option<PathBuf>,
    /// The API server, or why it cannot be asked; `None` outside of a pod ([`Cluster::find`]).
    pub server: Option<Result<Cluster, ClusterError>>,
    /// The container runtime, asked where there is no API server to ask.
    pub runtime: Option<RuntimeAt>,
    /// Where cgroups are mounted: a pod that has one there and no name is missed, whoever could be asked.
    pub cgroups: PathBuf,
}

/// The CRI socket of the container runtime.
#[derive(Clone, Debug)]
pub enum RuntimeAt {
    Socket(PathBuf),
    /// Wherever runtimes have theirs.
    Usual,
}

impl RuntimeAt {
    fn socket(&self) -> Option<&Path> {
        match self {
            RuntimeAt::Socket(socket) => Some(socket),
            RuntimeAt::Usual => None,
        }
    }
}

/// Said when the thread has ended by a panic.
const ENDED: &str =
    "the agent's watch of pods has failed and goes on when the agent is started anew; report this";

/// A thread that watches. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    standing: Standing,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the pods of this node; `tell` is called on a thread of its own and must not wait.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        sources: Sources,
        updates: impl Fn(PodUpdate) + Send + Sync + 'static,
    ) -> io::Result<Watch> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let updates = Updates::new(updates);
        let kubelet = sources.kubelet.iter().map(|socket| {
            let at = socket.display().to_string();
            (Source::Kubelet, at)
        });
        let server = sources.server.iter().map(|server| {
            let at = |cluster: &Cluster| format!("{}:{}", cluster.host, cluster.port);
            (
                Source::ApiServer,
                server.as_ref().map_or_else(|_| String::new(), at),
            )
        });
        // Who can ask the API server has no need of anybody behind it.
        let container_runtime = match &sources.server {
            Some(Ok(_)) => None,
            _ => sources.runtime,
        };
        let socket = container_runtime.iter().map(|at| {
            let at = at.socket().map(|socket| socket.display().to_string());
            (Source::Runtime, at.unwrap_or_default())
        });
        let all = kubelet.chain(server).chain(socket);
        let standing = Standing::new(updates.clone(), &sources.cgroups, all);
        let watcher = Watcher {
            kubelet: sources.kubelet.as_deref().map(Kubelet::new),
            server: sources.server,
            runtime: container_runtime
                .as_ref()
                .map(|at| Runtime::new(at.socket())),
            known: Known::new(updates),
            standing: standing.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let after = standing.clone();
        let thread = std::thread::Builder::new()
            .name("pods".to_owned())
            .spawn(move || {
                let watching = AssertUnwindSafe(|| {
                    runtime.block_on(async {
                        tokio::select! {
                            never = watcher.run() => match never {},
                            _ = stopped => {}
                        }
                    });
                });
                // It is printed; but whoever waits for names has to hear that none come any more.
                if catch_unwind(watching).is_err() {
                    after.ended(ENDED);
                }
                runtime.shutdown_background();
            })?;
        Ok(Watch {
            standing,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Who serves now and who does not, in the order in which they are asked.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.standing.sources()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed and reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Watcher {
    kubelet: Option<Kubelet>,
    server: Option<Result<Cluster, ClusterError>>,
    runtime: Option<Runtime>,
    known: Known,
    standing: Standing,
}

impl Watcher {
    async fn run(self) -> Infallible {
        let Watcher {
            mut kubelet,
            server,
            mut runtime,
            mut known,
            standing,
        } = self;
        // Once without anybody else: a list of the API server would be for nothing where the kubelet answers.
        let mut opened = match &mut kubelet {
            Some(kubelet) => kubelet.open(&standing).await,
            None => None,
        };
        loop {
            if let (Some(kubelet), Some(changes)) = (&mut kubelet, opened.take()) {
                kubelet.follow(changes, &mut known, &standing).await;
            }
            let again = async {
                match &mut kubelet {
                    Some(kubelet) => kubelet.reopen(&standing).await,
                    None => pending().await,
                }
            };
            let meanwhile = async {
                match &server {
                    Some(Ok(cluster)) => {
                        let server = Server {
                            cluster,
                            known: &mut known,
                            standing: &standing,
                        };
                        server.run().await
                    }
                    other => {
                        if let Some(Err(why)) = other {
                            standing.refused(Source::ApiServer, &why.to_string(), false);
                        }
                        match &mut runtime {
                            Some(runtime) => runtime.run(&mut known, &standing).await,
                            None => pending().await,
                        }
                    }
                }
            };
            opened = Some(tokio::select! {
                changes = again => changes,
                never = meanwhile => match never {},
            });
        }
    }
}
