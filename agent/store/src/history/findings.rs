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
const MOST_BASELINES: i64 = 50_000;

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
             last, count, epoch, sequence, surroundings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, 1, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET severity = excluded.severity, title = excluded.title, seen = excluded.seen,
             expected = excluded.expected, remedy = excluded.remedy, techniques = excluded.techniques,
             last = max(last, excluded.last), count = count + 1",
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

pub(crate) fn baseline(db: &Connection, fingerprint: &str, body: Option<&str>) -> Result<()> {
    match body {
        Some(body) => db
            .prepare_cached(
                "INSERT INTO baselines (fingerprint, body) VALUES (?1, ?2)
                 ON CONFLICT (fingerprint) DO UPDATE SET body = excluded.body",
            )?
            .execute([fingerprint, body])
            .map(drop),
        None => db
            .prepare_cached("DELETE FROM baselines WHERE fingerprint = ?1")?
            .execute([fingerprint])
            .map(drop),
    }
}

pub(crate) fn known_findings(db: &Connection) -> Result<KnownFindings> {
    let baselines = db
        .prepare("SELECT fingerprint, body FROM baselines LIMIT ?1")?
        .query_map([MOST_BASELINES], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_>>()?;
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
