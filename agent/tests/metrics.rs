//! Metrics and probes, as Prometheus and a kubelet ask for them.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_export::{EventFilter, Hub, Metrics, MetricsServer, Replay, StatusSource};
use keytrail_model::{EventKind, Signal, Tier, TlsStack};
use keytrail_proto::v1::{
    Counters, Event, GetStatusResponse, LibraryStatus, NodeStatus, RefusedHook, SignalStatus,
    SinkStatus,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn status() -> GetStatusResponse {
    let count = |key: &str| [(key.to_owned(), 7)].into();
    GetStatusResponse {
        node: Some(NodeStatus {
            started: Some(pbjson_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..NodeStatus::default()
        }),
        signals: vec![
            SignalStatus {
                signal: Signal::Exec.number(),
                hook: "raw_tp:sched_process_exec".into(),
                tier: Tier::Base.number(),
                ..SignalStatus::default()
            },
            SignalStatus {
                signal: Signal::FileRead.number(),
                refused: vec![RefusedHook::default(); 2],
                ..SignalStatus::default()
            },
        ],
        libraries: vec![
            LibraryStatus {
                path: "/home/secret-project/libssl.so".into(),
                stack: TlsStack::OpenSsl.number(),
                covered: true,
                ..LibraryStatus::default()
            };
            3
        ],
        counters: Some(Counters {
            records: count("exec"),
            lost: count("send"),
            gaps: count("table_full"),
            credentials: 5,
            ..Counters::default()
        }),
        sinks: vec![SinkStatus {
            name: "siem".into(),
            delivered: 11,
            behind: 3,
            error: "refused: https://siem/secret-path".into(),
            ..SinkStatus::default()
        }],
        ..GetStatusResponse::default()
    }
}

struct Agent {
    hub: Arc<Hub>,
    asked: Arc<AtomicU64>,
    address: SocketAddr,
    _server: MetricsServer,
}

async fn start() -> Agent {
    let hub = Hub::with_queue(2);
    let asked = Arc::new(AtomicU64::new(0));
    let status: StatusSource = {
        let asked = asked.clone();
        Arc::new(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            status()
        })
    };
    let turns = AtomicU64::new(0);
    let metrics = Metrics {
        hub: hub.clone(),
        status,
        progress: Arc::new(move || turns.fetch_add(1, Ordering::Relaxed)),
    };
    let server = MetricsServer::start(&Handle::current(), ([127, 0, 0, 1], 0).into(), metrics);
    let address = tokio::time::timeout(PATIENCE, server.bound()).await;
    Agent {
        hub,
        asked,
        address: address.unwrap().unwrap(),
        _server: server,
    }
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("no end");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = ask(address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_nothing_else() {
    let agent = start().await;
    let _slow = agent
        .hub
        .subscribe_with(EventFilter::default(), 2, Replay::default());
    for _ in 0..5 {
        agent.hub.publish(Arc::new(Event {
            kind: EventKind::CredentialSent.number(),
            ..Event::default()
        }));
    }
    let (code, text) = get(agent.address, "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "# TYPE keytrail_events counter",
        "keytrail_events_total{kind=\"credential_sent\"} 5",
        "keytrail_events_total{kind=\"finding\"} 0",
        "keytrail_stream_events_missed_total 3",
        "keytrail_streams 1",
        "keytrail_records_total{record=\"exec\"} 7",
        "keytrail_lost_total{record=\"send\"} 7",
        "keytrail_gaps_total{reason=\"table_full\"} 7",
        "keytrail_credentials 5",
        "keytrail_signal_served{signal=\"exec\",tier=\"base\"} 1",
        "keytrail_signal_served{signal=\"file_read\",tier=\"\"} 0",
        "keytrail_hooks_refused{signal=\"file_read\"} 2",
        "keytrail_tls_libraries{stack=\"openssl\",covered=\"true\"} 3",
        "keytrail_sink_delivered_total{sink=\"siem\"} 11",
        "keytrail_sink_behind{sink=\"siem\"} 3",
        "keytrail_sink_failing{sink=\"siem\"} 1",
        "process_start_time_seconds 1700000000.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in:\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    // Every number is a number, and the process's own are plausible.
    let names: BTreeSet<_> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| {
            let (name, value) = l.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{l}");
            name
        })
        .collect();
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_what_is_no_question() {
    let agent = start().await;
    assert_eq!(get(agent.address, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(agent.address, "/readyz").await, (200, "ok\n".into()));
    assert_eq!(get(agent.address, "/etc/shadow").await.0, 404);
    let post = ask(
        agent.address,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
    let long = ask(agent.address, long.as_bytes()).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
}

/// Many who ask at once ask the engine once; who holds connections holds up nobody for good.
#[tokio::test(flavor = "multi_thread")]
async fn asking_costs_the_engine_nothing() {
    let agent = start().await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(agent.address).await.unwrap());
    }
    // They say nothing, and are given up after five seconds.
    let many: Vec<_> = (0..50)
        .map(|_| {
            let address = agent.address;
            tokio::spawn(async move { get(address, "/metrics").await.0 })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap(), 200);
    }
    let asked = agent.asked.load(Ordering::Relaxed);
    assert!(
        (1..=20).contains(&asked),
        "the engine was asked {asked} times"
    );
    drop(held);
}
