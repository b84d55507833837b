//! CSV (RFC 4180) and YAML, of events and of any document that has a JSON form.

use super::clock::utc;
use super::{Format, describe, escape, json};
use keytrail_model::{
    Channel, DestinationMethod, EventKind, EvidenceGrade, GapReason, IdentifiedBy, Transform,
};
use keytrail_proto::v1::{Destination, Event};
use serde::Serialize;
use serde_json::Value;
use std::io;

/// The columns of events as CSV. New ones come at the end.
pub const EVENT_COLUMNS: [&str; 38] = [
    "time",
    "kind",
    "pid",
    "process",
    "executable",
    "uid",
    "unit",
    "container",
    "pod",
    "credential",
    "identifier",
    "fingerprint",
    "confidence",
    "source",
    "grade",
    "channel",
    "transform",
    "ip",
    "port",
    "hosts",
    "destination_by",
    "gap",
    "count",
    "detail",
    "epoch",
    "sequence",
    "identified_by",
    "protocol",
    "method",
    "host",
    "path",
    "content_type",
    "request_bytes",
    "status_class",
    "target",
    "group",
    "repeats",
    "host_path",
];

/// One event, one row.
pub fn event(event: &Event) -> String {
    let p = event.process.clone().unwrap_or_default();
    let c = event.credential.clone().unwrap_or_default();
    let e = event.evidence.clone().unwrap_or_default();
    let d = event.destination.clone().unwrap_or_default();
    let g = event.gap.clone().unwrap_or_default();
    let r = event.request.clone().unwrap_or_default();
    let id = event.id.clone().unwrap_or_default();
    // What is not there is empty, not 0.
    let number = |n: u64, there: bool| if there { n.to_string() } else { String::new() };
    let is_process = event.process.is_some();
    let port = number(d.port.into(), d.port != 0);
    let hosts: Vec<_> = d
        .hosts
        .iter()
        .map(|h| format!("{}={}", h.provenance, h.name))
        .collect();
    let cells: [String; EVENT_COLUMNS.len()] = [
        event.time.as_ref().map(utc).unwrap_or_default(),
        EventKind::word_of(event.kind).to_owned(),
        number(p.pid.into(), is_process),
        if is_process {
            describe::program(&p)
        } else {
            String::new()
        },
        p.executable.map(|e| e.path).unwrap_or_default(),
        number(p.uid.into(), is_process),
        p.unit,
        p.container,
        p.pod,
        c.kind,
        c.identifier,
        c.fingerprint,
        if event.credential.is_some() {
            format!("{:.2}", c.confidence)
        } else {
            String::new()
        },
        event
            .source
            .as_ref()
            .map(describe::source)
            .unwrap_or_default(),
        word(e.grade, EvidenceGrade::word_of),
        word(e.channel, Channel::word_of),
        word(e.transform, Transform::word_of),
        place(d),
        port,
        hosts.join(" "),
        word(e.destination_method, DestinationMethod::word_of),
        word(g.reason, GapReason::word_of),
        number(g.count, g.count != 0),
        g.detail,
        number(id.epoch, event.id.is_some()),
        number(id.sequence, event.id.is_some()),
        word(e.identified_by, IdentifiedBy::word_of),
        r.protocol,
        r.method,
        r.host,
        r.path,
        r.content_type,
        number(r.bytes, event.request.is_some()),
        number(r.status_class.into(), r.status_class != 0),
        r.target.map_or_else(String::new, |t| {
            format!("{} {} {}", t.service, t.kind, t.name)
        }),
        number(event.group, event.group != 0),
        number(event.stands_for(), event.repeats.is_some()),
        event
            .source
            .as_ref()
            .map(|s| s.host_path.clone())
            .unwrap_or_default(),
    ];
    line(cells.iter().map(String::as_str))
}

/// What of a destination says where it is.
fn place(destination: Destination) -> String {
    let Destination {
        ip,
        path,
        socket_path,
        ..
    } = destination;
    [path, socket_path]
        .into_iter()
        .find(|path| !path.is_empty())
        .unwrap_or(ip)
}

fn word(number: i32, word_of: impl Fn(i32) -> &'static str) -> String {
    match number {
        0 => String::new(),
        n => word_of(n).to_owned(),
    }
}

/// One YAML document, beginning with `---`, without a line break at its end.
///
/// # Errors
/// A value that JSON or YAML cannot carry.
pub fn yaml<T: Serialize + prost::Name>(message: &T) -> io::Result<String> {
    let value: Value = serde_json::from_str(&json(message).map_err(io::Error::other)?)?;
    yaml_of(&value)
}

fn yaml_of(value: &Value) -> io::Result<String> {
    let text = serde_yaml_ng::to_string(value).map_err(io::Error::other)?;
    Ok(format!("---\n{}", text.trim_end()))
}

/// A whole document in a format for programs; `None` for those for people. As CSV it is one list of it, one row an entry,
/// with what lies deeper under names with points.
///
/// # Errors
/// A value that YAML cannot carry.
pub fn document(value: &Value, format: Format, of: Rows) -> io::Result<Option<String>> {
    Ok(match format {
        Format::Compact | Format::Wide => None,
        Format::Json => Some(format!("{value}\n")),
        Format::Yaml => Some(format!("{}\n", yaml_of(value)?)),
        Format::Csv => Some(table(value, of)),
    })
}

/// Which list of a document its table is of, and the columns it begins with, whatever is in it.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The field of the document.
    pub list: &'static str,
    pub columns: &'static [&'static str],
}

fn table(value: &Value, of: Rows) -> String {
    let list = value
        .get(of.list)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<(String, String)>> = list
        .iter()
        .map(|entry| {
            let mut row = Vec::new();
            flatten("", entry, &mut row);
            row
        })
        .collect();
    let mut columns = of.columns.to_vec();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let mut out = line(columns.iter().copied());
    out.push('\n');
    for row in &rows {
        let cell = |column: &&str| {
            row.iter()
                .find(|(name, _)| name == column)
                .map_or("", |(_, text)| text.as_str())
        };
        out.push_str(&line(columns.iter().map(cell)));
        out.push('\n');
    }
    out
}

fn flatten(name: &str, value: &Value, row: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() {
                    field.clone()
                } else {
                    format!("{name}.{field}")
                };
                flatten(&name, value, row);
            }
        }
        Value::String(text) => row.push((name.to_owned(), text.clone())),
        Value::Null => row.push((name.to_owned(), String::new())),
        // A list within a row stays JSON: what it holds has no bound.
        other => row.push((name.to_owned(), other.to_string())),
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for (n, cell) in cells.enumerate() {
        if n > 0 {
            out.push(',');
        }
        // A table may end on a terminal: nothing of the host drives it.
        let cell = escape(cell);
        if cell.contains([',', '"']) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&cell);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        assert_eq!(
            line(["a", "", "b,c", "d\"e", "f\ng"].into_iter()),
            "a,,\"b,c\",\"d\"\"e\",f\\ng"
        );
    }

    #[test]
    fn documents_are_tables_of_the_list_they_are_asked_for() {
        let of = Rows {
            list: "signals",
            columns: &["signal", "hook"],
        };
        let document = value!({
            "node": {"host": "h"},
            "longer": [{"x": 1}, {"x": 2}, {"x": 3}],
            "signals": [
                {"signal": "exec", "at": {"n": 1}, "refused": []},
                {"signal": "fork", "note": "a,b"},
            ],
        });
        assert_eq!(
            table(&document, of),
            "signal,hook,at.n,refused,note\nexec,,1,[],\nfork,,,,\"a,b\"\n"
        );
        for nothing in [value!({"longer": [{"x": 1}], "signals": []}), value!({})] {
            assert_eq!(table(&nothing, of), "signal,hook\n");
        }
        let yaml = super::document(&document, Format::Yaml, of)
            .unwrap()
            .unwrap();
        assert!(yaml.starts_with("---\nlonger:\n"), "{yaml}");
        assert!(
            super::document(&document, Format::Wide, of)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_event_has_a_cell_for_every_column() {
        let row = event(&Event::default());
        assert_eq!(row.matches(',').count() + 1, EVENT_COLUMNS.len());
    }
}
