//! A cluster of one broker that says what a test wants; real ones are asked in the end-to-end tests.

use super::*;
use crate::carrier::certificate::certificate;
use crate::spec::{Broker, SaslMechanism};
use bytes::{Put as _, Take};
use keytrail_proto::v1::{Event, EventId};
use pbjson_types::Timestamp;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// What the broker does, and what it was given.
#[derive(Default)]
struct Shared {
    /// What it says to each partition's batch; then all is well.
    codes: VecDeque<i16>,
    /// Ends the connection in place of answering so many requests to produce.
    closes: usize,
    /// What it says to who asks for the topic, before all is well.
    topic: VecDeque<i16>,
    /// By partition: how many records were in each batch that was taken.
    taken: Vec<(i32, i32)>,
    /// Their bytes.
    text: Vec<u8>,
    connections: usize,
    tokens: Vec<Vec<u8>>,
}

type State = Arc<Mutex<Shared>>;

const PARTITIONS: i32 = 3;

fn broker() -> (u16, State) {
    broker_by(None)
}

/// By TLS, where there is a certificate.
fn broker_by(tls: Option<Arc<ServerConfig>>) -> (u16, State) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = State::default();
    let shared = state.clone();
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            shared.lock().unwrap().connections += 1;
            let (peer, shared, tls) = (peer.unwrap(), shared.clone(), tls.clone());
            std::thread::spawn(move || match tls {
                Some(tls) => {
                    let tls = ServerConnection::new(tls).unwrap();
                    serve(StreamOwned::new(tls, peer), port, &shared);
                }
                None => serve(peer, port, &shared),
            });
        }
    });
    (port, state)
}

fn serve(mut peer: impl Read + Write, port: u16, shared: &State) {
    let mut length = [0; 4];
    while peer.read_exact(&mut length).is_ok() {
        let mut request = vec![0; i32::from_be_bytes(length) as usize];
        peer.read_exact(&mut request).unwrap();
        let mut take = Take(&request);
        let (key, _version) = (take.int16().unwrap(), take.int16().unwrap());
        let number = take.int32().unwrap();
        assert_eq!(take.string(), Some("keytrail h"));
        let Some(body) = answer(key, &mut take, port, shared) else {
            return;
        };
        let mut out = Vec::new();
        out.int32(body.len() as i32 + 4);
        out.int32(number);
        out.extend_from_slice(&body);
        peer.write_all(&out).unwrap();
    }
}

#[expect(clippy::too_many_lines, reason = "an answer for each request there is")]
fn answer(key: i16, take: &mut Take<'_>, port: u16, shared: &State) -> Option<Vec<u8>> {
    let mut shared = shared.lock().unwrap();
    let mut out = Vec::new();
    match key {
        18 => {
            out.int16(0);
            out.int32(4);
            for (key, from, to) in [(0, 3, 11), (3, 0, 12), (17, 0, 1), (36, 0, 2)] {
                for number in [key, from, to] {
                    out.int16(number);
                }
            }
        }
        3 => {
            out.int32(0);
            out.int32(1);
            out.int32(7);
            out.string("127.0.0.1");
            out.int32(i32::from(port));
            out.nothing();
            out.string("cluster");
            out.int32(7);
            out.int32(1);
            out.int16(shared.topic.pop_front().unwrap_or(0));
            out.string("events");
            out.push(0);
            out.int32(PARTITIONS);
            for partition in 0..PARTITIONS {
                out.int16(0);
                out.int32(partition);
                out.int32(7);
                for _ in 0..2 {
                    out.int32(1);
                    out.int32(7);
                }
            }
        }
        0 => {
            assert_eq!((take.string(), take.int16()), (Some(""), Some(-1)));
            assert_eq!(take.int32(), Some(2_000));
            if shared.closes > 0 {
                shared.closes -= 1;
                return None;
            }
            let mut answers = Vec::new();
            let topics = take.array(|take| {
                assert_eq!(take.string(), Some("events"));
                take.array(|take| {
                    let (partition, batch) = (take.int32()?, take.bytes()?);
                    let code = shared.codes.pop_front().unwrap_or(0);
                    if code == 0 {
                        let records = i32::from_be_bytes(batch[57..61].try_into().unwrap());
                        shared.taken.push((partition, records));
                        shared.text.extend_from_slice(batch);
                    }
                    answers.push((partition, code));
                    Some(())
                })
            });
            assert_eq!(topics.unwrap().len(), 1);
            out.int32(1);
            out.string("events");
            out.int32(answers.len() as i32);
            for (partition, code) in answers {
                out.int32(partition);
                out.int16(code);
                out.int64(0);
                out.int64(-1);
            }
            out.int32(0);
        }
        17 => {
            let plain = take.string() == Some("PLAIN");
            out.int16(if plain { 0 } else { 33 });
            out.int32(1);
            out.string("PLAIN");
        }
        36 => {
            let token = take.bytes().unwrap().to_vec();
            let good = token.ends_with(b"right");
            shared.tokens.push(token);
            out.int16(if good { 0 } else { 58 });
            out.string(if good { "" } else { "no\x1b such user" });
            out.bytes(b"");
        }
        other => panic!("{other}"),
    }
    Some(out)
}

fn spec(port: u16) -> KafkaSpec {
    KafkaSpec {
        brokers: vec![Broker {
            host: "127.0.0.1".into(),
            port,
        }],
        tls: false,
        topic: "events".into(),
        mechanism: SaslMechanism::Plain,
        credentials_file: None,
        ca_file: None,
        timeout: Duration::from_secs(2),
    }
}

fn kafka(spec: KafkaSpec) -> Kafka {
    let reporter = Reporter {
        host: "h".into(),
        ..Reporter::default()
    };
    Kafka::new(spec, &reporter)
}

fn items(count: u64, length: usize) -> Vec<Item> {
    let item = |sequence| Item {
        event: Arc::new(Event {
            id: Some(EventId {
                agent: "a".into(),
                epoch: 3,
                sequence,
                ..EventId::default()
            }),
            time: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..Event::default()
        }),
        line: [vec![b'0'; length], sequence.to_string().into_bytes()].concat(),
    };
    (1..=count).map(item).collect()
}

/// How many events were taken.
fn taken(state: &State) -> usize {
    let state = state.lock().unwrap();
    state.taken.iter().map(|(_, count)| *count as usize).sum()
}

#[test]
fn every_event_goes_to_the_partition_of_its_key() {
    let (port, state) = broker();
    let mut kafka = kafka(spec(port));
    let items = items(30, 5);
    assert_eq!(kafka.deliver(&items).unwrap().left_out, 0);
    assert_eq!(kafka.deliver(&items[..1]).unwrap().left_out, 0);
    assert_eq!(taken(&state), 31);
    let state = state.lock().unwrap();
    let partitions: BTreeSet<i32> = state.taken.iter().map(|(number, _)| *number).collect();
    assert_eq!(partitions.len(), PARTITIONS as usize);
    // One to ask, one to produce; a batch for each partition, then one.
    assert_eq!((state.connections, state.taken.len()), (2, 4));
    let text = String::from_utf8_lossy(&state.text);
    assert!(text.contains("event.id\x0ca:3:30") && text.contains("0000030"));
}

#[test]
fn what_a_broker_never_takes_is_found_and_counted() {
    let (port, state) = broker();
    let mut kafka = kafka(spec(port));
    // Two of one partition: refused together, then one of them.
    let of_one = |item: &Item| partition::partition(&uid(&item.event), 3) == 1;
    let one: Vec<Item> = items(200, 5).into_iter().filter(of_one).take(2).collect();
    state.lock().unwrap().codes = [10, 0, 87].into();
    let done = kafka.deliver(&one).unwrap();
    assert_eq!((done.left_out, taken(&state)), (1, 1));
    assert_eq!(done.why, "the broker says: INVALID_RECORD");
    // All refused: the worker tries again and tells.
    state.lock().unwrap().codes = [10, 10, 10].into();
    let failed = kafka.deliver(&one);
    assert!(
        matches!(&failed, Err(Failure::Refused(why)) if why.ends_with("MESSAGE_TOO_LARGE")),
        "{failed:?}"
    );
}

#[test]
fn what_moved_is_asked_for_anew_and_what_lasts_is_reported() {
    let (port, state) = broker();
    let mut kafka = kafka(spec(port));
    let items = items(10, 5);
    kafka.deliver(&items).unwrap();
    let before = taken(&state);
    // A leader moved; a connection was left alone for long: no failure yet. What was taken does not go there again.
    state.lock().unwrap().codes = [0, 6, 0].into();
    kafka.deliver(&items).unwrap();
    assert_eq!(taken(&state), before + 10);
    state.lock().unwrap().closes = 1;
    kafka.deliver(&items).unwrap();
    assert_eq!(taken(&state), before + 20);
    let failed = |kafka: &mut Kafka| match kafka.deliver(&items) {
        Err(Failure::Later { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    state.lock().unwrap().closes = 2;
    assert_eq!(failed(&mut kafka), "it closed the connection");
    // Too few replicas: it waits.
    state.lock().unwrap().codes = [19, 19, 19].into();
    assert_eq!(failed(&mut kafka), "the broker says: NOT_ENOUGH_REPLICAS");
    state.lock().unwrap().codes = [29, 29, 29].into();
    assert!(failed(&mut kafka).ends_with("TOPIC_AUTHORIZATION_FAILED"));
    state.lock().unwrap().topic = [3, 3].into();
    assert!(failed(&mut kafka).ends_with("UNKNOWN_TOPIC_OR_PARTITION"));
    kafka.topic = None;
    state.lock().unwrap().topic.clear();
    kafka.deliver(&items).unwrap();
}

#[test]
fn large_batches_go_in_several() {
    let items = items(9, 300 << 10);
    let parts = parts(&items, 1);
    let counts: Vec<usize> = parts.iter().map(|part| part.messages.len()).collect();
    assert_eq!(counts, [2, 2, 2, 2, 1]);
    // One that is larger than a batch is a batch.
    let items = super::tests::items(2, 2 << 20);
    assert_eq!(super::parts(&items, 1).len(), 2);
    let (port, state) = broker();
    let mut kafka = kafka(spec(port));
    kafka.deliver(&super::tests::items(9, 300 << 10)).unwrap();
    assert_eq!(taken(&state), 9);
}

#[test]
fn a_password_is_reported_by_plain_and_shown_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let (port, state) = broker();
    let deliver = |text: &str, mechanism| {
        std::fs::write(&file, text).unwrap();
        let spec = KafkaSpec {
            credentials_file: Some(file.clone()),
            mechanism,
            ..spec(port)
        };
        match kafka(spec).deliver(&items(1, 5)) {
            Ok(_) => String::new(),
            Err(Failure::Later { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(deliver("user:right\n", SaslMechanism::Plain), "");
    assert_eq!(state.lock().unwrap().tokens[0], b"\0user\0right");
    let why = deliver("user:SECRET\n", SaslMechanism::Plain);
    assert_eq!(why, "the broker refuses the login: no such user");
    let why = deliver("user:SECRET\n", SaslMechanism::ScramSha512);
    assert_eq!(why, "the broker does not take this mechanism, but: PLAIN");
    let why = deliver("SECRET\n", SaslMechanism::Plain);
    assert!(
        why.contains("credentials") && !why.contains("SECRET"),
        "{why}"
    );
}

#[test]
fn by_tls_a_broker_is_who_the_authorities_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let (pem, config) = certificate("127.0.0.1", &[]);
    let (port, state) = broker_by(Some(Arc::new(config)));
    let deliver = |pem: &str| {
        std::fs::write(&file, pem).unwrap();
        let spec = KafkaSpec {
            tls: true,
            ca_file: Some(file.clone()),
            ..spec(port)
        };
        kafka(spec).deliver(&items(5, 5))
    };
    assert_eq!(deliver(&pem).unwrap().left_out, 0);
    assert_eq!(taken(&state), 5);
    let (other, _) = certificate("127.0.0.1", &[]);
    let failed = format!("{:?}", deliver(&other).unwrap_err());
    assert!(failed.contains("certificate"), "{failed}");
    assert_eq!(taken(&state), 5);
}

#[test]
fn servers_that_are_none() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 9],
        &[0, 0, 0, 6, 0, 0, 0, 1, 0, 35],
        &[255; 16],
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.read_exact(&mut [0; 24]).unwrap();
            peer.write_all(said).unwrap();
        });
        let failed = kafka(spec(port)).deliver(&items(1, 5));
        let text = format!("{:?}", failed.unwrap_err());
        assert!(text.contains("is not Kafka"), "{text}");
        thread.join().unwrap();
    }
}

proptest::proptest! {
    /// Whatever comes as an answer: no panic, and no more memory than there are bytes.
    #[test]
    fn anything_can_be_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = protocol::topic(&bytes);
        let _ = protocol::produced(&bytes);
        let _ = protocol::shaken(&bytes);
        let _ = protocol::authenticated(&bytes);
        let _ = protocol::lacking(&bytes, &[protocol::PRODUCE]);
    }
}
