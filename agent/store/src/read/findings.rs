//! Findings.

use super::token;
use super::uses::{negated, surroundings, words};
use super::{Answer, ReadError, Reader, filtered, interval, list, make_token, page, timestamp};
use keytrail_proto::v1::{EventId, FindingRecord, ListFindingsRequest, ListFindingsResponse};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

const COLUMNS: &str = "f.rule, f.severity, f.title, f.fingerprint, f.seen, f.expected, f.remedy, f.techniques, f.first,
     f.last, f.count, f.epoch, f.sequence, f.id, x.actor, x.contexts, f.act";

const TABLES: &str = "findings f LEFT JOIN surroundings x ON x.id = f.surroundings";

fn of_row(r: &Row<'_>) -> rusqlite::Result<(FindingRecord, [i64; 2])> {
    let last: i64 = r.get(9)?;
    let record = FindingRecord {
        rule: r.get(0)?,
        severity: r.get(1)?,
        title: r.get(2)?,
        fingerprint: r.get(3)?,
        seen: r.get(4)?,
        expected: r.get(5)?,
        remedy: r.get(6)?,
        techniques: r
            .get::<_, String>(7)?
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        first: Some(timestamp(r.get(8)?)),
        last: Some(timestamp(last)),
        count: r.get::<_, i64>(10)? as u64,
        event: Some(EventId {
            epoch: r.get::<_, i64>(11)? as u64,
            sequence: r.get::<_, i64>(12)? as u64,
            ..EventId::default()
        }),
        actor: r.get::<_, Option<String>>(14)?.unwrap_or_default(),
        contexts: words(&r.get::<_, Option<String>>(15)?.unwrap_or_default()).0,
        act: r.get::<_, i64>(16)? as u64,
    };
    Ok((record, [last, r.get(13)?]))
}

/// Those about one credential, the newest first.
pub(super) fn of(db: &Connection, fingerprint: &str, most: usize) -> Answer<Vec<FindingRecord>> {
    let mut query = db.prepare(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE f.fingerprint = ?1 ORDER BY f.last DESC LIMIT ?2"
    ))?;
    let rows = query.query_map(rusqlite::params![fingerprint, most as i64], |r| {
        of_row(r).map(|(record, _)| record)
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Reader {
    /// Findings, the newest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_findings(
        &self,
        ask: &ListFindingsRequest,
    ) -> Result<ListFindingsResponse, ReadError> {
        self.ask(|db| {
            let (from, to) = interval(ask.from.as_ref(), ask.to.as_ref())?;
            let mut conditions = vec!["f.last >= ? AND f.first <= ?".to_owned()];
            let mut values: Vec<Value> = vec![from.into(), to.into()];
            let (not, credential) = negated(&ask.credential);
            if let Some(ids) = filtered(db, credential)? {
                let not = if not { "NOT " } else { "" };
                conditions.push(format!(
                    "f.fingerprint {not}IN (SELECT fingerprint FROM credentials
                         WHERE id IN (SELECT value FROM json_each(?)))"
                ));
                values.push(list(&ids).into());
            }
            let (not, rule) = negated(&ask.rule);
            if !rule.is_empty() {
                conditions.push(format!("f.rule {} ?", if not { "!=" } else { "=" }));
                values.push(rule.to_owned().into());
            }
            if let Some(ids) = surroundings(db, &ask.contexts, &ask.actors, "")? {
                conditions.push("f.surroundings IN (SELECT value FROM json_each(?))".into());
                values.push(list(&ids).into());
            }
            if let Some([last, id]) = token(&ask.page_token)? {
                conditions.push("(f.last, f.id) < (?, ?)".into());
                values.extend([last.into(), id.into()]);
            }
            let size = page(ask.page_size);
            values.push((size as i64 + 1).into());
            let mut query = db.prepare(&format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE {} ORDER BY f.last DESC, f.id DESC LIMIT ?",
                conditions.join(" AND ")
            ))?;
            let mut rows: Vec<_> = query
                .query_map(params_from_iter(values), of_row)?
                .collect::<Result<_, _>>()?;
            let more = rows.len() > size;
            rows.truncate(size);
            let next_page_token = match rows.last() {
                Some((_, at)) if more => make_token(at),
                _ => String::new(),
            };
            Ok(ListFindingsResponse {
                findings: rows.into_iter().map(|(record, _)| record).collect(),
                next_page_token,
            })
        })
    }
}
