//! Throughput of the payload matcher per second of CPU time: `cargo run --release --example match_bench`.
//!
//! One core scans the same mixed payload (request heads, JSON, base64, random bytes; 16 KiB records of one
//! connection, as the kernel side delivers them) with 10, 1,000 and 10,000 learnt secrets in all forms. "stream" is the same by
//! way of a connection: with framing, and with what is encoded looked for and decoded, of this payload and of plain text.
//!
//! The peer of the same run is Aho-Corasick (the `aho-corasick` crate as it comes) over the same secrets: as they are,
//! and in all forms as long as its automaton fits into memory. It keeps the secrets themselves, does not look across the
//! borders of records and does not unwrap lines: it is a bound for speed, not a substitute. Rounds alternate.

use aho_corasick::AhoCorasick;
use keytrail_model::Credential;
use keytrail_model::Pid;
use keytrail_payload::{Chunk, Hits, Layer, Matcher, StreamKey, StreamTail, Streams, forms};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;

const RECORD: usize = 16 * 1024;
const PAYLOAD: usize = 32 * 1024 * 1024;
const ROUNDS: usize = 5;
const SEED: u64 = 0x1234_5678_9abc_def0;

/// xorshift64: enough for benchmark data, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn text(&mut self, len: usize, alphabet: &[u8]) -> Vec<u8> {
        (0..len)
            .map(|_| alphabet[(self.next() >> 33) as usize % alphabet.len()])
            .collect()
    }
}

const BASE62: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Every hundredth secret is a private key of 1.7 KiB, every tenth a JWT-like token of 600 bytes.
fn secret(random: &mut Random, i: usize) -> Vec<u8> {
    match i % 100 {
        0 => {
            let mut pem = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
            for _ in 0..26 {
                pem.extend(random.text(64, BASE64));
                pem.push(b'\n');
            }
            pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
            pem
        }
        n if n % 10 == 0 => [
            b"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.".to_vec(),
            random.text(560, BASE62),
        ]
        .concat(),
        n if n % 2 == 0 => [b"ghp_".to_vec(), random.text(36, BASE62)].concat(),
        _ => random.text(40, BASE64),
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAYLOAD + RECORD);
    while out.len() < PAYLOAD {
        out.extend_from_slice(b"POST /v1/items?limit=50 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8\r\n\r\n");
        for _ in 0..40 {
            let (id, value) = (random.next(), random.text(24, BASE62));
            let value = String::from_utf8_lossy(&value);
            out.extend_from_slice(
                format!("{{\"id\":{id},\"name\":\"{value}\",\"enabled\":true}},").as_bytes(),
            );
        }
        let encoded = random.text(4096, BASE64);
        out.extend_from_slice(&encoded);
        for _ in 0..512 {
            out.extend_from_slice(&random.next().to_le_bytes());
        }
    }
    out.truncate(PAYLOAD);
    out
}

/// CPU time of this thread: what others do on the machine does not count.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn main() {
    let mut random = Random(SEED ^ 1);
    let payload = payload(&mut random);
    // What a process that has a key may send to keep the matcher busy: the key's telling bytes, never all of it.
    let key = secret(&mut Random(SEED), 0);
    let hostile = key[28..28 + 4 * 65].repeat(PAYLOAD / 16 / 260);
    let text = prose(&mut random);
    println!(
        "{:>8} {:>9} {:>10} {:>8} {:>11} {:>9} {:>6} {:>13} {:>14} {:>8} {:>14} {:>8}",
        "secrets",
        "windows",
        "learn us",
        "GB/s",
        "stream GB/s",
        "text GB/s",
        "hits",
        "hostile GB/s",
        "AC raw GB/s",
        "ratio",
        "AC forms GB/s",
        "ratio"
    );
    for count in [10, 1_000, 10_000] {
        let mut matcher = Matcher::new(&[7; 32]);
        let begin = cpu_seconds();
        let mut random = Random(SEED);
        for i in 0..count {
            let secret = secret(&mut random, i);
            let credential = Credential {
                kind: "bench".to_owned(),
                identifier: String::new(),
                fingerprint: format!("kt1:{i}"),
                confidence: 1.0,
                expires: None,
                rule: String::new(),
                privilege: 0,
                attack: String::new(),
            };
            matcher.learn(Arc::new(credential), "", &secret);
        }
        let learn = (cpu_seconds() - begin) * 1e6 / count as f64;
        let (bad, _) = rate(|| ours(&matcher, &hostile));
        let (stream, _) = rate(|| streamed(&matcher, &payload));
        let (text, _) = rate(|| streamed(&matcher, &text));
        let mut random = Random(SEED);
        let secrets: Vec<_> = (0..count).map(|i| secret(&mut random, i)).collect();
        let (honest, hits, raw, raw_ratio) = against(&matcher, &payload, &secrets);
        let (all, all_ratio) = if count <= MAX_FORMS {
            let texts: Vec<Vec<u8>> = secrets
                .iter()
                .flat_map(|s| forms(s, |_| 0))
                .map(|form| form.text.to_vec())
                .collect();
            let (_, _, all, ratio) = against(&matcher, &payload, &texts);
            (format!("{all:.2}"), format!("{ratio:.2}"))
        } else {
            ("-".to_owned(), "-".to_owned())
        };
        println!(
            "{count:>8} {:>9} {learn:>10.1} {honest:>8.2} {stream:>11.2} {text:>9.2} {hits:>6} {bad:>13.3} {raw:>14.2} {raw_ratio:>8.2} {all:>14} {all_ratio:>8}",
            matcher.windows()
        );
    }
}

/// Secrets up to which the peer gets all forms: more make an automaton of gigabytes.
const MAX_FORMS: usize = 1_000;

/// CPU seconds and hits of one pass.
fn ours(matcher: &Matcher, payload: &[u8]) -> (f64, usize, usize) {
    let mut stream = StreamTail::new();
    let mut hits = Hits::new();
    let begin = cpu_seconds();
    for record in payload.chunks(RECORD) {
        matcher.scan(&mut stream, record, &mut hits);
    }
    (cpu_seconds() - begin, payload.len(), hits.into_vec().len())
}

/// The same by way of a connection.
fn streamed(matcher: &Matcher, payload: &[u8]) -> (f64, usize, usize) {
    let mut streams = Streams::new();
    let key = StreamKey {
        pid: Pid { tgid: 1, start: 2 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    };
    let mut hits = 0;
    let begin = cpu_seconds();
    for bytes in payload.chunks(RECORD) {
        let chunk = Chunk::whole(1, bytes);
        hits += streams.on_payload(matcher, key, chunk).hits.len();
    }
    (cpu_seconds() - begin, payload.len(), hits)
}

/// Lines of words and of settings.
fn prose(random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "the",
        "of",
        "to be",
        "it is",
        "a line",
        "0x1f",
        "text",
        "some more",
        "words = 1",
        "key=value",
        "path/to",
        "that",
    ];
    let mut out = Vec::with_capacity(PAYLOAD + 100);
    while out.len() < PAYLOAD {
        for _ in 0..8 + random.next() % 8 {
            out.extend_from_slice(WORDS[(random.next() >> 33) as usize % WORDS.len()].as_bytes());
            out.push(b' ');
        }
        out.push(b'\n');
    }
    out.truncate(PAYLOAD);
    out
}

fn theirs(automaton: &AhoCorasick, payload: &[u8]) -> (f64, usize, usize) {
    let begin = cpu_seconds();
    let hits = payload
        .chunks(RECORD)
        .map(|record| automaton.find_iter(record).count())
        .sum();
    (cpu_seconds() - begin, payload.len(), hits)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Median of some rounds in GB/s, and the hits of one.
fn rate(mut pass: impl FnMut() -> (f64, usize, usize)) -> (f64, usize) {
    let mut rates = Vec::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        let (seconds, bytes, hits) = pass();
        rates.push(bytes as f64 / seconds / 1e9);
        found = hits;
    }
    (median(rates), found)
}

/// Our rate in GB/s, our hits, the peer's rate, and the median of the ratios of ours to the peer's.
fn against(matcher: &Matcher, payload: &[u8], texts: &[Vec<u8>]) -> (f64, usize, f64, f64) {
    let automaton = AhoCorasick::new(texts).expect("an automaton of this size can be built");
    let (mut mine, mut peer, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = 0;
    for _ in 0..ROUNDS {
        let (a, bytes, hits) = ours(matcher, payload);
        let (b, _, _) = theirs(&automaton, payload);
        found = hits;
        mine.push(bytes as f64 / a / 1e9);
        peer.push(bytes as f64 / b / 1e9);
        ratios.push(b / a);
    }
    (median(mine), found, median(peer), median(ratios))
}
