//! All that is known of one credential.

use super::uses::{TABLES, columns, of_row};
use super::{Answer, Fail, ReadError, Reader, findings, named, timestamp};
use crate::history::HOUR_NS;
use keytrail_findings::Baseline;
use keytrail_proto::v1::{
    Credential, CredentialPlace, Event, GetCredentialRequest, GetCredentialResponse,
};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Rows of each kind.
const MOST: usize = 100;

impl Reader {
    /// The passport of a credential.
    ///
    /// # Errors
    /// See [`ReadError`]; a name that fits several is refused with all of them.
    pub fn get_credential(
        &self,
        ask: &GetCredentialRequest,
    ) -> Result<GetCredentialResponse, ReadError> {
        self.ask(|db| {
            let ids = named(db, &ask.credential)?;
            let id = match ids.as_slice() {
                [id] => *id,
                [] => {
                    return Err(Fail::Read(ReadError::NotFound(format!(
                        "no credential {:?} was seen here: it is named by its fingerprint (8 digits) or identifier",
                        ask.credential
                    ))));
                }
                several => return Err(ambiguous(db, several)?),
            };
            let summary = super::credentials::summary(db, id)?;
            let fingerprint = summary
                .credential
                .as_ref()
                .map_or_else(String::new, |c| c.fingerprint.clone());
            let (changes, more_changes) = changes(db, &fingerprint)?;
            Ok(GetCredentialResponse {
                summary: Some(summary),
                places: places(db, id)?,
                uses: uses(db, id)?,
                hours: hours(db, id)?,
                together: together(db, id)?,
                findings: findings::of(db, &fingerprint, MOST)?,
                baseline: baseline(db, &fingerprint)?,
                changes,
                more_changes,
            })
        })
    }
}

fn ambiguous(db: &Connection, ids: &[i64]) -> Answer<Fail> {
    let mut query = db.prepare("SELECT fingerprint FROM credentials WHERE id = ?1")?;
    let mut names = Vec::new();
    for id in ids.iter().take(8) {
        names.push(query.query_row([id], |r| r.get::<_, String>(0))?);
    }
    Ok(Fail::Read(ReadError::Bad(format!(
        "{} credentials go by that name; say which by its fingerprint: {}{}",
        ids.len(),
        names.join(", "),
        if ids.len() > names.len() { ", ..." } else { "" }
    ))))
}

fn places(db: &Connection, id: i64) -> Answer<Vec<CredentialPlace>> {
    let mut query = db.prepare(
        "SELECT t.text, p.owner_uid, p.owner_gid, p.mode, p.first_seen, p.last_seen
         FROM places p JOIN texts t ON t.id = p.place WHERE p.credential = ?1 ORDER BY p.last_seen DESC LIMIT ?2",
    )?;
    let rows = query.query_map([id, MOST as i64], |r| {
        Ok(CredentialPlace {
            place: r.get(0)?,
            owner_uid: r.get(1)?,
            owner_gid: r.get(2)?,
            mode: r.get(3)?,
            first_seen: Some(timestamp(r.get(4)?)),
            last_seen: Some(timestamp(r.get(5)?)),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn uses(db: &Connection, id: i64) -> Answer<Vec<keytrail_proto::v1::Use>> {
    let columns = columns(
        "min(u.first)",
        "max(u.last)",
        "sum(u.count)",
        "sum(u.bytes)",
    );
    let mut query = db.prepare(&format!(
        "SELECT {columns} FROM {TABLES} WHERE u.credential = ?1
         GROUP BY u.act, u.grade, u.channel, u.program, u.workload, u.source, u.destination, u.request, u.surroundings
         ORDER BY sum(u.count) DESC, max(u.last) DESC LIMIT ?2"
    ))?;
    let rows = query.query_map([id, MOST as i64], of_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Uses in each hour of the day. A holder that sent something is not counted.
fn hours(db: &Connection, id: i64) -> Answer<Vec<u64>> {
    let mut hours = vec![0u64; 24];
    let mut query = db.prepare(
        "SELECT hour % 24, sum(count) FROM uses WHERE credential = ?1 AND NOT (act = 3 AND grade = 3) GROUP BY hour % 24",
    )?;
    let mut rows = query.query([id])?;
    while let Some(r) = rows.next()? {
        let (hour, count): (i64, i64) = (r.get(0)?, r.get(1)?);
        if let Some(slot) = hours.get_mut(hour.rem_euclid(24) as usize) {
            *slot += count as u64;
        }
    }
    debug_assert_eq!(HOUR_NS * 24, 86_400_000_000_000);
    Ok(hours)
}

/// What the same programs used.
fn together(db: &Connection, id: i64) -> Answer<Vec<Credential>> {
    let mut query = db.prepare(
        "SELECT DISTINCT c.kind, c.identifier, c.fingerprint, c.confidence, c.privilege, c.expires
         FROM consumers mine JOIN consumers theirs ON theirs.program = mine.program AND theirs.credential != ?1
             JOIN credentials c ON c.id = theirs.credential
         WHERE mine.credential = ?1 LIMIT ?2",
    )?;
    let rows = query.query_map([id, MOST as i64], super::used::credential_of_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What became of the files it lies in, the newest first, and whether there is more.
fn changes(db: &Connection, fingerprint: &str) -> Answer<(Vec<Event>, bool)> {
    // As the index says it.
    const CHANGES: &str = "kind IN ('credential_created', 'credential_file_changed')";
    let mut events = Vec::new();
    let mut add = |query: &str, by: &str, wanted: &dyn Fn(&Event) -> bool| -> Answer<()> {
        let mut query = db.prepare(query)?;
        let mut rows = query.query(params![by, MOST as i64 + 1])?;
        while let Some(r) = rows.next()? {
            let (row, body): (i64, Vec<u8>) = (r.get(0)?, r.get(1)?);
            if let Ok(event) = Event::decode(body.as_slice())
                && wanted(&event)
            {
                events.push((
                    event.time.map_or((0, 0), |t| (t.seconds, t.nanos)),
                    row,
                    event,
                ));
            }
        }
        Ok(())
    };
    add(
        &format!(
            "SELECT row, body FROM events WHERE fingerprint = ?1 AND {CHANGES} ORDER BY time_ns DESC LIMIT ?2"
        ),
        fingerprint,
        &|_| true,
    )?;
    // What took its place.
    add(
        &format!(
            "SELECT row, body FROM events WHERE fingerprint IN (SELECT fingerprint FROM credentials WHERE previous = ?1)
                 AND {CHANGES} ORDER BY time_ns DESC LIMIT ?2"
        ),
        fingerprint,
        &|event| {
            let change = event.change.as_ref();
            change.is_some_and(|c| c.previous_fingerprint == fingerprint)
        },
    )?;
    events.sort_by_key(|(time, row, _)| std::cmp::Reverse((*time, *row)));
    let more = events.len() > MOST;
    events.truncate(MOST);
    Ok((events.into_iter().map(|(.., event)| event).collect(), more))
}

/// What is usual, in words.
fn baseline(db: &Connection, fingerprint: &str) -> Answer<Vec<String>> {
    let body: Option<String> = db
        .query_row(
            "SELECT body FROM baselines WHERE fingerprint = ?1",
            [fingerprint],
            |r| r.get(0),
        )
        .optional()?;
    let baseline: Option<Baseline> = body.and_then(|body| serde_json::from_str(&body).ok());
    let now = keytrail_host::clock::wall_ns() as i64;
    Ok(baseline.map(|b| b.lines(now)).unwrap_or_default())
}
