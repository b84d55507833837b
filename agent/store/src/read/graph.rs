//! Credentials, programs and destinations as nodes and edges.

use super::{ReadError, Reader, filtered, interval, list};
use crate::history::{HOUR_NS, grade_word};
use keytrail_proto::v1::{GetGraphRequest, GetGraphResponse, GraphEdge, GraphNode};
use rusqlite::params_from_iter;
use rusqlite::types::Value;
use std::collections::BTreeMap;

/// Sums of uses that are drawn; a page with more shows nothing.
const MOST: usize = 2000;

#[derive(Default)]
struct Graph {
    nodes: BTreeMap<String, (&'static str, String)>,
    edges: BTreeMap<(String, String, i32, &'static str), u64>,
}

impl Graph {
    fn node(&mut self, kind: &'static str, id: &str, label: String) -> String {
        let id = format!("{kind}:{id}");
        self.nodes.entry(id.clone()).or_insert((kind, label));
        id
    }

    fn edge(&mut self, from: &str, to: &str, act: i32, grade: &'static str, count: u64) {
        *self
            .edges
            .entry((from.to_owned(), to.to_owned(), act, grade))
            .or_default() += count;
    }

    /// One kind of use, and how often.
    fn row(&mut self, r: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let text =
            |i: usize| Ok::<_, rusqlite::Error>(r.get::<_, Option<String>>(i)?.unwrap_or_default());
        let (fingerprint, kind, identifier) = (text(0)?, text(1)?, text(2)?);
        let short = fingerprint.get(4..12).unwrap_or(&fingerprint);
        let name = if identifier.is_empty() {
            short
        } else {
            &identifier
        };
        let credential = self.node("credential", &fingerprint, format!("{kind}\n{name}"));
        let (path, script, workload) = (text(3)?, text(4)?, text(5)?);
        let shown = if script.is_empty() { &path } else { &script };
        let program = self.node(
            "program",
            &format!("{path}\n{script}\n{workload}"),
            format!("{shown}\n{workload}"),
        );
        let act: i32 = r.get(9)?;
        let grade = grade_word(r.get(10)?);
        let count = r.get::<_, i64>(12)? as u64;
        self.edge(&credential, &program, act, grade, count);
        if r.get::<_, i64>(11)? != 0 {
            let (host, ip, port) = (text(6)?, text(7)?, r.get::<_, Option<i64>>(8)?);
            let port = port.unwrap_or_default();
            let shown = if host.is_empty() { &ip } else { &host };
            // One place by name, whatever addresses it has.
            // What was written to has no port.
            let shown = match port {
                0 => shown.clone(),
                port => format!("{shown}:{port}"),
            };
            let destination = self.node("destination", &shown, shown.clone());
            self.edge(&program, &destination, act, grade, count);
        }
        Ok(())
    }

    fn response(self, omitted: u64) -> GetGraphResponse {
        GetGraphResponse {
            nodes: self
                .nodes
                .into_iter()
                .map(|(id, (kind, label))| GraphNode {
                    id,
                    kind: kind.to_owned(),
                    label,
                })
                .collect(),
            edges: self
                .edges
                .into_iter()
                .map(|((from, to, act, grade), count)| GraphEdge {
                    from,
                    to,
                    act,
                    grade: grade.to_owned(),
                    count,
                })
                .collect(),
            omitted,
        }
    }
}

impl Reader {
    /// Who used what, and where it went.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn graph(&self, ask: &GetGraphRequest) -> Result<GetGraphResponse, ReadError> {
        self.ask(|db| {
            let (from, to) = interval(ask.from.as_ref(), ask.to.as_ref())?;
            let mut condition = "u.hour BETWEEN ? AND ? AND u.last >= ? AND u.first <= ?".to_owned();
            let mut values: Vec<Value> = vec![
                from.div_euclid(HOUR_NS).into(),
                to.div_euclid(HOUR_NS).into(),
                from.into(),
                to.into(),
            ];
            if let Some(ids) = filtered(db, &ask.credential)? {
                condition += " AND u.credential IN (SELECT value FROM json_each(?))";
                values.push(list(&ids).into());
            }
            let mut query = db.prepare(&format!(
                "SELECT c.fingerprint, c.kind, c.identifier, p.path, p.script, w.text, d.host, d.ip, d.port, g.act,
                     g.grade, g.destination, g.count
                 FROM (SELECT u.credential, u.program, u.workload, u.destination, u.act, u.grade, sum(u.count) AS count
                     FROM uses u WHERE {condition}
                     GROUP BY u.credential, u.program, u.workload, u.destination, u.act, u.grade) g
                 JOIN credentials c ON c.id = g.credential LEFT JOIN programs p ON p.id = g.program
                 LEFT JOIN texts w ON w.id = g.workload LEFT JOIN destinations d ON d.id = g.destination
                 ORDER BY g.count DESC"
            ))?;
            let mut rows = query.query(params_from_iter(values))?;
            let mut graph = Graph::default();
            let (mut taken, mut omitted) = (0, 0);
            while let Some(r) = rows.next()? {
                if taken == MOST {
                    omitted += 1;
                    continue;
                }
                taken += 1;
                graph.row(r)?;
            }
            Ok(graph.response(omitted))
        })
    }
}
