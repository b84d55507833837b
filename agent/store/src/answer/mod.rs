//! Was it used? Pure: uses that were seen and what could not be seen, in; yes, no or unknown, out.
//!
//! Yes needs a use that was seen, at that time, by that program, to that place. No needs that none could have been
//! missed. Everything else is unknown, with the reasons.

pub mod holes;

use crate::history::Act;
use holes::Hole;
use keytrail_model::is_interpreter;
use std::net::IpAddr;

/// What is asked. Times are wall clock, nanoseconds; both ends belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub from_ns: i64,
    pub to_ns: i64,
    /// Never empty.
    pub acts: Vec<Act>,
    /// Path or name of the executable, or path of the script; empty for any.
    pub by: String,
    /// Name or address it was sent to; empty for any, and for what was not sent.
    pub to_host: String,
    /// Environment of the site; empty for any.
    pub environment: String,
}

/// Uses of one kind that were summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub act: Option<Act>,
    /// `observed`, `identified` or `lineage`.
    pub grade: String,
    pub executable: String,
    pub script: String,
    /// Names separated by commas, and the address; `None` where the destination was not found.
    pub destination: Option<(String, String)>,
    /// Environment of the site; empty where none is known.
    pub environment: String,
    pub first_ns: i64,
    pub last_ns: i64,
    pub count: u64,
    /// When the first and the last are outside of what is asked: whether one lies inside, if single events tell.
    pub inside: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub acts: Vec<(Act, Verdict)>,
    /// Which of the spans are uses.
    pub uses: Vec<usize>,
    /// What could hide a use.
    pub hidden: Vec<Hole>,
}

/// How a span answers a question.
enum Fit {
    Yes,
    No,
    /// It may be one, for this reason.
    Maybe(&'static str, String),
}

impl Question {
    /// Whether something at these times can concern it.
    #[must_use]
    pub fn overlaps(&self, from_ns: i64, to_ns: i64) -> bool {
        from_ns <= self.to_ns && to_ns >= self.from_ns
    }

    fn is_inside(&self, time_ns: i64) -> bool {
        (self.from_ns..=self.to_ns).contains(&time_ns)
    }

    /// The acts that count: with a destination only sends do.
    #[must_use]
    pub fn acts(&self) -> Vec<Act> {
        let mut acts = self.acts.clone();
        if !self.to_host.is_empty() {
            acts.retain(|act| *act == Act::Sent);
        }
        acts.sort_unstable();
        acts.dedup();
        acts
    }

    fn fit(&self, span: &Span) -> Fit {
        let Some(act) = span.act.filter(|act| self.acts.contains(act)) else {
            return Fit::No;
        };
        if !self.to_host.is_empty() && act != Act::Sent
            || !self.overlaps(span.first_ns, span.last_ns)
        {
            return Fit::No;
        }
        let by = by_fits(&self.by, &span.executable, &span.script);
        let to = to_fits(&self.to_host, span.destination.as_ref());
        let at = self.time_fits(span);
        // What is in none was seen before the site said what belongs to it, or is in none.
        let within = match span.environment.as_str() {
            _ if self.environment.is_empty() => Some(true),
            "" => None,
            environment => Some(environment == self.environment),
        };
        if [by, to, at, within].contains(&Some(false)) {
            return Fit::No;
        }
        let who = match span.script.as_str() {
            "" => span.executable.clone(),
            // Code in an argument, and modules, have no path of their own.
            script if script.starts_with('-') => format!("{} {script}", span.executable),
            script => script.to_owned(),
        };
        if span.grade == "lineage" {
            return Fit::Maybe(
                "possible_use",
                if act == Act::Sent {
                    format!("{who} had it and sent something in which it was not seen")
                } else {
                    format!("{who} inspected a process that had it")
                },
            );
        }
        match (by, to, at) {
            (None, _, _) => {
                Fit::Maybe("possible_use", "a program that is not known used it".into())
            }
            (_, None, _) => Fit::Maybe(
                "destination_unknown",
                format!("{who} sent it, and where to, by that name, was not found"),
            ),
            (_, _, None) => Fit::Maybe(
                "time_unknown",
                format!(
                    "{who} used it before and after; single uses of that hour are not remembered any more"
                ),
            ),
            _ if within.is_none() => Fit::Maybe(
                "environment_unknown",
                format!("{who} used it where the site's environments say nothing"),
            ),
            _ => Fit::Yes,
        }
    }

    fn time_fits(&self, span: &Span) -> Option<bool> {
        if self.is_inside(span.first_ns) || self.is_inside(span.last_ns) {
            return Some(true);
        }
        // The first and the last are outside: only those in between are left.
        if span.count <= 2 {
            return Some(false);
        }
        span.inside
    }

    /// Whether a hole can hide what is asked for.
    fn hides(&self, hole: &Hole) -> bool {
        self.overlaps(hole.from_ns, hole.to_ns)
            && self.acts().iter().any(|act| hole.acts.contains(act))
            && (self.by.is_empty()
                || hole.executable.is_empty()
                || is_interpreter(&hole.executable)
                || by_fits(&self.by, &hole.executable, "") != Some(false))
    }
}

/// Whether a program is the one asked for; `None` when it is not known.
#[must_use]
pub fn by_fits(by: &str, executable: &str, script: &str) -> Option<bool> {
    if by.is_empty() {
        return Some(true);
    }
    if executable.is_empty() {
        return None;
    }
    // What was replaced since it was started has this behind its name.
    let executable = executable.strip_suffix(" (deleted)").unwrap_or(executable);
    let is = |path: &str| path == by || (!by.contains('/') && path.rsplit('/').next() == Some(by));
    Some(is(executable) || (!script.is_empty() && is(script)))
}

/// Whether a destination is the one asked for; `None` when that cannot be determined.
#[must_use]
pub fn to_fits(host: &str, destination: Option<&(String, String)>) -> Option<bool> {
    if host.is_empty() {
        return Some(true);
    }
    let (names, address) = destination?;
    if let Ok(asked) = host.parse::<IpAddr>() {
        return match address.parse::<IpAddr>() {
            Ok(address) => Some(address.to_canonical() == asked.to_canonical()),
            Err(_) => Some(address == host),
        };
    }
    if names.is_empty() {
        return None;
    }
    let plain = |name: &str| {
        let name = name.trim_end_matches('.');
        // A Host header may have a port.
        match name.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.to_lowercase(),
            _ => name.to_lowercase(),
        }
    };
    Some(names.split(',').any(|name| plain(name) == plain(host)))
}

/// Judges. `spans` are all uses of the credential that overlap the question; `holes` all that could hide one.
#[must_use]
pub fn judge(question: &Question, spans: &[Span], holes: &[Hole]) -> Judgement {
    let mut uses = Vec::new();
    let mut hidden: Vec<Hole> = holes
        .iter()
        .filter(|hole| question.hides(hole))
        .map(|hole| hole.within(question.from_ns, question.to_ns))
        .collect();
    for (index, span) in spans.iter().enumerate() {
        match question.fit(span) {
            Fit::Yes => uses.push(index),
            Fit::No => {}
            Fit::Maybe(reason, detail) => hidden.push(
                Hole {
                    from_ns: span.first_ns,
                    to_ns: span.last_ns,
                    acts: span.act.into_iter().collect(),
                    reason: reason.into(),
                    detail,
                    executable: span.executable.clone(),
                    count: span.count,
                    ..Hole::default()
                }
                .within(question.from_ns, question.to_ns),
            ),
        }
    }
    hidden.sort_by_key(|hole| (hole.from_ns, hole.to_ns));
    let acts: Vec<(Act, Verdict)> = question
        .acts()
        .into_iter()
        .map(|act| {
            let verdict = if uses.iter().any(|i| spans[*i].act == Some(act)) {
                Verdict::Yes
            } else if hidden.iter().any(|hole| hole.acts.contains(&act)) {
                Verdict::Unknown
            } else {
                Verdict::No
            };
            (act, verdict)
        })
        .collect();
    let any = |wanted| acts.iter().any(|(_, verdict)| *verdict == wanted);
    let verdict = if any(Verdict::Yes) {
        Verdict::Yes
    } else if any(Verdict::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::No
    };
    Judgement {
        verdict,
        acts,
        uses,
        hidden,
    }
}

#[cfg(test)]
mod tests;
