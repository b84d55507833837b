//! What is left in memory of a secret: nothing, proven by inspecting this process's memory.

use super::*;
use std::alloc::System;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use zeroize::Zeroizing;

/// As in the program: what is freed is wiped.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<System> = zeroizing_alloc::ZeroAlloc(System);

/// Needles are kept with every byte flipped by this, or the search would find itself.
const MASK: u8 = 0xa5;

/// How many places in `ranges` of this process's memory hold one of the eight-byte needles.
fn count(ranges: &[(u64, u64)], needles: &std::collections::HashSet<u64>) -> usize {
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    let mut page = Zeroizing::new(vec![0u8; 64 * 1024]);
    for &(from, to) in ranges {
        let mut at = from;
        while at < to {
            let take = ((to - at) as usize).min(page.len());
            memory.seek(SeekFrom::Start(at)).unwrap();
            // Some mappings cannot be read; their pages hold nothing of ours.
            if memory.read_exact(&mut page[..take]).is_ok() {
                let mut window = 0u64;
                for (i, &byte) in page[..take].iter().enumerate() {
                    window = window << 8 | u64::from(byte ^ MASK);
                    found += usize::from(i >= 7 && needles.contains(&window));
                }
            }
            // Pages overlap, so that nothing hides on a border.
            at += if take < page.len() {
                take as u64
            } else {
                (take - 7) as u64
            };
        }
    }
    found
}

fn writable_ranges() -> Vec<(u64, u64)> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (from, to) = words.next()?.split_once('-')?;
        words
            .next()?
            .starts_with("rw")
            .then(|| (hex(from), hex(to)))
    };
    maps.lines()
        .filter_map(line)
        .filter(|(from, to)| to - from < 1 << 30)
        .collect()
}

/// All eight-byte windows of all forms of a secret, masked.
fn needles(secret: &[u8]) -> std::collections::HashSet<u64> {
    let word = |w: &[u8]| {
        w.iter()
            .fold(0u64, |word, byte| word << 8 | u64::from(byte ^ MASK))
    };
    let mut all = std::collections::HashSet::new();
    for form in forms(secret, |_| 0) {
        all.extend(form.text.windows(8).map(word));
    }
    all
}

/// A secret that is in no source file, no constant and no other test.
fn fresh_secret() -> Zeroizing<Vec<u8>> {
    let mut random = Zeroizing::new([0u8; 30]);
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random[..]).unwrap();
    encode::base64(&random[..], 0, true).unwrap().1
}

#[inline(never)]
fn work() -> (Matcher, Streams, std::collections::HashSet<u64>) {
    let secret = fresh_secret();
    let mut m = Matcher::new(&KEY);
    assert!(matches!(
        m.learn(credential("0"), "", &secret),
        Learned::New { .. }
    ));
    let mut streams = Streams::new();
    let stream = StreamKey {
        pid: keytrail_model::Pid { tgid: 1, start: 1 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    };
    let bytes = Zeroizing::new([&b"GET / HTTP/1.1\r\nAuthorization: "[..], &secret].concat());
    for part in bytes.chunks(11) {
        let chunk = Chunk::whole(1, part);
        streams.on_payload(&m, stream, chunk);
    }
    let redacted = m.redact(&bytes).unwrap();
    assert!(redacted.contains("[redacted test-token kt1:0]"));
    let needles = needles(&secret);
    assert!(needles.len() > 100);
    // The search finds what is there.
    let here = (
        secret.as_ptr() as u64,
        secret.as_ptr() as u64 + secret.len() as u64,
    );
    assert!(count(&[here], &needles) > 20);
    (m, streams, needles)
}

#[test]
fn no_window_of_a_learnt_and_sent_secret_is_left_in_memory() {
    let (m, mut streams, needles) = work();
    streams.expire(ages::WIPE_NS + 1);
    scrub_stack();
    assert_eq!(count(&writable_ranges(), &needles), 0);
    assert_eq!((m.len(), streams.len()), (1, 1));
}

/// Leaves a secret in its stack frame.
#[inline(never)]
fn litter(secret: &[u8]) -> u64 {
    let mut frame = [0u8; 4096];
    for (slot, byte) in frame.iter_mut().zip(secret.iter().cycle()) {
        *slot = *byte;
    }
    std::hint::black_box(&frame);
    frame.as_ptr() as u64
}

#[test]
fn scrubbing_wipes_the_stack_below_the_caller() {
    let secret = fresh_secret();
    let needles = needles(&secret);
    let at = litter(&secret);
    // A few words may be overwritten by the search itself; most of the frame is still there without scrubbing.
    let area = [(at & !0xfff, (at & !0xfff) + 4096)];
    let before = count_from_another_thread(area, needles.clone());
    assert!(before > 1000, "{before}");
    litter(&secret);
    scrub_stack();
    assert_eq!(count_from_another_thread(area, needles), 0);
}

fn count_from_another_thread(
    area: [(u64, u64); 1],
    needles: std::collections::HashSet<u64>,
) -> usize {
    std::thread::spawn(move || count(&area, &needles))
        .join()
        .unwrap()
}

/// The bytes of a secret that its window hashes are about are few, and the same for all forms.
#[test]
fn windows_are_about_one_region_of_the_secret() {
    let secret = encode::base64(&noise(11, 90), 0, true).unwrap().1;
    // Changing what is outside the region changes no window, whatever the form.
    let hashes = |secret: &[u8]| {
        let mut m = Matcher::new(&KEY);
        m.learn(credential("0"), "", secret);
        m.entries
            .iter()
            .map(|e| e.hash)
            .collect::<std::collections::BTreeSet<u32>>()
    };
    let all = hashes(&secret);
    let about = (0..secret.len()).filter(|&at| {
        let mut other = secret.clone();
        other[at] = if other[at] == b'x' { b'X' } else { b'x' };
        hashes(&other) != all
    });
    let about: Vec<usize> = about.collect();
    let (first, last) = (about[0], about[about.len() - 1]);
    assert!(last - first < crate::forms::REGION + 2, "{about:?}");
}
