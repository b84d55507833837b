//! gRPC over a real unix socket: filters, slow clients, health, reflection, sockets in the way.

#![allow(clippy::unwrap_used, reason = "tests")]

use hyper_util::rt::TokioIo;
use keytrail_export::{
    Address, BoundSocket, Client, Hub, ServeError, Server, StatusSource, connect,
};
use keytrail_model::{EventKind, GapReason};
use keytrail_proto::v1::stream_events_response::Response as Payload;
use keytrail_proto::v1::{
    Ancestor, Counters, Credential, Destination, Event, EventId, Filter, Gap, GetStatusRequest,
    GetStatusResponse, HostName, NodeStatus, Process, StreamEventsRequest, StreamEventsResponse,
};
use pbjson_types::Timestamp;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

struct Agent {
    dir: TempDir,
    hub: Arc<Hub>,
    server: Server,
}

fn address(dir: &TempDir) -> Address {
    format!("unix:{}/run/k.sock", dir.path().display())
        .parse()
        .unwrap()
}

fn start(hub: Arc<Hub>) -> Agent {
    let dir = tempfile::tempdir().unwrap();
    let socket = BoundSocket::bind(&address(&dir)).unwrap();
    let status: StatusSource = Arc::new(|| GetStatusResponse {
        node: Some(NodeStatus {
            agent: "a1".into(),
            epoch: 3,
            ..Default::default()
        }),
        counters: Some(Counters {
            events: 7,
            ..Default::default()
        }),
        ..Default::default()
    });
    let server = Server::start(&Handle::current(), socket, hub.clone(), status).unwrap();
    Agent { dir, hub, server }
}

impl Agent {
    async fn client(&self) -> Client {
        connect(&address(&self.dir)).await.unwrap()
    }

    /// A stream whose first message (the agent's name) was read.
    async fn stream(&self, filter: Filter) -> Streaming<StreamEventsResponse> {
        let request = StreamEventsRequest {
            filter: Some(filter),
            ..StreamEventsRequest::default()
        };
        self.ask(request).await
    }

    async fn ask(&self, request: StreamEventsRequest) -> Streaming<StreamEventsResponse> {
        let mut stream = self
            .client()
            .await
            .stream_events(request)
            .await
            .unwrap()
            .into_inner();
        match stream.message().await.unwrap().unwrap().response.unwrap() {
            Payload::Status(node) => assert_eq!((node.agent.as_str(), node.epoch), ("a1", 3)),
            other => panic!("the first message is {other:?}"),
        }
        stream
    }

    async fn channel(&self) -> Channel {
        let path = address(&self.dir).path().to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                tokio::net::UnixStream::connect(path)
                    .await
                    .map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://keytrail")
            .connect_with_connector(connector)
            .await
            .unwrap()
    }
}

fn event(n: u64) -> Event {
    Event {
        id: Some(EventId {
            sequence: n,
            ..Default::default()
        }),
        time: Some(Timestamp {
            seconds: n as i64,
            nanos: 0,
        }),
        kind: EventKind::CredentialRead.number(),
        process: Some(Process {
            pid: 40 + n as u32,
            ancestors: vec![Ancestor {
                pid: 7,
                ..Default::default()
            }],
            ..Default::default()
        }),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: "kt1:00112233445566778899aabbccddeeff".into(),
            confidence: 0.9,
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn next(stream: &mut Streaming<StreamEventsResponse>) -> Option<Payload> {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message
        .expect("nothing came")
        .unwrap()
        .map(|m| m.response.unwrap())
}

async fn sequence(stream: &mut Streaming<StreamEventsResponse>) -> u64 {
    match next(stream).await {
        Some(Payload::Event(e)) => e.id.unwrap().sequence,
        other => panic!("not an event: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_before_come_first_and_once() {
    let agent = start(Hub::new());
    (1..=5).for_each(|n| agent.hub.publish(Arc::new(event(n))));
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let request = |since, last, pids| StreamEventsRequest {
        filter: Some(Filter {
            pids,
            ..Default::default()
        }),
        since,
        last,
        ..StreamEventsRequest::default()
    };
    let mut all = agent.ask(request(at(0), None, vec![])).await;
    let mut since = agent.ask(request(at(4), None, vec![])).await;
    let mut last = agent.ask(request(None, Some(2), vec![])).await;
    let mut both = agent.ask(request(at(4), Some(1), vec![])).await;
    let mut filtered = agent.ask(request(at(0), Some(3), vec![42, 46])).await;
    let mut live = agent.ask(request(None, None, vec![])).await;
    agent.hub.publish(Arc::new(event(6)));
    for (stream, expected) in [
        (&mut all, &[1, 2, 3, 4, 5, 6][..]),
        (&mut since, &[4, 5, 6]),
        (&mut last, &[4, 5, 6]),
        (&mut both, &[5, 6]),
        (&mut filtered, &[2, 6]),
        (&mut live, &[6]),
    ] {
        for n in expected {
            assert_eq!(sequence(stream).await, *n);
        }
    }
    // What is not known any more is said before what is.
    let mut large = event(7);
    large.coverage = vec!["x".repeat(1 << 20)];
    for n in 7..20 {
        large.id.as_mut().unwrap().sequence = n;
        large.time = at(n as i64);
        agent.hub.publish(Arc::new(large.clone()));
    }
    let mut limited = agent.ask(request(at(0), None, vec![])).await;
    let first = match next(&mut limited).await {
        Some(Payload::Gap(gap)) => {
            assert_eq!(gap.reason, GapReason::ReplayLimited.number());
            gap.to.unwrap().seconds as u64 + 1
        }
        other => panic!("not a gap: {other:?}"),
    };
    assert!((12..20).contains(&first), "{first}");
    for n in first..20 {
        assert_eq!(sequence(&mut limited).await, n);
    }
    let mut recent = agent.ask(request(at(18), None, vec![])).await;
    assert_eq!(sequence(&mut recent).await, 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_can_never_match_are_refused() {
    let agent = start(Hub::new());
    let filters = [
        Filter {
            kinds: vec![99],
            ..Default::default()
        },
        Filter {
            credentials: vec!["github-[".into()],
            ..Default::default()
        },
        Filter {
            credentials: vec![String::new()],
            ..Default::default()
        },
    ];
    for filter in filters {
        let request = StreamEventsRequest {
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let refused = agent.client().await.stream_events(request).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{filter:?}");
        assert!(status.message().len() > 20, "{}", status.message());
    }
    assert_eq!(agent.hub.readers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a table of filters")]
async fn filters_are_applied_by_the_server() {
    let agent = start(Hub::new());
    let mut all = agent.stream(Filter::default()).await;
    let mut by_pid = agent
        .stream(Filter {
            pids: vec![42],
            ..Default::default()
        })
        .await;
    let mut by_ancestor = agent
        .stream(Filter {
            pids: vec![7],
            ..Default::default()
        })
        .await;
    let mut by_kind = agent
        .stream(Filter {
            kinds: vec![EventKind::ProcessExit.number()],
            ..Default::default()
        })
        .await;
    let mut by_credential = agent
        .stream(Filter {
            credentials: vec!["kt1:00112233".into()],
            ..Default::default()
        })
        .await;
    let mut sure = agent
        .stream(Filter {
            min_confidence: 0.95,
            ..Default::default()
        })
        .await;
    let mut sure_event = event(4);
    sure_event.credential.as_mut().unwrap().confidence = 0.99;
    sure_event.credential.as_mut().unwrap().fingerprint = "kt1:ff".into();
    let exit = Event {
        kind: EventKind::ProcessExit.number(),
        ..event(3)
    };
    for e in [event(1), event(2), exit, sure_event] {
        agent.hub.publish(Arc::new(e));
    }
    assert_eq!(
        (
            sequence(&mut all).await,
            sequence(&mut all).await,
            sequence(&mut all).await
        ),
        (1, 2, 4)
    );
    assert_eq!(sequence(&mut by_pid).await, 2);
    assert_eq!(sequence(&mut by_ancestor).await, 1);
    assert_eq!(sequence(&mut by_kind).await, 3);
    assert_eq!(
        (
            sequence(&mut by_credential).await,
            sequence(&mut by_credential).await
        ),
        (1, 2)
    );
    assert_eq!(sequence(&mut sure).await, 4);

    let bad = Filter {
        min_confidence: 2.0,
        ..Default::default()
    };
    let refused = agent
        .client()
        .await
        .stream_events(StreamEventsRequest {
            filter: Some(bad),
            ..StreamEventsRequest::default()
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let status = agent
        .client()
        .await
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.counters.unwrap().events, 7);
    agent.server.shutdown().await;
    for stream in [
        &mut all,
        &mut by_pid,
        &mut by_ancestor,
        &mut by_kind,
        &mut by_credential,
        &mut sure,
    ] {
        // What is queued comes first; `next` panics on anything but a clean end.
        while let Some(rest) = next(stream).await {
            assert!(matches!(rest, Payload::Event(_)), "{rest:?}");
        }
    }
}

/// How long this thread was ready to run and had no processor: the second number of schedstat, proc(5). A test's own future stays
/// on one thread.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let number = text.split_whitespace().nth(1);
    Duration::from_nanos(number.map_or(0, |n| n.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_gets_an_exact_gap_in_its_place_and_others_everything() {
    const QUEUE: usize = 64;
    const EVENTS: u64 = 20_000;
    let agent = start(Hub::with_queue(QUEUE));
    let mut slow = agent.stream(Filter::default()).await;
    let mut fast = agent.stream(Filter::default()).await;
    let read = Arc::new(AtomicU64::new(0));
    let reader = tokio::spawn({
        let read = read.clone();
        async move {
            for n in 1..=EVENTS {
                assert_eq!(sequence(&mut fast).await, n);
                read.store(n, Ordering::SeqCst);
            }
        }
    });
    // Argument lists make events of some size, so that the slow client's window fills.
    let mut large = event(0);
    large.process.as_mut().unwrap().argv = vec!["x".repeat(1024)];
    let mut longest = Duration::ZERO;
    let before = waited();
    for n in 1..=EVENTS {
        let mut e = large.clone();
        e.id.as_mut().unwrap().sequence = n;
        e.time.as_mut().unwrap().seconds = n as i64;
        let start = Instant::now();
        agent.hub.publish(Arc::new(e));
        longest = longest.max(start.elapsed());
        // The fast client keeps up by definition: never more than half a queue behind.
        let waiting = Instant::now();
        while n - read.load(Ordering::SeqCst) >= QUEUE as u64 / 2 && !reader.is_finished() {
            assert!(
                waiting.elapsed() < Duration::from_secs(30),
                "the fast client was held up"
            );
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
    tokio::time::timeout(Duration::from_secs(30), reader)
        .await
        .expect("the fast client was held up")
        .unwrap();
    let longest = longest.saturating_sub(waited() - before);
    assert!(
        longest < Duration::from_millis(500),
        "publishing took {longest:?}"
    );

    // Only now does the slow one read: what it gets and what it is told it missed is everything, in order.
    let mut expected = 1;
    let mut missed = 0;
    while expected <= EVENTS {
        match next(&mut slow).await {
            Some(Payload::Event(e)) => {
                assert_eq!(e.id.unwrap().sequence, expected);
                expected += 1;
            }
            Some(Payload::Gap(gap)) => {
                assert_eq!(gap.reason, GapReason::ClientTooSlow.number());
                assert_eq!(gap.from.unwrap().seconds as u64, expected);
                expected += gap.count;
                missed += gap.count;
                assert_eq!(gap.to.unwrap().seconds as u64, expected - 1);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(expected, EVENTS + 1);
    assert!(
        missed > EVENTS / 2,
        "the client was not slow: {missed} missed"
    );
    // And it goes on as if nothing had been.
    agent.hub.publish(Arc::new(event(EVENTS + 1)));
    assert_eq!(sequence(&mut slow).await, EVENTS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    let agent = start(Hub::new());
    let mut health = HealthClient::new(agent.channel().await);
    for service in ["", "keytrail.v1.EventService"] {
        let answer = health
            .check(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .unwrap();
        assert_eq!(
            answer.into_inner().status(),
            ServingStatus::Serving,
            "{service:?}"
        );
    }

    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as pb;
            let mut client =
                pb::server_reflection_client::ServerReflectionClient::new(agent.channel().await);
            let ask = |request| pb::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(request),
            };
            let list = pb::server_reflection_request::MessageRequest::ListServices(String::new());
            let symbol = pb::server_reflection_request::MessageRequest::FileContainingSymbol(
                "keytrail.v1.EventService".into(),
            );
            let mut answers = client
                .server_reflection_info(tokio_stream::iter([ask(list), ask(symbol)]))
                .await
                .unwrap()
                .into_inner();
            let mut names = Vec::new();
            let mut files = 0;
            while let Some(answer) = answers.message().await.unwrap() {
                match answer.message_response.unwrap() {
                    pb::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
                        names.extend(list.service.into_iter().map(|s| s.name));
                    }
                    pb::server_reflection_response::MessageResponse::FileDescriptorResponse(f) => {
                        files += f.file_descriptor_proto.len();
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(files > 0);
            names
        }};
    }
    for names in [services!(v1), services!(v1alpha)] {
        for name in ["keytrail.v1.EventService", "grpc.health.v1.Health"] {
            assert!(
                names.iter().any(|n| n == name),
                "{name} is not in {names:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_agent() {
    let agent = start(Hub::new());
    let path = address(&agent.dir).path().to_owned();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    assert_eq!(
        std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777,
        0o755
    );
    agent.server.shutdown().await;
    assert!(!path.exists());
}

#[test]
fn a_living_agent_keeps_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let first = BoundSocket::bind(&address).unwrap();
    let refused = BoundSocket::bind(&address);
    assert!(matches!(refused, Err(ServeError::AlreadyRunning(_))));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .starts_with("an agent is already listening on unix:/")
    );
    // Even if somebody removed the lock file.
    std::fs::remove_file(format!("{}.lock", address.path().display())).unwrap();
    assert!(matches!(
        BoundSocket::bind(&address),
        Err(ServeError::AlreadyRunning(_))
    ));
    drop(first);
    BoundSocket::bind(&address).unwrap();
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let path = address.path();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // A listener that is gone leaves its file behind, as a killed agent does.
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(path.exists());
    let bound = BoundSocket::bind(&address).unwrap();
    std::os::unix::net::UnixStream::connect(path).unwrap();
    drop(bound);

    std::fs::write(path, "precious").unwrap();
    let refused = BoundSocket::bind(&address).unwrap_err();
    assert!(refused.to_string().contains("is not a socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    // Nor is a link followed to somebody's socket.
    std::fs::remove_file(path).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    drop(std::os::unix::net::UnixListener::bind(&elsewhere).unwrap());
    std::os::unix::fs::symlink(&elsewhere, path).unwrap();
    assert!(BoundSocket::bind(&address).is_err());
    assert!(elsewhere.exists());
}

#[test]
fn starting_agents_do_not_race() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    std::fs::create_dir(address.path().parent().unwrap()).unwrap();
    for _ in 0..20 {
        drop(std::os::unix::net::UnixListener::bind(address.path()).unwrap());
        let barrier = Arc::new(std::sync::Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (address, barrier) = (address.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    let bound = BoundSocket::bind(&address);
                    barrier.wait();
                    bound.is_ok()
                })
            })
            .collect();
        let winners = threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|won| *won)
            .count();
        assert_eq!(winners, 1);
        let _ = std::fs::remove_file(address.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_does_not_hold_up_the_end() {
    let agent = start(Hub::with_queue(16));
    let _asleep = agent.stream(Filter::default()).await;
    let mut large = event(1);
    large.process.as_mut().unwrap().argv = vec!["x".repeat(100_000)];
    for _ in 0..100 {
        agent.hub.publish(Arc::new(large.clone()));
    }
    let start = Instant::now();
    agent.server.shutdown().await;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn events_make_the_round_trip_through_canonical_json() {
    let mut e = event(5);
    e.boot_time_ns = u64::MAX;
    e.attack = vec!["T1552.001".into()];
    let json = keytrail::output::json(&e).unwrap();
    assert!(!json.contains('\n'));
    // 64-bit integers are strings, timestamps RFC 3339, names lowerCamelCase.
    assert!(
        json.contains("\"bootTimeNs\":\"18446744073709551615\""),
        "{json}"
    );
    assert!(json.contains("\"time\":\"1970-01-01T00:00:05"), "{json}");
    assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), e);
}

/// What gRPC's C core (grpcio 1.85.3, `GetStatus` of `unix:/tmp/capdir/run/k.sock`) sends, as captured: its `:authority`
/// is the percent-encoded path of the socket.
const GRPCIO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00$\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x03\
\x00\x00\x00\x00\x00\x04\x00@\x00\x00\x00\x05\x00@\x00\x00\x00\x06\x00\x00@\x00\xfe\x03\x00\x00\x00\x01\x00\x00\x04\x08\
\x00\x00\x00\x00\x00\x00?\x00\x01\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x01\x00\x01\x04\x00\x00\x00\x01@\x05:path#/\
keytrail.v1.EventService/GetStatus@\n:authority\x1btmp%2Fcapdir%2Frun%2Fk.sock\x83\x86@\x0ccontent-type\x10application/\
grpc@\x02te\x08trailers@\x14grpc-accept-encoding\x17identity, deflate, gzip@\x0cgrpc-timeout\x051500m@\nuser-agent0\
grpc-python/1.85.3 grpc-c/58.0.0 (linux; chttp2)\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x05\x00\x01\
\x00\x00\x00\x01\x00\x00\x00\x00\x00";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_the_socket_as_its_host_is_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let agent = start(Hub::new());
    let mut stream = tokio::net::UnixStream::connect(address(&agent.dir).path())
        .await
        .unwrap();
    stream.write_all(GRPCIO).await.unwrap();
    // The first frame on stream 1 is an answer (HEADERS, 1), not the end of the stream (RST_STREAM, 3).
    let kind = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            if head[8] == 1 && head[3] != 8 {
                return head[3];
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
        }
    });
    assert_eq!(kind.await.unwrap(), 1);
    agent.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_beside_a_filter_are_reported_once_and_counted() {
    let agent = start(Hub::new());
    let gap = |n: u64| Event {
        kind: EventKind::CoverageGap.number(),
        time: event(n).time,
        gap: Some(Gap {
            reason: GapReason::PayloadTruncated.number(),
            count: 3,
            to: event(n).time,
            ..Default::default()
        }),
        ..Default::default()
    };
    let filter = Filter {
        hosts: vec!["*.example.com".into()],
        ..Default::default()
    };
    let mut wanted = event(1000);
    wanted.destination = Some(Destination {
        hosts: vec![HostName {
            name: "api.example.com".into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    // What was before as well as what comes.
    for publish in [true, false] {
        let all = || {
            (1..=400).for_each(|n| agent.hub.publish(Arc::new(gap(n))));
            agent.hub.publish(Arc::new(event(900)));
            agent.hub.publish(Arc::new(wanted.clone()));
        };
        if publish {
            all();
        }
        let mut stream = agent
            .ask(StreamEventsRequest {
                filter: Some(filter.clone()),
                since: publish.then(Timestamp::default),
                ..Default::default()
            })
            .await;
        if !publish {
            all();
        }
        match next(&mut stream).await {
            Some(Payload::Event(first)) => assert_eq!(first.gap.unwrap().count, 3),
            other => panic!("{other:?}"),
        }
        match next(&mut stream).await {
            Some(Payload::Gap(rest)) => {
                assert_eq!(rest.count, 399 * 3);
                assert!(rest.detail.starts_with("399 more"), "{rest:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sequence(&mut stream).await, 1000);
    }
    // Who asks for gaps gets each.
    let filter = Filter {
        kinds: vec![EventKind::CoverageGap.number()],
        ..filter
    };
    let request = StreamEventsRequest {
        filter: Some(filter),
        past_only: true,
        ..Default::default()
    };
    let mut stream = agent.ask(request).await;
    let mut n = 0;
    while let Some(payload) = next(&mut stream).await {
        assert!(matches!(payload, Payload::Event(_)));
        n += 1;
    }
    assert_eq!(n, 800);
    agent.server.shutdown().await;
}
