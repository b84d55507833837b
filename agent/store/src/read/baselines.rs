//! What is usual, and decoys.

use super::{Answer, Fail, ReadError, Reader, filtered, named, timestamp};
use keytrail_findings::Baseline;
use keytrail_proto::v1::{
    self, Decoy, ListBaselinesRequest, ListBaselinesResponse, ListDecoysResponse,
};
use rusqlite::Connection;

/// Baselines of one answer.
const MOST: usize = 1000;

impl Reader {
    /// What is usual for credentials, the last used first. `now`: wall clock, nanoseconds.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_baselines(
        &self,
        ask: &ListBaselinesRequest,
        now: i64,
    ) -> Result<ListBaselinesResponse, ReadError> {
        self.ask(|db| {
            let only = filtered(db, &ask.credential)?;
            let mut query = db.prepare(
                "SELECT b.fingerprint, b.body, c.kind, c.identifier, c.id FROM baselines b
                 LEFT JOIN credentials c ON c.fingerprint = b.fingerprint ORDER BY c.last_seen DESC",
            )?;
            let mut rows = query.query([])?;
            let mut baselines = Vec::new();
            while let Some(r) = rows.next()?
                && baselines.len() < MOST
            {
                let id: Option<i64> = r.get(4)?;
                if let Some(only) = &only
                    && id.is_none_or(|id| only.binary_search(&id).is_err())
                {
                    continue;
                }
                // One that another version wrote is not understood, and learned anew.
                let Ok(baseline) = serde_json::from_str::<Baseline>(&r.get::<_, String>(1)?) else {
                    continue;
                };
                baselines.push(v1::Baseline {
                    fingerprint: r.get(0)?,
                    credential_kind: r.get::<_, Option<String>>(2)?.unwrap_or_default(),
                    identifier: r.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    learning: baseline.is_learning(now),
                    accepted: baseline.accepted,
                    uses: baseline.uses,
                    lines: baseline.lines(now),
                });
            }
            Ok(ListBaselinesResponse { baselines })
        })
    }

    /// Fingerprints of the credentials that go by a name.
    ///
    /// # Errors
    /// See [`ReadError`]; there is none.
    pub fn fingerprints(&self, name: &str) -> Result<Vec<String>, ReadError> {
        self.ask(|db| {
            let found = fingerprints(db, &named(db, name)?)?;
            if found.is_empty() {
                return Err(Fail::Read(ReadError::NotFound(format!(
                    "no credential {name:?} was seen here"
                ))));
            }
            Ok(found)
        })
    }

    /// All decoys.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list_decoys(&self) -> Result<ListDecoysResponse, ReadError> {
        self.ask(|db| {
            let mut query =
                db.prepare("SELECT fingerprint, kind, path, planted FROM decoys ORDER BY planted")?;
            let rows = query.query_map([], |r| {
                Ok(Decoy {
                    fingerprint: r.get(0)?,
                    kind: r.get(1)?,
                    path: r.get(2)?,
                    planted: Some(timestamp(r.get(3)?)),
                })
            })?;
            Ok(ListDecoysResponse {
                decoys: rows.collect::<Result<_, _>>()?,
            })
        })
    }
}

fn fingerprints(db: &Connection, ids: &[i64]) -> Answer<Vec<String>> {
    let mut query = db.prepare("SELECT fingerprint FROM credentials WHERE id = ?1")?;
    let mut found = Vec::new();
    for id in ids {
        found.push(query.query_row([id], |r| r.get(0))?);
    }
    Ok(found)
}
