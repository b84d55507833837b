//! Counts what test runners report and says it once at the end.

use anyhow::Result;
use std::{process::ExitCode, time::Duration};

/// Precedes, on a line of its own, a second run of what failed, without the others beside it.
pub const AGAIN: &str = "again, alone:";

/// Follows it.
pub const AGAIN_OVER: &str = "again: over";

/// More failures than this in one go have a cause that a second run would only repeat.
pub const AGAIN_MOST: usize = 5;

/// Results of test programs.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// Result lines read: a run without any has executed no test program.
    pub runners: u64,
    /// Tests that failed beside the others and passed alone: named in the summary, each a fault of the test or of
    /// the product that has not been understood.
    pub unsteady: Vec<String>,
    /// Failures since the last second run, in order.
    failing: Vec<String>,
    /// The lines are those of a second run.
    again: bool,
}

impl Tally {
    /// What failed, and has not been run a second time or failed then as well.
    pub fn failing(&self) -> &[String] {
        &self.failing
    }

    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
    pub fn read(&mut self, line: &str) {
        let line = line.trim();
        if line.starts_with(AGAIN) {
            self.again = true;
        } else if line == AGAIN_OVER {
            self.again = false;
            self.failing.clear();
        }
        self.one(line);
        let Some(result) = line.strip_prefix("test result: ").filter(|_| !self.again) else {
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

    /// The line of one test, such as `test a::b ... FAILED`.
    fn one(&mut self, line: &str) {
        let test = line.strip_prefix("test ");
        match test.and_then(|rest| rest.split_once(" ... ")) {
            Some((name, "FAILED")) if !self.again => self.failing.push(name.to_owned()),
            Some((name, "ok")) if self.again => {
                // It was counted as failed. One of the same name that had passed in another program is not.
                if let Some(at) = self.failing.iter().position(|failed| failed == name) {
                    self.unsteady.push(self.failing.remove(at));
                    self.failed = self.failed.saturating_sub(1);
                    self.passed = self.passed.saturating_add(1);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, other: Self) {
        self.unsteady.extend(other.unsteady);
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
                let (failed, runners) = (tally.failed, tally.runners);
                for name in &tally.unsteady {
                    self.note(format!("failed beside the others, passed alone: {name}"));
                }
                self.tally.add(tally);
                if !ok && failed == 0 {
                    self.fail("test command failed without a failed test: see above".to_owned());
                } else if ok && runners == 0 {
                    self.fail("test command ran no test program".to_owned());
                }
                self.failed |= !ok || failed > 0;
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
        sum.add(tally.clone());
    }
    if !sum.unsteady.is_empty() {
        println!(
            "{} of those that passed had failed beside the others: {}",
            sum.unsteady.len(),
            sum.unsteady.join(", ")
        );
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
                runners: 1,
                ..Tally::default()
            }
        );
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            read(bad),
            Tally {
                passed: 1,
                failed: 2,
                skipped: 0,
                runners: 1,
                ..Tally::default()
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
    fn what_passes_alone_is_counted_and_named() {
        let mut tally = Tally::default();
        let read = |tally: &mut Tally, text: &str| text.lines().for_each(|line| tally.read(line));
        read(
            &mut tally,
            "running 1 test\ntest other::x ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored",
        );
        read(
            &mut tally,
            "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... FAILED\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored",
        );
        assert_eq!(tally.failing(), ["other::x", "c", "d"]);
        read(
            &mut tally,
            "again, alone: other::x c d\nrunning 2 tests\ntest c ... FAILED\ntest d ... ok\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n\
             running 2 tests\ntest other::x ... ok\ntest a::b ... ok\ntest result: ok. 2 passed; 0 failed",
        );
        assert_eq!(tally.failing(), ["c"]);
        read(&mut tally, "again: over");
        assert_eq!((tally.passed, tally.failed, tally.runners), (3, 1, 2));
        assert_eq!(tally.unsteady, ["d", "other::x"]);
        read(
            &mut tally,
            "test e ... ok\ntest result: ok. 1 passed; 0 failed",
        );
        assert_eq!((tally.passed, tally.failed), (4, 1));

        let mut part = Part::new("x");
        part.tests(Ok((tally, false)));
        assert!(part.failed);
        assert_eq!(
            part.notes,
            [
                "failed beside the others, passed alone: d",
                "failed beside the others, passed alone: other::x"
            ]
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
