//! The schema says what the model says, by number and by name.

use super::*;
use keytrail_model::event::Delivery;
use keytrail_model::{
    Actor, Channel, ContextKind, EventKind, EvidenceGrade, FileAccess, FileAction, GapReason,
    Reach, SourceType, Target,
};
use std::sync::Arc;

/// How the model numbers a value, and the word it has for it.
type Names<T> = (fn(T) -> i32, fn(T) -> &'static str);

/// The model's values against the enum of the schema: same numbers, same words behind the prefix, none left out.
fn same<T: Copy, P: TryFrom<i32> + Copy>(
    values: &[T],
    (number, word): Names<T>,
    (prefix, name): (&str, fn(&P) -> &'static str),
) {
    for value in values {
        let Ok(theirs) = P::try_from(number(*value)) else {
            panic!("{prefix}{} is not in the schema", word(*value));
        };
        assert_eq!(
            name(&theirs),
            format!("{prefix}{}", word(*value).to_uppercase())
        );
    }
    let known = (1..1_000).filter(|n| P::try_from(*n).is_ok()).count();
    assert_eq!(known, values.len(), "{prefix}: the schema has others");
}

macro_rules! same {
    ($($prefix:literal $name:ident,)+) => {$(
        same(
            $name::ALL,
            ($name::number, $name::word),
            ($prefix, |value: &v1::$name| value.as_str_name()),
        );
    )+};
}

#[test]
fn the_schema_has_the_models_words() {
    same! {
        "EVENT_KIND_" EventKind,
        "EVIDENCE_GRADE_" EvidenceGrade,
        "CHANNEL_" Channel,
        "CONTEXT_KIND_" ContextKind,
        "ACTOR_" Actor,
        "REACH_" Reach,
        "DIRECTION_" Direction,
        "LINEAGE_BASIS_" LineageBasis,
        "TRANSFORM_" Transform,
        "DESTINATION_METHOD_" DestinationMethod,
        "SOURCE_TYPE_" SourceType,
        "GAP_REASON_" GapReason,
        "SIGNAL_" Signal,
        "TIER_" Tier,
        "TLS_STACK_" TlsStack,
        "FILE_ACTION_" FileAction,
        "IDENTIFIED_BY_" IdentifiedBy,
    }
}

/// Every field has a value of its own, and all of them arrive.
#[test]
#[expect(clippy::too_many_lines, reason = "every field there is")]
fn nothing_of_an_event_is_left_out() {
    let full = Event {
        id: EventId {
            agent: "agent".into(),
            boot: "boot".into(),
            epoch: 1,
            sequence: 2,
        },
        process: Some(Process {
            key: "key".into(),
            pid: 3,
            namespace_pid: 4,
            executable: Some(ExeFacts {
                path: "/exe".into(),
                device: 5,
                inode: 6,
                fresh: true,
                upper_layer: true,
            }),
            comm: "comm".into(),
            argv: vec!["argv".into()],
            cwd: "/cwd".into(),
            uid: 7,
            euid: 8,
            gid: 9,
            loginuid: 10,
            session: 11,
            cgroup: "/cgroup".into(),
            container: "container".into(),
            unit: "unit".into(),
            pod: "pod".into(),
            ancestors: vec![Ancestor {
                key: "above".into(),
                pid: 12,
                comm: "init".into(),
                executable: "/init".into(),
                script: "/script".into(),
            }],
            start_time_ns: Some(13_000_000_001),
            ppid: 14,
            contexts: vec![Context {
                kind: ContextKind::CiJob,
                name: "github".into(),
                key: "above".into(),
            }],
            actor: Some(Actor::Ci),
            workload: Some(Box::new(WorkloadNames {
                pod_uid: "uid".into(),
                container_id: "id".into(),
                namespace: "namespace".into(),
                pod: "name".into(),
                container: "app".into(),
                image: "image".into(),
                image_digest: "sha256:d".into(),
                service_account: "account".into(),
                node: "node".into(),
                owner: Some(keytrail_model::Owner {
                    kind: "Deployment".into(),
                    name: "api".into(),
                }),
                labels: [("app".to_owned(), "api".to_owned())].into(),
            })),
        }),
        credential: Some(Arc::new(Credential {
            kind: "kind".into(),
            identifier: "identifier".into(),
            fingerprint: "kt1:f".into(),
            confidence: 0.5,
            expires: Some(15),
            rule: "rule".into(),
            privilege: 2,
            attack: String::new(),
        })),
        source: Some(Source {
            r#type: SourceType::Argv,
            path: "/path".into(),
            device: 16,
            inode: 17,
            owner_uid: 18,
            owner_gid: 19,
            mode: "0600".into(),
            env_name: "NAME".into(),
            argv_index: 20,
            inherited_from: "parent".into(),
            first_seen_ns: Some(21_000_000_000),
            reach: Some(Reach::World),
            tracked: true,
            orphaned: true,
            host_path: "/layer/path".into(),
            parents: vec![Parent {
                kind: "parent-kind".into(),
                fingerprint: "parent-fingerprint".into(),
                host: "parent.example".into(),
                path: "/token".into(),
                time_ns: 22_000_000_000,
            }],
        }),
        destination: Some(Destination {
            ip: "192.0.2.1".into(),
            port: 22,
            protocol: "tcp".into(),
            hosts: vec![HostName {
                name: "host".into(),
                provenance: "sni".into(),
            }],
            socket_path: "/socket".into(),
            path: "/file".into(),
            local_ip: "192.0.2.2".into(),
            local_port: 23,
            network_namespace: 24,
            direction: Some(Direction::Accepted),
            peer: Some(Peer {
                key: "peer".into(),
                pid: 28,
                comm: "comm".into(),
                executable: "/peer".into(),
            }),
            stdout_of: "outermost".into(),
        }),
        evidence: Some(Evidence {
            grade: Some(EvidenceGrade::Lineage),
            transform: Some(Transform::Hex),
            channel: Channel::Argv,
            payload_bytes: 25,
            inspected_bytes: 26,
            destination_method: Some(DestinationMethod::SingleSocket),
            part: "part".into(),
            occurrences: 27,
            hook: "hook".into(),
            lineage_basis: Some(LineageBasis::Inherited),
            layers: vec![Transform::Gzip, Transform::Base64],
            path: vec![PathStep {
                how: "pipe".into(),
                name: "pipe:[1]".into(),
                key: "step".into(),
                pid: 37,
                executable: "/step".into(),
                comm: "step".into(),
            }],
            identified_by: Some(IdentifiedBy::JwtSignature),
            in_body: true,
            in_url: true,
        }),
        change: Some(Box::new(FileChange {
            action: FileAction::Rotated,
            before: Some(FileAccess {
                mode: 0o640,
                uid: 38,
                gid: 39,
            }),
            new_path: "/new".into(),
            link: "/link".into(),
            previous: "kt1:old".into(),
        })),
        truncation: Some(Truncation {
            argv: true,
            environment: true,
            payload: true,
            file: true,
        }),
        coverage: vec!["coverage".into()],
        attack: vec!["T1".into()],
        gap: Some(Gap {
            reason: GapReason::Offsets,
            detail: "detail".into(),
            remedy: "remedy".into(),
            count: 28,
            from_ns: Some(29_000_000_000),
            to_ns: Some(30_000_000_000),
            signal: Some(Signal::Fork),
        }),
        exit: Some(ProcessExit {
            status: 31,
            signal: 32,
            inherited_exposures: 35,
            untold_sends: 36,
        }),
        request: Some(Request {
            protocol: "h2".into(),
            method: "PUT".into(),
            host: "api.github.com".into(),
            path: "/repos/a/b".into(),
            content_type: "text/plain".into(),
            content_length: Some(35),
            bytes: 36,
            target: Some(Target {
                service: "github".into(),
                kind: "repository".into(),
                name: "a/b".into(),
            }),
            status_class: 4,
        }),
        delivery: Some(Box::new(Delivery {
            container: "c1".into(),
            path: vec![PathStep {
                how: "read".into(),
                name: "/bundle/config.json".into(),
                ..PathStep::default()
            }],
        })),
        workload: Some(Box::new(WorkloadNames {
            pod: "late".into(),
            ..WorkloadNames::default()
        })),
        group: 40,
        repeats: Some(keytrail_model::event::Repeats {
            count: 41,
            first_ns: 42_000_000_000,
        }),
        ..Event::new(EventKind::CredentialCreated, 33_000_000_000, 34)
    };
    let shown = serde_json::to_value(event(full)).unwrap();
    let expected = serde_json::json!({
        "id": {"agent": "agent", "boot": "boot", "epoch": "1", "sequence": "2"},
        "time": "1970-01-01T00:00:33+00:00",
        "bootTimeNs": "34",
        "kind": "EVENT_KIND_CREDENTIAL_CREATED",
        "process": {
            "key": "key", "pid": 3, "namespacePid": 4,
            "executable": {"path": "/exe", "device": "5", "inode": "6", "fresh": true, "upperLayer": true},
            "comm": "comm", "argv": ["argv"], "cwd": "/cwd", "uid": 7, "euid": 8, "gid": 9, "loginuid": 10,
            "session": 11, "cgroup": "/cgroup", "container": "container", "unit": "unit", "pod": "pod",
            "ancestors": [{"key": "above", "pid": 12, "comm": "init", "executable": "/init",
                "script": "/script"}],
            "startTime": "1970-01-01T00:00:13.000000001+00:00", "ppid": 14,
            "contexts": [{"kind": "CONTEXT_KIND_CI_JOB", "name": "github", "ancestor": "above"}],
            "actor": "ACTOR_CI",
            "workload": {
                "podUid": "uid", "containerId": "id", "namespace": "namespace", "pod": "name", "container": "app",
                "image": "image", "imageDigest": "sha256:d", "serviceAccount": "account", "node": "node",
                "ownerKind": "Deployment", "owner": "api", "labels": {"app": "api"}
            }
        },
        "workload": {"pod": "late"},
        "delivery": {"container": "c1", "path": [{"how": "read", "name": "/bundle/config.json"}]},
        "credential": {
            "kind": "kind", "identifier": "identifier", "fingerprint": "kt1:f", "confidence": 0.5,
            "expires": "1970-01-01T00:00:15+00:00", "rule": "rule", "privilege": 2
        },
        "source": {
            "type": "SOURCE_TYPE_ARGV", "path": "/path", "device": "16", "inode": "17", "ownerUid": 18,
            "ownerGid": 19, "mode": "0600", "envName": "NAME", "argvIndex": 20, "inheritedFrom": "parent",
            "firstSeen": "1970-01-01T00:00:21+00:00", "reach": "REACH_WORLD", "tracked": true, "orphaned": true, "hostPath": "/layer/path",
            "likelyParents": [{
                "kind": "parent-kind", "fingerprint": "parent-fingerprint", "host": "parent.example", "path": "/token",
                "time": "1970-01-01T00:00:22+00:00"
            }]
        },
        "destination": {
            "ip": "192.0.2.1", "port": 22, "protocol": "tcp", "hosts": [{"name": "host", "provenance": "sni"}],
            "socketPath": "/socket", "path": "/file", "localIp": "192.0.2.2", "localPort": 23, "networkNamespace": "24",
            "direction": "DIRECTION_ACCEPTED",
            "peer": {"key": "peer", "pid": 28, "comm": "comm", "executable": "/peer"},
            "stdoutOf": "outermost"
        },
        "evidence": {
            "grade": "EVIDENCE_GRADE_LINEAGE", "transform": "TRANSFORM_HEX", "channel": "CHANNEL_ARGV",
            "payloadBytes": "25", "inspectedBytes": "26", "destinationMethod": "DESTINATION_METHOD_SINGLE_SOCKET",
            "part": "part", "occurrences": 27, "hook": "hook", "lineageBasis": "LINEAGE_BASIS_INHERITED",
            "layers": ["TRANSFORM_GZIP", "TRANSFORM_BASE64"],
            "path": [{
                "how": "pipe", "name": "pipe:[1]", "process": "step", "pid": 37, "executable": "/step", "comm": "step"
            }],
            "identifiedBy": "IDENTIFIED_BY_JWT_SIGNATURE", "inBody": true, "inUrl": true
        },
        "truncation": {"argv": true, "environment": true, "payload": true, "file": true},
        "change": {
            "action": "FILE_ACTION_ROTATED", "previousMode": "0640", "previousOwnerUid": 38, "previousOwnerGid": 39,
            "newPath": "/new", "previousFingerprint": "kt1:old", "link": "/link",
        },
        "coverage": ["coverage"],
        "attack": ["T1"],
        "gap": {
            "reason": "GAP_REASON_OFFSETS", "detail": "detail", "remedy": "remedy", "count": "28",
            "from": "1970-01-01T00:00:29+00:00", "to": "1970-01-01T00:00:30+00:00", "signal": "SIGNAL_FORK"
        },
        "exit": {"status": 31, "signal": 32, "inheritedExposures": "35", "untoldSends": "36"},
        "request": {
            "protocol": "h2", "method": "PUT", "host": "api.github.com", "path": "/repos/a/b",
            "contentType": "text/plain", "contentLength": "35", "bytes": "36",
            "target": {"service": "github", "kind": "repository", "name": "a/b"},
            "statusClass": 4
        },
        "group": "40",
        "repeats": {"count": "41", "first": "1970-01-01T00:00:42+00:00"}
    });
    assert_eq!(shown, expected);
}
