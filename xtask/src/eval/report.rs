//! Writes docs/EVALUATION.md: all of it, so that no number in it is by hand.

use super::Set;
use super::ask::{Claim, Sample};
use super::clean::{Clean, HIGH, explanation};
use super::paths::Score;
use super::titus::Draw;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

pub struct Report {
    text: String,
}

/// What part of a group's name a table is about.
type Part = dyn Fn(&str) -> &str;

/// Mean share over the seeds with its spread.
fn share(scores: &[(usize, usize)]) -> String {
    let percent = |&(hit, all): &(usize, usize)| 100.0 * hit as f64 / all.max(1) as f64;
    let (hit, all) = scores
        .iter()
        .fold((0, 0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
    let least = scores.iter().map(percent).fold(f64::INFINITY, f64::min);
    let most = scores.iter().map(percent).fold(0.0, f64::max);
    format!(
        "{:.1}% ({least:.1} to {most:.1}; {} texts each)",
        percent(&(hit, all)),
        all / scores.len().max(1)
    )
}

/// How a set was answered at a floor of confidence.
fn row(set: &Set, what: &str, aim: &str, wanted: &dyn Fn(&Sample) -> bool) -> String {
    format!(
        "| {what} | {aim} | {} | {} | {} |\n",
        share(&set.score(0.0, wanted)),
        share(&set.score(0.5, wanted)),
        share(&set.score(HIGH, wanted)),
    )
}

const HEAD: &str =
    "| measure | aim | reported at all | 0.5 and above | 0.9 and above |\n|---|---|---|---|---|\n";

impl Report {
    pub fn new(seeds: &[u64]) -> Report {
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        Report {
            text: format!(
                "# How well credentials are recognised\n\nWritten by `cargo xtask eval`; do not edit. The method is in `xtask/src/eval/`. Values are made anew for each of the seeds {}; shares are the mean over them, with the least and the greatest in brackets.\n\n",
                seeds.join(", ")
            ),
        }
    }

    pub fn no_titus(&mut self) {
        self.text.push_str("No checkout of praetorian-inc/titus was given (`--titus` or TITUS_DIR): its examples were not measured.\n\n");
    }

    pub fn titus(&mut self, rules: usize, draws: &[Draw], set: &Set) -> Result<()> {
        let out = &mut self.text;
        writeln!(out, "## Examples of praetorian-inc/titus\n")?;
        if let Some(draw) = draws.first() {
            writeln!(
                out,
                "{rules} rules. With the first seed {} positive examples have fresh values and {} stand as they are, because their rule's expression does not compile here or fits no fresh value. {} negative examples are left out because another rule of the same set claims them or has their value as a positive example: they only say \"not this kind\".\n",
                draw.replaced, draw.kept, draw.shared
            )?;
        }
        out.push_str(HEAD);
        out.push_str(&row(
            set,
            "recall, examples of credentials",
            "at least 95%",
            &|s| s.positive && s.credential,
        ));
        out.push_str(&row(
            set,
            "recall, all examples (with identifiers, hosts, buckets)",
            "at least 80%",
            &|s| s.positive,
        ));
        out.push_str(&row(set, "negative examples fired", "at most 2%", &|s| {
            !s.positive
        }));
        out.push('\n');
        writeln!(
            out,
            "Credential examples not found with the first seed, by their rule: {}.\n",
            groups(set, |s, a| s.positive && s.credential && a.is_empty())
        )?;
        writeln!(
            out,
            "Negative examples fired with the first seed, by their rule: {}.\n",
            groups(set, |s, a| !s.positive && !a.is_empty())
        )?;
        Ok(())
    }

    pub fn generated(&mut self, set: &Set) -> Result<()> {
        let out = &mut self.text;
        writeln!(
            out,
            "## Texts made here\n\nSecrets of issuers' published forms and of people's and programs' making, in notations of source code, configuration, logs, diffs, CI, chat and shell history; and what is mistaken for them (digests, identifiers, lock files, public keys, certificates, references, placeholders, types, translations, documentation).\n"
        )?;
        out.push_str(HEAD);
        out.push_str(&row(
            set,
            "recall, kinds with a form of their own",
            "",
            &|s| s.positive && !s.group.starts_with("generic"),
        ));
        out.push_str(&row(
            set,
            "recall, secrets known by their name only",
            "",
            &|s| s.positive && s.group.starts_with("generic"),
        ));
        out.push_str(&row(set, "look-alikes fired", "at most 2%", &|s| {
            !s.positive && !s.group.starts_with("placeholder")
        }));
        out.push_str(&row(
            set,
            "placeholders and references fired",
            "at most 2%",
            &|s| !s.positive && s.group.starts_with("placeholder"),
        ));
        let (mut exact, mut known) = (0, 0);
        for (sample, claims) in set.pairs() {
            if let Some(secret) = &sample.secret
                && !claims.is_empty()
            {
                known += 1;
                exact += usize::from(
                    claims
                        .iter()
                        .any(|c| sample.text.get(c.start..c.end) == Some(secret.as_str())),
                );
            }
        }
        writeln!(
            out,
            "\nOf {known} claims where the secret's place is known exactly, {exact} ({:.1}%) have exactly its start and end.\n",
            100.0 * exact as f64 / f64::from(known.max(1) as u32)
        )?;
        let both: [(&str, &Part); 2] = [
            ("kind", &|g: &str| g.split(" / ").next().unwrap_or_default()),
            ("notation", &|g: &str| {
                g.split(" / ").nth(1).unwrap_or("a form of its own")
            }),
        ];
        for (what, key) in both {
            let mut count: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            for (sample, claims) in set.pairs().filter(|(s, _)| s.positive) {
                let entry = count.entry(key(&sample.group).to_string()).or_default();
                entry.0 += usize::from(!claims.is_empty());
                entry.1 += 1;
            }
            let weak: Vec<String> = count
                .iter()
                .filter(|(_, (hit, all))| hit < all)
                .map(|(name, (hit, all))| {
                    format!("{name} {:.0}%", 100.0 * *hit as f64 / *all as f64)
                })
                .collect();
            writeln!(out, "Recall below 100% by {what}: {}.\n", or_none(&weak))?;
        }
        writeln!(
            out,
            "Look-alikes fired with the first seed: {}.\n",
            groups(set, |s, a| !s.positive && !a.is_empty())
        )?;
        Ok(())
    }

    pub fn paths(&mut self, score: &Score) -> Result<()> {
        let out = &mut self.text;
        writeln!(
            out,
            "## Places apart from content\n\nThe text is empty; only the path speaks. Usual places known: {}/{} = {:.1}%. Neighbours that hold nothing taken for such: {}/{} = {:.1}%.\n",
            score.known,
            score.of,
            100.0 * score.known as f64 / score.of.max(1) as f64,
            score.claimed,
            score.of_look_alikes,
            100.0 * score.claimed as f64 / score.of_look_alikes.max(1) as f64
        )?;
        writeln!(
            out,
            "Not known: {}. Wrongly taken: {}.\n",
            or_none(&score.missed),
            or_none(&score.wrong)
        )?;
        Ok(())
    }

    /// Claimed against measured precision.
    pub fn calibration(&mut self, sets: &[Set], clean: Option<&Clean>) -> Result<()> {
        const EDGES: [f64; 8] = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97];
        let band = |c: f64| EDGES.iter().rposition(|e| c >= *e).unwrap_or(0);
        // Claims, right ones, sum of what they claimed.
        let mut bands = [(0usize, 0usize, 0.0f64); EDGES.len()];
        let mut rules: BTreeMap<&str, (usize, usize, f64)> = BTreeMap::new();
        for (sample, claims) in sets.iter().flat_map(Set::pairs) {
            // One text is one question: its strongest claim is the answer.
            let Some(claim) = strongest(claims) else {
                continue;
            };
            for entry in [
                &mut bands[band(claim.confidence)],
                rules.entry(&claim.rule).or_default(),
            ] {
                entry.0 += 1;
                entry.1 += usize::from(sample.positive);
                entry.2 += claim.confidence;
            }
        }
        let out = &mut self.text;
        writeln!(
            out,
            "## What a confidence means\n\nThe strongest claim on a text is right when the text holds a credential. Measured over all texts above with all seeds; the last column takes the claims on packaged files in, every one counted as wrong (many are real keys of test data, or published ones). A confidence is a lower bound of both.\n\n| claimed | claims | mean claimed | measured precision | claims on packaged files | precision with those |\n|---|---|---|---|---|---|"
        )?;
        let mut below = Vec::new();
        for (i, (claims, right, sum)) in bands.iter().enumerate() {
            if *claims == 0 {
                continue;
            }
            let upper = EDGES.get(i + 1).copied().unwrap_or(1.0);
            let packaged = clean.map_or(0, |c| {
                c.confidences.iter().filter(|x| band(**x) == i).count()
            });
            let (mean, measured) = (sum / *claims as f64, *right as f64 / *claims as f64);
            let with = *right as f64 / (*claims + packaged) as f64;
            if with < mean {
                below.push(format!(
                    "{:.2} to {upper:.2} ({with:.2} for {mean:.2})",
                    EDGES[i]
                ));
            }
            let last = match clean {
                Some(_) => format!("{packaged} | {with:.3}"),
                None => "not measured | not measured".to_string(),
            };
            writeln!(
                out,
                "| {:.2} to {upper:.2} | {claims} | {mean:.3} | {measured:.3} | {last} |",
                EDGES[i]
            )?;
        }
        writeln!(
            out,
            "\nBands whose measured precision is below what they claim: {}.",
            or_none(&below)
        )?;
        let off: Vec<String> = rules
            .iter()
            .filter(|(_, (claims, right, _))| right < claims)
            .map(|(rule, (claims, right, sum))| {
                format!(
                    "{rule} {right}/{claims} (claims {:.2})",
                    sum / *claims as f64
                )
            })
            .collect();
        writeln!(
            out,
            "\nRules that were wrong at least once (right/claims, mean claimed): {}.\n",
            or_none(&off)
        )?;
        Ok(())
    }

    pub fn clean(&mut self, binary: &Path, root: &Path, clean: &Clean) -> Result<()> {
        let out = &mut self.text;
        writeln!(
            out,
            "## False claims on {}\n\n{} files, {:.1} MB of text (files above 8 MiB left out, bytes that are not UTF-8 replaced), one worker, {:.1} s with reading and conversion, binary {}. Claims at {HIGH} and above: {} = {:.2} per 10,000 files (aim: below 1). Every one:\n",
            root.display(),
            clean.files,
            clean.bytes as f64 / 1e6,
            clean.seconds,
            binary.display(),
            clean.high.len(),
            clean.high.len() as f64 * 10_000.0 / clean.files.max(1) as f64
        )?;
        for (path, claim) in &clean.high {
            writeln!(
                out,
                "- {path}: {} ({:.2}) at {}: {}",
                claim.rule,
                claim.confidence,
                claim.start,
                explanation(path, &claim.rule)
            )?;
        }
        let low: Vec<String> = clean.low.iter().map(|(r, n)| format!("{r} {n}")).collect();
        writeln!(out, "\nClaims below that, by rule: {}.", or_none(&low))?;
        Ok(())
    }

    pub fn finish(self) -> String {
        self.text
    }
}

fn strongest(claims: &[Claim]) -> Option<&Claim> {
    claims
        .iter()
        .max_by(|a, b| a.confidence.total_cmp(&b.confidence))
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() {
        "none".to_string()
    } else {
        list.join(", ")
    }
}

/// Groups of the first draw whose samples answer to a condition, with how many.
fn groups(set: &Set, wanted: impl Fn(&Sample, &[Claim]) -> bool) -> String {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let Some((samples, answers)) = set.draws.first() else {
        return "none".to_string();
    };
    for (sample, answer) in samples.iter().zip(answers) {
        if wanted(sample, answer) {
            *count.entry(&sample.group).or_default() += 1;
        }
    }
    let list: Vec<String> = count.iter().map(|(g, n)| format!("{g} ({n})")).collect();
    or_none(&list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_show_mean_and_spread() {
        assert_eq!(
            share(&[(1, 2), (2, 2)]),
            "75.0% (50.0 to 100.0; 2 texts each)"
        );
        assert_eq!(or_none(&[]), "none");
        assert_eq!(strongest(&[]).map(|c| c.start), None);
    }
}
