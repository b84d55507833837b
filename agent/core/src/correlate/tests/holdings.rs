//! Who holds what; reading and opening; gaps; recordings.

use super::*;

#[test]
fn a_retry_is_one_send() {
    let c = credential("c");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
        send(
            10,
            SEC + 4,
            ends(1, 443),
            Some((0x17, 117)),
            Some((7, 70)),
            payload(122, vec![]),
        ),
        tls(10, SEC + 5, 8, 70, 100, vec![hit(&c, true)]),
        tls(10, SEC + 6, 9, 70, 100, vec![hit(&c, true)]),
        send(
            10,
            SEC + 7,
            ends(1, 443),
            None,
            Some((9, 70)),
            payload(30, vec![]),
        ),
        stop(),
    ]);
    assert_eq!(of(&events, "credential_sent").len(), 1);
}

/// The record of an exec was lost: /proc tells what runs now, and it is not what held the old environment.
#[test]
fn a_program_nobody_reported_about_has_its_own_environment() {
    let (old, new, f) = (credential("old"), credential("new"), credential("f"));
    let read = Observation::File(Box::new(FileSeen {
        at: at(10, 2 * SEC),
        access: Access::Read,
        file: FileFacts::default(),
        credentials: vec![f.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }));
    let snapshot = |executed| {
        Observation::Snapshot(Box::new(Snapshot {
            at: at(10, 3 * SEC),
            parent: pid(1),
            exe: ExeFacts::default(),
            ns_tgid: 10,
            argv: vec![],
            cwd: String::new(),
            cgroup: String::new(),
            loginuid: 0,
            session: 0,
            found: vec![env(&new, "N")],
            env_unreadable: None,
            executed,
        }))
    };
    for executed in [false, true] {
        let mut core = Core::new();
        for o in [
            start(),
            exec(10, 1, SEC, vec![env(&old, "O")]),
            read.clone(),
            snapshot(executed),
        ] {
            core.step(&o);
        }
        let held: Vec<_> = core
            .processes()
            .get(pid(10))
            .unwrap()
            .holdings
            .iter()
            .map(|h| (h.credential.fingerprint.clone(), h.inherited_from.is_some()))
            .collect();
        let of = |c: &CredentialRef, inherited| (c.fingerprint.clone(), inherited);
        let expected = if executed {
            vec![of(&f, true), of(&new, false)]
        } else {
            vec![of(&old, false), of(&f, false), of(&new, false)]
        };
        assert_eq!(held, expected);
        assert!(
            core.processes()
                .key(pid(10))
                .ends_with(if executed { ":2" } else { ":1" })
        );
    }
}

#[test]
fn holdings_follow_fork_and_exec_as_the_kernel_does() {
    let (c, f) = (credential("c"), credential("f"));
    let file = FileFacts {
        path: "/root/.npmrc".to_owned(),
        device: 1,
        inode: 5,
        mode: 0o600,
        ..FileFacts::default()
    };
    let read = Observation::File(Box::new(FileSeen {
        at: at(10, 2 * SEC),
        access: Access::Read,
        file,
        credentials: vec![f.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }));
    let mut core = Core::new();
    for o in [
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        read.clone(),
        read,
        Observation::Fork {
            at: at(10, 3 * SEC),
            child: pid(11),
            child_ns_tgid: 11,
        },
    ] {
        core.step(&o);
    }
    let holdings = |core: &Core, tgid| {
        core.processes()
            .get(pid(tgid))
            .map(|p| p.holdings.len())
            .unwrap_or_default()
    };
    assert_eq!(holdings(&core, 11), 2, "a child has what its parent has");
    // `env -i prog`: the environment is gone, what was read may still be there.
    core.step(&exec(11, 10, 4 * SEC, vec![]));
    let child = core.processes().get(pid(11)).expect("child");
    assert_eq!(child.holdings.len(), 1);
    assert_eq!(
        child.holdings[0].inherited_from.as_deref(),
        Some("01234567:11:110:0")
    );
    let events = core
        .step(&send(
            11,
            5 * SEC,
            ends(1, 80),
            None,
            None,
            payload(9, vec![hit(&f, true)]),
        ))
        .events;
    let source = events[0].source.as_ref().expect("source");
    assert_eq!(
        (source.r#type.word(), source.path.as_str()),
        ("file", "/root/.npmrc")
    );
    assert!(!source.inherited_from.is_empty());
    assert_eq!(
        events[0].process.as_ref().expect("process").ancestors[0].pid,
        10
    );
}

#[test]
fn reading_twice_is_one_event_and_opening_is_not_reading() {
    let f = credential("f");
    let file = |access, ns| {
        Observation::File(Box::new(FileSeen {
            at: at(10, ns),
            access,
            file: FileFacts {
                path: "/k".to_owned(),
                inode: 5,
                ..FileFacts::default()
            },
            credentials: vec![f.clone()],
            unreadable: None,
            truncated: false,
            hook: "h".to_owned(),
        }))
    };
    let read = run(&[
        start(),
        exec(10, 1, 1, vec![]),
        file(Access::Open, 2),
        file(Access::Read, 3),
        file(Access::Mmap, 4),
        stop(),
    ]);
    assert_eq!(of(&read, "credential_read").len(), 1);
    assert_eq!(of(&read, "credential_opened").len(), 0);
    let late = run(&[
        start(),
        exec(10, 1, 1, vec![]),
        file(Access::Read, 2),
        file(Access::Open, 3),
        stop(),
    ]);
    assert_eq!(of(&late, "credential_opened").len(), 0);
    let opened = run(&[
        start(),
        exec(10, 1, 1, vec![]),
        file(Access::Open, 2),
        stop(),
    ]);
    assert_eq!(of(&opened, "credential_read").len(), 0);
    assert_eq!(of(&opened, "credential_opened").len(), 1);
}

#[test]
fn an_agent_that_was_down_says_so() {
    let events = run(&[Observation::Start(AgentStart {
        boot_ns: 5 * SEC,
        wall_ns: 1_005 * SEC,
        previous_alive_wall_ns: Some(1_001 * SEC),
        previous_clean: false,
        rebooted: false,
        ..AgentStart::default()
    })]);
    let gap = events[0].gap.as_ref().expect("a gap");
    assert_eq!(gap.reason.word(), "agent_down");
    assert_eq!(
        (gap.from_ns, gap.to_ns),
        (Some(1_001 * SEC), Some(1_005 * SEC))
    );
}

#[test]
fn a_recording_replays_to_the_same_bytes() {
    let c = credential("c");
    let story = [
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
        send(
            10,
            SEC + 4,
            ends(1, 443),
            Some((0x17, 117)),
            Some((7, 70)),
            payload(122, vec![]),
        ),
        send(10, SEC + 5, ends(3, 80), None, None, payload(3, vec![])),
        Observation::Tick {
            boot_ns: 4 * SEC,
            wall_ns: 1_004 * SEC,
        },
        Observation::Exit {
            at: at(10, 5 * SEC),
            status: 0,
            signal: 9,
            dumped: None,
        },
        stop(),
    ];
    let live = run(&story);
    assert!(live.len() >= 4);
    let recording: Vec<String> = story
        .iter()
        .map(|o| serde_json::to_string(o).expect("json"))
        .collect();
    let again: Vec<Observation> = recording
        .iter()
        .map(|l| serde_json::from_str(l).expect("observation"))
        .collect();
    assert_eq!(live, run(&again));
}

#[test]
fn a_process_ends_once() {
    let c = credential("c");
    let exit = |ns| Observation::Exit {
        at: at(10, ns),
        status: 0,
        signal: 9,
        dumped: None,
    };
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&c, "T")]),
        exit(2 * SEC),
        exit(2 * SEC + 1),
        stop(),
    ]);
    assert_eq!(of(&events, "process_exit").len(), 1);
}

/// fanotify reports the open of a process that is gone by then, and knows its number only; the read's record comes after.
#[test]
fn an_open_without_a_start_time_does_not_replace_its_process() {
    let f = credential("f");
    let seen = |access, start, hook: &str| {
        let mut at = at(10, 2 * SEC);
        at.pid.start = start;
        Observation::File(Box::new(FileSeen {
            at,
            access,
            file: FileFacts::default(),
            credentials: vec![f.clone()],
            unreadable: None,
            truncated: false,
            hook: hook.to_owned(),
        }))
    };
    let start_of = pid(10).start;
    assert_ne!(start_of, 0);
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        seen(Access::Open, 0, "fanotify"),
        seen(Access::Read, start_of, "raw_tp:mm_filemap_get_pages"),
        stop(),
    ]);
    let reported: Vec<_> = events
        .iter()
        .filter(|e| e.credential.is_some())
        .map(|e| {
            let process = e.process.as_ref().unwrap();
            (e.kind, process.key.ends_with(":1"))
        })
        .collect();
    assert_eq!(reported, [(EventKind::CredentialRead, true)]);
}
