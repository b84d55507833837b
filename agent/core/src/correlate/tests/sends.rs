//! What may be claimed of what left.

use super::*;

#[test]
fn a_holder_that_sends_other_bytes_is_lineage_only() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        send(10, SEC + 4, ends(1, 80), None, None, payload(10, vec![])),
        send(10, SEC + 5, ends(1, 80), None, None, payload(10, vec![])),
        Observation::Tick {
            boot_ns: 3 * SEC,
            wall_ns: 1_003 * SEC,
        },
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(grade(sent[0]), "lineage");
    assert_eq!(
        sent[0].evidence.as_ref().expect("evidence").payload_bytes,
        20
    );
}

/// A process that closes and connects again gets the same address from the kernel; what it sent before counts too.
#[test]
fn a_socket_used_again_hides_no_earlier_connection() {
    let (c, d) = (credential("c"), credential("d"));
    let other = Endpoints {
        peer_ip: "127.0.0.2".to_owned(),
        local_port: 50_000,
        ..ends(1, 81)
    };
    let third = Endpoints {
        local_port: 50_001,
        ..other.clone()
    };
    let plain = |ns, ends, hits| send(10, SEC + ns, ends, None, None, payload(10, hits));
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T"), env(&d, "D")]),
        plain(4, ends(1, 80), vec![]),
        plain(5, other.clone(), vec![hit(&c, true)]),
        plain(6, third, vec![]),
        Observation::Tick {
            boot_ns: 3 * SEC,
            wall_ns: 1_003 * SEC,
        },
        stop(),
    ]);
    let reported: Vec<_> = of(&events, "credential_sent")
        .iter()
        .map(|e| {
            let to = e.destination.as_ref().expect("destination");
            (grade(e), to.ip.as_str(), to.port)
        })
        .collect();
    let count = |grade: &str, ip: &str, port: u32| {
        reported
            .iter()
            .filter(|t| (t.0, t.1, t.2) == (grade, ip, port))
            .count()
    };
    assert_eq!(count("lineage", "127.0.0.1", 80), 2, "{reported:?}");
    assert_eq!(count("observed", "127.0.0.2", 81), 1, "{reported:?}");
    // Only the third connection: the second carried a secret.
    assert_eq!(count("lineage", "127.0.0.2", 81), 2, "{reported:?}");
    assert_eq!(reported.len(), 5);
}

#[test]
fn an_observed_send_leaves_no_lineage_and_claims_nothing_else() {
    let (c, other) = (credential("c"), credential("d"));
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T"), env(&other, "U")]),
        send(
            10,
            SEC + 4,
            ends(1, 80),
            None,
            None,
            payload(50, vec![hit(&c, true), hit(&c, false)]),
        ),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(grade(sent[0]), "observed");
    assert_eq!(
        sent[0].credential.as_ref().expect("credential").fingerprint,
        c.fingerprint
    );
}

#[test]
fn the_public_identifier_alone_is_identified() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        send(
            10,
            SEC + 4,
            ends(1, 80),
            None,
            None,
            payload(50, vec![hit(&c, false)]),
        ),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(grade(sent[0]), "identified");
}

#[test]
fn a_process_that_holds_nothing_raises_nothing() {
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        send(10, SEC + 4, ends(1, 80), None, None, payload(50, vec![])),
        tls(10, SEC + 5, 1, 1, 100, vec![]),
        Observation::Exit {
            at: at(10, 2 * SEC),
            status: 0,
            signal: 0,
            dumped: None,
        },
        stop(),
    ]);
    assert!(events.is_empty(), "{events:#?}");
}

/// An identifier at the very end of a payload.
fn open_hit(credential: &CredentialRef) -> Hit {
    Hit {
        open: true,
        ..hit(credential, false)
    }
}

fn continuing(mut observation: Observation) -> Observation {
    match &mut observation {
        Observation::Send(s) => s.payload.continues = true,
        Observation::TlsWrite(s) => s.payload.continues = true,
        _ => panic!("no payload"),
    }
    observation
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn an_identifier_at_the_end_of_a_payload_waits_for_what_comes_next() {
    let c = credential("c");
    let clear = |t, hits| send(10, t, ends(1, 80), None, None, payload(20, hits));
    let on = |t, call, hits| {
        [
            tls(10, t, call, 70, 100, hits),
            send(
                10,
                t + 1,
                ends(2, 443),
                Some((0x17, 117)),
                Some((call, 70)),
                payload(122, vec![]),
            ),
        ]
    };
    let tick = |t| Observation::Tick {
        boot_ns: t,
        wall_ns: 1_000 * SEC + t,
    };
    let open = || vec![open_hit(&c)];
    let [w1, s1] = on(SEC + 1, 7, open());
    let [w2, s2] = on(SEC + 9, 8, vec![]);
    let stories: Vec<(&str, Vec<Observation>, usize)> = vec![
        (
            "a new payload",
            vec![clear(SEC + 1, open()), clear(SEC + 2, vec![])],
            1,
        ),
        (
            "the word goes on",
            vec![clear(SEC + 1, open()), continuing(clear(SEC + 2, vec![]))],
            0,
        ),
        (
            "nothing for a second",
            vec![clear(SEC + 1, open()), tick(3 * SEC)],
            1,
        ),
        (
            "nothing yet",
            vec![clear(SEC + 1, open()), tick(SEC + SEC / 2)],
            0,
        ),
        (
            "another connection's payload",
            vec![
                clear(SEC + 1, open()),
                continuing(send(
                    10,
                    SEC + 2,
                    ends(5, 80),
                    None,
                    None,
                    payload(9, vec![]),
                )),
            ],
            0,
        ),
        (
            "TLS, a new payload",
            vec![w1.clone(), s1.clone(), w2.clone(), s2.clone()],
            1,
        ),
        (
            "TLS, the word goes on",
            vec![w1.clone(), s1, continuing(w2.clone()), s2],
            0,
        ),
        // In memory: decided while it waits for its socket.
        (
            "TLS in memory, the word goes on",
            vec![w1, continuing(w2), tick(9 * SEC)],
            0,
        ),
    ];
    for (what, story, expected) in stories {
        let observations: Vec<_> = [start(), exec(10, 1, SEC, vec![])]
            .into_iter()
            .chain(story)
            .collect();
        let events = run(&observations);
        let sent = of(&events, "credential_sent");
        assert_eq!(sent.len(), expected, "{what}: {events:#?}");
        assert!(sent.iter().all(|e| grade(e) == "identified"), "{what}");
    }
    // The end of the process ends the word.
    let exit = Observation::Exit {
        at: at(10, SEC + 3),
        status: 0,
        signal: 0,
        dumped: None,
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        clear(SEC + 1, open()),
        exit,
    ]);
    assert_eq!(of(&events, "credential_sent").len(), 1);
}

fn known_by(credential: &CredentialRef, by: IdentifiedBy) -> Hit {
    Hit {
        by: Some(by),
        ..hit(credential, false)
    }
}

/// By what each send that was reported is known.
fn proofs(events: &[Event]) -> Vec<IdentifiedBy> {
    of(events, "credential_sent")
        .iter()
        .filter_map(|e| e.evidence.as_ref()?.identified_by)
        .collect()
}

#[test]
fn a_credential_is_recognized_by_its_best_proof() {
    let c = credential("c");
    let hits = vec![
        known_by(&c, IdentifiedBy::JwtClaim),
        known_by(&c, IdentifiedBy::JwtSignature),
    ];
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        send(10, SEC + 4, ends(1, 80), None, None, payload(50, hits)),
        stop(),
    ]);
    assert_eq!(proofs(&events), [IdentifiedBy::JwtSignature]);
}

#[test]
fn whoever_serves_shows_his_public_key_to_everybody() {
    let c = credential("c");
    let shown = |by, direction: Option<Direction>, record| {
        let mut sent = send(
            10,
            SEC + 4,
            ends(1, 443),
            record,
            None,
            payload(900, vec![known_by(&c, by)]),
        );
        if let Observation::Send(sent) = &mut sent {
            sent.direction = direction;
        }
        let connect = Observation::Connect {
            at: at(10, SEC + 1),
            ends: ends(1, 443),
        };
        let mut story = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
        story.extend((direction.is_none()).then_some(connect));
        story.extend([sent, stop()]);
        proofs(&run(&story))
    };
    let handshake = Some((0x16, 700));
    for (by, record) in [
        (IdentifiedBy::ClientCertificate, handshake),
        (IdentifiedBy::PublicKey, None),
    ] {
        assert_eq!(shown(by, None, record), [by], "a client");
        assert_eq!(shown(by, Some(Direction::Accepted), record), [], "a server");
    }
}

#[test]
fn a_login_is_by_the_one_password_of_its_user_that_is_held() {
    let (held, other) = (credential("held"), credential("other"));
    let login = |mine: Vec<Found>| {
        let hits = vec![
            known_by(&held, IdentifiedBy::ScramLogin),
            known_by(&other, IdentifiedBy::ScramLogin),
        ];
        let events = run(&[
            start(),
            exec(10, 1, SEC, mine),
            send(10, SEC + 4, ends(1, 5432), None, None, payload(50, hits)),
            stop(),
        ]);
        let named: Vec<String> = of(&events, "credential_sent")
            .iter()
            .filter(|e| grade(e) == "identified")
            .map(|e| e.credential.as_ref().unwrap().fingerprint.clone())
            .collect();
        named
    };
    assert_eq!(
        login(vec![env(&held, "URL")]),
        std::slice::from_ref(&held.fingerprint)
    );
    assert!(login(vec![]).is_empty(), "somebody else's");
    let both = vec![env(&held, "URL"), env(&other, "OLD_URL")];
    assert!(login(both).is_empty(), "nobody can say which");
}

/// What one send carried is one group; what was sent alone is none, and neither is what another send carried.
#[test]
fn the_credentials_of_one_send_are_one_group() {
    let many: Vec<CredentialRef> = (0..15).map(|n| credential(&n.to_string())).collect();
    let hits = |of: &[CredentialRef]| of.iter().map(|c| hit(c, true)).collect::<Vec<_>>();
    let plain = |ns, port, of: &[CredentialRef]| {
        send(
            10,
            SEC + ns,
            ends(1, port),
            None,
            None,
            payload(10, hits(of)),
        )
    };
    let found = many.iter().map(|c| env(c, &c.fingerprint)).collect();
    let events = run(&[
        start(),
        exec(10, 1, SEC, found),
        plain(4, 80, &many),
        plain(5, 81, &many[..1]),
        plain(6, 82, &many[..2]),
        stop(),
    ]);
    let groups = |kind: &str, port: u32| -> Vec<(u64, u64)> {
        let to = |e: &&&Event| e.destination.as_ref().map_or(0, |d| d.port) == port;
        let reported = of(&events, kind);
        reported
            .iter()
            .filter(to)
            .map(|e| (e.group, e.id.sequence))
            .collect()
    };
    let sent = groups("credential_sent", 80);
    assert_eq!(sent.len(), 15);
    assert!(
        sent.iter().all(|(group, _)| *group == sent[0].1),
        "{sent:?}"
    );
    let alone = groups("credential_sent", 81);
    assert!(matches!(alone[..], [(0, _)]), "{alone:?}");
    let two = groups("credential_sent", 82);
    assert!(two.len() == 2 && two.iter().all(|(group, _)| *group == two[0].1));
    // Neither is an environment many events to who reads them.
    let exposed = groups("credential_exposed", 0);
    assert_eq!(exposed.len(), 15);
    assert!(exposed.iter().all(|(group, _)| *group == exposed[0].1));
}
