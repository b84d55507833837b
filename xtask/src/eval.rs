//! `cargo xtask eval`: how good the recognition of credentials is, measured.
//!
//! Recall and false alarms on the examples of praetorian-inc/titus (fetched by the developer; never committed), with the
//! random parts of every value replaced so that nothing can have been memorised; false claims on this machine's own files;
//! throughput. Writes docs/EVALUATION.md. Everything goes through `keytrail classify --jsonl`, as a user would.

use anyhow::{Context, Result, bail};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Options of the evaluation.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// A checkout of github.com/praetorian-inc/titus (its pkg/ directory is read); else the one TITUS_DIR names.
    #[arg(long, value_name = "DIR")]
    titus: Option<PathBuf>,
    /// Directory walked for false claims.
    #[arg(long, default_value = "/usr", value_name = "DIR")]
    root: PathBuf,
    /// The binary under test (a release build: the throughput is measured with it).
    #[arg(long, default_value = "target/release/keytrail", value_name = "FILE")]
    binary: PathBuf,
    /// Seed of the replaced values.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the report goes.
    #[arg(long, default_value = "docs/EVALUATION.md", value_name = "FILE")]
    output: PathBuf,
}

/// A claim at or above this is "high confidence".
const HIGH: f64 = 0.9;
/// Largest file looked at.
const MAX_FILE: u64 = 8 << 20;

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
    rules: Vec<TitusRule>,
}

#[derive(Deserialize)]
struct TitusRule {
    id: String,
    name: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    negative_examples: Vec<String>,
}

struct Sample {
    rule: String,
    positive: bool,
    credential: bool,
    text: String,
}

/// Runs the evaluation and writes the report.
pub fn run(args: EvalArgs) -> Result<()> {
    if !args.binary.exists() {
        bail!(
            "{} is not there; build it with `cargo build --release -p keytrail`",
            args.binary.display()
        );
    }
    let mut report = String::from(
        "# How well credentials are recognised\n\nWritten by `cargo xtask eval`; do not edit. The method is in `xtask/src/eval.rs`.\n\n",
    );
    let titus = args
        .titus
        .clone()
        .or_else(|| std::env::var_os("TITUS_DIR").map(PathBuf::from));
    match &titus {
        Some(dir) => examples(&args, dir, &mut report)?,
        None => report.push_str("No checkout of praetorian-inc/titus was given (`--titus` or TITUS_DIR): recall was not measured.\n\n"),
    }
    false_claims(&args, &mut report)?;
    if let Some(parent) = args.output.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&args.output, &report).with_context(|| args.output.display().to_string())?;
    println!("{report}");
    Ok(())
}

fn load(dir: &Path) -> Result<Vec<TitusRule>> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(dir.join("pkg"))
        .into_iter()
        .filter_map(Result::ok)
        .map(|e| e.into_path())
        .filter(|p| p.extension().is_some_and(|x| x == "yml"))
        .collect();
    files.sort();
    let mut rules = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        if let Ok(parsed) = serde_yaml_ng::from_str::<File>(&text) {
            rules.extend(parsed.rules.into_iter().filter(|r| !r.pattern.is_empty()));
        }
    }
    if rules.is_empty() {
        bail!("no rules under {}/pkg", dir.display());
    }
    Ok(rules)
}

fn examples(args: &EvalArgs, dir: &Path, report: &mut String) -> Result<()> {
    let rules = load(dir)?;
    let mut random = Random(args.seed);
    let patterns: Vec<Option<Regex>> = rules
        .iter()
        .map(|r| {
            RegexBuilder::new(r.pattern.trim())
                .size_limit(64 << 20)
                .build()
                .ok()
        })
        .collect();
    let mut samples = Vec::new();
    let (mut replaced, mut kept, mut shared) = (0, 0, 0);
    for (rule, pattern) in rules.iter().zip(&patterns) {
        let credential = !NOT_CREDENTIALS.iter().any(|w| rule.name.contains(w));
        for example in &rule.examples {
            let text = match pattern
                .as_ref()
                .and_then(|p| refresh(p, example, &mut random))
            {
                Some(text) => {
                    replaced += 1;
                    text
                }
                None => {
                    kept += 1;
                    example.clone()
                }
            };
            samples.push(Sample {
                rule: rule.id.clone(),
                positive: true,
                credential,
                text,
            });
        }
        for example in &rule.negative_examples {
            // What another rule of the set itself takes for a credential is no negative: it only says "not this kind".
            if patterns.iter().flatten().any(|p| p.is_match(example)) {
                shared += 1;
            } else {
                samples.push(Sample {
                    rule: rule.id.clone(),
                    positive: false,
                    credential,
                    text: example.clone(),
                });
            }
        }
    }
    let lines: Vec<Value> = samples
        .iter()
        .enumerate()
        .map(|(id, s)| json!({"id": id, "text": s.text}))
        .collect();
    let answers = classify(args, &lines)?;
    let score = |floor: f64, wanted: &dyn Fn(&Sample) -> bool| -> (usize, usize) {
        let chosen = samples.iter().zip(&answers).filter(|(s, _)| wanted(s));
        let hit = chosen
            .clone()
            .filter(|(_, a)| best(a) >= floor && !a.is_empty())
            .count();
        (hit, chosen.count())
    };
    let percent = |(hit, all): (usize, usize)| {
        format!(
            "{hit}/{all} = {:.1}%",
            100.0 * hit as f64 / all.max(1) as f64
        )
    };
    writeln!(report, "## Examples of praetorian-inc/titus\n")?;
    writeln!(
        report,
        "{} rules. {replaced} positive examples with fresh values (seed {}), {kept} as they stand because their rule's expression does not compile here or fits no fresh value. Negative examples that a rule of the same set matches ({shared}) are left out: they are other kinds of credentials.\n",
        rules.len(),
        args.seed
    )?;
    writeln!(
        report,
        "| measure | any confidence | 0.5 and above |\n|---|---|---|"
    )?;
    let credentials = |s: &Sample| s.positive && s.credential;
    writeln!(
        report,
        "| recall, examples of credentials | {} | {} |",
        percent(score(0.0, &credentials)),
        percent(score(0.5, &credentials))
    )?;
    let all = |s: &Sample| s.positive;
    writeln!(
        report,
        "| recall, all examples (with identifiers, hosts, buckets) | {} | {} |",
        percent(score(0.0, &all)),
        percent(score(0.5, &all))
    )?;
    let negative = |s: &Sample| !s.positive;
    writeln!(
        report,
        "| negative examples fired | {} | {} |\n",
        percent(score(0.0, &negative)),
        percent(score(0.5, &negative))
    )?;
    let mut missed: BTreeMap<&str, usize> = BTreeMap::new();
    for (sample, answer) in samples.iter().zip(&answers) {
        if sample.positive && sample.credential && answer.is_empty() {
            *missed.entry(&sample.rule).or_default() += 1;
        }
    }
    let list: Vec<String> = missed
        .iter()
        .map(|(rule, n)| format!("{rule} ({n})"))
        .collect();
    writeln!(
        report,
        "Credential examples not found, by their rule: {}.\n",
        list.join(", ")
    )?;
    let fired: BTreeSet<&str> = samples
        .iter()
        .zip(&answers)
        .filter(|(s, a)| !s.positive && best(a) >= 0.5)
        .map(|(s, _)| s.rule.as_str())
        .collect();
    writeln!(
        report,
        "Rules with a negative example fired at 0.5 and above: {}.\n",
        fired.into_iter().collect::<Vec<_>>().join(", ")
    )?;
    precision(&samples, &answers, report)
}

/// Share of each rule's claims that stand in a positive example: what `confidence` in the rule files is set from.
fn precision(samples: &[Sample], answers: &[Vec<Value>], report: &mut String) -> Result<()> {
    let mut claims: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (sample, answer) in samples.iter().zip(answers) {
        for claim in answer {
            let entry = claims
                .entry(claim["rule"].as_str().unwrap_or_default().to_string())
                .or_default();
            entry.0 += usize::from(sample.positive);
            entry.1 += 1;
        }
    }
    writeln!(
        report,
        "Rules whose claims were not all in positive examples (right/claims):\n"
    )?;
    for (rule, (right, all)) in claims.iter().filter(|(_, (right, all))| right < all) {
        writeln!(report, "- {rule}: {right}/{all}")?;
    }
    report.push('\n');
    Ok(())
}

fn best(answer: &[Value]) -> f64 {
    answer
        .iter()
        .filter_map(|c| c["confidence"].as_f64())
        .fold(0.0, f64::max)
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

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn like(&mut self, b: u8, hex: bool) -> u8 {
        let set: &[u8] = match b {
            _ if hex => b"0123456789abcdef",
            b'0'..=b'9' => b"0123456789",
            b'a'..=b'z' => b"abcdefghijklmnopqrstuvwxyz",
            b'A'..=b'Z' => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            other => return other,
        };
        set[(self.next() % set.len() as u64) as usize]
    }
}

/// Asks the binary; answers in the order of the lines.
fn classify(args: &EvalArgs, lines: &[Value]) -> Result<Vec<Vec<Value>>> {
    let mut child = Command::new(&args.binary)
        .args(["classify", "--jsonl", "--rules-dir", "/nonexistent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| args.binary.display().to_string())?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the classifier")
    };
    let mut out = Vec::with_capacity(lines.len());
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(move || {
            for line in lines {
                if writeln!(stdin, "{line}").is_err() {
                    return;
                }
            }
        });
        for line in BufReader::new(stdout).lines() {
            let answer: Value = serde_json::from_str(&line?)?;
            out.push(
                answer["credentials"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        Ok(())
    })?;
    child.wait()?;
    if out.len() != lines.len() {
        bail!("{} answers to {} questions", out.len(), lines.len());
    }
    Ok(out)
}

fn false_claims(args: &EvalArgs, report: &mut String) -> Result<()> {
    let mut child = Command::new(&args.binary)
        .args([
            "classify",
            "--jsonl",
            "--rules-dir",
            "/nonexistent",
            "--threads",
            "1",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the classifier")
    };
    let (mut files, mut high, mut low) = (0u64, Vec::new(), BTreeMap::<String, u64>::new());
    let started = Instant::now();
    let bytes = std::thread::scope(|scope| -> Result<u64> {
        let feeder = scope.spawn(|| feed(&args.root, stdin));
        for line in BufReader::new(stdout).lines() {
            let answer: Value = serde_json::from_str(&line?)?;
            files += 1;
            for claim in answer["credentials"].as_array().into_iter().flatten() {
                if claim["confidence"].as_f64().unwrap_or_default() >= HIGH {
                    high.push(format!(
                        "{} {} {} at {}",
                        answer["id"].as_str().unwrap_or_default(),
                        claim["rule"].as_str().unwrap_or_default(),
                        claim["identifier"].as_str().unwrap_or_default(),
                        claim["start"]
                    ));
                } else {
                    *low.entry(claim["rule"].as_str().unwrap_or_default().to_string())
                        .or_default() += 1;
                }
            }
        }
        feeder
            .join()
            .map_err(|_| anyhow::anyhow!("the feeder died"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    child.wait()?;
    writeln!(report, "## False claims on {}\n", args.root.display())?;
    writeln!(
        report,
        "{files} files, {:.1} MB of text (files above 8 MiB left out, bytes that are not UTF-8 replaced), one worker, {:.1} s with reading and conversion. Claims at {HIGH} and above: {} = {:.2} per 10,000 files. Every one:\n",
        bytes as f64 / 1e6,
        seconds,
        high.len(),
        high.len() as f64 * 10_000.0 / files.max(1) as f64
    )?;
    for line in &high {
        writeln!(report, "- {line}")?;
    }
    writeln!(
        report,
        "\nClaims below that, by rule: {}.\n",
        low.iter()
            .map(|(r, n)| format!("{r} {n}"))
            .collect::<Vec<_>>()
            .join(", ")
    )
    .context("report")
}

/// Sends every regular file; returns the bytes sent.
fn feed(root: &Path, stdin: std::process::ChildStdin) -> u64 {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, stdin);
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
