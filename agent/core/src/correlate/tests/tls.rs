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
    assert_eq!(method(sent[0]), "nested_send");
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
    assert_eq!((grade(sent[0]), method(sent[0])), ("observed", "unknown"));
    assert_eq!(sent[0].destination.as_ref().expect("destination").ip, "");
}

#[test]
fn memory_bio_by_record_length_only_when_unique() {
    let c = credential("c");
    let story = |second_len: u16| {
        run(&[
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            greeting(ends(1, 443)),
            finished(ends(1, 443)),
            greeting(ends(2, 444)),
            finished(ends(2, 444)),
            tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
            by_another_thread(send(
                10,
                SEC + 4,
                ends(1, 443),
                Some((0x17, 117)),
                None,
                payload(122, vec![]),
            )),
            by_another_thread(send(
                10,
                SEC + 5,
                ends(2, 444),
                Some((0x17, second_len)),
                None,
                payload(400, vec![]),
            )),
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
    assert_eq!(method(sent[0]), "record_length");
    let ambiguous = story(117);
    let sent = of(&ambiguous, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(method(sent[0]), "unknown");
}

/// A client's hello, and the end of its handshake: TLS 1.3.
fn greeting(ends: Endpoints) -> Observation {
    let hello = Some((0x16, 512));
    send(10, SEC + 1, ends, hello, None, payload(517, vec![]))
}

fn finished(ends: Endpoints) -> Observation {
    let change = Some((0x14, 1));
    let mut observation = send(10, SEC + 1, ends, change, None, payload(64, vec![]));
    if let Observation::Send(send) = &mut observation {
        send.tls_more = vec![(0x17, 53)];
    }
    observation
}

/// (port, method) of every observed send of `events`.
fn destinations(events: &[Event]) -> Vec<(u32, String)> {
    of(events, "credential_sent")
        .iter()
        .filter(|e| grade(e) == "observed")
        .map(|e| {
            let port = e.destination.as_ref().expect("destination").port;
            (port, method(e).to_owned())
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
    by_another_thread(observation)
}

/// Whoever sends is not the thread that encrypted.
fn by_another_thread(mut observation: Observation) -> Observation {
    if let Observation::Send(send) = &mut observation {
        send.at.tid += 1;
    }
    observation
}

/// The same send by the thread that made the writes.
fn by_the_same_thread(mut observation: Observation) -> Observation {
    if let Observation::Send(send) = &mut observation {
        send.at.tid -= 1;
    }
    observation
}

/// No send, but what the one before goes on with.
fn more(mut send: Observation, from: u64) -> Observation {
    if let Observation::Send(seen) = &mut send {
        seen.goes_on = Some(from);
    }
    send
}

/// The same write as rustls makes them: a record that is encrypted once.
fn once(mut write: Observation) -> Observation {
    if let Observation::TlsWrite(seen) = &mut write {
        seen.once = true;
    }
    write
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
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
                later(t + 2, 1, 64, &[(0x14, 1), (0x17, 53)]),
                write(t + 3, 1, 70, 100),
                data(t + 4, 1, 100),
            ],
            vec![joined(441)],
        ),
        (
            "a Finished in a piece of its own, then equal records of rustls: each is a write",
            vec![
                connect(t + 1, 1),
                hello(t + 2, 1),
                later(t + 2, 1, 6 + 74, &[(0x14, 1)]),
                more(later(t + 2, 1, 6 + 74, &[(0x17, 69)]), 6),
                once(write(t + 3, 1, 70, 100)),
                data(t + 4, 1, 100),
                once(write(t + 5, 2, 70, 100)),
                once(write(t + 6, 3, 70, 100)),
                later(t + 7, 1, 244, &[(0x17, 117)]),
            ],
            vec![joined(441), joined(441), joined(441)],
        ),
        (
            "also where nothing proves them",
            vec![
                once(write(t + 1, 1, 70, 100)),
                once(write(t + 2, 2, 70, 100)),
                later(t + 3, 1, 700, &[(0x17, 300)]),
            ],
            vec![(441, "single_socket".to_owned()); 2],
        ),
    ];
    for (what, story, expected) in stories {
        let mut all = greeted(&story);
        all.extend(story);
        let events = of_a_holder(&c, all);
        assert_eq!(destinations(&events), expected, "{what}: {events:#?}");
    }
}

/// The handshakes of the connections of a story that shows none, so that their ciphers are known: TLS 1.3.
fn greeted(story: &[Observation]) -> Vec<Observation> {
    let shown = |sock: u64| {
        story.iter().any(|o| match o {
            Observation::Connect { ends, .. } => ends.sock == sock,
            Observation::Send(send) => send.ends.sock == sock && send.hello.is_some(),
            _ => false,
        })
    };
    let mut socks: Vec<u64> = story
        .iter()
        .filter_map(|o| match o {
            Observation::Send(send) if send.tls_record.is_some() => Some(send.ends.sock),
            _ => None,
        })
        .collect();
    socks.sort_unstable();
    socks.dedup();
    let greet = |sock| {
        [
            later(SEC - 2, sock, 517, &[(0x16, 512)]),
            later(SEC - 1, sock, 64, &[(0x14, 1), (0x17, 53)]),
        ]
    };
    socks
        .into_iter()
        .filter(|sock| !shown(*sock))
        .flat_map(greet)
        .collect()
}

/// What becomes of a story whose process holds the credential from its start.
fn of_a_holder(credential: &CredentialRef, story: Vec<Observation>) -> Vec<Event> {
    let observations: Vec<_> = [start(), exec(10, 1, SEC, vec![env(credential, "T")])]
        .into_iter()
        .chain(story)
        .chain([stop()])
        .collect();
    run(&observations)
}

/// What a library was given and did not send was not sent; what it was given without a credential, and sent, tells that
/// it is one that is inspected.
#[test]
fn only_what_left_was_sent() {
    let c = credential("c");
    let gaps = |story: Vec<Observation>| -> Vec<String> {
        let events = of_a_holder(&c, story);
        assert_eq!(destinations(&events), [], "{events:#?}");
        of(&events, "coverage_gap")
            .iter()
            .filter_map(|e| e.gap.as_ref())
            .filter(|gap| gap.signal.is_some_and(|s| s.word().starts_with('t')))
            .map(|gap| {
                assert!(!gap.detail.is_empty() && !gap.remedy.is_empty());
                gap.reason.word().to_owned()
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

/// Where records were lost, a write that was not seen is no proof of a library that nobody hooked.
#[test]
fn lost_records_are_not_taken_for_a_library_that_is_not_hooked() {
    use keytrail_model::{GapReason, GapSeen};
    let c = credential("c");
    let lost = |t| Observation::Gap(GapSeen::new(GapReason::RecordsLost, t));
    let sent = |t| later(t, 1, 122, &[(0x17, 117)]);
    for (story, not_hooked) in [
        (vec![sent(SEC + 1)], true),
        (vec![sent(SEC + 1), lost(SEC + 2)], false),
        // Long before.
        (vec![lost(SEC), sent(2 * SEC)], true),
    ] {
        let events = of_a_holder(&c, story);
        let reported = events.iter().any(|e| {
            let gap = e.gap.as_ref();
            gap.is_some_and(|gap| gap.reason == GapReason::LibraryNotCovered)
        });
        assert_eq!(reported, not_hooked, "{events:#?}");
        let lineage = of(&events, "credential_sent");
        assert_eq!(lineage.len(), 1);
        assert_eq!(
            lineage[0].coverage[0].contains("records were lost"),
            !not_hooked,
            "{lineage:#?}"
        );
    }
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
    let again = Endpoints {
        local_port: 50_000,
        ..ends(1, 80)
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        named(later(SEC + 1, 1, 517, &[(0x16, 512)]), "one.example"),
        later(SEC + 1, 1, 64, &[(0x14, 1), (0x17, 53)]),
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

/// A write to a connection whose handshake never ends was not sent, whatever others send meanwhile.
#[test]
fn a_write_whose_handshake_never_ended_is_not_observed() {
    let c = credential("c");
    let story = |answered: bool| {
        let mut all = vec![
            // One connection does well.
            later(SEC + 1, 1, 517, &[(0x16, 512)]),
            later(SEC + 2, 1, 64, &[(0x14, 1), (0x17, 53)]),
            // The other is never answered.
            later(2 * SEC, 2, 517, &[(0x16, 512)]),
            tls(10, 2 * SEC + 1, 1, 72, 323, vec![hit(&c, true)]),
        ];
        if answered {
            all.push(later(2 * SEC + 2, 2, 64, &[(0x14, 1), (0x17, 53)]));
            // Not its length: nobody knows which connection it left by.
            all.push(later(2 * SEC + 3, 2, 900, &[(0x17, 895)]));
        }
        all.push(later(2 * SEC + 4, 1, 1_200, &[(0x17, 1_195)]));
        of_a_holder(&c, all)
    };
    let hanging = story(false);
    assert_eq!(destinations(&hanging), [], "{hanging:#?}");
    let gaps: Vec<_> = of(&hanging, "coverage_gap")
        .into_iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| gap.reason == GapReason::TlsWriteUnsent)
        .collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].detail.contains("handshake"), "{gaps:?}");
    assert_eq!(destinations(&story(true)), [(0, "unknown".to_owned())]);
}

/// 323 bytes and 29 are 330 and 22: only one of them is what a TLS 1.3 connection sent.
#[test]
fn lengths_of_different_ciphers_do_not_meet() {
    let c = credential("c");
    let story = |finished: &[(u8, u16)], finished_bytes| {
        of_a_holder(
            &c,
            vec![
                later(SEC + 1, 1, 517, &[(0x16, 512)]),
                later(SEC + 2, 1, finished_bytes, finished),
                later(SEC + 3, 2, 517, &[(0x16, 512)]),
                // Its connection is not answered.
                tls(10, SEC + 4, 1, 72, 323, vec![hit(&c, true)]),
                // By a session of which no write was seen.
                later(SEC + 5, 1, 352, &[(0x17, 347)]),
            ],
        )
    };
    assert_eq!(destinations(&story(&[(0x14, 1), (0x17, 53)], 64)), []);
    let gcm = destinations(&story(&[(0x14, 1), (0x16, 40)], 51));
    assert_eq!(gcm, [(441, "record_length".to_owned())]);
    // A connection from before the agent: it may be either, and other connections may be meant.
    let old = of_a_holder(
        &c,
        vec![
            later(SEC + 1, 2, 900, &[(0x17, 895)]),
            tls(10, SEC + 4, 1, 72, 330, vec![hit(&c, true)]),
            later(SEC + 5, 1, 352, &[(0x17, 347)]),
        ],
    );
    assert_eq!(destinations(&old), [(0, "unknown".to_owned())]);
}

/// A connection that has carried one session carries no other: its sends make nobody else's write doubtful.
#[test]
fn a_socket_carries_one_session() {
    let c = credential("c");
    let tick = |t| Observation::Tick {
        boot_ns: t,
        wall_ns: 1_000 * SEC + t,
    };
    let write = |t, call, session, hits| tls(10, t, call, session, 100, hits);
    let data = |t, sock| later(t, sock, 122, &[(0x17, 117)]);
    let story = vec![
        write(SEC + 1, 1, 70, vec![]),
        data(SEC + 2, 1),
        tick(2 * SEC),
        // Both write the same length at once; the first socket is known to be the first session's.
        write(3 * SEC, 2, 70, vec![]),
        write(3 * SEC + 1, 3, 71, vec![hit(&c, true)]),
        data(3 * SEC + 2, 1),
        data(3 * SEC + 3, 2),
        tick(4 * SEC),
    ];
    let mut all = greeted(&story);
    all.extend(story);
    let events = of_a_holder(&c, all);
    assert_eq!(
        destinations(&events),
        [(442, "record_length".to_owned())],
        "{events:#?}"
    );
}

/// Thousands of requests of one process within the time that a proof waits: none vanishes, and what finds no room is said.
#[test]
fn no_proven_claim_vanishes() {
    let secrets: Vec<_> = (0..6_000).map(|n| credential(&n.to_string())).collect();
    let story = |number: usize| {
        let mut core = Core::new();
        let mut events = core.step(&start()).events;
        for o in [
            exec(10, 1, SEC, vec![]),
            later(SEC + 1, 1, 517, &[(0x16, 512)]),
            later(SEC + 2, 1, 64, &[(0x14, 1), (0x17, 53)]),
        ] {
            events.extend(core.step(&o).events);
        }
        for (n, secret) in (0..).zip(&secrets[..number]) {
            let t = 2 * SEC + n * 10;
            let hits = vec![hit(secret, true)];
            events.extend(core.step(&tls(10, t, n + 1, 70, 100, hits)).events);
            events.extend(core.step(&later(t + 1, 1, 122, &[(0x17, 117)])).events);
        }
        events.extend(core.step(&stop()).events);
        events
    };
    let all = destinations(&story(3_200));
    assert_eq!(all.len(), 3_200);
    assert!(all.iter().all(|d| *d == (441, "record_length".to_owned())));
    let events = story(6_000);
    let all = destinations(&events);
    assert_eq!(all.len(), 6_000);
    let unknown = all.iter().filter(|d| d.0 == 0).count() as u64;
    let reported: u64 = of(&events, "coverage_gap")
        .into_iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| gap.detail.contains("destinations of TLS writes"))
        .map(|gap| gap.count)
        .sum();
    assert!(unknown > 0 && reported == unknown, "{unknown} {reported}");
}

/// A write of a session that names its socket.
fn by_fd(boot_ns: u64, call: u64, total: u64, ends: &Endpoints, hits: Vec<Hit>) -> Observation {
    let Observation::TlsWrite(mut seen) = tls(10, boot_ns, call, 70, total, hits) else {
        unreachable!()
    };
    seen.socket = Some(Socket {
        sock: ends.sock,
        local_port: ends.local_port,
        peer_port: ends.peer_port,
    });
    Observation::TlsWrite(seen)
}

fn record(boot_ns: u64, tid: u32, ends: Endpoints, length: u16) -> Observation {
    let total = u64::from(length) + 5;
    let observation = send(
        10,
        boot_ns,
        ends,
        Some((0x17, length)),
        None,
        payload(total, vec![]),
    );
    let Observation::Send(mut seen) = observation else {
        unreachable!()
    };
    seen.at.tid = tid;
    Observation::Send(seen)
}

#[test]
fn a_session_that_names_its_socket_is_found_there_only() {
    let c = credential("c");
    let (mine, other) = (ends(1, 443), ends(2, 444));
    let handshake = |ends: Endpoints| {
        send(
            10,
            SEC + 1,
            ends,
            Some((0x16, 512)),
            None,
            payload(517, vec![]),
        )
    };
    let story = |sends: Vec<Observation>| {
        let mut story = vec![
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            handshake(mine.clone()),
            handshake(other.clone()),
            by_fd(SEC + 2, 7, 3000, &mine, vec![hit(&c, true)]),
        ];
        story.extend(sends);
        story.push(Observation::Tick {
            boot_ns: 20 * SEC,
            wall_ns: 1_020 * SEC,
        });
        story.push(stop());
        run(&story)
    };
    let connection = |port: u32| (port, "connection_fd".to_owned());
    // A short first record, from another thread; a fitting one by another socket comes first and is not it.
    let events = story(vec![
        record(SEC + 3, 10, other.clone(), 3017),
        record(SEC + 4, 12, mine.clone(), 1201),
        record(SEC + 5, 12, mine.clone(), 1850),
    ]);
    assert_eq!(destinations(&events), [connection(443)]);
    // The address of the socket is another connection's by now.
    let mut later = mine.clone();
    later.local_port += 1;
    // Longer than the whole write.
    let unlike = [
        vec![record(SEC + 3, 10, later, 1201)],
        vec![record(SEC + 3, 10, mine.clone(), 9000)],
    ];
    for sends in unlike {
        let events = story(sends);
        assert_eq!(destinations(&events), [], "{events:#?}");
        let gaps = of(&events, "coverage_gap");
        assert!(
            gaps.iter()
                .any(|e| e.gap.as_ref().expect("gap").reason == GapReason::TlsWriteUnsent),
            "{gaps:#?}"
        );
    }
}

#[test]
fn what_leaves_by_a_named_socket_explains_no_other_session() {
    let c = credential("c");
    let mine = ends(1, 443);
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        by_fd(SEC + 2, 7, 3000, &mine, vec![]),
        // Of a session whose socket is not known.
        tls(10, SEC + 2, 8, 71, 100, vec![hit(&c, true)]),
        record(SEC + 3, 10, mine.clone(), 1201),
        record(SEC + 4, 10, mine, 117),
        Observation::Tick {
            boot_ns: 20 * SEC,
            wall_ns: 1_020 * SEC,
        },
        stop(),
    ]);
    assert_eq!(destinations(&events), [], "{events:#?}");
}

/// Node: whatever else waits, what the thread encrypted last is what it sends next.
mod next_send {
    use super::*;

    const T: u64 = 10 * SEC;

    fn write(t: u64, call: u64, session: u64, hits: Vec<Hit>) -> Observation {
        tls(10, t, call, session, 230, hits)
    }

    /// 230 bytes, by the thread that encrypts.
    fn data(t: u64, sock: u64) -> Observation {
        by_the_same_thread(later(t, sock, 252, &[(0x17, 247)]))
    }

    /// The end of a handshake, and the same behind it.
    fn finished_with_data(t: u64, sock: u64) -> Observation {
        by_the_same_thread(later(t, sock, 332, &[(0x14, 1), (0x17, 69)]))
    }

    fn tick(t: u64) -> Observation {
        Observation::Tick {
            boot_ns: t,
            wall_ns: 1_000 * SEC + t,
        }
    }

    fn reported(story: Vec<Observation>, c: &CredentialRef) -> Vec<(u32, String)> {
        let mut all = greeted(&story);
        all.extend(story);
        destinations(&of_a_holder(c, all))
    }

    fn by_next_send(port: u32) -> (u32, String) {
        (port, "next_send".to_owned())
    }

    #[test]
    fn writes_of_one_length_are_distinguished_by_what_was_done_last() {
        let (c, other) = (credential("c"), credential("d"));
        let story = vec![
            // The library keeps nothing of these: the handshakes go on.
            write(T, 1, 70, vec![hit(&c, true)]),
            write(T + 1, 2, 71, vec![hit(&other, true)]),
            write(T + 2, 3, 70, vec![hit(&c, true)]),
            // Another session's, of the same length, sent at once.
            write(T + 10, 4, 72, vec![]),
            data(T + 11, 3),
            write(T + 20, 5, 70, vec![hit(&c, true)]),
            finished_with_data(T + 21, 1),
            write(T + 30, 6, 71, vec![hit(&other, true)]),
            finished_with_data(T + 31, 2),
            tick(T + 2 * SEC),
        ];
        assert_eq!(reported(story, &c), [by_next_send(441), by_next_send(442)]);
    }

    #[test]
    fn several_writes_that_leave_together() {
        let c = credential("c");
        let story = vec![
            tls(10, T, 1, 70, 100, vec![]),
            tls(10, T + 1, 2, 70, 50, vec![hit(&c, true)]),
            by_the_same_thread(later(T + 2, 1, 122 + 72, &[(0x17, 117), (0x17, 67)])),
            tick(T + 2 * SEC),
        ];
        assert_eq!(reported(story, &c), [by_next_send(441)]);
    }

    /// Sockets without room: the send that followed was another session's, and the write's own comes later.
    #[test]
    fn an_unexplained_send_of_that_length_takes_the_claim_back() {
        let c = credential("c");
        let story = vec![
            write(T, 1, 70, vec![hit(&c, true)]),
            data(T + 1, 2),
            data(T + 1_000, 1),
            tick(T + 2 * SEC),
        ];
        assert_eq!(reported(story, &c), [(0, "unknown".to_owned())]);
    }

    #[test]
    fn neither_much_later_nor_another_thread_nor_another_length() {
        let c = credential("c");
        for (send, method) in [
            (data(T + 6_000_000, 1), "record_length"),
            (by_another_thread(data(T + 1, 1)), "record_length"),
            (
                by_the_same_thread(later(T + 1, 1, 253, &[(0x17, 248)])),
                "single_socket",
            ),
        ] {
            let story = vec![
                write(T, 1, 70, vec![hit(&c, true)]),
                send,
                tick(T + 2 * SEC),
            ];
            let found: Vec<String> = reported(story, &c).into_iter().map(|(_, by)| by).collect();
            assert_eq!(found, [method]);
        }
    }

    /// Anything else the thread sends comes between.
    #[test]
    fn only_the_next_send_counts() {
        let c = credential("c");
        let story = vec![
            write(T, 1, 70, vec![hit(&c, true)]),
            by_the_same_thread(later(T + 1, 2, 900, &[(0x17, 895)])),
            data(T + 2, 1),
            tick(T + 2 * SEC),
        ];
        assert!(reported(story, &c).iter().all(|(_, by)| by != "next_send"));
    }

    /// A program that sends at once does not send later what only happens to be as long.
    #[test]
    fn a_length_alone_says_nothing_of_who_sends_at_once() {
        let c = credential("c");
        let story = vec![
            write(T, 1, 71, vec![]),
            data(T + 1, 2),
            // Waits for its handshake, while a send nobody saw the write of is as long.
            write(T + 10, 2, 70, vec![hit(&c, true)]),
            by_another_thread(data(T + 20, 3)),
            tick(T + 2 * SEC),
        ];
        assert!(reported(story, &c).iter().all(|(port, _)| *port == 0));
    }
}
