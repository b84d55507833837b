//! What is said of TLS whose content was not seen, and what of TLS that has none.

use super::*;

/// A send of `total` bytes of TLS records by this process.
fn records(tgid: u32, t: u64, sock: u64, total: u64, records: &[(u8, u16)]) -> Observation {
    let first = Some(records[0]);
    let mut observation = send(
        tgid,
        t,
        ends(sock, 443),
        first,
        None,
        payload(total, vec![]),
    );
    if let Observation::Send(send) = &mut observation {
        send.tls_more = records[1..].to_vec();
    }
    observation
}

fn hello(tgid: u32, t: u64, sock: u64) -> Observation {
    records(tgid, t, sock, 517, &[(0x16, 512)])
}

fn tick(boot_ns: u64) -> Observation {
    Observation::Tick {
        boot_ns,
        wall_ns: 1_000 * SEC + boot_ns,
    }
}

/// What the events of a story say: the coverage of each lineage, and whether a library is said not to be covered.
fn reported(story: &[Observation]) -> (Vec<String>, usize) {
    let events = run(story);
    let lineage = of(&events, "credential_sent")
        .into_iter()
        .filter(|e| grade(e) == "lineage")
        .map(|e| e.coverage.join("; "))
        .collect();
    let gaps = of(&events, "coverage_gap")
        .into_iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| gap.reason == GapReason::LibraryNotCovered)
        .count();
    (lineage, gaps)
}

#[test]
fn a_handshake_that_fails_and_a_connection_that_is_closed_are_no_sends() {
    let c = credential("c");
    type Sends = &'static [(u64, &'static [(u8, u16)])];
    let stories: [(&str, Sends); 6] = [
        ("curl", &[(6 + 24, &[(0x14, 1), (0x17, 19)])]),
        (
            "s_client",
            &[(80, &[(0x14, 1), (0x17, 69)]), (24, &[(0x17, 19)])],
        ),
        (
            "GnuTLS",
            &[(6, &[(0x14, 1)]), (74, &[(0x17, 69)]), (24, &[(0x17, 19)])],
        ),
        ("GnuTLS, SHA-256", &[(6, &[(0x14, 1)]), (58, &[(0x17, 53)])]),
        ("together", &[(6, &[(0x14, 1)]), (98, &[(0x17, 69)])]),
        (
            "TLS 1.2",
            &[(51, &[(0x14, 1), (0x16, 40)]), (31, &[(0x15, 26)])],
        ),
    ];
    for (what, sends) in stories {
        let mut story = vec![
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            hello(10, SEC + 1, 1),
        ];
        for (n, (total, of)) in (2..).zip(sends) {
            story.push(records(10, SEC + n, 1, *total, of));
        }
        story.push(stop());
        assert_eq!(reported(&story), (vec![], 0), "{what}");
    }
    // Of a connection that was there before nothing is known.
    let closed = [
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        records(10, SEC + 1, 1, 24, &[(0x17, 19)]),
        stop(),
    ];
    assert_eq!(reported(&closed), (vec![], 0));
}

const NOT_HOOKED: &str =
    "the payload is TLS by a library that is not hooked: its content was not seen";
const NOTHING_GIVEN: &str = "the payload is TLS, and nothing was seen to be given to a library for this connection: its content \
                             was not seen";

#[test]
fn a_library_is_said_not_to_be_hooked_only_where_none_of_its_writes_was_seen() {
    let c = credential("c");
    let sent = |tgid, t| records(tgid, t, 1, 905, &[(0x17, 900)]);
    let story = |middle: Vec<Observation>, tgid| {
        let mut all = vec![start(), exec(10, 1, SEC, vec![env(&c, "T")])];
        all.extend(middle);
        all.extend([sent(tgid, 20 * SEC), tick(30 * SEC), stop()]);
        reported(&all)
    };
    let real = story(vec![], 10);
    assert_eq!(real, (vec![NOT_HOOKED.to_owned()], 1));
    // By another connection.
    let write = tls(10, SEC + 1, 1, 70, 100, vec![]);
    let given = (vec![NOTHING_GIVEN.to_owned()], 0);
    assert_eq!(story(vec![write.clone()], 10), given);
    // By another process of the same program.
    let again = |script: Option<&str>| {
        let mut begun = exec(11, 1, 2 * SEC, vec![env(&c, "T")]);
        if let Observation::Exec(exec) = &mut begun {
            exec.exe.path = "/bin/p10".to_owned();
            exec.exe.inode = 10;
            if let Some(script) = script {
                exec.exe.path = "/usr/bin/python3".to_owned();
                exec.argv = vec!["python3".to_owned(), script.to_owned()];
            }
        }
        begun
    };
    assert_eq!(story(vec![write.clone(), again(None)], 11), given);
    // Another script has what it has.
    assert_eq!(story(vec![write, again(Some("/x.py"))], 11), real);
}

/// Why a library is not hooked is told by the search of its file, in the event and in the gap, of whoever runs it.
#[test]
fn the_reason_is_that_of_the_file_or_of_what_the_program_has_mapped() {
    const WHY: &str = "rustls 0.21.12: what it encrypts is seen from 0.23 on";
    let c = credential("c");
    let story = |path: &str, users: Vec<u32>| {
        let found = Observation::Unhooked(Box::new(UnhookedSeen {
            path: path.to_owned(),
            reason: WHY.to_owned(),
            users,
        }));
        let events = run(&[
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            records(10, SEC + 1, 1, 905, &[(0x17, 900)]),
            found,
            tick(30 * SEC),
            stop(),
        ]);
        let said = |kind| of(&events, kind).into_iter().cloned().collect::<Vec<_>>();
        let sent: Vec<String> = said("credential_sent")
            .iter()
            .map(|e| e.coverage.join("; "))
            .collect();
        let gaps: Vec<String> = said("coverage_gap")
            .iter()
            .filter_map(|e| e.gap.as_ref())
            .map(|g| g.detail.clone())
            .collect();
        (sent, gaps)
    };
    let with = format!(
        "the payload is TLS by a library that is not hooked ({WHY}): its content was not seen"
    );
    for (path, users) in [
        ("/bin/p10", vec![10]),
        ("/bin/p10", vec![]),
        ("/usr/lib/jvm/libjvm.so", vec![10]),
    ] {
        let (sent, gaps) = story(path, users);
        assert_eq!(sent, std::slice::from_ref(&with), "{path}");
        assert_eq!(gaps.len(), 1, "{path}: {gaps:?}");
        assert!(
            gaps[0].contains(WHY) && gaps[0].contains(":443"),
            "{gaps:?}"
        );
    }
    // A file that it has nothing of: its own may not have been searched when it sent.
    let early = "the payload is TLS by a library that is not hooked (the program was met less than 5 s before: not all of its \
                 code may have been searched yet): its content was not seen";
    let (sent, gaps) = story("/bin/other", vec![11]);
    assert_eq!(sent, [early]);
    assert!(gaps[0].contains("may have been searched"), "{gaps:?}");
}

/// A program that ran before its library was hooked: what it refers to by HPACK went unseen.
#[test]
fn what_left_before_the_library_was_hooked_is_said() {
    let c = credential("c");
    let nested = |t| {
        let record = Some((0x17, 117));
        send(
            10,
            t,
            ends(1, 443),
            record,
            Some((1, 70)),
            payload(122, vec![]),
        )
    };
    let story = |before: bool, undecoded: u32| {
        let mut write = tls(10, 3 * SEC, 1, 70, 100, vec![]);
        if let Observation::TlsWrite(seen) = &mut write {
            seen.payload.undecoded.headers = undecoded;
        }
        let mut all = vec![
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            hello(10, SEC + 1, 1),
        ];
        all.push(records(10, SEC + 2, 1, 80, &[(0x14, 1), (0x17, 69)]));
        if before {
            all.push(records(10, 3 * SEC - 9, 1, 905, &[(0x17, 900)]));
        }
        all.extend([write, nested(3 * SEC + 1), tick(9 * SEC), stop()]);
        let (lineage, gaps) = reported(&all);
        assert_eq!((lineage.len(), gaps), (1, 0), "{lineage:?}");
        lineage[0].clone()
    };
    assert_eq!(story(false, 0), "");
    assert!(story(true, 0).starts_with("TLS left by this connection before"));
    // The connection is older than what was seen of it.
    assert!(story(false, 1).starts_with("header fields that refer"));
}
