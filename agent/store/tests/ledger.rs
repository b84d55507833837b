//! The ledger: identity, crashes, corruption, retention.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_model::EventKind;
use keytrail_proto::v1::{Credential, Event, EventId};
use keytrail_store::{Ledger, LedgerError, Retention};
use pbjson_types::Timestamp;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
}

fn event(n: u64, kind: &str, fingerprint: &str) -> Arc<Event> {
    Arc::new(Event {
        id: Some(EventId {
            epoch: 1,
            sequence: n,
            ..Default::default()
        }),
        time: Some(Timestamp {
            seconds: now_seconds(),
            nanos: 5,
        }),
        kind: EventKind::of_word(kind).unwrap().number(),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: fingerprint.into(),
            confidence: 0.5,
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn identity_and_epochs_survive_and_the_end_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let ledger = Ledger::open(&state).unwrap();
    let first = ledger.begin_run_at("boot-a", 1_000).unwrap();
    assert_eq!(
        (
            first.epoch,
            first.previous_alive_wall_ns,
            first.previous_clean
        ),
        (1, None, false)
    );
    assert_eq!(first.agent.len(), 32);
    ledger.end_run(Duration::from_secs(5)).unwrap();

    let ledger = Ledger::open(&state).unwrap();
    let second = ledger.begin_run_at("boot-a", 2_000).unwrap();
    assert_eq!(
        (second.agent.as_str(), second.epoch),
        (first.agent.as_str(), 2)
    );
    assert!(second.previous_clean && second.previous_alive_wall_ns.unwrap() > 1_000);
    drop(ledger);

    // Dropped without an end: not clean. Another boot: what happened before it was not seen either.
    let ledger = Ledger::open(&state).unwrap();
    let third = ledger.begin_run_at("boot-a", 3_000).unwrap();
    assert_eq!(
        (third.previous_alive_wall_ns, third.previous_clean),
        (Some(2_000), false)
    );
    drop(ledger);
    let fourth = Ledger::open(&state)
        .unwrap()
        .begin_run_at("boot-b", 4_000)
        .unwrap();
    assert_eq!(
        (fourth.epoch, fourth.previous_alive_wall_ns, fourth.rebooted),
        (4, Some(3_000), true)
    );
    assert!(!third.rebooted);
    assert_eq!(
        (mode(&state), mode(&state.join("keytrail.db"))),
        (0o700, 0o600)
    );
}

#[test]
fn heartbeats_reach_the_disk_of_a_killed_agent() {
    // A child process is killed with SIGKILL while it beats; only what is on disk counts.
    const STATE: &str = "KEYTRAIL_TEST_LEDGER_STATE";
    if let Some(state) = std::env::var_os(STATE) {
        let ledger = Ledger::open(Path::new(&state)).unwrap();
        ledger.begin_run_at("boot", 1_000).unwrap();
        for n in 0.. {
            ledger.heartbeat(2_000 + n);
            ledger.record(event(n, "credential_read", "kt1:aa"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "heartbeats_reach_the_disk_of_a_killed_agent"])
        .env(STATE, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let on_disk = || -> rusqlite::Result<(i64, i64)> {
        let database = dir.path().join("keytrail.db");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let other = rusqlite::Connection::open_with_flags(database, flags)?;
        let query = "SELECT (SELECT max(alive_wall_ns) FROM runs), (SELECT count(*) FROM events)";
        other.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
    };
    let began = Instant::now();
    while !on_disk().is_ok_and(|(alive, events)| alive > 2_000 && events >= 10) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no heartbeat reached the disk: {:?}",
            on_disk()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let run = ledger.begin_run_at("boot", 9_000).unwrap();
    assert!(!run.previous_clean);
    let alive = run.previous_alive_wall_ns.unwrap();
    assert!(alive > 2_000, "no heartbeat reached the disk: {alive}");
    assert!(
        ledger.events(10).unwrap().len() == 10,
        "the killed agent's events are gone"
    );
}

#[test]
fn one_agent_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Ledger::open(dir.path()).unwrap();
    assert!(matches!(
        Ledger::open(dir.path()),
        Err(LedgerError::InUse(_))
    ));
}

#[test]
fn credentials_are_counted_and_events_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    ledger.record(event(1, "credential_read", "kt1:aa"));
    ledger.record(event(2, "credential_sent", "kt1:aa"));
    ledger.record(event(3, "credential_exposed", "kt1:bb"));
    ledger.record(Arc::new(Event {
        kind: EventKind::CoverageGap.number(),
        ..Default::default()
    }));
    ledger.flush();
    let mut known = ledger.credentials(10).unwrap();
    known.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    let counts: Vec<_> = known
        .iter()
        .map(|c| (c.fingerprint.as_str(), c.reads, c.exposures, c.sends))
        .collect();
    assert_eq!(counts, [("kt1:aa", 1, 0, 1), ("kt1:bb", 0, 1, 0)]);
    let sequences: Vec<_> = ledger
        .events(3)
        .unwrap()
        .iter()
        .map(|e| e.id.clone().unwrap_or_default().sequence)
        .collect();
    assert_eq!(sequences, [2, 3, 0]);
    let first = event(1, "credential_read", "kt1:aa");
    let kept = &ledger.events(10).unwrap()[0];
    // Made at another moment, so only the time may differ.
    assert_eq!(
        *kept,
        Event {
            time: kept.time,
            ..first.as_ref().clone()
        }
    );
}

#[test]
fn old_and_many_events_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(
        dir.path(),
        Retention {
            events: 10,
            days: 2,
            ..Retention::default()
        },
    )
    .unwrap();
    let mut old = event(0, "credential_read", "kt1:aa").as_ref().clone();
    old.time.as_mut().unwrap().seconds -= 3 * 86_400;
    ledger.record(Arc::new(old));
    (1..=50).for_each(|n| ledger.record(event(n, "credential_read", "kt1:aa")));
    ledger.flush();
    let kept = ledger.events(1000).unwrap();
    assert_eq!(kept.len(), 10);
    assert_eq!(kept.last().unwrap().id.as_ref().unwrap().sequence, 50);
    // What is known of the credential stays.
    assert_eq!(ledger.credentials(10).unwrap()[0].reads, 51);

    let none = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(
        none.path(),
        Retention {
            events: 0,
            days: 2,
            ..Retention::default()
        },
    )
    .unwrap();
    ledger.record(event(1, "credential_read", "kt1:aa"));
    ledger.flush();
    assert_eq!(
        (
            ledger.events(10).unwrap().len(),
            ledger.credentials(10).unwrap().len()
        ),
        (0, 1)
    );
}

#[test]
fn a_corrupt_database_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("keytrail.db");
    for n in 1..=4 {
        std::fs::write(
            &database,
            format!("this is not a database {n}").repeat(1000),
        )
        .unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.begin_run("boot").unwrap().epoch, 1);
        ledger.end_run(Duration::from_secs(5)).unwrap();
    }
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .filter(|e| {
            e.file_name()
                .to_string_lossy()
                .starts_with("keytrail.db.corrupt-")
        });
    assert_eq!(
        aside.count(),
        3,
        "corrupt databases are kept, and not for ever"
    );
    assert!(
        std::fs::read_to_string(dir.path().join("keytrail.db.corrupt-1"))
            .unwrap()
            .starts_with("this is not")
    );
}

#[test]
fn a_database_damaged_in_the_middle_of_a_run_is_replaced_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("keytrail.db");
    {
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.begin_run("boot").unwrap();
        (0..2000).for_each(|n| ledger.record(event(n, "credential_read", &format!("kt1:{n}"))));
        ledger.end_run(Duration::from_secs(5)).unwrap();
    }
    // The first page says it is a database; the others are rubbish.
    let mut bytes = std::fs::read(&database).unwrap();
    assert!(bytes.len() > 64 * 1024);
    bytes[4096..].fill(0xa5);
    std::fs::write(&database, bytes).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    ledger.record(event(1, "credential_read", "kt1:new"));
    ledger.flush();
    assert_eq!(ledger.overflowed(), 0);
    assert_eq!(ledger.events(10).unwrap().len(), 1);
    ledger.end_run(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_newer_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("keytrail.db");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute_batch("PRAGMA user_version = 999")
        .unwrap();
    let e = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(e, LedgerError::Newer { version: 999, .. }), "{e}");
    assert!(e.to_string().contains("newer keytrail"));
}

/// How long this thread was ready to run and had no processor: the second number of schedstat, proc(5).
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let number = text.split_whitespace().nth(1);
    Duration::from_nanos(number.map_or(0, |n| n.parse().unwrap()))
}

#[test]
fn recording_never_waits_and_overflow_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    const EVENTS: u64 = 60_000;
    // Each with a number of its own: the same event twice is one.
    let events: Vec<_> = (1..=EVENTS)
        .map(|n| event(n, "credential_read", "kt1:aa"))
        .collect();
    let mut longest = Duration::ZERO;
    let before = waited();
    for e in events {
        let start = Instant::now();
        ledger.record(e);
        longest = longest.max(start.elapsed());
    }
    let longest = longest.saturating_sub(waited() - before);
    assert!(
        longest < Duration::from_secs(1),
        "recording took {longest:?}"
    );
    ledger.flush();
    let recorded = ledger.credentials(1).unwrap()[0].reads;
    assert_eq!(
        recorded + ledger.overflowed(),
        EVENTS,
        "an event is neither recorded nor counted"
    );
    assert!(
        ledger.overflowed() > 0,
        "the queue was never full: this test shows nothing"
    );
}

/// Another process that holds the database does not keep the agent from ending.
#[test]
fn a_locked_database_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    let other = rusqlite::Connection::open(dir.path().join("keytrail.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..3_000).for_each(|n| ledger.record(event(n, "credential_read", "kt1:aa")));
    let (began, before) = (Instant::now(), waited());
    let ended = ledger.end_run(Duration::from_millis(400));
    let took = began.elapsed().saturating_sub(waited() - before);
    assert!(ended.is_err());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Nobody can ask for them, and they were most of the rows.
#[test]
fn beginnings_and_ends_of_processes_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    for (n, kind) in ["process_start", "credential_read", "process_exit"]
        .into_iter()
        .enumerate()
    {
        ledger.record(event(n as u64, kind, "kt1:aa"));
    }
    ledger.flush();
    let kept = ledger.events(10).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].kind, EventKind::CredentialRead.number());
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    use std::os::unix::fs::{chown, lchown, symlink};
    if rustix::process::geteuid().as_raw() != 0 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let refused = |name: &str| {
        let error = Ledger::open(&path(name)).unwrap_err();
        assert!(matches!(error, LedgerError::Foreign(..)), "{error}");
        assert!(error.to_string().contains("--state-dir"), "{error}");
    };
    std::fs::create_dir(path("theirs")).unwrap();
    chown(path("theirs"), Some(12_345), None).unwrap();
    refused("theirs");
    // A link that somebody else can turn, and one of ours to what is somebody else's.
    std::fs::create_dir(path("ours")).unwrap();
    symlink(path("ours"), path("link")).unwrap();
    lchown(path("link"), Some(12_345), None).unwrap();
    refused("link");
    symlink(path("theirs"), path("ours-to-theirs")).unwrap();
    refused("ours-to-theirs");
    symlink(path("ours"), path("ours-to-ours")).unwrap();
    Ledger::open(&path("ours-to-ours")).unwrap();
    assert_eq!(mode(&path("theirs")), 0o755, "it was changed all the same");
}
