//! Hostile payloads: work and memory stay in bounds, and what was left out is said.

use super::*;

#[test]
fn a_repeated_window_exhausts_a_budget_and_says_so() {
    let key = pem(1200);
    let m = matcher(&[&key]);
    // Long pieces of the key, again and again: every one a candidate for a confirmation over 1.6 KiB.
    let mut almost = key[..key.len() - 40].to_vec();
    let last = almost.len() - 1;
    almost[last] ^= 1;
    almost.extend_from_slice(&noise(1, 2000));
    let piece: Vec<u8> = key[28..28 + 65 * 4].to_vec();
    let hostile = piece.repeat(4000);
    let mut hits = Hits::new();
    m.scan(&mut StreamTail::new(), &hostile, &mut hits);
    assert!(hits.is_empty() && hits.limited());
    // The bounded work for a single near miss is not a limit.
    let mut hits = Hits::new();
    m.scan(&mut StreamTail::new(), &almost, &mut hits);
    assert!(hits.is_empty() && !hits.limited());
}

#[test]
fn waiting_candidates_are_bounded() {
    let key = pem(1200);
    let m = matcher(&[&key]);
    let piece: Vec<u8> = key[28..28 + 65 * 5].to_vec();
    let mut stream = StreamTail::new();
    let mut hits = Hits::new();
    for _ in 0..300 {
        m.scan(&mut stream, &piece[..], &mut hits);
        assert!(stream.pending.len() <= tail::PENDING_MAX);
        assert!(stream.len() <= tail::TAIL_MAX);
    }
}

#[test]
fn endless_line_breaks_end_a_candidate() {
    let key = pem(1200);
    let m = matcher(&[&key]);
    let mut stream = StreamTail::new();
    let mut hits = Hits::new();
    m.scan(&mut stream, &key[..800], &mut hits);
    assert_eq!(stream.pending.iter().filter(|p| p.form == 0).count(), 1);
    for _ in 0..2000 {
        m.scan(&mut stream, b"\n", &mut hits);
    }
    assert!(
        stream.pending.is_empty() && stream.len() < 1024,
        "{} {}",
        stream.pending.len(),
        stream.len()
    );
}

#[test]
fn a_full_matcher_refuses_and_forgetting_makes_room() {
    let mut m = Matcher::new(&KEY);
    m.limit = 500;
    let text = |i: usize| format!("user-{i:08}@example.test");
    for i in 0..500 {
        m.learn_identifier(credential(&i.to_string()), &text(i));
    }
    assert_eq!(m.learn(credential("x"), "", TOKEN), Learned::Full);
    m.forget("kt1:17");
    assert!(matches!(
        m.learn(credential("x"), "", TOKEN),
        Learned::New { .. }
    ));
    assert_eq!(scan(&m, &[TOKEN]).len(), 1);
    assert_eq!(scan(&m, &[text(471).as_bytes()]).len(), 1);
}
