//! What each sink can do at a known rate (`tests/src/cases/sinks_rate`), into a table.

use super::report;
use crate::{build, cmd, setup};
use anyhow::{Context as _, Result, bail};

/// Events a second, and how long receivers are away.
const RATE: u64 = 2_000;
const AWAY: u64 = 60;

/// Measures these ways, or all.
pub fn run(ways: &[String], no_install: bool) -> Result<()> {
    setup::ensure(&[setup::Group::Build, setup::Group::Test], no_install)?;
    build::kernel_side(crate::arch::Arch::default())?;
    let sender = ["--package", "keytrail-sink", "--example", "load"];
    cmd::run(cmd::cargo().args(["build", "--release"]).args(sender))?;
    let bench = ["--package", "keytrail-tests", "--bin", "bench_sinks"];
    cmd::run(cmd::cargo().arg("build").args(bench))?;
    let mut command = cmd::clean(cmd::target().join("debug/bench_sinks"));
    command.arg(cmd::target().join("release/examples/load"));
    command.args([RATE, AWAY].map(|n| n.to_string())).args(ways);
    let mut lines = Vec::new();
    let done = cmd::lines(&mut command, |line| lines.push(line.to_owned()))?;
    let stamp = report::commit_and_day();
    let rows: Result<Vec<_>> = lines.iter().map(|line| row(line, &stamp)).collect();
    // What was measured is kept, whatever became of the rest.
    report::write_sinks(&rows?)?;
    if !done {
        bail!("a way failed: see above");
    }
    Ok(())
}

/// `WAY SPEED EVENTS RATE AWAY TWICE SECONDS`, with tabs between, as a line of the table behind its name.
fn row(line: &str, stamp: &str) -> Result<(String, String)> {
    let words: Vec<&str> = line.split('\t').collect();
    let [way, speed, events, rate, away, twice, seconds] = words.as_slice() else {
        bail!("odd result line: {line}");
    };
    let speed: f64 = speed.parse().with_context(|| line.to_owned())?;
    Ok((
        (*way).to_owned(),
        format!(
            "| `{way}` | {speed:.0}/s | {events} at {rate}/s, {away} s away | {twice} | {seconds} s | {stamp} |"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rows() {
        let (way, line) = row("nats\t9000.4\t160000\t2000\t60\t12\t17.5", "abc").unwrap();
        assert_eq!(way, "nats");
        assert_eq!(
            line,
            "| `nats` | 9000/s | 160000 at 2000/s, 60 s away | 12 | 17.5 s | abc |"
        );
        assert!(row("nats\t9000", "abc").is_err());
        assert!(row("nats\tx\t1\t1\t1\t1\t1", "abc").is_err());
    }
}
