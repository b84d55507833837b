//! A report for people: one file of HTML without a script and without anything from elsewhere, for screens and for paper.

mod collect;
mod page;

pub use collect::{Collector, findings, fold_acts};
pub use page::html;

use keytrail_proto::v1::GetGraphResponse;

/// Rows of each list that are shown; more are counted, and are in the files beside the report.
pub const MOST: usize = 2_000;

/// What a report says.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub title: String,
    /// Where, when, by whom: name and value.
    pub facts: Vec<(String, String)>,
    /// Why it is not whole; empty when it is.
    pub partial: Vec<String>,
    /// Sentences in plain words.
    pub summary: Vec<String>,
    pub findings: Vec<Found>,
    pub findings_omitted: u64,
    pub graph: GetGraphResponse,
    pub timeline: Vec<Row>,
    pub timeline_omitted: u64,
    /// `None` where no inventory was made.
    pub inventory: Option<Vec<Lies>>,
    pub inventory_omitted: u64,
    pub gaps: Vec<Unseen>,
    pub gaps_omitted: u64,
    /// How to check and go on, each a sentence.
    pub notes: Vec<String>,
}

/// A finding.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// RFC 3339.
    pub time: String,
    pub severity: String,
    pub rule: String,
    pub title: String,
    pub credential: String,
    pub seen: String,
    pub expected: String,
    pub remedy: String,
    pub techniques: Vec<String>,
    pub count: u64,
    /// Epoch and number of its act.
    pub act: (u64, u64),
    /// Which others report the same act, by their rules.
    pub also: String,
}

/// One thing that happened.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// RFC 3339.
    pub time: String,
    pub action: String,
    pub process: String,
    pub credential: String,
    pub place: String,
    /// observed | identified | lineage, or empty.
    pub grade: String,
    /// How it is set off: `bad` for what left, `dim` for what proves nothing, or empty.
    pub mark: &'static str,
}

/// A credential that lies on the host.
#[derive(Clone, Debug, Default)]
pub struct Lies {
    pub kind: String,
    pub identifier: String,
    pub fingerprint: String,
    pub places: String,
    pub exposures: String,
    pub known_since: String,
}

/// What could not be seen.
#[derive(Clone, Debug, Default)]
pub struct Unseen {
    /// The reason of the gap, a word.
    pub reason: String,
    pub detail: String,
    pub remedy: String,
    pub count: u64,
}

/// `1 thing`, `2 things`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
