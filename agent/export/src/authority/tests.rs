use super::*;

/// What grpcio 1.85.3 sends for `unix:/tmp/capdir/run/k.sock`, as captured: preface, settings, window update, headers.
const GRPCIO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00$\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x03\
\x00\x00\x00\x00\x00\x04\x00@\x00\x00\x00\x05\x00@\x00\x00\x00\x06\x00\x00@\x00\xfe\x03\x00\x00\x00\x01\x00\x00\x04\x08\
\x00\x00\x00\x00\x00\x00?\x00\x01\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x01\x00\x01\x04\x00\x00\x00\x01@\x05:path#/\
keytrail.v1.EventService/GetStatus@\n:authority\x1btmp%2Fcapdir%2Frun%2Fk.sock\x83\x86@\x0ccontent-type\x10application/\
grpc@\x02te\x08trailers@\x14grpc-accept-encoding\x17identity, deflate, gzip@\x0cgrpc-timeout\x051500m@\nuser-agent0\
grpc-python/1.85.3 grpc-c/58.0.0 (linux; chttp2)\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x05";

fn rewritten(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut rewrite = Rewrite::default();
    for piece in out.chunks_mut(piece) {
        rewrite.bytes(piece);
    }
    out
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![b'P'; PREFACE];
    bytes.extend(frames.concat());
    bytes
}

#[test]
fn what_grpcio_sends_gets_a_host_and_nothing_else_changes() {
    for piece in [1, 2, 7, 64, 100_000] {
        let out = rewritten(GRPCIO, piece);
        let expected = GRPCIO
            .to_vec()
            .windows(27)
            .position(|w| w == b"tmp%2Fcapdir%2Frun%2Fk.sock")
            .unwrap();
        assert_eq!(
            &out[expected..expected + 27],
            b"tmp-2Fcapdir-2Frun-2Fk.sock"
        );
        assert_eq!(out[..expected], GRPCIO[..expected]);
        assert_eq!(out[expected + 27..], GRPCIO[expected + 27..]);
    }
}

#[test]
fn padding_priority_and_continuations_are_stepped_over() {
    // Literal with the static table's name, after an indexed field and a size update of two bytes.
    let block = b"\x83\x3f\x00\x41\x05a%2Fb\x00\x03%2F\x03%2F\x11\x03%%%";
    let fixed: &[u8] = b"\x83\x3f\x00\x41\x05a-2Fb\x00\x03%2F\x03%2F\x11\x03---";
    let framed = |block: &[u8]| {
        let mut padded = vec![4, 0x80, 0, 0, 0, 9];
        padded.extend(block);
        padded.extend(b"%%%%");
        let (one, two) = block.split_at(7);
        connection(&[
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded),
            frame(0, PADDED | END_HEADERS, b"\x41\x05a%2Fb"),
            frame(HEADERS, 0, one),
            frame(CONTINUATION, 0, b""),
            // Not padded, whatever it says.
            frame(CONTINUATION, END_HEADERS | PADDED | PRIORITY, two),
            frame(HEADERS, END_HEADERS, block),
        ])
    };
    for piece in [1, 3, 1000] {
        let out = rewritten(&framed(block), piece);
        assert_eq!(out, framed(fixed), "{piece}");
    }
}

#[test]
fn what_no_client_sends_is_left_alone_and_harms_nothing() {
    // Priority longer than the frame, padding longer than the frame, a number without an end, a Huffman string.
    for frames in [
        vec![
            frame(HEADERS, PRIORITY | END_HEADERS, b"\0\0"),
            frame(HEADERS, PADDED | END_HEADERS, b"\xff\x41\x01%"),
        ],
        vec![frame(
            HEADERS,
            END_HEADERS,
            b"\x41\x7f\xff\xff\xff\xff\xff\xff%",
        )],
        vec![
            frame(HEADERS, END_HEADERS, b"\x41\x82%%"),
            frame(HEADERS, PADDED, b"\x00"),
        ],
    ] {
        let bytes = connection(&frames);
        assert_eq!(rewritten(&bytes, 1), bytes);
        // And the next block is read from its beginning.
        let next = [frames, vec![frame(HEADERS, END_HEADERS, b"\x41\x01%")]].concat();
        assert_eq!(rewritten(&connection(&next), 5).last(), Some(&b'-'));
    }
}

proptest::proptest! {
    #[test]
    fn never_panics_and_is_the_same_in_any_pieces(
        frames in proptest::collection::vec(
            (0u8..11, proptest::num::u8::ANY, proptest::collection::vec(proptest::num::u8::ANY, 0..40)), 0..8),
        piece in 1usize..50,
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
        let bytes = connection(&frames);
        proptest::prop_assert_eq!(rewritten(&bytes, piece), rewritten(&bytes, bytes.len()));
    }
}
