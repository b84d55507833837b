//! Against a collector that answers what a test says.

use super::*;
use crate::format::otlp::wire::metrics as wire;
use crate::format::otlp::wire::{PartialSuccess, Response};
use crate::spec::{OtlpProtocol, OtlpSpec, Url};
use keytrail_model::{MeasureKind, Number, Point};
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A request's body, of HTTP/1.1 with its length.
fn body(peer: &mut TcpStream) -> Vec<u8> {
    let (mut request, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        if let Some(head) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if request.len() >= head + 4 + length {
                return request.split_off(head + 4);
            }
        }
        let n = peer.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..n]);
    }
}

/// Answers with these one after the other, then 200; gives what it is sent.
fn collector(answers: Vec<(u16, Vec<u8>)>) -> (String, Receiver<Sum>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    let (report, reported) = channel();
    std::thread::spawn(move || {
        let rest = std::iter::repeat((200, Vec::new()));
        for (status, answer) in answers.into_iter().chain(rest) {
            let (mut peer, _) = listener.accept().unwrap();
            let request = wire::Request::decode(body(&mut peer).as_slice()).unwrap();
            // Before the answer: who has that finds it reported.
            if report.send(Sum::of(&request)).is_err() {
                return;
            }
            let head = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            peer.write_all(&[head.as_bytes(), &answer].concat())
                .unwrap();
        }
    });
    (url, reported)
}

/// The one count of a request.
#[derive(Debug, PartialEq)]
struct Sum {
    value: i64,
    begin: u64,
    end: u64,
    temporality: i32,
}

impl Sum {
    fn of(request: &wire::Request) -> Sum {
        let metric = &request.resources[0].scopes[0].metrics[0];
        let Some(wire::Data::Sum(sum)) = &metric.data else {
            panic!("{metric:?}")
        };
        let point = &sum.points[0];
        let Some(wire::PointValue::Int(value)) = point.value else {
            panic!("{point:?}")
        };
        Sum {
            value,
            begin: point.start_time_unix_nano,
            end: point.time_unix_nano,
            temporality: sum.temporality,
        }
    }
}

/// One that tells a count to this collector, and the count.
fn meter(url: String, every: Duration, temporality: Temporality) -> (Meters, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let source = count.clone();
    let measures: Measures = Arc::new(move || {
        vec![Measure {
            name: "keytrail_events",
            semantic: "keytrail.events",
            unit: "{event}",
            help: "Events",
            kind: MeasureKind::Count,
            points: vec![Point {
                labels: Vec::new(),
                number: Number::Whole(source.load(Ordering::SeqCst)),
            }],
        }]
    });
    let spec = MeterSpec {
        name: "m".into(),
        collector: OtlpSpec {
            url: Url::Text(url),
            protocol: OtlpProtocol::Http,
            headers_file: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
        },
        every,
        temporality,
    };
    let node = NodeStatus {
        started: timestamp(1_700_000_000_000_000_000),
        ..NodeStatus::default()
    };
    (Meters::start(&[spec], &node, &measures).unwrap(), count)
}

fn until(meters: &Meters, is: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = meters.status().remove(0);
        if is(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_failed_is_in_the_next_and_the_last_is_reported_at_the_end() {
    let (url, reported) = collector(vec![(503, Vec::new())]);
    let (meters, count) = meter(url, Duration::from_millis(300), Temporality::Cumulative);
    count.store(3, Ordering::SeqCst);
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap().value, 3);
    until(&meters, |status| status.error.contains("503"));
    let next = reported.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next.value, 3);
    assert_eq!(next.begin, 1_700_000_000_000_000_000);
    assert_eq!(next.temporality, wire::CUMULATIVE);
    let well = until(&meters, |status| status.error.is_empty());
    assert!(well.delivered > 0 && well.failing_since.is_none());
    count.store(8, Ordering::SeqCst);
    meters.stop(PATIENCE);
    let last = reported.try_iter().last().map(|sum| sum.value);
    assert_eq!(last, Some(8));
}

#[test]
fn deltas_add_up_whatever_fails() {
    let rejects = Response {
        partial_success: Some(PartialSuccess {
            rejected_log_records: 1,
            error_message: "no".into(),
        }),
    };
    let (url, reported) = collector(vec![
        (200, Vec::new()),
        (503, Vec::new()),
        (400, Vec::new()),
    ]);
    let (meters, count) = meter(url, Duration::from_millis(200), Temporality::Delta);
    // Of these requests the first and the fourth are taken.
    let mut sums = Vec::new();
    for _ in 0..4 {
        count.fetch_add(5, Ordering::SeqCst);
        let sum = reported.recv_timeout(PATIENCE).unwrap();
        assert_eq!(sum.temporality, wire::DELTA);
        sums.push(sum);
    }
    assert!(sums[1].begin == sums[2].begin && sums[2].begin == sums[3].begin);
    assert_eq!(sums[0].end, sums[1].begin);
    let before = sums[0].value + sums[3].value;
    until(&meters, |status| status.error.is_empty());
    meters.stop(PATIENCE);
    let after: i64 = reported.try_iter().map(|sum| sum.value).sum();
    assert_eq!(before + after, 20);
    // What is rejected is reported, and not sent again.
    let (url, reported) = collector(vec![(200, rejects.encode_to_vec())]);
    let (meters, count) = meter(url, HOUR, Temporality::Delta);
    count.store(5, Ordering::SeqCst);
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap().value, 5);
    until(&meters, |status| status.error.contains("rejected 1 points"));
    meters.stop(PATIENCE);
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap().value, 0);
}

#[test]
fn a_collector_that_is_not_there_holds_up_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // It takes connections and never answers.
    let (meters, _) = meter(url, HOUR, Temporality::Cumulative);
    let began = Instant::now();
    assert_eq!(meters.status().len(), 1);
    meters.stop(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5));
}
