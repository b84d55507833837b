//! The container runtime, by its CRI socket: the last who is asked, where neither a kubelet's Pods API nor an API server can be.
//! It knows names, labels and images, and nothing of owners and accounts. Its socket can do anything with a node's containers; only
//! three calls that read are ever made, and it is asked as the kubelet asks it: for the list, again and again.

use crate::details::without_details;
use crate::known::{Known, MAX_PODS};
use crate::node::runtime_sockets;
use crate::pod::{self, MAX_CONTAINERS};
use crate::socket::{self, Server, SocketError};
use crate::standing::{Source, Standing};
use crate::wire::cri::{
    Container, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter, ReadyState,
};
use crate::wire::items::Items;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const LIST_PODS: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
/// Bytes of an answer: what the kubelet takes of a runtime.
const MAX_ANSWER: usize = 16 << 20;
/// The same of one container, of which two names are kept.
const MAX_STATUS: usize = 64 << 10;
/// Containers whose images are kept.
const MAX_KEPT: usize = MAX_PODS * 4;
/// Containers whose images are asked for in a round; the others are asked for in the next.
const ASKED: usize = 64;
/// How long a connection and an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two rounds. The kubelet asks every second.
const EVERY: Duration = Duration::from_secs(2);
/// Before what failed is tried again: twice as long each time.
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(60);

static SERVER: Server = Server {
    name: "the container runtime",
    absent: "`runtime_socket` says where the runtime has it",
};

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(
        "no container runtime has its socket where one is usual: `runtime_socket` says where it is"
    )]
    Nowhere,
    #[error("the container runtime does not speak CRI v1")]
    NotCri,
    #[error("the container runtime answers with more than it may (16 MiB)")]
    TooLarge,
    #[error("the container runtime refuses: {0:?}")]
    Failed(Code),
}

impl Refused {
    fn of(status: &Status) -> Refused {
        match status.code() {
            Code::Unimplemented => Refused::NotCri,
            Code::OutOfRange => Refused::TooLarge,
            code => Refused::Failed(code),
        }
    }

    /// There is no socket of a runtime at all.
    fn is_absent(&self) -> bool {
        matches!(
            self,
            Refused::Nowhere | Refused::Socket(SocketError::Absent(..))
        )
    }
}

/// A runtime that is asked again and again.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// Where it may be: the first that serves is asked.
    sockets: Vec<PathBuf>,
    /// Of containers that are there, what images they have.
    images: BTreeMap<String, ContainerStatus>,
    /// Pods and containers that found no room, or could not be read, as last reported.
    unkept: u64,
}

impl Runtime {
    /// At `socket`, or wherever a runtime has it usually.
    pub fn new(socket: Option<&Path>) -> Runtime {
        Runtime {
            sockets: socket.map_or_else(runtime_sockets, |socket| vec![socket.to_owned()]),
            images: BTreeMap::new(),
            unkept: 0,
        }
    }

    /// Asks until it is dropped.
    pub async fn run(&mut self, known: &mut Known, standing: &Standing) -> Infallible {
        let mut rest = FIRST_REST;
        loop {
            let refused = self.ask(known, standing, &mut rest).await;
            let absent = refused.is_absent();
            standing.refused(Source::Runtime, &refused.to_string(), absent);
            sleep(rest).await;
            rest = (rest * 2).min(LAST_REST);
        }
    }

    /// One after the other, until one serves, and that as long as it does; says why nobody does any more.
    async fn ask(
        &mut self,
        known: &mut Known,
        standing: &Standing,
        rest: &mut Duration,
    ) -> Refused {
        let mut why = None;
        for socket in self.sockets.clone() {
            let mut served = false;
            let refused = self
                .follow(&socket, known, standing, rest, &mut served)
                .await;
            if served {
                return refused;
            }
            // Of those that are there the first says why.
            if self.sockets.len() == 1 || !refused.is_absent() {
                why.get_or_insert(refused);
            }
        }
        why.unwrap_or(Refused::Nowhere)
    }

    /// One connection, round after round; says why there is no more.
    async fn follow(
        &mut self,
        socket: &Path,
        known: &mut Known,
        standing: &Standing,
        rest: &mut Duration,
        served: &mut bool,
    ) -> Refused {
        let channel = match timeout(ANSWER, socket::connect(&SERVER, socket)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(why)) => return why.into(),
            Err(_) => return SocketError::Silent(&SERVER).into(),
        };
        loop {
            if let Err(refused) = self.round(&channel, socket, known, standing).await {
                return refused;
            }
            (*served, *rest) = (true, FIRST_REST);
            sleep(EVERY).await;
        }
    }

    async fn round(
        &mut self,
        channel: &Channel,
        socket: &Path,
        known: &mut Known,
        standing: &Standing,
    ) -> Result<(), Refused> {
        let ready = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                state: Some(ReadyState {}),
            }),
        };
        let pods: Items = call(channel, LIST_PODS, ready, MAX_ANSWER).await?;
        let all = ListContainersRequest {};
        let containers: Items = call(channel, LIST_CONTAINERS, all, MAX_ANSWER).await?;
        standing.serves_at(Source::Runtime, socket.display().to_string());
        let (mut there, mut unkept) = (BTreeSet::new(), 0_u64);
        let mut containers_of = BTreeMap::<String, Vec<Container>>::new();
        for container in containers.read::<Container>(&mut unkept) {
            let of = containers_of
                .entry(container.pod_sandbox_id.clone())
                .or_default();
            if of.len() < MAX_CONTAINERS {
                of.push(container);
            }
        }
        // Read twice, for a pod's labels are not kept until it is named.
        let ready: BTreeSet<String> = pods
            .clone()
            .read(&mut 0)
            .map(|pod: PodSandbox| pod.id)
            .collect();
        containers_of.retain(|id, _| ready.contains(id));
        self.learn(channel, &containers_of).await?;
        let mut unread = 0;
        for sandbox in pods.read::<PodSandbox>(&mut unread) {
            let containers = containers_of.remove(&sandbox.id).unwrap_or_default();
            let with_image = |container| (self.images.get(id_of(&container)).cloned(), container);
            let containers = containers.into_iter().map(with_image).collect();
            let Some(names) = pod::Pod::of_runtime(sandbox, containers).names() else {
                continue;
            };
            if there.len() >= MAX_PODS && !there.contains(&names.uid) {
                unkept += 1;
                continue;
            }
            there.insert(names.uid.clone());
            known.put(names).await;
        }
        unkept += unread;
        known.only(&there);
        known.no_room(unkept.saturating_sub(self.unkept));
        self.unkept = unkept;
        Ok(())
    }

    /// Asks what images containers have that are new.
    async fn learn(
        &mut self,
        channel: &Channel,
        containers: &BTreeMap<String, Vec<Container>>,
    ) -> Result<(), Refused> {
        let there: BTreeSet<&str> = containers.values().flatten().map(id_of).collect();
        self.images.retain(|id, _| there.contains(id.as_str()));
        let new: Vec<&str> = there
            .into_iter()
            .filter(|id| !self.images.contains_key(*id))
            .take(ASKED.min(MAX_KEPT.saturating_sub(self.images.len())))
            .collect();
        for id in new {
            let ask = ContainerStatusRequest {
                container_id: id.to_owned(),
            };
            let answer: Result<ContainerStatusResponse, _> =
                call(channel, STATUS, ask, MAX_STATUS).await;
            match answer {
                Ok(answer) => {
                    let status = answer.status.unwrap_or_default();
                    self.images.insert(id.to_owned(), status);
                }
                // It has gone since, or the runtime has something against this one: it is named without its image, and the
                // others as ever.
                Err(Refused::Failed(_) | Refused::TooLarge) => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(())
    }
}

fn id_of(container: &Container) -> &str {
    &container.id
}

async fn call<Q, A>(
    channel: &Channel,
    method: &'static str,
    ask: Q,
    most: usize,
) -> Result<A, Refused>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(without_details(channel.clone())).max_decoding_message_size(most);
    let asking = async {
        client
            .ready()
            .await
            .map_err(|_| SocketError::NotGrpc(&SERVER))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method);
        let answer = client.unary(Request::new(ask), path, codec).await;
        answer.map_err(|status| Refused::of(&status))
    };
    let answer = timeout(ANSWER, asking)
        .await
        .map_err(|_| SocketError::Silent(&SERVER))??;
    Ok(answer.into_inner())
}

#[cfg(test)]
mod tests {
    /// Whoever speaks to such a socket can start and end anything: nothing but questions is in here.
    #[test]
    fn only_what_reads_is_called() {
        let source = include_str!("runtime.rs");
        let service = ["/runtime.v1.", "RuntimeService/"].concat();
        let called: Vec<&str> = source
            .split(&service)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(
            called,
            ["ListPodSandbox", "ListContainers", "ContainerStatus"]
        );
    }
}
