//! Heads in one piece and in many.

use super::*;

/// All names of all parts, each once.
fn names(parts: &[&[u8]]) -> Vec<(String, String)> {
    let mut head = RequestHead::new();
    let mut out = Vec::new();
    for host in parts.iter().flat_map(|part| head.push(part)) {
        if !out.contains(&(host.name.clone(), host.provenance.clone())) {
            out.push((host.name, host.provenance));
        }
    }
    out
}

fn pair(name: &str, provenance: &str) -> (String, String) {
    (name.to_owned(), provenance.to_owned())
}

const REQUEST: &[u8] = b"POST /v1?x=1 HTTP/1.1\r\nAccept: */*\r\nhOsT:\tApi.Example.com:8443\r\nX: y\r\n\r\nHost: body.example\r\n";

#[test]
fn the_host_header_is_found_at_every_split_point() {
    for cut in 1..REQUEST.len() {
        let (a, b) = REQUEST.split_at(cut);
        assert_eq!(
            names(&[a, b]),
            [pair("api.example.com", "host_header")],
            "cut at {cut}"
        );
    }
    let single: Vec<&[u8]> = REQUEST.chunks(1).collect();
    assert_eq!(names(&single), [pair("api.example.com", "host_header")]);
}

#[test]
fn targets_name_hosts_too() {
    assert_eq!(
        names(&[b"CONNECT db.example.com:443 HTTP/1.1\r\nHost: db.example.com:443\r\n\r\n"]),
        [
            pair("db.example.com", "connect_target"),
            pair("db.example.com", "host_header")
        ]
    );
    assert_eq!(
        names(&[b"GET HTTP://user:pw@One.example:80/x HTTP/1.1\r\nHost: two.example\r\n\r\n"]),
        [
            pair("one.example", "request_target"),
            pair("two.example", "host_header")
        ]
    );
}

#[test]
fn a_second_request_on_the_connection_is_seen() {
    let one = b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n";
    let two = b"GET / HTTP/1.1\r\nHost: two.example\r\n\r\n";
    assert_eq!(
        names(&[one, b"some bytes", two]),
        [
            pair("one.example", "host_header"),
            pair("two.example", "host_header")
        ]
    );
}

#[test]
fn every_write_of_a_request_belongs_to_its_host_and_no_other_does() {
    let mut head = RequestHead::new();
    let mut push = |bytes: &[u8]| {
        head.push(bytes)
            .into_iter()
            .map(|h| h.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        push(b"POST / HTTP/1.1\r\nHost: one.example\r\n"),
        ["one.example"]
    );
    assert_eq!(
        push(b"Authorization: Bearer x\r\nContent-Length: 10\r\n\r\n01234"),
        ["one.example"]
    );
    assert_eq!(push(b"56789"), ["one.example"]);
    assert_eq!(push(b"after"), [""; 0]);
    assert_eq!(
        push(b"PUT / HTTP/1.1\r\nHost: two.example\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"),
        ["two.example"]
    );
    assert_eq!(push(b"5\r\nGET /\r\n"), ["two.example"]);
    assert_eq!(push(b"0\r\n\r\n"), ["two.example"]);
    assert_eq!(push(b"GET / HTTP/1.1\r\n\r\n"), [""; 0]);
    // Two requests in one write; a chunked body whose end was not seen does not swallow the next request.
    assert_eq!(
        push(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nxyzPOST / HTTP/1.1\r\nHost: b.example\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ["a.example", "b.example"]
    );
    assert_eq!(
        push(b"GET / HTTP/1.1\r\nHost: c.example\r\n\r\n"),
        ["c.example"]
    );
}

#[test]
fn what_is_no_request_names_nothing() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nHost: x.example\r\n\r\n"[..],
        b"GET / HTTP/3\r\nHost: x.example\r\n\r\n",
        b"GET /\r\nHost: x.example\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\nHost: \x1b[2J\r\nXHost: x.example\r\n Host: folded.example\r\n\r\n",
        HTTP2_PREFACE,
        b"\x16\x03\x01",
        b"",
    ] {
        assert_eq!(names(&[bytes]), [], "{:?}", String::from_utf8_lossy(bytes));
    }
    assert!(looks_like_http2(HTTP2_PREFACE));
}

#[test]
fn endless_lines_and_heads_are_bounded() {
    let mut head = RequestHead::new();
    head.push(b"GET / HTTP/1.1\r\nX: ");
    for _ in 0..100 {
        assert_eq!(head.push(&[b'a'; 1000]), []);
        assert!(head.line.capacity() <= 4 * MAX_LINE);
    }
    assert!(head.place == Place::Outside);
    // A long header line is skipped, the next one is read.
    let mut head = RequestHead::new();
    head.push(b"GET / HTTP/1.1\r\nX: ");
    head.push(&[b'a'; 2 * MAX_LINE]);
    assert_eq!(head.push(b"\r\nHost: x.example\r\n")[0].name, "x.example");
}

#[test]
fn agrees_with_httparse_on_complete_heads() {
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut request = httparse::Request::new(&mut headers);
    assert!(request.parse(REQUEST).is_ok_and(|s| s.is_complete()));
    let host = request
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("host"))
        .map(|h| h.value);
    assert_eq!(
        host.and_then(host_name),
        names(&[REQUEST]).first().map(|(name, _)| name.clone())
    );
}
