//! Events on their way to those who read them live: not before they are on disk, and not much later than they happened.
//!
//! What a client was given must be there after a crash. So an event waits here until the transaction that holds it is
//! committed, some 20 ms. A disk that is slower than [`PATIENCE`] is not waited for: the events go out, and if the agent
//! dies before they are written, the next one's gap says from when on it knows nothing.

use keytrail_proto::v1::Event;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an event waits for the disk.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// Receives every event, in order; it must not block.
pub type Publish = Box<dyn FnMut(Arc<Event>) + Send>;

#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Held while events go out, so that they go in order; never taken by who records.
    publish: Mutex<Option<Publish>>,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Events with their numbers and when they were recorded.
    waiting: VecDeque<(u64, Instant, Arc<Event>)>,
    /// Number of the last event that was recorded.
    recorded: u64,
    /// Number of the last event that is on disk, or will never be.
    committed: u64,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}

/// The data stay whole if somebody panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    pub fn open(&self, publish: Publish) {
        *lock(&self.publish) = Some(publish);
        lock(&self.state).open = true;
    }

    /// Takes an event in; gives its number.
    pub fn put(&self, event: &Arc<Event>) -> u64 {
        let mut state = lock(&self.state);
        state.recorded += 1;
        let number = state.recorded;
        if state.open {
            state
                .waiting
                .push_back((number, Instant::now(), event.clone()));
        }
        number
    }

    /// Takes an event in that is not written: it goes out behind those before it.
    pub fn pass(&self, event: &Arc<Event>) {
        let mut state = lock(&self.state);
        let number = state.recorded;
        if state.open {
            state
                .waiting
                .push_back((number, Instant::now(), event.clone()));
        }
        let committed = number <= state.committed;
        drop(state);
        if committed {
            self.release(|_| false);
        }
    }

    /// Everything up to this number is on disk, or will never be.
    pub fn commit(&self, number: u64) {
        {
            let mut state = lock(&self.state);
            state.committed = state.committed.max(number);
        }
        self.release(|_| false);
    }

    /// Lets go what has waited too long.
    pub fn overdue(&self) {
        let late = |since: Instant| since.elapsed() >= PATIENCE;
        // Most often there is nothing: then nobody is waited for.
        if lock(&self.state)
            .waiting
            .front()
            .is_some_and(|(_, since, _)| late(*since))
        {
            self.release(late);
        }
    }

    /// Lets go everything.
    pub fn empty(&self) {
        self.release(|_| true);
    }

    /// In order: what is committed, and what `may` go by its time.
    fn release(&self, may: impl Fn(Instant) -> bool) {
        let mut publish = lock(&self.publish);
        loop {
            let mut state = lock(&self.state);
            let committed = state.committed;
            let Some((_, _, event)) = state
                .waiting
                .pop_front_if(|(number, since, _)| *number <= committed || may(*since))
            else {
                return;
            };
            drop(state);
            if let Some(publish) = publish.as_mut() {
                publish(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::EventId;

    fn event(sequence: u64) -> Arc<Event> {
        Arc::new(Event {
            id: Some(EventId {
                sequence,
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn outbox() -> (Outbox, Arc<Mutex<Vec<u64>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let outbox = Outbox::default();
        let out = seen.clone();
        outbox.open(Box::new(move |e| {
            out.lock().unwrap().push(e.id.as_ref().unwrap().sequence);
        }));
        (outbox, seen)
    }

    #[test]
    fn an_event_is_published_once_it_is_on_disk_and_in_order() {
        let (outbox, seen) = outbox();
        let numbers: Vec<u64> = (1..=3).map(|n| outbox.put(&event(n))).collect();
        outbox.overdue();
        assert!(seen.lock().unwrap().is_empty(), "nothing is on disk yet");
        outbox.commit(numbers[1]);
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
        outbox.commit(numbers[0]);
        outbox.empty();
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_is_not_written_keeps_its_turn() {
        let (outbox, seen) = outbox();
        outbox.pass(&event(1));
        assert_eq!(*seen.lock().unwrap(), [1], "nothing is before it");
        let number = outbox.put(&event(2));
        outbox.pass(&event(3));
        assert_eq!(*seen.lock().unwrap(), [1]);
        outbox.commit(number);
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_slow_disk_is_not_waited_for() {
        let (outbox, seen) = outbox();
        outbox.put(&event(1));
        std::thread::sleep(PATIENCE + Duration::from_millis(10));
        outbox.put(&event(2));
        outbox.overdue();
        assert_eq!(*seen.lock().unwrap(), [1], "the second has not waited yet");
    }
}
