//! The kubelet's Pods API (KEP-4188), on a unix socket of the node: one watch, which begins with the pods that are there. It
//! is better than the API server in all that matters here: it is no farther than the node, needs no token, and knows of a
//! container as soon as it runs.

use crate::details::without_details;
use crate::known::{Known, MAX_PODS};
use crate::pod;
use crate::socket::{self, Server, SocketError};
use crate::standing::{Source, Standing};
use crate::wire::{Pod, WatchPodsEvent};
use prost::Message as _;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Where a kubelet has it (kubernetes.io/docs/reference/node/kubelet-pods-api).
pub const PODS_SOCKET: &str = "/var/lib/kubelet/pods-api/pods-api.sock";
const WATCH: &str = "/v1alpha1.Pods/WatchPods";
/// By which a kubelet that can is asked for these fields only: a specification may hold secrets, and is not wanted. The others
/// do not inspect it.
const MASK_KEY: &str = "x-kubernetes-fieldmask";
const MASK: &str = "metadata.name,metadata.namespace,metadata.uid,metadata.labels,metadata.ownerReferences,\
                    spec.serviceAccountName,spec.nodeName,status.containerStatuses,status.initContainerStatuses,\
                    status.ephemeralContainerStatuses";
/// Bytes of one change, which has one pod: an object of Kubernetes has 1.5 MiB at most.
const MAX_CHANGE: usize = 4 << 20;
/// How long a connection, and then the first change, may take.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(30);
/// Before what failed is tried again: twice as long each time.
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(60);

static SERVER: Server = Server {
    name: "the kubelet",
    absent: "kubelets have it from 1.37 on",
};

/// Why the kubelet does not serve.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the kubelet does not know all of its pods yet")]
    NotSynced,
    #[error("the kubelet reports a pod of more than 4 MiB")]
    TooLarge,
    #[error("the kubelet's watch of pods has another protocol")]
    Foreign,
    #[error("the kubelet has ended the watch of pods")]
    Ended,
    #[error("the kubelet has ended the watch of pods: {0:?}")]
    Failed(Code),
}

impl Refused {
    fn of(status: &Status) -> Refused {
        match status.code() {
            Code::FailedPrecondition => Refused::NotSynced,
            Code::OutOfRange => Refused::TooLarge,
            code => Refused::Failed(code),
        }
    }
}

/// A kubelet that is asked again and again.
#[derive(Debug)]
pub(crate) struct Kubelet {
    socket: PathBuf,
    rest: Duration,
    masked: bool,
}

/// A watch that has begun.
pub(crate) struct Changes {
    first: WatchPodsEvent,
    stream: Streaming<WatchPodsEvent>,
    // Held: the connection lives as long.
    _channel: Channel,
}

impl Kubelet {
    pub fn new(socket: &Path) -> Kubelet {
        Kubelet {
            socket: socket.to_owned(),
            rest: FIRST_REST,
            masked: true,
        }
    }

    /// Asks for a watch; it has begun when the first change is there. Where it has not, why is noted.
    pub async fn open(&mut self, standing: &Standing) -> Option<Changes> {
        match self.ask().await {
            Ok(changes) => Some(changes),
            Err(refused) => {
                note(standing, &refused);
                None
            }
        }
    }

    async fn ask(&mut self) -> Result<Changes, Refused> {
        let channel = timeout(CONNECT, socket::connect(&SERVER, &self.socket))
            .await
            .map_err(|_| SocketError::Silent(&SERVER))??;
        let mut request = Request::new(());
        if self.masked {
            let mask = MetadataValue::from_static(MASK);
            request.metadata_mut().insert(MASK_KEY, mask);
        }
        let mut client =
            Grpc::new(without_details(channel.clone())).max_decoding_message_size(MAX_CHANGE);
        let begin = async {
            client
                .ready()
                .await
                .map_err(|_| SocketError::NotGrpc(&SERVER))?;
            let path = PathAndQuery::from_static(WATCH);
            let codec = ProstCodec::<(), WatchPodsEvent>::default();
            let answer = client.server_streaming(request, path, codec).await;
            let mut stream = answer.map_err(|e| self.failed(&e))?.into_inner();
            let first = stream.message().await.map_err(|e| self.failed(&e))?;
            Ok::<_, Refused>((first.ok_or(Refused::Ended)?, stream))
        };
        let (first, stream) = timeout(FIRST, begin)
            .await
            .map_err(|_| SocketError::Silent(&SERVER))??;
        Ok(Changes {
            first,
            stream,
            _channel: channel,
        })
    }

    /// A kubelet that knows masks and not this one is asked without.
    fn failed(&mut self, status: &Status) -> Refused {
        if status.code() == Code::InvalidArgument {
            self.masked = false;
        }
        Refused::of(status)
    }

    /// Tries until it serves again, resting in between.
    pub async fn reopen(&mut self, standing: &Standing) -> Changes {
        loop {
            tokio::time::sleep(self.rest).await;
            self.rest = (self.rest * 2).min(LAST_REST);
            if let Some(changes) = self.open(standing).await {
                return changes;
            }
        }
    }

    /// Follows a watch until that is not possible any more.
    pub async fn follow(&mut self, changes: Changes, known: &mut Known, standing: &Standing) {
        let began = Instant::now();
        let refused = changes.follow(known, standing).await;
        note(standing, &refused.err().unwrap_or(Refused::Ended));
        // One that ends at once is not asked at once, however often.
        if began.elapsed() >= LAST_REST {
            self.rest = FIRST_REST;
        }
    }
}

fn note(standing: &Standing, refused: &Refused) {
    let absent = matches!(refused, Refused::Socket(SocketError::Absent(..)));
    standing.refused(Source::Kubelet, &refused.to_string(), absent);
}

impl Changes {
    async fn follow(mut self, known: &mut Known, standing: &Standing) -> Result<(), Refused> {
        let mut kinds = Kinds::default();
        // What is there, until all of it was reported, and what of it found no room.
        let mut beginning = Some((BTreeSet::new(), 0));
        let mut readable = true;
        let mut event = self.first;
        loop {
            let kind = kinds.of(&event).ok_or(Refused::Foreign)?;
            standing.serves(Source::Kubelet);
            match kind {
                Kind::Synced => {
                    if let Some((there, unkept)) = beginning.take() {
                        known.only(&there);
                        known.no_room(unkept);
                    }
                }
                Kind::Unknown => {}
                Kind::Here | Kind::Gone => match Pod::decode(event.pod.as_slice()) {
                    Ok(pod) => {
                        if let Some(names) = pod::Pod::from(pod).names() {
                            match (&mut beginning, kind) {
                                (_, Kind::Gone) => {
                                    known.remove(&names.uid);
                                }
                                (Some((there, unkept)), _) if there.len() >= MAX_PODS => {
                                    *unkept += 1;
                                }
                                (Some((there, _)), _) => {
                                    there.insert(names.uid.clone());
                                    known.put(names).await;
                                }
                                (None, _) => known.change(names).await,
                            }
                        }
                    }
                    Err(_) => {
                        if std::mem::take(&mut readable) {
                            known.unreadable();
                        }
                    }
                },
            }
            event = match self.stream.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(e) => return Err(Refused::of(&e)),
            };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ADDED and MODIFIED.
    Here,
    /// DELETED: the pod has its name and uid and nothing else.
    Gone,
    /// INITIAL_SYNC_COMPLETE: what came before is all that is there.
    Synced,
    /// Of a newer protocol.
    Unknown,
}

/// What the numbers of kinds mean. ADDED, MODIFIED and DELETED follow each other and the end of the beginning is behind them,
/// in the first form of the protocol from 0 on and, since that has an unspecified kind, from 1 on. A watch says which it is: it
/// begins with ADDED, or on a node without pods with the end of the beginning, which has no pod.
#[derive(Debug, Default)]
struct Kinds {
    added: Option<i32>,
}

impl Kinds {
    /// `None` for a watch that begins otherwise.
    fn of(&mut self, event: &WatchPodsEvent) -> Option<Kind> {
        let first = match event.pod.is_empty() {
            true => event.kind.wrapping_sub(3),
            false => event.kind,
        };
        let added = *self.added.get_or_insert(first);
        if !matches!(added, 0 | 1) {
            return None;
        }
        Some(match event.kind.wrapping_sub(added) {
            0 | 1 => Kind::Here,
            2 => Kind::Gone,
            3 => Kind::Synced,
            _ => Kind::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(events: &[(i32, bool)]) -> Vec<Option<Kind>> {
        let mut kinds = Kinds::default();
        events
            .iter()
            .map(|&(kind, pod)| {
                let pod = if pod { vec![0x0a, 0] } else { Vec::new() };
                kinds.of(&WatchPodsEvent { kind, pod })
            })
            .collect()
    }

    #[test]
    fn the_beginning_of_a_watch_says_what_its_numbers_mean() {
        use Kind::{Gone, Here, Synced, Unknown};
        let some = |kinds: &[Kind]| kinds.iter().copied().map(Some).collect::<Vec<_>>();
        let watch = [
            (1, true),
            (1, true),
            (4, false),
            (2, true),
            (3, true),
            (5, true),
            (0, true),
        ];
        assert_eq!(
            kinds(&watch),
            some(&[Here, Here, Synced, Here, Gone, Unknown, Unknown])
        );
        assert_eq!(
            kinds(&[(4, false), (1, true), (3, true)]),
            some(&[Synced, Here, Gone])
        );
        assert_eq!(
            kinds(&[(0, true), (1, true), (2, true), (3, false)]),
            some(&[Here, Here, Gone, Synced])
        );
        for (kind, pod) in [
            (2, true),
            (7, true),
            (-1, true),
            (0, false),
            (i32::MIN, false),
        ] {
            assert_eq!(kinds(&[(kind, pod)]), [None], "{kind} {pod}");
        }
    }

    #[test]
    fn what_is_asked_for_names_no_specification_of_a_container() {
        assert!(
            MASK.bytes()
                .all(|b| b.is_ascii_alphabetic() || b == b'.' || b == b',')
        );
        assert!(MASK.split(',').all(|path| {
            path.starts_with("metadata.")
                || path.starts_with("status.")
                || path.starts_with("spec.")
        }));
        assert!(!MASK.contains("spec.containers") && !MASK.contains("annotations"));
    }
}
