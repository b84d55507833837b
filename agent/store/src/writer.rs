//! The thread that writes: batches, a bounded queue in front, nobody waits for the disk.

use super::history::{DecoySeen, PlaceSeen, ProgramSeen};
use super::outbox::Outbox;
use super::store::{Batch, Store, lock};
use keytrail_findings::Repeat;
use keytrail_findings::facts::GapFacts;
use keytrail_proto::v1::Event;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events that may wait for the disk.
const QUEUE: usize = 16_384;
/// How often it is looked for room by who waits for it.
const ROOM: Duration = Duration::from_millis(1);
/// Most events in one transaction.
const BATCH: usize = 1024;
/// How often it is looked for losses when nothing comes.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long an event may: whoever reads live waits for it. The first after a rest hardly waits.
const TOGETHER: Duration = Duration::from_millis(20);
const ALONE: Duration = Duration::from_millis(2);
/// What is too old or too much is forgotten at least this often while events come.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PRUNE_EVENTS: usize = 20_000;

#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

/// How long an end without a deadline of its own waits.
const END: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shared {
    /// Nothing more comes: what cannot be written now will not be.
    ending: AtomicBool,
    overflowed: AtomicU64,
    outbox: Outbox,
    lost: Mutex<Lost>,
    unkept: Mutex<Unkept>,
}

/// What was to be kept of the stage of findings and is not in the file: there was no room, or the disk did not take it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unkept {
    /// Fingerprints of what is usual for them.
    pub baselines: Vec<String>,
    pub repeats: Vec<Repeat>,
}

impl Unkept {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.baselines.is_empty() && self.repeats.is_empty()
    }
}

/// Events, and what was noted of places, programs and decoys, that are not in the file and never will be.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    count: u64,
    /// Wall clock, ns.
    from: u64,
    to: u64,
}

impl Lost {
    fn add(&mut self, count: u64) {
        let now = keytrail_host::clock::wall_ns();
        if self.count == 0 {
            self.from = now;
        }
        self.count += count;
        self.to = now;
    }

    fn join(&mut self, earlier: Lost) {
        if earlier.count > 0 {
            self.count += earlier.count;
            self.from = self.from.min(earlier.from);
        }
    }

    /// The events may be somewhat older than when their loss was noticed.
    fn gap(self) -> Option<GapFacts> {
        (self.count > 0).then(|| GapFacts {
            reason: "ledger_lost".into(),
            detail: format!(
                "{} events or notes of places and programs could not be written: the disk is full, damaged or too slow",
                self.count
            ),
            remedy: "make room in the state directory, or move it to a faster disk".into(),
            count: self.count,
            from_ns: Some(self.from.saturating_sub(5_000_000_000) as i64),
            to_ns: Some(self.to as i64),
            ..GapFacts::default()
        })
    }
}

impl Shared {
    fn lose(&self, count: u64) {
        self.overflowed.fetch_add(count, Ordering::Relaxed);
        self.lost().add(count);
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unkept(&self) -> MutexGuard<'_, Unkept> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Message {
    /// With its number in the outbox.
    Event(Arc<Event>, u64),
    Place(Box<PlaceSeen>),
    Program(Box<ProgramSeen>),
    /// What is usual for a credential, by fingerprint; `None` when it is forgotten.
    Baseline(String, Option<String>),
    Repeat(Box<Repeat>),
    Decoy(Box<DecoySeen>),
    /// A heartbeat, wall-clock ns: it stands behind what came before it, so that a gap that begins with it hides nothing.
    Alive(u64),
    Flush(SyncSender<()>),
}

impl Writer {
    pub fn start(store: Arc<Mutex<Store>>) -> io::Result<Writer> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let (end, ended) = sync_channel(0);
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("ledger".into())
                .spawn(move || {
                    run(&store, &messages, &shared);
                    drop::<SyncSender<()>>(end);
                })?
        };
        Ok(Writer {
            queue: Some(queue),
            shared,
            thread: Some(thread),
            ended,
        })
    }

    pub fn record(&self, event: Arc<Event>) {
        let number = self.shared.outbox.put(&event);
        if !self.send(Message::Event(event, number)) {
            // It goes out when those before it have.
            self.shared.lose(1);
        }
    }

    /// An event that is published in its turn and not written.
    pub fn pass(&self, event: &Arc<Event>) {
        self.shared.outbox.pass(event);
    }

    pub fn place(&self, seen: PlaceSeen) {
        self.note(Message::Place(Box::new(seen)));
    }

    pub fn program(&self, seen: ProgramSeen) {
        self.note(Message::Program(Box::new(seen)));
    }

    pub fn baseline(&self, fingerprint: String, body: Option<String>) {
        if !self.send(Message::Baseline(fingerprint.clone(), body)) {
            self.shared.unkept().baselines.push(fingerprint);
        }
    }

    pub fn repeat(&self, repeat: Repeat) {
        if !self.send(Message::Repeat(Box::new(repeat.clone()))) {
            self.shared.unkept().repeats.push(repeat);
        }
    }

    pub fn unkept(&self) -> Unkept {
        std::mem::take(&mut *self.shared.unkept())
    }

    pub fn decoy(&self, seen: DecoySeen) {
        self.note(Message::Decoy(Box::new(seen)));
    }

    /// What nobody tells again before the agent begins anew.
    fn note(&self, message: Message) {
        if !self.send(message) {
            self.shared.lose(1);
        }
    }

    fn send(&self, message: Message) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|q| q.try_send(message).is_ok())
    }

    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    pub fn heartbeat(&self, now: u64) {
        // Without room the one before it holds: a gap that begins earlier claims no more than was seen.
        self.send(Message::Alive(now));
    }

    pub fn overflowed(&self) -> u64 {
        self.shared.overflowed.load(Ordering::Relaxed)
    }

    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self
            .queue
            .as_ref()
            .is_some_and(|q| q.send(Message::Flush(done)).is_ok())
        {
            let _ = wait.recv();
        }
    }

    /// As [`Writer::flush`], and no longer than until then; whether it was in time.
    pub fn flush_by(&self, end: Instant) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let (done, wait) = sync_channel(1);
        let mut flush = Message::Flush(done);
        while let Err(refused) = queue.try_send(flush) {
            flush = match refused {
                TrySendError::Full(flush) if Instant::now() < end => flush,
                _ => return false,
            };
            std::thread::sleep(ROOM);
        }
        let left = end.saturating_duration_since(Instant::now());
        wait.recv_timeout(left).is_ok()
    }

    /// Writes what is queued and ends; false when the disk does not let it within this time. Then the thread is left
    /// to itself: it ends with the process.
    pub fn stop(mut self, within: Duration) -> bool {
        self.join(within)
    }

    fn join(&mut self, within: Duration) -> bool {
        // Without senders the thread writes the rest and ends.
        self.queue = None;
        self.shared.ending.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return true;
        };
        if self.ended.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            // Whoever reads live gets the rest all the same.
            self.shared.outbox.empty();
            return false;
        }
        self.shared.outbox.empty();
        let _ = thread.join();
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join(END);
    }
}

fn run(store: &Arc<Mutex<Store>>, messages: &Receiver<Message>, shared: &Shared) {
    let mut state = State {
        store,
        shared,
        batch: Batch::default(),
        number: 0,
        alive: None,
        failed: false,
        pruned: None,
        since_pruned: 0,
    };
    let mut written = Instant::now();
    loop {
        match messages.recv_timeout(INTERVAL) {
            Ok(message) => state.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return state.write(),
        }
        // Wait a little for others, unless the batch is full already.
        let end = (written + TOGETHER).max(Instant::now() + ALONE);
        while !state.batch.is_empty() && state.batch.len() < BATCH {
            match messages.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => state.take(message),
                Err(_) => break,
            }
        }
        while state.batch.len() < BATCH {
            match messages.try_recv() {
                Ok(message) => state.take(message),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        state.write();
        written = Instant::now();
    }
}

struct State<'a> {
    store: &'a Arc<Mutex<Store>>,
    shared: &'a Shared,
    batch: Batch,
    /// Number of the last event of the batch.
    number: u64,
    /// A heartbeat to be written behind the batch.
    alive: Option<u64>,
    /// The last write failed: said once, not every half second.
    failed: bool,
    pruned: Option<Instant>,
    since_pruned: usize,
}

impl State<'_> {
    /// The batch is not written and will not be. What is learned is handed out again by who learned it.
    fn give_up(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.shared.lose(batch.losable() as u64);
        let mut unkept = self.shared.unkept();
        let baselines = batch.baselines.into_iter().map(|(of, _)| of);
        unkept.baselines.extend(baselines);
        unkept.repeats.extend(batch.repeats);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event, number) => {
                self.batch.events.push(event);
                self.number = number;
            }
            Message::Place(seen) => self.batch.places.push(*seen),
            Message::Program(seen) => self.batch.programs.push(*seen),
            Message::Baseline(fingerprint, body) => self.batch.baselines.push((fingerprint, body)),
            Message::Decoy(seen) => self.batch.decoys.push(*seen),
            Message::Repeat(repeat) => self.batch.repeats.push(*repeat),
            Message::Alive(now) => self.alive = Some(now),
            Message::Flush(done) => {
                self.write();
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self) {
        let mut store = lock(self.store);
        let mut result = Ok(());
        let lost = std::mem::take(&mut *self.shared.lost());
        self.batch.lost = lost.gap();
        if !self.batch.is_empty() {
            let written = if self.failed && self.shared.ending.load(Ordering::Relaxed) {
                // Once it has failed, the end does not wait for each batch to fail.
                self.give_up();
                self.shared.outbox.commit(self.number);
                return;
            } else {
                store.write(&self.batch)
            };
            self.since_pruned += self.batch.len();
            if written.is_err() {
                self.give_up();
                self.shared.lost().join(lost);
            }
            self.batch = Batch::default();
            self.shared.outbox.commit(self.number);
            let due = self.since_pruned > PRUNE_EVENTS
                || self.pruned.is_none_or(|t| t.elapsed() > PRUNE_INTERVAL);
            if due && written.is_ok() {
                result = result.and(store.prune(keytrail_host::clock::wall_ns()));
                self.pruned = Some(Instant::now());
                self.since_pruned = 0;
            }
            result = result.and(written);
        }
        if let Some(alive) = self.alive.take() {
            result = result.and(store.heartbeat(alive));
        }
        match result {
            Ok(()) => self.failed = false,
            Err(e) if !self.failed => {
                self.failed = true;
                tracing::error!(error = %e, "the ledger cannot be written; events are still streamed");
            }
            Err(_) => {}
        }
    }
}
