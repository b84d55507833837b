//! The watch of the kubelet's Pods API against a server that speaks the published protocol, well and badly, and what happens
//! beside an API server.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "fake/kubelet.rs"]
mod fake;

use fake::{ADDED, DELETED, Event, INITIAL_SYNC_COMPLETE, Kubelet, MODIFIED, PodText, field};
use hyper::header::{HeaderName, HeaderValue};
use keytrail_cluster::{Cluster, ClusterError, PodUpdate, Source, SourceStatus, Sources, Watch};
use keytrail_model::PodNames;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "hunter2-of-the-specification";

fn uid(n: u32) -> String {
    format!("{n:08x}-1111-2222-3333-444455556666")
}

fn text(n: u32, name: &str, with: impl FnOnce(&PodText<'_>) -> Vec<u8>) -> Vec<u8> {
    let digest = format!("registry/api@sha256:{}", "cd".repeat(32));
    with(&PodText {
        uid: &uid(n),
        namespace: "payments",
        name,
        container: &format!("{n:064x}"),
        image: "registry/api:1",
        image_id: &digest,
        secret: SECRET,
    })
}

fn pod(n: u32, name: &str) -> Vec<u8> {
    text(n, name, |pod| pod.encoded())
}

fn event(kind: i32, pod: Vec<u8>) -> Event {
    Event { kind, pod }
}

/// These pods, and that these are all.
fn beginning(pods: &[(u32, &str)]) -> Vec<Event> {
    let pods = pods.iter().map(|(n, name)| event(ADDED, pod(*n, name)));
    pods.chain([event(INITIAL_SYNC_COMPLETE, Vec::new())])
        .collect()
}

struct Received(Receiver<PodUpdate>);

impl Received {
    fn pod(&self) -> PodNames {
        match self.0.recv_timeout(PATIENCE).expect("nothing was reported") {
            PodUpdate::Pod(names) => {
                assert!(!format!("{names:?}").contains(SECRET));
                *names
            }
            other => panic!("{other:?} instead of a pod"),
        }
    }

    /// The next one, in short.
    fn next(&self) -> String {
        match self.0.recv_timeout(PATIENCE).expect("nothing was reported") {
            PodUpdate::Pod(names) => {
                assert!(!format!("{names:?}").contains(SECRET));
                format!("pod {} {}", &names.uid[..8], names.name)
            }
            PodUpdate::Gone(uid) => format!("gone {}", &uid[..8]),
            PodUpdate::Trouble(why) => format!("trouble {why}"),
            PodUpdate::NoRoom(count) => format!("no room {count}"),
            PodUpdate::Unreadable => "unreadable".to_owned(),
        }
    }

    fn all(&self, expected: &[&str]) {
        for line in expected {
            let got = self.next();
            assert!(got.starts_with(line), "{got:?} instead of {line:?}");
        }
    }

    fn nothing_more(&self) {
        assert_eq!(self.0.try_recv().ok(), None);
    }
}

fn watch(sources: Sources) -> (Watch, Received) {
    let (sender, received) = channel();
    let watch = Watch::start(sources, move |what| {
        let _ = sender.send(what);
    });
    (watch.unwrap(), Received(received))
}

fn only(socket: &Path) -> Sources {
    Sources {
        kubelet: Some(socket.to_owned()),
        ..Sources::default()
    }
}

/// Nobody listens there.
fn no_server() -> Option<Result<Cluster, ClusterError>> {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    Some(Ok(Cluster {
        host: "127.0.0.1".to_owned(),
        port,
        node: "n1".to_owned(),
        account: "/nonexistent".into(),
    }))
}

fn wait(watch: &Watch, what: &str, holds: impl Fn(&[SourceStatus]) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(&watch.sources()) {
        assert!(Instant::now() < end, "{what}: {:?}", watch.sources());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn scratch() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("pods-api.sock");
    (dir, socket)
}

/// All that is kept of a pod, and that a mask without the specification was asked for.
#[test]
fn a_pod_is_called_what_the_kubelet_says() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(1, "api-7f9c8d-abcde")])));
    let (watch, received) = watch(only(&socket));
    let names = received.pod();
    assert_eq!(names.uid, uid(1));
    assert_eq!(
        [
            &names.namespace,
            &names.name,
            &names.service_account,
            &names.node
        ],
        ["payments", "api-7f9c8d-abcde", "api", "n1"]
    );
    let owner = names.owner.unwrap();
    assert_eq!([&owner.kind, &owner.name], ["Deployment", "api"]);
    assert_eq!(names.labels["app"], "api");
    assert_eq!(names.mirror, None);
    let [container] = &names.containers[..] else {
        panic!("{:?}", names.containers)
    };
    assert_eq!(container.id, format!("{:064x}", 1));
    assert_eq!(
        [&container.name, &container.image],
        ["app", "registry/api:1"]
    );
    assert_eq!(
        container.image_digest,
        format!("sha256:{}", "cd".repeat(32))
    );
    let mask = kubelet.asked()[0].clone().unwrap();
    assert!(
        mask.contains("metadata.uid") && !mask.contains("containers,"),
        "{mask}"
    );
    wait(&watch, "it serves", |sources| sources[0].serves);
    assert_eq!(watch.sources()[0].source, Source::Kubelet);
    assert_eq!(Path::new(&watch.sources()[0].at), socket);
    // It ends although the kubelet says nothing.
    let began = Instant::now();
    drop(watch);
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn pods_come_change_and_go() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(1, "one"), (2, "two")])));
    let (_watch, received) = watch(only(&socket));
    received.all(&["pod 00000001 one", "pod 00000002 two"]);
    kubelet.send(ADDED, pod(3, "three"));
    // Nothing new of it.
    kubelet.send(MODIFIED, pod(3, "three"));
    kubelet.send(MODIFIED, pod(1, "uno"));
    kubelet.send(99, pod(4, "of a newer kind"));
    kubelet.send(DELETED, text(2, "two", |pod| pod.deleted()));
    kubelet.send(DELETED, text(9, "never seen", |pod| pod.deleted()));
    kubelet.send(ADDED, pod(5, "last"));
    received.all(&[
        "pod 00000003 three",
        "pod 00000001 uno",
        "gone 00000002",
        "pod 00000005 last",
    ]);
    received.nothing_more();
}

/// The first form of the protocol counts from 0 and has no end of the beginning.
#[test]
fn the_first_form_of_the_protocol() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |_| Ok(vec![event(0, pod(1, "one"))]));
    let (_watch, received) = watch(only(&socket));
    received.all(&["pod 00000001 one"]);
    kubelet.send(1, pod(1, "uno"));
    kubelet.send(2, pod(1, "uno"));
    received.all(&["pod 00000001 uno", "gone 00000001"]);
}

/// Two tenants may call their pods the same, and their images and containers too.
#[test]
fn pods_of_the_same_name_are_distinguished() {
    let (_dir, socket) = scratch();
    let other = text(2, "api", |text| {
        PodText {
            namespace: "staging",
            ..text.clone()
        }
        .encoded()
    });
    let _kubelet = Kubelet::start(&socket, move |_| {
        Ok(vec![
            event(ADDED, pod(1, "api")),
            event(ADDED, other.clone()),
            event(INITIAL_SYNC_COMPLETE, Vec::new()),
        ])
    });
    let (_watch, received) = watch(only(&socket));
    let (one, two) = (received.pod(), received.pod());
    assert_eq!([&one.name, &two.name], ["api", "api"]);
    assert_eq!([&one.namespace, &two.namespace], ["payments", "staging"]);
    assert_ne!(one.uid, two.uid);
    assert_ne!(one.containers[0].id, two.containers[0].id);
}

/// After a restart a kubelet does not know all of its pods, and says so: what it reported before holds meanwhile, and then what has
/// gone is reported as well.
#[test]
fn a_kubelet_that_is_not_synced_is_waited_for() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |n| match n {
        0 | 2 => Err(Status::failed_precondition("hunter2")),
        1 => Ok(beginning(&[(1, "one"), (2, "two")])),
        _ => Ok(beginning(&[(2, "two"), (3, "three")])),
    });
    let (watch, received) = watch(only(&socket));
    let why = received.next();
    assert!(
        why.starts_with("trouble the kubelet does not know all"),
        "{why}"
    );
    received.all(&["pod 00000001 one", "pod 00000002 two"]);
    wait(&watch, "it serves", |sources| sources[0].serves);
    kubelet.cut();
    received.all(&["trouble", "pod 00000003 three", "gone 00000001"]);
    received.nothing_more();
}

/// One pod that cannot be read costs its own name, and is reported once.
#[test]
fn a_pod_that_cannot_be_read_is_left_out() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(1, "one")])));
    let (_watch, received) = watch(only(&socket));
    received.all(&["pod 00000001 one"]);
    let garbage: [Vec<u8>; 4] = [
        vec![0xff; 300],
        // Longer than what there is.
        vec![0x0a, 0xff, 0xff, 0xff, 0x7f],
        // Not UTF-8.
        field(1, &field(5, &[0xff, 0xfe])),
        // A string in place of a message.
        field(1, b"hunter2"),
    ];
    for pod in garbage {
        kubelet.send(MODIFIED, pod);
    }
    // Neither a uid nor a pod.
    kubelet.send(MODIFIED, field(1, &field(5, b"../../etc/shadow")));
    kubelet.send(MODIFIED, field(77, b"x"));
    kubelet.send(ADDED, pod(2, "two"));
    received.all(&["unreadable", "pod 00000002 two"]);
    received.nothing_more();
}

/// Nothing that a kubelet sends fills the agent's memory or is kept without a bound.
#[test]
fn what_is_too_large_is_not_read() {
    let (_dir, socket) = scratch();
    let _kubelet = Kubelet::start(&socket, |n| match n {
        0 => Ok(vec![
            event(ADDED, pod(1, "one")),
            event(ADDED, vec![0x7a; 5 << 20]),
        ]),
        1 => Err(Status::resource_exhausted("")),
        2 => Ok(vec![event(7, pod(1, "another protocol"))]),
        // More pods than a node has.
        _ => {
            let pods = (0..2_500).map(|n| event(ADDED, pod(n, "p")));
            let end = [
                event(INITIAL_SYNC_COMPLETE, Vec::new()),
                event(ADDED, pod(77_777, "late")),
            ];
            Ok(pods.chain(end).collect())
        }
    });
    let (_watch, received) = watch(only(&socket));
    received.all(&[
        "pod 00000001 one",
        "trouble the kubelet reports a pod of more",
    ]);
    let mut pods = 0;
    let lacking = loop {
        match received.next() {
            line if line.starts_with("pod") => pods += 1,
            line => break line,
        }
    };
    assert_eq!((pods, lacking.as_str()), (2_000, "no room 500"));
    received.all(&["no room 1"]);
}

/// A status with this in place of its details.
fn detailed(details: &'static str) -> Status {
    let name = HeaderName::from_static("grpc-status-details-bin");
    let value = HeaderValue::from_static(details);
    let said = MetadataMap::from_headers([(name, value)].into_iter().collect());
    Status::with_metadata(Code::Unavailable, "", said)
}

/// In the headers, where an answer is nothing but a status, and in the trailers of a watch.
#[test]
fn details_that_are_no_base64_end_nothing() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |n| match n {
        0 => Err(detailed("!!!")),
        1 => Ok(beginning(&[(1, "one")])),
        _ => Ok(beginning(&[(1, "one"), (2, "two")])),
    });
    let (watch, received) = watch(only(&socket));
    let why = "trouble the kubelet has ended the watch of pods: Unavailable";
    received.all(&[why, "pod 00000001 one"]);
    wait(&watch, "it serves", |sources| sources[0].serves);
    // Of a length that Base64 does not have.
    kubelet.fail(&detailed("A"));
    received.all(&[why, "pod 00000002 two"]);
    received.nothing_more();
}

/// Whatever fails: that names do not come any more is reported.
#[test]
fn a_watch_that_panics_says_so() {
    let (_dir, socket) = scratch();
    let _kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(1, "one")])));
    let (sender, received) = channel();
    let watch = Watch::start(only(&socket), move |what| match what {
        PodUpdate::Pod(_) => panic!("as this test wants it"),
        other => drop(sender.send(other)),
    });
    Received(received).all(&["trouble the agent's watch of pods has failed"]);
    let sources = watch.unwrap().sources();
    assert!(!sources[0].serves && !sources[0].reason.is_empty());
}

/// The API server is asked while the kubelet cannot be, and what is wrong with both is reported if nobody serves. When the socket
/// comes, and when it comes again, names are the kubelet's.
#[test]
fn a_socket_may_go_and_come_back() {
    let (_dir, socket) = scratch();
    let (watch, received) = watch(Sources {
        kubelet: Some(socket.clone()),
        server: no_server(),
        ..Sources::default()
    });
    let why = received.next();
    assert!(
        why.starts_with("trouble there is no socket") && why.contains("ca.crt"),
        "{why}"
    );
    let kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(1, "one"), (2, "two")])));
    received.all(&["pod 00000001 one", "pod 00000002 two"]);
    wait(&watch, "the kubelet serves", |sources| {
        sources[0].serves && !sources[1].serves && sources[1].reason.is_empty()
    });
    drop(kubelet);
    received.all(&["trouble"]);
    wait(&watch, "nobody serves", |sources| {
        sources.iter().all(|s| !s.serves && !s.reason.is_empty())
    });
    let _kubelet = Kubelet::start(&socket, |_| Ok(beginning(&[(2, "two"), (3, "three")])));
    received.all(&["pod 00000003 three", "gone 00000001"]);
    wait(&watch, "it serves again", |sources| sources[0].serves);
    received.nothing_more();
}

/// A host without a cluster that has no such socket misses nothing.
#[test]
fn a_socket_that_was_never_there_is_no_trouble() {
    let (_dir, socket) = scratch();
    let (watch, received) = watch(only(&socket));
    wait(&watch, "it was looked for", |sources| {
        sources[0].reason.contains("there is no socket")
    });
    received.nothing_more();
    // What is there and does not answer is another matter.
    std::fs::write(&socket, "no socket").unwrap();
    received.all(&["trouble the kubelet cannot be reached"]);
    drop(watch);
}

/// One that knows masks, and not this one, is asked without.
#[test]
fn a_mask_that_is_refused_is_left_out() {
    let (_dir, socket) = scratch();
    let kubelet = Kubelet::start(&socket, |n| match n {
        0 => Err(Status::invalid_argument("")),
        _ => Ok(beginning(&[(1, "one")])),
    });
    let (_watch, received) = watch(only(&socket));
    received.all(&["trouble", "pod 00000001 one"]);
    let asked = kubelet.asked();
    assert!(asked[0].is_some() && asked[1].is_none(), "{asked:?}");
}
