//! When the agent ran, and what it could not see.

use super::{Answer, ReadError, Reader, interval, mark, timestamp};
use crate::answer::holes::{Background, GapRow, Hole, RunSpan, holes};
use keytrail_proto::v1::{
    GetHistoryStatusResponse, HiddenInterval, ListCoverageRequest, ListCoverageResponse, Run,
};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Gaps that one question inspects. They are summed up when they are written, so that there are not more in practice;
/// when there are, the last one stands for all that were left out.
const MOST_GAPS: usize = 20_000;
/// Intervals of one answer.
const MOST: usize = 1000;

pub(super) fn hidden(hole: &Hole) -> HiddenInterval {
    HiddenInterval {
        from: Some(timestamp(hole.from_ns)),
        to: Some(timestamp(hole.to_ns)),
        reason: hole.reason.clone(),
        detail: hole.detail.clone(),
        signal: hole.signal.clone(),
        process: hole.process.clone(),
        executable: hole.executable.clone(),
        acts: hole.acts.iter().map(|act| act.number()).collect(),
        count: hole.count,
        remedy: hole.remedy.clone(),
    }
}

/// All runs; the one of `current` lives now.
pub(super) fn runs(db: &Connection, current: Option<(u64, i64)>) -> Answer<Vec<RunSpan>> {
    // A run that was ended by force was alive a moment longer than all it had seen was written.
    let mut query = db.prepare(
        "SELECT epoch, started_wall_ns,
             CASE WHEN clean THEN alive_wall_ns ELSE max(started_wall_ns, alive_wall_ns - 10000000000) END, alive_wall_ns
         FROM runs ORDER BY epoch",
    )?;
    let rows = query.query_map([], |r| {
        let epoch = r.get::<_, i64>(0)? as u64;
        let (written, alive) = (r.get(2)?, r.get(3)?);
        Ok(RunSpan {
            epoch,
            started_ns: r.get(1)?,
            alive_ns: match current {
                Some((now_epoch, now)) if now_epoch == epoch => now.max(alive),
                _ => written,
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Gaps that may matter between two times: those of then, and those before in a run that reaches until then.
pub(super) fn gaps(db: &Connection, from: i64, to: i64) -> Answer<Vec<GapRow>> {
    let margin = 60_000_000_000;
    let mut query = db.prepare(
        "SELECT g.epoch, g.reason, g.signal, g.process, g.executable, g.detail, g.remedy, g.from_ns, g.to_ns, g.count
         FROM gaps g LEFT JOIN runs r ON r.epoch = g.epoch
         WHERE g.from_ns <= ?2 AND (g.to_ns >= ?1 OR r.epoch IS NULL OR r.alive_wall_ns >= ?1
             OR r.epoch = (SELECT max(epoch) FROM runs))
         ORDER BY g.from_ns LIMIT ?3",
    )?;
    let rows = query.query_map(
        params![
            from.saturating_sub(margin),
            to.saturating_add(margin),
            MOST_GAPS as i64
        ],
        |r| {
            Ok(GapRow {
                epoch: r.get::<_, i64>(0)? as u64,
                reason: r.get(1)?,
                signal: r.get(2)?,
                process: r.get(3)?,
                executable: r.get(4)?,
                detail: r.get(5)?,
                remedy: r.get(6)?,
                from_ns: r.get(7)?,
                to_ns: r.get(8)?,
                count: r.get::<_, i64>(9)? as u64,
            })
        },
    )?;
    let mut gaps: Vec<GapRow> = rows.collect::<Result<_, _>>()?;
    if gaps.len() == MOST_GAPS
        && let Some(last) = gaps.last_mut()
    {
        // A reason nobody knows hides everything.
        last.reason = "too_many_gaps".into();
        last.detail = "there are more gaps than one question inspects".into();
        last.to_ns = i64::MAX;
    }
    Ok(gaps)
}

impl Reader {
    /// When the agent ran and what it could not see. `now`: wall-clock nanoseconds; `epoch`: the run that answers.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_coverage(
        &self,
        ask: &ListCoverageRequest,
        now: i64,
        epoch: u64,
    ) -> Result<ListCoverageResponse, ReadError> {
        self.ask(|db| {
            let (from, to) = interval(ask.from.as_ref(), ask.to.as_ref())?;
            let to = to.min(now);
            let about = Background {
                had: true,
                uses_since_ns: mark(db, "uses_since")?,
                ..Background::default()
            };
            let runs = runs(db, Some((epoch, now)))?;
            // Before the first run nobody expects anything.
            let first = runs.iter().map(|run| run.started_ns).min().unwrap_or(now);
            let from = from.max(first);
            let mut found = holes((from, to), &runs, &gaps(db, from, to)?, &about);
            found.sort_by_key(|hole| (hole.from_ns, hole.to_ns));
            let clean: BTreeSet<i64> = db
                .prepare("SELECT epoch FROM runs WHERE clean")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(ListCoverageResponse {
                runs: runs
                    .iter()
                    .filter(|run| run.alive_ns >= from && run.started_ns <= to)
                    .map(|run| Run {
                        epoch: run.epoch,
                        started: Some(timestamp(run.started_ns)),
                        alive: Some(timestamp(run.alive_ns)),
                        clean: clean.contains(&(run.epoch as i64)),
                        current: run.epoch == epoch,
                    })
                    .collect(),
                hidden: found
                    .iter()
                    .take(MOST)
                    .map(|hole| hidden(&hole.within(from, to)))
                    .collect(),
            })
        })
    }

    /// What is kept. The key's name is for who asks to fill in.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn history_status(&self) -> Result<GetHistoryStatusResponse, ReadError> {
        self.ask(|db| {
            let count = |table: &str| {
                db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| {
                    r.get::<_, i64>(0)
                })
                .map(|n| n as u64)
            };
            let first: Option<i64> =
                db.query_row("SELECT min(started_wall_ns) FROM runs", [], |r| r.get(0))?;
            let since = |name| -> Answer<_> { Ok(mark(db, name)?.max(first).map(timestamp)) };
            Ok(GetHistoryStatusResponse {
                uses_since: since("uses_since")?,
                events_since: since("events_since")?,
                credentials: count("credentials")?,
                uses: count("uses")?,
                events: count("events")?,
                bytes: crate::history::used_bytes(db)?,
                fingerprint_key: String::new(),
            })
        })
    }
}
