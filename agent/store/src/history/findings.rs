//! Findings, how often each was made, and what is usual.

use keytrail_findings::facts::FindingFacts;
use keytrail_findings::{Facts, Repeat};
use rusqlite::{Connection, Result, params};

/// What the stage of findings has to be told at a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownFindings {
    /// By fingerprint, JSON of that stage.
    pub baselines: Vec<(String, String)>,
    /// The newest findings, with their counts.
    pub repeats: Vec<Repeat>,
    /// Fingerprints.
    pub decoys: Vec<String>,
}

/// A credential that nobody has a reason to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoySeen {
    pub fingerprint: String,
    pub kind: String,
    pub path: String,
    /// When it was planted, wall clock, nanoseconds; `None`: it is none any more.
    pub planted_ns: Option<i64>,
}

pub(crate) fn decoy(db: &Connection, seen: &DecoySeen) -> Result<()> {
    match seen.planted_ns {
        Some(planted) => db
            .prepare_cached(
                "INSERT INTO decoys (fingerprint, kind, path, planted) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (fingerprint) DO UPDATE SET path = excluded.path",
            )?
            .execute(params![seen.fingerprint, seen.kind, seen.path, planted])
            .map(drop),
        None => db
            .prepare_cached("DELETE FROM decoys WHERE fingerprint = ?1")?
            .execute([&seen.fingerprint])
            .map(drop),
    }
}

/// As many as that stage remembers.
const MOST_REPEATS: i64 = 20_000;
/// And as much: credentials, and bytes of what is usual for them. That stage keeps no more than this, in more bytes.
pub(super) const MOST_BASELINES: usize = 50_000;
pub(super) const MOST_BASELINE_BYTES: usize = 32 << 20;
/// Bytes of what is usual for one credential. That stage bounds it to a third.
const MOST_BODY: usize = 256 << 10;

pub(super) fn note(
    db: &Connection,
    facts: &Facts,
    finding: &FindingFacts,
    surroundings: i64,
    time: i64,
) -> Result<()> {
    let fingerprint = facts.credential.as_ref().map_or("", |c| &c.fingerprint);
    db.prepare_cached(
        "INSERT INTO findings (rule, severity, title, fingerprint, subject, seen, expected, remedy, techniques, first,
             last, count, epoch, sequence, surroundings, act)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, 1, ?11, ?12, ?13, ?14)
         ON CONFLICT DO UPDATE SET severity = excluded.severity, title = excluded.title, seen = excluded.seen,
             expected = excluded.expected, remedy = excluded.remedy, techniques = excluded.techniques,
             last = max(last, excluded.last), count = count + 1, act = excluded.act",
    )?
    .execute(params![
        finding.rule,
        finding.severity,
        finding.title,
        fingerprint,
        finding.subject,
        finding.seen,
        finding.expected,
        finding.remedy,
        finding.techniques.join(" "),
        time,
        facts.epoch as i64,
        facts.sequence as i64,
        surroundings,
        finding.act as i64,
    ])
    .map(drop)
}

pub(crate) fn repeat(db: &Connection, repeat: &Repeat) -> Result<()> {
    db.prepare_cached(
        "UPDATE findings SET count = count + ?4, last = max(last, ?5)
         WHERE rule = ?1 AND fingerprint = ?2 AND subject = ?3",
    )?
    .execute(params![
        repeat.rule,
        repeat.fingerprint,
        repeat.subject,
        repeat.count as i64,
        repeat.last_ns
    ])
    .map(drop)
}

/// `now`: wall clock, nanoseconds. It is changed when the credential is used, so this is when that was.
pub(crate) fn baseline(
    db: &Connection,
    fingerprint: &str,
    body: Option<&str>,
    now: i64,
) -> Result<()> {
    match body.filter(|body| body.len() <= MOST_BODY) {
        Some(body) => db
            .prepare_cached(
                "INSERT INTO baselines (fingerprint, body, used) VALUES (?1, ?2, ?3)
                 ON CONFLICT (fingerprint) DO UPDATE SET body = excluded.body, used = excluded.used",
            )?
            .execute(params![fingerprint, body, now])
            .map(drop),
        None => db
            .prepare_cached("DELETE FROM baselines WHERE fingerprint = ?1")?
            .execute([fingerprint])
            .map(drop),
    }
}

/// The last used first, as many as there is room for in memory, whatever lies on the disk.
fn known_baselines(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut query = db.prepare(
        "SELECT fingerprint, body FROM baselines WHERE length(body) <= ?1
         ORDER BY used DESC, fingerprint LIMIT ?2",
    )?;
    let mut rows = query.query(params![MOST_BODY as i64, MOST_BASELINES as i64])?;
    let mut baselines: Vec<(String, String)> = Vec::new();
    let mut bytes = 0;
    while let Some(r) = rows.next()? {
        let (fingerprint, body): (String, String) = (r.get(0)?, r.get(1)?);
        bytes += fingerprint.len() + body.len();
        if bytes > MOST_BASELINE_BYTES {
            break;
        }
        baselines.push((fingerprint, body));
    }
    Ok(baselines)
}

pub(crate) fn known_findings(db: &Connection) -> Result<KnownFindings> {
    let baselines = known_baselines(db)?;
    let repeats = db
        .prepare("SELECT rule, fingerprint, subject, count, last FROM findings ORDER BY last DESC LIMIT ?1")?
        .query_map([MOST_REPEATS], |r| {
            Ok(Repeat {
                rule: r.get(0)?,
                fingerprint: r.get(1)?,
                subject: r.get(2)?,
                count: r.get::<_, i64>(3)? as u64,
                last_ns: r.get(4)?,
            })
        })?
        .collect::<Result<_>>()?;
    let decoys = db
        .prepare("SELECT fingerprint FROM decoys")?
        .query_map([], |r| r.get(0))?
        .collect::<Result<_>>()?;
    Ok(KnownFindings {
        baselines,
        repeats,
        decoys,
    })
}
