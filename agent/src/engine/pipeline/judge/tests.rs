use super::*;
use keytrail_findings::facts::CredentialFacts;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than may wait for the disk.
const MANY: usize = 20_000;

fn learned(credentials: usize) -> Stage {
    let mut stage = Stage::default();
    for n in 0..credentials {
        stage.step(&Facts {
            time_ns: 1 + n as i64,
            kind: "credential_read".into(),
            credential: Some(CredentialFacts {
                fingerprint: format!("kt1:{n:032x}"),
                ..CredentialFacts::default()
            }),
            ..Facts::default()
        });
    }
    assert_eq!(Learned::of(&stage).credentials, credentials);
    stage
}

fn begun(dir: &TempDir) -> Ledger {
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.begin_run("boot").unwrap();
    ledger
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Holds up the thread that writes, until this is dropped: it reports an event, and nobody takes it.
fn hold_up(ledger: &Ledger) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (reached, holds) = channel();
    ledger.publish(Box::new(move |_| {
        let _ = reached.send(());
        let _ = released.recv();
    }));
    let id = v1::EventId {
        epoch: 1,
        sequence: 1,
        ..v1::EventId::default()
    };
    ledger.record(Arc::new(v1::Event {
        id: Some(id),
        ..v1::Event::default()
    }));
    holds.recv_timeout(PATIENCE).unwrap();
    release
}

fn written(dir: &TempDir) -> usize {
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.findings().unwrap().baselines.len()
}

#[test]
fn all_that_was_learned_is_written_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = begun(&dir);
    let mut stage = learned(MANY);
    let held = hold_up(&ledger);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
    });
    let left = keep_all(&mut stage, &ledger, soon());
    assert_eq!(left, Learned::default());
    ledger.end_run(PATIENCE).unwrap();
    assert_eq!(written(&dir), MANY);
}

#[test]
fn what_a_slow_disk_does_not_take_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = begun(&dir);
    let mut stage = learned(300);
    let held = hold_up(&ledger);
    let end = Instant::now() + Duration::from_millis(50);
    assert_eq!(keep_all(&mut stage, &ledger, end).credentials, 300);
    drop(held);
    assert_eq!(keep_all(&mut stage, &ledger, soon()).sum(), 0);
    ledger.end_run(PATIENCE).unwrap();
    assert_eq!(written(&dir), 300);
}

#[test]
fn what_a_disk_refuses_is_counted_and_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = begun(&dir);
    let mut stage = learned(300);
    let database = rusqlite::Connection::open(dir.path().join("keytrail.db")).unwrap();
    database
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON baselines BEGIN SELECT RAISE(FAIL, 'no'); END",
        )
        .unwrap();
    // While the agent runs: it comes again.
    keep_piece(&mut stage, &ledger);
    assert_eq!(stage.changed(), 300 - 256);
    ledger.flush();
    assert!(take_back(&mut stage, &ledger));
    assert_eq!(stage.changed(), 300);
    let began = Instant::now();
    assert_eq!(keep_all(&mut stage, &ledger, soon()).credentials, 300);
    assert!(began.elapsed() < PATIENCE / 2, "it is not asked again");
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    assert_eq!(keep_all(&mut stage, &ledger, soon()).sum(), 0);
    ledger.end_run(PATIENCE).unwrap();
    assert_eq!(written(&dir), 300);
}
