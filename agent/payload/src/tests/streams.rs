//! The table of connections.

use super::*;
use keytrail_model::Pid;

const SECOND: u64 = 1_000_000_000;

fn key(id: u64, layer: Layer) -> StreamKey {
    StreamKey {
        pid: Pid { tgid: 1, start: 2 },
        layer,
        id,
        ends: Default::default(),
    }
}

fn whole(boot_ns: u64, bytes: &[u8]) -> Chunk<'_> {
    Chunk::whole(boot_ns, bytes)
}

#[test]
fn a_secret_in_two_writes_within_a_second() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    for (pause, expected) in [(SECOND / 2, 1), (SECOND, 0)] {
        let mut s = Streams::new();
        let k = key(1, Layer::Tls);
        assert_eq!(s.on_payload(&m, k, whole(5 * SECOND, a)).hits.len(), 0);
        assert!(s.kept_bytes() > 0);
        let second = s.on_payload(&m, k, whole(5 * SECOND + pause, b));
        assert_eq!(second.hits.len(), expected, "after {pause} ns");
        assert_eq!(
            (second.total, second.inspected, second.truncated),
            (b.len() as u64, b.len() as u64, false)
        );
    }
}

/// What is said now and then on a connection that is never idle pushes nothing out.
#[test]
fn bytes_of_a_connection_that_is_never_idle_go_after_a_second() {
    let m = matcher(&[TOKEN]);
    let k = key(1, Layer::Tls);
    let (a, rest) = TOKEN.split_at(17);
    let pieces: Vec<&[u8]> = rest.chunks(rest.len().div_ceil(5)).collect();
    // The last piece comes 0.75 s or 1.25 s after the first.
    for (pause, expected) in [(SECOND / 100 * 15, 1), (SECOND / 4, 0)] {
        let mut s = Streams::new();
        s.on_payload(&m, k, whole(5 * SECOND, a));
        let mut found = 0;
        for (n, piece) in (1..).zip(&pieces) {
            let at = 5 * SECOND + n * pause;
            found += s.on_payload(&m, k, whole(at, piece)).hits.len();
        }
        assert_eq!(found, expected, "{pause} ns apart");
    }
    // Pieces that come one soon after another are joined however many there are.
    let mut s = Streams::new();
    let slow = TOKEN
        .chunks(4)
        .enumerate()
        .map(|(n, piece)| {
            let at = 5 * SECOND + n as u64 * SECOND / 20;
            s.on_payload(&m, k, whole(at, piece)).hits.len()
        })
        .sum::<usize>();
    assert_eq!(slow, 1);
}

/// A head, and what it packs half a second later: nothing of that is old yet.
#[test]
fn a_packed_body_may_come_later_than_its_head() {
    let m = matcher(&[TOKEN]);
    let k = key(1, Layer::Tls);
    let body = brotli();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (one, two) = body.split_at(body.len() / 2);
    let mut s = Streams::new();
    let mut found = 0;
    for (n, piece) in (0..).zip([head.as_bytes(), one, two]) {
        let at = 5 * SECOND + n * SECOND / 2;
        found += s.on_payload(&m, k, whole(at, piece)).hits.len();
    }
    assert_eq!(found, 1);
}

#[test]
fn nothing_is_joined_over_payloads_that_were_not_captured() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let k = key(1, Layer::Socket);
    let mut s = Streams::new();
    s.on_send(&m, k, whole(1, a));
    s.interrupt(&k);
    assert_eq!(s.on_send(&m, k, whole(2, b)).payload.hits.len(), 0);
    // A record of which the rest was not captured is not gone on with: what comes is clear.
    let mut record = b"\x17\x03\x03\x01\x00".to_vec();
    record.extend([0x5a; 100]);
    s.on_send(&m, k, whole(3, &record));
    s.interrupt(&k);
    let clear = s.on_send(&m, k, whole(4, TOKEN));
    assert_eq!((clear.records.len(), clear.payload.hits.len()), (0, 1));
}

#[test]
fn connections_are_kept_apart() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let mut s = Streams::new();
    s.on_payload(&m, key(1, Layer::Tls), whole(1, a));
    assert_eq!(
        s.on_payload(&m, key(2, Layer::Tls), whole(2, b)).hits.len(),
        0
    );
    assert_eq!(
        s.on_payload(&m, key(1, Layer::Socket), whole(3, b))
            .hits
            .len(),
        0
    );
    s.close(&key(1, Layer::Tls));
    assert_eq!(
        s.on_payload(&m, key(1, Layer::Tls), whole(4, b)).hits.len(),
        0
    );
}

#[test]
fn records_of_one_call_join_and_holes_do_not() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let k = key(1, Layer::Tls);
    let part = |bytes, offset, truncated| Chunk {
        boot_ns: 1,
        bytes,
        total: 100,
        offset,
        truncated,
    };
    let mut s = Streams::new();
    s.on_payload(&m, k, part(a, 0, false));
    assert_eq!(s.on_payload(&m, k, part(b, 17, false)).hits.len(), 1);
    // A record in between was lost.
    let mut s = Streams::new();
    s.on_payload(&m, k, part(a, 0, false));
    let lost = s.on_payload(&m, k, part(b, 50, false));
    assert!(lost.hits.is_empty() && lost.truncated);
    // The rest of the call was not captured.
    let mut s = Streams::new();
    assert!(s.on_payload(&m, k, part(a, 0, true)).truncated);
    assert_eq!(s.kept_bytes(), 0);
    assert!(s.on_payload(&m, k, whole(2, b)).hits.is_empty());
    // A call whose continuation never came.
    let mut s = Streams::new();
    s.on_payload(&m, k, part(a, 0, false));
    assert!(s.on_payload(&m, k, whole(2, b)).hits.is_empty());
}

#[test]
fn idle_connections_are_wiped_then_dropped() {
    let m = matcher(&[TOKEN]);
    let mut s = Streams::new();
    for id in 0..10 {
        s.on_payload(
            &m,
            key(id, Layer::Tls),
            whole(id * SECOND / 10, &TOKEN[..30]),
        );
    }
    assert!(s.kept_bytes() >= 300);
    s.expire(SECOND + SECOND / 2);
    // Each end of a stream is kept thrice: to be joined, to see what is encoded in it, and as the line of a mail.
    assert_eq!((s.len(), s.kept_bytes()), (10, 360));
    s.expire(2 * SECOND);
    assert_eq!((s.len(), s.kept_bytes()), (10, 0));
    s.expire(31 * SECOND);
    assert_eq!(s.len(), 0);
}

#[test]
fn the_table_is_bounded() {
    let m = matcher(&[TOKEN]);
    let mut s = Streams::new();
    for id in 0..stream::MAX_STREAMS as u64 + 100 {
        s.on_payload(&m, key(id, Layer::Tls), whole(id, &TOKEN[..30]));
    }
    assert_eq!(s.len(), stream::MAX_STREAMS);
    // The oldest went, the newest stayed.
    assert!(
        s.on_payload(&m, key(0, Layer::Tls), whole(20_000, &TOKEN[30..]))
            .hits
            .is_empty()
    );
    assert_eq!(
        s.on_payload(
            &m,
            key(stream::MAX_STREAMS as u64, Layer::Tls),
            whole(20_000, &TOKEN[30..])
        )
        .hits
        .len(),
        1
    );
}

#[test]
fn kept_bytes_are_bounded() {
    // A long secret of which all but the end is sent on very many connections.
    let secret = base64(&noise(3, 11_000));
    let m = matcher(&[&secret]);
    let mut s = Streams::new();
    for id in 0..3000 {
        s.on_payload(&m, key(id, Layer::Tls), whole(id, &secret[..14_000]));
        assert!(s.kept_bytes() <= stream::MAX_BYTES);
    }
    assert!(s.kept_bytes() > stream::MAX_BYTES / 2);
    assert_eq!(
        s.on_payload(&m, key(2999, Layer::Tls), whole(4000, &secret[14_000..]))
            .hits
            .len(),
        1
    );
    assert!(
        s.on_payload(&m, key(0, Layer::Tls), whole(4000, &secret[14_000..]))
            .hits
            .is_empty()
    );
}

#[test]
fn hosts_come_with_payloads() {
    let m = matcher(&[TOKEN]);
    let mut s = Streams::new();
    let hello = tls::tests::client_hello(Some(b"sni.example"), 1700, 16384);
    let (a, b) = hello.split_at(1400);
    let sock = key(9, Layer::Socket);
    let connect = s.on_send(
        &m,
        sock,
        whole(1, b"CONNECT sni.example:443 HTTP/1.1\r\n\r\n"),
    );
    assert_eq!(connect.payload.hosts[0].provenance, "connect_target");
    assert!(s.on_send(&m, sock, whole(1, a)).payload.hosts.is_empty());
    let named = s.on_send(&m, sock, whole(2, b)).payload.hosts;
    assert_eq!(
        (&named[0].name[..], &named[0].provenance[..]),
        ("sni.example", "sni")
    );
    assert!(
        s.on_send(&m, sock, whole(3, &[23, 3, 3, 0, 30, 1, 2, 3]))
            .payload
            .hosts
            .is_empty()
    );
    let request = [
        b"POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 40\r\n\r\n",
        TOKEN,
    ]
    .concat();
    let sent = s.on_payload(&m, key(3, Layer::Tls), whole(4, &request));
    assert_eq!(
        (sent.hosts[0].name.as_str(), sent.hits.len()),
        ("h.example", 1)
    );
}

#[test]
fn a_session_pointer_used_again_is_another_session() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let tls = key(1, Layer::Tls);
    // What a client, or a server, sends first.
    let hello = super::super::tls::tests::client_hello(Some(b"example.com"), 10, 16384);
    let mut server = hello.clone();
    server[5] = 2;
    type Between<'a> = &'a dyn Fn(&mut Streams) -> bool;
    let cases: [(&str, Between, usize); 5] = [
        ("nothing", &|_| false, 1),
        (
            "a record of data",
            &|s| {
                s.on_send(&m, key(9, Layer::Socket), whole(2, &[23, 3, 3, 0, 1, 7]))
                    .hello
                    .is_some()
            },
            1,
        ),
        (
            "a ClientHello",
            &|s| {
                s.on_send(&m, key(9, Layer::Socket), whole(2, &hello))
                    .hello
                    .is_some()
            },
            0,
        ),
        (
            "a ServerHello",
            &|s| {
                s.on_send(&m, key(9, Layer::Socket), whole(2, &server))
                    .hello
                    .is_some()
            },
            0,
        ),
        (
            "the end of the process",
            &|s| {
                s.close_process(tls.pid);
                false
            },
            0,
        ),
    ];
    for (what, between, expected) in cases {
        let mut s = Streams::new();
        s.on_payload(&m, tls, whole(1, a));
        if between(&mut s) {
            s.close_sessions(tls.pid);
        }
        let hits = s.on_payload(&m, tls, whole(3, b)).hits.len();
        assert_eq!(hits, expected, "{what}");
    }
    // Another process's connections stay.
    let mut s = Streams::new();
    s.on_payload(&m, tls, whole(1, a));
    s.close_process(Pid { tgid: 1, start: 3 });
    s.close_socket(tls.pid, 1);
    assert_eq!(s.on_payload(&m, tls, whole(3, b)).hits.len(), 1);
}

#[test]
fn a_socket_used_again_is_another_connection() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let first = StreamKey {
        ends: ([127; 16], 443, 40_000),
        ..key(1, Layer::Socket)
    };
    for other in [
        StreamKey {
            ends: ([127; 16], 443, 40_001),
            ..first
        },
        StreamKey {
            ends: ([127; 16], 80, 40_000),
            ..first
        },
        StreamKey {
            ends: ([1; 16], 443, 40_000),
            ..first
        },
    ] {
        let mut s = Streams::new();
        s.on_send(&m, first, whole(1, a));
        assert!(s.on_send(&m, other, whole(2, b)).payload.hits.is_empty());
        assert_eq!(s.on_send(&m, first, whole(2, b)).payload.hits.len(), 1);
    }
    let mut s = Streams::new();
    s.on_send(&m, first, whole(1, a));
    s.close_socket(first.pid, 1);
    assert!(s.on_send(&m, first, whole(2, b)).payload.hits.is_empty());
}

/// A writev of records, each a piece of its own.
#[test]
fn records_in_pieces_of_one_call() {
    let m = matcher(&[TOKEN]);
    let k = key(1, Layer::Socket);
    let piece = |s: &mut Streams, offset, bytes: &[u8], total| {
        let chunk = Chunk {
            offset,
            total,
            ..whole(1, bytes)
        };
        let sent = s.on_send(&m, k, chunk);
        assert!(sent.payload.hits.is_empty());
        let records = sent.records.iter().map(|r| (r.content_type, r.length));
        (sent.goes_on, records.collect::<Vec<_>>())
    };
    let exchange = [&[22, 3, 3, 0, 37][..], &[16; 37]].concat();
    let change = [20, 3, 3, 0, 1, 1];
    let finished = [&[22, 3, 3, 0, 40][..], &[0; 40]].concat();
    let mut s = Streams::new();
    assert_eq!(piece(&mut s, 0, &exchange, 93), (None, vec![(22, 37)]));
    assert_eq!(piece(&mut s, 42, &change, 93), (Some(42), vec![(20, 1)]));
    assert_eq!(piece(&mut s, 48, &finished, 93), (Some(48), vec![(22, 40)]));
    // Of the second only the header was captured; the record goes on in the next call.
    assert_eq!(piece(&mut s, 0, &change, 80), (None, vec![(20, 1)]));
    let cut = piece(&mut s, 6, &[23, 3, 3, 0, 90, 1, 2], 80);
    assert_eq!(cut, (Some(6), vec![(23, 90)]));
    assert_eq!(piece(&mut s, 0, &[7; 21], 21), (None, vec![(23, 0)]));
    // A piece was lost, or a header lies across two: nothing is reported about what follows.
    piece(&mut s, 0, &change, 93);
    assert_eq!(piece(&mut s, 48, &finished, 93).1, vec![]);
    piece(&mut s, 0, &[20, 3, 3, 0, 1, 1, 22, 3], 93);
    assert_eq!(piece(&mut s, 8, &[3, 0, 40, 0, 0, 0], 93).1, vec![]);
    assert_eq!(piece(&mut s, 14, &finished, 93).1, vec![]);
}

#[test]
fn tls_records_never_reach_the_matcher_and_clear_bytes_always_do() {
    let m = matcher(&[TOKEN]);
    let k = key(1, Layer::Socket);
    let record = |kind: u8, body: &[u8]| {
        let len = (body.len() as u16).to_be_bytes();
        [&[kind, 3, 3], &len[..], body].concat()
    };
    let hits = |s: &mut Streams, bytes: &[u8]| {
        let sent = s.on_send(&m, k, whole(1, bytes));
        (
            sent.payload.hits.len(),
            sent.payload.inspected,
            sent.records.len(),
        )
    };
    let mut s = Streams::new();
    assert_eq!(hits(&mut s, &record(23, TOKEN)), (0, 0, 1));
    assert_eq!(
        hits(&mut s, &[record(20, &[1]), record(23, TOKEN)].concat()),
        (0, 0, 2)
    );
    // A record in three sends: header, half, rest with the next record.
    let whole_record = record(23, TOKEN);
    let next = record(23, b"next");
    assert_eq!(hits(&mut s, &whole_record[..5]), (0, 0, 1));
    assert_eq!(hits(&mut s, &whole_record[5..20]), (0, 0, 1));
    assert_eq!(
        hits(&mut s, &[&whole_record[20..], &next].concat()),
        (0, 0, 1)
    );
    // What follows a record and is none is in clear.
    let clear = TOKEN.len() as u64;
    assert_eq!(hits(&mut s, TOKEN), (1, clear, 0));
    // Where a record should go on and another connection's bytes stand in for it, the bytes speak for themselves.
    assert_eq!(hits(&mut s, &[23, 3, 3, 0, 9]), (0, 0, 1));
    assert_eq!(hits(&mut s, TOKEN), (1, clear, 0));
    // A record whose rest was not captured, in a call of several records of ours.
    let mut s = Streams::new();
    let cut = Chunk {
        truncated: true,
        total: 4_000,
        ..whole(1, &whole_record[..16])
    };
    let sent = s.on_send(&m, k, cut);
    assert_eq!((sent.payload.total, sent.payload.truncated), (4_000, false));
    assert_eq!(hits(&mut s, TOKEN), (1, clear, 0));
}
