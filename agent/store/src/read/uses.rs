//! Uses as they are shown.

use super::{Answer, MAX_TEXT, ReadError, Reader, bad, filtered, interval, list, make_token, page};
use super::{timestamp, token};
use crate::answer::{by_fits, to_fits};
use crate::history::{Act, HOUR_NS, channel_word, grade_word};
use keytrail_findings::facts::ENVIRONMENT;
use keytrail_model::Actor;
use keytrail_proto::v1::{ListUsesRequest, ListUsesResponse, Program, Use, UseDestination};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

/// Columns [`of_row`] reads, of `uses u` and what it names; in queries that sum up, `{first}` and the like say how.
pub(super) fn columns(first: &str, last: &str, count: &str, bytes: &str) -> String {
    format!(
        "c.fingerprint, c.kind, c.identifier, u.act, u.grade, u.channel, p.path, p.script, p.device, p.inode, p.sha256,
         w.text, s.text, d.host, d.ip, d.port, d.protocol, u.destination, {first}, {last}, {count}, {bytes}, r.text,
         x.actor, x.contexts"
    )
}

pub(super) const TABLES: &str = "uses u JOIN credentials c ON c.id = u.credential
     LEFT JOIN programs p ON p.id = u.program LEFT JOIN texts w ON w.id = u.workload
     LEFT JOIN texts s ON s.id = u.source LEFT JOIN destinations d ON d.id = u.destination
     LEFT JOIN texts r ON r.id = u.request LEFT JOIN surroundings x ON x.id = u.surroundings";

/// So many of a filter are looked up one by one.
const FEW: usize = 200;

/// How many columns that are.
pub(super) const COLUMNS: usize = 25;

pub(super) fn of_row(r: &Row<'_>) -> rusqlite::Result<Use> {
    let text =
        |i: usize| Ok::<_, rusqlite::Error>(r.get::<_, Option<String>>(i)?.unwrap_or_default());
    let number =
        |i: usize| Ok::<_, rusqlite::Error>(r.get::<_, Option<i64>>(i)?.unwrap_or_default());
    let found = number(17)? != 0;
    let (contexts, environment) = words(&text(24)?);
    Ok(Use {
        fingerprint: text(0)?,
        credential_kind: text(1)?,
        identifier: text(2)?,
        act: number(3)? as i32,
        grade: grade_word(number(4)?).to_owned(),
        channel: channel_word(number(5)?).to_owned(),
        program: Some(Program {
            path: text(6)?,
            script: text(7)?,
            device: number(8)? as u64,
            inode: number(9)? as u64,
            sha256: text(10)?,
        }),
        workload: text(11)?,
        source: text(12)?,
        destination: if found {
            Some(UseDestination {
                host: text(13)?,
                ip: text(14)?,
                port: number(15)? as u32,
                protocol: text(16)?,
            })
        } else {
            None
        },
        first: Some(timestamp(number(18)?)),
        last: Some(timestamp(number(19)?)),
        count: number(20)? as u64,
        bytes: number(21)? as u64,
        request: text(22)?,
        actor: text(23)?,
        contexts,
        environment,
    })
}

/// Contexts as they are stored, one by one, and the environment of the site.
pub(super) fn words(contexts: &str) -> (Vec<String>, String) {
    let mut environment = String::new();
    let words = contexts.split(',').filter(|word| !word.is_empty());
    let contexts = words
        .filter(|word| match word.split_once(':') {
            Some((ENVIRONMENT, name)) => {
                name.clone_into(&mut environment);
                false
            }
            _ => true,
        })
        .map(str::to_owned)
        .collect();
    (contexts, environment)
}

/// A value, and whether a ! before it leaves it out.
pub(super) fn negated(text: &str) -> (bool, &str) {
    match text.trim().strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text.trim()),
    }
}

/// Surroundings that pass; `None` when nothing was asked.
pub(super) fn surroundings(
    db: &Connection,
    contexts: &[String],
    actors: &[String],
    environment: &str,
) -> Answer<Option<Vec<i64>>> {
    if contexts.is_empty() && actors.is_empty() && environment.is_empty() {
        return Ok(None);
    }
    if contexts.len().max(actors.len()) > FEW || environment.len() > MAX_TEXT {
        return Err(bad("these are too many filters"));
    }
    for actor in actors {
        if Actor::of_word(negated(actor).1).is_none() {
            let words: Vec<_> = Actor::ALL.iter().map(|a| a.word()).collect();
            let all = words.join(", ");
            return Err(bad(format!(
                "there is no actor {actor:?}; actors are {all}"
            )));
        }
    }
    // As the filter of a stream: one of those that are wanted, none of the others.
    let pass = |asked: &[String], is: &dyn Fn(&str) -> bool| {
        let mut wanted = asked.iter().map(|a| negated(a)).filter(|a| !a.0).peekable();
        let none = wanted.peek().is_none();
        (none || wanted.any(|(_, text)| is(text)))
            && !asked
                .iter()
                .map(|a| negated(a))
                .any(|(not, text)| not && is(text))
    };
    let mut query = db.prepare("SELECT id, actor, contexts FROM surroundings")?;
    let mut rows = query.query([])?;
    let mut ids = Vec::new();
    while let Some(r) = rows.next()? {
        let (actor, text): (String, String) = (r.get(1)?, r.get(2)?);
        let in_context = |asked: &str| {
            let mut each = text.split(',').filter_map(|word| word.split_once(':'));
            each.any(|(kind, name)| kind != ENVIRONMENT && (asked == kind || asked == name))
        };
        let is = words(&text).1;
        let (not, asked) = negated(environment);
        let there = asked.is_empty() || (is == asked) != not;
        if there && pass(contexts, &in_context) && pass(actors, &|asked| asked == actor) {
            ids.push(r.get(0)?);
        }
    }
    Ok(Some(ids))
}

/// Numbers of the acts that were asked for; all when none was.
pub(super) fn acts(asked: &[i32]) -> Answer<Vec<Act>> {
    if asked.is_empty() {
        return Ok(Act::ALL.into());
    }
    asked
        .iter()
        .map(|n| Act::of_number(*n).ok_or_else(|| bad("there is no such act")))
        .collect()
}

/// Programs that go by this name; `None` when nothing was asked.
fn programs(db: &Connection, by: &str) -> Answer<Option<Vec<i64>>> {
    if by.is_empty() {
        return Ok(None);
    }
    let mut query = db.prepare("SELECT id, path, script FROM programs")?;
    let mut rows = query.query([])?;
    let mut ids = Vec::new();
    while let Some(r) = rows.next()? {
        let (path, script): (String, String) = (r.get(1)?, r.get(2)?);
        if by_fits(by, &path, &script) == Some(true) {
            ids.push(r.get(0)?);
        }
    }
    Ok(Some(ids))
}

fn destinations(db: &Connection, host: &str) -> Answer<Option<Vec<i64>>> {
    if host.is_empty() {
        return Ok(None);
    }
    let mut query = db.prepare("SELECT id, host, ip FROM destinations WHERE id != 0")?;
    let mut rows = query.query([])?;
    let mut ids = Vec::new();
    while let Some(r) = rows.next()? {
        let names: (String, String) = (r.get(1)?, r.get(2)?);
        if to_fits(host, Some(&names)) == Some(true) {
            ids.push(r.get(0)?);
        }
    }
    Ok(Some(ids))
}

impl Reader {
    /// Uses by the hour, the newest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_uses(&self, ask: &ListUsesRequest) -> Result<ListUsesResponse, ReadError> {
        self.ask(|db| {
            let (from, to) = interval(ask.from.as_ref(), ask.to.as_ref())?;
            if ask.by.len().max(ask.to_host.len()) > MAX_TEXT {
                return Err(bad("this filter is too long"));
            }
            let mut conditions = vec!["u.hour BETWEEN ? AND ?".to_owned(), "u.last >= ?".into(), "u.first <= ?".into()];
            let mut values: Vec<Value> = vec![
                from.div_euclid(HOUR_NS).into(),
                to.div_euclid(HOUR_NS).into(),
                from.into(),
                to.into(),
            ];
            let (credential, by, host) = (
                negated(&ask.credential),
                negated(&ask.by),
                negated(&ask.to_host),
            );
            for (column, ids) in [
                ("credential", (credential.0, filtered(db, credential.1)?)),
                ("program", (by.0, programs(db, by.1)?)),
                ("destination", (host.0, destinations(db, host.1)?)),
                (
                    "surroundings",
                    (false, surroundings(db, &ask.contexts, &ask.actors, &ask.environment)?),
                ),
            ] {
                if let (not, Some(ids)) = ids {
                    // Many of them are seen soon when hours are gone through; few are found by their own index.
                    let scan = if not || ids.len() > FEW { "+" } else { "" };
                    let not = if not { "NOT " } else { "" };
                    conditions.push(format!(
                        "{scan}u.{column} {not}IN (SELECT value FROM json_each(?))"
                    ));
                    values.push(list(&ids).into());
                }
            }
            if !ask.acts.is_empty() {
                let numbers: Vec<i64> = acts(&ask.acts)?.iter().map(|a| a.number().into()).collect();
                conditions.push("+u.act IN (SELECT value FROM json_each(?))".into());
                values.push(list(&numbers).into());
            }
            if let Some([hour, id]) = token(&ask.page_token)? {
                conditions.push("(u.hour, u.id) < (?, ?)".into());
                values.extend([hour.into(), id.into()]);
            }
            let size = page(ask.page_size);
            values.push((size as i64 + 1).into());
            let columns = columns("u.first", "u.last", "u.count", "u.bytes");
            let mut query = db.prepare(&format!(
                "SELECT {columns}, u.hour, u.id FROM {TABLES} WHERE {} ORDER BY u.hour DESC, u.id DESC LIMIT ?",
                conditions.join(" AND ")
            ))?;
            let rows = query.query_map(params_from_iter(values), |r| {
                Ok((of_row(r)?, [r.get::<_, i64>(COLUMNS)?, r.get(COLUMNS + 1)?]))
            })?;
            let mut rows: Vec<(Use, [i64; 2])> = rows.collect::<Result<_, _>>()?;
            let more = rows.len() > size;
            rows.truncate(size);
            let next_page_token = match rows.last() {
                Some((_, at)) if more => make_token(at),
                _ => String::new(),
            };
            Ok(ListUsesResponse {
                uses: rows.into_iter().map(|(shown, _)| shown).collect(),
                next_page_token,
            })
        })
    }
}
