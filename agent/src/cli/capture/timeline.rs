//! A timeline for Timesketch: CSV and JSON lines with the columns it asks for (`message`, `datetime`, `timestamp_desc`)
//! and more. Times are ISO 8601 in UTC.

use super::processes::Process;
use super::work::Work;
use crate::output::{describe, escape, utc};
use keytrail_model::{EventKind, EvidenceGrade};
use keytrail_proto::v1::Event;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufWriter, Write};

pub const CSV: &str = "timeline.csv";
pub const JSONL: &str = "timeline.jsonl";
const COLUMNS: [&str; 16] = [
    "message",
    "datetime",
    "timestamp_desc",
    "kind",
    "pid",
    "process",
    "executable",
    "user_id",
    "credential",
    "identifier",
    "fingerprint",
    "source",
    "destination",
    "evidence",
    "severity",
    "sequence",
];

/// Writes both files.
pub struct Timeline<W: Write> {
    csv: W,
    jsonl: W,
}

type Row = [String; COLUMNS.len()];

impl Timeline<BufWriter<File>> {
    pub fn create(work: &Work) -> io::Result<Self> {
        Timeline::new(work.create(CSV)?, work.create(JSONL)?)
    }
}

impl<W: Write> Timeline<W> {
    fn new(mut csv: W, jsonl: W) -> io::Result<Self> {
        writeln!(csv, "{}", COLUMNS.join(","))?;
        Ok(Timeline { csv, jsonl })
    }

    /// What happened.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let Some(time) = &event.time else {
            return Ok(());
        };
        let process = event.process.as_ref();
        let credential = event.credential.clone().unwrap_or_default();
        let (action, place) = (describe::action(event).0, describe::place(event));
        let credential_text = match &event.credential {
            Some(_) => describe::credential(event.credential.as_ref()),
            None => String::new(),
        };
        let message = [
            process.map_or_else(String::new, |_| describe::process(process)),
            action,
            credential_text,
            place,
            describe::request(event),
        ];
        let message: Vec<&str> = message
            .iter()
            .map(|m| m.as_str())
            .filter(|m| !m.is_empty())
            .collect();
        let grade = event.evidence.as_ref().map_or(0, |e| e.grade);
        self.row(&[
            message.join(" "),
            utc(time),
            meaning(event.kind).to_owned(),
            EventKind::word_of(event.kind).to_owned(),
            process.map_or_else(String::new, |p| p.pid.to_string()),
            process.map_or_else(String::new, describe::program),
            process
                .and_then(|p| p.executable.as_ref())
                .map_or_else(String::new, |e| e.path.clone()),
            process.map_or_else(String::new, |p| p.uid.to_string()),
            credential.kind,
            credential.identifier,
            credential.fingerprint,
            event
                .source
                .as_ref()
                .map(describe::source)
                .unwrap_or_default(),
            event
                .destination
                .as_ref()
                .map(describe::destination)
                .unwrap_or_default(),
            match grade {
                0 => String::new(),
                grade => EvidenceGrade::word_of(grade).to_owned(),
            },
            event
                .finding
                .as_ref()
                .map_or_else(String::new, |f| f.severity.clone()),
            event
                .id
                .as_ref()
                .map_or_else(String::new, |i| i.sequence.to_string()),
        ])
    }

    /// A process that ran already.
    pub fn process(&mut self, process: &Process) -> io::Result<()> {
        let mut row = Row::default();
        let name = process.exe.rsplit('/').next().unwrap_or_default();
        let name: &str = if name.is_empty() { &process.comm } else { name };
        row[0] = format!(
            "{name}[{}] started, and ran when the capture began",
            process.pid
        );
        row[1].clone_from(&process.started);
        row[2] = "Process Start".to_owned();
        row[3] = "process".to_owned();
        row[4] = process.pid.to_string();
        row[5] = name.to_owned();
        row[6].clone_from(&process.exe);
        row[7] = process.uid.to_string();
        self.row(&row)
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        let cells: Vec<String> = row.iter().map(|c| cell(c)).collect();
        writeln!(self.csv, "{}", cells.join(","))?;
        let object: Map<String, Value> = COLUMNS
            .iter()
            .zip(row)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), Value::from(escape(value).into_owned())))
            .collect();
        serde_json::to_writer(&mut self.jsonl, &object)?;
        self.jsonl.write_all(b"\n")
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.csv.flush()?;
        self.jsonl.flush()
    }
}

/// A cell of RFC 4180. What a spreadsheet would compute is text.
fn cell(text: &str) -> String {
    let text = escape(text);
    let computed = text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err();
    let text = if computed {
        format!("'{text}")
    } else {
        text.into_owned()
    };
    if computed || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// What the time of such an event is.
fn meaning(kind: i32) -> &'static str {
    match EventKind::of_number(kind) {
        Some(EventKind::CredentialRead) => "Credential Read",
        Some(EventKind::CredentialOpened) => "Credential File Opened",
        Some(EventKind::CredentialExposed) => "Credential Exposed",
        Some(EventKind::CredentialSent) => "Data Sent",
        Some(EventKind::CredentialCreated) => "Credential Created",
        Some(EventKind::CredentialTaken) => "Process Memory Read",
        Some(EventKind::PersistenceWritten) => "Startup File Written",
        Some(EventKind::WorkloadNamed) => "Pod Named",
        Some(EventKind::CredentialFileChanged) => "Credential File Changed",
        Some(EventKind::CredentialRequested) => "Credential Requested",
        Some(EventKind::CredentialReceived) => "Credential Received",
        Some(EventKind::CoverageGap) => "Not Seen",
        Some(EventKind::Finding) => "Finding",
        Some(EventKind::ProcessStart) => "Process Start",
        Some(EventKind::ProcessExit) => "Process End",
        None => "Event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{Credential, Evidence, Process as Who};
    use pbjson_types::Timestamp;

    fn lines(event: &Event) -> (Vec<String>, Value) {
        let (mut csv, mut jsonl) = (Vec::new(), Vec::new());
        let mut timeline = Timeline::new(&mut csv, &mut jsonl).unwrap();
        timeline.event(event).unwrap();
        timeline.finish().unwrap();
        let lines = String::from_utf8(csv)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        (lines, serde_json::from_slice(&jsonl).unwrap())
    }

    #[test]
    fn the_columns_that_timesketch_asks_for() {
        let event = Event {
            time: Some(Timestamp {
                seconds: 1_795_938_312,
                nanos: 5_000_000,
            }),
            kind: EventKind::CredentialSent.number(),
            process: Some(Who {
                pid: 7,
                comm: "=cmd,\"x\"\n".to_owned(),
                ..Who::default()
            }),
            credential: Some(Credential {
                kind: "github-token".to_owned(),
                fingerprint: "kt1:00112233445566778899aabbccddeeff".to_owned(),
                ..Credential::default()
            }),
            evidence: Some(Evidence {
                grade: EvidenceGrade::Lineage.number(),
                ..Evidence::default()
            }),
            ..Event::default()
        };
        let (csv, json) = lines(&event);
        assert_eq!(csv.len(), 2, "a line break in a name makes no line");
        assert!(csv[0].starts_with("message,datetime,timestamp_desc,"));
        assert!(
            csv[1].contains(",2026-11-29T07:45:12.005Z,Data Sent,credential_sent,7,"),
            "{}",
            csv[1]
        );
        // What is only lineage is not said to have been sent.
        assert!(csv[1].contains("holder sent github-token 0011..ff unknown destination"));
        assert!(
            csv[1].contains("\"'=cmd,\"\"x\"\"\\n[7] holder sent"),
            "{}",
            csv[1]
        );
        assert_eq!(json["evidence"], "lineage");
        assert_eq!(json["datetime"], "2026-11-29T07:45:12.005Z");
        assert!(json.get("severity").is_none());
    }
}
