//! What a rule file may say. docs/RULES.md explains it to those who write one.

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use std::sync::OnceLock;

/// One `[[rule]]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSpec {
    pub name: String,
    /// What is reported; the name when absent. Several rules may report one kind.
    pub kind: String,
    pub description: String,
    /// Where the kind lives: globs, `~/` for every home.
    pub paths: Vec<String>,
    /// Environment variables that hold it. A trailing `*` matches any ending.
    pub env: Vec<String>,
    /// At least one must occur (in any letter case; the expression decides on case) before the expression is tried.
    pub literals: Vec<String>,
    /// Words that must stand before the value: the expression is tried in the `window` bytes after one of them.
    pub near: Vec<String>,
    /// A `near` word that is also an English word counts only when a word of the trade (key, token, secret, ...) follows.
    pub need_word: bool,
    /// Words of which the name that ends with a `near` word must hold one, when it holds more than that word: others have
    /// a `secret_id` of their own. Without one the value counts only where `identifier_near` finds its owner.
    pub of: Vec<String>,
    pub window: usize,
    /// Linear-time expression. Group `secret`, else group 1, else the whole match is the value.
    pub regex: String,
    /// The literal may stand this many bytes inside the match; 0: the match begins with it.
    pub back: usize,
    /// Longest match in bytes.
    pub max: usize,
    /// The byte after the value must not be a further one of these: `word` (letters, digits, `_`), `b64` (also `+/=-`), `any`.
    pub tail: String,
    /// The same before the match.
    pub head: String,
    /// Least Shannon entropy of the value in bits per byte.
    pub entropy: f64,
    /// A check by name: a structure it must have, or check digits that raise confidence.
    pub check: String,
    /// Decodes the value before it is taken: `base64`, or `basic` (base64 of `user:password`, of which the password is taken).
    pub decode: String,
    /// Name of the deriver of the public identifier.
    pub identifier: String,
    /// Expression whose group 1, within 300 bytes of the value, is the public identifier.
    pub identifier_near: String,
    /// The match is a public identifier, not a secret.
    pub public: bool,
    /// The parser that finds it, for kinds that have no expression.
    pub structure: String,
    /// How it travels: H, B, U, Q, S, J, P, L.
    pub wire: String,
    /// 1 (root, cluster, organisation) to 4 (low): what every valid one of the kind gives. Where whoever made it chose what
    /// it may do, and the value does not say what, it is 3.
    pub privilege: u8,
    pub attack: String,
    /// Precision measured on the development set.
    pub confidence: f64,
    pub positive: Vec<Example>,
    pub negative: Vec<Example>,
}

/// An example: a template, or a template with the place it is found in.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Example {
    Text(String),
    Placed {
        #[serde(default)]
        path: String,
        #[serde(default)]
        env: String,
        text: String,
        /// A binary example, in hex; `text` is then not used.
        #[serde(default)]
        hex: String,
        /// Expected public identifier, when it is constant.
        #[serde(default)]
        identifier: String,
    },
}

impl Example {
    /// Hex digits of a binary example.
    pub fn hex(&self) -> Option<&str> {
        match self {
            Example::Placed { hex, .. } if !hex.is_empty() => Some(hex),
            _ => None,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Example::Text(text) | Example::Placed { text, .. } => text,
        }
    }
}

/// A rule ready to run. The expression is compiled when it is first needed: a program that meets no Slack token never
/// pays for its expression.
#[derive(Debug)]
pub struct Rule {
    pub spec: RuleSpec,
    /// File and 1-based line it was read from; empty and 0 when it was made in memory.
    pub place: (String, usize),
    /// The expression repeats something so often that no short text can match.
    pub long: bool,
    /// The expression may look beyond a blank or a quote for a long way.
    pub crosses_blanks: bool,
    regex: OnceLock<Option<Regex>>,
    near: OnceLock<Option<Regex>>,
}

/// What is wrong with a rule, as a sentence.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    #[error("`name` must be letters, digits, '-', '_' or '.', not {0:?}")]
    Name(String),
    #[error("rule {0}: {1}")]
    Rule(String, Wrong),
}

/// What is wrong with a rule that has a name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Wrong {
    /// The field, and what the engine of expressions says.
    #[error("`{0}`: {1}")]
    Expression(&'static str, ExpressionError),
    #[error(
        "a rule with `regex` needs `literals` or `near`, so that it costs nothing where they are absent"
    )]
    NoWord,
    #[error("`literals` and `near` exclude each other")]
    BothWords,
    #[error("one of `regex`, `structure`, `env` or `paths` is needed")]
    NothingToFind,
    #[error("`identifier_near` needs a group")]
    NoGroup,
    #[error("the literal {0:?} must have 2 to 64 bytes")]
    Literal(String),
    #[error("`paths`: {0}")]
    Path(globset::Error),
    #[error("`confidence` is {0} and must be between 0 and 1")]
    Confidence(f64),
    #[error("`privilege` is {0} and must be between 1 and 4")]
    Privilege(u8),
    #[error("`max` is at most 16384, `back` 4096, `window` 512")]
    Size,
    #[error("`head` and `tail` are word, b64 or any")]
    Edge,
    #[error("unknown `{field}` {value:?}; known: {}", .known.join(", "))]
    Unknown {
        field: &'static str,
        value: String,
        known: Vec<&'static str>,
    },
    #[error("at least three different `positive` and three `negative` examples are needed")]
    Examples,
}

/// What the engine of expressions says: its last line, since those before it repeat the expression.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", last_line(.0))]
pub struct ExpressionError(regex::Error);

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("bad expression");
    last.trim().to_owned()
}

/// Largest compiled expression in bytes: bounds what a user's rule can cost.
const REGEX_SIZE: usize = 2 << 20;

fn compile(pattern: &str) -> Result<Regex, ExpressionError> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .build()
        .map_err(ExpressionError)
}

impl Rule {
    pub fn new(mut spec: RuleSpec) -> Rule {
        if spec.kind.is_empty() {
            spec.kind.clone_from(&spec.name);
        }
        if spec.window == 0 {
            spec.window = 48;
        }
        if spec.max == 0 {
            spec.max = 512;
        }
        if spec.attack.is_empty() {
            spec.attack = "T1552.001".to_string();
        }
        if spec.privilege == 0 {
            spec.privilege = 3;
        }
        if spec.confidence == 0.0 {
            spec.confidence = if spec.near.is_empty() { 0.9 } else { 0.7 };
        }
        // The least counts of its repetitions: `{300,400}` needs 300.
        let least: usize = spec
            .regex
            .split('{')
            .skip(1)
            .filter_map(|rest| {
                let digits =
                    rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                rest[..digits].parse::<usize>().ok()
            })
            .sum();
        let long = least >= 96;
        let crosses_blanks = spec.max > 1024
            && ["\\s", "\\n", "(?s)", "[^", " "]
                .iter()
                .any(|sign| spec.regex.contains(sign));
        Rule {
            spec,
            place: (String::new(), 0),
            long,
            crosses_blanks,
            regex: OnceLock::new(),
            near: OnceLock::new(),
        }
    }

    /// The rule's expression; anchored when it begins with its literal. `None`: it has none.
    pub fn regex(&self) -> Option<&Regex> {
        if self.regex.get().is_none() {
            keytrail_model::scrub_stack();
        }
        self.regex
            .get_or_init(|| {
                if self.spec.regex.is_empty() {
                    return None;
                }
                compile(&self.pattern()).ok()
            })
            .as_ref()
    }

    pub fn identifier_near(&self) -> Option<&Regex> {
        if self.near.get().is_none() {
            keytrail_model::scrub_stack();
        }
        self.near
            .get_or_init(|| {
                if self.spec.identifier_near.is_empty() {
                    None
                } else {
                    compile(&self.spec.identifier_near).ok()
                }
            })
            .as_ref()
    }

    fn pattern(&self) -> String {
        let anchored = self.spec.near.is_empty() && self.spec.back == 0;
        if anchored {
            format!("^(?:{})", self.spec.regex)
        } else if self.spec.near.is_empty() || self.spec.tail == "any" {
            format!("(?:{})", self.spec.regex)
        } else {
            // Of alternatives with different lengths the one that ends the word is meant.
            format!("(?:{})(?:[^A-Za-z0-9_]|$)", self.spec.regex)
        }
    }

    /// Everything that can be wrong with a rule.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn validate(&self) -> Result<(), SpecError> {
        let s = &self.spec;
        if s.name.is_empty()
            || !s
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(SpecError::Name(s.name.clone()));
        }
        self.expressions()
            .and_then(|()| self.numbers())
            .and_then(|()| self.words())
            .and_then(|()| self.examples())
            .map_err(|wrong| SpecError::Rule(s.name.clone(), wrong))
    }

    /// Expressions compile, and there is something to find the rule by.
    fn expressions(&self) -> Result<(), Wrong> {
        let s = &self.spec;
        if !s.regex.is_empty() {
            compile(&self.pattern()).map_err(|e| Wrong::Expression("regex", e))?;
            if s.literals.is_empty() && s.near.is_empty() {
                return Err(Wrong::NoWord);
            }
            if !s.literals.is_empty() && !s.near.is_empty() {
                return Err(Wrong::BothWords);
            }
        } else if s.structure.is_empty() && s.env.is_empty() && s.paths.is_empty() {
            return Err(Wrong::NothingToFind);
        }
        if !s.identifier_near.is_empty() {
            let near =
                compile(&s.identifier_near).map_err(|e| Wrong::Expression("identifier_near", e))?;
            if near.captures_len() < 2 {
                return Err(Wrong::NoGroup);
            }
        }
        for word in s.literals.iter().chain(&s.near) {
            if word.len() < 2 || word.len() > 64 {
                return Err(Wrong::Literal(word.clone()));
            }
        }
        for glob in &s.paths {
            globset::Glob::new(glob).map_err(Wrong::Path)?;
        }
        Ok(())
    }

    /// Numbers are within their bounds.
    fn numbers(&self) -> Result<(), Wrong> {
        let s = &self.spec;
        if !(0.0..=1.0).contains(&s.confidence) {
            return Err(Wrong::Confidence(s.confidence));
        }
        if s.privilege > 4 {
            return Err(Wrong::Privilege(s.privilege));
        }
        if s.max > 16 * 1024 || s.back > 4096 || s.window > 512 {
            return Err(Wrong::Size);
        }
        Ok(())
    }

    /// Fields that take one of some words have one of them.
    fn words(&self) -> Result<(), Wrong> {
        let s = &self.spec;
        let edges = ["", "word", "b64", "any"];
        if !edges.contains(&s.tail.as_str()) || !edges.contains(&s.head.as_str()) {
            return Err(Wrong::Edge);
        }
        let known = |field: &'static str, value: &String, names: &[&'static str]| {
            if value.is_empty() || names.contains(&value.as_str()) {
                Ok(())
            } else {
                Err(Wrong::Unknown {
                    field,
                    value: value.clone(),
                    known: names.to_vec(),
                })
            }
        };
        known("check", &s.check, crate::checks::checksum::NAMES)?;
        known("identifier", &s.identifier, crate::derive::NAMES)?;
        known("decode", &s.decode, &["base64", "basic"])
    }

    fn examples(&self) -> Result<(), Wrong> {
        let distinct = |examples: &[Example]| {
            let mut texts: Vec<String> = examples.iter().map(|e| format!("{e:?}")).collect();
            texts.sort_unstable();
            texts.dedup();
            texts.len()
        };
        if distinct(&self.spec.positive) < 3 || distinct(&self.spec.negative) < 3 {
            return Err(Wrong::Examples);
        }
        Ok(())
    }
}
