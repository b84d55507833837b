//! The events of before: what a reader that comes late can still be given.

use super::filter::EventFilter;
use keytrail_model::{EventKind, GapReason};
use keytrail_proto::v1::{Event, Gap};
use pbjson_types::Timestamp;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes (encoded) of events that are remembered, of process_start and process_exit, and of all others: there may be
/// any number of the former, and they must not push out what they are the context of.
const MAX_CONTEXT: usize = 1 << 20;
const MAX_EVENTS: usize = 4 << 20;

/// Which events of before a reader asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replay {
    /// Those from this time on.
    pub since: Option<Timestamp>,
    /// The newest so many that pass the reader's filter.
    pub last: Option<u32>,
    /// Those up to this time, and nothing that comes later.
    pub until: Option<Timestamp>,
    /// Nothing of after.
    pub past_only: bool,
}

impl Replay {
    /// Whether an event of this time is early enough.
    pub fn is_in_time(&self, time: Option<Timestamp>) -> bool {
        self.until.is_none_or(|until| key(time) <= key(Some(until)))
    }

    /// Whether anything of before is asked for.
    pub fn is_some(&self) -> bool {
        self.since.is_some() || self.last.is_some() || self.past_only
    }
}

/// One remembered event, encoded: decoded ones take several times the room.
#[derive(Clone, Debug)]
struct Kept {
    order: u64,
    time: Option<Timestamp>,
    body: Arc<[u8]>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Time of the last event that found no more room.
    forgotten: Option<Option<Timestamp>>,
}

impl Shelf {
    fn push(&mut self, kept: Kept, limit: usize) {
        self.bytes += kept.body.len();
        self.kept.push_back(kept);
        while self.bytes > limit
            && let Some(old) = self.kept.pop_front()
        {
            self.bytes -= old.body.len();
            self.forgotten = Some(old.time);
        }
    }
}

/// The newest events, in bounds.
#[derive(Debug, Default)]
pub struct History {
    /// When remembering began; `None` when nothing was before.
    began: Option<Timestamp>,
    count: u64,
    events: Shelf,
    context: Shelf,
}

impl History {
    /// One that begins now.
    pub fn new() -> History {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        History {
            began: Some(Timestamp {
                seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                nanos: now.subsec_nanos().cast_signed(),
            }),
            ..History::default()
        }
    }

    pub fn push(&mut self, event: &Event) {
        self.count += 1;
        // What was found at the start has a time a little before it.
        self.began = self.began.map(|began| match event.time {
            Some(time) if key(Some(time)) < key(Some(began)) => time,
            _ => began,
        });
        let kept = Kept {
            order: self.count,
            time: event.time,
            body: event.encode_to_vec().into(),
        };
        if EventKind::of_number(event.kind).is_some_and(EventKind::is_context) {
            self.context.push(kept, MAX_CONTEXT);
        } else {
            self.events.push(kept, MAX_EVENTS);
        }
    }

    /// A copy of what is asked for, to be looked through without holding up who publishes.
    pub fn snapshot(&self, replay: Replay, filter: &EventFilter) -> Snapshot {
        let shelves: &[&Shelf] = if filter.wants_context() {
            &[&self.events, &self.context]
        } else {
            &[&self.events]
        };
        let wanted = |time: Option<Timestamp>| {
            replay
                .since
                .is_none_or(|since| key(time) >= key(Some(since)))
                && replay.is_in_time(time)
        };
        let mut kept: Vec<Kept> = shelves
            .iter()
            .flat_map(|shelf| &shelf.kept)
            .filter(|kept| wanted(kept.time))
            .cloned()
            .collect();
        kept.sort_unstable_by_key(|kept| kept.order);
        let forgotten = shelves
            .iter()
            .filter_map(|shelf| shelf.forgotten)
            .filter(|time| wanted(*time))
            .max_by_key(|time| key(*time));
        // Who asks for all there is (the beginning of time) means what is remembered; any other time is a question.
        let before = replay.since.filter(|since| since.seconds > 0);
        let began = self
            .began
            .filter(|began| before.is_some_and(|since| key(Some(since)) < key(Some(*began))));
        Snapshot {
            kept,
            forgotten,
            began,
        }
    }
}

/// Events of before, not yet filtered.
#[derive(Debug, Default)]
pub struct Snapshot {
    kept: Vec<Kept>,
    forgotten: Option<Option<Timestamp>>,
    /// Asked for from before this time on, when nothing was remembered yet.
    began: Option<Timestamp>,
}

impl Snapshot {
    /// What passes the filter, oldest first, and what has to be said about what is not there.
    pub fn select(
        self,
        filter: &EventFilter,
        last: Option<u32>,
    ) -> (VecDeque<Arc<Event>>, Option<Gap>) {
        let most = last.map_or(usize::MAX, |n| n as usize);
        let mut out = VecDeque::new();
        let mut counted = 0;
        for kept in self.kept.iter().rev() {
            if counted >= most {
                break;
            }
            // Encoded by ourselves: it decodes.
            if let Ok(event) = Event::decode(&kept.body[..])
                && filter.passes(&event)
            {
                // Gaps beside what was asked for are not what was asked for.
                counted += usize::from(event.gap.is_none() || !filter.narrows());
                out.push_front(Arc::new(event));
            }
        }
        // With as many as were asked for, nothing is missing.
        if counted >= most {
            return (out, None);
        }
        let forgotten = self.forgotten.map(|to| Gap {
            reason: GapReason::ReplayLimited.number(),
            detail: "events of before this time are no longer in the agent's memory".into(),
            remedy: "keep a `keytrail watch` running".into(),
            to,
            ..Gap::default()
        });
        let began = self.began.map(|began| Gap {
            reason: GapReason::ReplayLimited.number(),
            detail: "this agent's memory begins when it was started: nothing of before this time is in it".into(),
            remedy: "keep a `keytrail watch` running".into(),
            to: Some(began),
            ..Gap::default()
        });
        (out, forgotten.or(began))
    }
}

fn key(time: Option<Timestamp>) -> (i64, i32) {
    time.map_or((i64::MIN, 0), |t| (t.seconds, t.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{EventId, Filter};

    fn event(n: i64, kind: &str, size: usize) -> Event {
        Event {
            id: Some(EventId {
                sequence: n as u64,
                ..Default::default()
            }),
            time: Some(Timestamp {
                seconds: n,
                nanos: 0,
            }),
            kind: EventKind::of_word(kind).unwrap().number(),
            coverage: vec!["x".repeat(size)],
            ..Default::default()
        }
    }

    fn reported(
        history: &History,
        filter: &EventFilter,
        replay: Replay,
    ) -> (Vec<u64>, Option<i64>) {
        let (events, gap) = history.snapshot(replay, filter).select(filter, replay.last);
        let sequence = |e: &Arc<Event>| e.id.as_ref().map_or(0, |id| id.sequence);
        let to = gap.map(|g| g.to.map_or(-1, |t| t.seconds));
        (events.iter().map(sequence).collect(), to)
    }

    fn since(seconds: i64) -> Replay {
        Replay {
            since: Some(Timestamp { seconds, nanos: 0 }),
            ..Replay::default()
        }
    }

    #[test]
    fn by_time_and_by_number_through_the_filter() {
        let mut history = History::default();
        for n in 1..=10 {
            let kind = ["credential_read", "process_start", "credential_sent"][n as usize % 3];
            history.push(&event(n, kind, 0));
        }
        let all = EventFilter::default();
        assert_eq!(
            reported(&history, &all, since(0)),
            (vec![2, 3, 5, 6, 8, 9], None)
        );
        assert_eq!(reported(&history, &all, since(6)), (vec![6, 8, 9], None));
        assert_eq!(reported(&history, &all, since(99)), (vec![], None));
        let last = |n| Replay {
            last: Some(n),
            ..since(0)
        };
        assert_eq!(reported(&history, &all, last(2)), (vec![8, 9], None));
        assert_eq!(reported(&history, &all, last(0)), (vec![], None));
        let kinds = vec![
            EventKind::CredentialRead.number(),
            EventKind::ProcessStart.number(),
        ];
        let filter = EventFilter::new(Filter {
            kinds,
            ..Default::default()
        })
        .unwrap();
        assert_eq!(reported(&history, &filter, last(3)), (vec![7, 9, 10], None));
    }

    #[test]
    fn bounded_and_says_so_only_where_it_matters() {
        let mut history = History::default();
        // Any number of process events costs the others nothing.
        history.push(&event(0, "credential_read", 0));
        (1..=100).for_each(|n| history.push(&event(n, "process_exit", 100_000)));
        let all = EventFilter::default();
        assert_eq!(reported(&history, &all, since(0)), (vec![0], None));
        (101..=200).for_each(|n| history.push(&event(n, "credential_read", 100_000)));
        let (kept, gap) = reported(&history, &all, since(0));
        assert!((20..=41).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last(), Some(&200));
        assert_eq!(gap, Some(kept[0] as i64 - 1));
        assert_eq!(reported(&history, &all, since(190)).1, None);
        let last = Replay {
            last: Some(3),
            ..Replay::default()
        };
        assert_eq!(reported(&history, &all, last), (vec![198, 199, 200], None));
    }

    #[test]
    fn what_was_before_the_memory_is_asked_for_in_vain_and_reported() {
        let mut history = History {
            began: Some(Timestamp {
                seconds: 100,
                nanos: 0,
            }),
            ..History::default()
        };
        (100..110).for_each(|n| history.push(&event(n, "credential_read", 0)));
        let all = EventFilter::default();
        assert_eq!(reported(&history, &all, since(50)).1, Some(100));
        assert_eq!(reported(&history, &all, since(100)).1, None);
        // All there is, is all there is.
        assert_eq!(reported(&history, &all, since(0)).1, None);
        let last = Replay {
            last: Some(3),
            ..since(50)
        };
        assert_eq!(reported(&history, &all, last), (vec![107, 108, 109], None));
        let until = Replay {
            until: Some(Timestamp {
                seconds: 103,
                nanos: 0,
            }),
            ..since(101)
        };
        assert_eq!(reported(&history, &all, until).0, [101, 102, 103]);
    }
}
