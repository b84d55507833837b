//! What was cut off is said on the event that rests on it, and where nothing can rest on it, as a gap.

use super::*;

fn cut(change: impl FnOnce(&mut ExecSeen)) -> Vec<Event> {
    let token = credential("a");
    let found = vec![
        env(&token, "GITHUB_TOKEN"),
        Found {
            credential: credential("b"),
            place: FoundIn::Argv(2),
        },
    ];
    let mut seen = exec(10, 1, SEC, found);
    if let Observation::Exec(seen) = &mut seen {
        change(seen);
    }
    run(&[start(), seen])
}

#[test]
fn arguments_and_environment_are_distinguished() {
    type Change = fn(&mut ExecSeen);
    let argv: Change = |x| {
        x.argv_truncated = true;
        (x.argv_bytes, x.argv_inspected) = (70_000, 65_536);
    };
    let environment: Change = |x| {
        x.env_truncated = true;
        (x.env_bytes, x.env_inspected) = (300_000, 131_072);
    };
    for (change, truncation, reason, count, detail, what) in [
        (
            argv,
            Truncation {
                argv: true,
                ..Truncation::default()
            },
            GapReason::ArgvTruncated,
            1,
            "65536 of 70000 bytes of the argv were inspected",
            "argv",
        ),
        (
            environment,
            Truncation {
                environment: true,
                ..Truncation::default()
            },
            GapReason::EnvironmentTruncated,
            1,
            "131072 of 300000 bytes of the environment were inspected",
            "environment",
        ),
    ] {
        let events = cut(change);
        let exposed = of(&events, "credential_exposed");
        assert_eq!(exposed.len(), 2, "{events:#?}");
        for e in exposed {
            assert_eq!(e.truncation, Some(truncation));
        }
        let gaps = of(&events, "coverage_gap");
        assert_eq!(gaps.len(), 1, "{gaps:#?}");
        assert_eq!(
            gaps[0].gap,
            Some(Gap {
                reason,
                detail: detail.to_owned(),
                remedy: format!("credentials beyond the captured part of the {what} are not known"),
                count,
                from_ns: None,
                to_ns: None,
                signal: Some(Signal::Exec),
            })
        );
        assert_eq!(gaps[0].process.as_ref().unwrap().pid, 10);
    }
    let both = cut(|x| {
        argv(x);
        environment(x);
    });
    assert_eq!(of(&both, "coverage_gap").len(), 2);
    let truncation = of(&both, "credential_exposed")[0].truncation.unwrap();
    assert!(truncation.argv && truncation.environment);
    let whole = cut(|_| {});
    assert_eq!(of(&whole, "coverage_gap").len(), 0);
    assert_eq!(of(&whole, "credential_exposed")[0].truncation, None);
}

/// A process in which nothing was found may hold what lies beyond the cut: the gap is all there is.
#[test]
fn a_cut_without_findings_is_a_gap() {
    let mut seen = exec(10, 1, SEC, vec![]);
    if let Observation::Exec(seen) = &mut seen {
        seen.argv_truncated = true;
        (seen.argv_bytes, seen.argv_inspected) = (2_000_000, 65_536);
    }
    let events = run(&[start(), seen]);
    assert_eq!(events.len(), 1, "{events:#?}");
    let gap = events[0].gap.as_ref().unwrap();
    assert_eq!((gap.reason.word(), gap.count), ("argv_truncated", 1));
}

#[test]
fn a_payload_that_was_cut_is_marked() {
    let token = credential("a");
    let part = |truncated| Payload {
        inspected: if truncated { 100 } else { 9_000 },
        truncated,
        ..payload(9_000, vec![hit(&token, true)])
    };
    let clear = |truncated| vec![send(10, 2 * SEC, ends(5, 80), None, None, part(truncated))];
    // Written inside a TLS call and sent while the thread is in it.
    let nested = |truncated| {
        let write = Observation::TlsWrite(Box::new(TlsSeen {
            at: at(10, 2 * SEC),
            call: 1,
            session: 0x51,
            socket: None,
            once: false,
            digest: None,
            record: None,
            payload: part(truncated),
            hook: "uprobe:SSL_write".to_owned(),
        }));
        let sent = send(
            10,
            2 * SEC + 1,
            ends(5, 443),
            Some((0x17, 9_017)),
            Some((1, 0x51)),
            payload(9_022, vec![]),
        );
        vec![write, sent]
    };
    type Story<'a> = &'a dyn Fn(bool) -> Vec<Observation>;
    for (channel, story) in [("tcp", &clear as Story<'_>), ("tls", &nested)] {
        for truncated in [true, false] {
            let observations: Vec<_> = [start(), exec(10, 1, SEC, vec![])]
                .into_iter()
                .chain(story(truncated))
                .chain([stop()])
                .collect();
            let events = run(&observations);
            let sent = of(&events, "credential_sent");
            assert_eq!(sent.len(), 1, "{channel}: {events:#?}");
            let evidence = sent[0].evidence.as_ref().unwrap();
            assert_eq!(
                (grade(sent[0]), evidence.channel.word()),
                ("observed", channel)
            );
            assert_eq!(evidence.payload_bytes, 9_000);
            assert_eq!(
                evidence.inspected_bytes,
                if truncated { 100 } else { 9_000 }
            );
            let expected = truncated.then(|| Truncation {
                payload: true,
                ..Truncation::default()
            });
            assert_eq!(sent[0].truncation, expected, "{channel}");
        }
    }
}

#[test]
fn a_file_of_which_a_part_was_inspected_is_marked() {
    let token = credential("a");
    for truncated in [true, false] {
        let read = Observation::File(Box::new(FileSeen {
            at: at(10, 2 * SEC),
            access: Access::Read,
            file: FileFacts {
                path: "/srv/app.log".to_owned(),
                device: 1,
                inode: 2,
                size: 1 << 30,
                ..FileFacts::default()
            },
            credentials: vec![token.clone()],
            unreadable: None,
            truncated,
            hook: "fanotify".to_owned(),
        }));
        let events = run(&[start(), exec(10, 1, SEC, vec![]), read]);
        let reads = of(&events, "credential_read");
        assert_eq!(reads.len(), 1);
        let expected = truncated.then(|| Truncation {
            file: true,
            ..Truncation::default()
        });
        assert_eq!(reads[0].truncation, expected);
    }
}
