//! Tests of the stage as a whole; each file's own tests are beside it.

mod digit_lines;
mod forms;
mod limits;
mod matching;
mod memory;
mod presented;
mod quoted;
mod splits;
mod streams;
mod words;

use super::*;
use base64::Engine as _;
use keytrail_model::{Credential, CredentialRef, Hit};
use std::sync::Arc;

pub const KEY: [u8; 32] = [42; 32];
pub const TOKEN: &[u8] = b"ghp_w7Rk2ZpQ9xLm4TnV8cYb1HsJd6FgE3aUoXiP";
/// The AWS documentation's shape: with characters that every encoder treats in its own way.
pub const AWS: &[u8] = b"wJalrXU+nFEMI/K7MDENG/bPxRfi+YzQm8vT3kLs";
pub const PASSWORD: &[u8] = b"p@ss\"w/0rd&\\ <\xc3\xa9\n%";

pub fn credential(name: &str) -> CredentialRef {
    Arc::new(Credential {
        kind: "test-token".to_owned(),
        identifier: String::new(),
        fingerprint: format!("kt1:{name}"),
        confidence: 1.0,
        expires: None,
        rule: "test".to_owned(),
        privilege: 0,
        attack: String::new(),
    })
}

pub fn matcher(secrets: &[&[u8]]) -> Matcher {
    let mut matcher = Matcher::new(&KEY);
    for (i, secret) in secrets.iter().enumerate() {
        let learned = matcher.learn(credential(&i.to_string()), "", secret);
        assert!(matches!(learned, Learned::New { .. }), "{learned:?}");
    }
    matcher
}

pub fn scan(matcher: &Matcher, parts: &[&[u8]]) -> Vec<Hit> {
    let mut stream = StreamTail::new();
    let mut hits = Hits::new();
    for part in parts {
        matcher.scan(&mut stream, part, &mut hits);
    }
    assert!(!hits.limited());
    hits.into_vec()
}

/// (fingerprint's number, transform, occurrences) of secrets.
pub fn found(matcher: &Matcher, parts: &[&[u8]]) -> Vec<(String, String, u32)> {
    let name = |hit: Hit| {
        (
            hit.credential.fingerprint[4..].to_owned(),
            hit.transform.word().to_owned(),
            hit.occurrences,
        )
    };
    scan(matcher, parts)
        .into_iter()
        .filter(|hit| hit.secret)
        .map(name)
        .collect()
}

pub fn one(transform: &str) -> Vec<(String, String, u32)> {
    vec![("0".to_owned(), transform.to_owned(), 1)]
}

pub fn base64(bytes: &[u8]) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .encode(bytes)
        .into_bytes()
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A private key in the shape of one; its content is noise.
pub fn pem(len: usize) -> Vec<u8> {
    let body = base64(&noise(7, len));
    let mut out = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
    for line in body.chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    out
}

/// The payloads of writes on one connection, each with so many bytes that were not captured.
pub fn payloads(matcher: &Matcher, parts: &[(&[u8], u64)]) -> Vec<keytrail_model::Payload> {
    let mut streams = Streams::new();
    let key = StreamKey {
        pid: keytrail_model::Pid { tgid: 1, start: 2 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    };
    let mut payloads = Vec::new();
    for (bytes, missing) in parts {
        let chunk = Chunk {
            boot_ns: 1,
            bytes,
            total: bytes.len() as u64 + missing,
            offset: 0,
            truncated: *missing > 0,
        };
        payloads.push(streams.on_payload(matcher, key, chunk));
    }
    payloads
}

/// One write on a connection.
pub fn reported(matcher: &Matcher, bytes: &[u8]) -> keytrail_model::Payload {
    payloads(matcher, &[(bytes, 0)]).remove(0)
}

/// Transform and occurrences of what is in the writes of one connection.
pub fn found_in(matcher: &Matcher, parts: &[&[u8]]) -> Vec<(String, u32)> {
    let parts: Vec<(&[u8], u64)> = parts.iter().map(|p| (*p, 0)).collect();
    let hits = payloads(matcher, &parts).into_iter().flat_map(|p| p.hits);
    hits.map(|hit| (spelling(&hit), hit.occurrences)).collect()
}

/// All decodings of a hit, the outermost first.
pub fn spelling(hit: &Hit) -> String {
    let all: Vec<&str> = hit
        .layers
        .iter()
        .chain([&hit.transform])
        .map(|t| t.word())
        .collect();
    all.join("+")
}

/// What cannot be made shorter is stored as it is, and found as it is: so there is something to be made shorter.
fn compressible(bytes: &[u8]) -> Vec<u8> {
    [
        bytes,
        &b"the quick brown fox jumps over the lazy dog; ".repeat(8),
    ]
    .concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let bytes = &compressible(bytes)[..];
    let mut out = vec![0x1f, 0x8b, 8, 0b1000, 0, 0, 0, 0, 0, 3];
    out.extend_from_slice(b"name.txt\0");
    out.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    out.extend([0; 4]);
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(&compressible(bytes), 6)
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A JSON text around [`TOKEN`], as `brotli -q 5` packs it.
pub fn brotli() -> Vec<u8> {
    let digits = include_str!("packed.br.hex").trim();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// base64 with a line break after every `width` characters.
pub fn wrap(text: &[u8], width: usize, gap: &[u8]) -> Vec<u8> {
    text.chunks(width).collect::<Vec<_>>().join(gap)
}
