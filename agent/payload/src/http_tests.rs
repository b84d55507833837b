//! Heads in one piece and in many.

use super::*;
use crate::sink::{Credit, Sink};
use crate::talk::Talk;
use crate::tests::{KEY, TOKEN, base64, found_in, matcher, payloads, reported};

/// The names each write is said to go to.
struct Follow(Talk);

impl Follow {
    fn push(&mut self, bytes: &[u8]) -> Vec<HostName> {
        let matcher = Matcher::new(&KEY);
        let mut sink = Sink::new(&matcher, Credit::default());
        self.0.push(bytes, true, bytes.len() as u64, &mut sink);
        sink.hosts
    }
}

/// All names of all parts, each once.
fn names(parts: &[&[u8]]) -> Vec<(String, String)> {
    let mut head = Follow(Talk::default());
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
    let mut head = Follow(Talk::default());
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
}

#[test]
fn endless_lines_and_heads_are_bounded() {
    let mut head = Http::default();
    let m = Matcher::new(&KEY);
    let push = |head: &mut Http, mut bytes: &[u8]| {
        while !bytes.is_empty() {
            let (used, _) = head.step(bytes, &m);
            bytes = &bytes[used..];
        }
    };
    push(&mut head, b"GET / HTTP/1.1\r\nX: ");
    for _ in 0..100 {
        push(&mut head, &[b'a'; 1000]);
        assert!(head.line.capacity() <= 4 * MAX_LINE);
    }
    assert!(head.state == ParseState::Outside);
    // A long header line is skipped, the next one is read.
    let mut head = Follow(Talk::default());
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

const CHUNKED: &[u8] =
    b"POST /up HTTP/1.1\r\nHost: c.example\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A body in chunks of the given sizes, the rest in the last one.
fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = CHUNKED.to_vec();
    let mut rest = body;
    for &size in sizes.iter().chain([&usize::MAX]) {
        let (now, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        if !now.is_empty() {
            out.extend_from_slice(format!("{:x};ext=1\r\n", now.len()).as_bytes());
            out.extend_from_slice(now);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
    out
}

#[test]
fn a_secret_in_two_chunks_is_found_wherever_they_are_cut() {
    let m = matcher(&[TOKEN]);
    for secret in [TOKEN.to_vec(), base64(TOKEN)] {
        let body = [b"field=", &secret[..], b"; more"].concat();
        for cut in 1..body.len() {
            let stream = chunked(&body, &[cut]);
            assert_eq!(found_in(&m, &[&stream]).len(), 1, "chunks cut at {cut}");
        }
        // Every byte a chunk, every byte a write.
        let stream = chunked(&body, &[1; 80]);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        let hits = found_in(&m, &bytes);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].1, 1, "counted once");
    }
}

#[test]
fn chunked_secrets_at_every_split_of_writes() {
    let m = matcher(&[TOKEN]);
    let stream = chunked(&[b"field=", TOKEN, b"; more"].concat(), &[20, 3]);
    for cut in 0..stream.len() {
        let (a, b) = stream.split_at(cut);
        assert_eq!(
            found_in(&m, &[a, b]),
            [("raw".to_owned(), 1)],
            "cut at {cut}"
        );
    }
}

#[test]
fn what_is_between_chunks_joins_nothing() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(20);
    // Two halves in the bodies of two requests.
    let two = [chunked(a, &[]), chunked(b, &[])].concat();
    assert_eq!(found_in(&m, &[&two]), []);
    // A byte of framing too many: no chunk, and so no join.
    let broken = [CHUNKED, b"14\r\n", a, b"x\r\n14\r\n", b].concat();
    assert_eq!(found_in(&m, &[&broken]), []);
    // What follows broken framing is inspected all the same.
    let after = [&broken[..], b"\r\n", TOKEN].concat();
    assert_eq!(found_in(&m, &[&after]).len(), 1);
}

#[test]
fn a_hole_in_a_chunk_is_counted_and_does_not_join() {
    let m = matcher(&[TOKEN]);
    let stream = chunked(&[&[b'.'; 500], TOKEN, &[b'.'; 500]].concat(), &[]);
    let cut = CHUNKED.len() + 100;
    // The rest of the write up to the secret was not captured; the next write begins inside the same chunk.
    let from = CHUNKED.len() + 450;
    let all = payloads(
        &m,
        &[(&stream[..cut], (from - cut) as u64), (&stream[from..], 0)],
    );
    assert!(all[0].truncated && all[0].hits.is_empty());
    assert_eq!(all[1].hits.len(), 1);
    assert_eq!(
        all[1].hosts[0].name, "c.example",
        "it is still that request"
    );
}

#[test]
fn facts_of_requests() {
    let m = matcher(&[TOKEN]);
    let one = [
        b"POST /repos/octo/hello/issues?t=1 HTTP/1.1\r\nHost: api.github.com\r\nContent-Type: application/json; charset=x\r\nContent-Length: 40\r\n\r\n",
        TOKEN,
    ]
    .concat();
    let two = b"GET /users/12345 HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let both = [&one[..], two].concat();
    let payload = reported(&m, &both);
    let [a, b] = &payload.requests[..] else {
        panic!("{:?}", payload.requests)
    };
    assert_eq!(
        (&a.method[..], &a.path[..], &a.host[..], &a.content_type[..]),
        (
            "POST",
            "/repos/octo/hello/issues",
            "api.github.com",
            "application/json"
        )
    );
    assert_eq!((a.content_length, a.bytes), (Some(40), one.len() as u64));
    assert_eq!(a.target.as_ref().unwrap().name, "octo/hello");
    assert_eq!((&b.method[..], &b.path[..]), ("GET", "/users/{id}"));
    assert_eq!(b.bytes, two.len() as u64);
    assert_eq!(payload.hits[0].request, Some(0));
    // An answer is no request: it has a class, and asks for nothing.
    let answer = [
        &b"HTTP/1.1 201 Created\r\nContent-Length: 40\r\n\r\n"[..],
        TOKEN,
    ]
    .concat();
    let payload = reported(&m, &answer);
    let [answered] = &payload.requests[..] else {
        panic!("{:?}", payload.requests)
    };
    assert_eq!((answered.status_class, &answered.method[..]), (2, ""));
    assert_eq!((&answered.path[..], &answered.host[..]), ("", ""));
    assert_eq!(payload.hits[0].request, Some(0));
}

#[test]
fn the_body_of_an_encoding_that_must_be_named_is_decoded() {
    let m = matcher(&[TOKEN]);
    for (name, body) in [
        ("deflate", crate::tests::zlib(TOKEN)),
        ("br", crate::tests::brotli()),
    ] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: {name}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = [head.as_bytes(), &body].concat();
        for cut in head.len()..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(
                found_in(&m, &[a, b]),
                [(name.to_owned(), 1)],
                "cut at {cut}"
            );
        }
    }
}

/// A URL is told from the rest of a head, by whatever writes it comes.
#[test]
fn whether_a_secret_was_in_the_url() {
    let m = matcher(&[TOKEN]);
    let request = |path: &[u8], header: &[u8]| {
        let (get, host) = (&b"GET /p.gif?d="[..], &b" HTTP/1.1\r\nHost: x\r\nX-A: "[..]);
        [get, path, host, header, b"\r\n\r\n"].concat()
    };
    let all = base64(&[b"A=b\n", TOKEN, b"\nC=d and something more"].concat());
    for (stream, expected) in [
        (request(TOKEN, b"1"), true),
        (request(&all, b"1"), true),
        (request(TOKEN, TOKEN), true),
        (request(b"1", TOKEN), false),
        // The request behind another one.
        ([request(b"1", b"1"), request(TOKEN, b"1")].concat(), true),
        (TOKEN.to_vec(), false),
    ] {
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            let payloads = payloads(&m, &[(a, 0), (b, 0)]);
            let hits: Vec<&keytrail_model::Hit> = payloads.iter().flat_map(|p| &p.hits).collect();
            assert!(!hits.is_empty(), "cut at {cut}");
            assert_eq!(
                hits.iter().any(|hit| hit.target),
                expected,
                "cut at {cut}: {}",
                String::from_utf8_lossy(&stream)
            );
        }
    }
}

/// Head or body, by whatever writes it comes.
#[test]
fn whether_a_secret_was_in_the_body() {
    let m = matcher(&[TOKEN]);
    let request = |head: &[u8], body: &[u8]| {
        let begin = b"POST / HTTP/1.1\r\nHost: x\r\nX-A: ";
        let length = format!("\r\nContent-Length: {}\r\n\r\n", body.len());
        [&begin[..], head, length.as_bytes(), body].concat()
    };
    let form = [b"a=", TOKEN, b"&b=c"].concat();
    let coded = base64(&[b"a long text in which it stands: ", TOKEN, b", and more"].concat());
    let packed = crate::tests::gzip(TOKEN);
    let next = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (stream, expected) in [
        (request(TOKEN, b"a=b"), false),
        (request(b"1", &form), true),
        (request(TOKEN, &form), true),
        (request(b"1", &coded), true),
        (request(b"1", &packed), true),
        (request(b"1", &crate::tests::zlib(&form)), true),
        // Behind another one, and in base64 in a text.
        (
            [
                request(b"1", b"abc"),
                request(b"1", &crate::tests::zlib(&form)),
            ]
            .concat(),
            true,
        ),
        (
            request(
                b"1",
                &[
                    b"{\"d\":\"",
                    &base64(&crate::tests::zlib(&form))[..],
                    b"\"}",
                ]
                .concat(),
            ),
            true,
        ),
        (chunked(&form, &[7, 20]), true),
        ([request(b"1", &form), next.to_vec()].concat(), true),
        // The one after a body.
        ([request(b"1", b"abc"), request(TOKEN, b"")].concat(), false),
        (form.clone(), false),
    ] {
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            let payloads = payloads(&m, &[(a, 0), (b, 0)]);
            let hits: Vec<&keytrail_model::Hit> = payloads.iter().flat_map(|p| &p.hits).collect();
            assert!(!hits.is_empty(), "cut at {cut}");
            assert_eq!(
                hits.iter().any(|hit| hit.body),
                expected,
                "cut at {cut}: {}",
                String::from_utf8_lossy(&stream)
            );
        }
    }
}
