//! Frames as browsers and servers write them.

use crate::tests::{TOKEN, base64, found_in, matcher, payloads, reported};
use proptest::prelude::*;

const UPGRADE: &[u8] = b"GET /chat/12345 HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

#[test]
fn masked_messages_in_fragments_at_every_split() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let stream = [
        UPGRADE.to_vec(),
        frame(0x01, MASK, &[b"token ", a].concat()),
        frame(0x89, Some([9, 8, 7, 6]), b"ping"),
        frame(0x80, Some([1, 2, 3, 4]), &[b, b" end"].concat()),
        frame(0x82, MASK, &base64(TOKEN)),
    ]
    .concat();
    for cut in 0..stream.len() {
        let (one, two) = stream.split_at(cut);
        let mut found = found_in(&m, &[one, two]);
        found.sort();
        assert_eq!(
            found,
            [("base64".to_owned(), 1), ("raw".to_owned(), 1)],
            "cut at {cut}"
        );
    }
    assert_eq!(found_in(&m, &stream.chunks(1).collect::<Vec<_>>()).len(), 2);
}

#[test]
fn compressed_messages_share_a_window() {
    let m = matcher(&[TOKEN]);
    // Made by a sender that keeps its window: the second message is little but a reference to the first.
    use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
    let mut compressor = CompressorOxide::new(6 | (15 << 12));
    compressor.set_format_and_level(miniz_oxide::DataFormat::Raw, 6);
    let mut message = |text: &[u8]| {
        let mut out = Vec::new();
        let (_, used) = compress_to_output(&mut compressor, text, TDEFLFlush::Sync, |part| {
            out.extend_from_slice(part);
            true
        });
        assert_eq!(used, text.len());
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        out
    };
    let text = [b"{\"auth\":\"", TOKEN, b"\"}"].concat();
    let (one, two) = (message(&text), message(&text));
    assert!(two.len() < one.len() / 2);
    let stream = [
        UPGRADE.to_vec(),
        frame(0xc1, MASK, &one),
        frame(0xc1, MASK, &two),
    ]
    .concat();
    for cut in (0..stream.len()).step_by(3) {
        let (a, b) = stream.split_at(cut);
        let total: u32 = found_in(&m, &[a, b])
            .iter()
            .map(|(t, n)| {
                assert_eq!(t, "deflate");
                n
            })
            .sum();
        assert_eq!(total, 2, "cut at {cut}");
    }
}

#[test]
fn what_a_server_sends_is_put_together_too() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(17);
    let stream = [
        SWITCHING.to_vec(),
        frame(0x01, None, a),
        frame(0x80, None, b),
    ]
    .concat();
    assert_eq!(found_in(&m, &[&stream]), [("raw".to_owned(), 1)]);
}

#[test]
fn facts_of_the_connection_come_with_every_write() {
    let m = matcher(&[TOKEN]);
    let write = frame(0x81, MASK, TOKEN);
    let all = payloads(&m, &[(UPGRADE, 0), (&write, 0)]);
    let request = &all[1].requests[0];
    assert_eq!(
        (&request.protocol[..], &request.host[..], &request.path[..]),
        ("websocket", "ws.example", "/chat/{id}")
    );
    assert_eq!(request.bytes, write.len() as u64);
    assert_eq!(all[1].hits[0].request, Some(0));
    assert_eq!(all[1].hosts[0].name, "ws.example");
}

#[test]
fn what_is_no_frame_ends_the_framing_but_not_the_looking() {
    let m = matcher(&[TOKEN]);
    // An upgrade that was refused: the next request follows.
    let next = [b"POST / HTTP/1.1\r\nHost: two.example\r\n\r\n", TOKEN].concat();
    let all = payloads(&m, &[(UPGRADE, 0), (&next, 0)]);
    assert_eq!(
        (all[1].hits.len(), &all[1].hosts[0].name[..]),
        (1, "two.example")
    );
    // A hole that ends inside a frame, and one that does not.
    let long = frame(0x81, MASK, &[&[b'.'; 300][..], TOKEN, b"...."].concat());
    let rest = frame(0x81, MASK, TOKEN);
    let tail = [&long[long.len() - 44..], &rest].concat();
    let missing = (long.len() - 44 - 100) as u64;
    let start = [UPGRADE, &long[..100]].concat();
    let all = payloads(&m, &[(&start, missing), (&tail, 0)]);
    assert_eq!(all[1].hits[0].occurrences, 2);
    let all = payloads(&m, &[(&start, missing + 44), (&rest, 0), (TOKEN, 0)]);
    assert_eq!(all[1].hits.len(), 0);
    assert_eq!(all[2].hits.len(), 1);
    // Messages are kept apart.
    let (a, b) = TOKEN.split_at(17);
    let apart = [UPGRADE.to_vec(), frame(0x81, MASK, a), frame(0x81, MASK, b)].concat();
    assert_eq!(reported(&m, &apart).hits, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_frames(junk in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..40) {
        let m = matcher(&[TOKEN]);
        let stream = [UPGRADE.to_vec(), frame(0xc1, MASK, b"x"), junk].concat();
        found_in(&m, &stream.chunks(size).collect::<Vec<_>>());
    }
}
