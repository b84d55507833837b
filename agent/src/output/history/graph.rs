//! Graphviz.

use crate::output::escape;
use keytrail_proto::v1::{GetGraphResponse, GraphNode};
use std::fmt::Write as _;

/// A string of the dot language: what the host gave stays text.
fn quoted(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| escape(line).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}

fn shape(node: &GraphNode) -> &'static str {
    match node.kind.as_str() {
        "credential" => "shape=hexagon style=filled fillcolor=\"#ffe9b3\"",
        "program" => "shape=box style=rounded",
        _ => "shape=ellipse",
    }
}

/// The graph in the dot language. What only a holder's send says is dashed.
pub fn dot(graph: &GetGraphResponse) -> String {
    let mut out =
        String::from("digraph keytrail {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    for node in &graph.nodes {
        let _ = writeln!(
            out,
            "  {} [label={} {}];",
            quoted(&node.id.replace('\n', " ")),
            quoted(&node.label),
            shape(node)
        );
    }
    for edge in &graph.edges {
        let style = if edge.grade == "lineage" {
            " style=dashed"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  {} -> {} [label={}{style}];",
            quoted(&edge.from.replace('\n', " ")),
            quoted(&edge.to.replace('\n', " ")),
            quoted(&format!("{} x{}", super::act(edge.act), edge.count)),
        );
    }
    out.push_str("}\n");
    out
}
