//! Connections of HTTP/2 as clients write them.

use super::frame::{self, begins_with_frames};
use super::huffman::tests::encode as huffman;
use crate::http::HTTP2_PREFACE;
use crate::tests::{
    AWS, TOKEN, base64, credential, found_in, gzip, matcher, noise, payloads, reported,
};
use crate::{Chunk, Layer, StreamKey, Streams};
use keytrail_model::{Payload, Pid};
use proptest::prelude::*;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

fn length(out: &mut Vec<u8>, prefix: u32, first: u8, value: usize) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        return out.push(first | value as u8);
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn text(out: &mut Vec<u8>, text: &[u8], coded: bool) {
    if coded {
        let text = huffman(text);
        length(out, 7, 0x80, text.len());
        out.extend(text);
    } else {
        length(out, 7, 0, text.len());
        out.extend_from_slice(text);
    }
}

/// A literal with incremental indexing; a name of the static table is referred to.
fn literal(name: &str, value: &[u8], coded: bool) -> Vec<u8> {
    let mut out = Vec::new();
    match super::fixed::FIXED.iter().position(|(n, _)| *n == name) {
        Some(at) => length(&mut out, 6, 0x40, at + 1),
        None => {
            out.push(0x40);
            text(&mut out, name.as_bytes(), coded);
        }
    }
    text(&mut out, value, coded);
    out
}

fn index(value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    length(&mut out, 7, 0x80, value);
    out
}

/// The first request of a connection: what was inserted is, newest first, authorization (62), path, authority.
fn head(secret: &[u8], coded: bool) -> Vec<u8> {
    [
        index(3),
        index(7),
        literal(":authority", b"api.github.com", coded),
        literal(":path", b"/repos/octo/hello/contents?x=1", coded),
        literal("authorization", secret, coded),
    ]
    .concat()
}

/// The same request again.
fn again() -> Vec<u8> {
    [index(3), index(7), index(64), index(63), index(62)].concat()
}

fn start() -> Vec<u8> {
    [
        HTTP2_PREFACE,
        &frame(4, 0, 0, &[0, 2, 0, 0, 0, 0]),
        &frame(8, 0, 0, &[0, 1, 0, 0]),
    ]
    .concat()
}

fn bearer(token: &[u8]) -> Vec<u8> {
    [b"Bearer ", token].concat()
}

/// Half a secret in a message that nobody goes on with, on a connection that is never idle.
#[test]
fn what_a_stalled_message_left_goes_while_others_talk() {
    const SECOND: u64 = 1_000_000_000;
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let key = StreamKey {
        pid: Pid { tgid: 1, start: 2 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    };
    for (pause, expected) in [(SECOND / 100 * 15, 1), (SECOND / 4, 0)] {
        let mut streams = Streams::new();
        let mut say = |n: u64, bytes: &[u8]| {
            let chunk = Chunk::whole(5 * SECOND + n * pause, bytes);
            streams.on_payload(&m, key, chunk).hits.len()
        };
        let request = frame(1, 4, 1, &head(b"none", false));
        say(0, &[start(), request, frame(0, 0, 1, a)].concat());
        for n in 1..=5 {
            say(n, &frame(6, 0, 0, &[0; 8]));
        }
        assert_eq!(say(6, &frame(0, 1, 1, b)), expected, "{pause} ns apart");
    }
}

#[test]
fn plain_and_huffman_literals_and_references_to_them() {
    let m = matcher(&[TOKEN]);
    for (coded, name) in [(false, "raw"), (true, "huffman")] {
        let one = [start(), frame(1, 5, 1, &head(&bearer(TOKEN), coded))].concat();
        let two = frame(1, 5, 3, &again());
        let all = payloads(&m, &[(&one, 0), (&two, 0), (&two, 0)]);
        let transforms: Vec<Vec<&str>> = all
            .iter()
            .map(|p| p.hits.iter().map(|h| h.transform.word()).collect())
            .collect();
        assert_eq!(transforms, [[name], ["hpack"], ["hpack"]]);
        for payload in &all {
            assert_eq!(payload.hits[0].occurrences, 1);
            assert_eq!(payload.hits[0].request, Some(0));
            let request = &payload.requests[0];
            assert_eq!(
                (
                    &request.protocol[..],
                    &request.method[..],
                    &request.host[..],
                    &request.path[..]
                ),
                ("h2", "POST", "api.github.com", "/repos/octo/hello/contents")
            );
            assert_eq!(request.target.as_ref().unwrap().name, "octo/hello");
            assert_eq!(payload.hosts[0].provenance, "authority");
            assert!(payload.undecoded.is_empty());
        }
    }
}

#[test]
fn basic_credentials_within_huffman() {
    let m = matcher(&[TOKEN]);
    let value = [b"Basic ", &base64(&[b"user:", TOKEN].concat())[..]].concat();
    let one = [start(), frame(1, 5, 1, &head(&value, true))].concat();
    assert_eq!(found_in(&m, &[&one]), [("huffman+base64".to_owned(), 1)]);
}

#[test]
fn at_every_split_of_writes() {
    let m = matcher(&[TOKEN, AWS]);
    let block = head(&bearer(TOKEN), true);
    let padded = [&[4][..], &[0, 0, 0, 0, 9], &block[..20], &[0; 4]].concat();
    let (a, b) = AWS.split_at(13);
    let stream = [
        start(),
        frame(1, 0x28, 1, &padded),
        frame(9, 0, 1, &block[20..33]),
        frame(9, 4, 1, &block[33..]),
        frame(0, 8, 1, &[&[3][..], b"key=", a, &[0; 3]].concat()),
        frame(6, 0, 0, &[0; 8]),
        frame(0, 0, 1, b),
        frame(0, 1, 1, b" end"),
        frame(1, 5, 3, &again()),
    ]
    .concat();
    let check = |parts: &[&[u8]]| {
        let mut found = found_in(&m, parts);
        found.sort();
        let one = |t: &str| (t.to_owned(), 1);
        assert_eq!(
            found,
            [one("hpack"), one("huffman"), one("raw")],
            "{}",
            parts[0].len()
        );
    };
    for cut in 1..stream.len() {
        let (a, b) = stream.split_at(cut);
        check(&[a, b]);
    }
    check(&stream.chunks(1).collect::<Vec<_>>());
}

#[test]
fn streams_are_kept_apart() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(20);
    let heads = [frame(1, 4, 1, &head(b"x", true)), frame(1, 4, 3, &again())].concat();
    let mixed = [start(), heads.clone(), frame(0, 0, 1, a), frame(0, 0, 3, b)].concat();
    assert_eq!(found_in(&m, &[&mixed]), []);
    // Interleaved, each in order.
    let both = [
        start(),
        heads,
        frame(0, 0, 1, a),
        frame(0, 0, 3, b"something else"),
        frame(0, 1, 1, b),
    ]
    .concat();
    let payload = reported(&m, &both);
    assert_eq!(payload.hits.len(), 1);
    assert_eq!(payload.requests.len(), 2);
    assert_eq!(payload.hits[0].request, Some(0));
    // The end of a stream is the end of its bytes.
    let ended = [start(), frame(0, 1, 1, a), frame(0, 0, 1, b)].concat();
    assert_eq!(found_in(&m, &[&ended]), []);
    // Padding is not between two frames' bytes, nor a part of them.
    let padding = [start(), frame(0, 8, 1, &[&[20][..], a, b].concat())].concat();
    assert_eq!(found_in(&m, &[&padding]), []);
}

#[test]
fn joining_in_the_middle_skips_what_cannot_be_resolved() {
    let m = matcher(&[TOKEN]);
    // Nothing of the connection was seen before: a reference, then a literal, then a reference to that.
    let one = frame(
        1,
        5,
        7,
        &[again(), literal("x-api-key", TOKEN, true)].concat(),
    );
    let two = frame(1, 5, 9, &[index(3), index(62), index(65)].concat());
    let all = payloads(&m, &[(&one, 0), (&two, 0)]);
    assert_eq!(all[0].hits[0].transform.word(), "huffman");
    assert_eq!(all[0].undecoded.headers, 3);
    assert_eq!(all[1].hits[0].transform.word(), "hpack");
    assert_eq!(all[1].undecoded.headers, 1);
    assert_eq!(all[1].requests[0].method, "POST");
}

/// After a hole in what is seen no reference to what is older may be resolved: it could be another entry.
#[test]
fn after_a_lost_header_block_older_references_are_unknown() {
    let m = matcher(&[TOKEN]);
    let one = [start(), frame(1, 5, 1, &head(&bearer(TOKEN), true))].concat();
    // This block inserts an entry, and its end was not seen: index 62 is another one from now on.
    let lost = frame(
        1,
        5,
        3,
        &[again(), literal("x-new", b"some value", true)].concat(),
    );
    let cut = lost.len() - 6;
    let two = frame(1, 5, 5, &[index(3), index(62)].concat());
    let all = payloads(&m, &[(&one, 0), (&lost[..cut], 6), (&two, 0)]);
    assert_eq!(all[0].hits.len(), 1);
    assert!(all[1].truncated);
    assert_eq!(all[2].hits, []);
    assert_eq!(all[2].undecoded.headers, 1);
    // The next write begins with a frame, and what it inserts is known.
    let three = frame(1, 5, 7, &head(&bearer(TOKEN), true));
    let all = payloads(&m, &[(&one, 0), (&lost[..cut], 6), (&three, 0), (&two, 0)]);
    assert_eq!(all[2].hits.len(), 1);
    assert_eq!(all[3].hits.len(), 1);
}

#[test]
fn a_hole_within_a_data_frame_keeps_the_framing() {
    let m = matcher(&[TOKEN]);
    let body = [&noise(1, 4000)[..], TOKEN, &noise(2, 100)].concat();
    let one = [
        start(),
        frame(1, 4, 1, &head(&bearer(TOKEN), true)),
        frame(0, 0, 1, &body),
    ]
    .concat();
    let cut = one.len() - 3000;
    let rest = [frame(0, 1, 1, TOKEN), frame(1, 5, 3, &again())].concat();
    // The next write begins behind a hole that ends inside the frame.
    let within = [&one[one.len() - 200..], &rest].concat();
    let all = payloads(&m, &[(&one[..cut], 2800), (&within, 0)]);
    let names = |p: &Payload| {
        let mut all: Vec<_> = p.hits.iter().map(|h| h.transform.word()).collect();
        all.sort();
        all
    };
    assert_eq!(names(&all[0]), ["huffman"]);
    assert_eq!(names(&all[1]), ["hpack", "raw"]);
    let raw = all[1]
        .hits
        .iter()
        .find(|h| h.transform.word() == "raw")
        .unwrap();
    assert_eq!(raw.occurrences, 2);
    assert!(all[1].undecoded.is_empty());
}

#[test]
fn framing_that_is_lost_is_found_again() {
    let m = matcher(&[TOKEN]);
    let good = frame(1, 5, 1, &head(&bearer(TOKEN), true));
    let bad = [&[0xff; 9][..], TOKEN].concat();
    let all = payloads(&m, &[(&start(), 0), (&bad, 0), (TOKEN, 0), (&good, 0)]);
    assert_eq!(all[1].hits[0].transform.word(), "raw");
    assert_eq!(all[1].undecoded.lost, 1);
    assert_eq!(all[2].hits[0].transform.word(), "raw");
    assert_eq!(all[3].hits[0].transform.word(), "huffman");
}

#[test]
fn a_table_is_no_larger_than_the_encoder_says() {
    let m = matcher(&[TOKEN]);
    let one = [start(), frame(1, 5, 1, &head(&bearer(TOKEN), true))].concat();
    // Size 0, then the usual one again: all entries are gone.
    let block = [&[0x20][..], &[0x3f, 0xe1, 0x1f], &again()].concat();
    let all = payloads(&m, &[(&one, 0), (&frame(1, 5, 3, &block), 0)]);
    assert_eq!(all[1].hits, []);
    assert_eq!(all[1].undecoded.headers, 3);
    // An entry larger than the table empties it.
    let large = literal("x-large", &[b'a'; 5000], true);
    let two = frame(1, 5, 3, &large);
    let all = payloads(
        &m,
        &[(&one, 0), (&two, 0), (&frame(1, 5, 5, &index(62)), 0)],
    );
    assert_eq!(all[2].hits, []);
}

#[test]
fn grpc_metadata_and_messages() {
    let m = matcher(&[TOKEN, AWS]);
    let block = [
        index(3),
        literal(":path", b"/pkg.Service/Method", true),
        literal(":authority", b"grpc.example:443", true),
        literal("content-type", b"application/grpc+proto", true),
        literal("grpc-encoding", b"gzip", true),
        literal("token-bin", &base64(TOKEN), true),
    ]
    .concat();
    let packed = gzip(&[&noise(4, 300)[..], AWS, &noise(5, 300)].concat());
    let message = [&[1][..], &(packed.len() as u32).to_be_bytes(), &packed].concat();
    let (a, b) = message.split_at(100);
    let stream = [
        start(),
        frame(1, 4, 1, &block),
        frame(0, 0, 1, a),
        frame(0, 0, 1, b),
        frame(0, 1, 1, &message),
    ]
    .concat();
    let payload = reported(&m, &stream);
    let found: Vec<_> = payload
        .hits
        .iter()
        .map(|h| (crate::tests::spelling(h), h.occurrences))
        .collect();
    assert_eq!(
        found,
        [("huffman+base64".to_owned(), 1), ("gzip".to_owned(), 2)]
    );
    let request = &payload.requests[0];
    assert_eq!(
        (&request.protocol[..], &request.path[..], &request.host[..]),
        ("grpc", "/pkg.Service/Method", "grpc.example")
    );
}

#[test]
fn no_value_stays_in_the_table() {
    let m = matcher(&[TOKEN]);
    let one = [start(), frame(1, 5, 1, &head(&bearer(TOKEN), true))].concat();
    let mut talk = crate::talk::Talk::default();
    let mut sink = crate::sink::Sink::new(&m, Default::default());
    talk.push(&one, true, one.len() as u64, &mut sink);
    talk.wipe();
    assert_eq!(talk.kept(), 0);
    assert!(talk.held() > 0 && talk.is_lasting());
    let mut sink = crate::sink::Sink::new(&m, Default::default());
    let two = frame(1, 5, 3, &again());
    talk.push(&two, true, two.len() as u64, &mut sink);
    assert_eq!(sink.hits.into_vec()[0].transform.word(), "hpack");
}

#[test]
fn identifiers_at_the_end_of_a_frame_wait_for_what_follows() {
    let mut m = crate::Matcher::new(&crate::tests::KEY);
    m.learn_identifier(credential("0"), "AKIAIOSFODNN7EXAMPLE");
    let part = frame(0, 0, 1, b"id AKIAIOSFODNN7EXAMPLE");
    let begin = [start(), frame(1, 4, 1, &head(b"x", true)), part].concat();
    let goes_on = |next: &[u8]| {
        let all = payloads(&m, &[(&begin, 0), (next, 0)]);
        assert!(all[0].hits[0].open);
        all[1].continues
    };
    assert!(goes_on(&frame(0, 0, 1, b"2 more")));
    assert!(!goes_on(&frame(0, 0, 1, b" and more")));
    assert!(!goes_on(&frame(0, 1, 1, b"")), "the end of the body");
    assert!(
        goes_on(&frame(0, 0, 3, b" of another stream")),
        "not known yet"
    );
    let ended = [start(), frame(0, 1, 1, b"id AKIAIOSFODNN7EXAMPLE")].concat();
    assert!(!reported(&m, &ended).hits[0].open);
}

#[test]
fn what_is_no_frame_is_not_taken_for_one() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x2f\0\x03\0\x09some kafka request",
        b"{\"a\":1}",
        b"\0\0\0\0\0\0\0\0\0",
        &[0; 100],
        b"*1\r\n$4\r\nPING\r\n",
        &frame(1, 5, 1, b"\x40\x85not huffman")[..],
        &frame(1, 5, 2, &[0x80])[..],
    ] {
        assert!(!begins_with_frames(bytes, bytes.len() as u64), "{bytes:?}");
    }
    let one = frame(1, 5, 1, &head(b"x", true));
    assert!(begins_with_frames(&one, one.len() as u64));
    assert!(!begins_with_frames(&one, one.len() as u64 + 1));
    assert_eq!(frame::HEADER, 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent after a preface: no panic, bounded memory, and a secret in clear behind it is found in the end.
    #[test]
    fn hostile_frames(junk in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..12, flags: u8, cuts in proptest::collection::vec(1usize..50, 0..20)) {
        let m = matcher(&[TOKEN]);
        let stream = [start(), frame(kind, flags, 1, &junk), junk].concat();
        let mut talk = crate::talk::Talk::default();
        let mut rest = &stream[..];
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            let mut sink = crate::sink::Sink::new(&m, Default::default());
            talk.push(now, true, now.len() as u64, &mut sink);
            prop_assert!(talk.kept() < 1 << 20);
        }
    }

    /// Any headers, in whatever coding, cut anywhere: the secret is found once, under the right name.
    #[test]
    fn any_block_any_cuts(
        fields in proptest::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}", any::<bool>()), 0..12),
        place in any::<prop::sample::Index>(),
        coded: bool,
        cut in any::<prop::sample::Index>(),
        fragment in 1usize..80,
    ) {
        let m = matcher(&[TOKEN]);
        let mut block: Vec<Vec<u8>> = fields.iter().map(|(n, v, c)| literal(n, v.as_bytes(), *c)).collect();
        block.insert(place.index(fields.len() + 1), literal("x-key", TOKEN, coded));
        let block = block.concat();
        let mut stream = start();
        let pieces: Vec<&[u8]> = block.chunks(fragment).collect();
        for (i, piece) in pieces.iter().enumerate() {
            let last = if i + 1 == pieces.len() { 4 } else { 0 };
            stream.extend(frame(if i == 0 { 1 } else { 9 }, last, 1, piece));
        }
        let (a, b) = stream.split_at(cut.index(stream.len()));
        let expected = if coded { "huffman" } else { "raw" };
        prop_assert_eq!(found_in(&m, &[a, b]), [(expected.to_owned(), 1)]);
    }
}

#[test]
fn fields_are_no_body_and_data_is() {
    let m = matcher(&[TOKEN]);
    let with = |field: &[u8], data: &[u8]| {
        let head = frame(1, 4, 1, &head(field, true));
        [start(), head, frame(0, 1, 1, data)].concat()
    };
    for (stream, expected) in [
        (with(&bearer(TOKEN), b"{}"), false),
        (with(b"none", &[b"{\"t\":\"", TOKEN, b"\"}"].concat()), true),
    ] {
        let hits = reported(&m, &stream).hits;
        assert_eq!(
            hits.iter().map(|hit| hit.body).collect::<Vec<_>>(),
            [expected]
        );
    }
}

/// A secret in the path of a request is told from one in a header, whether it is spelt out or comes by the table.
#[test]
fn a_path_is_reported_from_other_fields() {
    let m = matcher(&[TOKEN]);
    let path = literal(":path", &[b"/p?d=", TOKEN].concat(), true);
    let other = literal("authorization", &[b"token ", TOKEN].concat(), true);
    for (field, expected) in [(path, true), (other, false)] {
        // The newest entry of the table.
        let stream = [
            start(),
            frame(1, 5, 1, &field),
            frame(1, 5, 3, &[0x80 | 62]),
        ];
        let hits = reported(&m, &stream.concat()).hits;
        assert_eq!(hits.len(), 2, "{hits:?}");
        assert!(hits.iter().all(|hit| hit.target == expected), "{hits:?}");
    }
}
