//! Credentials that nobody knew, in headers that hold nothing else.

use super::{Chunk, Layer, StreamKey, Streams, credential, matcher};
use crate::h2::tests::{frame, text};
use crate::http::HTTP2_PREFACE;
use crate::{Matcher, Unknown};
use keytrail_model::{CredentialRef, Payload, Transform};

const TOKEN: &str = "q3VtAcK8s1LwXy7BmZ4eR9uP";

/// Takes everything it is asked about.
#[derive(Default)]
struct Taker(Vec<(&'static str, String)>);

impl Unknown for Taker {
    fn presented(&mut self, header: &'static str, value: &[u8]) -> Vec<(CredentialRef, Transform)> {
        self.0
            .push((header, String::from_utf8(value.to_vec()).unwrap()));
        vec![(credential("new"), Transform::Raw)]
    }
}

fn connection() -> StreamKey {
    StreamKey {
        pid: keytrail_model::Pid { tgid: 1, start: 2 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    }
}

/// What is asked, and what is found, of writes on one connection.
fn met(matcher: &Matcher, writes: &[&[u8]]) -> (Vec<(&'static str, String)>, Vec<Payload>) {
    let mut streams = Streams::new();
    let key = connection();
    let mut taker = Taker::default();
    let mut payloads = Vec::new();
    for bytes in writes {
        let chunk = Chunk::whole(1, bytes);
        payloads.push(streams.on_payload_with(matcher, key, chunk, Some(&mut taker)));
    }
    (taker.0, payloads)
}

#[test]
fn a_header_is_met_once_wherever_writes_are_cut() {
    // That nothing is known is no reason not to look.
    for m in [matcher(&[]), matcher(&[super::TOKEN])] {
        let request = format!(
            "GET /v1/me HTTP/1.1\r\nHost: api.corp.example\r\nX-Vault-Token: {TOKEN}\r\nCookie: s={TOKEN}\r\n\r\n"
        );
        for cut in 1..request.len() {
            let (a, b) = request.as_bytes().split_at(cut);
            let (asked, payloads) = met(&m, &[a, b]);
            assert_eq!(asked, [("x-vault-token", TOKEN.to_owned())], "{cut}");
            let hits: Vec<_> = payloads
                .iter()
                .flat_map(|p| p.hits.iter().map(move |hit| (p, hit)))
                .collect();
            assert_eq!(hits.len(), 1, "{cut}");
            let (payload, hit) = hits[0];
            assert!(hit.secret && !hit.body);
            let request = &payload.requests[usize::from(hit.request.unwrap())];
            assert_eq!(
                (&request.host[..], &request.path[..]),
                ("api.corp.example", "/v1/me"),
                "{cut}"
            );
        }
    }
}

#[test]
fn only_requests_hold_them_and_only_in_their_heads() {
    let m = matcher(&[super::TOKEN]);
    for text in [
        format!("HTTP/1.1 200 OK\r\nX-Auth-Token: {TOKEN}\r\nContent-Length: 0\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        ),
        format!("Authorization: Bearer {TOKEN}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nX-CSRF-Token: {TOKEN}\r\nX-Request-Id: {TOKEN}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nAuthorization: Digest username=\"{TOKEN}\"\r\n\r\n"),
        // A head that does not end.
        format!("GET / HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nHost: a\r\n"),
    ] {
        assert_eq!(met(&m, &[text.as_bytes()]).0, [], "{text}");
    }
    let two = format!("GET / HTTP/1.1\r\nX-Api-Key: {TOKEN}\r\n\r\n").repeat(2);
    assert_eq!(met(&m, &[two.as_bytes()]).0.len(), 2);
    let upgrade =
        format!("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(met(&m, &[upgrade.as_bytes()]).0.len(), 1);
}

/// A literal of HPACK with incremental indexing and a new name.
fn field(name: &str, value: &str, coded: bool) -> Vec<u8> {
    let mut out = vec![0x40];
    text(&mut out, name.as_bytes(), coded);
    text(&mut out, value.as_bytes(), coded);
    out
}

#[test]
fn fields_of_http_2_are_met_and_so_are_references_to_them() {
    let m = matcher(&[]);
    let start = [HTTP2_PREFACE, &frame(4, 0, 0, &[])].concat();
    for coded in [false, true] {
        for name in ["authorization", "x-vault-token"] {
            let value = format!("Bearer {TOKEN}");
            // `:method: GET`, `:path: /`.
            let head = [&[0x82, 0x84][..], &field(name, &value, coded)].concat();
            // The newest entry of the table, 62.
            let again = [0x82, 0x84, 0x80 | 62];
            let other = [&[0x82, 0x84, 0x40 | 62][..], &{
                let mut out = Vec::new();
                text(&mut out, format!("Bearer {TOKEN}x").as_bytes(), coded);
                out
            }]
            .concat();
            let first = [&start[..], &frame(1, 5, 1, &head)].concat();
            let (asked, payloads) = met(
                &m,
                &[&first, &frame(1, 5, 3, &again), &frame(1, 5, 5, &other)],
            );
            let values: Vec<&str> = asked.iter().map(|(_, value)| value.as_str()).collect();
            assert_eq!(values, [value.clone(), format!("{value}x")], "{name}");
            assert!(asked.iter().all(|(header, _)| *header == name));
            let found: Vec<usize> = payloads.iter().map(|p| p.hits.len()).collect();
            assert_eq!(found, [1, 1, 1], "{name}");
            assert_eq!(payloads[1].hits[0].transform, Transform::Hpack);
            // `:status: 200` answers.
            let answer = [&[0x88][..], &field(name, &value, coded)].concat();
            let (asked, _) = met(&m, &[&[&start[..], &frame(1, 5, 1, &answer)].concat()]);
            assert_eq!(asked, [], "{name}");
        }
    }
}

/// A head that comes in drops does not keep what it has begun with.
#[test]
fn a_head_that_does_not_end_keeps_no_credential() {
    let m = matcher(&[]);
    let mut streams = Streams::new();
    let key = connection();
    let mut taker = Taker::default();
    let begin = format!("GET /v1/me HTTP/1.1\r\nX-Vault-Token: {TOKEN}\r\n");
    let drops = ["a", "b", "c", "\r\n\r\n"];
    let writes = std::iter::once(begin.as_str()).chain(drops);
    for (n, text) in (0..).zip(writes) {
        let boot_ns = 1 + n * 900_000_000;
        streams.expire(boot_ns);
        let chunk = Chunk::whole(boot_ns, text.as_bytes());
        streams.on_payload_with(&m, key, chunk, Some(&mut taker));
    }
    assert_eq!(taker.0, [], "it was kept for over two seconds");
}

/// Many beginnings of what could be packed, none of which leads anywhere.
#[test]
fn something_packed_is_found_behind_many_that_are_not() {
    let m = matcher(&[super::TOKEN]);
    let packed = super::base64(&super::zlib(
        &[b"token=", super::TOKEN, b" and more of it"].concat(),
    ));
    let packed = String::from_utf8(packed).unwrap();
    let text = format!("{} {packed}\n", "eJwAAAAAAAAAAAAAAAAA ".repeat(1_000));
    let (_, payloads) = met(&m, &[text.as_bytes()]);
    assert!(payloads.iter().any(|p| !p.hits.is_empty()));
}
