//! Aligned columns, the worst first, with a footer that says what was not seen.

use super::columns::{Column, fitted};
use crate::output::{Colour, Cut, Style, Table, escape, fit};
use keytrail_inventory::clock::span;
use keytrail_inventory::diff::Change;
use keytrail_inventory::model::{Area, Class, Entry, Location};
use keytrail_inventory::run::Document;
use keytrail_inventory::state::Run;
use keytrail_inventory::walk::Report;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of each list in the footer.
const LISTED: usize = 5;

/// What is said of a credential; what it is, what it may do, how it is exposed and where it is come before the rest.
const COLUMNS: &[Column] = &[
    Column::new("KIND", 16, 0),
    Column::new("IDENTIFIER", 14, 3),
    Column::new("FINGERPRINT", 16, 5),
    Column::new("PRIV", 6, 0),
    Column::new("AGE", 4, 2),
    Column::new("OWNER", 10, 4),
    Column::new("EXPOSURE", 16, 0),
    Column::new("WHERE", 24, 0),
];

const CHANGES: &[Column] = &[
    Column::new("CHANGE", 8, 0),
    Column::new("KIND", 16, 0),
    Column::new("IDENTIFIER", 14, 1),
    Column::new("FINGERPRINT", 16, 2),
    Column::new("WHAT", 16, 0),
    Column::new("WHERE", 24, 0),
];

/// The table of credentials and the footer.
#[must_use]
pub fn inventory(document: &Document, report: &Report, shown: &[&Entry], style: &Style) -> String {
    let mut out = String::new();
    let now = document.run.started;
    let rows: Vec<(Vec<String>, Colour)> = shown.iter().map(|e| (row(e, now), colour(e))).collect();
    if rows.is_empty() {
        out.push_str("No credentials found.\n");
    } else {
        let (table, left_out) = render(COLUMNS, &rows, style);
        out.push_str(&table);
        note_left_out(&mut out, &left_out);
    }
    footer(&mut out, document, report, shown);
    out
}

/// The table of changes.
#[must_use]
pub fn changes(before: &Run, after: &Run, changes: &[Change], style: &Style) -> String {
    let mut out = String::new();
    let now = after.started;
    let rows: Vec<(Vec<String>, Colour)> = changes
        .iter()
        .map(|change| {
            let entry = change.entry();
            let c = &entry.credential;
            let what = match change {
                Change::Added(_) => exposures(entry),
                Change::Removed(_) => String::new(),
                Change::Rotated { old, .. } => {
                    format!("was {}", short(&old.credential.fingerprint))
                }
                Change::Moved { left, entered, .. } => {
                    format!(
                        "-{} +{}: {}",
                        left.len(),
                        entered.len(),
                        entered.first().or(left.first()).map_or("", String::as_str)
                    )
                }
                Change::Exposed { exposures, .. } => exposures
                    .iter()
                    .map(|e| e.code.as_str())
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            let colour = match change {
                Change::Exposed { .. } => Colour::Red,
                Change::Added(_) => Colour::Yellow,
                Change::Rotated { .. } => Colour::Green,
                _ => Colour::Plain,
            };
            let cells = vec![
                change.name().to_owned(),
                c.kind.clone(),
                c.identifier.clone(),
                short(&c.fingerprint).to_owned(),
                what,
                places(entry),
            ];
            (cells, colour)
        })
        .collect();
    if rows.is_empty() {
        out.push_str("Nothing changed.\n");
    } else {
        let (table, left_out) = render(CHANGES, &rows, style);
        out.push_str(&table);
        note_left_out(&mut out, &left_out);
    }
    let _ = writeln!(
        out,
        "\n{} in {} within {}",
        counted(changes.len() as u64, "change", "changes"),
        escape(&after.root),
        span(now - before.started)
    );
    if before.processes != after.processes {
        out.push_str(
            "only one of the two inspected processes: what is only in processes is left out\n",
        );
    }
    if before.unreadable != after.unreadable {
        let _ = writeln!(
            out,
            "unreadable then {}, now {}: what is \"added\" or \"removed\" may only have become readable or unreadable",
            before.unreadable, after.unreadable
        );
    }
    out
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

fn row(entry: &Entry, now: i64) -> Vec<String> {
    let c = &entry.credential;
    let privilege = match c.privilege {
        1 => "1 root",
        2 => "2 high",
        3 => "3 some",
        4 => "4 low",
        _ => "?",
    };
    let kind = match entry.class {
        Class::Secret => c.kind.clone(),
        class => format!("{} ({})", c.kind, class.name()),
    };
    let age = if entry.rotated.is_some() {
        format!("{} (rotated)", span(now - entry.since()))
    } else {
        span(now - entry.since())
    };
    vec![
        kind,
        c.identifier.clone(),
        short(&c.fingerprint).to_owned(),
        privilege.to_owned(),
        age,
        owner(entry),
        exposures(entry),
        places(entry),
    ]
}

fn colour(entry: &Entry) -> Colour {
    let bad = |code: &str| entry.exposures.iter().any(|e| e.code == code);
    let open = bad("world-readable")
        || bad("world-writable")
        || bad("world-connectable")
        || bad("in-argv")
        || bad("git-work-tree")
        || bad("published");
    match (open, entry.credential.privilege) {
        (true, 1 | 2) => Colour::Red,
        (true, _) => Colour::Yellow,
        _ => Colour::Plain,
    }
}

fn exposures(entry: &Entry) -> String {
    let mut out: Vec<String> = Vec::new();
    for exposure in &entry.exposures {
        let text = match exposure.code.as_str() {
            "in-argv" | "in-env" | "many-places" => {
                let number = exposure.detail.split(' ').next().unwrap_or_default();
                format!("{}({number})", exposure.code)
            }
            code => code.to_owned(),
        };
        if !out.contains(&text) {
            out.push(text);
        }
    }
    if out.is_empty() {
        "-".to_owned()
    } else {
        out.join(" ")
    }
}

/// The most telling fact of who it belongs to.
fn owner(entry: &Entry) -> String {
    let mut best = (0, String::new());
    let mut offer = |weight: u8, text: String| {
        if weight > best.0 && !text.is_empty() {
            best = (weight, text);
        }
    };
    for place in &entry.places {
        match place {
            Location::File(f) => {
                offer(5, f.pod.clone());
                offer(4, f.container.chars().take(12).collect());
                offer(4, f.unit.clone());
                offer(3, f.package.clone());
                offer(
                    2,
                    f.git.as_ref().map(|g| g.remote.clone()).unwrap_or_default(),
                );
                offer(
                    1,
                    if f.user.is_empty() {
                        format!("uid {}", f.uid)
                    } else {
                        f.user.clone()
                    },
                );
            }
            Location::Process(p) => {
                offer(5, p.pod.clone());
                offer(4, p.container.chars().take(12).collect());
                offer(3, p.unit.clone());
                offer(
                    1,
                    if p.user.is_empty() {
                        format!("uid {}", p.uid)
                    } else {
                        p.user.clone()
                    },
                );
            }
            Location::Socket(s) => offer(
                1,
                if s.user.is_empty() {
                    format!("uid {}", s.uid)
                } else {
                    s.user.clone()
                },
            ),
        }
    }
    best.1
}

fn places(entry: &Entry) -> String {
    let text = |place: &Location| match place {
        Location::File(f) if f.container.is_empty() => f.path.clone(),
        Location::File(f) => format!(
            "{}:{}",
            f.container.chars().take(12).collect::<String>(),
            f.path
        ),
        Location::Process(p) => {
            let pid = p.pids.first().copied().unwrap_or_default();
            let area = if p.area == Area::Env { "env" } else { "argv" };
            format!(
                "{area} {} of {}[{pid}]",
                p.name,
                p.exe.rsplit('/').next().unwrap_or(&p.exe)
            )
        }
        Location::Socket(s) => s.path.clone(),
    };
    let mut out = entry.places.first().map(text).unwrap_or_default();
    if entry.place_count() > 1 {
        let _ = write!(out, " (+{})", entry.place_count() - 1);
    }
    out
}

/// The table in the width of the terminal, and the columns there was no room for.
fn render(
    columns: &[Column],
    rows: &[(Vec<String>, Colour)],
    style: &Style,
) -> (String, Vec<&'static str>) {
    let escaped: Vec<Vec<String>> = rows
        .iter()
        .map(|(cells, _)| cells.iter().map(|c| escape(c).into_owned()).collect())
        .collect();
    let fitted = fitted(columns, &escaped, style.width);
    let header: Vec<&str> = fitted.iter().map(|&(i, _)| columns[i].title).collect();
    let mut table = Table::new(&header);
    for (cells, (_, colour)) in escaped.iter().zip(rows) {
        let cells: Vec<String> = fitted
            .iter()
            .map(|&(i, width)| {
                let cell = cells.get(i).map_or("", String::as_str);
                fit(cell, width, Cut::Middle).into_owned()
            })
            .collect();
        table.row(
            cells
                .iter()
                .enumerate()
                .map(|(i, c)| (c.as_str(), if i == 0 { *colour } else { Colour::Plain })),
        );
    }
    let left_out = (0..columns.len())
        .filter(|i| fitted.iter().all(|(shown, _)| shown != i))
        .map(|i| columns[i].title)
        .collect();
    (table.render(style), left_out)
}

/// Says which columns are missing, where some are.
fn note_left_out(out: &mut String, left_out: &[&str]) {
    if !left_out.is_empty() {
        let _ = writeln!(
            out,
            "(no room for {}: -o json has everything)",
            left_out.join(", ")
        );
    }
}

/// A number and what it counts.
fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What is in the document and not in the table, by the reason.
fn hidden(out: &mut String, document: &Document, shown: &[&Entry]) {
    let listed = |class: Class| {
        let all = document.entries.iter().filter(|e| e.class == class).count();
        all - shown.iter().filter(|e| e.class == class).count()
    };
    for (class, what) in [
        (
            Class::Public,
            "shipped by packages, unchanged by their own checksums: public (--all shows them)",
        ),
        (
            Class::Sample,
            "in what package managers fetched, in test data or documentation: samples (--all shows them)",
        ),
        (
            Class::Secret,
            "of them are not shown: less sure than --min-confidence",
        ),
    ] {
        let n = listed(class);
        if n > 0 {
            let _ = writeln!(out, "{n} {what}");
        }
    }
}

fn footer(out: &mut String, document: &Document, report: &Report, shown: &[&Entry]) {
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let places: u64 = document.entries.iter().map(Entry::place_count).sum();
    let total = document.entries.len();
    let _ = writeln!(
        out,
        "\n{} in {} below {}",
        counted(total as u64, "credential", "credentials"),
        counted(places, "place", "places"),
        escape(&document.run.root)
    );
    hidden(out, document, shown);
    let _ = writeln!(
        out,
        "{} in {} inspected, {} of them read ({} MiB), {}, in {:.1} s",
        counted(n(&report.files), "file", "files"),
        counted(n(&report.directories), "directory", "directories"),
        n(&report.classified),
        n(&report.bytes) >> 20,
        counted(document.processes.looked_at, "process", "processes"),
        document.elapsed.as_secs_f64()
    );
    let mut list = |what: &str, count: u64, items: Vec<String>| {
        if count == 0 {
            return;
        }
        let _ = writeln!(out, "{what}: {count}");
        for item in items.iter().take(LISTED) {
            let _ = writeln!(out, "  {}", escape(item));
        }
        if count > LISTED as u64 && !items.is_empty() {
            let _ = writeln!(out, "  ... (-o json lists more)");
        }
    };
    let pairs = |list: Vec<(String, String)>| {
        list.into_iter()
            .map(|(path, why)| format!("{path}: {why}"))
            .collect::<Vec<_>>()
    };
    let skipped = report.skipped();
    list("not walked", skipped.len() as u64, pairs(skipped));
    list(
        "unreadable",
        n(&report.unreadable_count),
        pairs(report.unreadable_list()),
    );
    list(
        "package records that are not read (files of these packages have no owner)",
        document.unread.len() as u64,
        pairs(document.unread.clone()),
    );
    list(
        "larger than 8 MiB, only the first MiB read",
        n(&report.sampled_count),
        report.sampled_list(),
    );
    list(
        "changed while they were read",
        n(&report.changed),
        Vec::new(),
    );
    list(
        "processes whose environment may not be read",
        document.processes.unreadable,
        Vec::new(),
    );
    list(
        "processes with more environment or arguments than is read",
        document.processes.truncated,
        Vec::new(),
    );
    list(
        "credentials for which there was no room",
        document.refused + n(&report.crowded),
        Vec::new(),
    );
}
