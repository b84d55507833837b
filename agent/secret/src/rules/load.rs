//! From TOML to rules: a bad rule is refused with its place and reason, the others stay.

use super::schema::{Rule, RuleSpec};
use crate::api::RuleError;
use serde::Deserialize;
use std::path::Path;

/// Largest rule file in bytes and most rule files read from a directory.
const MAX_FILE: u64 = 1 << 20;
const MAX_FILES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rule: Vec<toml::Spanned<toml::Value>>,
}

/// Reads one file's text.
pub fn parse(file: &str, text: &str) -> (Vec<Rule>, Vec<RuleError>) {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    let line_of = |offset: usize| {
        text.as_bytes()[..offset.min(text.len())]
            .iter()
            .filter(|&&b| b == b'\n')
            .count()
            + 1
    };
    let parsed: RuleFile = match toml::from_str(text) {
        Ok(parsed) => parsed,
        Err(e) => {
            let line = e.span().map_or(1, |s| line_of(s.start));
            errors.push(RuleError {
                file: file.to_string(),
                line,
                reason: first_line(e.message()),
            });
            return (rules, errors);
        }
    };
    for spanned in parsed.rule {
        let line = line_of(spanned.span().start);
        let refuse = |reason: String| RuleError {
            file: file.to_string(),
            line,
            reason,
        };
        match spanned.into_inner().try_into::<RuleSpec>() {
            Err(e) => errors.push(refuse(first_line(e.message()))),
            Ok(spec) => {
                let mut rule = Rule::new(spec);
                rule.place = (file.to_string(), line);
                match rule.validate() {
                    Ok(()) => rules.push(rule),
                    Err(wrong) => errors.push(refuse(wrong.to_string())),
                }
            }
        }
    }
    (rules, errors)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("cannot be read").to_string()
}

/// Reads every `*.toml` of a directory in the order of names. A directory that does not exist is empty.
pub fn directory(dir: &Path) -> (Vec<Rule>, Vec<RuleError>) {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    let refuse = |file: &Path, reason: String| RuleError {
        file: file.display().to_string(),
        line: 0,
        reason,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return (rules, errors),
        Err(e) => return (rules, vec![refuse(dir, format!("cannot be listed: {e}"))]),
    };
    let mut files: Vec<_> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "toml"))
        .collect();
    files.sort();
    if files.len() > MAX_FILES {
        errors.push(refuse(
            dir,
            format!(
                "holds {} rule files; the first {MAX_FILES} are read",
                files.len()
            ),
        ));
        files.truncate(MAX_FILES);
    }
    for path in files {
        match std::fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => {
                errors.push(refuse(&path, "is not a regular file".to_string()))
            }
            Ok(meta) if meta.len() > MAX_FILE => {
                errors.push(refuse(&path, format!("is larger than {MAX_FILE} bytes")))
            }
            Err(e) => errors.push(refuse(&path, format!("cannot be read: {e}"))),
            Ok(_) => match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let (mut more, mut bad) = parse(&path.display().to_string(), &text);
                    rules.append(&mut more);
                    errors.append(&mut bad);
                }
                Err(e) => errors.push(refuse(&path, format!("cannot be read: {e}"))),
            },
        }
    }
    (rules, errors)
}
