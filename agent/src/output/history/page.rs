//! One page that shows a graph and needs nothing else: no script, no other file.

use crate::output::escape;
use keytrail_proto::v1::GetGraphResponse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const ROW: usize = 54;
const WIDTH: usize = 320;
const COLUMNS: [(&str, usize); 3] = [("credential", 20), ("program", 460), ("destination", 900)];

/// A text of the host inside of HTML, in elements and in attributes alike.
pub fn html_text(of: &str) -> String {
    escape(of)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Credentials on the left, programs in the middle, destinations on the right.
pub fn svg(graph: &GetGraphResponse) -> String {
    let mut at: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut boxes = String::new();
    let mut height = 0;
    for (kind, x) in COLUMNS {
        for (row, node) in graph.nodes.iter().filter(|n| n.kind == kind).enumerate() {
            let y = 40 + row * ROW;
            height = height.max(y + ROW);
            at.insert(&node.id, (x, y));
            let mut lines = node.label.split('\n');
            let (first, second) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
            let _ = writeln!(
                boxes,
                "<g class=\"{kind}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"40\" rx=\"6\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text><text class=\"small\" x=\"{}\" y=\"{}\">{}</text></g>",
                html_text(&node.label),
                x + 10,
                y + 17,
                html_text(&end(first)),
                x + 10,
                y + 33,
                html_text(&end(second)),
            );
        }
    }
    let mut lines = String::new();
    for edge in &graph.edges {
        let (Some((x1, y1)), Some((x2, y2))) =
            (at.get(edge.from.as_str()), at.get(edge.to.as_str()))
        else {
            continue;
        };
        let class = if edge.grade == "lineage" {
            "maybe"
        } else {
            "seen"
        };
        let (x1, y1, y2) = (x1 + WIDTH, y1 + 20, y2 + 20);
        let middle = (x1 + x2) / 2;
        let _ = writeln!(
            lines,
            "<path class=\"{class}\" d=\"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}\"><title>{} {} x{}</title></path>",
            super::act(edge.act),
            html_text(&edge.grade),
            edge.count
        );
    }
    format!(
        "<svg width=\"1260\" height=\"{height}\" viewBox=\"0 0 1260 {height}\" role=\"img\" aria-label=\"Credentials, programs, destinations\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n{lines}{boxes}</svg>\n"
    )
}

/// One page with the graph.
pub fn html(graph: &GetGraphResponse) -> String {
    let svg = svg(graph);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>keytrail</title><style>\
         body{{font:13px sans-serif;margin:16px;background:#fff;color:#222}}rect{{fill:#f4f4f4;stroke:#999}}\
         .credential rect{{fill:#ffe9b3}}.destination rect{{fill:#dfefff}}.small{{fill:#666;font-size:11px}}\
         path{{fill:none;stroke:#777}}path:hover{{stroke:#c00;stroke-width:3}}.maybe{{stroke-dasharray:4 4}}\
         h2{{font-size:13px;position:absolute;top:8px}}</style></head><body>\
         <p>Credentials, the programs that had them, and where these sent something. A dashed line: a program that had \
         the credential sent something in which it was not seen.</p>\n\
         {svg}</body></html>\n"
    )
}

/// What fits into a box; of a path the end says more.
fn end(of: &str) -> String {
    let count = of.chars().count();
    if count <= 44 {
        return of.to_owned();
    }
    let tail: String = of.chars().skip(count - 43).collect();
    format!("…{tail}")
}
