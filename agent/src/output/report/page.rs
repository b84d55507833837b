//! The page. Every text of the host goes through [`html_text`].

use super::{Found, Lies, Report, Row, Unseen};
use crate::output::history::{act, html_text, svg};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n",
        title = html_text(&report.title)
    );
    for why in &report.partial {
        let _ = writeln!(
            out,
            "<p class=\"partial\">Not whole: {}</p>",
            html_text(why)
        );
    }
    facts(&mut out, report);
    out.push_str("<h2>Summary</h2>\n<ul>\n");
    for sentence in &report.summary {
        let _ = writeln!(out, "<li>{}</li>", html_text(sentence));
    }
    out.push_str("</ul>\n<h2>Findings</h2>\n");
    if report.findings.is_empty() {
        out.push_str("<p class=\"note\">No rule found anything.</p>\n");
    }
    for found in &report.findings {
        finding(&mut out, found);
    }
    omitted(&mut out, report.findings_omitted, "findings.jsonl");
    graph(&mut out, report);
    timeline(&mut out, report);
    inventory(&mut out, report);
    unseen(&mut out, report);
    if !report.notes.is_empty() {
        out.push_str("<h2>About this report</h2>\n");
        for note in &report.notes {
            let _ = writeln!(out, "<p>{}</p>", html_text(note));
        }
    }
    out.push_str("</body></html>\n");
    out
}

fn facts(out: &mut String, report: &Report) {
    out.push_str("<dl>\n");
    for (name, value) in &report.facts {
        let _ = writeln!(
            out,
            "<dt>{}</dt><dd>{}</dd>",
            html_text(name),
            html_text(value)
        );
    }
    out.push_str("</dl>\n");
}

/// Words that make a class; anything else makes none.
fn class(word: &str) -> &str {
    match word {
        "critical" | "high" | "medium" | "low" | "info" => word,
        _ => "",
    }
}

fn finding(out: &mut String, found: &Found) {
    let _ = write!(
        out,
        "<article class=\"{}\"><h3>{}: {}</h3><p class=\"dim\">{} {}",
        class(&found.severity),
        html_text(&found.severity),
        html_text(&found.title),
        html_text(&found.time),
        html_text(&found.credential)
    );
    if found.count > 1 {
        let _ = write!(out, ", {} times", found.count);
    }
    let _ = write!(out, " ({}", html_text(&found.rule));
    for technique in &found.techniques {
        let _ = write!(out, ", {}", html_text(technique));
    }
    out.push_str(")</p>");
    for (name, text) in [
        ("Seen", &found.seen),
        ("Usual", &found.expected),
        ("What to do", &found.remedy),
        ("The same act is reported by", &found.also),
    ] {
        if !text.is_empty() {
            let _ = write!(out, "<p><b>{name}:</b> {}</p>", html_text(text));
        }
    }
    out.push_str("</article>\n");
}

fn graph(out: &mut String, report: &Report) {
    out.push_str("<h2>Where credentials went</h2>\n");
    if report.graph.nodes.is_empty() {
        out.push_str("<p class=\"note\">No use was seen.</p>\n");
        return;
    }
    out.push_str(
        "<p class=\"note\">Credentials, the programs that had them, and where these sent something. A dashed line: a \
         program that had the credential sent something in which it was not seen.</p>\n<figure>",
    );
    out.push_str(&svg(&report.graph));
    out.push_str("</figure>\n");
    flows(out, report);
    omitted(out, report.graph.omitted, "events.jsonl");
}

/// The same in words, where there is no room for the picture.
fn flows(out: &mut String, report: &Report) {
    let labels: BTreeMap<&str, &str> = report
        .graph
        .nodes
        .iter()
        .map(|n| (n.id.as_str(), n.label.as_str()))
        .collect();
    let label = |id: &str| html_text(&labels.get(id).unwrap_or(&id).replace('\n', " "));
    out.push_str("<ul class=\"flows\">\n");
    for edge in &report.graph.edges {
        let _ = writeln!(
            out,
            "<li>{} \u{2192} {}: {} x{} ({})</li>",
            label(&edge.from),
            label(&edge.to),
            act(edge.act),
            edge.count,
            html_text(&edge.grade)
        );
    }
    out.push_str("</ul>\n");
}

fn table<const N: usize>(
    out: &mut String,
    headings: [&str; N],
    rows: impl Iterator<Item = [(String, String); N]>,
) {
    out.push_str("<table><thead><tr>");
    for heading in headings {
        let _ = write!(out, "<th scope=\"col\">{heading}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (heading, (text, class)) in headings.iter().zip(row) {
            // Empty cells stay empty elements: narrow screens leave those out.
            let _ = write!(
                out,
                "<td class=\"{class}\" data-label=\"{heading}\">{}</td>",
                html_text(&text)
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}

fn plain(text: &str) -> (String, String) {
    (text.to_owned(), String::new())
}

fn timeline(out: &mut String, report: &Report) {
    out.push_str("<h2>Timeline</h2>\n");
    if report.timeline.is_empty() {
        out.push_str("<p class=\"note\">Nothing happened that was seen.</p>\n");
        return;
    }
    let row = |row: &Row| {
        [
            (row.time.clone(), "time".to_owned()),
            (row.action.clone(), row.mark.to_owned()),
            plain(&row.process),
            plain(&row.credential),
            plain(&row.place),
            plain(&row.grade),
        ]
    };
    table(
        out,
        ["Time", "What", "Process", "Credential", "Where", "Evidence"],
        report.timeline.iter().map(row),
    );
    omitted(out, report.timeline_omitted, "timeline.csv");
}

fn inventory(out: &mut String, report: &Report) {
    out.push_str("<h2>What lies on the host</h2>\n");
    let Some(all) = &report.inventory else {
        out.push_str("<p class=\"note\">No inventory was made.</p>\n");
        return;
    };
    if all.is_empty() {
        out.push_str("<p class=\"note\">No credential was found.</p>\n");
        return;
    }
    let row = |lies: &Lies| {
        [
            plain(&lies.kind),
            plain(&lies.identifier),
            plain(&lies.fingerprint),
            plain(&lies.places),
            plain(&lies.exposures),
            plain(&lies.known_since),
        ]
    };
    table(
        out,
        [
            "Kind",
            "Identifier",
            "Fingerprint",
            "Places",
            "Exposed",
            "Known since",
        ],
        all.iter().map(row),
    );
    omitted(out, report.inventory_omitted, "inventory.json");
}

fn unseen(out: &mut String, report: &Report) {
    out.push_str("<h2>What could not be seen</h2>\n");
    if report.gaps.is_empty() {
        out.push_str("<p class=\"note\">Nothing is known that could not be seen.</p>\n");
        return;
    }
    let row = |gap: &Unseen| {
        let count = if gap.count > 0 {
            gap.count.to_string()
        } else {
            String::new()
        };
        [
            plain(&gap.reason),
            plain(&count),
            plain(&gap.detail),
            plain(&gap.remedy),
        ]
    };
    table(
        out,
        ["Reason", "Count", "What", "What to do"],
        report.gaps.iter().map(row),
    );
    omitted(out, report.gaps_omitted, "coverage.json");
}

fn omitted(out: &mut String, number: u64, file: &str) {
    if number > 0 {
        let _ = writeln!(
            out,
            "<p class=\"note\">{number} more are not shown here; in a capture {file} has them.</p>"
        );
    }
}
