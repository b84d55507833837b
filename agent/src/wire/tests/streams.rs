//! The table of connections.

use super::*;
use crate::model::Pid;

const SECOND: u64 = 1_000_000_000;

fn key(id: u64, layer: Layer) -> StreamKey {
    StreamKey {
        pid: Pid { tgid: 1, start: 2 },
        layer,
        id,
    }
}

fn whole(boot_ns: u64, bytes: &[u8]) -> Chunk<'_> {
    Chunk {
        boot_ns,
        bytes,
        total: bytes.len() as u64,
        offset: 0,
        truncated: false,
    }
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
    assert_eq!((s.len(), s.kept_bytes()), (10, 120));
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
    let connect = s.on_payload(
        &m,
        sock,
        whole(1, b"CONNECT sni.example:443 HTTP/1.1\r\n\r\n"),
    );
    assert_eq!(connect.hosts[0].provenance, "connect_target");
    assert!(s.on_payload(&m, sock, whole(1, a)).hosts.is_empty());
    let named = s.on_payload(&m, sock, whole(2, b)).hosts;
    assert_eq!(
        (&named[0].name[..], &named[0].provenance[..]),
        ("sni.example", "sni")
    );
    assert!(
        s.on_payload(&m, sock, whole(3, &[23, 3, 3, 0, 30, 1, 2, 3]))
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
