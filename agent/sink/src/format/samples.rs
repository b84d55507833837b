//! Events for tests: one of each kind, with what hostile hosts put into them.

use keytrail_model::{EventKind, EvidenceGrade, GapReason};
use keytrail_proto::v1::{
    Ancestor, Credential, Destination, Event, EventId, Evidence, Executable, Finding, Gap,
    HostName, Process, ProcessExit, Request, Source, Target,
};
use pbjson_types::Timestamp;

fn base(kind: EventKind) -> Event {
    let time = Some(Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_789,
    });
    Event {
        id: Some(EventId {
            agent: "00112233445566778899aabbccddeeff".into(),
            boot: "7a0b8a0e-0000-4000-8000-000000000001".into(),
            epoch: 3,
            sequence: 42,
        }),
        time,
        kind: kind.number(),
        process: Some(Process {
            key: "7a0b8a0e:4121:99:2".into(),
            pid: 4121,
            namespace_pid: 4121,
            executable: Some(Executable {
                path: "/usr/bin/cu|rl=x".into(),
                ..Executable::default()
            }),
            comm: "curl".into(),
            argv: vec![
                "curl".into(),
                "-H\n\"X\\: y=z\"".into(),
                "\u{1b}[2J\u{7f}".into(),
            ],
            cwd: "/root".into(),
            uid: 1000,
            gid: 1000,
            container: "c0ffee".into(),
            ancestors: vec![Ancestor {
                key: "7a0b8a0e:1:1:1".into(),
                pid: 1,
                comm: "init".into(),
                executable: "/sbin/init".into(),
                script: String::new(),
            }],
            start_time: time,
            ..Process::default()
        }),
        credential: Some(Credential {
            kind: "github-token".into(),
            identifier: "ghp_a|b=c\\d".into(),
            fingerprint: "kt1:00112233445566778899aabbccddeeff".into(),
            confidence: 0.99,
            rule: "github-token".into(),
            ..Credential::default()
        }),
        ..Event::default()
    }
}

fn evidence(grade: EvidenceGrade, channel: i32) -> Option<Evidence> {
    Some(Evidence {
        grade: grade.number(),
        channel,
        payload_bytes: 512,
        hook: "uprobe:SSL_write".into(),
        ..Evidence::default()
    })
}

fn file() -> Option<Source> {
    Some(Source {
        r#type: 1,
        path: "/home/a b/.aws/cred=en|tials\nx".into(),
        device: 8,
        inode: 77,
        owner_uid: 1000,
        mode: "0600".into(),
        ..Source::default()
    })
}

pub(crate) fn sent() -> Event {
    Event {
        destination: Some(Destination {
            ip: "10.1.2.3".into(),
            port: 443,
            protocol: "tcp".into(),
            hosts: vec![HostName {
                name: "api.example".into(),
                provenance: "sni".into(),
            }],
            local_ip: "10.0.0.1".into(),
            local_port: 40_000,
            direction: 1,
            ..Destination::default()
        }),
        evidence: evidence(EvidenceGrade::Observed, 1),
        request: Some(Request {
            protocol: "http/1.1".into(),
            method: "POST".into(),
            host: "api.example".into(),
            path: "/v1/{id}".into(),
            content_type: "application/json".into(),
            bytes: 512,
            target: Some(Target {
                service: "github".into(),
                kind: "repository".into(),
                name: "octo/hello".into(),
            }),
            ..Request::default()
        }),
        attack: vec!["T1552.001".into()],
        ..base(EventKind::CredentialSent)
    }
}

pub(crate) fn finding() -> Event {
    Event {
        source: file(),
        finding: Some(Finding {
            rule: "decoy-touched".into(),
            severity: "high".into(),
            title: "A decoy | was = read\nhere".into(),
            seen: "by curl".into(),
            remedy: "look".into(),
            techniques: vec!["T1552.001".into(), "NHI2:2025".into()],
            events: vec![EventId {
                agent: "00112233445566778899aabbccddeeff".into(),
                epoch: 3,
                sequence: 41,
                ..EventId::default()
            }],
            ..Finding::default()
        }),
        ..base(EventKind::Finding)
    }
}

pub(crate) fn gap() -> Event {
    Event {
        process: None,
        credential: None,
        gap: Some(Gap {
            reason: GapReason::RecordsLost.number(),
            detail: "7 records did not fit".into(),
            remedy: "raise ring_bytes".into(),
            count: 7,
            ..Gap::default()
        }),
        ..base(EventKind::CoverageGap)
    }
}

/// One of each kind and grade, and one of which nothing is known.
pub(crate) fn all() -> Vec<Event> {
    let with_file = |kind, grade: EvidenceGrade| Event {
        source: file(),
        evidence: evidence(grade, 3),
        ..base(kind)
    };
    let mut events = vec![sent(), finding(), gap()];
    for grade in [EvidenceGrade::Identified, EvidenceGrade::Lineage] {
        events.push(Event {
            evidence: evidence(grade, 2),
            ..sent()
        });
    }
    for kind in [
        EventKind::CredentialRead,
        EventKind::CredentialOpened,
        EventKind::CredentialExposed,
        EventKind::CredentialCreated,
        EventKind::CredentialTaken,
        EventKind::CredentialReceived,
    ] {
        events.push(with_file(kind, EvidenceGrade::Observed));
    }
    events.push(Event {
        exit: Some(ProcessExit {
            status: 3,
            ..ProcessExit::default()
        }),
        ..base(EventKind::ProcessExit)
    });
    events.push(base(EventKind::ProcessStart));
    for kind in EventKind::ALL {
        events.push(Event {
            kind: kind.number(),
            ..Event::default()
        });
    }
    events.push(Event::default());
    events.push(Event {
        kind: 4_321,
        ..sent()
    });
    events
}
