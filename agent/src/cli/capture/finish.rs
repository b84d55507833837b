//! The half that makes a bundle of a working directory, its own or one that a killed capture left behind.

use super::credentials::{CREDENTIALS, Credentials};
use super::facts::moment;
use super::lies::{BODYFILE, INVENTORY};
use super::live::{EVENTS, RECORDING, STATUS};
use super::processes::{PROCESSES, RAW};
use super::timeline::{CSV, JSONL, Timeline};
use super::work::{End, Work};
use super::{connections::CONNECTIONS, processes};
use crate::output::json;
use crate::output::report::{Collector, Lies, Report, count, html};
use keytrail_bundle::{FORMAT, Manifest, Packed, SigningKey, Tool, entry_of, pack};
use keytrail_proto::v1::{Event, Gap, GetStatusResponse};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

const FINDINGS: &str = "findings.jsonl";
const COVERAGE: &str = "coverage.json";
const REPORT: &str = "report.html";
/// Members in the order of the bundle, after the manifest: what people read first is first.
const MEMBERS: [&str; 12] = [
    REPORT,
    FINDINGS,
    EVENTS,
    CREDENTIALS,
    PROCESSES,
    CONNECTIONS,
    INVENTORY,
    COVERAGE,
    CSV,
    JSONL,
    BODYFILE,
    RECORDING,
];
/// Longest line of events and longest other file that is read.
const MOST_LINE: u64 = 16 << 20;
const MOST_FILE: u64 = 1 << 30;
/// Gaps that are reported one by one.
const MOST_GAPS: usize = 10_000;

/// There is no bundle, and all that it would be made of is kept.
#[derive(Debug, thiserror::Error)]
#[error("the bundle cannot be made: {error}; what there is stays in {}", .dir.display())]
pub struct FinishError {
    error: io::Error,
    dir: PathBuf,
}

/// Makes the bundle, signs it, and removes the working directory. `end` is `None` for what was left behind.
///
/// # Errors
/// See [`FinishError`].
pub fn finish(work: Work, end: Option<End>, key: &SigningKey) -> Result<Packed, FinishError> {
    let left = end.is_none();
    let mut end = end.unwrap_or_default();
    if left {
        end.partial(
            "the capture was killed before its end; this was made later of what it had written",
        );
    }
    let packed = make(&work, &mut end, left, key);
    match packed {
        Ok(packed) => {
            work.remove();
            Ok(packed)
        }
        Err(error) => Err(FinishError {
            error,
            dir: work.dir().to_owned(),
        }),
    }
}

fn make(work: &Work, end: &mut End, left: bool, key: &SigningKey) -> io::Result<Packed> {
    for name in [EVENTS, RECORDING, CONNECTIONS] {
        let cut = whole_lines(work, name)?;
        if cut > 0 {
            end.partial(format!(
                "the last {cut} bytes of {name} were no whole line and are left out"
            ));
        }
    }
    // Written in one go, or not whole.
    if left && work.has(INVENTORY) && read_json::<Value>(work, INVENTORY).is_none() {
        std::fs::remove_file(work.path(INVENTORY))?;
        end.partial("the inventory was not whole and is left out");
    }
    let status: Option<GetStatusResponse> = read_json(work, STATUS);
    let mut collected = events(work)?;
    let inventory: Option<Value> = read_json(work, INVENTORY);
    let lies = inventory
        .as_ref()
        .map(|document| collected.credentials.inventory(document));
    collected.credentials.write(work)?;
    coverage(work, status.as_ref(), &collected)?;
    let report = report(work, end, collected.collector, lies, status.as_ref(), key);
    work.write(REPORT, html(&report).as_bytes())?;
    let manifest = manifest(work, end, left, status.as_ref(), key)?;
    pack(
        work.dir(),
        &manifest,
        work.begin.wall_ns / 1_000_000_000,
        key,
        &work.bundle(),
    )
}

/// Cuts a line that was not written to its end; returns its bytes.
fn whole_lines(work: &Work, name: &str) -> io::Result<u64> {
    if !work.has(name) {
        return Ok(0);
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(work.path(name))?;
    let length = file.metadata()?.len();
    let mut at = length;
    let mut block = vec![0; 64 << 10];
    while at > 0 {
        let from = at.saturating_sub(block.len() as u64);
        let part = usize::try_from(at - from).unwrap_or(0);
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block[..part])?;
        if let Some(end) = block[..part].iter().rposition(|b| *b == b'\n') {
            at = from + end as u64 + 1;
            break;
        }
        at = from;
    }
    if at < length {
        file.set_len(at)?;
    }
    Ok(length - at)
}

fn read_json<T: serde::de::DeserializeOwned>(work: &Work, name: &str) -> Option<T> {
    let file = File::open(work.path(name)).ok()?;
    serde_json::from_reader(BufReader::new(file.take(MOST_FILE))).ok()
}

#[derive(Default)]
struct Collected {
    collector: Collector,
    credentials: Credentials,
    gaps: Vec<Gap>,
    gaps_omitted: u64,
}

/// Goes through the events once: findings, timeline, and what report and credentials need of them.
fn events(work: &Work) -> io::Result<Collected> {
    let mut collected = Collected::default();
    let mut timeline = Timeline::create(work)?;
    if work.has(RAW) {
        // Threads of the kernel have no executable, and began with the host.
        let all = processes::finish(work, RECORDING)?;
        for process in all.iter().filter(|p| !p.exe.is_empty()) {
            timeline.process(process)?;
        }
    }
    if !work.has(EVENTS) {
        timeline.finish()?;
        return Ok(collected);
    }
    let mut findings = work.create(FINDINGS)?;
    let mut reader = BufReader::new(File::open(work.path(EVENTS))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader
            .by_ref()
            .take(MOST_LINE)
            .read_until(b'\n', &mut line)?
            == 0
        {
            break;
        }
        let event: Event = serde_json::from_slice(&line)?;
        if event.finding.is_some() {
            findings.write_all(&line)?;
        }
        if let Some(gap) = &event.gap {
            if collected.gaps.len() < MOST_GAPS {
                collected.gaps.push(gap.clone());
            } else {
                collected.gaps_omitted += 1;
            }
        }
        collected.collector.add(&event);
        collected.credentials.event(&event);
        timeline.event(&event)?;
    }
    findings.flush()?;
    timeline.finish()?;
    Ok(collected)
}

/// What was seen and what was not: the status as `keytrail doctor -o json` has it, and each gap.
fn coverage(
    work: &Work,
    status: Option<&GetStatusResponse>,
    collected: &Collected,
) -> io::Result<()> {
    let gaps: Vec<Value> = collected.gaps.iter().map(canonical).collect();
    let document = json!({
        "status": status.map(canonical),
        "gaps": gaps,
        "gaps_omitted": collected.gaps_omitted,
        "credentials_without_room": collected.credentials.omitted,
    });
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    work.write(COVERAGE, &text)
}

fn canonical<T: serde::Serialize + prost::Name>(message: &T) -> Value {
    json(message)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn report(
    work: &Work,
    end: &End,
    collector: Collector,
    lies: Option<(Vec<Lies>, u64)>,
    status: Option<&GetStatusResponse>,
    key: &SigningKey,
) -> Report {
    let begin = &work.begin;
    let host = begin.host["name"].as_str().unwrap_or("this host");
    let mut report = collector.finish();
    report.title = match &begin.root {
        Some(root) => format!("Credentials below {root}"),
        None => format!("Credentials on {host}"),
    };
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            report.facts.push((name.to_owned(), value));
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    fact("Host", host.to_owned());
    fact("System", text(&begin.host["system"]));
    fact("Kernel", text(&begin.host["kernel"]));
    for (name, key) in [
        ("Case", "case"),
        ("Evidence", "evidence"),
        ("Examiner", "examiner"),
        ("Note", "note"),
    ] {
        fact(name, text(&begin.capture[key]));
    }
    if let Some((from, to)) = end.watched {
        fact("Watched", format!("{} to {}", moment(from), moment(to)));
    }
    if let Some(ended) = &end.command {
        fact("Command", ended.clone());
    }
    fact("Captured", moment(begin.wall_ns));
    fact("By", format!("keytrail {}", env!("CARGO_PKG_VERSION")));
    fact("Signing key", format!("sha256 {}", key.public().name()));
    report.partial.clone_from(&end.partial);
    if begin.root.is_some() {
        report.summary = vec!["Nothing was watched: this is what lies in a directory.".to_owned()];
    }
    if let Some((shown, omitted)) = lies {
        report.summary.push(what_lies(&shown, omitted));
        report.inventory = Some(shown);
        report.inventory_omitted = omitted;
    }
    if let Some(counters) = status.and_then(|s| s.counters.as_ref()) {
        let lost: u64 = counters.lost.values().sum();
        if lost > 0 {
            report
                .summary
                .push(format!("{lost} records of the kernel were lost."));
        }
    }
    report.notes = notes(&begin.name);
    report
}

fn what_lies(shown: &[Lies], omitted: u64) -> String {
    let all = shown.len() + usize::try_from(omitted).unwrap_or(0);
    let open = |l: &&Lies| l.exposures.contains("world-readable");
    format!(
        "{} here; {} readable by everybody.",
        match all {
            1 => "1 credential lies".to_owned(),
            n => format!("{n} credentials lie"),
        },
        match shown.iter().filter(open).count() {
            0 => "none is".to_owned(),
            n => count(n, "is", "are"),
        },
    )
}

/// What has to be known to read it.
fn notes(name: &str) -> Vec<String> {
    vec![
        "observed: the secret's own bytes were in what was sent. identified: only its public identifier was. lineage: a \
         program that had it sent something, in which it was not seen."
            .to_owned(),
        "Fingerprints are keyed hashes: the same credential has the same one in all captures with the same key \
         (--key)."
            .to_owned(),
        format!(
            "`keytrail verify {name}.tar.zst` says whether this bundle is as it was made; `keytrail replay recording.jsonl` \
             makes its events again."
        ),
    ]
}

fn manifest(
    work: &Work,
    end: &End,
    left: bool,
    status: Option<&GetStatusResponse>,
    key: &SigningKey,
) -> io::Result<Manifest> {
    let begin = &work.begin;
    let mut files = Vec::new();
    for name in MEMBERS {
        if work.has(name) {
            files.push(entry_of(work.dir(), name)?);
        }
    }
    let counters = status.and_then(|s| s.counters.clone()).unwrap_or_default();
    let mut facts = Map::new();
    let mut capture = begin.capture.clone();
    let ended = (!left).then_some(end);
    capture["started"] = json!(moment(begin.wall_ns));
    capture["ended"] = json!(ended.map(|e| moment(e.wall_ns)));
    capture["ended_by"] = json!(end.by);
    capture["watched"] = json!(end.watched.map(|(from, to)| [moment(from), moment(to)]));
    capture["command"] = json!(end.command);
    facts.insert("partial".to_owned(), json!(!end.partial.is_empty()));
    facts.insert("partial_because".to_owned(), json!(end.partial));
    facts.insert("errors".to_owned(), json!(end.errors));
    if let Some(root) = &begin.root {
        let said =
            format!("only what lies below {root}: nothing was watched, no process was inspected");
        facts.insert("scope".to_owned(), json!(said));
    }
    facts.insert("capture".to_owned(), capture);
    facts.insert("host".to_owned(), begin.host.clone());
    // Where the clock was set meanwhile, both offsets differ.
    let offset = |wall: u64, boot: u64| wall.saturating_sub(boot);
    let clocks = json!({
        "wall_minus_boot_ns_at_start": offset(begin.wall_ns, begin.boot_ns).to_string(),
        "wall_minus_boot_ns_at_end": ended.map(|e| offset(e.wall_ns, e.boot_ns).to_string()),
    });
    facts.insert("clocks".to_owned(), clocks);
    facts.insert(
        "fingerprints".to_owned(),
        json!({"key": end.key, "comparable_with_other_captures": !begin.fresh_key}),
    );
    facts.insert(
        "losses".to_owned(),
        json!({"lost": counters.lost, "not_seen": counters.gaps, "known": status.is_some()}),
    );
    facts.insert("footprint".to_owned(), json!(ended.map(|e| &e.footprint)));
    Ok(Manifest {
        format: FORMAT.to_owned(),
        tool: Tool {
            name: begin.tool["name"].as_str().unwrap_or_default().to_owned(),
            version: begin.tool["version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            sha256: begin.tool["sha256"].as_str().unwrap_or_default().to_owned(),
        },
        signing_key: key.public().name(),
        files,
        facts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::capture::facts::timestamp;
    use crate::cli::capture::work::{self, Begin};
    use keytrail_bundle::{SignatureState, verify};
    use keytrail_model::EventKind;

    fn event(sequence: u64) -> String {
        let event = Event {
            id: Some(keytrail_proto::v1::EventId {
                sequence,
                ..Default::default()
            }),
            time: Some(timestamp(1_795_938_312_000_000_000)),
            kind: EventKind::CredentialRead.number(),
            ..Default::default()
        };
        json(&event).unwrap() + "\n"
    }

    #[test]
    fn what_a_killed_capture_left_becomes_a_bundle_that_says_so() {
        let output = tempfile::tempdir().unwrap();
        let begin = Begin {
            name: "h-1".to_owned(),
            ..Begin::default()
        };
        let work = Work::make(output.path(), begin).unwrap();
        let torn = event(1) + &event(2) + "{\"id\":{\"agent\":";
        work.write(EVENTS, torn.as_bytes()).unwrap();
        work.write(INVENTORY, b"{\"credentials\": [{\"cla").unwrap();
        drop(work);
        let key = SigningKey::fresh().unwrap();
        let left = work::left_behind(output.path()).pop().unwrap();
        let packed = finish(left, None, &key).unwrap();
        let report = verify(&packed.bundle, None).unwrap();
        assert_eq!(report.signature, SignatureState::Good);
        assert!(report.changes.is_empty(), "{:?}", report.changes);
        let manifest = report.manifest.unwrap();
        assert_eq!(manifest.facts["partial"], true);
        let why = manifest.facts["partial_because"].to_string();
        assert!(
            why.contains("killed") && why.contains("no whole line") && why.contains("inventory"),
            "{why}"
        );
        assert!(manifest.files.iter().all(|f| f.name != INVENTORY));
        let kept = keytrail_bundle::read_member(&packed.bundle, EVENTS, 1 << 20)
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8(kept).unwrap(), event(1) + &event(2));
        // Nothing is left but the bundle and what belongs to it.
        let mut names: Vec<_> = std::fs::read_dir(output.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["h-1.tar.zst", "h-1.tar.zst.pub", "h-1.tar.zst.sig"]);
    }
}
