//! Every request is answered, once, in time or with why not.

use super::*;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn inspector(timeout_ns: u64) -> Inspector {
    let options = InspectionOptions {
        timeout_ns,
        ..InspectionOptions::default()
    };
    let named = Arc::new(GlobSet::empty());
    Inspector::start(Arc::new(Classifier::builtin()), named, options).unwrap()
}

fn request(path: &Path) -> Subject {
    Subject::Path(PathSubject {
        root: "/".into(),
        path: path.to_str().unwrap().to_owned(),
        expected: None,
        known: None,
    })
}

fn who(user: u32) -> Who {
    Who { user, process: 1 }
}

fn wait(inspector: &mut Inspector, now_ns: u64) -> Answer {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = inspector.poll(now_ns) {
            return answer;
        }
        assert!(Instant::now() < end, "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_found_comes_back_under_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, "api_token = q3VtAcK8s1LwXy7Bq3VtAcK8s1LwXy7B\n").unwrap();
    let mut inspector = inspector(u64::MAX / 2);
    let there = inspector.ask(request(&path), who(7), 1).unwrap();
    let gone = inspector
        .ask(request(&dir.path().join("none")), who(7), 1)
        .unwrap();
    let mut answers = [wait(&mut inspector, 1), wait(&mut inspector, 1)];
    answers.sort_by_key(|answer| answer.id);
    assert_eq!([answers[0].id, answers[1].id], [there, gone]);
    let Ok(Outcome::File(seen)) = &answers[0].outcome else {
        panic!("the file is there")
    };
    assert_eq!(seen.inspected.as_ref().unwrap().findings.len(), 1);
    assert!(matches!(answers[1].outcome, Ok(Outcome::Gone)));
    assert!(inspector.is_idle() && inspector.next_deadline().is_none());
}

#[test]
fn what_does_not_come_in_time_is_late() {
    let dir = tempfile::tempdir().unwrap();
    let mut inspector = inspector(1_000);
    let id = inspector.ask(request(dir.path()), who(7), 0).unwrap();
    // Since the boot more time has passed than it had: no thread begins it.
    let answer = wait(&mut inspector, 1_000);
    assert_eq!((answer.id, answer.last), (id, true));
    assert!(matches!(answer.outcome, Err(Missed::Late)));
    assert!(inspector.is_idle());
}

#[test]
fn too_many_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut inspector = inspector(u64::MAX / 2);
    // Nobody takes any.
    inspector.shared.stop.store(true, Ordering::Release);
    inspector.shared.arrived.notify_all();
    std::thread::sleep(Duration::from_millis(50));
    let refused = (0..100_000).find_map(|_| inspector.ask(request(dir.path()), who(7), 1).err());
    assert_eq!(refused, Some(Missed::Backlog));
    assert!(inspector.ask(request(dir.path()), who(8), 1).is_ok());
}

/// A new file of a user, read by one process of many.
fn new_file(owner: u32, process: u32) -> Subject {
    Subject::Inode(Box::new(NewFile {
        record: keytrail_abi::FileNew {
            header: keytrail_abi::Header {
                tgid: process,
                ..Default::default()
            },
            file: keytrail_abi::FileId {
                ino: u64::from(process),
                dev: 7,
                pad: 0,
            },
            size: 100,
            ctime_ns: 1,
            exec_id: 0,
            access: 1,
            depth: 1,
            owner_uid: owner,
            owner_gid: owner,
            mode: 0o100_600,
            data_len: 0,
            names: [[b'x'; keytrail_abi::NAME_MAX]; keytrail_abi::NAME_DEPTH],
        },
        bytes: ReaderBytes::default(),
        path: String::new(),
    }))
}

/// However many processes read them: what looking for files and into them takes is at the expense of their owner.
#[test]
fn files_of_one_user_have_one_budget_whoever_reads_them() {
    let mut inspector = inspector(u64::MAX / 2);
    // Before anything was taken: on a busy machine it has been given back by the end.
    let now = boot_ns();
    for process in 1..=50 {
        let who = Who { user: 7, process };
        inspector.ask(new_file(7, process), who, 1).unwrap();
    }
    for _ in 0..50 {
        assert!(matches!(wait(&mut inspector, 1).outcome, Ok(Outcome::Gone)));
    }
    // Not one was found, and looking for them took time.
    let budgets = || lock(&inspector.shared.context.budgets);
    assert!(!budgets().is_whole(7, now) && budgets().is_whole(8, now));
    budgets().spend(7, 1_000_000_000_000, now);
    for process in 51..=60 {
        let who = Who { user: 7, process };
        inspector.ask(new_file(7, process), who, 1).unwrap();
        let refused = wait(&mut inspector, 1);
        assert!(matches!(refused.outcome, Err(Missed::OverBudget)));
    }
    inspector.ask(new_file(8, 61), who(8), 1).unwrap();
    assert!(matches!(wait(&mut inspector, 1).outcome, Ok(Outcome::Gone)));
}

/// A thread that a file system does not let go is replaced, and nobody else is sent there.
#[test]
fn a_stuck_thread_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut inspector = inspector(1_000);
    let id = 99;
    let pending = Pending {
        due_ns: 10,
        place: hash(&PathBuf::from("/")),
        progress: Arc::new(Progress(AtomicU8::new(Progress::READING))),
        reader_bytes: ReaderBytes::new(b"what its reader had"),
    };
    let reader_bytes = pending.reader_bytes.clone();
    inspector.deadlines.insert((10, id));
    inspector.pending.insert(id, pending);
    let answer = wait(&mut inspector, 10);
    assert!(matches!(answer.outcome, Err(Missed::Late)) && !answer.last);
    assert!(
        reader_bytes.take().is_empty(),
        "the thread may never come back, and has them no longer"
    );
    assert_eq!(
        inspector.ask(request(dir.path()), who(7), 1),
        Err(Missed::Late),
        "the place it is stuck at"
    );
    // It comes back after all.
    let late = Answer {
        id,
        outcome: Ok(Outcome::Clean),
        last: true,
    };
    lock(&inspector.shared.answers).send(late).unwrap();
    assert!(matches!(
        wait(&mut inspector, 10).outcome,
        Ok(Outcome::Clean)
    ));
    assert!(
        inspector
            .ask(request(dir.path()), who(7), boot_ns())
            .is_ok()
    );
}
