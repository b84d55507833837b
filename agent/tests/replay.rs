//! A recording is the whole truth about a run: replayed, it gives the same events to the byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use keytrail::engine::{ReplayError, replay};
use keytrail::output::json;
use keytrail_core::correlate::Core;
use keytrail_model::*;
use keytrail_proto::v1;
use proptest::prelude::*;
use std::sync::Arc;

const SEC: u64 = 1_000_000_000;

/// One observation a line, as the agent writes it.
fn record(observations: &[Observation]) -> String {
    observations
        .iter()
        .map(|o| serde_json::to_string(o).unwrap() + "\n")
        .collect()
}

/// What `keytrail replay -o json` prints.
fn replayed(recording: &str) -> String {
    let mut out = String::new();
    replay(recording.as_bytes(), |event| {
        out += &json(&event).unwrap();
        out.push('\n');
    })
    .unwrap();
    out
}

/// What the agent prints while it runs.
fn live(observations: &[Observation]) -> String {
    let mut core = Core::new();
    observations
        .iter()
        .flat_map(|o| core.step(o).events)
        .map(|event| json(&keytrail_export::convert::event(event)).unwrap() + "\n")
        .collect()
}

fn parse(lines: &str) -> Vec<v1::Event> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn credential(number: u8) -> CredentialRef {
    Arc::new(Credential {
        kind: "github-token".to_owned(),
        identifier: format!("ghp_…{number}"),
        fingerprint: format!("kt1:{number:032x}"),
        confidence: 0.1 + f64::from(number) / 7.0,
        expires: number.is_multiple_of(2).then_some(1_900_000_000),
        rule: "github-classic".to_owned(),
        privilege: number % 5,
        attack: "T1552.001".to_owned(),
    })
}

fn pid(number: u8) -> Pid {
    Pid {
        tgid: 100 + u32::from(number),
        start: 1_000 + u64::from(number),
    }
}

fn at(process: u8, boot_ns: u64) -> TaskInfo {
    TaskInfo {
        boot_ns,
        pid: pid(process),
        tid: 100 + u32::from(process),
        uid: 1000,
        euid: 0,
        gid: 1000,
        cgroup_id: 7,
        comm: "naïve \u{1b}[1m\"\\".to_owned(),
    }
}

fn ends(sock: u8) -> Endpoints {
    if sock == 4 {
        return Endpoints {
            sock: 4,
            protocol: "unix".to_owned(),
            net_ns: 4_026_531_840,
            path: "@odd \u{fffd}\u{1b}".to_owned(),
            peer: Some(Box::new(PeerSeen {
                tgid: 9,
                start: 90,
                executable: "/usr/bin/dockerd".to_owned(),
                comm: "dockerd".to_owned(),
            })),
            ..Endpoints::default()
        };
    }
    Endpoints {
        sock: u64::MAX - u64::from(sock),
        local_ip: "127.0.0.1".to_owned(),
        local_port: 40_000,
        peer_ip: "2001:db8::1".to_owned(),
        peer_port: 443 + u16::from(sock),
        protocol: if sock == 5 { "udp" } else { "tcp" }.to_owned(),
        net_ns: 4_026_531_840,
        ..Endpoints::default()
    }
}

fn hit(number: u8, secret: bool) -> Hit {
    Hit {
        credential: credential(number),
        secret,
        transform: Transform::Base64,
        part: "session_token".to_owned(),
        occurrences: 2,
        by: (!secret).then_some(IdentifiedBy::Identifier),
        open: false,
        layers: Vec::new(),
        request: None,
        body: false,
        target: false,
    }
}

fn payload(hits: Vec<Hit>) -> Payload {
    Payload {
        total: 1 << 40,
        inspected: 65_536,
        truncated: true,
        hits,
        hosts: vec![HostName {
            name: "api.example.test".to_owned(),
            provenance: "host_header".to_owned(),
        }],
        continues: false,
        ..Payload::default()
    }
}

fn start() -> Observation {
    Observation::Start(AgentStart {
        agent: "5eed".to_owned(),
        boot_id: "0123abcd-0000-4000-8000-000000000000".to_owned(),
        epoch: 3,
        boot_ns: SEC,
        wall_ns: 1_900_000_000 * SEC + 123_456_789,
        host: "test".to_owned(),
        previous_alive_wall_ns: Some(1_899_999_000 * SEC + 1),
        previous_clean: false,
        rebooted: false,
        process_events: true,
        followed: None,
    })
}

fn exec(process: u8, parent: u8, boot_ns: u64, found: Vec<Found>) -> Observation {
    Observation::Exec(Box::new(ExecSeen {
        at: at(process, boot_ns),
        parent: pid(parent),
        exe: ExeFacts {
            path: "/usr/bin/tëst".to_owned(),
            device: 266_338_304,
            inode: u64::MAX,
            fresh: true,
            upper_layer: true,
        },
        ns_tgid: 1,
        argv: vec![
            "test".to_owned(),
            "[redacted github-token kt1:00]".to_owned(),
        ],
        cwd: "/".to_owned(),
        cgroup: "/system.slice/test.service".to_owned(),
        loginuid: u32::MAX,
        session: u32::MAX,
        found,
        argv_truncated: process.is_multiple_of(3),
        env_truncated: process.is_multiple_of(2),
        env_bytes: 3_000_000,
        env_inspected: 65_536,
        argv_bytes: 70_000,
        argv_inspected: 65_536,
    }))
}

fn file(access: Access, process: u8, number: u8, boot_ns: u64) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(process, boot_ns),
        access,
        file: facts(number),
        credentials: vec![credential(number)],
        unreadable: (number == 3).then(|| "too large".to_owned()),
        truncated: number == 2,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }))
}

fn facts(number: u8) -> FileFacts {
    FileFacts {
        path: format!("/root/.aws/credentials \u{fffd}{number}"),
        host_path: if number == 1 {
            "/layers/1".to_owned()
        } else {
            String::new()
        },
        device: 1 << 20,
        inode: 10 + u64::from(number),
        owner_uid: 0,
        owner_gid: u32::MAX,
        mode: 0o100_600,
        size: 116,
        ctime_ns: u64::MAX / 2,
        reach: (number == 1).then_some(Reach::World),
        tracked: number == 1,
        orphaned: number == 2,
    }
}

fn send(process: u8, sock: u8, boot_ns: u64, tls: Option<u64>, hits: Vec<Hit>) -> Observation {
    Observation::Send(Box::new(SendSeen {
        at: at(process, boot_ns),
        ends: ends(sock),
        payload: payload(hits),
        tls_record: tls.map(|_| (0x17, 120)),
        tls_more: vec![],
        goes_on: (sock == 4).then_some(6),
        tls_call: tls.map(|call| (call, 0xffff_8880_0000_0000)),
        hello: (sock == 1).then_some(Direction::Outgoing),
        direction: (sock == 2).then_some(Direction::Accepted),
        sealed: sock == 5 && boot_ns.is_multiple_of(2),
        asked: 0,
        hook: "raw_tp:tcp_sendmsg_locked".to_owned(),
    }))
}

fn tls(process: u8, boot_ns: u64, call: u64, hits: Vec<Hit>) -> Observation {
    Observation::TlsWrite(Box::new(TlsSeen {
        at: at(process, boot_ns),
        call,
        session: 0xffff_8880_0000_0000,
        socket: None,
        once: false,
        digest: call.is_multiple_of(3).then_some(call / 2),
        record: call.is_multiple_of(5).then_some((0x17, 120)),
        payload: payload(hits),
        hook: "uprobe:SSL_write_ex".to_owned(),
    }))
}

/// Every kind of observation, in an order in which it makes sense.
#[expect(clippy::too_many_lines, reason = "one recording, in its order")]
fn story() -> Vec<Observation> {
    let env = |number| Found {
        credential: credential(number),
        place: FoundIn::Env("GITHUB_TOKEN".to_owned()),
    };
    vec![
        start(),
        Observation::Gap(GapSeen {
            boot_ns: SEC,
            reason: GapReason::HookRefused,
            detail: "fentry:security_file_open: EPERM".to_owned(),
            remedy: "none needed".to_owned(),
            count: 1,
            signal: Some(Signal::FileOpen),
            from_wall_ns: 1,
            to_wall_ns: u64::MAX,
            pid: Some(pid(9)),
        }),
        Observation::Snapshot(Box::new(Snapshot {
            at: at(1, SEC),
            parent: pid(0),
            exe: ExeFacts::default(),
            ns_tgid: 101,
            argv: vec![],
            cwd: String::new(),
            cgroup: "/kubepods/pod0123".to_owned(),
            loginuid: 1000,
            session: 2,
            found: vec![env(1)],
            env_unreadable: Some("gone".to_owned()),
            executed: true,
        })),
        Observation::Fork {
            at: at(1, 2 * SEC),
            child: pid(2),
            child_ns_tgid: 2,
        },
        exec(
            2,
            1,
            2 * SEC + 1,
            vec![
                env(2),
                Found {
                    credential: credential(3),
                    place: FoundIn::Argv(7),
                },
            ],
        ),
        file(Access::Open, 2, 4, 2 * SEC + 2),
        file(Access::Open, 2, 5, 2 * SEC + 3),
        file(Access::Read, 2, 5, 2 * SEC + 4),
        file(Access::Mmap, 2, 3, 2 * SEC + 5),
        Observation::Connect {
            at: at(2, 3 * SEC),
            ends: ends(1),
        },
        tls(2, 3 * SEC + 1, 77, vec![hit(2, true), hit(5, false)]),
        send(2, 1, 3 * SEC + 2, Some(77), vec![]),
        send(2, 2, 3 * SEC + 3, None, vec![hit(3, true)]),
        // A call whose send was never seen, and a send with nothing known in it.
        tls(2, 3 * SEC + 4, 78, vec![hit(5, true)]),
        send(1, 3, 3 * SEC + 5, None, vec![]),
        send(2, 4, 3 * SEC + 6, None, vec![hit(3, true)]),
        send(2, 5, 3 * SEC + 7, None, vec![hit(3, false)]),
        send(1, 5, 3 * SEC + 8, None, vec![]),
        Observation::Tick {
            boot_ns: 5 * SEC,
            wall_ns: 1_900_000_004 * SEC,
        },
        Observation::Created {
            at: None,
            boot_ns: 5 * SEC,
            file: facts(6),
            credentials: vec![credential(6)],
        },
        Observation::FileChanged {
            at: Some(at(2, 5 * SEC)),
            boot_ns: 5 * SEC,
            file: facts(6),
            change: FileChange {
                previous: "kt1:before".to_owned(),
                new_path: "/other".to_owned(),
                before: Some(FileAccess {
                    mode: 0o600,
                    uid: 7,
                    gid: 8,
                }),
                ..FileChange::new(FileAction::Rotated)
            },
            credentials: vec![credential(6)],
        },
        Observation::Persistence {
            at: Some(at(2, 5 * SEC)),
            boot_ns: 5 * SEC,
            file: facts(7),
            technique: "T1543.002".to_owned(),
            link: "/tmp/x.service".to_owned(),
        },
        pipes(2, 5 * SEC, (None, Some(1)), Some(4)),
        pipes(3, 5 * SEC, (Some(1), None), Some(4)),
        send(3, 4, 5 * SEC + 1, None, vec![hit(5, true)]),
        send(3, 4, 5 * SEC + 2, None, vec![]),
        Observation::Exit {
            at: at(2, 6 * SEC),
            status: 7,
            signal: 15,
            dumped: None,
        },
        // Undecided when the recording ends.
        file(Access::Open, 1, 1, 7 * SEC),
        Observation::Stop { boot_ns: 7 * SEC },
    ]
}

#[test]
fn a_recording_replays_byte_by_byte() {
    let story = story();
    let recording = record(&story);
    let first = replayed(&recording);
    assert_eq!(first, live(&story), "the recording lost something");
    assert_eq!(first, replayed(&recording), "two replays differ");

    let events = parse(&first);
    let kinds: std::collections::BTreeSet<&str> =
        events.iter().map(|e| EventKind::word_of(e.kind)).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            "coverage_gap",
            "credential_created",
            "credential_exposed",
            "credential_file_changed",
            "credential_opened",
            "credential_read",
            "credential_sent",
            "persistence_written",
            "process_exit",
            "process_start",
        ],
        "the story does not tell everything"
    );
    for (event, number) in events.iter().zip(1..) {
        let id = event.id.as_ref().unwrap();
        assert_eq!((id.epoch, id.sequence), (3, number));
        assert_eq!(id.agent, "5eed");
    }
}

#[test]
fn every_line_says_all_of_its_observation() {
    for observation in story() {
        let line = serde_json::to_string(&observation).unwrap();
        assert!(!line.contains('\n'));
        let again: Observation = serde_json::from_str(&line).unwrap();
        assert_eq!(again, observation);
        assert_eq!(serde_json::to_string(&again).unwrap(), line);
    }
}

#[test]
fn the_time_of_the_replay_plays_no_part() {
    let recording = record(&story());
    let first = replayed(&recording);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, replayed(&recording));
}

#[test]
fn a_torn_recording_gives_what_it_has_and_names_the_line() {
    let recording = record(&story());
    let whole = replayed(&recording);
    let torn = &recording[..recording.len() - 10];
    let mut got = String::new();
    let error = replay(torn.as_bytes(), |event| {
        got += &json(&event).unwrap();
        got.push('\n');
    })
    .unwrap_err();
    let last = recording.lines().count() as u64;
    assert!(
        matches!(error, ReplayError::Line { number, .. } if number == last),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("line {last}")));
    assert!(!got.is_empty() && whole.starts_with(&got));
    assert!(got.len() < whole.len());

    for nonsense in ["{}\n", "[]\n", "\n", "{\"type\":\"start\"}\n", "\u{0}\n"] {
        let error = replay(nonsense.as_bytes(), |_| panic!("an event from nonsense"));
        assert!(
            matches!(error, Err(ReplayError::Line { number: 1, .. })),
            "{nonsense:?}"
        );
    }
    assert_eq!(
        replay(&b""[..], |_| panic!("an event from nothing")).unwrap(),
        0
    );
}

fn pipes(
    process: u8,
    boot_ns: u64,
    ends: (Option<u8>, Option<u8>),
    other: Option<u8>,
) -> Observation {
    let pipe = |inode: u8| PipeId {
        device: 14,
        inode: inode.into(),
    };
    Observation::Pipes(PipesSeen {
        at: at(process, boot_ns),
        stdin: ends.0.map(pipe),
        stdout: ends.1.map(pipe),
        feeder: other.map(pid),
        taker: other.map(pid),
        opened: false,
    })
}

/// Any observation about a few processes, credentials and sockets, so that they meet.
fn any_observation() -> impl Strategy<Value = Observation> {
    let process = 0..5u8;
    let number = 0..4u8;
    let time = (0..20u64).prop_map(|t| t * SEC / 4);
    (process, 0..5u8, number, time, 0..15u8, any::<bool>()).prop_map(
        |(process, other, number, boot_ns, kind, flag)| match kind {
            0 => Observation::Tick {
                boot_ns,
                wall_ns: 1_900_000_000 * SEC + boot_ns,
            },
            1 => Observation::Fork {
                at: at(process, boot_ns),
                child: pid(other),
                child_ns_tgid: 1,
            },
            2 => exec(process, other, boot_ns, vec![]),
            3 => exec(
                process,
                other,
                boot_ns,
                vec![Found {
                    credential: credential(number),
                    place: if flag {
                        FoundIn::Env("T".to_owned())
                    } else {
                        FoundIn::Argv(u32::MAX)
                    },
                }],
            ),
            4 => Observation::Exit {
                at: at(process, boot_ns),
                status: -1,
                signal: 9,
                dumped: None,
            },
            5 => file(Access::Open, process, number, boot_ns),
            6 => file(Access::Read, process, number, boot_ns),
            7 => file(Access::Mmap, process, number, boot_ns),
            8 => Observation::Connect {
                at: at(process, boot_ns),
                ends: ends(number),
            },
            9 => tls(process, boot_ns, u64::from(number), vec![hit(number, flag)]),
            10 => send(
                process,
                other,
                boot_ns,
                flag.then_some(u64::from(number)),
                vec![],
            ),
            11 => send(process, other, boot_ns, None, vec![hit(number, flag)]),
            12 => pipes(process, boot_ns, (Some(number), Some(other)), None),
            13 => pipes(
                process,
                boot_ns,
                (flag.then_some(number), Some(number)),
                Some(other),
            ),
            _ => Observation::Stop { boot_ns },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In any order, at any times, also going backwards: replay tells the same story, ids have no holes, and nothing
    /// is claimed to have been seen that was not in a payload.
    #[test]
    fn any_recording_replays(mut observations in prop::collection::vec(any_observation(), 0..120)) {
        observations.insert(0, start());
        observations.push(Observation::Stop { boot_ns: 60 * SEC });
        let recording = record(&observations);
        let first = replayed(&recording);
        prop_assert_eq!(&first, &live(&observations));

        let events = parse(&first);
        for (event, number) in events.iter().zip(1..) {
            prop_assert_eq!(event.id.as_ref().unwrap().sequence, number);
        }
        let in_payloads = |fingerprint: &str, secret: bool| {
            observations
                .iter()
                .flat_map(|o| match o {
                    Observation::TlsWrite(seen) => &seen.payload.hits[..],
                    Observation::Send(seen) => &seen.payload.hits[..],
                    _ => &[],
                })
                .filter(|h| h.secret == secret && h.credential.fingerprint == fingerprint)
                .count()
        };
        let mut claims = std::collections::BTreeMap::new();
        for event in events.iter().filter(|e| e.kind == EventKind::CredentialSent.number()) {
            let fingerprint = event.credential.as_ref().unwrap().fingerprint.clone();
            let evidence = event.evidence.as_ref().unwrap();
            *claims.entry((fingerprint, evidence.grade)).or_insert(0) += 1;
            if evidence.destination_method == DestinationMethod::Unknown.number() {
                prop_assert_eq!(&event.destination.as_ref().unwrap().ip, "");
            }
        }
        for ((fingerprint, grade), number) in claims {
            match EvidenceGrade::word_of(grade) {
                "observed" => prop_assert!(number <= in_payloads(&fingerprint, true)),
                "identified" => prop_assert!(number <= in_payloads(&fingerprint, false)),
                "lineage" => {}
                other => prop_assert!(false, "a grade that does not exist: {}", other),
            }
        }
    }
}
