//! From a TLS write to its socket.

use super::*;

#[test]
fn a_tls_write_goes_to_the_socket_of_its_nested_send() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "GITHUB_TOKEN")]),
        send(
            10,
            SEC + 1,
            ends(1, 443),
            Some((0x16, 512)),
            None,
            payload(517, vec![]),
        ),
        tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
        // Ticket traffic on another socket inside the same call proves nothing.
        send(
            10,
            SEC + 3,
            ends(2, 999),
            Some((0x16, 100)),
            Some((7, 70)),
            payload(105, vec![]),
        ),
        send(
            10,
            SEC + 4,
            ends(1, 443),
            Some((0x17, 117)),
            Some((7, 70)),
            payload(122, vec![]),
        ),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1, "{events:#?}");
    assert_eq!(grade(sent[0]), "observed");
    let to = sent[0].destination.as_ref().expect("a destination");
    assert_eq!((to.ip.as_str(), to.port), ("127.0.0.1", 443));
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "nested_send"
    );
    assert_eq!(
        sent[0].source.as_ref().expect("source").env_name,
        "GITHUB_TOKEN"
    );
}

#[test]
fn a_nested_record_of_the_wrong_length_is_no_proof() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
        send(
            10,
            SEC + 4,
            ends(1, 443),
            Some((0x17, 900)),
            Some((7, 70)),
            payload(905, vec![]),
        ),
        send(
            10,
            SEC + 5,
            ends(2, 444),
            Some((0x17, 800)),
            None,
            payload(805, vec![]),
        ),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    let evidence = sent[0].evidence.as_ref().expect("evidence");
    assert_eq!(
        (
            evidence.grade.as_str(),
            evidence.destination_method.as_str()
        ),
        ("observed", "unknown")
    );
    assert_eq!(sent[0].destination.as_ref().expect("destination").ip, "");
}

#[test]
fn memory_bio_by_record_length_only_when_unique() {
    let c = credential("c");
    let story = |second_len: u16| {
        run(&[
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
            send(
                10,
                SEC + 4,
                ends(1, 443),
                Some((0x17, 117)),
                None,
                payload(122, vec![]),
            ),
            send(
                10,
                SEC + 5,
                ends(2, 444),
                Some((0x17, second_len)),
                None,
                payload(400, vec![]),
            ),
            Observation::Tick {
                boot_ns: 3 * SEC,
                wall_ns: 1_003 * SEC,
            },
            stop(),
        ])
    };
    let unique = story(300);
    let sent = of(&unique, "credential_sent");
    assert_eq!(sent[0].destination.as_ref().expect("destination").port, 443);
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "record_length"
    );
    let ambiguous = story(117);
    let sent = of(&ambiguous, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "unknown"
    );
}

/// (port, method) of every observed send of `events`.
fn destinations(events: &[v1::Event]) -> Vec<(u32, String)> {
    of(events, "credential_sent")
        .iter()
        .filter(|e| grade(e) == "observed")
        .map(|e| {
            let method = e
                .evidence
                .as_ref()
                .expect("evidence")
                .destination_method
                .clone();
            (e.destination.as_ref().expect("destination").port, method)
        })
        .collect()
}

/// A send of ciphertext kept in memory, by the records its captured bytes show.
fn later(boot_ns: u64, sock: u64, total: u64, records: &[(u8, u16)]) -> Observation {
    let mut observation = send(
        10,
        boot_ns,
        ends(sock, 440 + sock as u16),
        Some(records[0]),
        None,
        payload(total, vec![]),
    );
    if let Observation::Send(send) = &mut observation {
        send.tls_more = records[1..].to_vec();
    }
    observation
}

#[test]
fn writes_kept_in_memory_are_joined_by_exact_length_and_never_swapped() {
    let c = credential("c");
    let write = |t, call, session, total| tls(10, t, call, session, total, vec![hit(&c, true)]);
    let other = |t, call, session, total| tls(10, t, call, session, total, vec![]);
    let data = |t, sock, plain: u64| later(t, sock, plain + 22, &[(0x17, plain as u16 + 17)]);
    let joined = |port: u32| (port, "record_length".to_owned());
    let unknown = || (0, "unknown".to_owned());
    let hello = |t, sock| later(t, sock, 517, &[(0x16, 512)]);
    let connect = |t, sock| Observation::Connect {
        at: at(10, t),
        ends: ends(sock, 440 + sock as u16),
    };
    let t = SEC;
    type Story = (&'static str, Vec<Observation>, Vec<(u32, String)>);
    let stories: Vec<Story> = vec![
        (
            "two connections, one after the other, same length",
            vec![
                write(t + 1, 1, 70, 100),
                data(t + 2, 1, 100),
                write(t + 3, 2, 71, 100),
                data(t + 4, 2, 100),
            ],
            vec![joined(441), joined(442)],
        ),
        (
            "two at once, different lengths, sends in the other order",
            vec![
                write(t + 1, 1, 70, 100),
                write(t + 2, 2, 71, 150),
                data(t + 3, 2, 150),
                data(t + 4, 1, 100),
            ],
            vec![joined(442), joined(441)],
        ),
        (
            "two at once of the same length cannot be told apart",
            vec![
                write(t + 1, 1, 70, 100),
                write(t + 2, 2, 71, 100),
                data(t + 3, 2, 100),
                data(t + 4, 1, 100),
            ],
            vec![unknown(), unknown()],
        ),
        (
            "and once both have left, they are in nobody's way",
            vec![
                write(t + 1, 1, 70, 100),
                write(t + 2, 2, 71, 100),
                data(t + 3, 2, 100),
                data(t + 4, 1, 100),
                write(t + 5, 3, 70, 100),
                data(t + 6, 1, 100),
                write(t + 7, 4, 71, 100),
                data(t + 8, 2, 100),
            ],
            vec![joined(441), joined(442), unknown(), unknown()],
        ),
        (
            "attempts of both in between are no writes of their own",
            vec![
                write(t + 1, 1, 70, 100),
                write(t + 2, 2, 71, 100),
                write(t + 3, 3, 70, 100),
                data(t + 4, 1, 100),
                write(t + 5, 4, 71, 100),
                data(t + 6, 2, 100),
                write(t + 7, 5, 70, 100),
                data(t + 8, 3, 100),
            ],
            vec![joined(443), unknown(), unknown()],
        ),
        (
            "nor from one without a credential",
            vec![
                write(t + 1, 1, 70, 100),
                other(t + 2, 2, 71, 100),
                data(t + 3, 2, 100),
                data(t + 4, 1, 100),
            ],
            vec![unknown()],
        ),
        (
            "it may have left by a socket that sent more, before another fits",
            vec![
                write(t + 1, 1, 70, 100),
                later(t + 2, 1, 900, &[(0x17, 53)]),
                data(t + 3, 2, 100),
            ],
            vec![unknown()],
        ),
        (
            "a send of that length that no write explains takes the claim back",
            vec![
                write(t + 1, 1, 70, 100),
                data(t + 2, 1, 100),
                data(t + 3, 2, 100),
            ],
            vec![unknown()],
        ),
        (
            "attempts during the handshake, then data behind the Finished, like Node",
            vec![
                write(t + 1, 1, 70, 100),
                hello(t + 2, 1),
                write(t + 3, 2, 71, 150),
                hello(t + 4, 2),
                write(t + 5, 3, 71, 150),
                later(t + 6, 2, 6 + 74 + 172, &[(0x14, 1), (0x17, 69)]),
                write(t + 7, 4, 70, 100),
                later(t + 8, 1, 6 + 74 + 122, &[(0x14, 1), (0x17, 69)]),
            ],
            vec![joined(442), joined(441)],
        ),
        (
            "several writes of one session in one send",
            vec![
                other(t + 1, 1, 70, 24),
                write(t + 2, 2, 70, 63),
                later(t + 3, 1, 24 + 63 + 44, &[(0x17, 41)]),
                data(t + 4, 2, 500),
            ],
            vec![joined(441)],
        ),
        (
            "the same write twice, in one send",
            vec![
                write(t + 1, 1, 70, 100),
                write(t + 2, 2, 70, 100),
                later(t + 3, 1, 244, &[(0x17, 117)]),
            ],
            vec![joined(441), joined(441)],
        ),
        (
            "one connection, lengths that fit nothing",
            vec![
                write(t + 1, 1, 70, 100),
                later(t + 2, 1, 700, &[(0x17, 300)]),
            ],
            vec![(441, "single_socket".to_owned())],
        ),
        (
            "one connection that sent nothing since: nobody saw it leave",
            vec![data(t + 1, 1, 400), write(t + 2, 1, 70, 100)],
            vec![],
        ),
        (
            "records relayed on a connection that began with no handshake",
            vec![
                connect(t + 1, 1),
                write(t + 2, 1, 70, 100),
                data(t + 3, 1, 100),
            ],
            vec![],
        ),
        (
            "and on one that began with one",
            vec![
                connect(t + 1, 1),
                hello(t + 2, 1),
                write(t + 3, 1, 70, 100),
                data(t + 4, 1, 100),
            ],
            vec![joined(441)],
        ),
    ];
    for (what, story, expected) in stories {
        let events = of_a_holder(&c, story);
        assert_eq!(destinations(&events), expected, "{what}: {events:#?}");
    }
}

/// What becomes of a story whose process holds the credential from its start.
fn of_a_holder(credential: &CredentialRef, story: Vec<Observation>) -> Vec<v1::Event> {
    let observations: Vec<_> = [start(), exec(10, 1, SEC, vec![env(credential, "T")])]
        .into_iter()
        .chain(story)
        .chain([stop()])
        .collect();
    run(&observations)
}

/// What a library was given and did not send was not sent; what it was given without a credential, and sent, tells that
/// it is one that is looked into.
#[test]
fn only_what_left_was_sent() {
    let c = credential("c");
    let gaps = |story: Vec<Observation>| -> Vec<String> {
        let events = of_a_holder(&c, story);
        assert_eq!(destinations(&events), [], "{events:#?}");
        of(&events, "coverage_gap")
            .iter()
            .filter_map(|e| e.gap.as_ref())
            .filter(|gap| gap.signal.starts_with("t"))
            .map(|gap| {
                assert!(!gap.detail.is_empty() && !gap.remedy.is_empty());
                gap.reason.clone()
            })
            .collect()
    };
    let t = SEC;
    let secret = |t| tls(10, t, 1, 70, 100, vec![hit(&c, true)]);
    assert_eq!(gaps(vec![secret(t + 1)]), ["tls_write_unsent"]);
    let harmless = tls(10, t + 1, 1, 70, 100, vec![]);
    assert_eq!(
        gaps(vec![harmless, later(t + 2, 1, 122, &[(0x17, 117)])]),
        [""; 0]
    );
    assert_eq!(
        gaps(vec![later(t + 2, 1, 122, &[(0x17, 117)])]),
        ["library_not_covered"]
    );
}

#[test]
fn a_write_that_waits_for_its_handshake_is_reported_once() {
    let c = credential("c");
    let tick = |t| Observation::Tick {
        boot_ns: t,
        wall_ns: 1_000 * SEC + t,
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        tls(10, SEC + 1, 1, 70, 100, vec![hit(&c, true)]),
        later(SEC + 2, 1, 517, &[(0x16, 512)]),
        tick(3 * SEC),
        tls(10, 3 * SEC + 1, 2, 70, 100, vec![hit(&c, true)]),
        later(3 * SEC + 2, 1, 6 + 58 + 122, &[(0x14, 1), (0x17, 53)]),
        tick(4 * SEC),
        tick(20 * SEC),
        stop(),
    ]);
    assert_eq!(
        destinations(&events),
        [(441, "record_length".to_owned())],
        "{events:#?}"
    );
}

#[test]
fn a_socket_used_again_lends_no_names_to_the_connection_before() {
    let c = credential("c");
    let named = |mut observation: Observation, name: &str| {
        if let Observation::Send(send) = &mut observation {
            send.payload.hosts.push(HostName {
                name: name.to_owned(),
                provenance: "host_header".to_owned(),
            });
        }
        observation
    };
    let again = Ends {
        local_port: 50_000,
        ..ends(1, 80)
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        named(later(SEC + 1, 1, 517, &[(0x16, 512)]), "one.example"),
        tls(10, SEC + 2, 1, 70, 100, vec![hit(&c, true)]),
        later(SEC + 3, 1, 122, &[(0x17, 117)]),
        // Decided after the socket went to another connection.
        named(
            send(10, SEC + 4, again, None, None, payload(9, vec![])),
            "two.example",
        ),
        stop(),
    ]);
    assert_eq!(destinations(&events), [(441, "record_length".to_owned())]);
    for e in of(&events, "credential_sent") {
        let to = e.destination.as_ref().expect("destination");
        let other = match to.port {
            441 => "two.example",
            _ => "one.example",
        };
        assert!(to.hosts.iter().all(|h| h.name != other), "{e:#?}");
    }
}
