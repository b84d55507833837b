//! The literals of all rules in one automaton.

use crate::secret::rules::Rule;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, StartKind};
use std::collections::HashMap;

/// What to do where a literal was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Try the rule's expression at the literal.
    Token(u32),
    /// Try the rule's expression after the word.
    Near(u32),
    /// Run the rule's parser over the whole text, once.
    Structure(u32),
    /// A word of secret names: perhaps an assignment.
    Assign,
    /// `://`
    Url,
    /// `-----BEGIN`
    Pem,
}

/// Words that secret names hold.
const ASSIGN: &[&str] = &[
    "pass", "pwd", "secret", "token", "key", "cred", "auth", "psw", "_pat", "-pat",
];

#[derive(Debug)]
pub struct Prefilter {
    automaton: AhoCorasick,
    hooks: Vec<Vec<Hook>>,
}

impl Prefilter {
    pub fn new(rules: &[Rule]) -> Prefilter {
        let mut patterns: Vec<String> = Vec::new();
        let mut hooks: Vec<Vec<Hook>> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut add = |literal: &str, hook: Hook| {
            let literal = literal.to_ascii_lowercase();
            let at = *index.entry(literal.clone()).or_insert_with(|| {
                patterns.push(literal);
                hooks.push(Vec::new());
                hooks.len() - 1
            });
            if !hooks[at].contains(&hook) {
                hooks[at].push(hook);
            }
        };
        for word in ASSIGN {
            add(word, Hook::Assign);
        }
        add("://", Hook::Url);
        add("-----begin", Hook::Pem);
        for (i, rule) in rules.iter().enumerate() {
            let i = i as u32;
            for literal in &rule.spec.literals {
                add(
                    literal,
                    if rule.spec.regex.is_empty() {
                        Hook::Structure(i)
                    } else {
                        Hook::Token(i)
                    },
                );
            }
            for word in &rule.spec.near {
                add(word, Hook::Near(i));
            }
        }
        // A DFA: constant work per byte whatever the text. The rules are validated, so the build cannot exceed its limits;
        // should it ever, an automaton without patterns finds nothing.
        let build = |patterns: &[String]| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .kind(Some(AhoCorasickKind::DFA))
                .start_kind(StartKind::Unanchored)
                .build(patterns)
        };
        match build(&patterns).or_else(|_| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(&patterns)
        }) {
            Ok(automaton) => Prefilter { automaton, hooks },
            Err(_) => match AhoCorasick::new([] as [&str; 0]) {
                Ok(automaton) => Prefilter {
                    automaton,
                    hooks: Vec::new(),
                },
                Err(_) => unreachable!("an automaton without patterns is always built"),
            },
        }
    }

    /// Calls `f(start, end, hook)` for every literal in the text, in order of their ends.
    pub fn scan(&self, text: &[u8], mut f: impl FnMut(usize, usize, Hook)) {
        for hit in self.automaton.find_overlapping_iter(text) {
            for &hook in &self.hooks[hit.pattern().as_usize()] {
                f(hit.start(), hit.end(), hook);
            }
        }
    }
}
