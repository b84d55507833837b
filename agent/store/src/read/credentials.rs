//! The list of credentials.

use super::{Answer, ReadError, Reader, filtered, list, make_token, page, timestamp, token};
use keytrail_proto::v1::{CredentialSummary, ListCredentialsRequest, ListCredentialsResponse};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

/// Columns [`of_row`] reads, of `credentials c`.
const COLUMNS: &str = "c.kind, c.identifier, c.fingerprint, c.confidence, c.privilege, c.expires, c.first_seen,
     c.last_seen, c.rotated, c.previous, c.created, c.last_used, c.last_sent, c.reads, c.exposures, c.sends,
     (SELECT count(*) FROM consumers WHERE credential = c.id), (SELECT count(*) FROM reached WHERE credential = c.id),
     (SELECT count(*) FROM places WHERE credential = c.id),
     (SELECT count(*) FROM findings WHERE fingerprint = c.fingerprint), c.weight, c.id";

fn of_row(r: &Row<'_>) -> rusqlite::Result<(CredentialSummary, [i64; 3])> {
    let time = |i: usize| Ok::<_, rusqlite::Error>(r.get::<_, Option<i64>>(i)?.map(timestamp));
    let number = |i: usize| r.get::<_, i64>(i).map(|n| n as u64);
    let summary = CredentialSummary {
        credential: Some(super::used::credential_of_row(r)?),
        first_seen: time(6)?,
        last_seen: time(7)?,
        rotated: time(8)?,
        previous: r.get::<_, Option<String>>(9)?.unwrap_or_default(),
        created: time(10)?,
        last_used: time(11)?,
        last_sent: time(12)?,
        reads: number(13)?,
        exposures: number(14)?,
        sends: number(15)?,
        consumers: number(16)? as u32,
        destinations: number(17)? as u32,
        places: number(18)? as u32,
        open_findings: number(19)? as u32,
    };
    // Where the next page goes on: by weight, then the last seen first.
    Ok((summary, [r.get(20)?, r.get(7)?, r.get(21)?]))
}

/// One of them.
pub(super) fn summary(db: &Connection, id: i64) -> Answer<CredentialSummary> {
    let row = db.query_row(
        &format!("SELECT {COLUMNS} FROM credentials c WHERE c.id = ?1"),
        [id],
        of_row,
    )?;
    Ok(row.0)
}

impl Reader {
    /// Credentials, the most privileged and last seen first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_credentials(
        &self,
        ask: &ListCredentialsRequest,
    ) -> Result<ListCredentialsResponse, ReadError> {
        self.ask(|db| {
            let mut conditions = vec!["1".to_owned()];
            let mut values: Vec<Value> = Vec::new();
            if let Some(ids) = filtered(db, &ask.credential)? {
                conditions.push("c.id IN (SELECT value FROM json_each(?))".into());
                values.push(list(&ids).into());
            }
            if let Some([weight, last_seen, id]) = token(&ask.page_token)? {
                conditions.push("(c.weight, -c.last_seen, c.id) > (?, ?, ?)".into());
                values.extend([weight.into(), (-last_seen).into(), id.into()]);
            }
            let size = page(ask.page_size);
            values.push((size as i64 + 1).into());
            let mut query = db.prepare(&format!(
                "SELECT {COLUMNS} FROM credentials c WHERE {} ORDER BY c.weight, c.last_seen DESC, c.id LIMIT ?",
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
            Ok(ListCredentialsResponse {
                credentials: rows.into_iter().map(|(summary, _)| summary).collect(),
                next_page_token,
            })
        })
    }
}
