//! The life of a credential's file.

use super::*;

fn facts(mode: u32) -> FileFacts {
    FileFacts {
        path: "/root/.netrc".to_owned(),
        mode,
        ..FileFacts::default()
    }
}

fn changed(
    at: Option<TaskInfo>,
    (file, change): (FileFacts, FileChange),
    credentials: Vec<CredentialRef>,
) -> Observation {
    Observation::FileChanged {
        at,
        boot_ns: 9 * SEC,
        file,
        change,
        credentials,
    }
}

#[test]
fn one_event_a_credential_with_who_did_it() {
    let change = FileChange {
        before: Some(FileAccess {
            mode: 0o600,
            uid: 0,
            gid: 0,
        }),
        ..FileChange::new(FileAction::Permissions)
    };
    let twice = vec![credential("a"), credential("b"), credential("a")];
    let events = run(&[
        start(),
        exec(2, 1, 2 * SEC, Vec::new()),
        changed(Some(at(2, 9 * SEC)), (facts(0o644), change.clone()), twice),
        // Tighter is no technique of anybody's.
        changed(None, (facts(0o400), change), vec![credential("a")]),
    ]);
    let reported = of(&events, "credential_file_changed");
    assert_eq!(reported.len(), 3);
    for (event, name) in reported.iter().zip(["a", "b", "a"]) {
        let fingerprint = &event.credential.as_ref().unwrap().fingerprint;
        assert_eq!(*fingerprint, credential(name).fingerprint);
        assert!(event.evidence.is_none() && event.coverage.is_empty());
    }
    assert_eq!(reported[0].process.as_ref().unwrap().pid, 2);
    assert_eq!(reported[0].source.as_ref().unwrap().mode, "0644");
    let before = reported[0].change.as_ref().unwrap().before.unwrap();
    assert_eq!(before.mode, 0o600);
    assert_eq!(reported[0].attack, ["T1222.002"]);
    assert!(reported[2].process.is_none() && reported[2].attack.is_empty());
}

fn write(tgid: u32, boot_ns: u64, inode: u64, path: &str, total: u64) -> Observation {
    Observation::Write(Box::new(WriteSeen {
        at: at(tgid, boot_ns),
        target: WriteTarget::File,
        device: 5,
        inode,
        path: path.to_owned(),
        payload: payload(total, vec![]),
        hook: "raw_tp:sys_enter".to_owned(),
    }))
}

fn read(
    tgid: u32,
    boot_ns: u64,
    (inode, path, size): (u64, &str, u64),
    credentials: Vec<CredentialRef>,
) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(tgid, boot_ns),
        access: Access::Read,
        file: FileFacts {
            path: path.to_owned(),
            device: 5,
            inode,
            size,
            ..FileFacts::default()
        },
        credentials,
        unreadable: None,
        truncated: false,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }))
}

/// tar (10) reads a key at 2 s and writes a file, curl (20) reads it and sends.
fn packed(written: (u64, u64), was_read: (u64, &str, u64), rest: Vec<Observation>) -> Vec<Event> {
    let key = (1, "/root/.ssh/id", 400);
    let mut story = vec![
        start(),
        exec(10, 1, SEC, vec![]),
        read(10, 2 * SEC, key, vec![credential("a")]),
        write(10, written.0, 9, "/tmp/x.tgz", written.1),
        exec(20, 1, written.0 + SEC, vec![]),
        read(20, written.0 + 2 * SEC, was_read, vec![]),
    ];
    story.extend(rest);
    let at_ns = written.0 + 3 * SEC;
    story.push(send(
        20,
        at_ns,
        ends(1, 80),
        None,
        None,
        payload(600, vec![]),
    ));
    story.push(Observation::Tick {
        boot_ns: at_ns + 60 * SEC,
        wall_ns: 1_000 * SEC + at_ns + 60 * SEC,
    });
    run(&story)
}

#[test]
fn what_a_holder_writes_and_another_sends_is_lineage_with_the_file_on_the_way() {
    let events = packed((3 * SEC, 500), (9, "/tmp/x.tgz", 500), vec![]);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1, "{events:#?}");
    let evidence = sent[0].evidence.as_ref().unwrap();
    assert_eq!(evidence.grade, Some(EvidenceGrade::Lineage));
    assert_eq!(evidence.lineage_basis, Some(LineageBasis::Passed));
    let way: Vec<_> = evidence
        .path
        .iter()
        .map(|s| (s.how.as_str(), s.name.as_str(), s.pid))
        .collect();
    assert_eq!(
        way,
        [("read", "/root/.ssh/id", 10), ("file", "/tmp/x.tgz", 20)]
    );
    // Under another name only if it is all that was written.
    let renamed = |size| packed((3 * SEC, 500), (9, "", size), vec![]);
    assert_eq!(of(&renamed(500), "credential_sent").len(), 1);
    assert!(of(&renamed(400), "credential_sent").is_empty());
}

#[test]
fn sizes_and_times_have_to_fit() {
    let none = |written, was_read, what: &str| {
        let events = packed(written, was_read, vec![]);
        assert!(of(&events, "credential_sent").is_empty(), "{what}");
    };
    none((3 * SEC, 500), (9, "/tmp/x.tgz", 565), "more than it wrote");
    none((3 * SEC, 500), (8, "/tmp/x.tgz", 500), "another file");
    none(
        (63 * SEC, 500),
        (9, "/tmp/x.tgz", 500),
        "long after it read",
    );
    none((3 * SEC, 500), (9, "/tmp/x.tgz", 5), "too short");
    let much = 300 * 1024;
    let events = packed((3 * SEC, much), (9, "/tmp/x.tgz", 2 * much), vec![]);
    assert_eq!(
        of(&events, "credential_sent").len(),
        1,
        "not all was reported"
    );
}

fn piped(tgid: u32, boot_ns: u64, stdin: Option<u64>, stdout: Option<u64>) -> Observation {
    let pipe = |inode| PipeId { device: 14, inode };
    Observation::Pipes(PipesSeen {
        at: at(tgid, boot_ns),
        stdin: stdin.map(pipe),
        stdout: stdout.map(pipe),
        feeder: None,
        taker: None,
        opened: false,
    })
}

/// tar (10) reads a key and pipes it to openssl (11), which writes a file; curl (20) reads that and sends it. The file that
/// tar read had to be inspected first: what is reported about them all comes after a tick that was later.
#[test]
fn a_file_at_the_end_of_a_pipeline_however_late_it_is_reported() {
    let ms = 1_000_000;
    let story = |read_at: u64, begun: u64, wrote_at: u64| {
        let events = run(&[
            start(),
            exec(10, 1, SEC, vec![]),
            piped(10, SEC, None, Some(1)),
            Observation::Tick {
                boot_ns: 9 * SEC,
                wall_ns: 1_009 * SEC,
            },
            read(
                10,
                read_at,
                (1, "/root/.ssh/id", 400),
                vec![credential("a")],
            ),
            exec(11, 1, begun, vec![]),
            piped(11, begun, Some(1), None),
            write(11, wrote_at, 9, "/tmp/x", 500),
            exec(20, 1, wrote_at + ms, vec![]),
            read(20, wrote_at + 2 * ms, (9, "/tmp/x", 516), vec![]),
            send(
                20,
                wrote_at + 3 * ms,
                ends(1, 80),
                None,
                None,
                payload(600, vec![]),
            ),
            Observation::Tick {
                boot_ns: wrote_at + 60 * SEC,
                wall_ns: 1_000 * SEC + wrote_at + 60 * SEC,
            },
        ]);
        let sent = of(&events, "credential_sent");
        let way = |e: &&Event| -> Vec<(String, u32)> {
            let path = &e.evidence.as_ref().unwrap().path;
            path.iter().map(|s| (s.how.clone(), s.pid)).collect()
        };
        sent.iter().map(way).collect::<Vec<_>>()
    };
    let way = [("read", 10), ("pipe", 11), ("file", 20)].map(|(how, pid)| (how.to_owned(), pid));
    assert_eq!(
        story(2 * SEC, SEC, 2 * SEC + ms),
        std::slice::from_ref(&way)
    );
    // Its program began long after the other one had read.
    assert_eq!(story(2 * SEC, 100 * SEC, 101 * SEC), [way]);
    assert!(
        story(2 * SEC, SEC, 2 * SEC - ms).is_empty(),
        "written before"
    );
    assert!(
        story(2 * SEC, SEC, 70 * SEC).is_empty(),
        "written long after"
    );
}

#[test]
fn what_was_sent_before_the_read_is_not_of_it() {
    let before = vec![
        start(),
        exec(10, 1, SEC, vec![]),
        read(
            10,
            2 * SEC,
            (1, "/root/.ssh/id", 400),
            vec![credential("a")],
        ),
        write(10, 3 * SEC, 9, "/tmp/x", 500),
        exec(20, 1, 3 * SEC, vec![]),
        send(20, 4 * SEC, ends(1, 80), None, None, payload(600, vec![])),
        read(20, 5 * SEC, (9, "/tmp/x", 500), vec![]),
        Observation::Tick {
            boot_ns: 90 * SEC,
            wall_ns: 1_090 * SEC,
        },
    ];
    assert!(of(&run(&before), "credential_sent").is_empty());
}

#[test]
fn what_a_child_says_to_its_parent_is_passed_on() {
    let reported = |path: &str, peer: u32, total: u64| {
        let pair = Endpoints {
            sock: 7,
            protocol: "unix".to_owned(),
            path: path.to_owned(),
            net_ns: 1,
            peer: Some(Box::new(PeerSeen {
                tgid: peer,
                start: u64::from(peer) * 10,
                ..PeerSeen::default()
            })),
            ..Endpoints::default()
        };
        let events = run(&[
            start(),
            exec(20, 1, SEC, vec![]),
            exec(30, 1, SEC, vec![]),
            exec(10, 20, SEC, vec![]),
            read(
                10,
                2 * SEC,
                (1, "/root/.ssh/id", 400),
                vec![credential("a")],
            ),
            send(10, 3 * SEC, pair, None, None, payload(total, vec![])),
            send(20, 4 * SEC, ends(1, 80), None, None, payload(600, vec![])),
            send(30, 4 * SEC, ends(2, 80), None, None, payload(600, vec![])),
            Observation::Tick {
                boot_ns: 90 * SEC,
                wall_ns: 1_090 * SEC,
            },
        ]);
        let sent = of(&events, "credential_sent");
        let way = |e: &&Event| -> Vec<(String, u32)> {
            let path = &e.evidence.as_ref().unwrap().path;
            path.iter().map(|s| (s.how.clone(), s.pid)).collect()
        };
        sent.iter().map(way).collect::<Vec<_>>()
    };
    let way = vec![("read".to_owned(), 10), ("socket".to_owned(), 20)];
    assert_eq!(reported("", 20, 500), [way]);
    assert!(reported("", 30, 500).is_empty(), "no ancestor");
    assert!(reported("/run/x.sock", 20, 500).is_empty(), "a service");
    assert!(reported("", 20, 8).is_empty(), "too short");
}

#[test]
fn a_core_dump_is_reported_with_what_the_process_held() {
    let died = |dumped: Option<&str>| Observation::Exit {
        at: at(10, 5 * SEC),
        status: 0,
        signal: 11,
        dumped: dumped.map(str::to_owned),
    };
    let reported = |dumped| {
        let key = (1, "/root/.ssh/id", 400);
        run(&[
            start(),
            exec(10, 1, SEC, vec![]),
            read(10, 2 * SEC, key, vec![credential("a")]),
            read(10, 2 * SEC, (2, "/copy", 400), vec![credential("a")]),
            died(dumped),
            died(dumped),
        ])
    };
    let events = reported(Some("|/usr/lib/systemd/systemd-coredump %P"));
    let taken = of(&events, "credential_taken");
    assert_eq!(taken.len(), 1);
    let evidence = taken[0].evidence.as_ref().unwrap();
    assert_eq!(evidence.grade, Some(EvidenceGrade::Lineage));
    assert_eq!(evidence.channel, Channel::CoreDump);
    assert_eq!(taken[0].victim.as_ref().unwrap().pid, 10);
    assert_eq!(
        taken[0].coverage,
        ["the kernel handed a core dump to: /usr/lib/systemd/systemd-coredump %P"]
    );
    let events = reported(Some("/var/crash/core.%p"));
    assert!(of(&events, "credential_taken")[0].coverage[0].ends_with("/var/crash/core.%p"));
    assert!(of(&reported(None), "credential_taken").is_empty());
}

#[test]
fn a_file_of_many_credentials_is_reported_in_part_and_says_so() {
    let many: Vec<CredentialRef> = (0..40).map(|n| credential(&n.to_string())).collect();
    let change = FileChange::new(FileAction::Deleted);
    let events = run(&[start(), changed(None, (facts(0o600), change), many)]);
    let reported = of(&events, "credential_file_changed");
    assert_eq!(reported.len(), 32);
    assert_eq!(
        reported[31].coverage,
        ["the same is true of 8 more in this file"]
    );
    assert!(reported[..31].iter().all(|e| e.coverage.is_empty()));
}
