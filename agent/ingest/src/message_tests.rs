//! What is read of sends over Unix sockets and by UDP.

use super::Digested;
use super::stream_tests::{TOKEN, digest, header};
use crate::decode::Record;
use keytrail_abi as abi;
use keytrail_model::{AnswerSeen, Observation, SendSeen};

const STREAM: u16 = 1;
const DATAGRAM: u16 = 2;

fn message(kind: u16, sock_type: u16, data: &[u8]) -> (abi::MessageSend, &[u8]) {
    let unix = kind == abi::Kind::UNIX_SEND;
    let mut record = abi::MessageSend {
        header: header(kind),
        ends: abi::Endpoints {
            sock: 5,
            family: if unix { 1 } else { 2 },
            protocol: if unix { 0 } else { 17 },
            local_port: 40_000,
            peer_port: if unix { 0 } else { 53 },
            ..abi::Endpoints::default()
        },
        total: data.len() as u64,
        offset: 0,
        data_len: data.len() as u32,
        tls_call: 0,
        tls_session: 0,
        socket_ino: 900,
        peer_start_ns: 0,
        peer_tgid: 0,
        sock_type,
        name_len: 0,
        name: [0; abi::UNIX_NAME_MAX],
        pad: 0,
    };
    record.ends.peer[..4].copy_from_slice(&[127, 0, 0, 1]);
    (record, data)
}

fn seen(records: Vec<(abi::MessageSend, &[u8])>) -> Vec<SendSeen> {
    let mut digest = digest();
    let mut out = Digested::default();
    for (record, data) in records {
        digest.record(&Record::Message(record, data), "h", None, &mut out);
    }
    out.observations
        .into_iter()
        .map(|o| match o {
            Observation::Send(seen) => *seen,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn hits(records: Vec<(abi::MessageSend, &[u8])>) -> usize {
    seen(records).iter().map(|s| s.payload.hits.len()).sum()
}

#[test]
fn streams_are_joined_and_datagrams_are_not() {
    let (a, b) = TOKEN.split_at(17);
    let of = |kind, sock_type| vec![message(kind, sock_type, a), message(kind, sock_type, b)];
    assert_eq!(hits(of(abi::Kind::UNIX_SEND, STREAM)), 1);
    assert_eq!(hits(of(abi::Kind::UNIX_SEND, DATAGRAM)), 0);
    assert_eq!(hits(of(abi::Kind::UDP_SEND, DATAGRAM)), 0);
    // The memory of a socket is used again.
    let mut other = of(abi::Kind::UNIX_SEND, STREAM);
    other[1].0.socket_ino = 901;
    assert_eq!(hits(other), 0);
    // Sends in between were passed over.
    let mut hole = of(abi::Kind::UNIX_SEND, STREAM);
    hole[1].0.header.flags = abi::header::flags::AFTER_HOLE;
    assert_eq!(hits(hole), 0);
}

#[test]
fn a_datagram_in_two_records_is_one() {
    let (a, b) = TOKEN.split_at(17);
    let (mut first, mut second) = (
        message(abi::Kind::UDP_SEND, DATAGRAM, a),
        message(abi::Kind::UDP_SEND, DATAGRAM, b),
    );
    first.0.total = TOKEN.len() as u64;
    second.0.total = TOKEN.len() as u64;
    second.0.offset = 17;
    second.0.header.flags = abi::header::flags::CONTINUED;
    assert_eq!(hits(vec![first, second]), 1);
}

#[test]
fn what_looks_like_tls_is_inspected_all_the_same() {
    let dressed = [b"\x17\x03\x03\x00\x40".as_slice(), TOKEN].concat();
    let plain = message(abi::Kind::UNIX_SEND, STREAM, &dressed);
    assert_eq!(hits(vec![plain]), 1);
    // Of a TLS call it is the ciphertext.
    let mut nested = message(abi::Kind::UNIX_SEND, STREAM, &dressed);
    nested.0.tls_call = 3;
    let seen = seen(vec![nested]);
    assert!(seen[0].payload.hits.is_empty());
    assert_eq!(seen[0].tls_record, Some((0x17, 0x40)));
}

fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|b| (0..8).rev().map(move |n| b >> n & 1))
        .collect();
    bits.chunks(5)
        .map(|five| {
            let value = five.iter().fold(0u8, |all, bit| all << 1 | bit) << (5 - five.len());
            char::from(DIGITS[usize::from(value)])
        })
        .collect()
}

fn question(labels: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn a_secret_in_the_labels_of_a_name() {
    let hex: String = TOKEN.iter().map(|b| format!("{b:02x}")).collect();
    let (a, b) = hex.split_at(50);
    let split = question(&[a, b, "x", "example", "org"]);
    let seen = seen(vec![message(abi::Kind::UDP_SEND, DATAGRAM, &split)]);
    assert_eq!(seen[0].payload.hits.len(), 1, "{:?}", seen[0].payload);
    let hit = &seen[0].payload.hits[0];
    assert!(hit.secret && hit.transform.word() == "hex", "{hit:?}");
    assert_eq!(
        (seen[0].ends.protocol.as_str(), seen[0].ends.peer_port),
        ("udp", 53)
    );
    assert_eq!(seen[0].ends.peer_ip, "127.0.0.1");
    // The first label begins with the token's base32, which the second goes on with (dig sends lower case as it is).
    let name = base32(TOKEN);
    let (a, b) = name.split_at(name.len() - 9);
    let split32 = question(&["7", a, b, "example", "org"]);
    let found = self::seen(vec![message(abi::Kind::UDP_SEND, DATAGRAM, &split32)]);
    let hit = &found[0].payload.hits[0];
    assert!(hit.secret && hit.transform.word() == "base32", "{hit:?}");
    // Elsewhere such bytes are no name.
    let mut elsewhere = message(abi::Kind::UDP_SEND, DATAGRAM, &split);
    elsewhere.0.ends.peer_port = 8_125;
    assert_eq!(hits(vec![elsewhere]), 0);
    let benign = question(&["www", "example", "org"]);
    assert_eq!(
        hits(vec![message(abi::Kind::UDP_SEND, DATAGRAM, &benign)]),
        0
    );
}

/// In hexadecimal digits, a piece for each question, each asked for twice; and the questions after it.
#[test]
fn a_secret_asked_for_in_pieces_is_found_once() {
    let hex: String = TOKEN.iter().map(|b| format!("{b:02x}")).collect();
    let pieces: Vec<&str> = (0..hex.len())
        .step_by(20)
        .map(|at| &hex[at..hex.len().min(at + 20)])
        .collect();
    let asked = |port: u16, domain: fn(usize) -> &'static str| -> Vec<usize> {
        let questions: Vec<Vec<u8>> = (0..pieces.len() + 3)
            .flat_map(|n| {
                let piece = pieces.get(n).copied().unwrap_or("monitoring");
                let one = question(&["7", piece, domain(n), "example"]);
                [one.clone(), one]
            })
            .collect();
        let messages = questions.iter().map(|text| {
            let mut message = message(abi::Kind::UDP_SEND, DATAGRAM, text);
            message.0.ends.peer_port = port;
            message
        });
        let seen = seen(messages.collect());
        seen.iter().map(|send| send.payload.hits.len()).collect()
    };
    let found = asked(53, |_| "evil");
    assert_eq!(found.iter().sum::<usize>(), 1);
    assert_eq!(found[2 * (pieces.len() - 1)], 1, "by the last piece");
    // Under many domains, or asked of no name service.
    let each = |n: usize| ["a", "b"][n % 2];
    assert_eq!(asked(53, each).iter().sum::<usize>(), 0);
    assert_eq!(asked(8_125, |_| "evil").iter().sum::<usize>(), 0);
}

#[test]
fn who_is_at_the_other_end() {
    let me = std::process::id();
    let start = keytrail_host::procfs::pid_of(me).unwrap().start;
    let of = |start_ns: u64, data| {
        let mut message = message(abi::Kind::UNIX_SEND, STREAM, data);
        message.0.peer_tgid = me;
        message.0.peer_start_ns = start_ns;
        message.0.name[..7].copy_from_slice(b"\0abcde\0");
        message.0.name_len = 7;
        seen(vec![message]).remove(0).ends
    };
    let ns = start * keytrail_model::TICK_NS;
    let ends = of(ns, TOKEN);
    assert_eq!(
        (ends.protocol.as_str(), ends.path.as_str()),
        ("unix", "@abcde")
    );
    let peer = ends.peer.unwrap();
    let exe = std::env::current_exe().unwrap();
    assert_eq!((peer.tgid, peer.start), (me, start));
    assert_eq!(std::path::Path::new(&peer.executable), exe);
    // Where there is nothing to tell nobody looks; another process of that number is not described.
    assert_eq!(of(ns, b"nothing").peer.unwrap().executable, "");
    let gone = of(ns + 50 * keytrail_model::TICK_NS, TOKEN).peer.unwrap();
    assert_eq!((gone.tgid, gone.executable.as_str()), (me, ""));
}

/// What each service answers (the forms of its documentation), cut anywhere: one observation with what it gives.
#[test]
fn what_metadata_services_answer_is_learnt() {
    let long = |n: usize| {
        let of = b"Zq3vR8tLw0XbN5kYc7HdM2sFg9PjU4eA6oTi1";
        (0..n)
            .map(|i| of[(i * 7 + i / 5) % of.len()] as char)
            .collect::<String>()
    };
    let jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.\
               eyJhdWQiOiJodHRwczovL21hbmFnZW1lbnQuYXp1cmUuY29tLyIsImlzcyI6Imh0dHBzOi8vc3RzLndpbmRvd3MubmV0LzEvIiwiZXhwIjoyMDAwMDAwMDAwLCJhcHBpZCI6IjEifQ";
    let aws = format!(
        "{{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : \"ASIAQZ7LJRT5MK2XW3PV\",\n  \"SecretAccessKey\" : \"{}\",\n  \
         \"Token\" : \"IQoJb3JpZ2luX2VjE{}==\",\n  \"Expiration\" : \"2036-01-01T00:00:00Z\"\n}}",
        long(40),
        long(400)
    );
    let gce = format!(
        "{{\"access_token\":\"ya29.c.{}\",\"expires_in\":3599,\"token_type\":\"Bearer\"}}",
        long(180)
    );
    let azure = format!(
        "{{\"access_token\":\"{jwt}.{}\",\"client_id\":\"a3b4\",\"expires_in\":\"86399\"}}",
        long(342)
    );
    for (body, kind) in [
        (aws, "aws-session"),
        (gce, "google-oauth-token"),
        (azure, "azure-access-token"),
    ] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for cut in [1, 20, 60, answer.len() - 1, answer.len()] {
            let (first, rest) = answer.as_bytes().split_at(cut);
            let given = answers([first, rest]);
            assert_eq!(given.len(), 1, "{cut}: {given:?}");
            assert_eq!(given[0].credentials[0].kind, kind, "{cut}");
        }
    }
    // Not what anybody may know, nor what was not given.
    for other in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ni-0123",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        assert_eq!(answers([other.as_bytes(), b""]), []);
    }
}

fn answers(parts: [&[u8]; 2]) -> Vec<AnswerSeen> {
    let mut digest = digest();
    let mut out = Digested::default();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let (record, data) = message(abi::Kind::ANSWER, STREAM, part);
        digest.record(&Record::Answer(record, data), "h", None, &mut out);
    }
    out.observations
        .into_iter()
        .map(|o| match o {
            Observation::Answer(seen) => *seen,
            other => panic!("{other:?}"),
        })
        .collect()
}
