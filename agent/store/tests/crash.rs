//! A ledger whose process is killed again and again in the middle of its work: what a reader was given is there, once.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_findings::Baseline;
use keytrail_model::{EventKind, EvidenceGrade, SourceType};
use keytrail_proto::v1::{
    Credential, Event, EventId, Evidence, Executable, Finding, ListBaselinesRequest,
    ListFindingsRequest, ListUsesRequest, Process, Source,
};
use keytrail_store::{Ledger, Retention};
use pbjson_types::Timestamp;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Deaths, and the time they may take.
const KILLS: u32 = 200;
const TIME: Duration = Duration::from_secs(60);
/// Each so-manieth event is a finding, and so many are reported between two baselines.
const FINDING: u64 = 5;
const BASELINE: u64 = 7;
const FINGERPRINT: &str = "kt1:00000000000000000000000000000001";

/// Of an event among those of all runs.
fn number(epoch: u64, sequence: u64) -> u64 {
    (epoch << 32) | sequence
}

/// Nothing is forgotten meanwhile.
fn open(dir: &Path) -> Ledger {
    let retention = Retention {
        events: 10_000_000,
        ..Retention::default()
    };
    Ledger::open_with(dir, retention).unwrap()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn event(epoch: u64, sequence: u64) -> Event {
    let finding = sequence.is_multiple_of(FINDING);
    let kind = if finding {
        EventKind::Finding
    } else {
        EventKind::CredentialRead
    };
    Event {
        id: Some(EventId {
            epoch,
            sequence,
            ..Default::default()
        }),
        time: Some(Timestamp {
            seconds: now().as_secs().cast_signed(),
            nanos: 0,
        }),
        kind: kind.number(),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: FINGERPRINT.into(),
            ..Default::default()
        }),
        process: Some(Process {
            pid: 7,
            executable: Some(Executable {
                path: "/usr/bin/curl".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        source: Some(Source {
            r#type: SourceType::File.number(),
            path: "/srv/.env".into(),
            ..Default::default()
        }),
        evidence: Some(Evidence {
            grade: EvidenceGrade::Observed.number(),
            ..Default::default()
        }),
        finding: finding.then(|| Finding {
            rule: "new-program".into(),
            severity: "high".into(),
            subject: "curl".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Not a test: what the test below runs as a process of its own, and kills. It writes all the time, and prints what its readers
/// were given.
#[test]
#[ignore = "run by another test"]
fn writer() {
    let Some(dir) = std::env::var_os("LEDGER") else {
        return;
    };
    let ledger = open(Path::new(&dir));
    let epoch = ledger.begin_run("boot").unwrap().epoch;
    ledger.publish(Box::new(|event| {
        let id = event.id.as_ref().unwrap();
        let line = format!("given {} {}\n", id.epoch, id.sequence);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }));
    for sequence in 1_u64.. {
        if sequence.is_multiple_of(BASELINE) {
            // Reported before the event: who has that has what was learned before it.
            let baseline = Baseline {
                uses: number(epoch, sequence),
                ..Baseline::default()
            };
            let body = serde_json::to_string(&baseline).unwrap();
            ledger.baseline(FINGERPRINT.into(), Some(body));
        }
        // What the disk does not take in time is given all the same (`overdue`), and reported as lost: not here.
        ledger.record(Arc::new(event(epoch, sequence)));
        if sequence.is_multiple_of(8) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// From when on a writer is left alone for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// It is killed while it opens the ledger, or soon after.
    Start,
    /// It is killed while it works, however long it took to begin.
    FirstGiven,
}

/// Runs a writer for a while and kills it; what it had given, by number.
fn killed(dir: &Path, from: From, after: Duration) -> Vec<(u64, u64)> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env("LEDGER", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let given = |line: &str| -> Option<(u64, u64)> {
        let mut words = line.strip_prefix("given ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let (first, began) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        // A line that the death cut off was not given.
        while let Some(Ok(line)) = lines.next() {
            all.extend(given(&line));
            if all.len() == 1 {
                let _ = first.send(());
            }
        }
        all
    });
    if from == From::FirstGiven {
        began
            .recv_timeout(TIME)
            .expect("a writer has given nothing");
    }
    std::thread::sleep(after);
    // SIGKILL.
    writer.kill().unwrap();
    writer.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn what_was_given_survives_any_number_of_kills() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut random = now().subsec_nanos() | 1;
    println!("seed {random}");
    let (mut kills, mut given, mut learned) = (0, 0, 0);
    while kills < KILLS && started.elapsed() < TIME {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let from = if kills % 4 == 0 {
            From::Start
        } else {
            From::FirstGiven
        };
        let had = killed(
            dir.path(),
            from,
            Duration::from_millis(u64::from(20 + random % 90)),
        );
        kills += 1;
        let Some(&(epoch, last)) = had.last() else {
            // It was killed before it had begun.
            continue;
        };
        given += had.len();
        let numbers: Vec<u64> = had.iter().map(|(_, sequence)| *sequence).collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "given twice: {numbers:?}"
        );
        let ledger = open(dir.path());
        let kept = kept(&ledger, epoch);
        for (_, sequence) in &had {
            assert!(
                kept.contains(sequence),
                "kill {kills}: {epoch}.{sequence} was given and is lost"
            );
        }
        // What was learned up to then.
        if last >= BASELINE {
            learned = number(epoch, last / BASELINE * BASELINE);
        }
        let baselines = ledger
            .reader()
            .list_baselines(&ListBaselinesRequest::default(), 0)
            .unwrap()
            .baselines;
        if learned > 0 {
            assert_eq!(baselines.len(), 1, "kill {kills}");
            assert!(
                baselines[0].uses >= learned,
                "kill {kills}: a baseline is older than what was given after it"
            );
        }
    }
    println!(
        "{kills} kills, {given} events given, in {:?}",
        started.elapsed()
    );
    assert!(given > 0);
    // What is summed up counts every event once.
    let ledger = open(dir.path());
    let reader = ledger.reader();
    let mut all = (0, 0);
    let last = ledger.begin_run("boot").unwrap().epoch;
    for epoch in 1..last {
        let kept = kept(&ledger, epoch);
        let findings = kept.iter().filter(|s| s.is_multiple_of(FINDING)).count();
        all = (all.0 + kept.len() - findings, all.1 + findings);
    }
    let uses = reader.list_uses(&ListUsesRequest::default()).unwrap().uses;
    assert_eq!(uses.iter().map(|u| u.count).sum::<u64>(), all.0 as u64);
    let findings = reader.list_findings(&ListFindingsRequest::default());
    let findings = findings.unwrap().findings;
    assert_eq!(findings.iter().map(|f| f.count).sum::<u64>(), all.1 as u64);
    assert!(started.elapsed() > TIME || kills == KILLS);
}

/// Numbers of the events of one run that are there.
fn kept(ledger: &Ledger, epoch: u64) -> BTreeSet<u64> {
    let reader = ledger.reader();
    let mut all = BTreeSet::new();
    let mut after = EventId {
        epoch,
        ..Default::default()
    };
    loop {
        let page = reader.events_after(&after).unwrap();
        for event in &page.events {
            let id = event.id.as_ref().unwrap();
            if id.epoch != epoch {
                return all;
            }
            assert!(all.insert(id.sequence), "{id:?} is there twice");
            after.sequence = id.sequence;
        }
        if !page.more || page.events.is_empty() {
            return all;
        }
    }
}
