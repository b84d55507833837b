//! Memory: events summed up as uses, places, gaps and findings, in the transaction that keeps the events themselves.

mod findings;
mod intern;
mod prune;
mod words;

pub use findings::{DecoySeen, KnownFindings};
pub(crate) use findings::{baseline, decoy, known_findings, repeat};
pub(crate) use intern::Cache;
pub(crate) use prune::{prune, used_bytes};
pub use words::Act;
pub(crate) use words::{channel_word, grade_word};

use keytrail_findings::Facts;
use keytrail_findings::facts::{CredentialFacts, GapFacts};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

pub(crate) const HOUR_NS: i64 = 3_600_000_000_000;
/// Gaps of one kind that follow each other this closely are one.
const TOGETHER_NS: i64 = 60_000_000_000;

/// A credential that lies somewhere, as an inspection of a file found it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceSeen {
    pub credential: CredentialFacts,
    /// `file:PATH`.
    pub place: String,
    pub owner_uid: u32,
    pub owner_gid: u32,
    /// Octal text.
    pub mode: String,
    /// Wall clock, nanoseconds.
    pub time_ns: i64,
}

/// The content of an executable, found out after its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSeen {
    pub path: String,
    pub device: u64,
    pub inode: u64,
    /// Hex.
    pub sha256: String,
}

/// Takes one event in.
pub(crate) fn remember(db: &Connection, cache: &mut Cache, facts: &Facts, now: i64) -> Result<()> {
    let time = if facts.time_ns == 0 {
        now
    } else {
        facts.time_ns
    };
    db.prepare_cached("UPDATE runs SET last_sequence = max(last_sequence, ?2) WHERE epoch = ?1")?
        .execute(params![facts.epoch as i64, facts.sequence as i64])?;
    if let Some(finding) = &facts.finding {
        let surroundings = cache.surroundings(db, facts)?;
        return findings::note(db, facts, finding, surroundings, time);
    }
    if let Some(gap) = &facts.gap {
        let process = facts.process.as_ref();
        let of = |f: fn(&keytrail_findings::facts::ProcessFacts) -> &str| process.map_or("", f);
        return note_gap(
            db,
            facts.epoch,
            gap,
            (of(|p| &p.key), of(|p| &p.executable)),
            time,
        );
    }
    let Some(credential) = &facts.credential else {
        return Ok(());
    };
    let act = Act::of_kind(&facts.kind);
    let id = meet(db, credential, time, (&facts.kind, times(facts)))?;
    place(db, cache, id, credential, facts, time)?;
    if !facts.replaced.is_empty() {
        rotated(db, id, time, &facts.replaced)?;
    }
    match act {
        Some(act) => note_use(db, cache, id, act, facts, time),
        None => Ok(()),
    }
}

/// A credential is seen: it gets a number, or keeps it.
fn meet(
    db: &Connection,
    c: &CredentialFacts,
    time: i64,
    (kind, times): (&str, i64),
) -> Result<i64> {
    let is = |word: &str| if kind == word { times } else { 0 };
    db.prepare_cached(
        "INSERT INTO credentials (fingerprint, kind, identifier, confidence, privilege, expires, first_seen,
             last_seen, reads, exposures, sends, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (fingerprint) DO UPDATE SET
             identifier = iif(excluded.identifier != '', excluded.identifier, identifier),
             confidence = max(confidence, excluded.confidence),
             privilege = iif(excluded.privilege != 0, excluded.privilege, privilege),
             expires = coalesce(excluded.expires, expires),
             first_seen = min(first_seen, excluded.first_seen),
             last_seen = max(last_seen, excluded.last_seen),
             reads = reads + excluded.reads,
             exposures = exposures + excluded.exposures,
             sends = sends + excluded.sends
         RETURNING id",
    )?
    .query_row(
        params![
            c.fingerprint,
            c.kind,
            c.identifier,
            c.confidence,
            c.privilege,
            c.expires,
            time,
            is("credential_read") + is("credential_received"),
            is("credential_exposed"),
            is("credential_sent"),
            (kind == "credential_created").then_some(time),
        ],
        |r| r.get(0),
    )
}

/// Acts that the event stands for.
fn times(facts: &Facts) -> i64 {
    i64::try_from(facts.repeats.max(1)).unwrap_or(i64::MAX)
}

fn note_use(
    db: &Connection,
    cache: &mut Cache,
    credential: i64,
    act: Act,
    facts: &Facts,
    time: i64,
) -> Result<()> {
    let process = facts.process.clone().unwrap_or_default();
    let program = cache.program(db, &process)?;
    let workload = cache.text(db, &process.workload())?;
    let source = cache.text(db, &facts.source_text())?;
    let destination = match &facts.destination {
        Some(destination) => cache.destination(db, destination)?,
        None => 0,
    };
    let request = cache.text(db, &facts.request)?;
    let surroundings = cache.surroundings(db, facts)?;
    let grade = words::grade(&facts.grade);
    db.prepare_cached(
        "INSERT INTO uses (credential, hour, act, grade, channel, program, workload, source, destination, request,
             surroundings, first, last, count, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?12, ?13, ?14, ?10, ?15, ?11)
         ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last),
             count = count + excluded.count, bytes = bytes + excluded.bytes",
    )?
    .execute(params![
        credential,
        time.div_euclid(HOUR_NS),
        act.number(),
        grade,
        words::channel(&facts.channel),
        program,
        workload,
        source,
        destination,
        time,
        i64::try_from(facts.bytes).unwrap_or(i64::MAX),
        request,
        surroundings,
        if facts.repeats == 0 { time } else { facts.first_ns },
        times(facts),
    ])?;
    // A holder that sent something may have sent this: nobody saw that it did.
    if grade == words::LINEAGE {
        return Ok(());
    }
    let sent = (act == Act::Sent).then_some(time);
    db.prepare_cached(
        "UPDATE credentials SET last_used = max(coalesce(last_used, ?2), ?2),
             last_sent = iif(?3 IS NULL, last_sent, max(coalesce(last_sent, ?3), ?3)) WHERE id = ?1",
    )?
    .execute(params![credential, time, sent])?;
    db.prepare_cached("INSERT OR IGNORE INTO consumers (credential, program) VALUES (?1, ?2)")?
        .execute([credential, program])?;
    let left = facts
        .destination
        .as_ref()
        .is_some_and(|d| d.path.is_empty());
    if destination != 0 && left {
        db.prepare_cached(
            "INSERT OR IGNORE INTO reached (credential, destination) VALUES (?1, ?2)",
        )?
        .execute([credential, destination])?;
    }
    Ok(())
}

/// Where an event says that the credential lies.
fn place(
    db: &Connection,
    cache: &mut Cache,
    id: i64,
    credential: &CredentialFacts,
    facts: &Facts,
    time: i64,
) -> Result<()> {
    if !matches!(facts.source.kind.as_str(), "file" | "env") {
        return Ok(());
    }
    let seen = PlaceSeen {
        credential: credential.clone(),
        place: facts.source_text(),
        owner_uid: facts.source.owner_uid,
        owner_gid: facts.source.owner_gid,
        mode: facts.source.mode.clone(),
        time_ns: time,
    };
    put(db, cache, id, &seen)
}

/// Takes in what an inspection of a file found: also what nobody has used.
pub(crate) fn place_seen(db: &Connection, cache: &mut Cache, seen: &PlaceSeen) -> Result<()> {
    let id = meet(db, &seen.credential, seen.time_ns, ("", 0))?;
    put(db, cache, id, seen)
}

fn put(db: &Connection, cache: &mut Cache, id: i64, seen: &PlaceSeen) -> Result<()> {
    let place = cache.text(db, &seen.place)?;
    let known = db
        .prepare_cached(
            "UPDATE places SET last_seen = max(last_seen, ?3), owner_uid = ?4, owner_gid = ?5, mode = ?6
             WHERE credential = ?1 AND place = ?2",
        )?
        .execute(params![
            id,
            place,
            seen.time_ns,
            seen.owner_uid,
            seen.owner_gid,
            seen.mode
        ])?;
    if known > 0 {
        return Ok(());
    }
    let c = &seen.credential;
    // A new secret under the same public name in the same place: it was rotated.
    let previous: Option<String> = if c.identifier.is_empty() {
        None
    } else {
        db.prepare_cached(
            "SELECT c.fingerprint FROM places p JOIN credentials c ON c.id = p.credential
             WHERE p.place = ?1 AND c.id != ?2 AND c.kind = ?3 AND c.identifier = ?4 AND p.last_seen <= ?5
             ORDER BY p.last_seen DESC LIMIT 1",
        )?
        .query_row(params![place, id, c.kind, c.identifier, seen.time_ns], |r| {
            r.get(0)
        })
        .optional()?
    };
    if let Some(previous) = previous {
        rotated(db, id, seen.time_ns, &previous)?;
    }
    db.prepare_cached(
        "INSERT INTO places (credential, place, owner_uid, owner_gid, mode, first_seen, last_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )?
    .execute(params![
        id,
        place,
        seen.owner_uid,
        seen.owner_gid,
        seen.mode,
        seen.time_ns
    ])
    .map(drop)
}

/// A credential took the place of another.
fn rotated(db: &Connection, id: i64, time_ns: i64, previous: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE credentials SET rotated = coalesce(rotated, ?2), previous = coalesce(previous, ?3) WHERE id = ?1",
    )?
    .execute(params![id, time_ns, previous])
    .map(drop)
}

/// Notes that something could not be seen. What concerns one client only, or is reported by the runs themselves, is left out.
pub(crate) fn note_gap(
    db: &Connection,
    epoch: u64,
    gap: &GapFacts,
    (process, executable): (&str, &str),
    time: i64,
) -> Result<()> {
    if matches!(
        gap.reason.as_str(),
        "agent_down" | "client_too_slow" | "replay_limited"
    ) {
        return Ok(());
    }
    let to = gap.to_ns.unwrap_or(time);
    let from = gap.from_ns.unwrap_or(time).min(to);
    let count = i64::try_from(gap.count.max(1)).unwrap_or(i64::MAX);
    let extended = db
        .prepare_cached(
            "UPDATE gaps SET from_ns = min(from_ns, ?5), to_ns = max(to_ns, ?6), count = count + ?7, detail = ?8
             WHERE id = (SELECT id FROM gaps WHERE epoch = ?1 AND reason = ?2 AND signal = ?3 AND process = ?4
                 AND to_ns >= ?9 ORDER BY to_ns DESC LIMIT 1)",
        )?
        .execute(params![
            epoch as i64,
            gap.reason,
            gap.signal,
            process,
            from,
            to,
            count,
            gap.detail,
            from - TOGETHER_NS,
        ])?;
    if extended > 0 {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT INTO gaps (epoch, reason, signal, process, executable, detail, remedy, from_ns, to_ns, count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        epoch as i64,
        gap.reason,
        gap.signal,
        process,
        executable,
        gap.detail,
        gap.remedy,
        from,
        to,
        count,
    ])
    .map(drop)
}

/// Takes in the content of an executable.
pub(crate) fn program_seen(db: &Connection, cache: &mut Cache, seen: &ProgramSeen) -> Result<()> {
    cache.enrich(db, seen)
}
