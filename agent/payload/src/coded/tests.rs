//! Encodings within encodings, cut everywhere.

use crate::tests::{
    AWS, TOKEN, base64, brotli, found_in, gzip, matcher, noise, reported, zlib, zstd,
};
use proptest::prelude::*;

fn percent(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|b| format!("%{b:02x}").into_bytes())
        .collect()
}

fn unicode(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|b| format!("\\u{b:04X}").into_bytes())
        .collect()
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|b| format!("\\x{b:02x}").into_bytes())
        .collect()
}

fn base32(bytes: &[u8], upper: bool) -> Vec<u8> {
    let digits: &[u8; 32] = if upper {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    } else {
        b"abcdefghijklmnopqrstuvwxyz234567"
    };
    bytes
        .chunks(5)
        .flat_map(|group| {
            let bits = (0..5).fold(0u64, |bits, n| {
                bits << 8 | u64::from(group.get(n).copied().unwrap_or(0))
            });
            let full = (group.len() * 8).div_ceil(5);
            (0..8).map(move |n| match n < full {
                true => digits[(bits >> (35 - 5 * n) & 31) as usize],
                false => b'=',
            })
        })
        .collect()
}

fn zlib_best(bytes: &[u8]) -> Vec<u8> {
    let text = [bytes, &b"a text that is packed well; ".repeat(8)].concat();
    miniz_oxide::deflate::compress_to_vec_zlib(&text, 9)
}

/// As `base32` writes it to a terminal.
fn in_lines(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(76).collect::<Vec<_>>().join(&b"\n"[..])
}

fn entities(bytes: &[u8], hex: bool) -> Vec<u8> {
    let one = |b: &u8| {
        if hex {
            format!("&#x{b:x};")
        } else {
            format!("&#{b};")
        }
    };
    bytes.iter().flat_map(|b| one(b).into_bytes()).collect()
}

fn wide(bytes: &[u8], big: bool) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|&b| if big { [0, b] } else { [b, 0] })
        .collect()
}

fn wider(bytes: &[u8], big: bool) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|&b| if big { [0, 0, 0, b] } else { [b, 0, 0, 0] })
        .collect()
}

/// Hexadecimal digits with something between the bytes.
fn pairs(bytes: &[u8], between: &str, upper: bool) -> Vec<u8> {
    let one = |b: &u8| match upper {
        true => format!("{b:02X}"),
        false => format!("{b:02x}"),
    };
    let all: Vec<String> = bytes.iter().map(one).collect();
    all.join(between).into_bytes()
}

/// An archive of one member, packed.
fn zip(bytes: &[u8]) -> Vec<u8> {
    let packed = &zlib(bytes)[2..];
    let mut out = b"PK\x03\x04\x14\0\x08\0\x08\0".to_vec();
    out.extend([0; 16]);
    out.extend([5, 0, 0, 0]);
    out.extend(b"a.txt");
    out.extend(&packed[..packed.len() - 4]);
    out.extend(b"PK\x01\x02 and more");
    out
}

/// The last byte of a body is the last one of a secret in UTF-16 or UTF-32: nothing comes behind it.
#[test]
fn wide_text_at_the_end_of_a_body() {
    let m = matcher(&[TOKEN]);
    for big in [false, true] {
        for (name, body) in [("utf16", wide(TOKEN, big)), ("utf32", wider(TOKEN, big))] {
            let head = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let whole = [head.as_bytes(), &body].concat();
            for cut in head.len() - 2..whole.len() {
                let (a, b) = whole.split_at(cut);
                let found = found_in(&m, &[a, b]);
                assert_eq!(found, [(name.to_owned(), 1)], "{big} {cut}");
            }
        }
    }
}

/// A text of which the secret is a part.
fn json() -> Vec<u8> {
    [
        b"{\"user\":\"someone\",\"token\":\"",
        TOKEN,
        b"\",\"note\":\"that is all of it\"}",
    ]
    .concat()
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let text = json();
    vec![
        ("percent", percent(TOKEN)),
        ("percent", percent(&text)),
        ("json", unicode(TOKEN)),
        ("json", escaped(&text)),
        ("xml", entities(TOKEN, false)),
        ("xml", entities(&text, true)),
        ("utf16", wide(TOKEN, false)),
        ("utf16", wide(TOKEN, true)),
        ("deflate", zip(&text)),
        ("base64+deflate", base64(&zip(&text))),
        ("utf16", wide(&text, true)),
        ("utf16+base64", wide(&base64(&text), false)),
        ("base64+base64", base64(&base64(TOKEN))),
        ("base64+base64", base64(&base64(&text))),
        ("base64+utf16", base64(&wide(&text, false))),
        ("base64+percent", base64(&percent(&text))),
        ("base64+hex", base64(&crate::encode::hex(TOKEN, false))),
        ("base32", base32(TOKEN, true)),
        ("base32", base32(TOKEN, false)),
        ("base32", base32(&text, false)),
        ("base32", in_lines(&base32(&text, true))),
        ("base32+base64", base32(&base64(&text), true)),
        ("base64+base32", base64(&base32(&text, true))),
        ("hex", pairs(TOKEN, ":", false)),
        ("hex", pairs(&text, " ", true)),
        ("hex", pairs(&text, "-", true)),
        ("hex", [b"{0x", &pairs(TOKEN, ", 0x", false)[..]].concat()),
        ("hex", [b"0x", &pairs(&text, ",0x", true)[..]].concat()),
        ("hex", [b"0X", &pairs(TOKEN, ", 0X", true)[..]].concat()),
        ("hex", [b"0X", &pairs(&text, " 0X", false)[..]].concat()),
        ("base64+hex", base64(&pairs(&text, ":", false))),
        ("utf32", wider(TOKEN, false)),
        ("utf32", wider(&text, true)),
        ("utf32+base64", wider(&base64(&text), false)),
        ("gzip", gzip(&text)),
        ("gzip+base64", gzip(&base64(&text))),
        ("base64+gzip", base64(&gzip(&text))),
        ("base64+gzip+base64", base64(&gzip(&base64(&text)))),
        ("gzip+gzip", gzip(&gzip(&text))),
        ("base64+deflate", base64(&zlib(&text))),
        ("base64+deflate", base64(&zlib_best(&text))),
        ("zstd", zstd(&text)),
        ("base64+zstd", base64(&zstd(&text))),
        ("percent+base64", percent(&base64(TOKEN))),
    ]
}

/// What is found but for literals that a packer left as they are, as the one of the tests does.
fn seen(m: &crate::Matcher, parts: &[&[u8]], name: &str) -> Vec<(String, u32)> {
    let mut found = found_in(m, parts);
    found.retain(|(t, _)| !(name.contains("zstd") && *t != name));
    found
}

#[test]
fn every_nesting_at_every_split_point_is_counted_once() {
    let m = matcher(&[TOKEN]);
    for (name, coded) in cases() {
        let payload = [b"--part\r\n\r\ndata=", &coded[..], b"\r\n--part--"].concat();
        for cut in 0..payload.len() {
            let (a, b) = payload.split_at(cut);
            assert_eq!(
                seen(&m, &[a, b], name),
                [(name.to_owned(), 1)],
                "{name} cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = payload.chunks(1).collect();
        assert_eq!(
            seen(&m, &single, name),
            [(name.to_owned(), 1)],
            "{name} byte by byte"
        );
    }
}

#[test]
fn every_nesting_at_every_place_of_a_large_payload() {
    let m = matcher(&[TOKEN]);
    for (name, coded) in cases() {
        for lead in 0..40 {
            let filler: Vec<u8> = b"lorem ipsum dolor, "
                .iter()
                .copied()
                .cycle()
                .take(3000 + lead)
                .collect();
            let payload = [&filler[..], b" \"", &coded[..], b"\" ", &filler].concat();
            assert_eq!(
                seen(&m, &[&payload], name),
                [(name.to_owned(), 1)],
                "{name} behind {lead}"
            );
        }
    }
}

#[test]
fn a_body_of_deflate_or_brotli_needs_its_head_but_zlib_at_the_beginning_of_a_message_does_not() {
    let m = matcher(&[TOKEN]);
    // In clear: nothing.
    assert_eq!(found_in(&m, &[&brotli()]), []);
    let chunk = zlib(&json());
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = [
        head,
        format!("{:x}\r\n", chunk.len()).as_bytes(),
        &chunk,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(found_in(&m, &[&body]), [("deflate".to_owned(), 1)]);
}

#[test]
fn base32_is_found_from_wherever_it_begins() {
    let m = matcher(&[TOKEN]);
    for before in 0..10 {
        let bytes = [&b"user=nobody "[..before], TOKEN].concat();
        let text = base32(&bytes, before % 2 == 0);
        // The name of a host that takes it begins with a number, and ends with what looks like more of it.
        let name = [
            b"1-",
            text.split(|c| *c == b'=').next().unwrap(),
            b"collectexample",
        ]
        .concat();
        assert_eq!(
            found_in(&m, &[&name]),
            [("base32".to_owned(), 1)],
            "{before}"
        );
    }
    // A word of one case is none, however long.
    let words = "thequickbrownfoxjumpsoverthelazydog".repeat(200);
    assert_eq!(found_in(&m, &[words.as_bytes()]), []);
}

#[test]
fn bytes_of_an_array_in_lines_that_are_set_in() {
    let m = matcher(&[TOKEN]);
    for gap in [",\n    0x", ",\r\n\t\t0x"] {
        let lines: Vec<String> = json()
            .chunks(12)
            .map(|line| String::from_utf8(pairs(line, ", 0x", false)).unwrap())
            .collect();
        let text = format!("unsigned char x[] = {{\n  0x{}\n}};\n", lines.join(gap));
        assert_eq!(
            found_in(&m, &[text.as_bytes()]),
            [("hex".to_owned(), 1)],
            "{text}"
        );
    }
    // Addresses of Ethernet, fingerprints and times of day are none, in any number.
    let other = "aa:bb:cc:dd:ee:ff 12:30:45 SHA256 61 62 ".repeat(400);
    assert_eq!(found_in(&m, &[other.as_bytes()]), []);
}

#[test]
fn several_members_and_large_bodies() {
    let m = matcher(&[TOKEN, AWS]);
    let long: Vec<u8> = (0..3000)
        .flat_map(|i| format!("line {i} of a log\n").into_bytes())
        .collect();
    let one = [&long[..], TOKEN, &long].concat();
    let members = [gzip(&one), gzip(AWS)].concat();
    for size in [1, 100, 16_384, members.len()] {
        let mut found = found_in(&m, &members.chunks(size).collect::<Vec<_>>());
        found.sort();
        assert_eq!(
            found,
            [("gzip".to_owned(), 1), ("gzip".to_owned(), 1)],
            "in writes of {size}"
        );
    }
    let packed = zstd(&one);
    for size in [1, 100, 16_384] {
        let found = seen(&m, &packed.chunks(size).collect::<Vec<_>>(), "zstd");
        assert_eq!(found, [("zstd".to_owned(), 1)], "in writes of {size}");
    }
}

#[test]
fn what_bursts_is_cut_and_counted() {
    let m = matcher(&[TOKEN]);
    let bomb = vec![b'a'; 50 << 20];
    for packed in [gzip(&bomb), zstd(&bomb)] {
        let payload = reported(&m, &packed);
        assert!(payload.undecoded.cut > 0, "{:?}", payload.undecoded);
        assert_eq!(payload.hits, []);
    }
    // Before the cut all is found.
    let mut text = json();
    text.extend_from_slice(&bomb);
    for packed in [gzip(&text), zstd(&text)] {
        let payload = reported(&m, &packed);
        assert!(payload.undecoded.cut > 0);
        assert!(payload.hits.iter().any(|h| h.transform.word() != "raw"));
    }
    // Layers without end.
    let mut nested = json();
    for _ in 0..8 {
        nested = gzip(&nested);
    }
    let payload = reported(&m, &nested);
    assert!(payload.undecoded.cut > 0 && payload.hits.is_empty());
}

#[test]
fn broken_streams_are_given_up_and_what_follows_is_seen() {
    let m = matcher(&[TOKEN]);
    for packed in [gzip(&json()), zstd(&json())] {
        for at in 10..packed.len() {
            let mut broken = packed.clone();
            broken[at] ^= 0x55;
            broken.extend_from_slice(b" and then ");
            broken.extend_from_slice(TOKEN);
            let found = found_in(&m, &[&broken]);
            assert!(found.iter().any(|(t, _)| t == "raw"), "byte {at}");
        }
    }
}

#[test]
fn an_almost_decoded_secret_is_none() {
    let m = matcher(&[TOKEN]);
    let mut other = TOKEN.to_vec();
    other[25] ^= 1;
    for coded in [
        percent(&other),
        base64(&base64(&other)),
        gzip(&other),
        wide(&other, false),
        wider(&other, true),
        pairs(&other, ":", false),
    ] {
        assert_eq!(found_in(&m, &[&coded]), []);
    }
    // Halves in two runs do not join.
    let (a, b) = TOKEN.split_at(20);
    let apart = [percent(a), b"&".to_vec(), percent(b)].concat();
    assert_eq!(found_in(&m, &[&apart]), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hostile_bytes_in_any_writes(
        junk in proptest::collection::vec(
            prop_oneof![
                any::<u8>().prop_map(|b| vec![b]),
                Just(vec![0x1f, 0x8b, 8, 0]), Just(vec![0x28, 0xb5, 0x2f, 0xfd]), Just(vec![0x78, 0x9c]),
                Just(b"H4sIAAAA".to_vec()), Just(b"%41%42%43%44%45%46%47%4".to_vec()),
                Just(b"\\u0041\\u0042".to_vec()), Just(b"&#65;&#66;".to_vec()), Just(b"a\0b\0c\0d\0".to_vec()),
                Just(b"Z2hwX3c3UmsyWnBROXhMbTRUblY4Y1li".to_vec()), Just(vec![0; 16]), Just(noise(3, 20)),
            ],
            0..80,
        ),
        size in 1usize..200,
    ) {
        let m = matcher(&[TOKEN]);
        let mut bytes = junk.concat();
        bytes.extend_from_slice(b"\n\n ");
        bytes.extend_from_slice(TOKEN);
        bytes.push(b' ');
        let found = found_in(&m, &bytes.chunks(size).collect::<Vec<_>>());
        prop_assert!(found.iter().any(|(t, n)| t == "raw" && *n == 1), "{:?}", found);
    }

    /// Any text around, any nesting of two, any three writes.
    #[test]
    fn any_nesting_any_cuts(
        before in "[ -~]{0,60}",
        after in "[ -~]{0,60}",
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 2),
    ) {
        let m = matcher(&[TOKEN]);
        let text = [before.as_bytes(), b" ", TOKEN, b" ", after.as_bytes()].concat();
        let layers: [(&str, Vec<u8>); 6] = [
            ("gzip", gzip(&text)), ("zstd", zstd(&text)), ("percent", percent(&text)),
            ("utf16", wide(&text, false)), ("base64+base64", base64(&base64(&text))), ("base64+gzip", base64(&gzip(&text))),
        ];
        let (name, coded) = &layers[which.index(layers.len())];
        let payload = [b"\r\n\r\n", &coded[..], b"\r\n"].concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        at.sort_unstable();
        let parts = [&payload[..at[0]], &payload[at[0]..at[1]], &payload[at[1]..]];
        prop_assert_eq!(seen(&m, &parts, name), [((*name).to_owned(), 1)]);
    }
}
