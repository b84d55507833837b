//! A section of docs/BENCHMARKS.md: what was measured now takes the place of what was there of the same rows, the others stay.

use super::Row;
use std::fmt::Write as _;

const HEADING: &str = "| work | beside it | without | with | ratio, median | spread | its own time a round | events delivered | measured at |\n\
    |---|---|---:|---:|---:|---|---:|---|---|\n";
/// Cells of a line before it had the last one.
const BEFORE: usize = 8;

/// Lines of the table and sentences below it, each with the name of its row.
#[derive(Default)]
pub struct Section {
    pub lines: Vec<(String, String)>,
    pub sentences: Vec<(String, String)>,
}

impl Section {
    /// Reads a section as it was written.
    pub fn parse(text: &str) -> Self {
        // Sections of before had one commit for all.
        let stamp = text
            .split_once(", commit ")
            .and_then(|(_, rest)| rest.split_once(".\n"))
            .map_or("", |(stamp, _)| stamp);
        let mut section = Self::default();
        for line in text.lines() {
            if let Some(cells) = line.strip_prefix("| ") {
                let (name, _) = cells.split_once(" |").unwrap_or((cells, ""));
                let whole = match line.matches('|').count() - 1 {
                    BEFORE => format!("{line} {stamp} |"),
                    _ => line.to_owned(),
                };
                section.lines.push((name.to_owned(), whole));
            } else if let Some(name) = named(line) {
                section.sentences.push((name, line.to_owned()));
            }
        }
        section
    }

    /// Takes what is of rows that `self` does not have, in the order of all rows.
    pub fn over(mut self, old: Self) -> Self {
        self.lines = merged(self.lines, old.lines);
        self.sentences = merged(self.sentences, old.sentences);
        self
    }

    pub fn text(&self) -> String {
        let mut text = HEADING.to_owned();
        for (_, line) in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        for (_, sentence) in &self.sentences {
            let _ = write!(text, "\n{sentence}\n");
        }
        text
    }
}

/// The row that a sentence is about.
pub fn named(sentence: &str) -> Option<String> {
    let mut names = Row::all().iter().map(|row| name_of(*row));
    let found = names.find(|name| sentence.starts_with(name));
    found.map(str::to_owned)
}

/// What a sentence about a row begins with.
fn name_of(row: Row) -> &'static str {
    match row {
        Row::Rest => "Agent at rest",
        Row::Classify => "Classification",
        row => row.title(),
    }
}

fn merged(new: Vec<(String, String)>, old: Vec<(String, String)>) -> Vec<(String, String)> {
    let place = |name: &str| {
        let is = |row: &Row| name == row.title() || name == name_of(*row);
        Row::all().iter().position(is)
    };
    let mut all: Vec<(String, String)> = old
        .into_iter()
        .filter(|(name, _)| !new.iter().any(|(other, _)| other == name))
        // A row that is not measured any more has no place.
        .filter(|(name, _)| place(name).is_some())
        .collect();
    all.extend(new);
    all.sort_by_key(|(name, _)| place(name));
    all
}

#[cfg(test)]
mod tests {
    use super::Section;

    #[test]
    fn rows_that_were_measured_take_the_place_of_the_old_ones() {
        let old = Section::parse(
            "## On this machine\n\n`cargo xtask bench --pairs 3`, kernel, CPU, 2 cores, commit abc, 2026-11-22.\n\n\
             | work | beside it | without |\n|---|---|---|\n\
             | git clone by a holder (aim: 1.05) | keytrail | 1 | 2 | 3 | 4 | 5 | 6 |\n\
             | SSL_write of 1 KiB, no credentials | keytrail | 1 | 2 | 3 | 4 | 5 | 6 |\n\
             | what nobody measures | keytrail | 1 | 2 | 3 | 4 | 5 | 6 |\n\n\
             Agent at rest for 30 s: 1 MiB.\n\nClassification: 144 MB/s\n",
        );
        let new = Section {
            lines: vec![(
                "SSL_write of 1 KiB, no credentials".to_owned(),
                "| SSL_write of 1 KiB, no credentials | keytrail | new |".to_owned(),
            )],
            sentences: vec![("Agent at rest".to_owned(), "Agent at rest: new".to_owned())],
        };
        let text = new.over(old).text();
        let lines: Vec<&str> = text.lines().skip(2).filter(|l| !l.is_empty()).collect();
        assert_eq!(
            lines,
            [
                "| git clone by a holder (aim: 1.05) | keytrail | 1 | 2 | 3 | 4 | 5 | 6 | abc, 2026-11-22 |",
                "| SSL_write of 1 KiB, no credentials | keytrail | new |",
                "Agent at rest: new",
                "Classification: 144 MB/s",
            ]
        );
    }
}
