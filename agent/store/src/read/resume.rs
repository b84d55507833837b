//! Events after one that a client has: across restarts, as far as they are kept.

use super::{Answer, ReadError, Reader, bad, mark, timestamp};
use keytrail_model::GapReason;
use keytrail_proto::v1::{Event, EventId, Gap};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::sync::Arc;

/// Bytes of one answer, about; and events.
const MOST_BYTES: usize = 4 << 20;
const MOST_EVENTS: usize = 4096;

/// A part of what comes after an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// What was there and is not any more, before the first of them.
    pub gap: Option<Gap>,
    /// There may be more after the last.
    pub more: bool,
    /// Epoch and number of the last event that was written: everything up to it was inspected.
    pub written: (u64, u64),
    /// Epoch and number of the last event that was inspected, whether it could be read or not.
    pub upto: (u64, u64),
}

impl Reader {
    /// The events after `(epoch, sequence)`, in the order in which they came; as many as fit.
    ///
    /// # Errors
    /// See [`ReadError`]; an event of another agent is refused.
    pub fn events_after(&self, after: &EventId) -> Result<Resumed, ReadError> {
        self.events_after_at_most(after, MOST_EVENTS, MOST_BYTES)
    }

    /// As [`Reader::events_after`]; no more than so many events, and about so many bytes.
    ///
    /// # Errors
    /// As [`Reader::events_after`].
    pub fn events_after_at_most(
        &self,
        after: &EventId,
        events: usize,
        most_bytes: usize,
    ) -> Result<Resumed, ReadError> {
        self.ask(|db| {
            let agent: Option<String> = db
                .query_row("SELECT id FROM agent LIMIT 1", [], |r| r.get(0))
                .optional()?;
            if !after.agent.is_empty() && agent.as_ref() != Some(&after.agent) {
                return Err(bad(
                    "this event is of another agent, or of before this one's state was lost",
                ));
            }
            let (epoch, sequence) = (after.epoch as i64, after.sequence as i64);
            let mut query = db.prepare(
                "SELECT body, epoch, sequence FROM events WHERE (epoch, sequence) > (?1, ?2)
                 ORDER BY epoch, sequence LIMIT ?3",
            )?;
            let mut rows = query.query(params![epoch, sequence, events as i64 + 1])?;
            let mut resumed = Resumed {
                upto: (after.epoch, after.sequence),
                ..Resumed::default()
            };
            let mut count = 0;
            let mut bytes = 0;
            while let Some(r) = rows.next()? {
                let body: Vec<u8> = r.get(0)?;
                if count >= events || bytes >= most_bytes {
                    resumed.more = true;
                    break;
                }
                count += 1;
                bytes += body.len();
                resumed.upto = (r.get::<_, i64>(1)? as u64, r.get::<_, i64>(2)? as u64);
                if let Ok(event) = Event::decode(body.as_slice()) {
                    resumed.events.push(Arc::new(event));
                }
            }
            resumed.written = db
                .query_row(
                    "SELECT epoch, last_sequence FROM runs ORDER BY epoch DESC LIMIT 1",
                    [],
                    |r| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64)),
                )
                .optional()?
                .unwrap_or_default();
            resumed.gap = missing(db, (epoch, sequence))?;
            Ok(resumed)
        })
    }

    /// How many events are kept after one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn count_after(&self, (epoch, sequence): (u64, u64)) -> Result<u64, ReadError> {
        self.ask(|db| {
            let count: i64 = db.query_row(
                "SELECT count(*) FROM events WHERE (epoch, sequence) > (?1, ?2)",
                params![epoch as i64, sequence as i64],
                |r| r.get(0),
            )?;
            Ok(count.unsigned_abs())
        })
    }
}

/// What was forgotten of the events after one. Its number is an upper bound: some numbers are of events that are never
/// kept.
fn missing(db: &Connection, (epoch, sequence): (i64, i64)) -> Answer<Option<Gap>> {
    let Some(since) = mark(db, "events_since")? else {
        return Ok(None);
    };
    let kept = |condition: &str, values: &[i64]| {
        db.query_row(
            &format!("SELECT EXISTS (SELECT 1 FROM events WHERE {condition})"),
            rusqlite::params_from_iter(values),
            |r| r.get::<_, bool>(0),
        )
    };
    // It is there, or one before it: nothing after it was forgotten, because the oldest goes first.
    if kept("(epoch, sequence) <= (?, ?)", &[epoch, sequence])? {
        return Ok(None);
    }
    let mut query = db.prepare(
        "SELECT epoch, last_sequence, (SELECT min(sequence) FROM events e WHERE e.epoch = r.epoch)
         FROM runs r WHERE epoch >= ?1 ORDER BY epoch",
    )?;
    let mut rows = query.query([epoch])?;
    let mut count = 0;
    while let Some(r) = rows.next()? {
        let (of, last, first): (i64, i64, Option<i64>) = (r.get(0)?, r.get(1)?, r.get(2)?);
        let before = if of == epoch { sequence } else { 0 };
        count += (first.map_or(last, |first| first - 1) - before).max(0);
        if first.is_some() {
            break;
        }
    }
    Ok((count > 0).then(|| Gap {
        reason: GapReason::ReplayLimited.number(),
        detail: format!("at most {count} events after that one are not kept any more"),
        remedy: "raise history_bytes, retain_events or retain_days, or resume sooner".into(),
        count: count as u64,
        to: Some(timestamp(since)),
        ..Gap::default()
    }))
}
