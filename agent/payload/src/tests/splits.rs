//! Secrets split over writes.

use super::*;
use proptest::prelude::*;

/// Every form of a secret as it stands in a payload, with foreign bytes around.
fn payloads(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut out = Vec::new();
    for form in forms(secret, |_| 0) {
        // A partly decided character is completed by any bits of the neighbours'.
        let edge = |edge: encode::Edge| {
            let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            (edge.mask != 0).then(|| table[usize::from(edge.value | (!edge.mask & 0b10_1010))])
        };
        let mut text = b"  field=".to_vec();
        text.extend(edge(form.head));
        text.extend_from_slice(&form.text);
        text.extend(edge(form.tail));
        text.extend_from_slice(b"; next");
        out.push((form.transform.word(), text));
    }
    out
}

#[test]
fn every_form_at_every_split_point_is_counted_once() {
    for secret in [TOKEN, AWS, PASSWORD, b"Tr0ub4dor"] {
        let m = matcher(&[secret]);
        for (transform, payload) in payloads(secret) {
            for cut in 0..=payload.len() {
                let (a, b) = payload.split_at(cut);
                assert_eq!(
                    found(&m, &[a, b]),
                    one(transform),
                    "{transform} cut at {cut}"
                );
            }
            let single: Vec<&[u8]> = payload.chunks(1).collect();
            assert_eq!(
                found(&m, &single),
                one(transform),
                "{transform} byte by byte"
            );
        }
    }
}

#[test]
fn a_long_key_at_many_split_points() {
    let key = pem(1200);
    let m = matcher(&[&key]);
    for (transform, payload) in payloads(&key) {
        for cut in (1..payload.len()).step_by(61) {
            let (a, b) = payload.split_at(cut);
            assert_eq!(
                found(&m, &[a, b]),
                one(transform),
                "{transform} cut at {cut}"
            );
        }
        for size in [1, 7, 100, 1000] {
            let parts: Vec<&[u8]> = payload.chunks(size).collect();
            assert_eq!(
                found(&m, &parts),
                one(transform),
                "{transform} in writes of {size}"
            );
        }
    }
    let wrapped = wrap(&base64(&key), 76, b"\r\n");
    for size in [1, 50, 76, 78, 500] {
        assert_eq!(
            found(&m, &wrapped.chunks(size).collect::<Vec<_>>()),
            one("base64"),
            "in writes of {size}"
        );
    }
}

#[test]
fn repeated_secrets_are_counted_once_each_whatever_the_split() {
    let m = matcher(&[TOKEN]);
    let payload = [TOKEN, TOKEN, b"--", &base64(TOKEN), b"--", TOKEN].concat();
    let whole = found(&m, &[&payload]);
    assert_eq!(whole.iter().map(|h| h.2).sum::<u32>(), 4);
    for size in 1..payload.len() {
        assert_eq!(
            found(&m, &payload.chunks(size).collect::<Vec<_>>()),
            whole,
            "in writes of {size}"
        );
    }
}

#[test]
fn halves_that_do_not_follow_each_other_are_no_secret() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(20);
    assert_eq!(found(&m, &[a, b"x", b]), []);
    let mut stream = StreamTail::new();
    let mut hits = Hits::new();
    m.scan(&mut stream, a, &mut hits);
    stream.wipe();
    m.scan(&mut stream, b, &mut hits);
    assert!(hits.is_empty());
}

#[test]
fn little_is_kept_of_a_connection_without_candidates() {
    let m = matcher(&[TOKEN, &pem(1200)]);
    let mut stream = StreamTail::new();
    m.scan(&mut stream, &noise(5, 16 * 1024), &mut Hits::new());
    assert!(stream.len() < 1024, "{}", stream.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any secret in any form, cut into three writes anywhere.
    #[test]
    fn any_secret_any_form_any_cuts(
        secret in prop_oneof![
            proptest::collection::vec(any::<u8>(), 12..200),
            "[ -~]{10,60}".prop_map(String::into_bytes),
        ],
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 2),
    ) {
        let mut m = Matcher::new(&KEY);
        prop_assume!(matches!(m.learn(credential("0"), "", &secret), Learned::New { .. }));
        for (transform, payload) in payloads(&secret) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            at.sort_unstable();
            let parts = [&payload[..at[0]], &payload[at[0]..at[1]], &payload[at[1]..]];
            let hits = found(&m, &parts);
            prop_assert!(hits.iter().any(|(_, t, n)| t == transform && *n == 1), "{transform}: {hits:?}");
        }
    }
}
