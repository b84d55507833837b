//! False claims on the files of this machine's packages.

use super::ask::{Claim, claims, command};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ChildStdin;
use std::time::Instant;

/// A claim at or above this is "high confidence".
pub const HIGH: f64 = 0.9;
/// Largest file inspected.
const MAX_FILE: u64 = 8 << 20;

/// What claims on packages' files are, as far as it was inspected: part of the path, rule, explanation.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "google-cloud-sdk/",
        "google-api-key",
        "a key that Google itself publishes in its client: real in form, not confidential",
    ),
    (
        "google-cloud-sdk/",
        "google-oauth-client-secret",
        "the secret of an installed application, which Google's documentation calls not confidential",
    ),
];

pub struct Clean {
    pub files: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Path, claim.
    pub high: Vec<(String, Claim)>,
    pub low: BTreeMap<String, u64>,
    /// Of every claim.
    pub confidences: Vec<f64>,
}

pub fn explanation(path: &str, rule: &str) -> &'static str {
    EXPLAINED
        .iter()
        .find(|(part, of, _)| path.contains(part) && rule.starts_with(of))
        .map_or("not explained", |(_, _, text)| text)
}

pub fn run(binary: &Path, root: &Path) -> Result<Clean> {
    let mut child = command(binary).args(["--threads", "1"]).spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the classifier")
    };
    let mut out = Clean {
        files: 0,
        bytes: 0,
        seconds: 0.0,
        high: Vec::new(),
        low: BTreeMap::new(),
        confidences: Vec::new(),
    };
    let started = Instant::now();
    out.bytes = std::thread::scope(|scope| -> Result<u64> {
        let feeder = scope.spawn(|| feed(root, stdin));
        for line in BufReader::new(stdout).lines() {
            let answer: Value = serde_json::from_str(&line?)?;
            out.files += 1;
            for claim in claims(&answer) {
                out.confidences.push(claim.confidence);
                if claim.confidence >= HIGH {
                    let path = answer["id"].as_str().unwrap_or_default().to_string();
                    out.high.push((path, claim));
                } else {
                    *out.low.entry(claim.rule).or_default() += 1;
                }
            }
        }
        feeder
            .join()
            .map_err(|_| anyhow::anyhow!("the feeder died"))
    })?;
    out.seconds = started.elapsed().as_secs_f64();
    child.wait()?;
    out.high
        .sort_by(|a, b| (&a.0, a.1.start).cmp(&(&b.0, b.1.start)));
    Ok(out)
}

/// Sends every regular file; returns the bytes sent.
fn feed(root: &Path, stdin: ChildStdin) -> u64 {
    let mut out = BufWriter::with_capacity(1 << 20, stdin);
    let mut total = 0;
    for entry in walkdir::WalkDir::new(root)
        .same_file_system(true)
        .into_iter()
        .filter_map(Result::ok)
    {
        if !entry.file_type().is_file() || entry.metadata().map_or(u64::MAX, |m| m.len()) > MAX_FILE
        {
            continue;
        }
        let Ok(bytes) = std::fs::read(entry.path()) else {
            continue;
        };
        let path = entry.path().to_string_lossy();
        total += bytes.len() as u64;
        let line = json!({"id": path, "path": path, "text": String::from_utf8_lossy(&bytes)});
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    let _ = out.flush();
    total
}
