//! Counts what test runners report and says it once at the end.

use anyhow::Result;
use std::{process::ExitCode, time::Duration};

/// Results of test programs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// Result lines read: a run without any has executed no test program.
    pub runners: u64,
}

impl Tally {
    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
    pub fn read(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let mut one = Self {
            runners: 1,
            ..Self::default()
        };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for field in counts.split(';') {
            let Some((number, what)) = field.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => one.passed = number,
                "failed" => one.failed = number,
                "ignored" => one.skipped = number,
                _ => {}
            }
        }
        self.add(one);
    }

    fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.runners = self.runners.saturating_add(other.runners);
    }
}

/// One part of a test run.
pub struct Part {
    name: String,
    tally: Tally,
    /// What was done besides test programs, and how it ended.
    notes: Vec<String>,
    failed: bool,
}

impl Part {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tally: Tally::default(),
            notes: Vec::new(),
            failed: false,
        }
    }

    /// A check that is no test program: its failure fails the part.
    pub fn check(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.note(format!("{name} ok")),
            Err(error) => self.fail(format!("{name} FAILED: {error:#}")),
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// A failure that no test program has counted counts as one, so that the closing line cannot say
    /// "0 failed" of a run that failed.
    pub fn fail(&mut self, text: String) {
        eprintln!("xtask: {}: {text}", self.name);
        self.notes.push(text);
        self.tally.failed = self.tally.failed.saturating_add(1);
        self.failed = true;
    }

    /// What test programs reported, and whether their command succeeded.
    pub fn tests(&mut self, outcome: Result<(Tally, bool)>) {
        match outcome {
            Ok((tally, ok)) => {
                self.tally.add(tally);
                if !ok && tally.failed == 0 {
                    self.fail("test command failed without a failed test: see above".to_owned());
                } else if ok && tally.runners == 0 {
                    self.fail("test command ran no test program".to_owned());
                }
                self.failed |= !ok || tally.failed > 0;
            }
            Err(error) => self.fail(format!("{error:#}")),
        }
    }
}

/// Prints each part and, as the last line, the sum.
pub fn print(parts: &[Part], elapsed: Duration) -> ExitCode {
    let mut sum = Tally::default();
    println!("\nsummary ({:.0} s)", elapsed.as_secs_f32());
    for Part {
        name, tally, notes, ..
    } in parts
    {
        println!(
            "  {name:12} {:5} passed {:4} failed {:4} skipped",
            tally.passed, tally.failed, tally.skipped
        );
        for note in notes {
            for line in note.lines() {
                println!("  {:12}   {line}", "");
            }
        }
        sum.add(*tally);
    }
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.skipped
    );
    let failed = sum.failed > 0 || parts.iter().any(|part| part.failed);
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn read(line: &str) -> Tally {
        let mut tally = Tally::default();
        tally.read(line);
        tally
    }

    #[test]
    fn result_lines() {
        let ok = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s";
        assert_eq!(
            read(ok),
            Tally {
                passed: 3,
                failed: 0,
                skipped: 1,
                runners: 1
            }
        );
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            read(bad),
            Tally {
                passed: 1,
                failed: 2,
                skipped: 0,
                runners: 1
            }
        );
        assert_eq!(read("test a::b ... ok"), Tally::default());
        assert_eq!(
            read("test result: ok. nonsense passed;"),
            Tally {
                runners: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn a_failure_nobody_counted_is_counted() {
        let mut part = Part::new("x");
        part.tests(Ok((
            Tally {
                passed: 1,
                runners: 1,
                ..Tally::default()
            },
            false,
        )));
        assert_eq!(
            (part.tally.passed, part.tally.failed, part.failed),
            (1, 1, true)
        );

        let mut part = Part::new("x");
        part.check("clippy", Err(anyhow!("warnings")));
        assert_eq!((part.tally.failed, part.failed), (1, true));

        let mut part = Part::new("x");
        part.tests(Ok((Tally::default(), true)));
        assert!(
            part.failed,
            "a command that ran no test program proves nothing"
        );
    }

    #[test]
    fn a_failed_test_is_counted_once() {
        let mut part = Part::new("x");
        part.tests(Ok((
            Tally {
                failed: 2,
                runners: 1,
                ..Tally::default()
            },
            false,
        )));
        assert_eq!((part.tally.failed, part.failed), (2, true));
    }
}
