//! One publisher, many readers, nobody waits for anybody.
//!
//! The engine thread publishes; each reader has a bounded queue of its own. When a queue is full, events for that
//! reader are counted instead, and the count stands in the queue where the events would have been. A reader may ask for
//! events of before: it gets them first, and what is published meanwhile after them, each once.

use super::filter::EventFilter;
use super::history::{History, Replay, Snapshot};
use keytrail_model::EventKind;
use keytrail_model::GapReason;
use keytrail_proto::v1::{Event, Gap};
use pbjson_types::Timestamp;
use prost::Message as _;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio_stream::Stream;

/// Events a reader may lag behind before it loses some.
pub const QUEUE: usize = 8192;
/// Bytes (encoded) a reader may lag behind per event of its queue, on average: a queue of [`QUEUE`] holds at most 32 MiB.
const BYTES_PER_EVENT: usize = 4096;
/// Readers at a time: each costs a queue and a comparison per event.
pub const MAX_READERS: usize = 64;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Event(Arc<Event>),
    /// This many events were not kept for this reader, with the times of the first and the last.
    Missed {
        count: u64,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    },
}

impl Item {
    /// The gap record a missed interval is reported as.
    pub fn gap(count: u64, from: Option<Timestamp>, to: Option<Timestamp>) -> Gap {
        Gap {
            reason: GapReason::ClientTooSlow.number(),
            detail: format!("{count} events were not sent because this client read too slowly"),
            remedy: "filter on the server, or read faster".into(),
            count,
            from,
            to,
            signal: 0,
        }
    }
}

/// Where events are published and readers subscribe.
#[derive(Debug)]
pub struct Hub {
    queue: usize,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    closed: bool,
    list: Vec<Arc<Reader>>,
    /// Epoch and number of the last event that was published.
    published: (u64, u64),
    /// Under the same lock, so that each event is either of before or of after a subscription.
    history: Option<History>,
    counts: Counts,
}

/// What went through a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events published, in the order of [`EventKind::ALL`].
    events: [u64; EventKind::ALL.len()],
    /// Events that readers did not get because they read too slowly, each counted for each of them.
    pub missed: u64,
    /// Readers that were sent away to make room for another.
    pub evicted: u64,
}

impl Counts {
    /// Events of a kind.
    pub fn events(&self, kind: EventKind) -> u64 {
        position(kind).map_or(0, |at| self.events[at])
    }
}

fn position(kind: EventKind) -> Option<usize> {
    EventKind::ALL.iter().position(|&known| known == kind)
}

#[derive(Debug)]
struct Reader {
    filter: EventFilter,
    capacity: usize,
    state: Mutex<ReaderState>,
}

#[derive(Debug, Default)]
struct ReaderState {
    /// Items with their sizes.
    queue: VecDeque<(Item, usize)>,
    bytes: usize,
    closed: bool,
    /// Closed to make room for another.
    evicted: bool,
    /// When something was last taken from the queue, or lay in an empty one.
    read: Option<Instant>,
    waker: Option<Waker>,
}

/// A reader's end. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    reader: Arc<Reader>,
    /// Events of before that are still to be read.
    before: VecDeque<Arc<Event>>,
    forgotten: Option<Gap>,
    published: (u64, u64),
}

/// What [`Subscription::wait`] came back with.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Item(Item),
    /// Nothing within the time given.
    Idle,
    /// The hub is closed and everything before that was read.
    Closed,
}

/// No code panics while it holds one of these locks, and the data stays whole if it did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub that remembers events, and whose readers get queues of [`QUEUE`].
    pub fn new() -> Arc<Hub> {
        Hub::make(QUEUE, Some(History::new()))
    }

    /// A hub that remembers nothing, and whose readers get queues of `queue` events (at least 1).
    pub fn with_queue(queue: usize) -> Arc<Hub> {
        Hub::make(queue, None)
    }

    fn make(queue: usize, history: Option<History>) -> Arc<Hub> {
        Arc::new(Hub {
            queue: queue.max(1),
            readers: Mutex::new(Readers {
                history,
                ..Readers::default()
            }),
        })
    }

    /// Gives an event to every reader that wants it. Never waits for a reader.
    pub fn publish(&self, event: Arc<Event>) {
        let mut size = None;
        let mut readers = lock(&self.readers);
        if let Some(history) = &mut readers.history {
            history.push(&event);
        }
        let kind = EventKind::of_number(event.kind);
        if let Some(at) = kind.and_then(position) {
            readers.counts.events[at] += 1;
        }
        // Beginnings and ends of processes are not remembered.
        let context = kind.is_some_and(EventKind::is_context);
        if let Some(id) = event.id.as_ref().filter(|_| !context) {
            readers.published = readers.published.max((id.epoch, id.sequence));
        }
        let mut missed = 0;
        for reader in &readers.list {
            if reader.filter.passes(&event) {
                let size = *size.get_or_insert_with(|| event.encoded_len());
                missed += u64::from(!reader.push(&event, size));
            }
        }
        readers.counts.missed += missed;
    }

    /// Adds a reader; `None` when the hub is closed. Where there are [`MAX_READERS`], the one that has not read for
    /// longest is sent away, so that clients that do not read lock nobody out.
    pub fn subscribe(self: &Arc<Self>, filter: EventFilter) -> Option<Subscription> {
        self.subscribe_with(filter, self.queue, Replay::default())
    }

    /// As [`Hub::subscribe`], with a queue of another length, and after events of before.
    pub fn subscribe_with(
        self: &Arc<Self>,
        filter: EventFilter,
        queue: usize,
        replay: Replay,
    ) -> Option<Subscription> {
        let mut readers = lock(&self.readers);
        if readers.closed {
            return None;
        }
        if readers.list.len() >= MAX_READERS {
            readers.evict();
        }
        let reader = Arc::new(Reader {
            filter,
            capacity: queue.max(1),
            state: Mutex::default(),
        });
        readers.list.push(reader.clone());
        let snapshot = match &readers.history {
            Some(history) if replay.is_some() => history.snapshot(replay, &reader.filter),
            _ => Snapshot::default(),
        };
        let published = readers.published;
        // Decoding takes a while: not under the lock that the engine needs.
        drop(readers);
        let (before, forgotten) = snapshot.select(&reader.filter, replay.last);
        Some(Subscription {
            hub: self.clone(),
            reader,
            before,
            forgotten,
            published,
        })
    }

    /// As [`Hub::subscribe`], after events of before.
    pub fn subscribe_from(
        self: &Arc<Self>,
        filter: EventFilter,
        replay: Replay,
    ) -> Option<Subscription> {
        self.subscribe_with(filter, self.queue, replay)
    }

    /// Ends all subscriptions once they have read what is queued; later ones are refused.
    pub fn close(&self) {
        let mut readers = lock(&self.readers);
        readers.closed = true;
        for reader in &readers.list {
            let mut state = lock(&reader.state);
            state.closed = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether [`Hub::close`] was called.
    pub fn is_closed(&self) -> bool {
        lock(&self.readers).closed
    }

    /// What went through until now.
    pub fn counts(&self) -> Counts {
        lock(&self.readers).counts
    }

    /// Readers at present.
    pub fn readers(&self) -> usize {
        lock(&self.readers).list.len()
    }
}

impl Readers {
    fn evict(&mut self) {
        self.counts.evicted += 1;
        // Who has nothing to read cannot be late: of those only, the last to come.
        let slowest = self
            .list
            .iter()
            .enumerate()
            .filter_map(|(at, reader)| Some((lock(&reader.state).behind_since()?, at)))
            .min()
            .map_or(self.list.len() - 1, |(_, at)| at);
        let reader = self.list.remove(slowest);
        let mut state = lock(&reader.state);
        (state.closed, state.evicted) = (true, true);
        (state.queue, state.bytes) = (VecDeque::new(), 0);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl ReaderState {
    /// Since when something has been waiting to be read.
    fn behind_since(&self) -> Option<Instant> {
        self.read.filter(|_| !self.queue.is_empty())
    }
}

impl Reader {
    /// Whether it will be read: there was room.
    fn push(&self, event: &Arc<Event>, size: usize) -> bool {
        let mut state = lock(&self.state);
        if state.queue.is_empty() {
            state.read = Some(Instant::now());
        }
        let room = state.queue.len() < self.capacity
            && (state.bytes + size <= self.capacity * BYTES_PER_EVENT || state.queue.is_empty());
        // A gap does not count against the capacity: there is at most one behind each run of events.
        if room {
            state.bytes += size;
            state.queue.push_back((Item::Event(event.clone()), size));
        } else if let Some((Item::Missed { count, to, .. }, _)) = state.queue.back_mut() {
            *count += 1;
            *to = event.time;
        } else {
            let (count, from, to) = (1, event.time, event.time);
            state.queue.push_back((Item::Missed { count, from, to }, 0));
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        room
    }
}

impl Subscription {
    /// Waits at most `timeout` for the next item, on a thread of its own (not in async code).
    pub fn wait(&mut self, timeout: Duration) -> Next {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let end = Instant::now() + timeout;
        loop {
            match self.poll(&mut context) {
                Poll::Ready(Some(item)) => return Next::Item(item),
                Poll::Ready(None) => return Next::Closed,
                Poll::Pending => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Idle;
                    }
                    std::thread::park_timeout(left);
                }
            }
        }
    }

    /// The next event of before, if there is one more.
    pub fn before(&mut self) -> Option<Arc<Event>> {
        self.before.pop_front()
    }

    /// What has to be said about events of before that were asked for and are not known any more.
    pub fn forgotten(&mut self) -> Option<Gap> {
        self.forgotten.take()
    }

    /// Epoch and number of the last event that was published before this began.
    pub(super) fn published(&self) -> (u64, u64) {
        self.published
    }

    /// Whether the stream ended because another reader needed the place.
    pub fn was_evicted(&self) -> bool {
        lock(&self.reader.state).evicted
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(event) = self.before.pop_front() {
            return Poll::Ready(Some(Item::Event(event)));
        }
        let mut state = lock(&self.reader.state);
        if let Some((item, size)) = state.queue.pop_front() {
            state.bytes -= size;
            state.read = Some(Instant::now());
            return Poll::Ready(Some(item));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Stream for Subscription {
    type Item = Item;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.poll(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.hub.readers)
            .list
            .retain(|r| !Arc::ptr_eq(r, &self.reader));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: i64) -> Arc<Event> {
        Arc::new(Event {
            kind: keytrail_model::EventKind::CredentialRead.number(),
            time: Some(Timestamp {
                seconds: n,
                nanos: 0,
            }),
            ..Default::default()
        })
    }

    fn seconds(t: &Option<Timestamp>) -> i64 {
        t.map(|t| t.seconds).unwrap_or(-1)
    }

    fn drain(subscription: &mut Subscription) -> Vec<String> {
        let mut seen = Vec::new();
        while let Next::Item(item) = subscription.wait(Duration::ZERO) {
            seen.push(match item {
                Item::Event(e) => seconds(&e.time).to_string(),
                Item::Missed { count, from, to } => {
                    format!("gap {count} [{}..{}]", seconds(&from), seconds(&to))
                }
            });
        }
        seen
    }

    #[test]
    fn a_slow_reader_gets_the_gap_in_its_place_and_others_are_unaffected() {
        let hub = Hub::with_queue(3);
        let mut slow = hub.subscribe(EventFilter::default()).unwrap();
        let mut roomy = hub
            .subscribe_with(EventFilter::default(), 100, Replay::default())
            .unwrap();
        (1..=7).for_each(|n| hub.publish(event(n)));
        assert_eq!(slow.wait(Duration::ZERO), Next::Item(Item::Event(event(1))));
        // Three items are left, the gap among them: the next event still extends the gap.
        hub.publish(event(8));
        assert_eq!(drain(&mut slow), ["2", "3", "gap 5 [4..8]"]);
        assert_eq!(hub.counts().missed, 5);
        assert_eq!(hub.counts().events(EventKind::CredentialRead), 8);
        hub.publish(event(9));
        assert_eq!(drain(&mut slow), ["9"]);
        assert_eq!(
            drain(&mut roomy),
            (1..=9).map(|n: i32| n.to_string()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn large_events_fill_a_queue_by_their_bytes() {
        let hub = Hub::with_queue(4);
        let mut slow = hub.subscribe(EventFilter::default()).unwrap();
        let large = |n| {
            let mut event = Event::clone(&event(n));
            event.coverage = vec!["x".repeat(10_000)];
            Arc::new(event)
        };
        (1..=3).for_each(|n| hub.publish(large(n)));
        assert_eq!(drain(&mut slow), ["1", "gap 2 [2..3]"]);
        // One that alone is more than a queue may hold is still delivered to a reader that keeps up.
        let mut huge = Event::clone(&event(4));
        huge.coverage = vec!["x".repeat(100_000)];
        hub.publish(Arc::new(huge));
        assert_eq!(drain(&mut slow), ["4"]);
        (5..=8).for_each(|n| hub.publish(event(n)));
        assert_eq!(drain(&mut slow), ["5", "6", "7", "8"]);
    }

    #[test]
    fn two_gaps_keep_their_places() {
        let hub = Hub::with_queue(2);
        let mut slow = hub.subscribe(EventFilter::default()).unwrap();
        (1..=4).for_each(|n| hub.publish(event(n)));
        assert!(matches!(
            slow.wait(Duration::ZERO),
            Next::Item(Item::Event(_))
        ));
        assert!(matches!(
            slow.wait(Duration::ZERO),
            Next::Item(Item::Event(_))
        ));
        (5..=7).for_each(|n| hub.publish(event(n)));
        assert_eq!(drain(&mut slow), ["gap 2 [3..4]", "5", "gap 2 [6..7]"]);
    }

    #[test]
    fn close_lets_the_queue_be_read_first_and_wakes_a_waiting_thread() {
        let hub = Hub::new();
        let mut subscription = hub.subscribe(EventFilter::default()).unwrap();
        hub.publish(event(1));
        let closer = {
            let hub = hub.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                hub.close();
            })
        };
        let long = Duration::from_secs(20);
        assert!(matches!(subscription.wait(long), Next::Item(_)));
        assert_eq!(subscription.wait(long), Next::Closed);
        closer.join().unwrap();
        assert!(hub.subscribe(EventFilter::default()).is_none());
    }

    #[test]
    fn events_of_before_come_once_and_without_a_hole() {
        let hub = Hub::new();
        let from_the_beginning = Replay {
            since: Some(Timestamp::default()),
            ..Replay::default()
        };
        // Subscribe again and again while somebody publishes.
        let publisher = {
            let hub = hub.clone();
            std::thread::spawn(move || (1..=2_000).for_each(|n| hub.publish(event(n))))
        };
        let mut readers = Vec::new();
        loop {
            readers.extend(hub.subscribe_from(EventFilter::default(), from_the_beginning));
            // On a busy machine the publisher may be through before this thread runs at all.
            if publisher.is_finished() || readers.len() >= MAX_READERS {
                break;
            }
        }
        publisher.join().unwrap();
        let expected: Vec<_> = (1..=2_000).map(|n: i32| n.to_string()).collect();
        for reader in &mut readers {
            assert_eq!(drain(reader), expected);
            assert_eq!(reader.forgotten(), None);
        }
        assert!(!readers.is_empty());
        // Who does not ask gets none; nor is there any where nothing is remembered.
        drop(readers);
        assert!(drain(&mut hub.subscribe(EventFilter::default()).unwrap()).is_empty());
        let hub = Hub::with_queue(3);
        hub.publish(event(1));
        let mut reader = hub
            .subscribe_from(EventFilter::default(), from_the_beginning)
            .unwrap();
        assert!(drain(&mut reader).is_empty());
    }

    /// The one that has had something to read for longest goes, and knows why; who reads stays.
    #[test]
    fn who_does_not_read_locks_nobody_out() {
        let hub = Hub::new();
        let mut all: Vec<_> = (0..MAX_READERS)
            .map(|_| hub.subscribe(EventFilter::default()).unwrap())
            .collect();
        hub.publish(event(1));
        for (n, reader) in all.iter_mut().enumerate() {
            if n != 7 {
                assert_eq!(drain(reader), ["1"]);
            }
        }
        let mut new = hub.subscribe(EventFilter::default()).unwrap();
        hub.publish(event(2));
        assert_eq!(drain(&mut new), ["2"]);
        for (n, reader) in all.iter_mut().enumerate() {
            let expected: &[&str] = if n == 7 { &[] } else { &["2"] };
            assert_eq!(drain(reader), expected);
            assert_eq!(reader.was_evicted(), n == 7);
        }
        assert_eq!(all[7].wait(Duration::ZERO), Next::Closed);
    }

    #[test]
    fn readers_are_bounded_and_leave() {
        let hub = Hub::new();
        let all: Vec<_> = (0..MAX_READERS)
            .map(|_| hub.subscribe(EventFilter::default()).unwrap())
            .collect();
        let more = hub.subscribe(EventFilter::default());
        assert!(more.is_some() && hub.readers() == MAX_READERS);
        drop((all, more));
        assert_eq!(hub.readers(), 0);
        assert!(hub.subscribe(EventFilter::default()).is_some());
    }
}
