//! Who held what when something left, and how often that is reported.

use super::*;

fn read(
    tgid: u32,
    boot_ns: u64,
    credential: &CredentialRef,
    inode: u64,
    hook: &str,
) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(tgid, boot_ns),
        access: Access::Read,
        file: FileFacts {
            path: format!("/k/{inode}"),
            inode,
            ..FileFacts::default()
        },
        credentials: vec![credential.clone()],
        unreadable: None,
        truncated: false,
        hook: hook.to_owned(),
    }))
}

const TIMED: &str = "raw_tp:mm_filemap_get_pages";

fn plain(tgid: u32, boot_ns: u64, ends: Endpoints, bytes: u64) -> Observation {
    send(tgid, boot_ns, ends, None, None, payload(bytes, vec![]))
}

fn tick(boot_ns: u64) -> Observation {
    Observation::Tick {
        boot_ns,
        wall_ns: 1_000 * SEC + boot_ns,
    }
}

fn fork(tgid: u32, child: u32, boot_ns: u64) -> Observation {
    Observation::Fork {
        at: at(tgid, boot_ns),
        child: pid(child),
        child_ns_tgid: child,
    }
}

fn exit(tgid: u32, boot_ns: u64) -> Observation {
    Observation::Exit {
        at: at(tgid, boot_ns),
        status: 0,
        signal: 0,
        dumped: None,
    }
}

/// Fingerprint, bytes and port of everything that was reported as lineage.
fn reported(events: &[Event]) -> Vec<(&str, u64, u32)> {
    of(events, "credential_sent")
        .into_iter()
        .filter(|e| grade(e) == "lineage")
        .map(|e| {
            (
                e.credential.as_ref().unwrap().fingerprint.as_str(),
                e.evidence.as_ref().unwrap().payload_bytes,
                e.destination.as_ref().unwrap().port,
            )
        })
        .collect()
}

#[test]
fn who_sent_before_it_read_was_no_holder_yet() {
    let c = credential("c");
    // Decided long after the read, on a machine that is late.
    let before = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        plain(10, 2 * SEC, ends(1, 80), 100),
        read(10, 2 * SEC + 1, &c, 5, TIMED),
        tick(9 * SEC),
    ]);
    assert_eq!(reported(&before), []);
    // Reported out of order, as by two processors: the times count.
    let after = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        plain(10, 2 * SEC, ends(1, 80), 100),
        read(10, SEC + 1, &c, 5, TIMED),
        tick(9 * SEC),
    ]);
    assert_eq!(reported(&after), [(c.fingerprint.as_str(), 100, 80)]);
    // What was sent before is not what it rests on.
    let both = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        plain(10, 2 * SEC, ends(1, 80), 100),
        read(10, 2 * SEC + 1, &c, 5, TIMED),
        plain(10, 2 * SEC + 2, ends(1, 80), 7),
        tick(9 * SEC),
    ]);
    assert_eq!(reported(&both), [(c.fingerprint.as_str(), 7, 80)]);
    let sent = of(&both, "credential_sent");
    assert_eq!(sent[0].boot_ns, 2 * SEC + 2);
}

#[test]
fn a_read_reported_without_its_time_says_so() {
    let c = credential("c");
    let story = |sent_ns| {
        run(&[
            start(),
            exec(10, 1, SEC, vec![]),
            tick(3 * SEC),
            plain(10, sent_ns, ends(1, 80), 100),
            read(10, 4 * SEC, &c, 5, "fanotify"),
            tick(9 * SEC),
        ])
    };
    assert_eq!(reported(&story(3 * SEC - 1)), []);
    let between = story(3 * SEC + 1);
    assert_eq!(reported(&between).len(), 1);
    let sent = of(&between, "credential_sent");
    assert!(
        sent[0].coverage[0].contains("may have come after"),
        "{sent:#?}"
    );
    let after = story(4 * SEC);
    assert_eq!(reported(&after).len(), 1);
    assert!(of(&after, "credential_sent")[0].coverage.is_empty());
}

#[test]
fn the_source_of_a_write_is_what_was_held_when_it_was_made() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        tls(10, 2 * SEC, 1, 70, 100, vec![hit(&c, true)]),
        // Before it is known by which connection it left.
        read(10, 2 * SEC + 1, &c, 5, TIMED),
        send(
            10,
            2 * SEC + 2,
            ends(1, 443),
            Some((0x17, 200)),
            None,
            payload(205, vec![]),
        ),
        tick(9 * SEC),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1, "{events:#?}");
    assert_eq!(sent[0].source.as_ref().unwrap().r#type, SourceType::Unknown);
}

#[test]
fn a_kept_connection_is_judged_again_after_something_else_was_met() {
    let (c, d) = (credential("c"), credential("d"));
    let on = |t, bytes| plain(10, t, ends(1, 80), bytes);
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        on(2 * SEC, 100),
        tick(4 * SEC),
        // Nothing new was seen: nothing new is reported.
        on(5 * SEC, 100),
        tick(7 * SEC),
        read(10, 8 * SEC, &d, 5, TIMED),
        tick(10 * SEC),
        on(11 * SEC, 30),
        on(11 * SEC + 1, 40),
        tick(13 * SEC),
        on(14 * SEC, 100),
        tick(16 * SEC),
    ]);
    assert_eq!(
        reported(&events),
        [
            (c.fingerprint.as_str(), 100, 80),
            (d.fingerprint.as_str(), 70, 80)
        ]
    );
}

#[test]
fn a_proven_credential_does_not_hide_what_else_the_connection_may_have_carried() {
    let (token, loot) = (credential("a"), credential("b"));
    let story = |bytes| {
        run(&[
            start(),
            exec(10, 1, SEC, vec![env(&token, "T")]),
            read(10, 2 * SEC, &loot, 5, TIMED),
            send(
                10,
                3 * SEC,
                ends(1, 80),
                None,
                None,
                payload(bytes, vec![hit(&token, true)]),
            ),
            tick(9 * SEC),
        ])
    };
    let large = story(11_800);
    assert_eq!(reported(&large), [(loot.fingerprint.as_str(), 11_800, 80)]);
    let observed: Vec<_> = of(&large, "credential_sent")
        .into_iter()
        .filter(|e| grade(e) == "observed")
        .collect();
    assert_eq!(observed.len(), 1);
    // There is no room for another beside the one that was seen.
    assert_eq!(reported(&story(50)), []);
    // Nor in many requests that each carry it, whatever they come to.
    let mut many = vec![
        start(),
        exec(10, 1, SEC, vec![env(&token, "T")]),
        read(10, 2 * SEC, &loot, 5, TIMED),
    ];
    for n in 0..20 {
        many.push(send(
            10,
            3 * SEC + n,
            ends(1, 80),
            None,
            None,
            payload(300, vec![hit(&token, true)]),
        ));
    }
    let bare = |at| send(10, at, ends(1, 80), None, None, payload(2_000, vec![]));
    assert_eq!(
        reported(&run(&[many.clone(), vec![tick(9 * SEC)]].concat())),
        []
    );
    // One that does not may be anything.
    let one_more = run(&[many, vec![bare(4 * SEC), tick(9 * SEC)]].concat());
    assert_eq!(reported(&one_more).len(), 1);
}

#[test]
fn a_kept_connection_is_judged_again_after_a_rest() {
    let (token, loot) = (credential("a"), credential("b"));
    let on = |at, bytes, hits| send(10, at, ends(1, 80), None, None, payload(bytes, hits));
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&token, "T")]),
        read(10, 2 * SEC, &loot, 5, TIMED),
        on(3 * SEC, 200, vec![hit(&token, true)]),
        tick(5 * SEC),
        tick(6 * SEC),
        on(7 * SEC, 12_000, vec![]),
        tick(9 * SEC),
    ]);
    let reported = reported(&events);
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(reported[0].0, loot.fingerprint);
}

/// A server on port 443 and its clients.
fn served(sock: u64, client: &str, client_port: u16) -> Endpoints {
    Endpoints {
        sock,
        local_ip: "10.0.0.1".to_owned(),
        local_port: 443,
        peer_ip: client.to_owned(),
        peer_port: client_port,
        protocol: "tcp".to_owned(),
        net_ns: 1,
        ..Endpoints::default()
    }
}

fn private_key() -> CredentialRef {
    Arc::new(Credential {
        kind: "tls-private-key".to_owned(),
        ..(*credential("f")).clone()
    })
}

#[test]
fn a_server_does_not_send_its_key_to_its_clients() {
    let (key, token) = (private_key(), credential("a"));
    let directed = |direction, mut observation: Observation| {
        if let Observation::Send(send) = &mut observation {
            send.direction = direction;
        }
        observation
    };
    let story = |direction, peers: [(&str, u16); 3]| {
        let mut all = vec![
            start(),
            exec(10, 1, SEC, vec![env(&token, "T")]),
            read(10, SEC + 1, &key, 5, TIMED),
        ];
        for (n, (peer, port)) in (0..).zip(peers) {
            let sent = plain(10, 2 * SEC + n, served(n + 1, peer, port), 500);
            all.push(directed(direction, sent));
        }
        all.extend([tick(9 * SEC), exit(10, 10 * SEC)]);
        run(&all)
    };
    let clients = [
        ("10.0.0.2", 5_001),
        ("10.0.0.2", 5_002),
        ("10.0.0.3", 5_003),
    ];
    // Known by the kernel, and by the port that several peers are served from.
    for direction in [Some(Direction::Accepted), None] {
        let events = story(direction, clients);
        let token = token.fingerprint.as_str();
        assert_eq!(
            reported(&events),
            [(token, 500, 5_001), (token, 500, 5_003)],
            "once a client"
        );
        for e in of(&events, "credential_sent") {
            let to = e.destination.as_ref().unwrap();
            assert_eq!(to.direction, Some(Direction::Accepted));
        }
        let exits = of(&events, "process_exit");
        assert_eq!(exits[0].exit.unwrap().untold_sends, 4);
    }
    // It may send its key away on a connection of its own.
    let outgoing = story(Some(Direction::Outgoing), clients);
    assert_eq!(reported(&outgoing).len(), 6);
    let one = [("10.0.0.2", 5_001); 3];
    assert_eq!(
        reported(&story(None, one)).len(),
        6,
        "nothing tells who asked"
    );
}

#[test]
fn hellos_and_connects_report_who_asked() {
    let key = private_key();
    let story = |first: Option<Observation>, hello| {
        let mut sent = plain(10, 3 * SEC, served(1, "10.0.0.2", 5_001), 500);
        if let Observation::Send(send) = &mut sent {
            send.hello = hello;
            send.tls_record = hello.map(|_| (0x16, 122));
        }
        let data = plain(10, 3 * SEC + 1, served(1, "10.0.0.2", 5_001), 500);
        let mut all = vec![
            start(),
            exec(10, 1, SEC, vec![]),
            read(10, SEC + 1, &key, 5, TIMED),
        ];
        all.extend(first);
        all.extend([sent, data, tick(9 * SEC)]);
        run(&all)
    };
    assert_eq!(reported(&story(None, Some(Direction::Accepted))), []);
    let client = story(None, Some(Direction::Outgoing));
    let direction = |events: &[Event]| {
        let sent = of(events, "credential_sent");
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent[0].destination.as_ref().unwrap().direction
    };
    assert_eq!(direction(&client), Some(Direction::Outgoing));
    // By a hook that sees the connect before there is a socket.
    let asked = Observation::Connect {
        at: at(10, 2 * SEC),
        ends: Endpoints {
            sock: 0,
            local_port: 0,
            ..served(0, "10.0.0.2", 5_001)
        },
    };
    assert_eq!(
        direction(&story(Some(asked), None)),
        Some(Direction::Outgoing)
    );
    assert_eq!(direction(&story(None, None)), None);
}

#[test]
fn what_an_exec_lies_between_is_marked_and_reported_once_of_all_relatives() {
    let c = credential("c");
    let mut story = vec![
        start(),
        exec(10, 1, SEC, vec![]),
        // A shell reads a script with a token in it, and runs commands.
        read(10, SEC + 1, &c, 5, TIMED),
        plain(10, SEC + 2, ends(1, 80), 10),
        tick(4 * SEC),
    ];
    for n in 0..12u32 {
        let t = 5 * SEC + u64::from(n);
        story.extend([
            fork(10, 20 + n, t),
            exec(20 + n, 10, t, vec![]),
            plain(
                20 + n,
                t,
                ends(u64::from(n), if n == 7 { 8443 } else { 443 }),
                10,
            ),
        ]);
    }
    story.extend([tick(9 * SEC), exit(10, 10 * SEC)]);
    let events = run(&story);
    let reported: Vec<_> = of(&events, "credential_sent")
        .into_iter()
        .map(|e| {
            let basis = e.evidence.as_ref().unwrap().lineage_basis.unwrap();
            (basis, e.destination.as_ref().unwrap().port)
        })
        .collect();
    assert_eq!(
        reported,
        [
            (LineageBasis::Own, 80),
            (LineageBasis::Inherited, 443),
            (LineageBasis::Inherited, 8443)
        ]
    );
    let exits = of(&events, "process_exit");
    assert_eq!(exits[0].exit.unwrap().untold_sends, 10);
    // A copy by fork has the memory too: each is one of its own.
    let copies = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        read(10, SEC + 1, &c, 5, TIMED),
        fork(10, 20, SEC + 2),
        fork(10, 21, SEC + 3),
        plain(20, SEC + 4, ends(1, 443), 10),
        plain(21, SEC + 5, ends(2, 443), 10),
        tick(9 * SEC),
    ]);
    let sent = of(&copies, "credential_sent");
    assert_eq!(sent.len(), 2);
    for e in sent {
        assert_eq!(
            e.evidence.as_ref().unwrap().lineage_basis,
            Some(LineageBasis::Own)
        );
    }
}

#[test]
fn an_exposure_that_is_only_inherited_is_counted() {
    let (c, d) = (credential("c"), credential("d"));
    let mut story = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    for n in 0..12u32 {
        let found = if n == 5 {
            vec![env(&c, "T"), env(&d, "D")]
        } else if n == 6 {
            vec![env(&c, "OTHER")]
        } else {
            vec![env(&c, "T")]
        };
        story.extend([fork(10, 20 + n, 2 * SEC), exec(20 + n, 10, 2 * SEC, found)]);
    }
    // And theirs.
    story.extend([
        fork(20, 40, 3 * SEC),
        exec(40, 20, 3 * SEC, vec![env(&c, "T")]),
        plain(40, 4 * SEC, ends(1, 80), 10),
        tick(6 * SEC),
        exit(10, 10 * SEC),
    ]);
    let events = run(&story);
    let exposed: Vec<_> = of(&events, "credential_exposed")
        .into_iter()
        .map(|e| {
            let source = e.source.as_ref().unwrap();
            (e.process.as_ref().unwrap().pid, source.env_name.as_str())
        })
        .collect();
    assert_eq!(exposed, [(10, "T"), (25, "D"), (26, "OTHER")]);
    let exits = of(&events, "process_exit");
    assert_eq!(exits[0].exit.unwrap().inherited_exposures, 12);
    // Its environment is its own all the same, from where it came is reported.
    let sent = of(&events, "credential_sent");
    let source = sent[0].source.as_ref().unwrap();
    assert_eq!(source.env_name, "T");
    assert!(source.inherited_from.contains(":20:"), "{source:?}");
    assert_eq!(
        sent[0].evidence.as_ref().unwrap().lineage_basis,
        Some(LineageBasis::Own)
    );
    // A command that is followed alone: what it begins with is reported, though the one who follows it had it too.
    let mut followed = start();
    if let Observation::Start(start) = &mut followed {
        start.followed = Some(20);
    }
    let events = run(&[
        followed,
        exec(10, 1, SEC, vec![env(&c, "T")]),
        fork(10, 20, 2 * SEC),
        exec(20, 10, 2 * SEC, vec![env(&c, "T")]),
        fork(20, 21, 3 * SEC),
        exec(21, 20, 3 * SEC, vec![env(&c, "T")]),
    ]);
    let pids: Vec<_> = of(&events, "credential_exposed")
        .into_iter()
        .map(|e| e.process.as_ref().unwrap().pid)
        .collect();
    assert_eq!(pids, [10, 20]);
}

#[test]
fn one_fingerprint_is_one_credential_whatever_rules_called_it() {
    let generic = Arc::new(Credential {
        kind: "generic-password".to_owned(),
        confidence: 0.4,
        ..(*credential("c")).clone()
    });
    let specific = credential("c");
    let kinds = |first: &CredentialRef, second: &CredentialRef| -> Vec<String> {
        let events = run(&[
            start(),
            exec(10, 1, SEC, vec![env(first, "T")]),
            read(10, 2 * SEC, second, 5, TIMED),
            Observation::Created {
                at: None,
                boot_ns: 3 * SEC,
                file: FileFacts::default(),
                credentials: vec![first.clone(), second.clone()],
            },
            plain(10, 4 * SEC, ends(1, 80), 100),
            tick(9 * SEC),
        ]);
        events
            .iter()
            .filter_map(|e| Some(e.credential.as_ref()?.kind.clone()))
            .collect()
    };
    // Exposed, started to hold, read, created, sent: one of each.
    assert_eq!(kinds(&specific, &generic), ["github-token"; 4]);
    let later = kinds(&generic, &specific);
    assert_eq!(later[0], "generic-password");
    assert_eq!(later[1..], ["github-token"; 3]);
}

#[test]
fn what_was_cut_from_a_file_in_the_making_is_held_by_nobody() {
    let (part, whole) = (credential("a"), credential("b"));
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        read(10, 2 * SEC, &part, 5, TIMED),
        Observation::Withdrawn {
            boot_ns: 2 * SEC + 1,
            fingerprint: part.fingerprint.clone(),
        },
        read(10, 3 * SEC, &whole, 5, TIMED),
        // Of the version before, reported late.
        read(10, 3 * SEC + 1, &part, 6, TIMED),
        plain(10, 4 * SEC, ends(1, 80), 100),
        tick(9 * SEC),
        // Learnt again, from another file: it is one after all.
        read(10, 10 * SEC, &part, 7, TIMED),
    ]);
    assert_eq!(reported(&events), [(whole.fingerprint.as_str(), 100, 80)]);
    let read_again = of(&events, "credential_read")
        .iter()
        .filter(|e| e.credential.as_ref().unwrap().fingerprint == part.fingerprint)
        .count();
    assert_eq!(
        read_again, 2,
        "before it was withdrawn, and when it was learnt again"
    );
}
