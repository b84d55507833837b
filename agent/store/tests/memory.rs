//! Memory: what is summed up, what is forgotten, what a crash leaves, and how quickly questions are answered.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_findings::Repeat;
use keytrail_findings::facts::CredentialFacts;
use keytrail_model::{
    Actor, Channel, ContextKind, DestinationMethod, EventKind, EvidenceGrade, FileAction,
    SourceType,
};
use keytrail_proto::v1::{
    CheckUseRequest, Context, Credential, Destination, Event, EventId, Evidence, Executable,
    FileChange, Finding, GetCredentialRequest, GetGraphRequest, HostName, ListCoverageRequest,
    ListCredentialsRequest, ListFindingsRequest, ListUsesRequest, Process, Source, UseAct, Verdict,
};
use keytrail_store::{Ledger, PlaceSeen, ProgramSeen, Retention};
use pbjson_types::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}

fn fingerprint(n: u64) -> String {
    format!("kt1:{n:032x}")
}

fn event(sequence: u64, kind: &str, credential: u64) -> Event {
    let sent = kind == "credential_sent";
    let now = now_ns();
    Event {
        id: Some(EventId {
            epoch: 1,
            sequence,
            ..Default::default()
        }),
        time: Some(Timestamp {
            seconds: now / 1_000_000_000,
            nanos: 0,
        }),
        kind: EventKind::of_word(kind).unwrap().number(),
        credential: Some(Credential {
            kind: "github-token".into(),
            identifier: "octocat".into(),
            fingerprint: fingerprint(credential),
            privilege: 2,
            ..Default::default()
        }),
        process: Some(Process {
            pid: 7,
            executable: Some(Executable {
                path: "/usr/bin/python3.13".into(),
                device: 1,
                inode: 2,
                fresh: false,
                upper_layer: false,
            }),
            argv: vec!["python3".into(), "deploy.py".into()],
            cwd: "/srv".into(),
            cgroup: String::new(),
            ..Default::default()
        }),
        source: Some(Source {
            r#type: SourceType::File.number(),
            path: "/srv/.env".into(),
            mode: "0600".into(),
            ..Default::default()
        }),
        destination: sent.then(|| Destination {
            ip: "192.0.2.1".into(),
            port: 443,
            protocol: "tcp".into(),
            hosts: vec![HostName {
                name: "api.example".into(),
                provenance: "sni".into(),
            }],
            ..Default::default()
        }),
        evidence: Some(Evidence {
            grade: EvidenceGrade::Observed.number(),
            channel: if sent { Channel::Tls } else { Channel::File }.number(),
            payload_bytes: 10,
            destination_method: DestinationMethod::Socket.number(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ledger(dir: &std::path::Path, retention: Retention) -> Ledger {
    let ledger = Ledger::open_with(dir, retention).unwrap();
    ledger.begin_run("boot").unwrap();
    ledger
}

#[test]
fn uses_are_summed_up_and_the_passport_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    for n in 1..=5 {
        ledger.record(Arc::new(event(n, "credential_sent", 1)));
    }
    ledger.record(Arc::new(event(6, "credential_read", 1)));
    // The same event again, as after a crash, counts once.
    ledger.record(Arc::new(event(6, "credential_read", 1)));
    ledger.flush();
    ledger.program(ProgramSeen {
        path: "/usr/bin/python3.13".into(),
        device: 1,
        inode: 2,
        sha256: "ab".repeat(32),
    });
    ledger.flush();
    let reader = ledger.reader();
    let uses = reader.list_uses(&ListUsesRequest::default()).unwrap().uses;
    assert_eq!(uses.iter().map(|u| u.count).sum::<u64>(), 6, "{uses:?}");
    let sent = uses.iter().find(|u| u.act == 3).unwrap();
    assert_eq!((sent.bytes, sent.source.as_str()), (50, "file:/srv/.env"));
    let program = sent.program.clone().unwrap();
    assert_eq!(program.script, "/srv/deploy.py");
    assert_eq!(
        program.sha256,
        "ab".repeat(32),
        "the hash came after the use"
    );
    assert_eq!(sent.destination.as_ref().unwrap().host, "api.example");
    let passport = reader
        .get_credential(&GetCredentialRequest {
            credential: "octocat".into(),
        })
        .unwrap();
    let summary = passport.summary.unwrap();
    assert_eq!((summary.reads, summary.sends), (1, 5));
    assert_eq!(
        (summary.consumers, summary.destinations, summary.places),
        (1, 1, 1)
    );
    assert_eq!(passport.hours.iter().sum::<u64>(), 6);
    assert_eq!(passport.places[0].mode, "0600");
    for (filter, count) in [("deploy.py", 2), ("/srv/deploy.py", 2), ("curl", 0)] {
        let ask = ListUsesRequest {
            by: filter.into(),
            ..Default::default()
        };
        assert_eq!(
            reader.list_uses(&ask).unwrap().uses.len(),
            count,
            "{filter}"
        );
    }
    let graph = reader.graph(&GetGraphRequest::default()).unwrap();
    assert_eq!((graph.nodes.len(), graph.edges.len()), (3, 3), "{graph:?}");
}

#[test]
fn the_passport_says_what_became_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    let change = |sequence: u64, credential: u64, action: FileAction, previous: &str| {
        let mut event = event(sequence, "credential_file_changed", credential);
        event.evidence = None;
        event.time.as_mut().unwrap().seconds += i64::try_from(sequence).unwrap();
        event.change = Some(FileChange {
            action: action.number(),
            previous_fingerprint: previous.into(),
            ..Default::default()
        });
        event
    };
    ledger.record(Arc::new(event(1, "credential_created", 1)));
    ledger.record(Arc::new(event(2, "credential_read", 1)));
    ledger.record(Arc::new(change(3, 1, FileAction::Permissions, "")));
    ledger.record(Arc::new(change(4, 2, FileAction::Rotated, &fingerprint(1))));
    ledger.record(Arc::new(change(5, 2, FileAction::Deleted, "")));
    ledger.record(Arc::new(change(6, 3, FileAction::Deleted, "")));
    ledger.flush();
    let reader = ledger.reader();
    let reported = |credential: u64| {
        let ask = GetCredentialRequest {
            credential: fingerprint(credential),
        };
        let passport = reader.get_credential(&ask).unwrap();
        assert!(!passport.more_changes);
        let sequence = |e: &Event| e.id.as_ref().unwrap().sequence;
        let reported: Vec<u64> = passport.changes.iter().map(sequence).collect();
        (reported, passport.summary.unwrap().previous)
    };
    // The newest first; what took its place too, but not what became of that.
    assert_eq!(reported(1), (vec![4, 3, 1], String::new()));
    assert_eq!(reported(2), (vec![5, 4], fingerprint(1)));
    // By the same name in the same place, which no event says.
    assert_eq!(reported(3), (vec![6], fingerprint(2)));
    for sequence in 7..=110 {
        let event = change(sequence, 3, FileAction::Moved, "");
        ledger.record(Arc::new(event));
    }
    ledger.flush();
    let ask = GetCredentialRequest {
        credential: fingerprint(3),
    };
    let passport = reader.get_credential(&ask).unwrap();
    assert_eq!((passport.changes.len(), passport.more_changes), (100, true));
    assert_eq!(passport.changes[0].id.as_ref().unwrap().sequence, 110);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
fn uses_and_findings_by_what_they_ran_in() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    let run =
        |sequence, credential, actor: Option<Actor>, kind: Option<ContextKind>, name: &str| {
            let mut event = event(sequence, "credential_sent", credential);
            let process = event.process.as_mut().unwrap();
            process.actor = actor.map_or(0, Actor::number);
            process.contexts = kind
                .map(|kind| Context {
                    kind: kind.number(),
                    name: name.into(),
                    ..Default::default()
                })
                .into_iter()
                .collect();
            ledger.record(Arc::new(event.clone()));
            event
        };
    let ci = run(1, 1, Some(Actor::Ci), Some(ContextKind::CiJob), "github");
    run(
        2,
        1,
        Some(Actor::Person),
        Some(ContextKind::SshSession),
        "sshd",
    );
    run(3, 2, None, None, "");
    ledger.record(Arc::new(Event {
        kind: EventKind::Finding.number(),
        id: Some(EventId {
            epoch: 1,
            sequence: 4,
            ..Default::default()
        }),
        finding: Some(Finding {
            rule: "bulk-send".into(),
            ..Default::default()
        }),
        ..ci
    }));
    ledger.flush();
    let reader = ledger.reader();
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    for (contexts, actors, uses, findings) in [
        (&[][..], &[][..], 3, 1),
        (&["ci_job"], &[], 1, 1),
        (&["github", "sshd"], &[], 2, 1),
        (&["!github"], &[], 2, 0),
        (&[], &["person"], 1, 0),
        (&[], &["!person"], 2, 1),
        (&["ci_job"], &["person"], 0, 0),
    ] {
        let (contexts, actors) = (texts(contexts), texts(actors));
        let ask = ListUsesRequest {
            contexts: contexts.clone(),
            actors: actors.clone(),
            ..Default::default()
        };
        let found = reader.list_uses(&ask).unwrap().uses;
        assert_eq!(found.len(), uses, "{ask:?}");
        let ask = ListFindingsRequest {
            contexts,
            actors,
            ..Default::default()
        };
        let found = reader.list_findings(&ask).unwrap().findings;
        assert_eq!(found.len(), findings, "{ask:?}");
    }
    // What is left out by its name.
    let count = |credential: &str, by: &str, to_host: &str| {
        let ask = ListUsesRequest {
            credential: credential.into(),
            by: by.into(),
            to_host: to_host.into(),
            ..Default::default()
        };
        reader.list_uses(&ask).unwrap().uses.len()
    };
    assert_eq!(count(&format!("!{}", fingerprint(2)), "", ""), 2);
    assert_eq!(
        (count("", "!deploy.py", ""), count("", "!curl", "")),
        (0, 3)
    );
    assert_eq!((count("", "", "!api.example"), count("", "", "!x")), (0, 3));
    let rule = |rule: &str| {
        let ask = ListFindingsRequest {
            rule: rule.into(),
            ..Default::default()
        };
        reader.list_findings(&ask).unwrap().findings
    };
    assert!(rule("!bulk-send").is_empty());
    let found = &rule("!other")[0];
    assert_eq!(
        (found.actor.as_str(), &found.contexts[..]),
        ("ci", &["ci_job:github".to_owned()][..])
    );
    let shown = reader
        .get_credential(&GetCredentialRequest {
            credential: fingerprint(1),
        })
        .unwrap();
    let mut actors: Vec<&str> = shown.uses.iter().map(|u| u.actor.as_str()).collect();
    actors.sort_unstable();
    assert_eq!(actors, ["ci", "person"]);
    let refused = ListUsesRequest {
        actors: texts(&["nobody"]),
        ..Default::default()
    };
    assert!(reader.list_uses(&refused).is_err());
}

#[test]
fn a_program_with_another_content_is_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    let hash = |digit: &str| ProgramSeen {
        path: "/usr/bin/python3.13".into(),
        device: 1,
        inode: 2,
        sha256: digit.repeat(32),
    };
    ledger.record(Arc::new(event(1, "credential_read", 1)));
    ledger.program(hash("aa"));
    ledger.flush();
    ledger.program(hash("bb"));
    ledger.flush();
    ledger.record(Arc::new(event(2, "credential_read", 1)));
    ledger.flush();
    let uses = ledger
        .reader()
        .list_uses(&ListUsesRequest::default())
        .unwrap()
        .uses;
    let mut hashes: Vec<String> = uses
        .into_iter()
        .map(|u| u.program.unwrap().sha256)
        .collect();
    hashes.sort();
    assert_eq!(hashes, ["aa".repeat(32), "bb".repeat(32)]);
}

fn place(n: u64, identifier: &str, time_ns: i64) -> PlaceSeen {
    PlaceSeen {
        credential: CredentialFacts {
            fingerprint: fingerprint(n),
            kind: "github-token".into(),
            identifier: identifier.into(),
            ..Default::default()
        },
        place: "file:/srv/.env".into(),
        owner_uid: 0,
        owner_gid: 0,
        mode: "0644".into(),
        time_ns,
    }
}

#[test]
fn a_new_secret_under_the_same_name_in_the_same_place_is_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    ledger.place(place(1, "octocat", 1_000));
    ledger.place(place(2, "octocat", 2_000));
    ledger.place(place(3, "hubot", 3_000));
    ledger.flush();
    let all = ledger
        .reader()
        .list_credentials(&ListCredentialsRequest::default())
        .unwrap()
        .credentials;
    assert_eq!(all.len(), 3, "what nobody used is known too");
    let of = |n: u64| {
        all.iter()
            .find(|s| s.credential.as_ref().unwrap().fingerprint == fingerprint(n))
            .unwrap()
    };
    assert_eq!(of(2).previous, fingerprint(1));
    assert!(of(2).rotated.is_some() && of(3).rotated.is_none() && of(1).rotated.is_none());
}

#[test]
fn what_was_published_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (out, reader) = (seen.clone(), ledger.reader());
    ledger.publish(Box::new(move |event| {
        // Whoever has it asks for what comes before: it is there.
        let sequence = event.id.as_ref().unwrap().sequence;
        let before = EventId {
            epoch: 1,
            sequence: sequence - 1,
            ..Default::default()
        };
        let there = reader
            .events_after(&before)
            .unwrap()
            .events
            .iter()
            .any(|e| e.id.as_ref().unwrap().sequence == sequence);
        out.lock().unwrap().push((sequence, there));
    }));
    for n in 1..=20 {
        ledger.record(Arc::new(event(n, "credential_read", 1)));
        std::thread::sleep(Duration::from_millis(3));
    }
    ledger.flush();
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(|s| s.0).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|s| s.1), "{seen:?}");
}

#[test]
fn a_stream_resumes_across_runs_and_says_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        events: 8,
        ..Retention::default()
    };
    let first = ledger(dir.path(), retention);
    for n in 1..=10 {
        first.record(Arc::new(event(n, "credential_read", 1)));
    }
    first.flush();
    drop(first);
    // What is too much goes with the first write of the next run.
    let second = ledger(dir.path(), retention);
    let mut next = event(1, "credential_read", 1);
    next.id.as_mut().unwrap().epoch = 2;
    second.record(Arc::new(next));
    second.flush();
    let after = |epoch: u64, sequence: u64| {
        let id = EventId {
            epoch,
            sequence,
            ..Default::default()
        };
        let resumed = second.reader().events_after(&id).unwrap();
        let ids: Vec<(u64, u64)> = resumed
            .events
            .iter()
            .map(|e| e.id.as_ref().map(|id| (id.epoch, id.sequence)).unwrap())
            .collect();
        (ids, resumed.gap.map_or(0, |gap| gap.count))
    };
    let (ids, missing) = after(1, 1);
    assert_eq!(ids.first(), Some(&(1, 4)), "{ids:?}");
    assert_eq!(ids.last(), Some(&(2, 1)));
    assert_eq!(missing, 2, "events 2 and 3 are gone");
    assert_eq!(after(1, 8), (vec![(1, 9), (1, 10), (2, 1)], 0));
    assert_eq!(after(2, 1), (vec![], 0));
    let other = EventId {
        agent: "f".repeat(32),
        epoch: 1,
        ..Default::default()
    };
    assert!(second.reader().events_after(&other).is_err());
}

/// A second run that has forgotten what is beyond its bounds: that is due with the first thing that is written.
fn begun_anew(dir: &std::path::Path, retention: Retention) -> Ledger {
    let ledger = Ledger::open_with(dir, retention).unwrap();
    ledger.begin_run("boot").unwrap();
    let mut last = event(1, "credential_read", 1);
    last.id.as_mut().unwrap().epoch = 2;
    ledger.record(Arc::new(last));
    ledger.flush();
    ledger
}

#[test]
fn bytes_are_bounded_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        bytes: 2 << 20,
        ..Retention::default()
    };
    let ledger = ledger(dir.path(), retention);
    let mut sequence = 0;
    for _ in 0..12 {
        for _ in 0..2000 {
            sequence += 1;
            let mut event = event(sequence, "credential_read", sequence % 50);
            event.coverage = vec!["x".repeat(400)];
            ledger.record(Arc::new(event));
        }
        ledger.flush();
    }
    drop(ledger);
    let ledger = begun_anew(dir.path(), retention);
    let status = ledger.reader().history_status().unwrap();
    assert!(status.bytes <= 2 << 20, "{status:?}");
    assert!(
        status.events > 100 && status.credentials == 50,
        "{status:?}"
    );
    let question = CheckUseRequest {
        credential: fingerprint(1),
        from: Some(Timestamp {
            seconds: now_ns() / 1_000_000_000 - 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    let answer = ledger.reader().check_use(&question, now_ns(), 2).unwrap();
    assert_eq!(answer.verdict, i32::from(Verdict::Yes));
}

/// What is usual for thousands of credentials goes before the events that tell what was done with them.
#[test]
fn what_is_usual_is_bounded_before_events_go() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        bytes: 8 << 20,
        ..Retention::default()
    };
    let ledger = ledger(dir.path(), retention);
    ledger.record(Arc::new(event(1, "credential_read", 1)));
    let body = format!(
        "{{\"first_ns\":1,\"last_ns\":2,\"uses\":3,\"x\":\"{}\"}}",
        "x".repeat(64_000)
    );
    for n in 0..300 {
        ledger.baseline(fingerprint(n), Some(body.clone()));
        if n % 50 == 49 {
            ledger.flush();
        }
    }
    ledger.baseline(fingerprint(0), Some(body.clone()));
    ledger.baseline(fingerprint(1_000), Some("x".repeat(1 << 20)));
    ledger.flush();
    drop(ledger);
    let ledger = begun_anew(dir.path(), retention);
    let known = ledger.findings().unwrap().baselines;
    let bytes: usize = known.iter().map(|(of, body)| of.len() + body.len()).sum();
    assert!(bytes <= 2 << 20 && known.len() > 20, "{bytes}");
    assert_eq!(known[0].0, fingerprint(0), "the one used last is first");
    assert!(
        known.iter().all(|(of, _)| *of != fingerprint(1)),
        "used longest ago"
    );
    assert!(
        known.iter().all(|(of, _)| *of != fingerprint(1_000)),
        "too long for one"
    );
    let after = EventId::default();
    let events = ledger.reader().events_after(&after).unwrap().events;
    assert_eq!(events.len(), 2, "both events are there");
}

/// What finds no room in front of the disk comes back to who learned it.
#[test]
fn what_finds_no_room_is_not_dropped_silently() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (reached, holds) = std::sync::mpsc::channel();
    ledger.publish(Box::new(move |_| {
        let _ = reached.send(());
        let _ = released.recv();
    }));
    ledger.record(Arc::new(event(1, "credential_read", 1)));
    // The thread that writes is held up from here on.
    holds.recv_timeout(Duration::from_secs(60)).unwrap();
    const MANY: u64 = 20_000;
    for n in 0..MANY {
        ledger.baseline(fingerprint(n), Some("{}".to_owned()));
    }
    let repeat = Repeat {
        rule: "r".to_owned(),
        count: 7,
        ..Repeat::default()
    };
    ledger.repeat(repeat.clone());
    assert_eq!(ledger.overflowed(), 0, "what is learned is not lost");
    ledger.place(place(1, "octocat", 1_000));
    assert_eq!(ledger.overflowed(), 1, "what nobody tells again is");
    let soon = Instant::now() + Duration::from_millis(20);
    assert!(!ledger.flush_by(soon), "nothing is written");
    drop(release);
    let unkept = ledger.unkept();
    assert_eq!(unkept.repeats, [repeat]);
    assert!(!unkept.baselines.is_empty());
    assert!(ledger.flush_by(Instant::now() + Duration::from_secs(60)));
    let kept = ledger.findings().unwrap().baselines.len();
    assert_eq!(kept + unkept.baselines.len(), MANY as usize);
    assert!(ledger.unkept().is_empty(), "once");
}

#[test]
fn a_full_disk_is_reported_and_survived() {
    // A file system of its own that holds little: the tests run as root, otherwise there is nothing to try.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=640k", "none"])
        .arg(dir.path())
        .status();
    if !mounted.is_ok_and(|s| s.success()) {
        eprintln!("not root: nothing was tried");
        return;
    }
    let ledger = ledger(dir.path(), Retention::default());
    let count = Arc::new(Mutex::new(0));
    let out = count.clone();
    ledger.publish(Box::new(move |_| *out.lock().unwrap() += 1));
    for n in 1..=2000 {
        let mut event = event(n, "credential_read", 1);
        event.coverage = vec!["x".repeat(1000)];
        ledger.record(Arc::new(event));
    }
    ledger.flush();
    let lost = ledger.overflowed();
    let published = *count.lock().unwrap();
    let reader = ledger.reader();
    let known = reader.list_credentials(&ListCredentialsRequest::default());
    drop(ledger);
    std::process::Command::new("umount")
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(lost > 0, "the disk was not full");
    assert_eq!(published, 2000, "a full disk holds nobody up");
    assert!(known.is_ok(), "{known:?}");
}

/// `cargo test -p keytrail-store --test memory -- --ignored --nocapture`: 10,000 credentials, 1,000,000 uses.
#[test]
#[ignore = "writes 200 MB"]
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
fn questions_are_quick() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    ledger.flush();
    let db = rusqlite::Connection::open(dir.path().join("keytrail.db")).unwrap();
    let hour = now_ns() / 3_600_000_000_000;
    let begun = Instant::now();
    db.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO credentials (id, fingerprint, kind, identifier, confidence, privilege, first_seen, last_seen, reads)
             SELECT i, printf('kt1:%032x', i * 2654435761 % 4294967296), 'github-token', 'user' || i, 0.9, i % 5,
                 {now} - i, {now} - i, 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO programs (id, path, script, device, inode, sha256) SELECT i, '/usr/bin/p' || i, '', 1, i, '' FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO destinations (id, host, ip, port, protocol)
             SELECT i, 'h' || i || '.example', '192.0.2.' || i, 443, 'tcp' FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
         INSERT INTO uses (credential, hour, act, grade, channel, program, workload, source, destination, request, first,
                 last, count, bytes)
             SELECT iif(i % 10 = 0, 1, 1 + i % 10000), {hour} - i % 2160, 1 + i % 3, 1, 1, 1 + i * 7 % 2000, 0, 0,
                 iif(i % 3 = 2, 1 + i * 11 % 5000, 0), i, ({hour} - i % 2160) * 3600000000000 + 5,
                 ({hour} - i % 2160) * 3600000000000 + 9, 1 + i % 4, 100 FROM n;
         INSERT OR IGNORE INTO consumers SELECT credential, program FROM uses;
         INSERT OR IGNORE INTO reached SELECT credential, destination FROM uses WHERE destination != 0;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO gaps (epoch, reason, signal, process, executable, detail, remedy, from_ns, to_ns, count)
             SELECT 1, 'records_lost', 'file_read', '', '', '', '', {now} - i * 3600000000000, {now} - i * 3600000000000, 1
             FROM n;
         COMMIT;",
        now = now_ns()
    ))
    .unwrap();
    drop(db);
    println!("made in {:?}", begun.elapsed());
    let reader = ledger.reader();
    let status = reader.history_status().unwrap();
    println!("{} uses in {} MiB", status.uses, status.bytes >> 20);
    let mut slowest = Duration::ZERO;
    let mut time = |what: &str, question: &dyn Fn()| {
        question();
        let begun = Instant::now();
        question();
        println!("{what}: {:?}", begun.elapsed());
        slowest = slowest.max(begun.elapsed());
    };
    let busy = "user1".to_owned();
    time("list of credentials", &|| {
        let page = reader
            .list_credentials(&ListCredentialsRequest::default())
            .unwrap();
        assert_eq!(page.credentials.len(), 100);
        let ask = ListCredentialsRequest {
            page_token: page.next_page_token,
            page_size: 1000,
            ..Default::default()
        };
        assert_eq!(
            reader.list_credentials(&ask).unwrap().credentials.len(),
            1000
        );
    });
    time("passport of one with 100,000 uses", &|| {
        reader
            .get_credential(&GetCredentialRequest {
                credential: busy.clone(),
            })
            .unwrap();
    });
    time("passport of one with 90 uses", &|| {
        reader
            .get_credential(&GetCredentialRequest {
                credential: "user77".into(),
            })
            .unwrap();
    });
    for (what, credential, by, to_host) in [
        ("used: 100,000 uses", "user1", "", ""),
        ("used: 90 uses", "user78", "", ""),
        (
            "used by a program that did not",
            "user1",
            "/usr/bin/none",
            "",
        ),
        ("used to a host", "user1", "", "h77.example"),
    ] {
        time(what, &|| {
            let ask = CheckUseRequest {
                credential: credential.into(),
                by: by.into(),
                to_host: to_host.into(),
                ..Default::default()
            };
            reader.check_use(&ask, now_ns(), 1).unwrap();
        });
    }
    for (what, by, to_host, credential) in [
        ("uses", "", "", ""),
        ("uses by a program", "p77", "", ""),
        ("uses by none", "none", "", ""),
        ("uses to a host", "", "h77.example", ""),
        ("uses of a kind", "", "", "github-*"),
    ] {
        time(what, &|| {
            let ask = ListUsesRequest {
                by: by.into(),
                to_host: to_host.into(),
                credential: credential.into(),
                page_size: 1000,
                ..Default::default()
            };
            reader.list_uses(&ask).unwrap();
        });
    }
    time("coverage", &|| {
        reader
            .list_coverage(&ListCoverageRequest::default(), now_ns(), 1)
            .unwrap();
    });
    time("graph of one", &|| {
        let ask = GetGraphRequest {
            credential: "user77".into(),
            ..Default::default()
        };
        reader.graph(&ask).unwrap();
    });
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");
}

#[test]
fn uses_are_asked_for_by_the_environment_of_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    for (sequence, credential, environment) in [
        (1, 1, "production"),
        (2, 1, "test"),
        (3, 1, ""),
        (4, 2, "test"),
    ] {
        let mut event = event(sequence, "credential_sent", credential);
        environment.clone_into(&mut event.environment);
        ledger.record(Arc::new(event));
    }
    ledger.flush();
    let reader = ledger.reader();
    let uses = |environment: &str, contexts: &[&str]| {
        let ask = ListUsesRequest {
            environment: environment.into(),
            contexts: contexts.iter().map(|c| (*c).to_owned()).collect(),
            ..Default::default()
        };
        reader.list_uses(&ask).unwrap().uses
    };
    assert_eq!(uses("", &[]).len(), 4);
    assert_eq!(uses("test", &[]).len(), 2);
    assert_eq!(uses("!test", &[]).len(), 2);
    assert!(uses("other", &[]).is_empty());
    let production = uses("production", &[]);
    assert_eq!(production[0].environment, "production");
    // It is no context.
    assert!(production[0].contexts.is_empty());
    assert!(uses("", &["environment"]).is_empty());
    let verdict = |credential: u64, environment: &str| {
        let ask = CheckUseRequest {
            credential: fingerprint(credential),
            acts: vec![UseAct::Sent.into()],
            environment: environment.into(),
            ..Default::default()
        };
        reader.check_use(&ask, now_ns(), 1).unwrap().verdict
    };
    assert_eq!(verdict(1, "production"), i32::from(Verdict::Yes));
    assert_eq!(verdict(2, "test"), i32::from(Verdict::Yes));
    // Used in another one, which is not to say that nothing could have been missed.
    assert_ne!(verdict(2, "production"), i32::from(Verdict::Yes));
}

/// Of sends that were reported together only the first and the last have a time: between them nobody says no. Nor of the last
/// seconds, in which some may be counted and not reported.
#[test]
fn what_was_reported_together_may_have_been_at_any_time_between() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), Retention::default());
    // Within one hour of the clock, and after the run began.
    let base = (now_ns() / 3_600_000_000_000 + 1) * 3600 + 60;
    let at = |seconds: i64| {
        Some(Timestamp {
            seconds: base + seconds,
            nanos: 0,
        })
    };
    for (sequence, time, together) in [(1, 0, None), (2, 20, Some((100, 10))), (3, 40, None)] {
        let mut sent = event(sequence, "credential_sent", 1);
        sent.time = at(time);
        sent.repeats = together.map(|(count, first)| keytrail_proto::v1::Repeats {
            count,
            first: at(first),
        });
        ledger.record(Arc::new(sent));
    }
    ledger.flush();
    let reader = ledger.reader();
    let ask = |from: i64, to: i64, now: i64| {
        let question = CheckUseRequest {
            credential: fingerprint(1),
            acts: vec![UseAct::Sent.into()],
            from: at(from),
            to: at(to),
            ..Default::default()
        };
        let now = (base + now) * 1_000_000_000;
        let answer = reader.check_use(&question, now, 1).unwrap();
        let why = |reason: &str| answer.hidden.iter().any(|h| h.reason == reason);
        (
            answer.verdict == i32::from(Verdict::Yes),
            why("time_unknown"),
            why("reported_together"),
        )
    };
    assert_eq!(ask(9, 11, 600), (true, false, false), "the first");
    assert_eq!(ask(19, 21, 600), (true, false, false), "the last");
    assert_eq!(ask(12, 15, 600), (false, true, false), "one of many");
    assert_eq!(ask(2, 8, 600), (false, false, false), "before them");
    assert_eq!(ask(22, 30, 600), (false, false, false), "after them");
    assert_eq!(ask(595, 600, 600), (false, false, true), "just now");
    assert_eq!(ask(500, 600, 600), (false, false, false), "not lately");
}
