//! TLS inside TLS: what is given to the inner session goes where the outer one sends.

use super::*;

const T: u64 = 10 * SEC;
/// A write of 100 bytes as a record of TLS 1.3.
const INNER: (u8, u16) = (0x17, 117);

/// The outer session is given this record.
fn outer(t: u64, call: u64, session: u64, record: (u8, u16)) -> Observation {
    let total = u64::from(record.1) + 5;
    let mut write = tls(10, t, call, session, total, vec![]);
    if let Observation::TlsWrite(seen) = &mut write {
        seen.record = Some(record);
    }
    write
}

fn inner(t: u64, c: &CredentialRef) -> Observation {
    let mut write = tls(10, t, 1, 70, 100, vec![hit(c, true)]);
    if let Observation::TlsWrite(seen) = &mut write {
        seen.payload.hosts.push(HostName {
            name: "api.example.test".to_owned(),
            provenance: "host_header".to_owned(),
        });
    }
    write
}

/// 122 bytes in a record of their own, in this call.
fn sent(t: u64, call: u64, session: u64) -> Observation {
    let to = ends(1, 3128);
    let record = Some((0x17, 139));
    send(
        10,
        t,
        to,
        record,
        Some((call, session)),
        payload(144, vec![]),
    )
}

fn story(c: &CredentialRef, middle: Vec<Observation>) -> Vec<Event> {
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(c, "T")])];
    all.extend(middle);
    all.push(stop());
    run(&all)
}

#[test]
fn a_write_goes_where_the_session_goes_that_its_record_is_given_to() {
    let c = credential("c");
    let events = story(
        &c,
        vec![
            inner(T, &c),
            outer(T + 9, 2, 71, INNER),
            sent(T + 19, 2, 71),
        ],
    );
    let reported = of(&events, "credential_sent");
    assert_eq!(reported.len(), 1, "{events:#?}");
    assert_eq!(
        (grade(reported[0]), method(reported[0])),
        ("observed", "nested_send")
    );
    let to = reported[0].destination.as_ref().unwrap();
    assert_eq!(
        (to.port, to.hosts[0].name.as_str()),
        (3128, "api.example.test")
    );
    assert!(of(&events, "coverage_gap").is_empty(), "{events:#?}");
}

#[test]
fn only_its_own_record_given_at_once_by_its_thread_proves_it() {
    let c = credential("c");
    let by_another = |mut write: Observation| {
        if let Observation::TlsWrite(seen) = &mut write {
            seen.at.tid += 1;
        }
        write
    };
    let to_another = send(10, T + 5, ends(2, 80), None, None, payload(9, vec![]));
    let bare = tls(10, T + 9, 2, 71, 122, vec![]);
    for (what, between) in [
        ("another length", vec![outer(T + 9, 2, 71, (0x17, 118))]),
        ("a handshake", vec![outer(T + 9, 2, 71, (0x16, 117))]),
        ("no record", vec![bare]),
        ("the same session", vec![outer(T + 9, 2, 70, INNER)]),
        (
            "another thread",
            vec![by_another(outer(T + 9, 2, 71, INNER))],
        ),
        ("later", vec![outer(T + 6_000_000, 2, 71, INNER)]),
        (
            "a send before it",
            vec![to_another, outer(T + 9, 2, 71, INNER)],
        ),
    ] {
        let mut all = vec![inner(T, &c)];
        all.extend(between);
        all.push(sent(T + 7_000_000, 2, 71));
        let events = story(&c, all);
        let observed = of(&events, "credential_sent")
            .into_iter()
            .filter(|e| grade(e) == "observed")
            .count();
        assert_eq!(observed, 0, "{what}: {events:#?}");
    }
}

#[test]
fn what_the_outer_session_did_not_send_is_said_to_be_inside_it() {
    let c = credential("c");
    let events = story(&c, vec![inner(T, &c), outer(T + 9, 2, 71, INNER)]);
    let gaps = of(&events, "coverage_gap");
    assert_eq!(gaps.len(), 1, "{events:#?}");
    let gap = gaps[0].gap.as_ref().unwrap();
    assert_eq!(gap.reason, GapReason::TlsWriteUnsent);
    assert!(gap.detail.contains("another TLS session"), "{gap:?}");
    // It left, and nobody knows by which connection.
    let unlike = send(
        10,
        T + 19,
        ends(1, 3128),
        Some((0x17, 900)),
        Some((2, 71)),
        payload(905, vec![]),
    );
    let events = story(&c, vec![inner(T, &c), outer(T + 9, 2, 71, INNER), unlike]);
    let reported = of(&events, "credential_sent");
    assert_eq!(
        (grade(reported[0]), method(reported[0])),
        ("observed", "unknown")
    );
    assert!(of(&events, "coverage_gap").is_empty(), "{events:#?}");
}
