//! `keytrail classify --jsonl` beside `grep` on the same bytes: processor time, so that one core is what counts.

use super::{
    Row,
    measure::{self, MARK},
    stats::median,
    text::{self, Random},
};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Bytes of text in one question, as a program reads or sends them at once.
const PIECE: usize = 8 << 10;
/// One piece in so many holds a credential.
const PLANTED: u64 = 50;
/// Six forms that a line of shell would look for.
const PATTERNS: &str = "gh[pousr]_[0-9A-Za-z]{36}|AKIA[0-9A-Z]{16}|glpat-[0-9A-Za-z_-]{20}|\
    xox[abp]-[0-9A-Za-z-]{20,}|sk_live_[0-9A-Za-z]{24,}|-----BEGIN [A-Z ]*PRIVATE KEY-----";

/// Measures over so many megabytes and prints the line of results.
pub fn run(agent: &Path, work: &Path, megabytes: u32, pairs: u32) -> Result<()> {
    let name = Row::Classify.name();
    cmd::step(format!("{name}: {megabytes} MB of text"));
    let questions = Questions::write(work, u64::from(megabytes) * 1_000_000)?;
    let nothing = work.join("nothing.jsonl");
    File::create(&nothing)?;
    let answers = work.join("answers.jsonl");
    let classify = |input: &Path| -> Result<f64> {
        let mut command = cmd::clean(agent);
        command
            .args(["classify", "--jsonl", "--threads", "1"])
            .args(["--rules-dir", "/nonexistent"])
            .env("HOME", work);
        spent(&mut command, input, &answers)
    };
    let grep = || -> Result<f64> {
        let mut command = cmd::clean("grep");
        command.args(["-c", "-E", PATTERNS]).env("LC_ALL", "C");
        spent(&mut command, &questions.file, &work.join("grepped"))
    };
    // Once for the page cache.
    grep()?;
    let (mut greps, mut classifies, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..pairs {
        cmd::step(format!("{name}: pair {}", number + 1));
        // Rules are compiled once, whatever comes: that is told apart.
        let start = classify(&nothing)?;
        let first = number % 2 == 0;
        let mut beside = if first { grep()? } else { 0.0 };
        let took = classify(&questions.file)?;
        questions.check(&answers)?;
        if !first {
            beside = grep()?;
        }
        starts.push(start);
        greps.push(beside);
        classifies.push(took - start);
    }
    let mut ratios = String::new();
    for (with, without) in classifies.iter().zip(&greps) {
        let comma = if ratios.is_empty() { "" } else { "," };
        write!(ratios, "{comma}{:.4}", with / without)?;
    }
    let per_megabyte =
        |seconds: &[f64]| median(seconds).unwrap_or_default() * 1e15 / questions.size as f64;
    println!(
        "{MARK}{name}\tgrep -c -E, six patterns\t{:.1}\t{:.1}\t{ratios}\t{:.1}\t-\t{megabytes}",
        per_megabyte(&greps),
        per_megabyte(&classifies),
        median(&starts).unwrap_or_default() * 1e9,
    );
    Ok(())
}

/// A file of questions: programs and documents as packages bring them, a log, settings, and what looks random and is
/// no credential, with a credential here and there.
struct Questions {
    file: PathBuf,
    size: u64,
    lines: usize,
    planted: usize,
}

impl Questions {
    fn write(work: &Path, size: u64) -> Result<Self> {
        let file = work.join("questions.jsonl");
        let mut out = BufWriter::new(File::create(&file)?);
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let packaged = String::from_utf8_lossy(&text::packaged()?).into_owned();
        let (mut written, mut lines, mut planted) = (0, 0, 0);
        let mut line = String::new();
        while written < size {
            line.clear();
            write!(line, "{{\"id\":{lines},\"text\":\"")?;
            match random.below(10) {
                0..6 => {
                    let from = random.below((packaged.len() - 2 * PIECE) as u64) as usize;
                    let from = packaged.ceil_char_boundary(from);
                    let to = packaged.ceil_char_boundary(from + PIECE);
                    escape(&mut line, packaged.get(from..to).unwrap_or_default());
                }
                kind => {
                    let end = line.len() + PIECE;
                    while line.len() < end {
                        made_up(&mut line, kind, &mut random)?;
                    }
                }
            }
            if random.below(PLANTED) == 0 {
                write!(line, "\\ntoken = \\\"{}\\\"\\n", random.github())?;
                planted += 1;
            }
            line.push_str("\"}\n");
            out.write_all(line.as_bytes())?;
            written += line.len() as u64;
            lines += 1;
        }
        out.flush()?;
        Ok(Self {
            file,
            size: written,
            lines,
            planted,
        })
    }

    /// Fast and wrong is not fast. Packaged text may hold more, of test data.
    fn check(&self, answers: &Path) -> Result<()> {
        let text = fs::read_to_string(answers)?;
        let found = text.matches("\"kind\":\"github-token\"").count();
        if text.lines().count() != self.lines || found < self.planted {
            bail!(
                "{} answers to {} questions, {found} of {} credentials",
                text.lines().count(),
                self.lines,
                self.planted
            );
        }
        Ok(())
    }
}

/// A line of a log, of settings, or of noise, escaped as JSON wants it.
fn made_up(line: &mut String, kind: u64, random: &mut Random) -> Result<()> {
    const LEVELS: [&str; 4] = ["INFO", "WARN", "DEBUG", "ERROR"];
    let (one, two) = (random.next(), random.next());
    match kind {
        6 | 7 => write!(
            line,
            "2026-03-0{}T1{}:{:02}:{:02}.{:03}Z {} orders::http request=\\\"GET /v1/orders/{}\\\" status={} took={}us trace={one:016x}\\n",
            1 + one % 9,
            two % 10,
            one % 60,
            two % 60,
            one % 1000,
            LEVELS[(two % 4) as usize],
            one % 100_000,
            200 + two % 300,
            one % 9999,
        )?,
        8 => write!(
            line,
            "ORDERS_{}_TIMEOUT={}\\nORDERS_{}_URL=https://orders-{}.example.internal:{}/v1\\n",
            one % 100,
            two % 1000,
            two % 100,
            one % 50,
            8000 + two % 999,
        )?,
        _ => write!(
            line,
            "{one:016x}{two:016x} sha256:{two:016x}{one:016x}{:016x}{:016x}\\n",
            one.rotate_left(7) ^ two,
            two.rotate_left(9) ^ one
        )?,
    }
    Ok(())
}

/// RFC 8259, section 7.
fn escape(line: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            '\0'..' ' => line.push(' '),
            _ => line.push(letter),
        }
    }
}

/// Seconds of processor time of a command, from its start to its end.
fn spent(command: &mut Command, input: &Path, output: &Path) -> Result<f64> {
    let before = measure::childrens_ticks()?;
    let status = command
        .stdin(File::open(input)?)
        .stdout(File::create(output)?)
        .status()
        .with_context(|| format!("cannot start {}", cmd::show(command)))?;
    // 1 is grep's word for nothing found.
    if !matches!(status.code(), Some(0 | 1)) {
        bail!("{} ended with {status}", cmd::show(command));
    }
    // USER_HZ is 100 on every architecture Linux has BPF on.
    Ok(measure::childrens_ticks()?.saturating_sub(before) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_json_on_one_line() {
        let mut line = String::new();
        escape(&mut line, "a\"b\\c\nd\te\u{1}f\u{e9}");
        assert_eq!(line, "a\\\"b\\\\c\\nd\\te f\u{e9}");
        for kind in 6..10 {
            let mut line = String::new();
            made_up(&mut line, kind, &mut Random(5)).unwrap();
            assert!(line.ends_with("\\n") && !line.contains('\n'), "{line}");
        }
    }
}
