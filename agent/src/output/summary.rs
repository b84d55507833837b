//! What a stretch of events came to: the footer of `watch`, the summary of `trace`.

use super::describe;
use super::escape::fold;
use super::style::{Colour, Style};
use super::table::Table;
use keytrail_model::{Channel, EventKind, EvidenceGrade, GapReason, Signal, TlsStack};
use keytrail_proto::v1::{Counters, Event, Gap, GetStatusResponse, LibraryStatus};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A summary is for people: what goes beyond these is counted, not listed.
const MAX_CREDENTIALS: usize = 10_000;
const MAX_LOCATIONS: usize = 64;
const MAX_GAPS: usize = 64;

/// Accumulates events. Memory is bounded whatever comes.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    events: u64,
    /// Events this reader did not get.
    missed: u64,
    /// Records the kernel side lost, as the stream reported them.
    lost: u64,
    seen: BTreeMap<String, usize>,
    credentials: Vec<CredentialSummary>,
    beyond: u64,
    gaps: Vec<(Gap, u64)>,
}

/// One credential as it was seen.
#[derive(Clone, Debug, Default)]
struct CredentialSummary {
    label: String,
    identifier: String,
    sources: Vec<(String, u64)>,
    sends: Vec<(Send, u64)>,
    /// Sources or sends beyond [`MAX_LOCATIONS`].
    more: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Send {
    grade: i32,
    destination: String,
    how: String,
    by: String,
}

/// How a traced command ended.
#[derive(Clone, Debug)]
pub struct TraceEnd {
    pub command: String,
    pub elapsed: Duration,
    /// "exit status 0", "killed by signal 9".
    pub outcome: String,
    /// Processes of the command that obtained credentials, still run, and are no longer followed.
    pub survivors: usize,
}

impl Summary {
    /// Counts an event.
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        if let Some(gap) = event
            .gap
            .as_ref()
            .filter(|_| event.kind == EventKind::CoverageGap.number())
        {
            self.gap(gap);
        }
        // A finding is about another event, which is counted itself.
        let Some(credential) = event
            .credential
            .as_ref()
            .filter(|_| event.finding.is_none())
        else {
            return;
        };
        let next = self.credentials.len();
        let index = match self.seen.get(&credential.fingerprint) {
            Some(index) => *index,
            None if next >= MAX_CREDENTIALS => {
                self.beyond += 1;
                return;
            }
            None => {
                self.seen.insert(credential.fingerprint.clone(), next);
                self.credentials.push(CredentialSummary {
                    label: describe::credential(Some(credential)),
                    ..CredentialSummary::default()
                });
                next
            }
        };
        let summary = &mut self.credentials[index];
        if summary.identifier.is_empty() {
            summary.identifier.clone_from(&credential.identifier);
        }
        let by = describe::process(event.process.as_ref());
        let sent = event.kind == EventKind::CredentialSent.number();
        if let Some(source) = &event.source
            && !sent
        {
            summary.more += count(
                &mut summary.sources,
                format!("{} by {by}", describe::source(source)),
                1,
            );
        }
        if sent {
            let evidence = event.evidence.clone().unwrap_or_default();
            let mut how = match Channel::of_number(evidence.channel) {
                Some(Channel::Tcp) => "clear text".to_owned(),
                _ => Channel::word_of(evidence.channel).to_owned(),
            };
            if let Some(by) = describe::identified_by(&evidence) {
                let _ = write!(how, ", by {by}");
            } else if let Some(transform) = describe::encoded(&evidence) {
                let _ = write!(how, ", {transform}");
            }
            let request = describe::request(event);
            if !request.is_empty() {
                let _ = write!(how, ", {request}");
            }
            let destination = event
                .destination
                .as_ref()
                .map_or_else(|| "unknown destination".to_owned(), describe::destination);
            summary.more += count(
                &mut summary.sends,
                Send {
                    grade: evidence.grade,
                    destination,
                    how,
                    by,
                },
                event.stands_for(),
            );
        }
    }

    /// Counts a gap that came beside the events: a reader that was too slow, or more of what was reported already.
    pub fn missed(&mut self, gap: &Gap) {
        if gap.reason == GapReason::ClientTooSlow.number() {
            self.missed += gap.count;
        }
        self.gap(gap);
    }

    fn gap(&mut self, gap: &Gap) {
        if gap.reason == GapReason::RecordsLost.number() {
            self.lost += gap.count;
        }
        let same = |g: &&mut (Gap, u64)| g.0.reason == gap.reason && g.0.detail == gap.detail;
        if let Some((_, times)) = self.gaps.iter_mut().find(same) {
            *times += 1;
        } else if self.gaps.len() < MAX_GAPS {
            self.gaps.push((gap.clone(), 1));
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// Different credentials seen.
    pub fn credentials(&self) -> usize {
        self.credentials.len()
    }

    /// Whether any event says that a credential's own bytes were sent.
    pub fn any_observed(&self) -> bool {
        self.credentials
            .iter()
            .flat_map(|m| &m.sends)
            .any(|(s, _)| s.grade == EvidenceGrade::Observed.number())
    }

    /// One line where the terminal is wide enough: `-- 3 events, 2 credentials, 0 lost; coverage: openssl yes, boringssl no (no symbols)`.
    pub fn footer(
        &self,
        libraries: Option<&[LibraryStatus]>,
        counters: Option<&Counters>,
        style: &Style,
    ) -> String {
        let mut line = format!(
            "-- {}, {}, {} lost",
            plural(self.events, "event"),
            plural(self.credentials.len() as u64, "credential"),
            self.lost_total(counters)
        );
        if let Some(libraries) = libraries {
            let _ = write!(line, "; coverage: {}", coverage(libraries));
        }
        fold(&line, style.width).into_owned()
    }

    fn lost_total(&self, counters: Option<&Counters>) -> u64 {
        // The stream's loss reports lag behind the counters; a short stream may have none.
        let counted = counters.map(|c| c.lost.values().sum::<u64>()).unwrap_or(0);
        counted.max(self.lost) + self.missed
    }

    /// The end of `keytrail trace`: what was seen, from where, where it went, and what could not be seen.
    pub fn trace(&self, end: &TraceEnd, status: &GetStatusResponse, style: &Style) -> String {
        let mut out = String::new();
        let heading = format!(
            "-- {} ({}, {:.1} s)",
            super::escape(&end.command),
            end.outcome,
            end.elapsed.as_secs_f64()
        );
        style.paint(&mut out, Colour::Bold, &heading);
        out.push('\n');
        if self.credentials.is_empty() {
            out.push_str("No credential was seen");
            let lost = self.lost_total(status.counters.as_ref());
            out.push_str(if self.gaps.is_empty() && lost == 0 {
                ".\n"
            } else {
                " where keytrail could see.\n"
            });
        }
        let mut table = Table::new(&["CREDENTIAL", "IDENTIFIER", "", "WHERE"]);
        for summary in &self.credentials {
            summary.rows(&mut table);
        }
        if !table.is_empty() {
            out.push_str(&table.render(style));
        }
        if self.beyond > 0 {
            let _ = writeln!(
                out,
                "and {} of further credentials",
                plural(self.beyond, "event")
            );
        }
        if end.survivors > 0 {
            let line = format!(
                "not followed any more: {} of the command still running",
                if end.survivors == 1 {
                    "1 process".to_owned()
                } else {
                    format!("{} processes", end.survivors)
                }
            );
            style.paint(&mut out, Colour::Yellow, &line);
            out.push('\n');
        }
        for (gap, times) in &self.gaps {
            let mut line = format!("not seen: {}", GapReason::word_of(gap.reason));
            if *times > 1 {
                let _ = write!(line, " x{times}");
            }
            if !gap.detail.is_empty() {
                let _ = write!(line, ": {}", super::escape(&gap.detail));
            }
            if !gap.remedy.is_empty() {
                let _ = write!(line, " ({})", super::escape(&gap.remedy));
            }
            style.paint(&mut out, Colour::Yellow, &fold(&line, style.width));
            out.push('\n');
        }
        for signal in status.signals.iter().filter(|s| s.hook.is_empty()) {
            let why = signal
                .refused
                .first()
                .map(|r| r.reason.as_str())
                .unwrap_or("no hook");
            let line = format!(
                "not seen: {} ({})",
                Signal::word_of(signal.signal),
                super::escape(why)
            );
            style.paint(&mut out, Colour::Yellow, &fold(&line, style.width));
            out.push('\n');
        }
        out.push_str(&self.footer(Some(&status.libraries), status.counters.as_ref(), style));
        out.push('\n');
        out
    }
}

impl CredentialSummary {
    fn rows(&self, table: &mut Table) {
        // The credential is named in its first row only.
        let mut name = (self.label.as_str(), self.identifier.as_str());
        let mut row = |what: &str, text: &str, colour| {
            let (label, identifier) = std::mem::take(&mut name);
            table.row([
                (label, Colour::Plain),
                (identifier, Colour::Dim),
                (what, colour),
                (text, Colour::Plain),
            ]);
        };
        for (source, times) in &self.sources {
            row(
                "from",
                &format!("{source}{}", repeated(*times)),
                Colour::Cyan,
            );
        }
        for (send, times) in &self.sends {
            let (what, colour) = match EvidenceGrade::of_number(send.grade) {
                Some(EvidenceGrade::Observed) => ("sent to", Colour::Red),
                Some(EvidenceGrade::Identified) => ("named to", Colour::Yellow),
                _ => ("holder sent to", Colour::Dim),
            };
            let text = format!(
                "{} by {} ({}, {}){}",
                send.destination,
                send.by,
                EvidenceGrade::word_of(send.grade),
                send.how,
                repeated(*times)
            );
            row(what, &text, colour);
        }
        if self.sources.is_empty() && self.sends.is_empty() {
            row("met", "", Colour::Plain);
        }
        if self.more > 0 {
            row("", &format!("and {} more", self.more), Colour::Dim);
        }
    }
}

/// Adds one to an entry of a short list; 1 when there is no room for it.
fn count<T: PartialEq>(list: &mut Vec<(T, u64)>, entry: T, more: u64) -> u64 {
    if let Some((_, times)) = list.iter_mut().find(|(e, _)| *e == entry) {
        *times += more;
    } else if list.len() < MAX_LOCATIONS {
        list.push((entry, more));
    } else {
        return more;
    }
    0
}

fn repeated(times: u64) -> String {
    if times > 1 {
        format!(" x{times}")
    } else {
        String::new()
    }
}

fn plural(n: u64, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// `openssl yes, go 1 of 3 (stripped), boringssl no (no symbols)`; by stack, in order of name.
fn coverage(libraries: &[LibraryStatus]) -> String {
    let mut stacks: BTreeMap<&str, (usize, usize, &str)> = BTreeMap::new();
    for library in libraries {
        let (covered, all, reason) = stacks.entry(TlsStack::word_of(library.stack)).or_default();
        *all += 1;
        if library.covered {
            *covered += 1;
        } else if reason.is_empty() {
            *reason = &library.reason;
        }
    }
    if stacks.is_empty() {
        return "no TLS library found".into();
    }
    let describe = |(stack, (covered, all, reason)): (&&str, &(usize, usize, &str))| {
        let mut text = (*stack).to_owned();
        let _ = match covered {
            c if c == all => write!(text, " yes"),
            0 => write!(text, " no"),
            c => write!(text, " {c} of {all}"),
        };
        if covered < all && !reason.is_empty() {
            let _ = write!(text, " ({})", super::escape(reason));
        }
        text
    };
    stacks.iter().map(describe).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
