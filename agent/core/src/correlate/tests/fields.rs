//! Everything the observations say of who, what and where is in the events, in its own field: every number here is
//! another one.

use super::*;
use keytrail_model::event::{Ancestor, Destination, Process, ProcessExit, Source};

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "0f1e2d3c-1111-2222-3333-444455556666";
const CGROUP: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f1e2d3c_1111_2222_3333_444455556666.slice/\
                      cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope";

fn time(seconds: u64, nanos: u64) -> Option<u64> {
    Some(seconds * SEC + nanos)
}

fn task_info(boot_ns: u64) -> TaskInfo {
    TaskInfo {
        boot_ns,
        pid: Pid {
            tgid: 310,
            // Hundredths of a second since boot.
            start: 1_225,
        },
        tid: 311,
        uid: 1_001,
        euid: 1_002,
        gid: 1_003,
        cgroup_id: 77,
        comm: "deploy".to_owned(),
    }
}

fn token() -> CredentialRef {
    Arc::new(Credential {
        kind: "npm-token".to_owned(),
        identifier: "npm_…x".to_owned(),
        fingerprint: "kt1:00112233445566778899aabbccddeeff".to_owned(),
        confidence: 0.97,
        expires: Some(1_900_000_001),
        rule: "npm-new".to_owned(),
        privilege: 1,
        attack: "T1552.001".to_owned(),
    })
}

fn file() -> FileFacts {
    FileFacts {
        path: "/srv/.npmrc".to_owned(),
        host_path: "/layers/3/fs/srv/.npmrc".to_owned(),
        device: 0x80_0011,
        inode: 4_711,
        owner_uid: 2_001,
        owner_gid: 2_002,
        mode: 0o100_640,
        size: 64,
        ctime_ns: 5,
        reach: Some(Reach::Few),
        tracked: true,
        orphaned: true,
    }
}

/// The process as every event of this test has to show it.
fn process() -> Process {
    Process {
        key: "01234567:310:1225:1".to_owned(),
        pid: 310,
        namespace_pid: 17,
        executable: Some(ExeFacts {
            path: "/usr/bin/node".to_owned(),
            device: 0x80_0012,
            inode: 4_712,
            fresh: true,
            upper_layer: true,
        }),
        comm: "deploy".to_owned(),
        argv: vec!["node".to_owned(), "publish.js".to_owned()],
        cwd: "/srv/app".to_owned(),
        uid: 1_001,
        euid: 1_002,
        gid: 1_003,
        loginuid: 1_004,
        session: 42,
        cgroup: CGROUP.to_owned(),
        container: CONTAINER.to_owned(),
        unit: String::new(),
        pod: POD.to_owned(),
        ancestors: vec![Ancestor {
            key: "01234567:309:3090:0".to_owned(),
            pid: 309,
            comm: String::new(),
            executable: String::new(),
            script: String::new(),
        }],
        // Boot was at 1000 s of the wall clock.
        start_time_ns: time(1_012, 250_000_000),
        ppid: 309,
        contexts: Vec::new(),
        actor: Some(Actor::Service),
        workload: None,
    }
}

fn seen(boot_ns: u64) -> ExecSeen {
    ExecSeen {
        at: task_info(boot_ns),
        parent: pid(309),
        exe: ExeFacts {
            path: "/usr/bin/node".to_owned(),
            device: 0x80_0012,
            inode: 4_712,
            fresh: true,
            upper_layer: true,
        },
        ns_tgid: 17,
        argv: vec!["node".to_owned(), "publish.js".to_owned()],
        cwd: "/srv/app".to_owned(),
        cgroup: CGROUP.to_owned(),
        loginuid: 1_004,
        session: 42,
        found: vec![],
        argv_truncated: false,
        env_truncated: false,
        env_bytes: 100,
        env_inspected: 100,
        argv_bytes: 15,
        argv_inspected: 15,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "every field there is, in one story")]
fn every_field_arrives() {
    let read = Observation::File(Box::new(FileSeen {
        at: task_info(21 * SEC),
        access: Access::Read,
        file: file(),
        credentials: vec![token()],
        unreadable: None,
        truncated: false,
        hook: "fexit:security_file_permission".to_owned(),
    }));
    let sent = send(
        310,
        22 * SEC,
        Endpoints {
            sock: 5,
            local_ip: "10.0.0.7".to_owned(),
            local_port: 40_123,
            peer_ip: "2001:db8::1".to_owned(),
            peer_port: 8_080,
            protocol: "tcp".to_owned(),
            net_ns: 4_026_531_999,
            ..Endpoints::default()
        },
        None,
        None,
        payload(90, vec![hit(&token(), true)]),
    );
    let Observation::Send(mut sent) = sent else {
        unreachable!()
    };
    sent.at = task_info(22 * SEC);
    sent.payload.hosts = vec![HostName {
        name: "registry.example.test".to_owned(),
        provenance: "host_header".to_owned(),
    }];
    let exit = Observation::Exit {
        at: task_info(23 * SEC),
        status: 3,
        signal: 0,
        dumped: None,
    };
    let story = |first: Observation| {
        run(&[
            start(),
            first,
            read.clone(),
            Observation::Send(sent.clone()),
            exit.clone(),
        ])
    };
    let events = story(Observation::Exec(Box::new(seen(20 * SEC))));
    let kinds: Vec<&str> = events.iter().map(|e| e.kind.word()).collect();
    assert_eq!(
        kinds,
        ["credential_read", "credential_sent", "process_exit"]
    );
    for e in &events {
        assert_eq!(e.process.as_ref(), Some(&process()), "{}", e.kind);
    }
    let credential = Some(token());
    let source = Source {
        path: "/srv/.npmrc".to_owned(),
        host_path: "/layers/3/fs/srv/.npmrc".to_owned(),
        device: 0x80_0011,
        inode: 4_711,
        owner_uid: 2_001,
        owner_gid: 2_002,
        mode: "0640".to_owned(),
        reach: Some(Reach::Few),
        tracked: true,
        orphaned: true,
        ..Source::new(SourceType::File)
    };
    let [read_event, sent_event, exited] = events.as_slice() else {
        unreachable!()
    };
    assert_eq!(read_event.credential, credential);
    assert_eq!(read_event.source.as_ref(), Some(&source));
    assert_eq!(Some(read_event.time_ns), time(1_021, 0));
    assert_eq!(read_event.boot_ns, 21 * SEC);
    assert_eq!(read_event.attack, ["T1552.001"]);
    assert_eq!(sent_event.credential, credential);
    assert_eq!(
        sent_event.source,
        Some(Source {
            first_seen_ns: time(1_021, 0),
            ..source
        })
    );
    assert_eq!(
        sent_event.destination,
        Some(Destination {
            ip: "2001:db8::1".to_owned(),
            port: 8_080,
            protocol: "tcp".to_owned(),
            hosts: vec![HostName {
                name: "registry.example.test".to_owned(),
                provenance: "host_header".to_owned(),
            }],
            socket_path: String::new(),
            path: String::new(),
            local_ip: "10.0.0.7".to_owned(),
            local_port: 40_123,
            network_namespace: 4_026_531_999,
            direction: None,
            peer: None,
            stdout_of: String::new(),
        })
    );
    assert_eq!(
        exited.exit,
        Some(ProcessExit {
            status: 3,
            ..ProcessExit::default()
        })
    );

    // A process that ran before the agent is described as well as one that was seen to begin.
    let x = seen(20 * SEC);
    let snapshot = Snapshot {
        at: x.at,
        parent: x.parent,
        exe: x.exe,
        ns_tgid: x.ns_tgid,
        argv: x.argv,
        cwd: x.cwd,
        cgroup: x.cgroup,
        loginuid: x.loginuid,
        session: x.session,
        found: vec![],
        env_unreadable: None,
        executed: false,
    };
    let known = Process {
        key: "01234567:310:1225:0".to_owned(),
        ..process()
    };
    let events = story(Observation::Snapshot(Box::new(snapshot)));
    assert_eq!(events.len(), 3);
    for e in &events {
        assert_eq!(e.process.as_ref(), Some(&known), "{}", e.kind);
    }
}

/// A child that executes nothing is its parent, but for what the fork said.
#[test]
fn a_child_has_pids_and_a_start_of_its_own() {
    let mut seen = seen(20 * SEC);
    seen.cgroup = "/system.slice/deploy.service".to_owned();
    seen.found = vec![env(&token(), "NPM_TOKEN")];
    let child = Pid {
        tgid: 400,
        start: 2_050,
    };
    let fork = Observation::Fork {
        at: task_info(20 * SEC + 500_000_000),
        child,
        child_ns_tgid: 18,
    };
    let killed = Observation::Exit {
        at: TaskInfo {
            pid: child,
            ..task_info(23 * SEC)
        },
        status: 0,
        signal: 9,
        dumped: None,
    };
    let events = run(&[start(), Observation::Exec(Box::new(seen)), fork, killed]);
    let exits = of(&events, "process_exit");
    assert_eq!(exits.len(), 1, "{events:#?}");
    assert_eq!(
        exits[0].exit,
        Some(ProcessExit {
            signal: 9,
            ..ProcessExit::default()
        })
    );
    let shown = exits[0].process.as_ref().unwrap();
    assert_eq!((shown.pid, shown.namespace_pid, shown.ppid), (400, 18, 310));
    assert_eq!(shown.start_time_ns, time(1_020, 500_000_000));
    assert_eq!((shown.loginuid, shown.session), (1_004, 42));
    assert_eq!(
        (
            shown.unit.as_str(),
            shown.container.as_str(),
            shown.pod.as_str()
        ),
        ("deploy.service", "", "")
    );
    assert_eq!(shown.executable, process().executable);
}
