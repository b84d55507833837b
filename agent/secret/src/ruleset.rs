//! The compiled rules, as everybody who looks for something refers to them.

use super::api::KindInfo;
use super::rules::Rule;
use super::scan::prefilter::Prefilter;
use super::scan::{Raw, part};
use globset::GlobSet;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Compiled rules. Immutable, so shared between threads without locks.
#[derive(Debug)]
pub struct Classifier {
    pub(crate) rules: Vec<Rule>,
    pub(crate) by_name: HashMap<String, usize>,
    pub(crate) prefilter: Prefilter,
    pub(crate) env: HashMap<Vec<u8>, Vec<u32>>,
    /// Environment names that end in `*`.
    pub(crate) env_prefix: Vec<(Vec<u8>, u32)>,
    pub(crate) globs: OnceLock<(GlobSet, Vec<u32>)>,
}

impl Classifier {
    pub fn from_rules(rules: Vec<Rule>) -> Classifier {
        let prefilter = Prefilter::new(&rules);
        let mut by_name = HashMap::new();
        let mut env: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        let mut env_prefix = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            by_name.entry(rule.spec.name.clone()).or_insert(i);
            for name in &rule.spec.env {
                match name.strip_suffix('*') {
                    Some(prefix) => env_prefix.push((prefix.as_bytes().to_vec(), i as u32)),
                    None => env
                        .entry(name.as_bytes().to_vec())
                        .or_default()
                        .push(i as u32),
                }
            }
        }
        Classifier {
            rules,
            by_name,
            prefilter,
            env,
            env_prefix,
            globs: OnceLock::new(),
        }
    }

    /// Every rule with its kind, in the order of kinds.
    pub fn kinds(&self) -> Vec<KindInfo> {
        let mut out: Vec<KindInfo> = self
            .rules
            .iter()
            .map(|r| KindInfo {
                kind: r.spec.kind.clone(),
                rule: r.spec.name.clone(),
                description: r.spec.description.clone(),
                confidence: r.spec.confidence,
                privilege: r.spec.privilege,
                wire: r.spec.wire.clone(),
                attack: r.spec.attack.clone(),
                env: r.spec.env.clone(),
                paths: r.spec.paths.clone(),
            })
            .collect();
        out.sort_by(|a, b| (&a.kind, &a.rule).cmp(&(&b.kind, &b.rule)));
        out
    }

    pub(crate) fn rule(&self, index: usize) -> &Rule {
        &self.rules[index]
    }

    pub(crate) fn rule_named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn raw(
        &self,
        rule: usize,
        value: &[u8],
        span: std::ops::Range<usize>,
        identifier: String,
        rank: u8,
    ) -> Raw {
        Raw {
            rule,
            kind: None,
            parts: vec![part("", value, span.clone())],
            span,
            identifier,
            confidence: self.rules[rule].spec.confidence,
            rank,
            ..Raw::default()
        }
    }
}
