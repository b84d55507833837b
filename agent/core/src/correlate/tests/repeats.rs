//! The same send again and again: the first are reported one by one, the others together, and none is left out.

use super::*;

/// As in `core/repeat.rs`.
const ONE_BY_ONE: usize = 32;
const WINDOW: u64 = 10 * SEC;

fn tick(boot_ns: u64) -> Observation {
    Observation::Tick {
        boot_ns,
        wall_ns: 1_000 * SEC + boot_ns,
    }
}

/// One send of `c` to `port`, `step` milliseconds after `from`.
fn one(c: &CredentialRef, port: u16, from: u64, step: u64) -> Observation {
    let own = Endpoints {
        local_port: 50_000 + step as u16,
        ..ends(step + 1, port)
    };
    let to = from + step * 1_000_000;
    send(10, to, own, None, None, payload(100, vec![hit(c, true)]))
}

/// Number, bytes, first and last of what each event of a send stands for.
fn sums(events: &[Event]) -> Vec<(u64, u64, u64, u64)> {
    of(events, "credential_sent")
        .iter()
        .map(|e| {
            let bytes = e.evidence.as_ref().expect("evidence").payload_bytes;
            match &e.repeats {
                Some(r) => (r.count, bytes, r.first_ns, e.time_ns),
                None => (1, bytes, e.time_ns, e.time_ns),
            }
        })
        .collect()
}

#[test]
fn what_is_sent_often_is_counted_and_nothing_is_left_out() {
    let c = credential("c");
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    all.extend((0..500).map(|n| one(&c, 80, 2 * SEC, n)));
    all.push(tick(2 * SEC + WINDOW));
    all.push(tick(2 * SEC + WINDOW + SEC));
    let events = run(&all);
    let sums = sums(&events);
    assert_eq!(sums.len(), ONE_BY_ONE + 1, "{sums:?}");
    assert_eq!(sums.iter().map(|s| s.0).sum::<u64>(), 500);
    assert_eq!(sums.iter().map(|s| s.1).sum::<u64>(), 50_000);
    let wall = |step: u64| 1_002 * SEC + step * 1_000_000;
    assert_eq!(
        sums[ONE_BY_ONE],
        (468, 46_800, wall(ONE_BY_ONE as u64), wall(499))
    );
    let last = of(&events, "credential_sent")[ONE_BY_ONE];
    assert_eq!(grade(last), "observed");
    // The own end is that of the last; the far end is that of all.
    let to = last.destination.as_ref().expect("destination");
    assert_eq!((to.port, to.local_port), (80, 50_499));
    assert_eq!(last.source.as_ref().expect("source").env_name, "T");
    assert_eq!(last.evidence.as_ref().expect("evidence").occurrences, 468);
}

#[test]
fn what_goes_on_often_is_one_event_in_a_window_until_it_ends() {
    let c = credential("c");
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    let windows = |n: u64| 2 * SEC + n * WINDOW;
    for window in 0..3 {
        all.extend((0..100).map(|n| one(&c, 80, windows(window) + 1, n)));
        all.push(tick(windows(window + 1) + 1));
    }
    let often = run(&all);
    let counts: Vec<u64> = sums(&often).iter().map(|s| s.0).collect();
    let mut expected = vec![1; ONE_BY_ONE];
    expected.extend([68, 100, 100]);
    assert_eq!(counts, expected);
    // A window without any: then the first are reported at once again.
    all.push(tick(windows(5)));
    all.extend((0..3).map(|n| one(&c, 80, windows(5) + 1, n)));
    all.push(stop());
    let again = run(&all);
    expected.extend([1, 1, 1]);
    let counts: Vec<u64> = sums(&again).iter().map(|s| s.0).collect();
    assert_eq!(counts, expected);
}

#[test]
fn another_end_request_credential_or_program_is_reported_by_itself() {
    let (c, d) = (credential("c"), credential("d"));
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T"), env(&d, "D")])];
    let asked = |path: &str| {
        let mut carried = payload(100, vec![hit(&c, true)]);
        carried.requests = vec![Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..Request::default()
        }];
        carried.hits[0].request = Some(0);
        send(10, 4 * SEC, ends(9_000, 80), None, None, carried)
    };
    all.extend((0..50).map(|n| one(&c, 80, 2 * SEC, n)));
    all.extend([
        one(&c, 81, 3 * SEC, 0),
        one(&d, 80, 3 * SEC, 1),
        asked("/a"),
        asked("/b"),
    ]);
    all.push(exec(10, 1, 5 * SEC, vec![env(&c, "T")]));
    all.push(one(&c, 80, 6 * SEC, 0));
    all.push(stop());
    let events = run(&all);
    let counts: Vec<u64> = sums(&events).iter().map(|s| s.0).collect();
    let mut expected = vec![1; ONE_BY_ONE + 4];
    // What the program before had sent is reported before it is another.
    expected.extend([18, 1]);
    assert_eq!(counts, expected);
    let place = |kind: &str, nth: usize| {
        let is = |e: &&Event| e.kind.word() == kind;
        let id = events.iter().filter(is).nth(nth).map(|e| e.id.sequence);
        id.expect("an event")
    };
    assert!(place("credential_sent", ONE_BY_ONE + 4) < place("process_start", 1));
}

#[test]
fn an_end_reports_what_was_counted() {
    let c = credential("c");
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    all.extend((0..40).map(|n| one(&c, 80, 2 * SEC, n)));
    let exit = Observation::Exit {
        at: at(10, 3 * SEC),
        status: 0,
        signal: 0,
        dumped: None,
    };
    for end in [exit, stop()] {
        let mut all = all.clone();
        all.push(end);
        let events = run(&all);
        let counts: Vec<u64> = sums(&events).iter().map(|s| s.0).collect();
        assert_eq!(counts.iter().sum::<u64>(), 40, "{counts:?}");
        assert_eq!(counts.len(), ONE_BY_ONE + 1);
    }
}

/// Kinds beyond those that are remembered are reported one by one: nothing is counted that could not be reported.
#[test]
fn a_full_table_counts_nothing() {
    let many = 4_200_u64;
    let credentials: Vec<_> = (0..many).map(|n| credential(&n.to_string())).collect();
    let mut all = vec![start(), exec(10, 1, SEC, vec![])];
    for round in 0..2 {
        for (n, c) in credentials.iter().enumerate() {
            all.push(one(c, 80, 2 * SEC + round, n as u64 % 1_000));
        }
    }
    let last = credentials.last().expect("many");
    all.extend((0..100).map(|n| one(last, 80, 4 * SEC, n)));
    all.push(stop());
    let sums = sums(&run(&all));
    assert_eq!(sums.len() as u64, 2 * many + 100);
}

/// The lineage of `port` by `number` connections, a millisecond apart.
fn connections(ends: impl Fn(u64) -> Endpoints, from: u64, number: u64) -> Vec<Observation> {
    let one = |n| {
        let t = from + n * 1_000_000;
        send(10, t, ends(n), None, None, payload(100, vec![]))
    };
    (0..number).map(one).collect()
}

#[test]
fn lineage_to_one_place_is_reported_together() {
    let c = credential("c");
    let to = |sock: u64, port| Endpoints {
        local_port: 50_000 + sock as u16,
        ..ends(sock, port)
    };
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    all.extend(connections(|n| to(n + 1, 80), 2 * SEC, 60));
    // Another place, met in between, is reported by itself.
    all.extend(connections(|n| to(n + 100, 81), 2 * SEC, 1));
    all.extend([tick(4 * SEC), tick(14 * SEC), stop()]);
    let events = run(&all);
    let sent = of(&events, "credential_sent");
    let by_port = |port| -> Vec<u64> {
        let is = |e: &&&Event| e.destination.as_ref().expect("destination").port == port;
        let count = |e: &&Event| e.repeats.map_or(1, |r| r.count);
        sent.iter().filter(is).map(count).collect()
    };
    let mut expected = vec![1; ONE_BY_ONE];
    expected.push(28);
    assert_eq!(by_port(80), expected);
    assert_eq!(by_port(81), [1]);
    let last = sent.last().expect("the sum");
    assert_eq!(grade(last), "lineage");
    let evidence = last.evidence.as_ref().expect("evidence");
    assert_eq!((evidence.payload_bytes, evidence.occurrences), (2_800, 0));
    // Another thing that was not seen of it is another kind.
    let mut with_gap = all.clone();
    let end = with_gap.len() - 3;
    let record = Some((0x17, 900));
    let blind = send(10, 3 * SEC, to(200, 80), record, None, payload(905, vec![]));
    with_gap.insert(end, blind);
    let events = run(&with_gap);
    let said = of(&events, "credential_sent")
        .into_iter()
        .filter(|e| !e.coverage.is_empty());
    assert_eq!(said.count(), 1);
}

#[test]
fn what_many_clients_of_one_port_were_given_is_reported_together() {
    let c = credential("c");
    let client = |n: u64| Endpoints {
        sock: n + 1,
        local_ip: "10.0.0.1".to_owned(),
        local_port: 443,
        peer_ip: format!("10.0.1.{n}"),
        peer_port: 5_000,
        protocol: "tcp".to_owned(),
        net_ns: 1,
        ..Endpoints::default()
    };
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    all.extend(
        connections(client, 2 * SEC, 76)
            .into_iter()
            .map(|mut sent| {
                if let Observation::Send(send) = &mut sent {
                    send.direction = Some(Direction::Accepted);
                }
                sent
            }),
    );
    all.extend([tick(4 * SEC), stop()]);
    let events = run(&all);
    let counts: Vec<u64> = sums(&events).iter().map(|s| s.0).collect();
    let mut expected = vec![1; ONE_BY_ONE];
    expected.push(44);
    assert_eq!(counts, expected);
    // None of them is the one that was reported last.
    let sum = of(&events, "credential_sent").pop().unwrap();
    let to = sum.destination.as_ref().unwrap();
    assert_eq!((to.ip.as_str(), to.port, to.local_port), ("", 0, 443));
    assert_eq!(method(sum), "unknown");
}

/// A secret in the address of one request is no more of those in headers.
#[test]
fn where_in_a_request_it_stood_is_not_counted_away() {
    let c = credential("c");
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
    all.extend((0..100).map(|n| one(&c, 80, 2 * SEC, n)));
    let mut in_url = hit(&c, true);
    in_url.target = true;
    let ends = ends(200, 80);
    all.push(send(
        10,
        3 * SEC,
        ends,
        None,
        None,
        payload(100, vec![in_url]),
    ));
    let events = run(&all);
    let reported = of(&events, "credential_sent")
        .into_iter()
        .filter(|e| e.evidence.as_ref().is_some_and(|e| e.in_url))
        .count();
    assert_eq!(reported, 1);
}
