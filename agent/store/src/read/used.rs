//! Was it used?

use super::uses::{COLUMNS, TABLES, acts, columns, of_row};
use super::{Answer, MAX_TEXT, ReadError, Reader, bad, fingerprint_digits, list, without_prefix};
use super::{coverage, mark, named, nanoseconds, timestamp};
use crate::answer::holes::{Background, Hole, holes};
use crate::answer::{Judgement, Question, Span, Verdict, judge};
use crate::history::{Act, HOUR_NS};
use keytrail_findings::Facts;
use keytrail_proto::v1::{self, ActVerdict, CheckUseRequest, CheckUseResponse, Credential, Use};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Uses and intervals of one answer.
const MOST: usize = 1000;
/// What is sent again and again is reported together, after ten seconds at most and for ten seconds at most (`Event.repeats`): for so
/// long nobody can say that it was not.
const TOGETHER_NS: i64 = 21_000_000_000;
/// Single events that are inspected to find out whether one lies in an interval.
const MOST_EVENTS: i64 = 20_000;

impl Reader {
    /// Whether a credential was used. `now`: wall-clock nanoseconds; `epoch`: the run that answers.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn check_use(
        &self,
        ask: &CheckUseRequest,
        now: i64,
        epoch: u64,
    ) -> Result<CheckUseResponse, ReadError> {
        self.ask(|db| {
            let from = ask.from.as_ref().map_or(0, nanoseconds);
            let to = ask.to.as_ref().map_or(now, nanoseconds).min(now);
            if from > to {
                return Err(bad("the interval ends before it begins, or has not begun"));
            }
            let longest = ask.by.len().max(ask.to_host.len());
            if longest.max(ask.environment.len()) > MAX_TEXT {
                return Err(bad("a name is too long"));
            }
            let question = Question {
                from_ns: from,
                to_ns: to,
                acts: acts(&ask.acts)?,
                by: ask.by.trim().to_owned(),
                to_host: ask.to_host.trim().to_owned(),
                environment: ask.environment.trim().to_owned(),
            };
            if question.acts().is_empty() {
                return Err(bad(
                    "only what was sent has a destination: ask for sends, or without one",
                ));
            }
            let ids = named(db, &ask.credential)?;
            let (mut spans, uses) = spans(db, &ids, &question)?;
            resolve(db, &ids, &question, &mut spans, &uses)?;
            let runs = coverage::runs(db, Some((epoch, now)))?;
            let gaps = coverage::gaps(db, from, to)?;
            let about = about(db, &ids, to)?;
            let mut found = holes((from, to), &runs, &gaps, &about);
            if ids.is_empty() && !is_fingerprint(&ask.credential) {
                found.push(nameless(&question));
            }
            if from > now.saturating_sub(TOGETHER_NS) {
                found.push(unreported(&question));
            }
            let judgement = judge(&question, &spans, &found);
            response(db, &question, &ids, judgement, &uses)
        })
    }
}

fn is_fingerprint(text: &str) -> bool {
    let text = text.trim();
    without_prefix(text).is_some() && fingerprint_digits(text).is_some()
}

/// A public name that was never seen: what was seen without one may be it.
fn nameless(question: &Question) -> Hole {
    Hole {
        from_ns: question.from_ns,
        to_ns: question.to_ns,
        acts: Act::ALL.into(),
        reason: "identifier_unknown".into(),
        detail: "no credential with this identifier was seen; one whose identifier is not known may be it".into(),
        remedy: "ask for its fingerprint, or with --secret-stdin".into(),
        ..Hole::default()
    }
}

/// The last seconds: sends like others before may have been counted, and not reported yet.
fn unreported(question: &Question) -> Hole {
    Hole {
        from_ns: question.from_ns,
        to_ns: question.to_ns,
        acts: vec![Act::Sent],
        reason: "reported_together".into(),
        detail: "what is sent again and again is reported together, up to twenty seconds later"
            .into(),
        remedy: "ask again in half a minute".into(),
        ..Hole::default()
    }
}

/// All uses that overlap the question: those inside of it summed up, those across its ends one by one.
fn spans(db: &Connection, ids: &[i64], question: &Question) -> Answer<(Vec<Span>, Vec<Use>)> {
    let columns = columns(
        "min(u.first)",
        "max(u.last)",
        "sum(u.count)",
        "sum(u.bytes)",
    );
    let mut query = db.prepare(&format!(
        "SELECT {columns} FROM {TABLES}
         WHERE u.credential IN (SELECT value FROM json_each(?1)) AND u.hour BETWEEN ?2 AND ?3
             AND u.last >= ?4 AND u.first <= ?5
         GROUP BY u.credential, u.act, u.grade, u.channel, u.program, u.workload, u.source, u.destination, u.request,
             u.surroundings, iif(u.first < ?4 OR u.last > ?5, u.id, 0)
         ORDER BY max(u.last) DESC"
    ))?;
    debug_assert_eq!(query.column_count(), COLUMNS);
    let rows = query.query_map(
        params![
            list(ids),
            question.from_ns.div_euclid(HOUR_NS),
            question.to_ns.div_euclid(HOUR_NS),
            question.from_ns,
            question.to_ns
        ],
        of_row,
    )?;
    let uses: Vec<Use> = rows.collect::<Result<_, _>>()?;
    Ok((uses.iter().map(span).collect(), uses))
}

fn span(shown: &Use) -> Span {
    let program = shown.program.clone().unwrap_or_default();
    Span {
        act: Act::of_number(shown.act),
        grade: shown.grade.clone(),
        executable: program.path,
        script: program.script,
        destination: shown
            .destination
            .as_ref()
            .map(|d| (d.host.clone(), d.ip.clone())),
        environment: shown.environment.clone(),
        first_ns: shown.first.as_ref().map_or(0, nanoseconds),
        last_ns: shown.last.as_ref().map_or(0, nanoseconds),
        count: shown.count,
        inside: None,
    }
}

/// Sums that reach across the whole interval: single events tell whether there was one in it, if they are kept.
fn resolve(
    db: &Connection,
    ids: &[i64],
    question: &Question,
    spans: &mut [Span],
    uses: &[Use],
) -> Answer<()> {
    let across = |span: &Span| {
        span.first_ns < question.from_ns && span.last_ns > question.to_ns && span.count > 2
    };
    if !spans.iter().any(across) {
        return Ok(());
    }
    let mut query = db.prepare(
        "SELECT e.body FROM events e JOIN credentials c ON c.fingerprint = e.fingerprint
         WHERE c.id IN (SELECT value FROM json_each(?1)) AND e.time_ns BETWEEN ?2 AND ?3 LIMIT ?4",
    )?;
    let rows = query.query_map(
        params![
            list(ids),
            question.from_ns,
            // One that stands for many has the time of the last.
            question.to_ns.saturating_add(TOGETHER_NS),
            MOST_EVENTS
        ],
        |r| r.get::<_, Vec<u8>>(0),
    )?;
    let bodies: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
    let mut readable = bodies.len() < MOST_EVENTS as usize;
    let events: Vec<Facts> = bodies
        .iter()
        .filter_map(|body| match v1::Event::decode(body.as_slice()) {
            Ok(event) => Some(Facts::of(&event)),
            Err(_) => {
                readable = false;
                None
            }
        })
        .collect();
    // All of that hour have to be there: none forgotten, and some kept at all.
    let kept: bool = db.query_row("SELECT EXISTS (SELECT 1 FROM events)", [], |r| r.get(0))?;
    let since = mark(db, "events_since")?.unwrap_or(i64::MIN);
    let whole = readable && kept && since <= question.from_ns;
    for (span, shown) in spans.iter_mut().zip(uses) {
        if across(span) {
            let asked = question.from_ns..=question.to_ns;
            let mut of_it = events.iter().filter(|facts| same(facts, span, shown));
            let is = |facts: &Facts| {
                let first = facts.repeats > 0 && asked.contains(&facts.first_ns);
                first || asked.contains(&facts.time_ns)
            };
            // Of many that are reported together only the first and the last have a time.
            let may_be = |facts: &Facts| {
                facts.repeats > 2
                    && facts.first_ns < question.from_ns
                    && facts.time_ns > question.to_ns
            };
            span.inside = if of_it.clone().any(is) {
                Some(true)
            } else {
                (whole && !of_it.any(may_be)).then_some(false)
            };
        }
    }
    Ok(())
}

/// Whether an event is one of those that were summed up.
fn same(facts: &Facts, span: &Span, shown: &Use) -> bool {
    let process = facts.process.clone().unwrap_or_default();
    let destination = facts
        .destination
        .as_ref()
        .map(|d| (d.host.clone(), d.ip.clone()));
    Act::of_kind(&facts.kind) == span.act
        && facts.grade == span.grade
        && process.executable == span.executable
        && process.script == span.script
        && destination == span.destination
        && facts.source_text() == shown.source
        && facts.request == shown.request
        && facts.environment == shown.environment
        && facts
            .credential
            .as_ref()
            .is_some_and(|c| c.fingerprint == shown.fingerprint)
}

/// What decides about gaps: by the most careful reading where several credentials go by one name.
fn about(db: &Connection, ids: &[i64], to: i64) -> Answer<Background> {
    let uses_since_ns = mark(db, "uses_since")?;
    if ids.is_empty() {
        return Ok(Background {
            uses_since_ns,
            ..Background::default()
        });
    }
    let created_ns = db.query_row(
        "SELECT iif(count(created) = count(*), min(created), NULL) FROM credentials
         WHERE id IN (SELECT value FROM json_each(?1))",
        [list(ids)],
        |r| r.get(0),
    )?;
    // An act that is not known to have been before this is none yet.
    let seen = |condition: &str| {
        db.query_row(
            &format!(
                "SELECT EXISTS (SELECT 1 FROM uses WHERE credential IN (SELECT value FROM json_each(?1))
                     AND hour <= ?2 AND first <= ?3 AND {condition})"
            ),
            params![list(ids), to.div_euclid(HOUR_NS), to],
            |r| r.get::<_, bool>(0),
        )
    };
    Ok(Background {
        created_ns,
        had: seen("1")?,
        held: seen("act = 2")?,
        uses_since_ns,
    })
}

fn response(
    db: &Connection,
    question: &Question,
    ids: &[i64],
    judgement: Judgement,
    uses: &[Use],
) -> Answer<CheckUseResponse> {
    let credential = match ids.first() {
        Some(id) => db
            .query_row(
                "SELECT kind, identifier, fingerprint, confidence, privilege, expires FROM credentials WHERE id = ?1",
                [id],
                credential_of_row,
            )
            .optional()?,
        None => None,
    };
    Ok(CheckUseResponse {
        verdict: verdict(judgement.verdict),
        from: Some(timestamp(question.from_ns)),
        to: Some(timestamp(question.to_ns)),
        uses: judgement
            .uses
            .iter()
            .take(MOST)
            .filter_map(|i| uses.get(*i).cloned())
            .collect(),
        hidden: judgement
            .hidden
            .iter()
            .take(MOST)
            .map(coverage::hidden)
            .collect(),
        acts: judgement
            .acts
            .iter()
            .map(|(act, of_act)| ActVerdict {
                act: act.number(),
                verdict: verdict(*of_act),
            })
            .collect(),
        credential,
    })
}

pub(super) fn credential_of_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Credential> {
    Ok(Credential {
        kind: r.get(0)?,
        identifier: r.get(1)?,
        fingerprint: r.get(2)?,
        confidence: r.get(3)?,
        privilege: r.get(4)?,
        expires: r
            .get::<_, Option<i64>>(5)?
            .map(|seconds| pbjson_types::Timestamp { seconds, nanos: 0 }),
        ..Credential::default()
    })
}

fn verdict(of: Verdict) -> i32 {
    match of {
        Verdict::Yes => v1::Verdict::Yes,
        Verdict::No => v1::Verdict::No,
        Verdict::Unknown => v1::Verdict::Unknown,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_for_a_fingerprint() {
        for text in ["kt1:0123456789abcdef", "KT1:0123456789ABCDEF"] {
            assert!(is_fingerprint(text), "{text}");
        }
        for text in ["octocat", "0123456789abcdef", "kt1:012", "kt1:xyzxyzxyz"] {
            assert!(!is_fingerprint(text), "{text}");
        }
    }
}
