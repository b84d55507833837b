//! Turns result lines into docs/BENCHMARKS.md.

use super::{
    Row, measure,
    section::{self, Section},
    stats::{median, spread},
};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeMap, fmt::Write as _, fs};

/// One subject in one row.
#[derive(Debug, PartialEq)]
enum Line {
    Ratio {
        row: Row,
        subject: String,
        without: f64,
        with: f64,
        ratios: Vec<f64>,
        /// Nanoseconds a round of the subject's own processes.
        own: Option<f64>,
        delivered: Option<(u64, u64)>,
    },
    Failed {
        row: Row,
        subject: String,
        reason: String,
    },
    Rest {
        rss_kib: u64,
        peak_kib: u64,
        cpu_percent: f64,
        seconds: f64,
        /// Since its start.
        idle: f64,
    },
    Found {
        row: Row,
        credentials: u64,
        seconds: f64,
        find_seconds: f64,
        peak_kib: u64,
    },
}

/// All that was measured in one place.
#[derive(Debug, PartialEq)]
pub struct Results(Vec<Line>);

impl Results {
    pub fn parse(lines: &[String]) -> Result<Self> {
        let mut parsed = Vec::new();
        for line in lines {
            parsed.push(parse(line).with_context(|| format!("odd result line: {line}"))?);
        }
        if parsed.is_empty() {
            bail!("nothing was measured");
        }
        Ok(Self(parsed))
    }

    /// As lines of a table, and sentences, with when they were measured.
    pub fn section(&self, stamp: &str) -> Section {
        let mut section = Section::default();
        for line in &self.0 {
            if let Some((row, cells)) = cells(line) {
                let name = row.title();
                let line = format!("| {name} | {cells} | {stamp} |");
                section.lines.push((name.to_owned(), line));
            }
            if let Some(sentence) = sentence(line)
                && let Some(name) = section::named(&sentence)
            {
                section.sentences.push((name, sentence));
            }
        }
        section
    }
}

/// All cells of a line of the table but the first and the last.
fn cells(line: &Line) -> Option<(Row, String)> {
    match line {
        Line::Ratio {
            row,
            subject,
            without,
            with,
            ratios,
            own,
            delivered,
        } => {
            let middle = median(ratios).unwrap_or(f64::NAN);
            let (low, high) = spread(ratios).unwrap_or((f64::NAN, f64::NAN));
            let delivered =
                delivered.map_or_else(String::new, |(out, of)| format!("{out} for {of} rounds"));
            let (without, with) = (time(*without), time(*with));
            let own = own.map_or_else(String::new, time);
            let text = format!(
                "{subject} | {without} | {with} | {middle:.2} | {low:.2} to {high:.2} | {own} | {delivered}"
            );
            Some((*row, text))
        }
        Line::Failed {
            row,
            subject,
            reason,
        } => {
            let reason = reason.replace('|', "/");
            let text = format!("{subject} | | | not measured | {reason} | |");
            Some((*row, text))
        }
        Line::Rest { .. } | Line::Found { .. } => None,
    }
}

/// What is reported below the table.
fn sentence(line: &Line) -> Option<String> {
    let mib = |kib: &u64| *kib as f64 / 1024.0;
    Some(match line {
        Line::Rest {
            rss_kib,
            peak_kib,
            cpu_percent,
            seconds,
            idle,
        } => format!(
            "Agent at rest for {seconds:.0} s, {idle:.0} s after its start: {:.1} MiB resident (peak {:.1} MiB), \
             {cpu_percent:.2}% of one core.",
            mib(rss_kib),
            mib(peak_kib),
        ),
        Line::Found {
            row,
            credentials,
            seconds,
            find_seconds,
            peak_kib,
        } => format!(
            "{}: {credentials} credentials found in {seconds:.1} s (limit: 60), by `find` alone {find_seconds:.1} s; \
             peak {:.1} MiB resident.",
            row.title(),
            mib(peak_kib),
        ),
        // Nanoseconds of processor time for a million bytes.
        Line::Ratio {
            row: Row::Classify,
            with,
            own,
            ..
        } => format!(
            "Classification: {:.0} MB/s of one core (aim: 200), and {} once to start.",
            1e9 / with,
            own.map_or_else(String::new, time),
        ),
        Line::Ratio { .. } | Line::Failed { .. } => return None,
    })
}

fn time(nanoseconds: f64) -> String {
    if nanoseconds < 10_000.0 {
        format!("{:.2} us", nanoseconds / 1e3)
    } else if nanoseconds < 10_000_000.0 {
        format!("{:.0} us", nanoseconds / 1e3)
    } else {
        format!("{:.1} ms", nanoseconds / 1e6)
    }
}

fn parse(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line.strip_prefix(measure::MARK)?.split('\t').collect();
    let (row, subject) = (Row::parse(fields.first()?)?, (*fields.get(1)?).to_owned());
    if fields.get(2) == Some(&"failed") {
        return Some(Line::Failed {
            row,
            subject,
            reason: (*fields.get(3)?).to_owned(),
        });
    }
    if row == Row::Rest {
        return Some(Line::Rest {
            rss_kib: fields.get(2)?.parse().ok()?,
            peak_kib: fields.get(3)?.parse().ok()?,
            cpu_percent: fields.get(4)?.parse().ok()?,
            seconds: fields.get(5)?.parse().ok()?,
            idle: fields.get(6)?.parse().ok()?,
        });
    }
    if subject == "found" {
        return Some(Line::Found {
            row,
            credentials: fields.get(2)?.parse().ok()?,
            seconds: fields.get(3)?.parse().ok()?,
            find_seconds: fields.get(4)?.parse().ok()?,
            peak_kib: fields.get(5)?.parse().ok()?,
        });
    }
    let ratios = fields
        .get(4)?
        .split(',')
        .map(|ratio| ratio.parse().ok())
        .collect::<Option<Vec<f64>>>()?;
    let expected = fields.get(7)?.parse().ok()?;
    Some(Line::Ratio {
        row,
        subject,
        without: fields.get(2)?.parse().ok()?,
        with: fields.get(3)?.parse().ok()?,
        ratios,
        own: fields.get(5)?.parse().ok(),
        delivered: fields.get(6)?.parse().ok().map(|count| (count, expected)),
    })
}

const FILE: &str = "docs/BENCHMARKS.md";

const HEAD: &str = "# Benchmarks

What keytrail costs a workload, beside what peers cost the same workload. Who holds a credential comes first: every
server does.
Written by `cargo xtask bench` (this machine) and `cargo xtask bench --vm` (a booted kernel), of all rows or of those that
are named; not edited by hand.

Each ratio is the time with the subject over the time without it, of two runs right after each other; the order
of the two changes with every pair, the median of the ratios is given with their smallest and largest value.
\"nothing (control)\" is two runs without anything: what differs there is noise. A peer that delivers fewer events
than it should is cheap for that reason, so what it delivered stands beside it (warm-up rounds included). What the
subject's own process used of a processor meanwhile stands there too: the load does not wait for it.
The classifier stands beside what a line of shell would do: `grep -c -E` with six patterns, on the same text.
";

/// Puts the results into the report, in place of the last ones of the same rows and the same place.
pub fn write(results: &Results, place: &str, vm: bool, pairs: u32) -> Result<()> {
    let path = cmd::root().join(FILE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let name = if vm { "vm" } else { "host" };
    let title = if vm {
        "In a booted kernel"
    } else {
        "On this machine"
    };
    let command = if vm {
        "cargo xtask bench --vm"
    } else {
        "cargo xtask bench"
    };
    let mut section = format!("## {title}\n\n`{command}`, {place}, {}.\n", machine());
    if vm {
        section.push_str(
            "Times are processor time of the load, kernel hooks included. The guest's clock counts executed instructions \
             (QEMU's `-icount`, 1 ns each, one processor), so they depend on nothing else on the machine; what the \
             subject's own process used of that one processor stands beside them.\n",
        );
    }
    section.push('\n');
    let before = section_of(&old, name).map_or_else(Section::default, Section::parse);
    let measured = results.section(&stamp(pairs)).over(before);
    section.push_str(&measured.text());
    put(name, &section)
}

/// Puts a section into the page in place of the one of that name; the others stay.
fn put(name: &str, section: &str) -> Result<()> {
    let path = cmd::root().join(FILE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let sections = SECTIONS.into_iter().filter_map(|of| match of == name {
        true => Some((of, section.to_owned())),
        false => Some((of, section_of(&old, of)?.to_owned())),
    });
    let mut text = HEAD.to_owned();
    for (name, section) in sections {
        let _ = write!(
            text,
            "\n<!-- {name} -->\n{}\n<!-- end {name} -->\n",
            section.trim()
        );
    }
    fs::create_dir_all(cmd::root().join("docs"))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    cmd::step(format!("wrote {FILE}"));
    Ok(())
}

/// Writes what sinks can do: lines of a table, each with the name of its way.
pub fn write_sinks(lines: &[(String, String)]) -> Result<()> {
    let old = fs::read_to_string(cmd::root().join(FILE)).unwrap_or_default();
    let before = section_of(&old, "sinks").unwrap_or_default().to_owned();
    let mut rows: BTreeMap<String, String> = before
        .lines()
        .filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0, line)))
        .map(|(name, line)| (name.to_owned(), line.to_owned()))
        .collect();
    rows.extend(lines.iter().cloned());
    let rows: String = rows.into_values().map(|line| line + "\n").collect();
    put(
        "sinks",
        &format!(
            "## What sinks can do\n\n`cargo xtask bench --sinks`, {}.\n{SINKS}\n{rows}",
            machine()
        ),
    )
}

fn section_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n"))?;
    rest.split_once(&format!("\n<!-- end {name} -->"))
        .map(|(section, _)| section)
}

/// Sections of the page, in their order.
const SECTIONS: [&str; 3] = ["host", "sinks", "vm"];

/// What the table of sinks is about.
const SINKS: &str = "A ledger and one sink, as an agent has them, without sensors; receivers on the same two processors, real ones where there \
are any (rsyslog, Rotel, nats-server, SeaweedFS, the brokers of librdkafka; otherwise a few lines of Python). *Speed*: 60,000 events \
(10,000 for Kafka: those brokers keep no more) wait in the ledger until the last is acknowledged. *Under load*: so many events a second are recorded, the receiver is killed for \
a time (rsyslog and Rotel end in peace; a file and those brokers are not away at all), the agent is killed 20 times over the \
whole time. Every event that is in the ledger at the end has to be at the receiver; what is there twice has the same id.

| way | speed | under load | came twice | caught up after | measured at |
|---|---:|---|---:|---:|---|";

/// Processor and cores.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(": ")
                .map(|(_, model)| model)
        })
        .unwrap_or("unknown processor");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{model}, {cores} cores")
}

/// Commit, day, and how often.
pub fn stamp(pairs: u32) -> String {
    format!("{}, {pairs} pairs", commit_and_day())
}

/// Of what was measured, and when.
pub fn commit_and_day() -> String {
    let line = |program: &str, args: &[&str]| {
        cmd::output(cmd::clean(program).args(args).current_dir(cmd::root()))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let commit = line("git", &["rev-parse", "--short", "HEAD"]);
    let day = line("date", &["-u", "+%F"]);
    format!("{commit}, {day}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<String> {
        [
            "BENCH\tfile\tkeytrail\t800.0\t880.0\t1.1000,1.0500,1.2000\t250.0\t-\t600000",
            "BENCH\tfile\topensnoop\t800.0\t1600.0\t2.0000\t-\t190000\t200000",
            "BENCH\ttls\tbpftrace\tfailed\tno | bpftrace",
            "BENCH\trest\tkeytrail\t20480\t30720\t0.100\t30\t45",
            "BENCH\tinventory\tfound\t10000\t4.11\t0.57\t91136",
            "BENCH\tclassify\tgrep -c -E, six patterns\t4000000.0\t5000000.0\t1.2500,1.2000\t120000000.0\t-\t256",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn a_table_of_results() {
        let table = Results::parse(&lines()).unwrap().section("abc").text();
        let expected = "| open+read+close, unwatched file | keytrail | 0.80 us | 0.88 us | 1.10 | 1.05 to 1.20 | 0.25 us |  | abc |";
        assert!(table.contains(expected), "{table}");
        assert!(table.contains("190000 for 200000 rounds"), "{table}");
        assert!(table.contains("not measured | no / bpftrace"), "{table}");
        assert!(
            table.contains("20.0 MiB resident (peak 30.0 MiB), 0.10% of one core"),
            "{table}"
        );
    }

    #[test]
    fn what_was_found_and_how_fast_is_reported() {
        let table = Results::parse(&lines()).unwrap().section("abc").text();
        for sentence in [
            "10000 credentials found in 4.1 s (limit: 60), by `find` alone 0.6 s; peak 89.0 MiB resident.",
            "Classification: 200 MB/s of one core (aim: 200), and 120.0 ms once to start.",
        ] {
            assert!(table.contains(sentence), "{table}");
        }
    }

    #[test]
    fn odd_lines_are_refused() {
        for odd in [
            "BENCH\tfile\tx",
            "BENCH\tinventory\tfound\t10000",
            "BENCH\tnone\tx\t1\t2\t3\t-\t-\t4",
            "BENCH\tfile\tx\t1\t2\ta\t-\t-\t4",
            "x",
        ] {
            assert!(Results::parse(&[odd.to_owned()]).is_err(), "{odd}");
        }
        assert!(Results::parse(&[]).is_err());
    }

    #[test]
    fn a_section_is_found_again() {
        let text =
            "head\n<!-- host -->\nabc\n<!-- end host -->\n<!-- vm -->\nxyz\n<!-- end vm -->\n";
        assert_eq!(section_of(text, "host"), Some("abc"));
        assert_eq!(section_of(text, "vm"), Some("xyz"));
        assert_eq!(section_of(text, "none"), None);
    }
}
