//! `cargo xtask eval`: how good the recognition of credentials is, measured.
//!
//! Recall and false alarms on the examples of praetorian-inc/titus and on texts made here, each with several seeds; paths
//! apart from content; how often a claim of each confidence is right; false claims on this machine's own files. Writes
//! docs/EVALUATION.md wholly. Everything goes through `keytrail classify --jsonl`, as a user would.

mod ask;
mod clean;
mod generated;
mod paths;
mod random;
mod report;
mod titus;

use anyhow::{Context, Result, bail};
use ask::{Claim, Sample};
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Options of the evaluation.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// A checkout of github.com/praetorian-inc/titus (its pkg/ directory is read); else the one TITUS_DIR names.
    #[arg(long, value_name = "DIR")]
    titus: Option<PathBuf>,
    /// Directory walked for false claims.
    #[arg(long, default_value = "/usr", value_name = "DIR")]
    root: PathBuf,
    /// Leave the walk out (the report says so).
    #[arg(long)]
    no_root: bool,
    /// The binary under test (a release build: the throughput is measured with it).
    #[arg(long, default_value = "target/release/keytrail", value_name = "FILE")]
    binary: PathBuf,
    /// Seeds of the values: everything is measured once with each.
    #[arg(long, default_values_t = [1, 2, 3, 4, 5], num_args = 1.., value_name = "N")]
    seeds: Vec<u64>,
    /// Where the report goes.
    #[arg(long, default_value = "docs/EVALUATION.md", value_name = "FILE")]
    output: PathBuf,
    /// Also write every wrong answer of the first seed as a line of JSON: what to inspect. Holds the examples' text.
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,
}

/// Samples with the claims made about each.
type Answered = (Vec<Sample>, Vec<Vec<Claim>>);

/// A set of samples with the claims made about it, once for each seed.
struct Set {
    draws: Vec<Answered>,
}

impl Set {
    fn ask(binary: &Path, draws: impl Iterator<Item = Vec<Sample>>) -> Result<Set> {
        let mut set = Set { draws: Vec::new() };
        for samples in draws {
            let claims = ask::ask(binary, &samples)?;
            set.draws.push((samples, claims));
        }
        Ok(set)
    }

    /// Hits and number of the samples asked for, in each draw. A hit is a claim of at least that confidence.
    fn score(&self, floor: f64, wanted: impl Fn(&Sample) -> bool) -> Vec<(usize, usize)> {
        self.draws
            .iter()
            .map(|(samples, answers)| {
                let chosen = samples.iter().zip(answers).filter(|(s, _)| wanted(s));
                let hit = chosen
                    .clone()
                    .filter(|(_, a)| ask::best(a).is_some_and(|c| c >= floor))
                    .count();
                (hit, chosen.count())
            })
            .collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (&Sample, &Vec<Claim>)> {
        self.draws
            .iter()
            .flat_map(|(samples, answers)| samples.iter().zip(answers))
    }
}

/// Runs the evaluation and writes the report.
pub fn run(args: EvalArgs) -> Result<()> {
    if !args.binary.exists() {
        bail!(
            "{} is not there; build it with `cargo build --release -p keytrail`",
            args.binary.display()
        );
    }
    let titus = args
        .titus
        .clone()
        .or_else(|| std::env::var_os("TITUS_DIR").map(PathBuf::from));
    let mut report = report::Report::new(&args.seeds);
    let mut sets = Vec::new();
    match &titus {
        Some(dir) => {
            let titus = titus::Titus::load(dir)?;
            let mut draws: Vec<titus::Draw> = args.seeds.iter().map(|s| titus.draw(*s)).collect();
            let set = Set::ask(
                &args.binary,
                draws.iter_mut().map(|d| std::mem::take(&mut d.samples)),
            )?;
            report.titus(titus.rules(), &draws, &set)?;
            sets.push(set);
        }
        None => report.no_titus(),
    }
    let made = Set::ask(
        &args.binary,
        args.seeds.iter().map(|s| {
            let mut samples = generated::positives(*s);
            samples.extend(generated::negatives(*s));
            samples
        }),
    )?;
    report.generated(&made)?;
    sets.push(made);
    report.paths(&paths::run(&args.binary)?)?;
    let clean = match args.no_root {
        true => None,
        false => Some(clean::run(&args.binary, &args.root)?),
    };
    report.calibration(&sets, clean.as_ref())?;
    if let Some(clean) = &clean {
        report.clean(&args.binary, &args.root, clean)?;
    }
    if let Some(file) = &args.details {
        details(file, &sets)?;
    }
    let text = report.finish();
    if let Some(parent) = args.output.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&args.output, &text).with_context(|| args.output.display().to_string())?;
    println!("{text}");
    Ok(())
}

/// What was missed, and what was claimed where nothing is.
fn details(file: &Path, sets: &[Set]) -> Result<()> {
    let mut out = std::fs::File::create(file).with_context(|| file.display().to_string())?;
    for (samples, answers) in sets.iter().filter_map(|s| s.draws.first()) {
        for (sample, answer) in samples.iter().zip(answers) {
            let best = ask::best(answer);
            if sample.positive && best.is_none_or(|c| c < 0.5) || !sample.positive && best.is_some()
            {
                let claims: Vec<_> = answer
                    .iter()
                    .map(|c| json!([c.rule, c.confidence, sample.text.get(c.start..c.end)]))
                    .collect();
                writeln!(
                    out,
                    "{}",
                    json!({"group": sample.group, "positive": sample.positive, "credential": sample.credential, "claims": claims, "text": sample.text})
                )?;
            }
        }
    }
    Ok(())
}
