//! The core as a table of stories: observations in, what may be claimed out.

use super::Core;
use crate::model::*;
use keytrail_proto::v1;
use std::sync::Arc;

const SEC: u64 = 1_000_000_000;

fn credential(name: &str) -> CredentialRef {
    Arc::new(Credential {
        kind: "github-token".to_owned(),
        identifier: String::new(),
        fingerprint: format!("kt1:{name:0>32}"),
        confidence: 0.9,
        expires: None,
        rule: "test".to_owned(),
        privilege: 2,
        attack: "T1552.001".to_owned(),
    })
}

fn pid(tgid: u32) -> Pid {
    Pid {
        tgid,
        start: u64::from(tgid) * 10,
    }
}

fn at(tgid: u32, boot_ns: u64) -> Stamp {
    Stamp {
        boot_ns,
        pid: pid(tgid),
        tid: tgid,
        uid: 0,
        euid: 0,
        gid: 0,
        cgroup_id: 0,
        comm: format!("p{tgid}"),
    }
}

fn start() -> Observation {
    Observation::Start(AgentStart {
        agent: "a".to_owned(),
        boot_id: "01234567-0000".to_owned(),
        epoch: 1,
        boot_ns: 0,
        wall_ns: 1_000 * SEC,
        ..AgentStart::default()
    })
}

fn exec(tgid: u32, parent: u32, boot_ns: u64, found: Vec<Found>) -> Observation {
    Observation::Exec(Box::new(ExecSeen {
        at: at(tgid, boot_ns),
        parent: pid(parent),
        exe: ExeFacts {
            path: format!("/bin/p{tgid}"),
            device: 1,
            inode: u64::from(tgid),
        },
        ns_tgid: tgid,
        argv: vec![],
        cwd: "/".to_owned(),
        cgroup: "/".to_owned(),
        loginuid: 0,
        session: 0,
        found,
        argv_truncated: false,
        env_truncated: false,
        env_bytes: 0,
        env_inspected: 0,
        argv_bytes: 0,
        argv_inspected: 0,
    }))
}

fn env(credential: &CredentialRef, name: &str) -> Found {
    Found {
        credential: credential.clone(),
        place: Place::Env(name.to_owned()),
    }
}

fn ends(sock: u64, port: u16) -> Ends {
    Ends {
        sock,
        local_ip: "127.0.0.1".to_owned(),
        local_port: 40_000 + sock as u16,
        peer_ip: "127.0.0.1".to_owned(),
        peer_port: port,
        protocol: "tcp".to_owned(),
        net_ns: 1,
    }
}

fn hit(credential: &CredentialRef, secret: bool) -> Hit {
    Hit {
        credential: credential.clone(),
        secret,
        transform: "raw".to_owned(),
        part: String::new(),
        occurrences: 1,
    }
}

fn payload(total: u64, hits: Vec<Hit>) -> Payload {
    Payload {
        total,
        inspected: total,
        truncated: false,
        hits,
        hosts: vec![],
    }
}

fn tls(
    tgid: u32,
    boot_ns: u64,
    call: u64,
    session: u64,
    total: u64,
    hits: Vec<Hit>,
) -> Observation {
    Observation::TlsWrite(Box::new(TlsSeen {
        at: at(tgid, boot_ns),
        call,
        session,
        payload: payload(total, hits),
        hook: "uprobe:SSL_write".to_owned(),
    }))
}

fn send(
    tgid: u32,
    boot_ns: u64,
    ends: Ends,
    record: Option<(u8, u16)>,
    call: Option<(u64, u64)>,
    p: Payload,
) -> Observation {
    Observation::Send(Box::new(SendSeen {
        at: at(tgid, boot_ns),
        ends,
        payload: p,
        tls_record: record,
        tls_call: call,
        hook: "raw_tp:tcp_sendmsg_locked".to_owned(),
    }))
}

fn run(observations: &[Observation]) -> Vec<v1::Event> {
    let mut core = Core::new();
    observations.iter().flat_map(|o| core.step(o)).collect()
}

fn of<'a>(events: &'a [v1::Event], kind: &str) -> Vec<&'a v1::Event> {
    events.iter().filter(|e| e.kind == kind).collect()
}

fn grade(e: &v1::Event) -> &str {
    e.evidence.as_ref().map_or("", |e| e.grade.as_str())
}

fn stop() -> Observation {
    Observation::Stop { boot_ns: 100 * SEC }
}

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
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "nested_send"
    );
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
    let evidence = sent[0].evidence.as_ref().expect("evidence");
    assert_eq!(
        (
            evidence.grade.as_str(),
            evidence.destination_method.as_str()
        ),
        ("observed", "unknown")
    );
    assert_eq!(sent[0].destination.as_ref().expect("destination").ip, "");
}

#[test]
fn memory_bio_by_record_length_only_when_unique() {
    let c = credential("c");
    let story = |second_len: u16| {
        run(&[
            start(),
            exec(10, 1, SEC, vec![env(&c, "T")]),
            tls(10, SEC + 2, 7, 70, 100, vec![hit(&c, true)]),
            send(
                10,
                SEC + 4,
                ends(1, 443),
                Some((0x17, 117)),
                None,
                payload(122, vec![]),
            ),
            send(
                10,
                SEC + 5,
                ends(2, 444),
                Some((0x17, second_len)),
                None,
                payload(400, vec![]),
            ),
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
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "record_length"
    );
    let ambiguous = story(117);
    let sent = of(&ambiguous, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0]
            .evidence
            .as_ref()
            .expect("evidence")
            .destination_method,
        "unknown"
    );
}

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
        },
        stop(),
    ]);
    assert!(events.is_empty(), "{events:#?}");
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
    let events = core.step(&send(
        11,
        5 * SEC,
        ends(1, 80),
        None,
        None,
        payload(9, vec![hit(&f, true)]),
    ));
    let source = events[0].source.as_ref().expect("source");
    assert_eq!(
        (source.r#type.as_str(), source.path.as_str()),
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
        ..AgentStart::default()
    })]);
    let gap = events[0].gap.as_ref().expect("a gap");
    assert_eq!(gap.reason, "agent_down");
    assert_eq!(
        (
            gap.from.as_ref().map(|t| t.seconds),
            gap.to.as_ref().map(|t| t.seconds)
        ),
        (Some(1_001), Some(1_005))
    );
}

#[test]
fn a_recording_replays_to_the_same_bytes() {
    use prost::Message as _;
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
        },
        stop(),
    ];
    let live: Vec<Vec<u8>> = run(&story).iter().map(|e| e.encode_to_vec()).collect();
    assert!(live.len() >= 4);
    let recording: Vec<String> = story
        .iter()
        .map(|o| serde_json::to_string(o).expect("json"))
        .collect();
    let again: Vec<Observation> = recording
        .iter()
        .map(|l| serde_json::from_str(l).expect("observation"))
        .collect();
    let replayed: Vec<Vec<u8>> = run(&again).iter().map(|e| e.encode_to_vec()).collect();
    assert_eq!(live, replayed);
}
