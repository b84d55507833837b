//! With a real ledger, and a receiver that does what a test says.

use super::*;
use crate::carrier::Delivered;
use crate::spec::{OcsfClass, Severity};
use keytrail_proto::v1::Finding;
use keytrail_store::{Ledger, Retention};
use std::sync::PoisonError;

/// What a receiver has, and how it answers next.
#[derive(Default)]
struct Receiver {
    got: Vec<Vec<u64>>,
    gaps: Vec<u64>,
    /// Answers to come; then all is well.
    answers: VecDeque<Answer>,
    always: Option<fn() -> Failure>,
}

type Answer = Result<Delivered, Failure>;

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Receiver>>);

impl Fake {
    fn lock(&self) -> std::sync::MutexGuard<'_, Receiver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers(&self) -> Vec<u64> {
        self.lock().got.concat()
    }
}

impl Carrier for Fake {
    fn deliver(&mut self, items: &[Item]) -> Answer {
        let mut receiver = self.lock();
        if let Some(failure) = receiver.always {
            return Err(failure());
        }
        let answer = receiver
            .answers
            .pop_front()
            .unwrap_or_else(|| Ok(Delivered::default()));
        if answer.is_ok() {
            let numbers = items
                .iter()
                .filter_map(|i| i.event.id.as_ref())
                .map(|id| id.sequence);
            let gaps = items.iter().filter(|i| i.event.id.is_none());
            let gaps: Vec<u64> = gaps.map(|i| i.event.gap.as_ref().unwrap().count).collect();
            assert!(
                gaps.is_empty() || items[0].event.id.is_none(),
                "the gap is first"
            );
            receiver.got.push(numbers.collect());
            receiver.gaps.extend(gaps);
        }
        answer
    }
}

struct Scene {
    dir: tempfile::TempDir,
    ledger: Ledger,
    reported: Arc<Mutex<Vec<GapSeen>>>,
    fake: Fake,
}

const AGENT: &str = "a";

fn scene(retention: Retention) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(dir.path(), retention).unwrap();
    ledger.begin_run("boot").unwrap();
    Scene {
        dir,
        ledger,
        reported: Arc::default(),
        fake: Fake::default(),
    }
}

impl Scene {
    fn record(&self, numbers: std::ops::RangeInclusive<u64>, change: impl Fn(&mut Event)) {
        for sequence in numbers {
            let mut event = Event {
                id: Some(EventId {
                    agent: AGENT.into(),
                    epoch: 1,
                    sequence,
                    ..EventId::default()
                }),
                time: Some(Timestamp {
                    seconds: (wall_ns() / 1_000_000_000).cast_signed(),
                    nanos: 0,
                }),
                kind: EventKind::CredentialRead.number(),
                ..Event::default()
            };
            change(&mut event);
            self.ledger.record(Arc::new(event));
            if sequence % 5_000 == 0 {
                // The writer's queue is bounded.
                self.ledger.flush();
            }
        }
        self.ledger.flush();
    }

    fn worker(&self, batch: usize, filter: Filter) -> Worker {
        let cursors = Arc::new(Cursors::open(self.dir.path()).unwrap());
        let cursor = cursors.load("sink:x").unwrap().unwrap_or(Cursor {
            agent: AGENT.into(),
            epoch: 1,
            ..Cursor::default()
        });
        let reported = self.reported.clone();
        Worker {
            title: "sink x".into(),
            together: Duration::from_millis(100),
            key: "sink:x".into(),
            carrier: Box::new(self.fake.clone()),
            format: Format::Json,
            filter,
            batch,
            reporter: Reporter::default(),
            reader: self.ledger.reader(),
            cursors,
            progress: Arc::new(Mutex::new(Progress {
                cursor,
                ..Progress::default()
            })),
            bell: Bell::new(),
            report_gap: Arc::new(move |gap| reported.lock().unwrap().push(gap)),
            state: State::default(),
        }
    }

    fn reopen(self, retention: Retention) -> Scene {
        let Scene {
            dir,
            ledger,
            reported,
            fake,
        } = self;
        drop(ledger);
        let ledger = Ledger::open_with(dir.path(), retention).unwrap();
        Scene {
            dir,
            ledger,
            reported,
            fake,
        }
    }

    fn reported(&self) -> Vec<GapSeen> {
        self.reported.lock().unwrap().clone()
    }
}

/// Until nothing is left, without the waits.
fn drain(worker: &mut Worker) {
    for _ in 0..1000 {
        if matches!(worker.step(), Next::Idle) && matches!(worker.step(), Next::Idle) {
            return;
        }
        worker.report_left_out();
    }
    panic!("it does not come to an end");
}

#[test]
fn in_order_in_batches_and_on_from_where_it_was() {
    let scene = scene(Retention::default());
    scene.record(1..=10, |_| {});
    let mut worker = scene.worker(4, Filter::default());
    drain(&mut worker);
    assert_eq!(
        scene.fake.lock().got,
        [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]
    );
    assert_eq!(worker.cursor().delivered, 10);
    assert!(worker.cursor().last_delivered_ns > 0);
    drop(worker);
    scene.record(11..=12, |_| {});
    drain(&mut scene.worker(4, Filter::default()));
    assert_eq!(scene.fake.numbers(), (1..=12).collect::<Vec<_>>());
    assert!(scene.reported().is_empty());
}

#[test]
fn a_failed_batch_comes_again_and_the_wait_grows() {
    let scene = scene(Retention::default());
    scene.record(1..=4, |_| {});
    let mut worker = scene.worker(2, Filter::default());
    scene.fake.lock().answers = [
        Ok(Delivered::default()),
        Err(Failure::later("down")),
        Err(Failure::later("down")),
    ]
    .into();
    assert!(matches!(worker.step(), Next::More));
    let Next::Wait(first) = worker.step() else {
        panic!()
    };
    let Next::Wait(second) = worker.step() else {
        panic!()
    };
    assert!(second == 2 * first, "{first:?} {second:?}");
    assert_eq!(lock(&worker.progress).error, "down");
    assert!(lock(&worker.progress).failing_since_ns > 0);
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [1, 2, 3, 4]);
    assert!(lock(&worker.progress).error.is_empty());
    // It was over before it was worth telling.
    assert!(scene.reported().is_empty());
}

#[test]
fn an_outage_is_reported_once_with_what_waits() {
    let scene = scene(Retention::default());
    scene.record(1..=5, |_| {});
    let mut worker = scene.worker(2, Filter::default());
    scene.fake.lock().always = Some(|| Failure::later("down"));
    worker.step();
    let (since, wall, _) = worker.state.outage.unwrap();
    worker.state.outage = Some((since.checked_sub(OUTAGE).unwrap(), wall, false));
    for _ in 0..5 {
        worker.step();
    }
    let reported = scene.reported();
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(
        (reported[0].reason, reported[0].count),
        (GapReason::SinkBehind, 5)
    );
    assert_eq!(reported[0].detail, "sink x fails: down");
    assert!(reported[0].from_wall_ns > 0 && !reported[0].remedy.is_empty());
    scene.fake.lock().always = None;
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [1, 2, 3, 4, 5]);
}

#[test]
fn what_is_refused_is_left_out_after_some_tries_and_counted() {
    let scene = scene(Retention::default());
    scene.record(1..=4, |_| {});
    let mut worker = scene.worker(2, Filter::default());
    let refused = || Err(Failure::Refused("it answered 400".into()));
    scene.fake.lock().answers = (0..REFUSALS).map(|_| refused()).collect();
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [3, 4]);
    let cursor = worker.cursor();
    assert_eq!((cursor.delivered, cursor.left_out), (2, 2));
    let reported = scene.reported();
    assert_eq!((reported.len(), reported[0].count), (1, 2), "{reported:?}");
    assert!(
        reported[0].detail.contains("it answered 400"),
        "{reported:?}"
    );
    assert!(worker.state.outage.is_none(), "it takes events again");
    // One that refuses everything is not reported all the time, and is not well when nothing waits.
    scene.fake.lock().always = Some(|| Failure::Refused("no".into()));
    scene.record(5..=8, |_| {});
    for _ in 0..50 {
        worker.step();
        worker.report_left_out();
    }
    assert_eq!((worker.cursor().left_out, scene.reported().len()), (6, 1));
    assert_eq!(lock(&worker.progress).error, "no");
}

#[test]
fn what_was_forgotten_is_a_gap_before_what_follows() {
    let keep = Retention {
        events: 10,
        ..Retention::default()
    };
    let scene = scene(keep);
    scene.record(1..=5, |_| {});
    let mut worker = scene.worker(3, Filter::default());
    assert!(matches!(worker.step(), Next::More));
    // More than a batch of the writer's, so that it prunes.
    scene.record(6..=25_000, |_| {});
    worker.batch = 500;
    drain(&mut worker);
    let numbers = scene.fake.numbers();
    assert_eq!(numbers[..3], [1, 2, 3]);
    let first = numbers[3];
    assert!(first > 6, "the writer did not prune");
    assert_eq!(numbers[3..], (first..=25_000).collect::<Vec<_>>());
    assert_eq!(scene.fake.lock().gaps, [first - 4]);
    let reported = scene.reported();
    assert_eq!(
        (reported.len(), reported[0].count),
        (1, first - 4),
        "{reported:?}"
    );
    assert_eq!(worker.cursor().left_out, first - 4);
    assert_eq!(worker.cursor().delivered, numbers.len() as u64);
}

#[test]
fn what_was_forgotten_after_it_was_delivered_is_no_loss() {
    let scene = scene(Retention::default());
    let now = (wall_ns() / 1_000_000_000).cast_signed();
    let days = |n: i64| Timestamp {
        seconds: now - n * 86_400,
        nanos: 0,
    };
    scene.record(1..=5, |event| event.time = Some(days(2)));
    drain(&mut scene.worker(3, Filter::default()));
    let scene = scene.reopen(Retention {
        days: 1,
        ..Retention::default()
    });
    // The numbers between are of events that are never kept. The first write prunes.
    scene.record(100..=101, |_| {});
    let mut worker = scene.worker(3, Filter::default());
    assert!(worker.cursor().drained_ns > 0);
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [1, 2, 3, 4, 5, 100, 101]);
    assert!(scene.fake.lock().gaps.is_empty() && scene.reported().is_empty());
    // Who was not that far is told.
    let mut late = scene.worker(3, Filter::default());
    lock(&late.progress).cursor = Cursor {
        epoch: 1,
        sequence: 3,
        ..Cursor::default()
    };
    drain(&mut late);
    assert_eq!(scene.fake.lock().gaps, [96]);
}

#[test]
fn who_wants_few_gets_those_and_moves_on_past_the_others() {
    let scene = scene(Retention::default());
    scene.record(1..=2_500, |event| {
        if event.id.as_ref().unwrap().sequence.is_multiple_of(100) {
            event.kind = EventKind::Finding.number();
            event.finding = Some(Finding {
                severity: "high".into(),
                rule: "r".into(),
                ..Finding::default()
            });
        }
    });
    let filter = Filter {
        kinds: vec![EventKind::Finding],
        severity: Some(Severity::High),
        ..Filter::default()
    };
    let mut worker = scene.worker(3, filter);
    drain(&mut worker);
    let expected: Vec<u64> = (1..=25).map(|n| n * 100).collect();
    assert_eq!(scene.fake.numbers(), expected);
    assert!(scene.fake.lock().got.iter().all(|batch| batch.len() <= 3));
    assert_eq!(worker.cursor().sequence, 2_500);
}

#[test]
fn a_receiver_of_one_class_gets_no_other() {
    let scene = scene(Retention::default());
    scene.record(1..=9, |event| {
        if event.id.as_ref().unwrap().sequence.is_multiple_of(3) {
            event.kind = EventKind::CoverageGap.number();
            event.gap = Some(Gap::default());
        }
    });
    let of = |class| Filter {
        class: Some(class),
        ..Filter::default()
    };
    let mut worker = scene.worker(2, of(OcsfClass::BaseEvent));
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [3, 6, 9]);
    assert_eq!((worker.cursor().sequence, worker.cursor().left_out), (9, 0));
}

#[test]
fn what_a_receiver_left_unread_comes_again() {
    let scene = scene(Retention::default());
    scene.record(1..=6, |_| {});
    let mut worker = scene.worker(2, Filter::default());
    let fresh = || {
        Ok(Delivered {
            fresh: true,
            ..Delivered::default()
        })
    };
    let reset = Err(Failure::Later {
        why: "reset".into(),
        after: None,
        rewind: true,
    });
    // The second connection saw 3 to 6; the first is over and was read.
    scene.fake.lock().answers = [fresh(), fresh(), Ok(Delivered::default())].into();
    drain(&mut worker);
    scene.record(7..=7, |_| {});
    scene.fake.lock().answers = [reset].into();
    drain(&mut worker);
    assert_eq!(scene.fake.numbers(), [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7]);
}

#[test]
fn a_thread_delivers_what_comes_and_ends_with_the_rest() {
    let scene = scene(Retention::default());
    let worker = scene.worker(100, Filter::default());
    let bell = worker.bell.clone();
    let thread = std::thread::spawn(move || worker.run());
    scene.record(1..=3, |_| {});
    bell.ring();
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.fake.numbers().len() < 3 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.record(4..=5, |_| {});
    bell.end();
    thread.join().unwrap();
    assert_eq!(scene.fake.numbers(), [1, 2, 3, 4, 5]);
}
