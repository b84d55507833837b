//! Rules are data: one TOML file each, with a condition in CEL, what to say and to do, and tests.

use crate::facts::Facts;
use crate::pattern::Patterns;
use crate::scope::Scope;
use cel::{Context, Env, ExecutionError, FunctionContext, ParseErrors, Program, Value};
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;

/// Longest condition, bytes: it is evaluated for every event.
const MOST_CONDITION: usize = 4096;
const MOST_TEXT: usize = 1024;

/// What a finding is about, so that the same again is counted and not reported again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    #[default]
    Credential,
    Program,
    Workload,
    Source,
    Destination,
    /// What the destination was called, wherever it went.
    Name,
    /// The process itself: each tells anew.
    Process,
    /// What a gap is about.
    Gap,
}

/// Of what a finding is reported once, and counted from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Once {
    /// Of each credential and subject.
    #[default]
    Credential,
    /// Of the subject, whatever credentials come to it.
    Subject,
    /// Of the run of the program that harvests: credential after credential comes to it.
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    severity: Severity,
    title: String,
    /// Kinds of event it is asked of.
    on: Vec<String>,
    when: String,
    #[serde(default)]
    subject: Subject,
    #[serde(default)]
    once: Once,
    seen: String,
    #[serde(default)]
    expected: String,
    remedy: String,
    /// ATT&CK v19 and OWASP NHI (2025) ids.
    #[serde(default)]
    techniques: Vec<String>,
    /// Rules that say less of the same event: where this one holds they make no finding of their own.
    #[serde(default)]
    covers: Vec<String>,
    #[serde(default, rename = "test")]
    tests: Vec<Case>,
}

/// One test of a rule: what happened before, and the event that makes the finding or does not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub fires: bool,
    /// Events of before.
    #[serde(default)]
    pub before: Vec<Facts>,
    /// What is usual is accepted after these.
    #[serde(default)]
    pub accepted: bool,
    /// Its credential is a decoy.
    #[serde(default)]
    pub decoy: bool,
    /// A file of the site: environments.
    #[serde(default)]
    pub site: String,
    /// A finding that was made about its credential before.
    #[serde(default)]
    pub found: Option<Before>,
    pub event: Facts,
}

/// A finding of before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    pub rule: String,
    /// Wall clock, nanoseconds.
    pub time_ns: i64,
}

/// A rule that can be asked.
pub struct Rule {
    pub name: String,
    pub severity: Severity,
    pub title: String,
    pub on: Vec<String>,
    pub subject: Subject,
    pub once: Once,
    pub seen: String,
    pub expected: String,
    pub remedy: String,
    pub techniques: Vec<String>,
    pub covers: Vec<String>,
    pub tests: Vec<Case>,
    condition: Program,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("name", &self.name).finish()
    }
}

/// Why a rule or an exclusion is refused; the others stay in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct RuleError {
    pub file: String,
    pub reason: String,
}

/// Why a condition is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error("the condition is longer than {MOST_CONDITION} bytes")]
    TooLong,
    #[error("{0}")]
    Syntax(ParseErrors),
    #[error("{0}")]
    Meaning(ExecutionError),
    #[error("the condition is not true or false")]
    NoAnswer,
}

/// A text asks for a value that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {{{0}}}")]
pub(crate) struct NoValue(String);

/// Compiles conditions, and evaluates them.
#[derive(Clone)]
pub(crate) struct Language {
    env: Arc<Env>,
    patterns: Arc<Patterns>,
}

impl Default for Language {
    fn default() -> Self {
        let patterns = Arc::new(Patterns::default());
        let mut env = Env::stdlib();
        for expander in Patterns::macros(&patterns) {
            // The one error is that there is such a macro already, and then it is this one.
            let _ = env.add_macro(expander);
        }
        Language {
            env: Arc::new(env),
            patterns,
        }
    }
}

impl Language {
    pub fn compile(&self, source: &str) -> Result<Program, ConditionError> {
        if source.len() > MOST_CONDITION {
            return Err(ConditionError::TooLong);
        }
        let program = self.env.compile(source).map_err(ConditionError::Syntax)?;
        // A name that does not exist would be an error at every event, and never a finding.
        let context = self.context(&Scope::new(
            &Facts::default(),
            &Default::default(),
            &Default::default(),
        ));
        match program.execute(&context) {
            Ok(Value::Bool(_)) => Ok(program),
            Ok(_) => Err(ConditionError::NoAnswer),
            Err(e) => Err(ConditionError::Meaning(e)),
        }
    }

    pub fn context(&self, scope: &Scope) -> Context<'static, 'static> {
        let mut context = Context::with_env(self.env.clone());
        let patterns = self.patterns.clone();
        // Refused only where the environment has one already: this one has none.
        let _ = context.add_function("matches", move |call: &FunctionContext| patterns.call(call));
        for (name, value) in scope.values() {
            context.add_variable_from_value(name, value);
        }
        context
    }
}

#[cfg(test)]
impl Language {
    pub fn compiled(&self) -> usize {
        self.patterns.compiled()
    }

    pub fn met(&self) -> usize {
        self.patterns.met()
    }
}

/// An error (a division by zero in somebody's rule) is no finding.
pub(crate) fn holds(condition: &Program, context: &Context<'_, '_>) -> bool {
    matches!(condition.execute(context), Ok(Value::Bool(true)))
}

impl Rule {
    /// Whether it makes the finding of another needless on one event. Of the same subject only: else what is counted again by
    /// the one would be the first of the other.
    pub(crate) fn speaks_for(&self, other: &Rule) -> bool {
        self.covers.contains(&other.name)
            && (self.subject, self.once) == (other.subject, other.once)
    }

    pub(crate) fn parse(language: &Language, file: &str, text: &str) -> Result<Rule, RuleError> {
        let refuse = |reason: String| RuleError {
            file: file.into(),
            reason,
        };
        let text: Text = toml::from_str(text).map_err(|e| refuse(e.message().to_owned()))?;
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !plain(&text.name) {
            return Err(refuse(format!(
                "{:?} is no name: small letters, digits and -",
                text.name
            )));
        }
        if text.on.is_empty() {
            return Err(refuse("`on` names no kind of event".into()));
        }
        for said in [&text.title, &text.seen, &text.expected, &text.remedy] {
            if said.len() > MOST_TEXT {
                return Err(refuse(format!("a text is longer than {MOST_TEXT} bytes")));
            }
            let empty = Scope::new(&Facts::default(), &Default::default(), &Default::default());
            fill(said, &empty).map_err(|e| refuse(e.to_string()))?;
        }
        let condition = language
            .compile(&text.when)
            .map_err(|e| refuse(e.to_string()))?;
        Ok(Rule {
            name: text.name,
            severity: text.severity,
            title: text.title,
            on: text.on,
            subject: text.subject,
            once: text.once,
            seen: text.seen,
            expected: text.expected,
            remedy: text.remedy,
            techniques: text.techniques,
            covers: text.covers,
            tests: text.tests,
            condition,
        })
    }

    pub(crate) fn asks(&self, kind: &str) -> bool {
        self.on.iter().any(|on| on == kind)
    }

    pub(crate) fn holds(&self, context: &Context<'_, '_>) -> bool {
        holds(&self.condition, context)
    }

    /// What this is about in an event.
    pub(crate) fn subject_of(&self, facts: &Facts) -> String {
        let process = facts.process.as_ref();
        match self.subject {
            Subject::Credential => String::new(),
            Subject::Program => process.map_or_else(String::new, |p| p.program().into_owned()),
            Subject::Workload => process.map(|p| p.workload()).unwrap_or_default(),
            Subject::Source => facts.source_text(),
            Subject::Destination => facts
                .destination
                .as_ref()
                .map(|d| d.text())
                .unwrap_or_default(),
            Subject::Name => facts
                .destination
                .as_ref()
                .map(|d| d.place())
                .unwrap_or_default(),
            Subject::Process => process.map_or_else(String::new, |p| p.key.clone()),
            Subject::Gap => facts
                .gap
                .as_ref()
                .map_or_else(String::new, |g| format!("{} {}", g.reason, g.signal)),
        }
    }
}

/// Puts values in for `{group.name}`.
pub(crate) fn fill(text: &str, scope: &Scope) -> Result<String, NoValue> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        out.push_str(before);
        let value = scope.lookup(name);
        out.push_str(&value.ok_or_else(|| NoValue(name.to_owned()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
