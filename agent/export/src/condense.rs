//! Gaps beside what was asked for, without drowning it.
//!
//! A filter must not make a blind spot silent, so gaps pass those on credentials, processes and hosts. But a busy host
//! has hundreds of the same: the first of a reason is reported as it is, and the rest together, with their count, before
//! the next event that was asked for, and at most once a minute.

use keytrail_proto::v1::Gap;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the same is kept back when nothing else comes.
const TOGETHER: Duration = Duration::from_secs(60);

/// Which gaps were reported, and what came since. Bounded by the number of reasons and signals there are.
#[derive(Debug, Default)]
pub struct Condense {
    reported: BTreeMap<(i32, i32), Held>,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// The last one, with the count and the interval of all that were kept back.
    gap: Option<(Gap, u64)>,
}

impl Condense {
    /// Whether this one is reported as it is; otherwise it is kept and counted.
    pub fn is_first(&mut self, gap: &Gap, now: Instant) -> bool {
        let key = (gap.reason, gap.signal);
        let Some(held) = self.reported.get_mut(&key) else {
            self.reported.insert(
                key,
                Held {
                    since: now,
                    gap: None,
                },
            );
            return true;
        };
        let (kept, times) = held.gap.get_or_insert_with(|| {
            let empty = Gap {
                count: 0,
                from: gap.from.or(gap.to),
                ..gap.clone()
            };
            (empty, 0)
        });
        kept.count = kept.count.saturating_add(gap.count);
        kept.to = gap.to.or(kept.to);
        kept.detail.clone_from(&gap.detail);
        *times += 1;
        false
    }

    /// What was kept longer than a minute.
    pub fn due(&mut self, now: Instant) -> Vec<Gap> {
        self.take(
            |held| now.saturating_duration_since(held.since) >= TOGETHER,
            now,
        )
    }

    /// All that was kept.
    pub fn all(&mut self, now: Instant) -> Vec<Gap> {
        self.take(|_| true, now)
    }

    fn take(&mut self, wanted: impl Fn(&Held) -> bool, now: Instant) -> Vec<Gap> {
        let mut out = Vec::new();
        for held in self.reported.values_mut() {
            if !wanted(held) {
                continue;
            }
            if let Some((mut gap, times)) = held.gap.take() {
                held.since = now;
                if times > 1 {
                    gap.detail = format!("{times} more like this; the last: {}", gap.detail);
                }
                out.push(gap);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pbjson_types::Timestamp;

    fn gap(reason: i32, count: u64, at: i64) -> Gap {
        Gap {
            reason,
            count,
            detail: format!("at {at}"),
            to: Some(Timestamp {
                seconds: at,
                nanos: 0,
            }),
            ..Gap::default()
        }
    }

    #[test]
    fn the_first_is_reported_and_the_rest_is_counted() {
        let now = Instant::now();
        let mut condense = Condense::default();
        assert!(condense.is_first(&gap(1, 5, 1), now));
        assert!(condense.is_first(&gap(2, 5, 1), now), "another reason");
        for at in 2..=300 {
            assert!(!condense.is_first(&gap(1, 3, at), now));
        }
        assert!(condense.due(now).is_empty());
        let reported = condense.due(now + TOGETHER);
        assert_eq!(reported.len(), 1);
        assert_eq!(reported[0].count, 299 * 3);
        assert_eq!(reported[0].detail, "299 more like this; the last: at 300");
        assert_eq!(
            (
                reported[0].from.unwrap().seconds,
                reported[0].to.unwrap().seconds
            ),
            (2, 300)
        );
        assert!(condense.all(now).is_empty(), "reported once");
        assert!(!condense.is_first(&gap(1, 1, 301), now));
        let reported = condense.all(now);
        assert_eq!((reported.len(), reported[0].detail.as_str()), (1, "at 301"));
    }
}
