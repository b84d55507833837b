//! The thread that writes: batches, a bounded queue in front, nobody waits for the disk.

use super::store::{Store, lock};
use keytrail_proto::v1::Event;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events that may wait for the disk.
const QUEUE: usize = 16_384;
/// Most events in one transaction.
const BATCH: usize = 1024;
/// How long an event or a heartbeat may wait for company.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is too old or too much is forgotten at least this often while events come.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PRUNE_EVENTS: usize = 20_000;

#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    overflowed: AtomicU64,
    /// Last heartbeat, wall-clock ns; 0 before the first.
    alive: AtomicU64,
}

enum Message {
    Event(Arc<Event>),
    Flush(SyncSender<()>),
}

impl Writer {
    pub fn start(store: Arc<Mutex<Store>>) -> io::Result<Writer> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("ledger".into())
                .spawn(move || run(&store, &messages, &shared))?
        };
        Ok(Writer {
            queue: Some(queue),
            shared,
            thread: Some(thread),
        })
    }

    pub fn record(&self, event: Arc<Event>) {
        let sent = self
            .queue
            .as_ref()
            .is_some_and(|q| q.try_send(Message::Event(event)).is_ok());
        if !sent {
            self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn heartbeat(&self, now: u64) {
        self.shared.alive.store(now, Ordering::Relaxed);
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

    /// Writes what is queued and ends.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        // Without senders the thread writes the rest and ends.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(store: &Arc<Mutex<Store>>, messages: &Receiver<Message>, shared: &Shared) {
    let mut state = State {
        store,
        shared,
        batch: Vec::new(),
        alive: 0,
        failed: false,
        pruned: None,
        since_pruned: 0,
    };
    loop {
        match messages.recv_timeout(INTERVAL) {
            Ok(message) => state.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return state.write(),
        }
        // Wait a little for company, unless the batch is full already.
        let end = Instant::now() + INTERVAL / 10;
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
    }
}

struct State<'a> {
    store: &'a Arc<Mutex<Store>>,
    shared: &'a Shared,
    batch: Vec<Arc<Event>>,
    alive: u64,
    /// The last write failed: said once, not every half second.
    failed: bool,
    pruned: Option<Instant>,
    since_pruned: usize,
}

impl State<'_> {
    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.batch.push(event),
            Message::Flush(done) => {
                self.write();
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self) {
        let mut store = lock(self.store);
        let alive = self.shared.alive.load(Ordering::Relaxed);
        let mut result = Ok(());
        if alive > self.alive {
            result = store.heartbeat(alive);
            self.alive = alive;
        }
        if !self.batch.is_empty() {
            let written = store.write(&self.batch);
            if written.is_err() {
                self.shared
                    .overflowed
                    .fetch_add(self.batch.len() as u64, Ordering::Relaxed);
            }
            self.since_pruned += self.batch.len();
            self.batch.clear();
            let due = self.since_pruned > PRUNE_EVENTS
                || self.pruned.is_none_or(|t| t.elapsed() > PRUNE_INTERVAL);
            if due && written.is_ok() {
                result = result.and(store.prune(keytrail_host::clock::wall_ns()));
                self.pruned = Some(Instant::now());
                self.since_pruned = 0;
            }
            result = result.and(written);
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
