//! The filters of events, the same in every command that shows some.

use super::kinds::{parse_grade, parse_kind, words};
use super::shared_args::confidence;
use crate::output::parse_time;
use clap::Args;
use keytrail_model::{Actor, EventKind, EvidenceGrade};
use keytrail_proto::v1::Filter;
use pbjson_types::Timestamp;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A value, or with `!` before it, everything but it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    pub not: bool,
    pub value: T,
}

impl<T> Choice<T> {
    fn parse<E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Choice<T>, E> {
        let (not, text) = match text.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, text),
        };
        Ok(Choice {
            not,
            value: parse(text)?,
        })
    }
}

#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "Filters (a value that begins with ! leaves out; each may be repeated)"
)]
pub struct FilterArgs {
    /// Only events of this kind (read, opened, exposed, sent, created, taken, finding, gap, start, exit).
    #[arg(long, value_name = "KIND", value_delimiter = ',',
        value_parser = |text: &str| Choice::parse(text, parse_kind))]
    pub kind: Vec<Choice<EventKind>>,

    /// Only this grade of evidence (observed, identified, lineage).
    #[arg(long, value_name = "GRADE", value_delimiter = ',',
        value_parser = |text: &str| Choice::parse(text, parse_grade))]
    pub grade: Vec<Choice<EvidenceGrade>>,

    /// Only this credential: its kind or identifier (patterns such as 'github-*' too) or fingerprint (8 digits are
    /// enough).
    #[arg(long, value_name = "CREDENTIAL")]
    pub credential: Vec<String>,

    /// Only programs of this name or path (patterns too).
    #[arg(long, value_name = "PROGRAM")]
    pub process: Vec<String>,

    /// Only this process and its descendants.
    #[arg(long, value_name = "PID", value_delimiter = ',',
        value_parser = |text: &str| Choice::parse(text, u32::from_str))]
    pub pid: Vec<Choice<u32>>,

    /// Only what was sent to this host: a name, an address, a pattern or a network such as 10.0.0.0/8.
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,

    /// Only what runs in this: a kind (ci_job, package_install, agent_tool, cron, ssh_session, login_shell) or a name
    /// (github, npm, claude; patterns too).
    #[arg(long, value_name = "CONTEXT", value_delimiter = ',')]
    pub context: Vec<String>,

    /// Only on behalf of this: person, agent, package, ci, job, service.
    #[arg(long, value_name = "ACTOR", value_delimiter = ',',
        value_parser = |text: &str| Choice::parse(text, parse_actor))]
    pub actor: Vec<Choice<Actor>>,

    /// Only credentials of at least this confidence.
    #[arg(long, value_name = "0..1", value_parser = confidence, default_value_t = 0.0)]
    pub min_confidence: f64,
}

impl FilterArgs {
    /// As the agent is asked.
    pub fn filter(&self) -> Filter {
        fn split<T: Copy, N>(choices: &[Choice<T>], number: impl Fn(T) -> N) -> [Vec<N>; 2] {
            [false, true].map(|not| {
                let those = choices.iter().filter(|c| c.not == not);
                those.map(|c| number(c.value)).collect()
            })
        }
        let [kinds, except_kinds] = split(&self.kind, EventKind::number);
        let [grades, except_grades] = split(&self.grade, EvidenceGrade::number);
        let [actors, except_actors] = split(&self.actor, Actor::number);
        let [pids, except_pids] = split(&self.pid, |pid| pid);
        Filter {
            kinds,
            except_kinds,
            grades,
            except_grades,
            pids,
            except_pids,
            credentials: self.credential.clone(),
            hosts: self.host.clone(),
            processes: self.process.clone(),
            contexts: self.context.clone(),
            actors,
            except_actors,
            min_confidence: self.min_confidence,
        }
    }
}

/// A word that is no actor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no actor {0:?}; actors are {all}", all = words(Actor::ALL, Actor::word))]
pub struct UnknownActor(String);

/// An actor by its word.
pub(crate) fn parse_actor(text: &str) -> Result<Actor, UnknownActor> {
    Actor::of_word(text).ok_or_else(|| UnknownActor(text.to_owned()))
}

/// A moment, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The beginning of what is remembered.
    All,
    /// So long before now.
    Ago(Duration),
    /// Seconds since 1970.
    At(i64),
}

impl When {
    /// What is longer ago than there is time is the beginning of it.
    pub fn timestamp(self) -> Timestamp {
        let at = match self {
            When::All => None,
            When::At(seconds) => return Timestamp { seconds, nanos: 0 },
            When::Ago(ago) => SystemTime::now().checked_sub(ago),
        };
        let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let at = at.unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            nanos: at.subsec_nanos().cast_signed(),
        }
    }
}

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time span such as 30s, 5m, 2h or 1d, nor a time such as 2026-11-28T21:03")]
pub struct WhenError(String);

/// The same where there is a word for the beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, nor `all`")]
pub struct SinceError(WhenError);

pub(super) fn parse_since(text: &str) -> Result<When, SinceError> {
    match text {
        "all" => Ok(When::All),
        _ => parse_when(text).map_err(SinceError),
    }
}

/// A time span before now, or a time.
pub(super) fn parse_when(text: &str) -> Result<When, WhenError> {
    let wrong = || WhenError(text.to_owned());
    if text.contains('-') && !text.starts_with('-') {
        return parse_time(text).map(When::At).map_err(|_| wrong());
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .map(|seconds| When::Ago(Duration::from_secs(seconds)))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_time_spans() {
        let ago = |seconds| Ok(When::Ago(Duration::from_secs(seconds)));
        for (text, expected) in [
            ("30s", ago(30)),
            ("5m", ago(300)),
            ("2h", ago(7_200)),
            ("1d", ago(86_400)),
            ("0s", ago(0)),
            ("all", Ok(When::All)),
            ("2023-11-14T22:13:20Z", Ok(When::At(1_700_000_000))),
        ] {
            assert_eq!(parse_since(text), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "5 m",
            "-5m",
            "+5m",
            "5.5m",
            "5w",
            "5é",
            "2023-13-14",
            "99999999999999999999d",
            "99999999999999999d",
        ] {
            assert!(parse_since(text).is_err(), "{text}");
        }
        assert!(parse_when("all").is_err());
    }

    #[test]
    fn what_is_left_out_is_asked_for_apart() {
        let kind = |text: &str| Choice::parse(text, parse_kind).unwrap();
        let args = FilterArgs {
            kind: vec![kind("read"), kind("!gap")],
            pid: vec![Choice {
                not: true,
                value: 7,
            }],
            credential: vec!["!x".into()],
            context: vec!["!ci_job".into()],
            actor: ["person", "!ci"]
                .map(|text| Choice::parse(text, parse_actor).unwrap())
                .to_vec(),
            ..FilterArgs::default()
        };
        let filter = args.filter();
        assert_eq!(filter.kinds, [EventKind::CredentialRead.number()]);
        assert_eq!(filter.except_kinds, [EventKind::CoverageGap.number()]);
        assert_eq!((filter.pids.len(), filter.except_pids), (0, vec![7]));
        assert_eq!(filter.credentials, ["!x"]);
        assert_eq!(filter.contexts, ["!ci_job"]);
        assert_eq!(filter.actors, [Actor::Person.number()]);
        assert_eq!(filter.except_actors, [Actor::Ci.number()]);
        assert!(parse_actor("nobody").is_err());
        assert!(Choice::parse("!!read", parse_kind).is_err());
    }
}
