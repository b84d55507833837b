//! Forgetting, within bounds of number, days and bytes; how far is remembered, because it is part of every answer.

use super::HOUR_NS;
use super::findings::{MOST_BASELINE_BYTES, MOST_BASELINES};
use crate::store::Retention;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

const DAY_NS: u64 = 86_400 * 1_000_000_000;
/// Credentials are few; this only bounds what a hostile host can make us keep.
const MAX_CREDENTIALS: u32 = 1_000_000;
/// Rows of gaps and findings, which are summed up.
const MAX_GAPS: i64 = 100_000;
const MAX_FINDINGS: i64 = 100_000;
/// What is usual for credentials takes one part in so many of all bytes at most.
const BASELINES_SHARE: u64 = 4;
/// Rounds of making room in one go; the next call goes on.
const ROUNDS: usize = 16;

/// Forgets what is older or more than may be kept. `now`: wall clock, ns.
pub(crate) fn prune(db: &Connection, retention: Retention, now: u64) -> Result<()> {
    let oldest = now.saturating_sub(u64::from(retention.days) * DAY_NS) as i64;
    forget_events(db, "time_ns < ?1", oldest)?;
    forget_events(
        db,
        "row <= (SELECT coalesce(max(row), 0) FROM events) - ?1",
        retention.events.min(i64::MAX as u64) as i64,
    )?;
    let old = now.saturating_sub(u64::from(retention.history_days) * DAY_NS) as i64;
    forget_uses(db, old.div_euclid(HOUR_NS))?;
    // What was reported once at the start of a run holds until its end: those of runs that reach until now stay.
    db.execute(
        "DELETE FROM gaps WHERE to_ns < ?1 AND epoch NOT IN
             (SELECT epoch FROM runs WHERE alive_wall_ns >= ?1 OR epoch = (SELECT max(epoch) FROM runs))",
        [old],
    )?;
    db.execute(
        "DELETE FROM gaps WHERE id <= (SELECT coalesce(max(id), 0) FROM gaps) - ?1",
        [MAX_GAPS],
    )?;
    db.execute("DELETE FROM findings WHERE last < ?1", [old])?;
    db.execute(
        "DELETE FROM findings WHERE id IN (SELECT id FROM findings ORDER BY last DESC LIMIT -1 OFFSET ?1)",
        [MAX_FINDINGS],
    )?;
    forget_credentials(db)?;
    // First of what goes for want of room: it is the one thing that events and uses do not make room for.
    let share = (retention.bytes / BASELINES_SHARE).min(MOST_BASELINE_BYTES as u64);
    forget_baselines(db, MOST_BASELINES, share as usize)?;
    for _ in 0..ROUNDS {
        if used_bytes(db)? <= retention.bytes {
            break;
        }
        if !make_room(db)? {
            break;
        }
    }
    Ok(())
}

/// Bytes of pages in use.
pub(crate) fn used_bytes(db: &Connection) -> Result<u64> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |r| r.get::<_, i64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?).max(0) as u64)
}

/// The oldest part goes: single events first, of which the uses are the sum. Returns whether there was anything.
fn make_room(db: &Connection) -> Result<bool> {
    let (first, last): (i64, i64) = db.query_row(
        "SELECT coalesce(min(row), 0), coalesce(max(row), -1) FROM events",
        [],
        |r| Ok((r.get(0)?, r.get(1)?)),
    )?;
    let count = last - first + 1;
    // The last thousand stay: somebody may be reading them.
    if count > 1000 {
        let keep = (count - (count / 8).max(1000)).max(1000);
        forget_events(
            db,
            "row <= (SELECT coalesce(max(row), 0) FROM events) - ?1",
            keep,
        )?;
        return Ok(true);
    }
    let hours: Option<(i64, i64)> = db
        .query_row(
            "SELECT min(hour), max(hour) FROM uses HAVING count(*) > 0",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .optional()?;
    let Some((first, last)) = hours.filter(|(first, last)| first < last) else {
        return Ok(false);
    };
    forget_uses(db, first + ((last - first) / 8).max(1))?;
    db.execute_batch(
        "DELETE FROM programs WHERE id NOT IN (SELECT program FROM uses UNION SELECT program FROM consumers);
         DELETE FROM destinations WHERE id != 0
             AND id NOT IN (SELECT destination FROM uses UNION SELECT destination FROM reached);
         DELETE FROM texts WHERE id != 0 AND id NOT IN (SELECT workload FROM uses UNION SELECT source FROM uses
             UNION SELECT request FROM uses UNION SELECT place FROM places);",
    )?;
    Ok(true)
}

fn mark(db: &Connection, name: &str, value: i64) -> Result<()> {
    db.execute(
        "INSERT INTO marks (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        params![name, value],
    )
    .map(drop)
}

/// `condition` names events by one parameter.
fn forget_events(db: &Connection, condition: &str, parameter: i64) -> Result<()> {
    let last: Option<i64> = db.query_row(
        &format!("SELECT max(time_ns) FROM events WHERE {condition}"),
        [parameter],
        |r| r.get(0),
    )?;
    if let Some(last) = last {
        mark(db, "events_since", last + 1)?;
        db.execute(
            &format!("DELETE FROM events WHERE {condition}"),
            [parameter],
        )?;
    }
    Ok(())
}

/// Uses of the hours before `hour`.
fn forget_uses(db: &Connection, hour: i64) -> Result<()> {
    if db.execute("DELETE FROM uses WHERE hour < ?1", [hour])? > 0 {
        mark(db, "uses_since", hour * HOUR_NS)?;
    }
    Ok(())
}

/// What is usual for the credentials used longest ago. The running agent knows it all the same, and brings it again when the
/// credential is used.
fn forget_baselines(db: &Connection, most: usize, most_bytes: usize) -> Result<()> {
    let mut gone = Vec::new();
    {
        let mut query = db.prepare_cached(
            "SELECT fingerprint, octet_length(body) FROM baselines ORDER BY used DESC, fingerprint",
        )?;
        let mut rows = query.query([])?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(r) = rows.next()? {
            let (fingerprint, length): (String, i64) = (r.get(0)?, r.get(1)?);
            count += 1;
            bytes += fingerprint.len() + length.max(0) as usize;
            if count > most || bytes > most_bytes {
                gone.push(fingerprint);
            }
        }
    }
    let mut delete = db.prepare_cached("DELETE FROM baselines WHERE fingerprint = ?1")?;
    for fingerprint in gone {
        delete.execute([fingerprint])?;
    }
    Ok(())
}

/// Credentials seen longest ago, with all that is known of them.
fn forget_credentials(db: &Connection) -> Result<()> {
    let count: i64 = db.query_row("SELECT count(*) FROM credentials", [], |r| r.get(0))?;
    if count <= i64::from(MAX_CREDENTIALS) {
        return Ok(());
    }
    db.execute_batch(&format!(
        "CREATE TEMP TABLE gone AS SELECT id FROM credentials ORDER BY last_seen DESC LIMIT -1 OFFSET {MAX_CREDENTIALS};
         DELETE FROM uses WHERE credential IN (SELECT id FROM gone);
         DELETE FROM consumers WHERE credential IN (SELECT id FROM gone);
         DELETE FROM reached WHERE credential IN (SELECT id FROM gone);
         DELETE FROM places WHERE credential IN (SELECT id FROM gone);
         DELETE FROM credentials WHERE id IN (SELECT id FROM gone);
         DROP TABLE gone;"
    ))?;
    let last: Option<i64> =
        db.query_row("SELECT min(last_seen) FROM credentials", [], |r| r.get(0))?;
    mark(db, "uses_since", last.unwrap_or(0))
}
