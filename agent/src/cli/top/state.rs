//! What the screen shows, made of events. Pure: a test feeds it and looks.

use crate::output::describe;
use keytrail_model::{EventKind, EvidenceGrade, GapReason};
use keytrail_proto::v1::{Event, Gap};
use std::collections::{BTreeMap, BTreeSet};

/// Rows a table remembers; beyond that the one longest unheard of goes, and is counted.
const MAX_ROWS: usize = 2_000;
/// Different names a row remembers of what it was seen with.
const MAX_MET: usize = 64;
/// Seconds over which the rate is taken.
const RATE_SECONDS: i64 = 10;

/// One line of a table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub label: String,
    /// What there is to say beside the name.
    pub detail: String,
    pub events: u64,
    /// Sends whose bytes were seen, and sends of holders.
    pub observed: u64,
    pub lineage: u64,
    /// Seconds since 1970 of the last event.
    pub last: i64,
    met: BTreeSet<String>,
    more: bool,
}

impl Row {
    /// How many different ones it was seen with: consumers of a credential, credentials of a consumer.
    #[must_use]
    pub fn met(&self) -> String {
        format!("{}{}", self.met.len(), if self.more { "+" } else { "" })
    }

    fn meet(&mut self, name: &str) {
        if self.met.len() < MAX_MET {
            self.met.insert(name.to_owned());
        } else if !self.met.contains(name) {
            self.more = true;
        }
    }
}

/// Rows by identity, bounded.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: BTreeMap<String, Row>,
    pub forgotten: u64,
}

impl Rows {
    fn at(&mut self, key: &str) -> &mut Row {
        if !self.rows.contains_key(key) && self.rows.len() >= MAX_ROWS {
            let oldest = self.rows.iter().min_by_key(|(_, row)| row.last);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.rows.remove(&key);
                self.forgotten += 1;
            }
        }
        self.rows.entry(key.to_owned()).or_default()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// In the order asked for; what is equal stays in the order of its identity.
    #[must_use]
    pub fn sorted(&self, order: Order) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        match order {
            Order::Last => rows.sort_by_key(|row| std::cmp::Reverse(row.last)),
            Order::Events => rows.sort_by_key(|row| std::cmp::Reverse(row.events)),
            Order::Sent => {
                rows.sort_by_key(|row| std::cmp::Reverse((row.observed, row.lineage, row.events)));
            }
        }
        rows
    }
}

/// What the tables are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Last,
    Events,
    Sent,
}

impl Order {
    #[must_use]
    pub fn next(self) -> Order {
        match self {
            Order::Last => Order::Events,
            Order::Events => Order::Sent,
            Order::Sent => Order::Last,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Order::Last => "last seen",
            Order::Events => "number of events",
            Order::Sent => "sends",
        }
    }
}

/// Everything that was seen so far.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub credentials: Rows,
    pub consumers: Rows,
    pub destinations: Rows,
    /// What was not seen: reason, and how often or how many.
    pub gaps: BTreeMap<String, u64>,
    pub events: u64,
    pub lost: u64,
    pub missed: u64,
    /// Events of each of the last seconds, by the second.
    seconds: BTreeMap<i64, u64>,
}

impl State {
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        let at = event.time.as_ref().map_or(0, |t| t.seconds);
        *self.seconds.entry(at).or_default() += 1;
        while self.seconds.len() > 60 {
            self.seconds.pop_first();
        }
        if let Some(gap) = &event.gap {
            self.gap(gap);
        }
        let Some(credential) = &event.credential else {
            return;
        };
        let name = describe::credential(Some(credential));
        let process = describe::process(event.process.as_ref());
        let sent = event.kind == EventKind::CredentialSent.number();
        let observed = sent
            && event
                .evidence
                .as_ref()
                .is_some_and(|e| e.grade == EvidenceGrade::Observed.number());
        let times = event.stands_for();
        let note = |row: &mut Row, label: &str, detail: &str, with: &str| {
            if row.label.is_empty() {
                row.label = label.to_owned();
            }
            if row.detail.is_empty() {
                row.detail = detail.to_owned();
            }
            row.events += times;
            row.observed += if observed { times } else { 0 };
            row.lineage += if sent && !observed { times } else { 0 };
            row.last = row.last.max(at);
            row.meet(with);
        };
        let row = self.credentials.at(&credential.fingerprint);
        let identifier = crate::output::escape(&credential.identifier);
        note(row, &name, &identifier, &process);
        if let Some(p) = &event.process {
            let row = self.consumers.at(&p.key);
            let who = describe::who(Some(p));
            note(row, &process, &who, &credential.fingerprint);
        }
        if sent {
            let (key, label) = event.destination.as_ref().map_or_else(
                || (String::new(), "unknown destination".to_owned()),
                |d| {
                    (
                        format!("{} {} {}{}", d.ip, d.port, d.socket_path, d.path),
                        describe::destination(d),
                    )
                },
            );
            let row = self.destinations.at(&key);
            note(row, &label, &process, &credential.fingerprint);
        }
    }

    /// A gap that came as an event, or beside the events.
    pub fn gap(&mut self, gap: &Gap) {
        let count = gap.count.max(1);
        if gap.reason == GapReason::RecordsLost.number() {
            self.lost += gap.count;
        }
        if gap.reason == GapReason::ClientTooSlow.number() {
            self.missed += gap.count;
        }
        *self
            .gaps
            .entry(GapReason::word_of(gap.reason).to_owned())
            .or_default() += count;
    }

    /// Events a second, over the last ten before `now`.
    #[must_use]
    pub fn rate(&self, now: i64) -> f64 {
        let recent: u64 = self
            .seconds
            .range(now - RATE_SECONDS..now)
            .map(|(_, n)| n)
            .sum();
        recent as f64 / RATE_SECONDS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{Credential, Destination, Evidence, Process};
    use pbjson_types::Timestamp;

    pub(super) fn event(kind: EventKind, n: u32, at: i64) -> Event {
        Event {
            kind: kind.number(),
            time: Some(Timestamp {
                seconds: at,
                nanos: 0,
            }),
            process: Some(Process {
                pid: n,
                key: format!("b:{n}:1:1"),
                comm: "curl".into(),
                ..Default::default()
            }),
            credential: Some(Credential {
                kind: "github-token".into(),
                fingerprint: format!("kt1:{:032x}", n % 2),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn who_uses_what_and_where_it_goes() {
        let mut state = State::default();
        for n in 1..=4 {
            state.add(&event(EventKind::CredentialRead, n, 100));
        }
        for grade in [EvidenceGrade::Observed, EvidenceGrade::Lineage] {
            let mut sent = event(EventKind::CredentialSent, 1, 105);
            sent.evidence = Some(Evidence {
                grade: grade.number(),
                ..Default::default()
            });
            sent.destination = Some(Destination {
                ip: "10.0.0.9".into(),
                port: 443,
                ..Default::default()
            });
            state.add(&sent);
        }
        assert_eq!(
            [
                state.credentials.len(),
                state.consumers.len(),
                state.destinations.len()
            ],
            [2, 4, 1]
        );
        let first = state.credentials.sorted(Order::Sent)[0];
        assert_eq!((first.observed, first.lineage, first.events), (1, 1, 4));
        assert_eq!(first.met(), "2");
        assert_eq!(state.consumers.sorted(Order::Last)[0].label, "curl[1]");
        assert_eq!(
            state.destinations.sorted(Order::Last)[0].label,
            "10.0.0.9:443"
        );
        assert!((state.rate(110) - 0.6).abs() < 1e-9);
        assert!(state.rate(1000).abs() < 1e-9);
    }

    #[test]
    fn any_number_of_processes_takes_bounded_room() {
        let mut state = State::default();
        for n in 0..10_000 {
            state.add(&event(EventKind::CredentialRead, n, i64::from(n)));
        }
        assert_eq!(state.consumers.len(), MAX_ROWS);
        assert_eq!(state.consumers.forgotten, 8_000);
        assert_eq!(state.consumers.sorted(Order::Last)[0].label, "curl[9999]");
        assert_eq!(state.credentials.sorted(Order::Last)[0].met(), "64+");
    }

    #[test]
    fn what_was_not_seen_is_counted_by_reason() {
        let mut state = State::default();
        for (reason, count) in [
            (GapReason::RecordsLost, 7),
            (GapReason::RecordsLost, 3),
            (GapReason::ClientTooSlow, 2),
            (GapReason::FileUnwatched, 0),
        ] {
            state.gap(&Gap {
                reason: reason.number(),
                count,
                ..Default::default()
            });
        }
        assert_eq!((state.lost, state.missed), (10, 2));
        assert_eq!(state.gaps.get("records_lost"), Some(&10));
        assert_eq!(state.gaps.get("file_unwatched"), Some(&1));
    }
}
