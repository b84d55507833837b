//! The compiled rules and what they find in a text.

mod argv;
mod place;
mod values;

use super::api::{Classified, Finding, Origin, RuleError};
use super::derive;
use super::form;
use super::formats::{self, Context, Cursor};
use super::resolve;
use super::rules::template::{self, TemplateError};
use super::rules::{Rule, builtin, load};
use super::ruleset::Classifier;
use super::scan::assign::{self, TextKind};
use super::scan::prefilter::Hook;
use super::scan::strings::Strings;
use super::scan::text::clean;
use super::scan::{Finds, pem, token};
use super::wide;
pub use argv::Arguments;
pub(super) use place::text_kind;
use place::{SPECIMEN, path_of, specimen};
pub use place::{is_source, is_specimen};
use std::ops::Range;
use std::path::Path;
use zeroize::Zeroizing;

/// Largest text that is inspected; what lies beyond is left out (callers sample larger files).
pub const MAX_TEXT: usize = 64 << 20;

/// What inspecting a literal costs beside its expression, in bytes inspected: judging a name and its value.
const HOOK_COST: usize = 16;

impl Classifier {
    /// The rules compiled in.
    pub fn builtin() -> Classifier {
        Classifier::from_rules(builtin::rules().0)
    }

    /// The rules compiled in and the user's `*.toml`. A user's rule with the name of another replaces it; one that
    /// does not hold (or whose own examples fail) is refused and named, the others stay.
    pub fn with_rules_dir(dir: &Path) -> (Classifier, Vec<RuleError>) {
        let (mut rules, mut errors) = builtin::rules();
        let (mine, mut bad) = load::directory(dir);
        errors.append(&mut bad);
        for rule in mine {
            if let Err(wrong) = examples_hold(&rule) {
                let (file, line) = rule.place;
                let reason = wrong.to_string();
                errors.push(RuleError { file, line, reason });
                continue;
            }
            match rules.iter_mut().find(|r| r.spec.name == rule.spec.name) {
                Some(old) => *old = rule,
                None => rules.push(rule),
            }
        }
        (Classifier::from_rules(rules), errors)
    }

    /// Everything that looks like a credential, sorted by position, each once. Placeholders are left out.
    pub fn classify(&self, text: &[u8], origin: Origin<'_>) -> Vec<Finding> {
        self.classify_bounded(text, origin).findings
    }

    /// As `classify`, with what bounded the search: callers who report what was not seen need it.
    pub fn classify_bounded(&self, whole: &[u8], origin: Origin<'_>) -> Classified {
        let text = &whole[..whole.len().min(MAX_TEXT)];
        let mut found = match wide::form(text) {
            Some((start, little)) => {
                let decoded = wide::decoded(text.get(start..).unwrap_or_default(), little);
                let mut found = self.classify_text(&decoded, origin);
                wide::place(&mut found.findings, &decoded, start);
                found
            }
            None => self.classify_text(text, origin),
        };
        found.limits.length = text.len() < whole.len();
        found
    }

    /// As `classify_bounded`, for a text of a bounded length that the rules can read.
    fn classify_text(&self, text: &[u8], origin: Origin<'_>) -> Classified {
        let lines = without_zeroes(text);
        let text = lines.as_ref().map_or(text, |lines| lines.as_slice());
        let mut finds = Finds::of(text);
        self.collect(text, origin, &mut finds);
        let limits = finds.limits;
        let mut findings = resolve::resolve(self, text, finds);
        if specimen(path_of(origin), text) {
            for finding in &mut findings {
                finding.confidence = finding.confidence.min(SPECIMEN);
            }
        }
        Classified { findings, limits }
    }

    /// As `classify`, without parsers of whole texts: for values that a parser took out of a text, so that hostile nesting
    /// cannot recurse.
    pub(crate) fn classify_value(&self, value: &[u8], origin: Origin<'_>) -> Vec<Finding> {
        let mut finds = Finds::of(value);
        self.scan_text(value, origin, &mut finds);
        resolve::resolve(self, value, finds)
    }

    /// A whole environment: pairs what belongs together (an AWS key id, its secret and its session token are one
    /// credential). Names with the findings of their values; places are offsets into the value.
    pub fn classify_env<'a>(
        &self,
        block: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Vec<(String, Finding)> {
        let block: Vec<(&[u8], &[u8])> = block.into_iter().take(8192).collect();
        let mut out: Vec<(String, Finding)> = Vec::new();
        for &(name, value) in &block {
            if value.len() < 4 || name.is_empty() {
                continue;
            }
            let name = String::from_utf8_lossy(name);
            let mut finds = Finds::of(value);
            self.collect(value, Origin::Env { name: &name }, &mut finds);
            if finds.list.is_empty() {
                continue;
            }
            for finding in resolve::resolve(self, value, finds) {
                out.push((name.to_string(), finding));
            }
        }
        resolve::pair_env(self, &block, &mut out);
        out
    }

    /// Secrets of a form of their own in a text that is about to be shown, in the order of their places.
    pub(super) fn tokens_in(&self, text: &str) -> Vec<(std::ops::Range<usize>, String)> {
        /// No token is shorter.
        const SHORTEST: usize = 16;
        if text.len() < SHORTEST {
            return Vec::new();
        }
        let mut finds = Finds::of(text.as_bytes());
        self.scan_text(text.as_bytes(), Origin::Text, &mut finds);
        let mut found: Vec<_> = finds
            .list
            .iter()
            .filter(|raw| raw.rank >= 2 && !raw.parts.is_empty())
            .map(|raw| (raw.span.clone(), self.rules[raw.rule].spec.kind.clone()))
            .collect();
        found.sort_by_key(|(span, _)| (span.start, span.end));
        // Of two that overlap the first stands for both, to the end of both.
        let mut out: Vec<(std::ops::Range<usize>, String)> = Vec::new();
        for (span, kind) in found {
            match out.last_mut() {
                Some((last, _)) if span.start < last.end => last.end = last.end.max(span.end),
                _ => out.push((span, kind)),
            }
        }
        out
    }

    fn collect(&self, text: &[u8], origin: Origin<'_>, finds: &mut Finds) {
        let mut structures = self.scan_text(text, origin, finds);
        let path = path_of(origin);
        if !path.is_empty() {
            self.named_file(path, text, finds);
            structures.extend(self.rules_of_path(path));
        }
        let store = formats::by_magic(text).and_then(|name| self.rule_named(name));
        structures.extend(store.and_then(|rule| u32::try_from(rule).ok()));
        structures.sort_unstable();
        structures.dedup();
        let mut done: Vec<&str> = Vec::new();
        for rule in structures {
            let structure = self.rules[rule as usize].spec.structure.as_str();
            // One parser serves several rules; it runs once.
            if !done.contains(&structure) {
                done.push(structure);
                formats::run(
                    structure,
                    &mut Context {
                        classifier: self,
                        text,
                        path,
                        rule: rule as usize,
                        finds,
                        cursor: &mut Cursor::of(text),
                    },
                );
            }
        }
    }

    /// The pass over the text; returns the rules whose parsers a literal called for.
    fn scan_text(&self, text: &[u8], origin: Origin<'_>, finds: &mut Finds) -> Vec<u32> {
        self.scan_seeing(text, origin, finds, |_, _| {})
    }

    /// The same; `saw` is called for every literal that was seen, and where.
    fn scan_seeing(
        &self,
        text: &[u8],
        origin: Origin<'_>,
        finds: &mut Finds,
        mut saw: impl FnMut(usize, Hook),
    ) -> Vec<u32> {
        let path = path_of(origin);
        let mut structures: Vec<u32> = Vec::new();
        let kind = text_kind(path);
        // Message catalogues, programs, compiled code: words there are labels. A core dump or a saved environment holds
        // assignments all the same, each after a zero byte.
        let binary = memchr::memchr(0, &text[..text.len().min(HEAD)]).is_some();
        let mut strings = Strings::of(path);
        let mut name_end = 0;
        let mut pem_end = 0;
        self.prefilter.scan(text, |start, end, hook| {
            saw(start, hook);
            if finds.full() || !finds.spend(HOOK_COST) {
                return;
            }
            match hook {
                Hook::Token(i) => {
                    token::at_literal(text, start..end, &self.rules[i as usize], i as usize, finds)
                }
                Hook::Near(i) => {
                    token::after_word(text, start..end, &self.rules[i as usize], i as usize, finds)
                }
                Hook::Structure(i) => {
                    if !structures.contains(&i) {
                        structures.push(i);
                    }
                }
                Hook::Assign => {
                    let place = (kind, binary, &mut strings);
                    self.assignment(text, start..end, place, &mut name_end, finds);
                }
                Hook::Url => {
                    if finds.spend(derive::url::cost(text, start)) {
                        self.url(text, start, finds);
                    }
                }
                Hook::Pem => {
                    if start >= pem_end
                        && let Some(key) = pem::at(text, start)
                    {
                        pem_end = key.span.end;
                        self.pem(text, path, key, 2, finds);
                    }
                }
            }
        });
        if let Origin::Env { name } = origin {
            self.env_value(name.as_bytes(), text, finds);
        }
        structures
    }

    /// An assignment to the name around a word of secret names. `seen`: where the last name that was read ended.
    fn assignment(
        &self,
        text: &[u8],
        word: Range<usize>,
        (kind, binary, strings): (TextKind, bool, &mut Strings),
        seen: &mut usize,
        finds: &mut Finds,
    ) {
        // `pw:` is looked for with its sign, because two letters are everywhere.
        let sign = text[word.clone()]
            .iter()
            .rev()
            .take_while(|b| !b.is_ascii_alphanumeric())
            .count();
        let end = word.end - sign;
        if end <= *seen {
            return;
        }
        let name = assign::name_around(text, &(word.start..end));
        *seen = name.end;
        if !finds.spend(assign::cost(text, name.end)) {
            return;
        }
        if binary
            && !(text.get(name.end) == Some(&b'=')
                && name
                    .start
                    .checked_sub(1)
                    .is_none_or(|i| matches!(text[i], 0 | b'\n')))
        {
            return;
        }
        // A text within source code has no names of things in it.
        let within = kind == TextKind::Source
            && assign::begins_line(text, &name)
            && strings.hold(text, name.start);
        let kind = if within { TextKind::Other } else { kind };
        match assign::read(text, name.clone(), kind) {
            // Such texts explain things as often: a word there is an example.
            Some(found) if within && found.confidence < WORD => {}
            Some(found) => self.assigned(text, found, finds),
            None if assign::list::may_follow(text, name.end) && finds.spend(assign::list::COST) => {
                for found in assign::list::read(text, &name) {
                    self.assigned(text, found, finds);
                }
            }
            None => {}
        }
    }

    fn assigned(&self, text: &[u8], found: assign::Assignment, finds: &mut Finds) {
        let Some(rule) = self.rule_named(values::generic(found.class)) else {
            return;
        };
        let label = clean(&text[found.name]);
        let mut raw = self.raw(
            rule,
            text[found.value.clone()].trim_ascii(),
            found.value,
            label,
            0,
        );
        raw.confidence = found.confidence;
        finds.push(raw);
    }
}

/// What is claimed at least of a password that is more than a bare word.
const WORD: f64 = 0.3;

/// How much of a text tells whether it is one.
const HEAD: usize = 8192;

/// A text with zeroes in it as lines: zeroes separate there as line breaks do elsewhere. Places stay what they are.
/// `None`: there are none, or it is no text.
fn without_zeroes(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    memchr::memchr(0, text)?;
    if form::form(&text[..text.len().min(HEAD)]) != form::Form::Text {
        return None;
    }
    let mut lines = Zeroizing::new(text.to_vec());
    for byte in lines.iter_mut().filter(|byte| **byte == 0) {
        *byte = b'\n';
    }
    Some(lines)
}

/// A rule that does not hold what its examples promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExampleError {
    #[error("rule {0}: {1}")]
    Template(String, TemplateError),
    #[error("rule {0}: positive example is not found: {1:?}")]
    NotFound(String, String),
    #[error("rule {0}: negative example is found: {1:?}")]
    Found(String, String),
}

/// Runs a rule's own examples: every positive one must be found by the rule, no negative one.
///
/// # Errors
/// The first example that is otherwise.
pub fn examples_hold(rule: &Rule) -> Result<(), ExampleError> {
    let spec = rule.spec.clone();
    let name = spec.name.clone();
    let (positive, negative) = (spec.positive.clone(), spec.negative.clone());
    let alone = Classifier::from_rules(vec![Rule::new(spec)]);
    for (expected, examples) in [(true, &positive), (false, &negative)] {
        for (i, example) in examples.iter().enumerate() {
            let text = template::expand(example.text(), i as u64 + 7)
                .map_err(|e| ExampleError::Template(name.clone(), e))?;
            let found = !super::tests_support::classify_example(&alone, example, &text).is_empty();
            if found != expected {
                let wrong = if expected {
                    ExampleError::NotFound
                } else {
                    ExampleError::Found
                };
                return Err(wrong(name, example.text().to_owned()));
            }
        }
    }
    Ok(())
}
