//! What left over Unix sockets and by UDP.

use super::*;

fn unix(path: &str) -> Endpoints {
    Endpoints {
        sock: 7,
        protocol: "unix".to_owned(),
        path: path.to_owned(),
        net_ns: 1,
        peer: Some(Box::new(PeerSeen {
            tgid: 30,
            start: 300,
            executable: "/usr/sbin/dockerd".to_owned(),
            comm: "dockerd".to_owned(),
        })),
        ..Endpoints::default()
    }
}

fn udp(ip: &str, port: u16, local_port: u16) -> Endpoints {
    Endpoints {
        peer_ip: ip.to_owned(),
        local_port,
        protocol: "udp".to_owned(),
        ..ends(9, port)
    }
}

fn datagram(boot_ns: u64, ends: Endpoints, hits: Vec<Hit>) -> Observation {
    send(10, boot_ns, ends, None, None, payload(40, hits))
}

fn holder(sends: Vec<Observation>) -> Vec<Event> {
    let c = credential("c");
    let mut story = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    story.extend(sends);
    story.push(Observation::Tick {
        boot_ns: 9 * SEC,
        wall_ns: 1_009 * SEC,
    });
    story.push(stop());
    run(&story)
}

fn channel(e: &Event) -> &str {
    e.evidence.as_ref().map_or("", |e| e.channel.word())
}

#[test]
fn a_secret_over_a_unix_socket_names_the_socket_and_who_is_there() {
    let c = credential("c");
    let events = holder(vec![datagram(
        2 * SEC,
        unix("/run/docker.sock"),
        vec![hit(&c, true)],
    )]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!((grade(sent[0]), channel(sent[0])), ("observed", "unix"));
    assert_eq!(method(sent[0]), "socket");
    let to = sent[0].destination.as_ref().expect("destination");
    assert_eq!(
        (
            to.protocol.as_str(),
            to.socket_path.as_str(),
            to.ip.as_str(),
            to.port
        ),
        ("unix", "/run/docker.sock", "", 0)
    );
    let peer = to.peer.as_ref().expect("peer");
    assert_eq!(
        (peer.pid, peer.executable.as_str()),
        (30, "/usr/sbin/dockerd")
    );
    assert!(!peer.key.is_empty());
    // It stays on the host.
    assert!(sent[0].attack.is_empty(), "{:?}", sent[0].attack);
}

#[test]
fn nothing_over_a_unix_socket_is_lineage() {
    let events = holder(vec![
        datagram(2 * SEC, unix("/run/systemd/journal/socket"), vec![]),
        datagram(3 * SEC, unix(""), vec![]),
    ]);
    assert!(of(&events, "credential_sent").is_empty());
}

/// Questions are none, but for many long ones under one domain.
#[test]
fn much_that_is_asked_of_a_name_service_is_lineage() {
    let asked = |boot_ns, asked| {
        let mut question = datagram(boot_ns, udp("203.0.113.53", 53, 40_000), vec![]);
        if let Observation::Send(seen) = &mut question {
            seen.asked = asked;
        }
        question
    };
    let few = holder(vec![asked(2 * SEC, 0), asked(3 * SEC, 399)]);
    assert!(of(&few, "credential_sent").is_empty());
    let many = holder(vec![
        asked(2 * SEC, 60),
        asked(2 * SEC + 1, 480),
        asked(2 * SEC + 2, 540),
    ]);
    let told = of(&many, "credential_sent");
    assert_eq!(told.len(), 1);
    assert_eq!((grade(told[0]), channel(told[0])), ("lineage", "udp"));
    assert_eq!(told[0].destination.as_ref().unwrap().port, 53);
}

#[test]
fn what_cannot_be_inspected_over_a_unix_socket_is_a_gap_of_holders() {
    let blind = |tgid| {
        let unread = Payload {
            total: 40,
            truncated: true,
            ..Payload::default()
        };
        send(tgid, 2 * SEC, unix("/s"), None, None, unread)
    };
    let gaps = |events: &[Event]| {
        let gaps = of(events, "coverage_gap");
        let of_unix = |e: &&Event| {
            e.gap
                .as_ref()
                .is_some_and(|g| g.signal == Some(Signal::UnixSend))
        };
        gaps.into_iter().filter(of_unix).count()
    };
    assert_eq!(gaps(&holder(vec![blind(10)])), 1);
    let stranger = run(&[start(), exec(11, 1, SEC, vec![]), blind(11), stop()]);
    assert_eq!(gaps(&stranger), 0);
}

#[test]
fn datagrams_are_lineage_once_for_each_peer() {
    let events = holder(vec![
        datagram(2 * SEC, udp("10.0.0.1", 8_125, 40_001), vec![]),
        // One socket to two peers in turn, and a new socket to the first.
        datagram(2 * SEC + 1, udp("10.0.0.2", 8_125, 40_001), vec![]),
        datagram(2 * SEC + 2, udp("10.0.0.1", 8_125, 40_001), vec![]),
        datagram(5 * SEC, udp("10.0.0.1", 8_125, 40_002), vec![]),
    ]);
    let sent = of(&events, "credential_sent");
    let reported: Vec<_> = sent
        .iter()
        .map(|e| {
            let to = e.destination.as_ref().expect("destination");
            (grade(e), channel(e), to.ip.as_str(), to.direction)
        })
        .collect();
    assert_eq!(
        reported,
        [
            ("lineage", "udp", "10.0.0.1", None),
            ("lineage", "udp", "10.0.0.2", None)
        ]
    );
}

#[test]
fn asking_for_names_is_no_lineage() {
    let c = credential("c");
    let dns = || udp("127.0.0.53", 53, 40_001);
    let quiet = holder(vec![datagram(2 * SEC, dns(), vec![])]);
    assert!(of(&quiet, "credential_sent").is_empty());
    let reported = holder(vec![datagram(2 * SEC, dns(), vec![hit(&c, true)])]);
    let sent = of(&reported, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!((grade(sent[0]), channel(sent[0])), ("observed", "udp"));
    let to = sent[0].destination.as_ref().expect("destination");
    assert_eq!((to.ip.as_str(), to.port), ("127.0.0.53", 53));
}

#[test]
fn an_observed_datagram_leaves_no_lineage() {
    let c = credential("c");
    let to = || udp("10.0.0.1", 514, 40_001);
    let events = holder(vec![datagram(2 * SEC, to(), vec![hit(&c, true)])]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1, "{sent:#?}");
    assert_eq!(grade(sent[0]), "observed");
}

#[test]
fn an_address_that_was_not_read_is_unknown() {
    let c = credential("c");
    let mut lost = udp("", 0, 40_001);
    lost.local_ip = String::new();
    let events = holder(vec![datagram(2 * SEC, lost, vec![hit(&c, true)])]);
    assert_eq!(method(of(&events, "credential_sent")[0]), "unknown");
}

#[test]
fn quic_was_not_inspected() {
    let mut quic = datagram(2 * SEC, udp("10.0.0.1", 443, 40_001), vec![]);
    if let Observation::Send(send) = &mut quic {
        send.sealed = true;
    }
    let events = holder(vec![
        quic,
        datagram(2 * SEC + 1, udp("10.0.0.1", 443, 40_001), vec![]),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    let evidence = sent[0].evidence.as_ref().expect("evidence");
    assert_eq!((evidence.payload_bytes, evidence.inspected_bytes), (80, 0));
    assert!(sent[0].coverage.iter().any(|c| c.contains("QUIC")));
    // No library is to blame.
    let gaps = of(&events, "coverage_gap");
    assert!(gaps.is_empty(), "{gaps:#?}");
}

/// A client of an HTTPS API behind a Unix socket: the write is inside the call.
#[test]
fn a_tls_write_inside_a_unix_send_has_its_destination() {
    let c = credential("c");
    let events = holder(vec![
        tls(10, 2 * SEC, 5, 70, 100, vec![hit(&c, true)]),
        send(
            10,
            2 * SEC + 1,
            unix("/run/tls.sock"),
            Some((0x17, 100 + 17)),
            Some((5, 70)),
            payload(122, vec![]),
        ),
    ]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!((grade(sent[0]), channel(sent[0])), ("observed", "tls"));
    assert_eq!(method(sent[0]), "nested_send");
    let to = sent[0].destination.as_ref().expect("destination");
    assert_eq!(to.socket_path, "/run/tls.sock");
    assert!(of(&events, "coverage_gap").is_empty());
}

/// Datagrams and Unix sends of the right length are nobody's ciphertext.
#[test]
fn other_sends_do_not_answer_for_tls() {
    let c = credential("c");
    let story = |between: Option<Observation>| {
        let mut story = vec![
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            send(
                10,
                SEC + 1,
                ends(1, 443),
                Some((0x16, 512)),
                None,
                payload(517, vec![]),
            ),
            tls(10, 2 * SEC, 5, 70, 100, vec![hit(&c, true)]),
        ];
        story.extend(between);
        story.push(send(
            10,
            2 * SEC + 5,
            ends(1, 443),
            Some((0x17, 117)),
            None,
            payload(122, vec![]),
        ));
        story.push(stop());
        let events = run(&story);
        of(&events, "credential_sent")
            .iter()
            .map(|e| {
                let to = e.destination.as_ref().expect("destination");
                (
                    grade(e).to_owned(),
                    method(e).to_owned(),
                    to.ip.clone(),
                    to.protocol.clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let alone = story(None);
    assert!(!alone.is_empty());
    let of_length = |ends| send(10, 2 * SEC + 1, ends, None, None, payload(122, vec![]));
    assert_eq!(story(Some(of_length(unix("/s")))), alone);
    assert_eq!(story(Some(of_length(udp("10.0.0.1", 53, 40_000)))), alone);
}
