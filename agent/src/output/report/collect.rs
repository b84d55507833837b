//! A report out of events, one after the other. Memory is bounded whatever comes.

use super::{Found, MOST, Report, Row, Unseen, count};
use crate::output::acts::{OfAct, also, fold, rank};
use crate::output::fingerprint::short_fingerprint;
use crate::output::{Colour, describe, utc};
use keytrail_model::{EventKind, EvidenceGrade, GapReason};
use keytrail_proto::v1::{Event, Gap, GetGraphResponse, GraphEdge, GraphNode, UseAct};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes of each kind that are drawn: a page with more shows nothing.
const MOST_NODES: usize = 200;
/// Things of a kind that are told apart.
const MOST_REPORTED_APART: usize = 100_000;

type Edge = (String, String, i32, &'static str);

/// Takes events in.
#[derive(Debug, Default)]
pub struct Collector {
    report: Report,
    nodes: BTreeMap<String, (&'static str, String)>,
    edges: BTreeMap<Edge, u64>,
    credentials: BTreeSet<String>,
    programs: BTreeSet<String>,
    /// Credentials that were seen to leave, with the destinations.
    observed: BTreeSet<(String, String)>,
    identified: BTreeSet<String>,
    lineage: BTreeSet<String>,
    taken: u64,
    severities: BTreeMap<String, u64>,
    gaps: BTreeMap<(String, String, String), u64>,
    events: u64,
}

fn insert<T: Ord>(set: &mut BTreeSet<T>, value: T) {
    if set.len() < MOST_REPORTED_APART {
        set.insert(value);
    }
}

impl Collector {
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        match EventKind::of_number(event.kind) {
            Some(EventKind::CoverageGap) => {
                if let Some(gap) = &event.gap {
                    self.gap(gap);
                }
                return;
            }
            Some(EventKind::Finding) => self.finding(event),
            Some(EventKind::ProcessStart | EventKind::ProcessExit) => return,
            _ => self.used(event),
        }
        if self.report.timeline.len() == MOST {
            self.report.timeline_omitted += 1;
        } else {
            self.report.timeline.push(row(event));
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let reason = GapReason::word_of(gap.reason).to_owned();
        let key = (reason, gap.detail.clone(), gap.remedy.clone());
        if self.gaps.len() >= MOST && !self.gaps.contains_key(&key) {
            self.report.gaps_omitted += 1;
            return;
        }
        *self.gaps.entry(key).or_default() += gap.count.max(1);
    }

    fn finding(&mut self, event: &Event) {
        let Some(finding) = &event.finding else {
            return;
        };
        *self.severities.entry(finding.severity.clone()).or_default() += 1;
        if self.report.findings.len() == MOST {
            self.report.findings_omitted += 1;
            return;
        }
        self.report.findings.push(Found {
            time: event.time.as_ref().map(utc).unwrap_or_default(),
            severity: finding.severity.clone(),
            rule: finding.rule.clone(),
            title: finding.title.clone(),
            credential: describe::credential(event.credential.as_ref()),
            seen: finding.seen.clone(),
            expected: finding.expected.clone(),
            remedy: finding.remedy.clone(),
            techniques: finding.techniques.clone(),
            count: 1,
            act: (event.id.as_ref().map_or(0, |id| id.epoch), finding.act),
            also: String::new(),
        });
    }

    fn used(&mut self, event: &Event) {
        let (Some(credential), Some(process)) = (&event.credential, &event.process) else {
            return;
        };
        let act = match EventKind::of_number(event.kind) {
            Some(EventKind::CredentialRead | EventKind::CredentialReceived) => UseAct::Read,
            Some(EventKind::CredentialExposed) => UseAct::Held,
            Some(EventKind::CredentialSent) => UseAct::Sent,
            Some(EventKind::CredentialTaken) => {
                self.taken += 1;
                UseAct::Read
            }
            _ => return,
        };
        let fingerprint = &credential.fingerprint;
        insert(&mut self.credentials, fingerprint.clone());
        let path = process.executable.as_ref().map_or("", |e| e.path.as_str());
        let path: &str = if path.is_empty() { &process.comm } else { path };
        let who = describe::who(Some(process));
        let program = format!("program:{path}\n{who}");
        insert(&mut self.programs, program.clone());
        let grade = event.evidence.as_ref().map_or(0, |e| e.grade);
        let grade = EvidenceGrade::word_of(grade);
        let short = short_fingerprint(fingerprint);
        let name: &str = match credential.identifier.as_str() {
            "" => &short,
            identifier => identifier,
        };
        let from = format!("credential:{fingerprint}");
        let drawn = self.node("credential", &from, || {
            format!("{}\n{name}", credential.kind)
        }) & self.node("program", &program, || format!("{path}\n{who}"));
        if !drawn {
            self.report.graph.omitted += 1;
        }
        *self
            .edges
            .entry((from, program.clone(), act.into(), grade))
            .or_default() += if drawn { event.stands_for() } else { 0 };
        if act != UseAct::Sent {
            return;
        }
        let place = event
            .destination
            .as_ref()
            .map_or_else(|| "unknown destination".into(), describe::destination);
        match EvidenceGrade::of_number(event.evidence.as_ref().map_or(0, |e| e.grade)) {
            Some(EvidenceGrade::Observed) => {
                insert(&mut self.observed, (fingerprint.clone(), place.clone()));
            }
            Some(EvidenceGrade::Identified) => insert(&mut self.identified, fingerprint.clone()),
            _ => insert(&mut self.lineage, fingerprint.clone()),
        }
        let to = format!("destination:{place}");
        if drawn && self.node("destination", &to, || place.clone()) {
            *self
                .edges
                .entry((program, to, act.into(), grade))
                .or_default() += 1;
        }
    }

    /// Whether it is drawn.
    fn node(&mut self, kind: &'static str, id: &str, label: impl FnOnce() -> String) -> bool {
        if self.nodes.contains_key(id) {
            return true;
        }
        if self.nodes.values().filter(|n| n.0 == kind).count() >= MOST_NODES {
            return false;
        }
        self.nodes.insert(id.to_owned(), (kind, label()));
        true
    }

    /// The report, with its summary; what events do not tell is left to be filled in.
    pub fn finish(mut self) -> Report {
        self.report.summary = self.sentences();
        let mut report = self.report;
        report.findings = fold_acts(report.findings);
        let named = |(id, (kind, label)): (String, (&str, String))| GraphNode {
            id,
            kind: kind.to_owned(),
            label,
        };
        report.graph = GetGraphResponse {
            nodes: self.nodes.into_iter().map(named).collect(),
            edges: self
                .edges
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|((from, to, act, grade), count)| GraphEdge {
                    from,
                    to,
                    act,
                    grade: grade.to_owned(),
                    count,
                })
                .collect(),
            omitted: report.graph.omitted,
        };
        report.gaps = self
            .gaps
            .into_iter()
            .map(|((reason, detail, remedy), count)| Unseen {
                reason,
                detail,
                remedy,
                count,
            })
            .collect();
        report
    }

    fn sentences(&self) -> Vec<String> {
        let mut out = vec![format!(
            "{} had, read or sent {} while it was watched.",
            count(self.programs.len(), "program", "programs"),
            count(self.credentials.len(), "credential", "credentials")
        )];
        let left: BTreeSet<&String> = self.observed.iter().map(|(c, _)| c).collect();
        let places: BTreeSet<&String> = self.observed.iter().map(|(_, d)| d).collect();
        if left.is_empty() {
            out.push("No credential was seen to leave in what programs sent.".to_owned());
        } else {
            out.push(format!(
                "{} seen to leave, to {}: the secret's own bytes were in what was sent.",
                was(left.len(), "credential"),
                count(places.len(), "destination", "destinations"),
            ));
        }
        if !self.identified.is_empty() {
            out.push(format!(
                "Of {} the public identifier was in what was sent, not the secret.",
                count(self.identified.len(), "credential", "credentials")
            ));
        }
        if !self.lineage.is_empty() {
            out.push(format!(
                "Programs that had {} sent something in which it was not seen: it may have left, and nothing proves it.",
                count(self.lineage.len(), "credential", "credentials")
            ));
        }
        if self.taken > 0 {
            out.push(format!(
                "Environment or memory of a process was read {}.",
                count(
                    usize::try_from(self.taken).unwrap_or(usize::MAX),
                    "time",
                    "times"
                )
            ));
        }
        out.push(findings(&self.severities));
        out.push(match self.gaps.len() {
            0 => "Nothing is known that could not be seen.".to_owned(),
            n => format!(
                "{} not seen, or not whole: the list at the end says which, and what to do.",
                was(n, "thing")
            ),
        });
        out
    }
}

fn was(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what} was"),
        n => format!("{n} {what}s were"),
    }
}

impl OfAct for Found {
    fn act(&self) -> (u64, u64) {
        self.act
    }

    fn severity(&self) -> &str {
        &self.severity
    }

    fn rule(&self) -> &str {
        &self.rule
    }

    fn order(&self, other: &Self) -> Ordering {
        self.time.cmp(&other.time)
    }
}

/// Those of one act as one, the worst first.
pub fn fold_acts(all: Vec<Found>) -> Vec<Found> {
    let mut folded: Vec<Found> = fold(all)
        .into_iter()
        .map(|(mut head, others)| {
            head.also = also(&others);
            head
        })
        .collect();
    folded.sort_by_key(|f| (rank(&f.severity), f.time.clone()));
    folded
}

/// One sentence about findings, by how severe they are.
pub fn findings(severities: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = severities.iter().collect();
    all.sort_by_key(|(severity, _)| rank(severity));
    let parts: Vec<String> = all.iter().map(|(s, n)| format!("{n} {s}")).collect();
    match parts.as_slice() {
        [] => "No rule found anything.".to_owned(),
        parts => format!("Findings: {}.", parts.join(", ")),
    }
}

fn row(event: &Event) -> Row {
    let grade = event.evidence.as_ref().map_or(0, |e| e.grade);
    let (action, colour) = describe::action(event);
    Row {
        time: event.time.as_ref().map(utc).unwrap_or_default(),
        action,
        mark: match colour {
            Colour::Red => "bad",
            Colour::Dim => "dim",
            _ => "",
        },
        process: describe::process(event.process.as_ref()),
        credential: describe::credential(event.credential.as_ref()),
        place: match describe::request(event) {
            request if request.is_empty() => describe::place(event),
            request => format!("{}, {request}", describe::place(event)),
        },
        grade: if grade == 0 {
            String::new()
        } else {
            EvidenceGrade::word_of(grade).to_owned()
        },
    }
}
