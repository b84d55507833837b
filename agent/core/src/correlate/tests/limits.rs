//! What was cut or found no room is reported, and reported once.

use super::*;

fn cut(total: u64, inspected: u64) -> Payload {
    Payload {
        truncated: true,
        inspected,
        ..payload(total, vec![])
    }
}

fn gaps<'a>(events: &'a [Event], reason: &str) -> Vec<&'a Gap> {
    of(events, "coverage_gap")
        .into_iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| gap.reason.word() == reason)
        .collect()
}

#[test]
fn a_send_longer_than_what_is_inspected_says_so() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        exec(11, 1, SEC, vec![]),
        send(10, SEC + 4, ends(1, 80), None, None, cut(200_000, 65_536)),
        send(10, SEC + 5, ends(1, 80), None, None, payload(10, vec![])),
        // Who holds nothing hides nothing.
        send(11, SEC + 6, ends(2, 80), None, None, cut(200_000, 65_536)),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    let evidence = sent[0].evidence.as_ref().expect("evidence");
    assert_eq!(grade(sent[0]), "lineage");
    assert_eq!(
        (evidence.payload_bytes, evidence.inspected_bytes),
        (200_010, 65_546)
    );
    assert!(sent[0].truncation.as_ref().is_some_and(|t| t.payload));
    assert_eq!(sent[0].coverage.len(), 1);
    let reported = gaps(&events, "payload_truncated");
    assert_eq!(reported.len(), 1);
    assert_eq!(
        (
            reported[0].count,
            reported[0].signal.map_or("", Signal::word)
        ),
        (1, "tcp_send")
    );
    assert!(!reported[0].remedy.is_empty());
}

#[test]
fn a_tls_write_longer_than_what_is_inspected_says_so() {
    let c = credential("c");
    let mut long = tls(10, SEC + 2, 7, 70, 100_000, vec![]);
    if let Observation::TlsWrite(seen) = &mut long {
        seen.payload = cut(100_000, 65_536);
    }
    let record = Some((0x17, 16_401));
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        long,
        send(
            10,
            SEC + 3,
            ends(1, 443),
            record,
            Some((7, 70)),
            payload(16_406, vec![]),
        ),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1, "{events:?}");
    assert_eq!(grade(sent[0]), "lineage");
    assert!(sent[0].truncation.as_ref().is_some_and(|t| t.payload));
    assert_eq!(gaps(&events, "payload_truncated").len(), 1);
}

#[test]
fn the_whole_of_a_payload_leaves_no_mark() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        send(10, SEC + 4, ends(1, 80), None, None, payload(10, vec![])),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert!(sent[0].truncation.is_none() && sent[0].coverage.is_empty());
    assert_eq!(
        sent[0].evidence.as_ref().map(|e| e.inspected_bytes),
        Some(10)
    );
    assert!(of(&events, "coverage_gap").is_empty());
}

#[test]
fn more_credentials_than_one_process_can_hold_are_a_gap_and_only_one() {
    let many = |from: u32, to: u32| -> Vec<Found> {
        (from..to)
            .map(|n| env(&credential(&n.to_string()), &format!("T{n}")))
            .collect()
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, many(0, 1_030)),
        Observation::Tick {
            boot_ns: 2 * SEC,
            wall_ns: 1_002 * SEC,
        },
        Observation::Tick {
            boot_ns: 3 * SEC,
            wall_ns: 1_003 * SEC,
        },
        stop(),
    ]);
    let reported = gaps(&events, "table_full");
    assert_eq!(reported.len(), 1);
    assert_eq!(reported[0].count, 6);
}
