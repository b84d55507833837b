//! The examples of praetorian-inc/titus (fetched by the developer; never committed), with the random parts of every value
//! replaced so that nothing can have been memorised.

use super::ask::Sample;
use super::random::Random;
use anyhow::{Result, bail};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Words in the names of rules that describe no credential: public identifiers, host names, addresses of services.
const NOT_CREDENTIALS: &[&str] = &[
    "Account ID",
    "S3 Bucket",
    "Resource Name",
    "Storage Bucket",
    "Domain",
    "Client ID",
    "Search URL",
    "API URI",
    "Base URL",
    "Mattermost URL",
    "Project URL",
    " Host",
    "Username",
    "Organization",
    "Application ID",
    "Account Name",
    "Repo Identifier",
    "Recipient",
    "Bot ID",
    "Key ID",
    "PUBLIC Key",
    "Client-side ID",
];

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    id: String,
    name: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    negative_examples: Vec<String>,
}

/// The set, read once and compiled once.
pub struct Titus {
    rules: Vec<(Rule, Option<Regex>)>,
}

/// One draw of fresh values.
pub struct Draw {
    pub samples: Vec<Sample>,
    /// Positive examples with fresh values, and as they stand.
    pub replaced: usize,
    pub kept: usize,
    /// Negative examples left out because another rule of the set claims them or their value.
    pub shared: usize,
}

impl Titus {
    pub fn load(dir: &Path) -> Result<Titus> {
        let mut files: Vec<PathBuf> = walkdir::WalkDir::new(dir.join("pkg"))
            .into_iter()
            .filter_map(Result::ok)
            .map(walkdir::DirEntry::into_path)
            .filter(|p| p.extension().is_some_and(|x| x == "yml"))
            .collect();
        files.sort();
        let mut rules = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            let Ok(parsed) = serde_yaml_ng::from_str::<File>(&text) else {
                continue;
            };
            for rule in parsed.rules.into_iter().filter(|r| !r.pattern.is_empty()) {
                let pattern = RegexBuilder::new(rule.pattern.trim())
                    .size_limit(64 << 20)
                    .build()
                    .ok();
                rules.push((rule, pattern));
            }
        }
        if rules.is_empty() {
            bail!("no rules under {}/pkg", dir.display());
        }
        Ok(Titus { rules })
    }

    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    pub fn draw(&self, seed: u64) -> Draw {
        let mut random = Random::new(seed);
        let mut draw = Draw {
            samples: Vec::new(),
            replaced: 0,
            kept: 0,
            shared: 0,
        };
        // What the set itself calls a credential elsewhere: the text, or the value that a rule takes from it.
        let positive: Vec<&str> = self
            .rules
            .iter()
            .flat_map(|(rule, pattern)| {
                rule.examples.iter().flat_map(move |example| {
                    let value = match pattern {
                        Some(pattern) => pattern.captures(example).and_then(|c| {
                            c.iter()
                                .skip(1)
                                .flatten()
                                .map(|m| m.as_str())
                                .max_by_key(|v| v.len())
                        }),
                        // Without an expression: what stands between quotes.
                        None => example
                            .split(['"', '\'', '`'])
                            .skip(1)
                            .step_by(2)
                            .max_by_key(|v| v.len()),
                    };
                    [Some(example.trim()), value.filter(|v| secret_like(v))]
                        .into_iter()
                        .flatten()
                })
            })
            .collect();
        for (rule, pattern) in &self.rules {
            let credential = !NOT_CREDENTIALS.iter().any(|w| rule.name.contains(w));
            let sample = |positive, text| Sample {
                group: rule.id.clone(),
                positive,
                credential,
                path: None,
                text,
                secret: None,
            };
            for example in &rule.examples {
                let text = match pattern
                    .as_ref()
                    .and_then(|p| refresh(p, example, &mut random))
                {
                    Some(text) => {
                        draw.replaced += 1;
                        text
                    }
                    None => {
                        draw.kept += 1;
                        example.clone()
                    }
                };
                draw.samples.push(sample(true, text));
            }
            for example in &rule.negative_examples {
                // What another rule of the set itself takes for a credential only says "not this kind".
                if self
                    .rules
                    .iter()
                    .filter_map(|(_, p)| p.as_ref())
                    .any(|p| p.is_match(example))
                    || positive.iter().any(|value| example.contains(value))
                {
                    draw.shared += 1;
                } else {
                    draw.samples.push(sample(false, example.clone()));
                }
            }
        }
        draw
    }
}

/// Long enough and not a plain word: what tells two examples of one value.
fn secret_like(value: &str) -> bool {
    value.len() >= 8
        && !value.contains(char::is_whitespace)
        && value
            .bytes()
            .any(|b| !b.is_ascii_alphabetic() && !matches!(b, b'_' | b'-' | b'.'))
}

/// Replaces the random characters of the example's value by others of the same class, keeping an issuer's prefix and all
/// that the rule's own expression insists on.
fn refresh(pattern: &Regex, example: &str, random: &mut Random) -> Option<String> {
    let captures = pattern.captures(example)?;
    let whole = captures.get(0)?.range();
    let value: Range<usize> = captures
        .iter()
        .skip(1)
        .flatten()
        .map(|m| m.range())
        .max_by_key(|r| r.len())
        .unwrap_or(whole.clone());
    let bytes = example.as_bytes();
    let mut fresh = bytes.to_vec();
    let mut at = value.start;
    let mut changed = false;
    while at < value.end {
        let run = bytes[at..value.end]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric())
            .count();
        if run < 8 {
            at += run.max(1);
            continue;
        }
        // The first characters of a value are often the issuer's mark.
        let from = if at == value.start { at + 4 } else { at };
        let text = &bytes[from..at + run];
        // Words of URLs and names are no part of a secret.
        let word = bytes[at..at + run]
            .iter()
            .skip(1)
            .all(u8::is_ascii_lowercase)
            && run < 16;
        if word {
            at += run;
            continue;
        }
        let hex = text
            .iter()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
            && text.iter().any(u8::is_ascii_digit);
        for _ in 0..20 {
            let mut trial = fresh.clone();
            for slot in &mut trial[from..at + run] {
                *slot = random.like(*slot, hex);
            }
            let Ok(trial_text) = std::str::from_utf8(&trial) else {
                break;
            };
            if pattern.find(trial_text).is_some_and(|m| m.range() == whole) {
                fresh = trial;
                changed = true;
                break;
            }
        }
        at += run;
    }
    changed.then(|| String::from_utf8(fresh).ok()).flatten()
}
