//! The events of before: what a reader that comes late can still be told.

use super::filter::EventFilter;
use keytrail_proto::v1::{Event, Gap};
use pbjson_types::Timestamp;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::Arc;

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
}

impl Replay {
    /// Whether anything of before is asked for.
    pub fn is_some(&self) -> bool {
        self.since.is_some() || self.last.is_some()
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
    count: u64,
    events: Shelf,
    context: Shelf,
}

impl History {
    pub fn push(&mut self, event: &Event) {
        self.count += 1;
        let kept = Kept {
            order: self.count,
            time: event.time,
            body: event.encode_to_vec().into(),
        };
        match event.kind.as_str() {
            "process_start" | "process_exit" => self.context.push(kept, MAX_CONTEXT),
            _ => self.events.push(kept, MAX_EVENTS),
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
        Snapshot { kept, forgotten }
    }
}

/// Events of before, not yet filtered.
#[derive(Debug, Default)]
pub struct Snapshot {
    kept: Vec<Kept>,
    forgotten: Option<Option<Timestamp>>,
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
        for kept in self.kept.iter().rev() {
            if out.len() >= most {
                break;
            }
            // Encoded by ourselves: it decodes.
            if let Ok(event) = Event::decode(&kept.body[..])
                && filter.passes(&event)
            {
                out.push_front(Arc::new(event));
            }
        }
        // With as many as were asked for, nothing is missing.
        let gap = self.forgotten.filter(|_| out.len() < most).map(|to| Gap {
            reason: "replay_limited".into(),
            detail: "events of before this time are no longer in the agent's memory".into(),
            remedy: "keep a `keytrail watch` running".into(),
            to,
            ..Gap::default()
        });
        (out, gap)
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
            kind: kind.into(),
            coverage: vec!["x".repeat(size)],
            ..Default::default()
        }
    }

    fn told(history: &History, filter: &EventFilter, replay: Replay) -> (Vec<u64>, Option<i64>) {
        let (events, gap) = history.snapshot(replay, filter).select(filter, replay.last);
        let sequence = |e: &Arc<Event>| e.id.as_ref().map_or(0, |id| id.sequence);
        let to = gap.map(|g| g.to.map_or(-1, |t| t.seconds));
        (events.iter().map(sequence).collect(), to)
    }

    fn since(seconds: i64) -> Replay {
        Replay {
            since: Some(Timestamp { seconds, nanos: 0 }),
            last: None,
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
            told(&history, &all, since(0)),
            (vec![2, 3, 5, 6, 8, 9], None)
        );
        assert_eq!(told(&history, &all, since(6)), (vec![6, 8, 9], None));
        assert_eq!(told(&history, &all, since(99)), (vec![], None));
        let last = |n| Replay {
            last: Some(n),
            ..since(0)
        };
        assert_eq!(told(&history, &all, last(2)), (vec![8, 9], None));
        assert_eq!(told(&history, &all, last(0)), (vec![], None));
        let kinds = vec!["credential_read".into(), "process_start".into()];
        let filter = EventFilter::new(Filter {
            kinds,
            ..Default::default()
        })
        .unwrap();
        assert_eq!(told(&history, &filter, last(3)), (vec![7, 9, 10], None));
    }

    #[test]
    fn bounded_and_says_so_only_where_it_matters() {
        let mut history = History::default();
        // Any number of process events costs the others nothing.
        history.push(&event(0, "credential_read", 0));
        (1..=100).for_each(|n| history.push(&event(n, "process_exit", 100_000)));
        let all = EventFilter::default();
        assert_eq!(told(&history, &all, since(0)), (vec![0], None));
        (101..=200).for_each(|n| history.push(&event(n, "credential_read", 100_000)));
        let (kept, gap) = told(&history, &all, since(0));
        assert!((20..=41).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last(), Some(&200));
        assert_eq!(gap, Some(kept[0] as i64 - 1));
        assert_eq!(told(&history, &all, since(190)).1, None);
        let last = Replay {
            since: None,
            last: Some(3),
        };
        assert_eq!(told(&history, &all, last), (vec![198, 199, 200], None));
    }
}
