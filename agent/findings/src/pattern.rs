//! `matches` of conditions, with patterns that are compiled once.
//!
//! A condition is evaluated for every event, and to compile a pattern costs a thousand times what it costs to match it. So
//! patterns that stand in a condition are compiled when the condition is, and refused there when they are wrong, also where
//! nothing would have evaluated them yet. Those that come out of an event are compiled when they are seen, and a few of them
//! are kept.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use cel::common::types::CelString;
use cel::parser::{Macro, MacroExprHelper, ParseError};
use cel::{ExecutionError, FunctionContext};
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Patterns of conditions; those who write rules choose them.
const MOST_WRITTEN: usize = 1024;
/// Patterns that were made of values; whoever makes events chooses these.
const MOST_MET: usize = 16;
/// Longest pattern, bytes: as long as a condition may be.
const LONGEST: usize = 4096;
/// Bytes of one compiled pattern, and of what is kept between matches to make the next one fast.
const MOST_COMPILED: usize = 1 << 20;
const MOST_KEPT: usize = 256 << 10;

/// Why a pattern is not asked.
#[derive(Clone, Debug, thiserror::Error)]
enum PatternError {
    #[error("there are more than {MOST_WRITTEN} patterns")]
    TooMany,
    #[error("a pattern is longer than {LONGEST} bytes")]
    TooLong,
    #[error("{0:?} is no pattern: {1}")]
    Wrong(String, regex::Error),
}

/// The patterns of one language.
#[derive(Default)]
pub(crate) struct Patterns(Mutex<Table>);

#[derive(Default)]
struct Table {
    written: BTreeMap<String, Regex>,
    /// The one met last at the end; what is wrong with it in place of a wrong one.
    met: VecDeque<(String, Result<Regex, PatternError>)>,
    #[cfg(test)]
    compiled: usize,
}

impl Patterns {
    /// What inspects each `matches` when a condition is compiled. It leaves the call as it is.
    pub fn macros(patterns: &Arc<Patterns>) -> [Macro; 2] {
        let expand = |patterns: Arc<Patterns>| {
            move |helper: &mut MacroExprHelper<'_>,
                  _: &mut Option<IdedExpr>,
                  args: &mut Vec<IdedExpr>| {
                let Some(last) = args.last() else {
                    return Ok(None);
                };
                patterns.compile(helper, last).map(|()| None)
            }
        };
        [
            Macro::receiver("matches", 1, expand(patterns.clone())),
            Macro::global("matches", 2, expand(patterns.clone())),
        ]
    }

    fn compile(&self, helper: &MacroExprHelper<'_>, pattern: &IdedExpr) -> Result<(), ParseError> {
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return Ok(());
        };
        self.table()
            .write(text.inner())
            .map_err(|error| helper.new_error(pattern.id, error.to_string()))
    }

    /// `text.matches(pattern)`, or `matches(text, pattern)`.
    pub fn call(&self, call: &FunctionContext) -> Result<bool, ExecutionError> {
        let mut given = call.this.iter().chain(&call.args);
        let (Some(text), Some(pattern), None) = (given.next(), given.next(), given.next()) else {
            return Err(call.error("it takes a text and a pattern"));
        };
        let (Some(text), Some(pattern)) = (
            text.downcast_ref::<CelString>(),
            pattern.downcast_ref::<CelString>(),
        ) else {
            return Err(call.error("a text and a pattern are texts"));
        };
        self.table()
            .is_match(pattern.inner(), text.inner())
            .map_err(|error| call.error(error))
    }

    /// A match that panicked has at most forgotten its own pattern.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many patterns were compiled so far.
    #[cfg(test)]
    pub fn compiled(&self) -> usize {
        self.table().compiled
    }

    #[cfg(test)]
    pub fn met(&self) -> usize {
        self.table().met.len()
    }
}

impl Table {
    /// A pattern that stands in a condition.
    fn write(&mut self, pattern: &str) -> Result<(), PatternError> {
        if self.written.contains_key(pattern) {
            return Ok(());
        }
        if self.written.len() >= MOST_WRITTEN {
            return Err(PatternError::TooMany);
        }
        let compiled = self.compile(pattern)?;
        self.written.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    fn is_match(&mut self, pattern: &str, text: &str) -> Result<bool, PatternError> {
        if pattern.len() > LONGEST {
            return Err(PatternError::TooLong);
        }
        if let Some(compiled) = self.written.get(pattern) {
            return Ok(compiled.is_match(text));
        }
        let known = self.met.iter().position(|(known, _)| known == pattern);
        let (pattern, compiled) = match known.and_then(|at| self.met.remove(at)) {
            Some(known) => known,
            None => {
                let compiled = self.compile(pattern);
                if self.met.len() >= MOST_MET {
                    self.met.pop_front();
                }
                (pattern.to_owned(), compiled)
            }
        };
        let answer = match &compiled {
            Ok(compiled) => Ok(compiled.is_match(text)),
            Err(error) => Err(error.clone()),
        };
        self.met.push_back((pattern, compiled));
        answer
    }

    fn compile(&mut self, pattern: &str) -> Result<Regex, PatternError> {
        #[cfg(test)]
        {
            self.compiled += 1;
        }
        RegexBuilder::new(pattern)
            .size_limit(MOST_COMPILED)
            .dfa_size_limit(MOST_KEPT)
            .build()
            .map_err(|error| PatternError::Wrong(pattern.to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Facts, ProcessFacts, SourceFacts};
    use crate::rule::{Language, holds};
    use crate::scope::Scope;

    fn read(executable: &str, path: &str) -> Facts {
        Facts {
            process: Some(ProcessFacts {
                executable: executable.into(),
                argv: vec!["a".into(), path.into()],
                ..Default::default()
            }),
            source: SourceFacts {
                kind: "file".into(),
                path: path.into(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn ask(language: &Language, condition: &str, facts: &Facts) -> bool {
        let program = language.compile(condition).unwrap();
        let scope = Scope::new(facts, &Default::default(), &Default::default());
        holds(&program, &language.context(&scope))
    }

    #[test]
    fn a_pattern_of_a_condition_is_compiled_once() {
        let language = Language::default();
        let condition =
            "source.path.matches('^/etc/') && process.argv.exists(a, a.matches('host'))";
        let program = language.compile(condition).unwrap();
        assert_eq!(language.compiled(), 2);
        for n in 0..100 {
            let facts = read("/usr/bin/cat", &format!("/etc/host{n}"));
            let scope = Scope::new(&facts, &Default::default(), &Default::default());
            assert!(holds(&program, &language.context(&scope)), "{n}");
        }
        assert_eq!(language.compiled(), 2);
        assert!(!ask(&language, condition, &read("/usr/bin/cat", "/srv/x")));
        assert!(ask(
            &language,
            "matches(source.path, 'x$')",
            &read("a", "/x")
        ));
        assert_eq!(language.compiled(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_pattern_is_said_at_once() {
        let language = Language::default();
        for wrong in [
            "source.path.matches('(')",
            // Nothing would evaluate this one before an event comes.
            "process.executable != '' && source.path.matches('(')",
            "process.argv.exists(a, a.matches('['))",
            "process.executable != '' && matches(source.path, '(')",
            // A gibibyte when compiled.
            "process.executable != '' && source.path.matches('(a{1000}){1000}')",
            "source.path.matches('a', 'b')",
            "source.path.matches(1)",
        ] {
            assert!(language.compile(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_out_of_events_are_kept_within_bounds() {
        let language = Language::default();
        let condition = "source.path.matches(process.executable)";
        let program = language.compile(condition).unwrap();
        let meet = |executable: &str| {
            let facts = read(executable, "/srv/a");
            let scope = Scope::new(&facts, &Default::default(), &Default::default());
            holds(&program, &language.context(&scope))
        };
        assert!(meet("^/srv/"));
        let before = language.compiled();
        assert!(meet("^/srv/") && !meet("(") && !meet("("));
        assert_eq!(language.compiled(), before + 1, "a wrong one is known too");
        assert!(!meet(&"a".repeat(LONGEST + 1)));
        for n in 0..100 {
            meet(&format!("^/srv/{n}"));
            assert!(meet("^/srv/"), "what is asked for again stays");
        }
        assert_eq!(language.compiled(), before + 101);
        assert_eq!(language.met(), MOST_MET);
    }
}
