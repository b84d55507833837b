//! Answers about the past, for people and for spreadsheets.

mod graph;
mod page;
mod rows;

pub use graph::dot;
pub use page::{html, html_text, svg};
pub use rows::Rows;

use super::acts::{OfAct, also, fold};
use super::escape::escape;
use super::{Colour, Local, Style, changed, describe};
use keytrail_model::{Actor, ContextKind};
use keytrail_proto::v1::{Baseline, Decoy};
use keytrail_proto::v1::{
    CheckUseResponse, Context, CredentialSummary, Event, FindingRecord, GetCredentialResponse,
    HiddenInterval, ListCoverageResponse, Use, UseAct, Verdict,
};
use pbjson_types::Timestamp;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// `2026-11-28T21:44:43+01:00`, in the local zone; nothing for no time.
pub fn time(time: Option<&Timestamp>) -> String {
    time.map_or_else(String::new, |time| {
        let local = Local::of(time);
        format!("{}T{}{}", local.day(), local.seconds(), local.shift())
    })
}

/// The same in UTC, for programs.
pub fn time_utc(time: Option<&Timestamp>) -> Option<String> {
    time.map(super::utc)
}

pub fn act(number: i32) -> &'static str {
    match UseAct::try_from(number) {
        Ok(UseAct::Read) => "read",
        Ok(UseAct::Held) => "held",
        Ok(UseAct::Sent) => "sent",
        _ => "?",
    }
}

fn short(fingerprint: &str, wide: bool) -> &str {
    if wide {
        return fingerprint;
    }
    fingerprint.get(..12).unwrap_or(fingerprint)
}

pub fn destination(shown: &Use) -> String {
    let Some(d) = &shown.destination else {
        return if shown.act == i32::from(UseAct::Sent) {
            "unknown".into()
        } else {
            String::new()
        };
    };
    let address = if d.port == 0 {
        // A file, a pipe or a socket of this host.
        d.ip.clone()
    } else if d.ip.contains(':') {
        format!("[{}]:{}", d.ip, d.port)
    } else {
        format!("{}:{}", d.ip, d.port)
    };
    if d.host.is_empty() {
        address
    } else {
        format!("{} ({address})", d.host)
    }
}

pub fn program(shown: &Use) -> String {
    match &shown.program {
        Some(p) if p.script.is_empty() => p.path.clone(),
        Some(p) => format!("{} ({})", p.script, p.path.rsplit('/').next().unwrap_or("")),
        None => String::new(),
    }
}

pub fn credentials(all: &[CredentialSummary], wide: bool) -> Rows {
    let mut headings = vec![
        "KIND",
        "IDENTIFIER",
        "FINGERPRINT",
        "PRIVILEGE",
        "LAST USED",
        "LAST SENT",
        "USERS",
        "DESTINATIONS",
        "PLACES",
        "FINDINGS",
    ];
    if wide {
        headings.extend([
            "FIRST SEEN",
            "CREATED",
            "ROTATED",
            "EXPIRES",
            "READS",
            "EXPOSURES",
            "SENDS",
        ]);
    }
    let mut rows = Rows::new(&headings);
    for summary in all {
        let c = summary.credential.clone().unwrap_or_default();
        let mut row = vec![
            c.kind,
            c.identifier,
            short(&c.fingerprint, wide).to_owned(),
            privilege(c.privilege).to_owned(),
            time(summary.last_used.as_ref()),
            time(summary.last_sent.as_ref()),
            summary.consumers.to_string(),
            summary.destinations.to_string(),
            summary.places.to_string(),
            summary.open_findings.to_string(),
        ];
        if wide {
            row.extend([
                time(summary.first_seen.as_ref()),
                time(summary.created.as_ref()),
                time(summary.rotated.as_ref()),
                time(c.expires.as_ref()),
                summary.reads.to_string(),
                summary.exposures.to_string(),
                summary.sends.to_string(),
            ]);
        }
        rows.push(row);
    }
    rows
}

fn privilege(number: u32) -> &'static str {
    match number {
        1 => "root",
        2 => "production",
        3 => "scoped",
        4 => "low",
        _ => "",
    }
}

pub fn uses(all: &[Use], wide: bool) -> Rows {
    let mut headings = vec![
        "LAST",
        "COUNT",
        "ACT",
        "CREDENTIAL",
        "PROGRAM",
        "WORKLOAD",
        "RUNS FOR",
        "SOURCE",
        "DESTINATION",
        "GRADE",
    ];
    if wide {
        headings.extend([
            "FIRST",
            "FINGERPRINT",
            "IDENTIFIER",
            "CHANNEL",
            "BYTES",
            "REQUEST",
            "SHA256",
            "ENVIRONMENT",
        ]);
    }
    let mut rows = Rows::new(&headings);
    for shown in all {
        let mut row = vec![
            time(shown.last.as_ref()),
            shown.count.to_string(),
            act(shown.act).to_owned(),
            format!(
                "{} {}",
                shown.credential_kind,
                short(&shown.fingerprint, false)
            ),
            program(shown),
            shown.workload.clone(),
            runs_for(&shown.actor, &shown.contexts),
            shown.source.clone(),
            destination(shown),
            shown.grade.clone(),
        ];
        if wide {
            row.extend([
                time(shown.first.as_ref()),
                shown.fingerprint.clone(),
                shown.identifier.clone(),
                shown.channel.clone(),
                shown.bytes.to_string(),
                shown.request.clone(),
                shown
                    .program
                    .as_ref()
                    .map_or_else(String::new, |p| p.sha256.clone()),
                shown.environment.clone(),
            ]);
        }
        rows.push(row);
    }
    rows
}

/// On whose behalf, and by what that is known: `ci (github)`.
fn runs_for(actor: &str, contexts: &[String]) -> String {
    let names: Vec<&str> = contexts
        .iter()
        .filter_map(|context| Some(context.split_once(':')?.1))
        .collect();
    match (actor.is_empty(), names.is_empty()) {
        (_, true) => actor.to_owned(),
        (true, _) => names.join(", "),
        _ => format!("{actor} ({})", names.join(", ")),
    }
}

/// Each by itself; for people, where they do not ask for all there is, those of one act as one.
pub fn findings(all: &[FindingRecord], wide: bool) -> Rows {
    if !wide {
        return acts(all);
    }
    let headings = [
        "LAST",
        "COUNT",
        "SEVERITY",
        "RULE",
        "TITLE",
        "CREDENTIAL",
        "SEEN",
        "EXPECTED",
        "WHAT TO DO",
        "TECHNIQUES",
        "FIRST",
        "RUNS FOR",
        "ACT",
    ];
    let mut rows = Rows::new(&headings);
    for f in all {
        let epoch = f.event.as_ref().map_or(0, |event| event.epoch);
        rows.push(vec![
            time(f.last.as_ref()),
            f.count.to_string(),
            f.severity.clone(),
            f.rule.clone(),
            f.title.clone(),
            f.fingerprint.clone(),
            f.seen.clone(),
            f.expected.clone(),
            f.remedy.clone(),
            f.techniques.join(" "),
            time(f.first.as_ref()),
            runs_for(&f.actor, &f.contexts),
            match f.act {
                0 => String::new(),
                act => format!("{epoch}:{act}"),
            },
        ]);
    }
    rows
}

impl OfAct for FindingRecord {
    fn act(&self) -> (u64, u64) {
        (self.event.as_ref().map_or(0, |event| event.epoch), self.act)
    }

    fn severity(&self) -> &str {
        &self.severity
    }

    fn rule(&self) -> &str {
        &self.rule
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |f: &Self| f.last.as_ref().map(|t| (t.seconds, t.nanos));
        key(self).cmp(&key(other))
    }
}

fn acts(all: &[FindingRecord]) -> Rows {
    let mut rows = Rows::new(&[
        "LAST",
        "COUNT",
        "SEVERITY",
        "RULE",
        "TITLE",
        "CREDENTIAL",
        "SEEN",
        "ALSO",
    ]);
    for (f, others) in fold(all.to_vec()) {
        let credentials: BTreeSet<&str> = others
            .iter()
            .map(|other| other.fingerprint.as_str())
            .filter(|of| !of.is_empty() && *of != f.fingerprint)
            .collect();
        let more = match credentials.len() {
            0 => String::new(),
            n => format!(" +{n}"),
        };
        rows.push(vec![
            time(f.last.as_ref()),
            f.count.to_string(),
            f.severity.clone(),
            f.rule.clone(),
            f.title.clone(),
            format!("{}{more}", short(&f.fingerprint, false)),
            f.seen.clone(),
            also(&others),
        ]);
    }
    rows
}

pub fn hidden(all: &[HiddenInterval], wide: bool) -> Rows {
    let mut headings = vec!["FROM", "TO", "HIDES", "REASON", "DETAIL"];
    if wide {
        headings.extend(["COUNT", "PROCESS", "EXECUTABLE", "SIGNAL", "WHAT TO DO"]);
    }
    let mut rows = Rows::new(&headings);
    for h in all {
        let acts: Vec<&str> = h.acts.iter().map(|number| act(*number)).collect();
        let mut row = vec![
            time(h.from.as_ref()),
            time(h.to.as_ref()),
            acts.join(","),
            h.reason.clone(),
            h.detail.clone(),
        ];
        if wide {
            row.extend([
                h.count.to_string(),
                h.process.clone(),
                h.executable.clone(),
                h.signal.clone(),
                h.remedy.clone(),
            ]);
        }
        rows.push(row);
    }
    rows
}

pub fn baselines(all: &[Baseline]) -> Rows {
    let mut rows = Rows::new(&["FINGERPRINT", "KIND", "IDENTIFIER", "USES", "STATE"]);
    for baseline in all {
        rows.push(vec![
            baseline.fingerprint.clone(),
            baseline.credential_kind.clone(),
            baseline.identifier.clone(),
            baseline.uses.to_string(),
            baseline.lines.first().cloned().unwrap_or_default(),
        ]);
    }
    rows
}

pub fn baseline(of: &Baseline, style: &Style) -> String {
    let mut out = String::new();
    let title = format!(
        "{} {} {}",
        escape(&of.credential_kind),
        escape(&of.identifier),
        of.fingerprint
    );
    style.paint(&mut out, Colour::Bold, &title);
    out.push('\n');
    for line in &of.lines {
        let _ = writeln!(out, "  {}", escape(line));
    }
    out
}

pub fn decoys(all: &[Decoy]) -> Rows {
    let mut rows = Rows::new(&["FINGERPRINT", "KIND", "PLANTED", "PATH"]);
    for decoy in all {
        rows.push(vec![
            decoy.fingerprint.clone(),
            decoy.kind.clone(),
            time(decoy.planted.as_ref()),
            decoy.path.clone(),
        ]);
    }
    rows
}

/// The answer to "was it used?".
pub fn verdict(answer: &CheckUseResponse, wide: bool, style: &Style) -> String {
    let (word, colour) = word(answer.verdict);
    let mut out = String::new();
    style.paint(&mut out, colour, word);
    let _ = writeln!(
        out,
        "  {} to {}",
        answer
            .from
            .as_ref()
            .filter(|t| t.seconds > 0)
            .map_or_else(|| "the beginning".into(), |t| time(Some(t))),
        time(answer.to.as_ref())
    );
    match &answer.credential {
        Some(c) => {
            let _ = writeln!(
                out,
                "{} {} {}",
                escape(&c.kind),
                escape(&c.identifier),
                c.fingerprint
            );
        }
        None => out.push_str("No credential is known here by this name or fingerprint.\n"),
    }
    if answer.acts.len() > 1 {
        for of_act in &answer.acts {
            let _ = writeln!(
                out,
                "  {}: {}",
                act(of_act.act),
                self::word(of_act.verdict).0.to_lowercase()
            );
        }
    }
    if !answer.uses.is_empty() {
        out.push('\n');
        out.push_str(&uses(&answer.uses, wide).text(style));
    }
    if !answer.hidden.is_empty() {
        out.push('\n');
        out.push_str(match Verdict::try_from(answer.verdict) {
            Ok(Verdict::Yes) => "What could hide more uses:\n",
            _ => "What could hide a use:\n",
        });
        out.push_str(&hidden(&answer.hidden, wide).text(style));
    }
    out
}

fn word(verdict: i32) -> (&'static str, Colour) {
    match Verdict::try_from(verdict) {
        Ok(Verdict::Yes) => ("YES", Colour::Red),
        Ok(Verdict::No) => ("NO", Colour::Green),
        _ => ("UNKNOWN", Colour::Yellow),
    }
}

pub fn coverage(answer: &ListCoverageResponse, wide: bool, style: &Style) -> String {
    let mut runs = Rows::new(&["RUN", "STARTED", "ALIVE UNTIL", "END"]);
    for run in &answer.runs {
        runs.push(vec![
            run.epoch.to_string(),
            time(run.started.as_ref()),
            time(run.alive.as_ref()),
            if run.current {
                "runs"
            } else if run.clean {
                "stopped"
            } else {
                "killed or crashed"
            }
            .to_owned(),
        ]);
    }
    let mut out = runs.text(style);
    out.push('\n');
    if answer.hidden.is_empty() {
        out.push_str("Nothing is known that could not be seen.\n");
    } else {
        out.push_str(&hidden(&answer.hidden, wide).text(style));
    }
    out
}

/// All that is known of one credential.
pub fn passport(answer: &GetCredentialResponse, wide: bool, style: &Style) -> String {
    let summary = answer.summary.clone().unwrap_or_default();
    let mut out = credentials(std::slice::from_ref(&summary), true).list(style);
    let mut section = |title: &str, body: String| {
        out.push('\n');
        style.paint(&mut out, Colour::Bold, title);
        out.push('\n');
        out.push_str(&body);
    };
    if !summary.previous.is_empty() {
        section("TOOK THE PLACE OF", format!("{}\n", summary.previous));
    }
    let mut places = Rows::new(&["PLACE", "OWNER", "MODE", "FIRST SEEN", "LAST SEEN"]);
    for place in &answer.places {
        places.push(vec![
            place.place.clone(),
            if place.mode.is_empty() {
                String::new()
            } else {
                format!("{}:{}", place.owner_uid, place.owner_gid)
            },
            place.mode.clone(),
            time(place.first_seen.as_ref()),
            time(place.last_seen.as_ref()),
        ]);
    }
    section("WHERE IT LIES", or_none(&places, style));
    if !answer.changes.is_empty() {
        let mut text = changes(&answer.changes).text(style);
        if answer.more_changes {
            let _ = writeln!(
                text,
                "and older ones: `keytrail watch --since` shows all that are kept"
            );
        }
        section("WHAT BECAME OF ITS FILES", text);
    }
    section("WHO USED IT", or_none(&uses(&answer.uses, wide), style));
    if answer.hours.iter().any(|count| *count > 0) {
        section("WHEN (HOUR OF THE DAY, UTC)", histogram(&answer.hours));
    }
    if !answer.together.is_empty() {
        let mut rows = Rows::new(&["KIND", "IDENTIFIER", "FINGERPRINT"]);
        for c in &answer.together {
            rows.push(vec![
                c.kind.clone(),
                c.identifier.clone(),
                short(&c.fingerprint, wide).to_owned(),
            ]);
        }
        section("THE SAME PROGRAMS ALSO USED", rows.text(style));
    }
    if !answer.findings.is_empty() {
        section("FINDINGS", findings(&answer.findings, wide).text(style));
    }
    if !answer.baseline.is_empty() {
        let lines: Vec<_> = answer.baseline.iter().map(|l| escape(l)).collect();
        section("WHAT IS USUAL", lines.join("\n") + "\n");
    }
    out
}

/// What was made of its files, and by whom.
fn changes(all: &[Event]) -> Rows {
    let mut rows = Rows::new(&["TIME", "WHAT", "FILE", "BY", "RUNS FOR"]);
    for event in all {
        let source = event.source.clone().unwrap_or_default();
        let process = event.process.as_ref();
        let what = match &event.change {
            Some(_) => changed::action(event).0,
            None => "created".to_owned(),
        };
        let contexts: Vec<String> = process.map_or_else(Vec::new, |p| {
            let word = |c: &Context| format!("{}:{}", ContextKind::word_of(c.kind), c.name);
            p.contexts.iter().map(word).collect()
        });
        let actor = process.map_or("", |p| Actor::of_number(p.actor).map_or("", Actor::word));
        rows.push(vec![
            time(event.time.as_ref()),
            what,
            match &event.change {
                Some(change) => changed::place(change, &source),
                None => source.path,
            },
            process.map_or_else(
                || "not known".to_owned(),
                |p| format!("{} uid {}", describe::process(Some(p)), p.uid),
            ),
            runs_for(actor, &contexts),
        ]);
    }
    rows
}

fn or_none(rows: &Rows, style: &Style) -> String {
    if rows.is_empty() {
        "nothing is known\n".into()
    } else {
        rows.text(style)
    }
}

/// One bar for each hour.
fn histogram(hours: &[u64]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = hours.iter().copied().max().unwrap_or(0).max(1);
    let bar = |count: &u64| {
        let height = (count * 8).div_ceil(most) as usize;
        BARS[height.min(8)]
    };
    let bars: String = hours.iter().map(bar).collect();
    format!("{bars}\n0     6     12    18  23\n")
}

#[cfg(test)]
mod tests;
