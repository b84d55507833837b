//! The same bytes given to a library again: another attempt, or another write.

use super::*;

const T: u64 = 10 * SEC;

/// A write of 100 bytes with this hash.
fn write(t: u64, call: u64, session: u64, digest: u64, c: &CredentialRef) -> Observation {
    let mut write = tls(10, t, call, session, 100, vec![hit(c, true)]);
    if let Observation::TlsWrite(seen) = &mut write {
        seen.digest = Some(digest);
    }
    write
}

/// A send as long as that, on a connection that is older than what was seen: its cipher is not known.
fn data(t: u64, sock: u64) -> Observation {
    let record = Some((0x17, 117));
    send(10, t, ends(sock, 443), record, None, payload(122, vec![]))
}

/// Observed sends of a story, by what is known of where they went.
fn reported(story: Vec<Observation>, c: &CredentialRef) -> Vec<String> {
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(c, "T")])];
    // Two connections, so that none is the only one.
    all.extend([data(2 * SEC, 1), data(2 * SEC, 2)]);
    all.extend(story);
    all.push(stop());
    let events = run(&all);
    let sent = of(&events, "credential_sent");
    let observed = sent.iter().filter(|e| grade(e) == "observed");
    observed.map(|e| method(e).to_owned()).collect()
}

#[test]
fn as_many_are_reported_as_left() {
    let c = credential("c");
    // Requests that differ by one letter, and the same one again and again.
    for digest in [0, 1] {
        let requests = (0..6).flat_map(|n| {
            let t = T + n * 1_000_000;
            let by_another = |mut sent: Observation| {
                if let Observation::Send(send) = &mut sent {
                    send.at.tid += 1;
                }
                sent
            };
            [
                write(t, n + 1, 70, n * digest, &c),
                by_another(data(t + 1_000, 1)),
            ]
        });
        assert_eq!(reported(requests.collect(), &c), ["unknown"; 6], "{digest}");
    }
}

#[test]
fn attempts_in_vain_are_not_reported() {
    let c = credential("c");
    let retry = |digest| {
        vec![
            write(T, 1, 70, 5, &c),
            write(T + 1, 2, 70, digest, &c),
            data(T + 10_000_000, 1),
        ]
    };
    assert_eq!(reported(retry(5), &c).len(), 1);
    // Other bytes of that length are another write, which waits for its send.
    assert_eq!(reported(retry(6), &c).len(), 2);
    // Two connections try again in between, and two sends leave.
    let both = vec![
        write(T, 1, 70, 5, &c),
        write(T + 1, 2, 71, 6, &c),
        write(T + 2, 3, 70, 5, &c),
        data(T + 10_000_000, 1),
        write(T + 10_000_001, 4, 71, 6, &c),
        data(T + 20_000_000, 2),
    ];
    assert_eq!(reported(both, &c).len(), 2);
}

/// The same request left before by a send that proved nothing: the proof of the next does not swallow it.
#[test]
fn what_left_before_is_no_attempt_at_what_is_proven() {
    let c = credential("c");
    let mut nested = data(T + 10_000_002, 1);
    if let Observation::Send(send) = &mut nested {
        send.tls_call = Some((2, 70));
    }
    let story = |first: Option<Observation>| {
        let mut all = vec![write(T, 1, 70, 5, &c)];
        all.extend(first);
        all.extend([write(T + 10_000_001, 2, 70, 5, &c), nested.clone()]);
        reported(all, &c)
    };
    let first = data(T + 6_000_000, 1);
    assert_eq!(story(Some(first)), ["nested_send", "unknown"]);
    assert_eq!(story(None), ["nested_send"]);
}
