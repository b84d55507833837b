//! Asks the binary under test, as a user would: `keytrail classify --jsonl`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// One text with what is known about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it comes from: a rule of the example set, or the generator's name of the form.
    pub group: String,
    /// It holds a credential.
    pub positive: bool,
    /// Of a kind that keytrail lists (identifiers, hosts and buckets are none).
    pub credential: bool,
    pub path: Option<String>,
    pub text: String,
    /// The secret, where it is known exactly.
    pub secret: Option<String>,
}

/// One claim of the binary.
#[derive(Clone, Debug)]
pub struct Claim {
    pub rule: String,
    pub confidence: f64,
    pub start: usize,
    pub end: usize,
}

pub fn claims(answer: &Value) -> Vec<Claim> {
    answer["credentials"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| Claim {
            rule: c["rule"].as_str().unwrap_or_default().to_string(),
            confidence: c["confidence"].as_f64().unwrap_or_default(),
            start: c["start"].as_u64().unwrap_or_default() as usize,
            end: c["end"].as_u64().unwrap_or_default() as usize,
        })
        .collect()
}

pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    // Only the rules that every build has.
    command.args(["classify", "--jsonl", "--rules-dir", "/nonexistent"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Claims for each sample, in the order of the samples.
pub fn ask(binary: &Path, samples: &[Sample]) -> Result<Vec<Vec<Claim>>> {
    let mut child = command(binary)
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the classifier")
    };
    let mut out = Vec::with_capacity(samples.len());
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(move || {
            for (id, sample) in samples.iter().enumerate() {
                let line = json!({"id": id, "path": sample.path, "text": sample.text});
                if writeln!(stdin, "{line}").is_err() {
                    return;
                }
            }
        });
        for line in BufReader::new(stdout).lines() {
            out.push(claims(&serde_json::from_str(&line?)?));
        }
        Ok(())
    })?;
    child.wait()?;
    if out.len() != samples.len() {
        bail!("{} answers to {} questions", out.len(), samples.len());
    }
    Ok(out)
}

/// The highest confidence claimed; `None` without a claim.
pub fn best(claims: &[Claim]) -> Option<f64> {
    claims.iter().map(|c| c.confidence).reduce(f64::max)
}
