//! Which payloads are joined: those of one connection while it lives.

use super::files::Files;
use super::{Digest, DigestOptions, Digested, InspectionOptions, Registry};
use crate::decode::Record;
use keytrail_abi as abi;
use keytrail_model::{Credential, Observation};
use keytrail_payload::{Matcher, Streams};
use keytrail_secret::{Classifier, Fingerprinter};
use std::sync::Arc;

pub(super) const TOKEN: &[u8] = b"ghp_w7Rk2ZpQ9xLm4TnV8cYb1HsJd6FgE3aUoXiP";

pub(super) fn header(kind: u16) -> abi::Header {
    abi::Header {
        kind,
        tgid: 99_999_999,
        tid: 99_999_999,
        start_ns: 5_000_000_000,
        boot_ns: 6_000_000_000,
        ..abi::Header::default()
    }
}

/// A digest that knows the token.
pub(super) fn digest() -> Digest {
    let mut matcher = Matcher::new(&[9; 32]);
    let credential = Credential {
        kind: "test-token".to_owned(),
        identifier: String::new(),
        fingerprint: "kt1:0".to_owned(),
        confidence: 1.0,
        expires: None,
        rule: "test".to_owned(),
        privilege: 0,
        attack: String::new(),
    };
    matcher.learn(Arc::new(credential), "", TOKEN);
    Digest::new(DigestOptions {
        classifier: Classifier::builtin().into(),
        registry: Registry::new(Fingerprinter::new(&[7; 32]), matcher),
        streams: Streams::new(),
        files: Files::new(Vec::new()),
        inspection: InspectionOptions::default(),
    })
    .unwrap()
}

fn ends(sock: u64, local_port: u16) -> abi::Endpoints {
    abi::Endpoints {
        sock,
        local_port,
        peer_port: 443,
        family: 2,
        protocol: 6,
        ..abi::Endpoints::default()
    }
}

fn send(ends: abi::Endpoints, data: &[u8]) -> Record<'_> {
    let record = abi::SockSend {
        header: header(abi::Kind::SOCK_SEND),
        ends,
        total: data.len() as u64,
        offset: 0,
        data_len: data.len() as u32,
        tls_call: 0,
        tls_session: 0,
    };
    Record::SockSend(record, data)
}

fn tls(data: &[u8]) -> Record<'_> {
    let record = abi::TlsWrite {
        header: header(abi::Kind::TLS_WRITE),
        tls_call: 1,
        tls_session: 70,
        total: data.len() as u64,
        offset: 0,
        data_len: data.len() as u32,
        cookie: 0,
        sock: 0,
        local_port: 0,
        peer_port: 0,
        once: 0,
    };
    Record::TlsWrite(record, data)
}

/// Hits in the last record of these.
fn hits(records: &[Record<'_>]) -> usize {
    let mut digest = digest();
    let mut out = Digested::default();
    for record in records {
        digest.record(record, "h", None, &mut out);
    }
    match out.observations.last() {
        Some(Observation::Send(seen)) => seen.payload.hits.len(),
        Some(Observation::TlsWrite(seen)) => seen.payload.hits.len(),
        Some(Observation::Write(seen)) => seen.payload.hits.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_began_a_connection_is_the_kernel_s_to_say() {
    let direction = |flags| {
        let mut record = send(ends(1, 443), b"HTTP/1.1 200 OK\r\n\r\n");
        if let Record::SockSend(send, _) = &mut record {
            send.header.flags = flags;
        }
        let mut out = Digested::default();
        digest().record(&record, "h", None, &mut out);
        match out.observations.pop() {
            Some(Observation::Send(seen)) => seen.direction,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        direction(abi::header::flags::ACCEPTED),
        Some(keytrail_model::Direction::Accepted)
    );
    // Not known is not outgoing.
    assert_eq!(direction(0), None);
}

#[test]
fn halves_of_a_secret_are_joined_within_one_connection_only() {
    let (a, b) = TOKEN.split_at(17);
    let exit = || {
        Record::Exit(abi::Exit {
            header: header(abi::Kind::EXIT),
            exit_code: 0,
            pad: 0,
        })
    };
    let connect = |sock| {
        Record::Connect(abi::Connect {
            header: header(abi::Kind::CONNECT),
            ends: ends(sock, 40_000),
        })
    };
    let hello = [22, 3, 1, 0, 5, 1, 0, 0, 1, 3];
    let data = [23, 3, 3, 0, 2, 9, 9];
    let socket = || send(ends(1, 40_000), a);
    let next = || send(ends(1, 40_000), b);
    for (what, records, expected) in [
        ("one socket", vec![socket(), next()], 1),
        (
            "another local port",
            vec![socket(), send(ends(1, 40_001), b)],
            0,
        ),
        (
            "a connect of that socket",
            vec![socket(), connect(1), next()],
            0,
        ),
        (
            "a connect of another",
            vec![socket(), connect(2), next()],
            1,
        ),
        (
            "a connect before there is a socket",
            vec![socket(), connect(0), next()],
            1,
        ),
        ("an exit", vec![socket(), exit(), next()], 0),
        ("one session", vec![tls(a), tls(b)], 1),
        (
            "a handshake on whatever socket",
            vec![tls(a), send(ends(1, 1), &hello), tls(b)],
            0,
        ),
        (
            "data on whatever socket",
            vec![tls(a), send(ends(1, 1), &data), tls(b)],
            1,
        ),
        ("an exit, with TLS", vec![tls(a), exit(), tls(b)], 0),
        ("socket and session", vec![socket(), tls(b)], 0),
    ] {
        assert_eq!(hits(&records), expected, "{what}");
    }
}

fn write(ino: u64, holes: u64, positioned: u32, data: &[u8]) -> Record<'_> {
    let record = abi::FdWrite {
        header: header(abi::Kind::FD_WRITE),
        file: abi::FileId {
            ino,
            ..abi::FileId::default()
        },
        total: data.len() as u64,
        holes,
        offset: 0,
        data_len: data.len() as u32,
        target: abi::target::FILE,
        positioned,
    };
    Record::FdWrite(record, data)
}

#[test]
fn writes_to_one_file_are_joined_unless_some_were_passed_over() {
    let (first, second) = TOKEN.split_at(15);
    assert_eq!(hits(&[write(1, 0, 0, TOKEN)]), 1);
    assert_eq!(hits(&[write(1, 0, 0, first), write(1, 0, 0, second)]), 1);
    for apart in [
        write(2, 0, 0, second),
        write(1, 1, 0, second),
        write(1, 0, 1, second),
    ] {
        assert_eq!(hits(&[write(1, 0, 0, first), apart]), 0);
    }
    // Another file in between is another stream.
    let between = [
        write(1, 0, 0, first),
        write(2, 0, 0, b"x"),
        write(1, 0, 0, second),
    ];
    assert_eq!(hits(&between), 1);
}

#[test]
fn the_path_that_was_reported_goes_with_what_is_written() {
    let mut digest = digest();
    let mut out = Digested::default();
    // SAFETY: integers and bytes only.
    let mut reported: abi::FdTarget = unsafe { std::mem::zeroed() };
    reported.header = header(abi::Kind::FD_TARGET);
    reported.file.ino = 1;
    reported.depth = 1;
    reported.names[0][..5].copy_from_slice(b"x.log");
    digest.record(&Record::FdTarget(reported), "h", None, &mut out);
    digest.record(&write(1, 0, 0, TOKEN), "h", None, &mut out);
    let Some(Observation::Write(seen)) = out.observations.last() else {
        panic!("{:?}", out.observations);
    };
    assert_eq!((seen.path.as_str(), seen.inode), ("/x.log", 1));
}
