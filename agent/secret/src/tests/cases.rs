//! Secrets of many issuers under their usual names, and what stands in the same files and is none: tables of cases, a line
//! each, whose values are fresh with every seed.

use crate::rules::template::expand;
use crate::{Classifier, Finding, Origin};
use std::ops::Range;
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

/// Confidence that an inventory shows.
const SHOWN: f64 = 0.5;

/// Seeds of the values of each case: a value made by chance may look like a word.
const SEEDS: u64 = 3;

/// A case with the values of one seed.
struct Case {
    path: String,
    text: String,
    /// Where the secret stands; `None` in a case without one.
    secret: Option<Range<usize>>,
}

impl Case {
    fn of(line: &str, seed: u64) -> Case {
        let (path, text) = line.split_once(' ').unwrap();
        let text = expand(&unescaped(text), seed).unwrap();
        let path = match path.strip_prefix('~') {
            Some(rest) => format!("/home/bob{rest}"),
            None if path.starts_with('/') => path.to_owned(),
            None => format!("/home/bob/src/app/{path}"),
        };
        let secret = text
            .find('«')
            .map(|start| start..text.find('»').unwrap() - '«'.len_utf8());
        let text = text.replace(['«', '»'], "");
        Case { path, text, secret }
    }

    /// What is found with the confidence that is shown.
    fn shown(&self) -> Vec<Finding> {
        let origin = Origin::File { path: &self.path };
        let mut found = CLASSIFIER.classify(self.text.as_bytes(), origin);
        found.retain(|f| !f.parts.is_empty() && f.confidence >= SHOWN);
        found
    }

    /// The same, for a line of an environment file that is a variable of a process; `None`: it is none.
    fn variable(&self) -> Option<Vec<Finding>> {
        let (name, value) = self.text.split_once('=')?;
        if !self.path.ends_with("/.env") || value.contains(['\n', '"', '\'', '$', '`', ' ']) {
            return None;
        }
        let variable = (name.as_bytes(), value.as_bytes());
        let mut found: Vec<Finding> = CLASSIFIER
            .classify_env([variable])
            .into_iter()
            .map(|(_, finding)| finding)
            .collect();
        found.retain(|f| !f.parts.is_empty() && f.confidence >= SHOWN);
        Some(found)
    }
}

/// The line with its escapes replaced.
fn unescaped(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    out
}

fn lines(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn secrets_of_many_issuers_under_their_usual_names() {
    let (mut missed, mut all) = (Vec::new(), 0);
    for line in lines(include_str!("cases/secrets.txt")) {
        for seed in 1..=SEEDS {
            all += 1;
            let case = Case::of(line, seed);
            let secret = case.secret.clone().unwrap();
            let taken = case.shown().iter().any(|found| {
                found
                    .places
                    .iter()
                    .any(|place| place.start < secret.end && secret.start < place.end)
            });
            if !taken {
                missed.push(format!("{line}  ({seed})"));
            }
            if case.variable().is_some_and(|found| found.is_empty()) {
                missed.push(format!("{line}  ({seed}, variable)"));
            }
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {all} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn what_stands_beside_secrets_and_is_none() {
    let (mut taken, mut all) = (Vec::new(), 0);
    for line in lines(include_str!("cases/none.txt")) {
        for seed in 1..=SEEDS {
            all += 1;
            let case = Case::of(line, seed);
            let found = case
                .shown()
                .into_iter()
                .chain(case.variable().unwrap_or_default());
            taken.extend(
                found.map(|found| format!("{line}  ({seed}: {} {})", found.rule, found.confidence)),
            );
        }
    }
    assert!(
        taken.is_empty(),
        "{} in {all} taken:\n{}",
        taken.len(),
        taken.join("\n")
    );
}
