//! What several formats say.

use keytrail_model::{Channel, EventKind, EvidenceGrade, GapReason, IdentifiedBy};
use keytrail_proto::v1::{Event, Process, Workload};
use pbjson_types::Timestamp;
use serde_json::{Map, Value};

/// A JSON object, which leaves out what is empty.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub fn new() -> Object {
        Object::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A text, unless it is empty.
    pub fn text(mut self, key: &str, value: &str) -> Object {
        if !value.is_empty() {
            self.0.insert(key.into(), value.into());
        }
        self
    }

    /// Texts, unless there are none.
    pub fn texts(mut self, key: &str, values: &[String]) -> Object {
        if !values.is_empty() {
            self.0.insert(key.into(), values.into());
        }
        self
    }

    /// A number, zero or not.
    pub fn number(mut self, key: &str, value: impl Into<Value>) -> Object {
        self.0.insert(key.into(), value.into());
        self
    }

    /// A number, unless it is zero.
    pub fn nonzero(self, key: &str, value: u64) -> Object {
        if value == 0 {
            self
        } else {
            self.number(key, value)
        }
    }

    pub fn some(mut self, key: &str, value: Option<impl Into<Value>>) -> Object {
        if let Some(value) = value {
            self.0.insert(key.into(), value.into());
        }
        self
    }

    /// An object, unless nothing is in it.
    pub fn object(mut self, key: &str, value: Object) -> Object {
        if !value.0.is_empty() {
            self.0.insert(key.into(), Value::Object(value.0));
        }
        self
    }

    /// Objects, unless there are none.
    pub fn objects(mut self, key: &str, values: Vec<Object>) -> Object {
        if !values.is_empty() {
            let values = values.into_iter().map(|o| Value::Object(o.0)).collect();
            self.0.insert(key.into(), Value::Array(values));
        }
        self
    }

    /// A message of the schema, as its canonical JSON.
    pub fn message<T: serde::Serialize + prost::Name>(
        self,
        key: &str,
        message: Option<&T>,
    ) -> Object {
        let value = message
            .and_then(|m| keytrail_proto::json(m).ok())
            .and_then(|text| serde_json::from_str::<Value>(&text).ok());
        self.some(key, value)
    }

    /// Messages of the schema, unless there are none.
    pub fn messages<T: serde::Serialize + prost::Name>(self, key: &str, all: &[T]) -> Object {
        let values: Vec<Value> = all
            .iter()
            .filter_map(|m| serde_json::from_str(&keytrail_proto::json(m).ok()?).ok())
            .collect();
        self.some(key, (!values.is_empty()).then_some(values))
    }

    pub fn build(self) -> Value {
        Value::Object(self.0)
    }
}

pub(super) fn kind(event: &Event) -> Option<EventKind> {
    EventKind::of_number(event.kind)
}

/// `AGENT:EPOCH:SEQUENCE`; empty when the event has no id.
pub(crate) fn uid(event: &Event) -> String {
    event.id.as_ref().map_or_else(String::new, |id| {
        format!("{}:{}:{}", id.agent, id.epoch, id.sequence)
    })
}

pub(crate) fn time_ns(time: Option<&Timestamp>) -> i128 {
    time.map_or(0, |t| {
        i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos)
    })
}

/// Of an event that stands for many: when the first was, milliseconds since the epoch.
pub(super) fn first_ms(event: &Event) -> Option<i64> {
    let first = event.repeats.as_ref()?.first.as_ref();
    Some(time_ms(first))
}

/// Milliseconds since the epoch.
pub(super) fn time_ms(time: Option<&Timestamp>) -> i64 {
    i64::try_from(time_ns(time).div_euclid(1_000_000)).unwrap_or(0)
}

/// `2026-11-28T21:36:15.887123Z`, in UTC and with so many digits of the second.
pub(crate) fn rfc3339(time: Option<&Timestamp>, digits: usize) -> String {
    let ns = time_ns(time);
    let (days, within) = (
        ns.div_euclid(86_400_000_000_000),
        ns.rem_euclid(86_400_000_000_000),
    );
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0));
    let (seconds, fraction) = (within / 1_000_000_000, within % 1_000_000_000);
    let fraction = format!("{fraction:09}");
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        &fraction[..digits.clamp(1, 9)]
    )
}

/// Date of a day since 1970-01-01, in the Gregorian calendar: years begin in March here, so that leap days end them.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.clamp(-700_000, 2_900_000) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Name of the program, from its file when known.
pub(super) fn program(process: &Process) -> &str {
    let path = process.executable.as_ref().map_or("", |e| e.path.as_str());
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => &process.comm,
    }
}

/// Names of the destination, each once.
pub(super) fn hosts(event: &Event) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for host in event.destination.iter().flat_map(|d| &d.hosts) {
        if !host.name.is_empty() && !names.contains(&host.name) {
            names.push(host.name.clone());
        }
    }
    names
}

pub(super) fn grade(event: &Event) -> Option<EvidenceGrade> {
    EvidenceGrade::of_number(event.evidence.as_ref()?.grade)
}

/// By what an identified credential was known; empty for others.
pub(super) fn identified_by(event: &Event) -> &'static str {
    IdentifiedBy::word_of(event.evidence.as_ref().map_or(0, |e| e.identified_by))
}

pub(super) fn channel(event: &Event) -> &'static str {
    Channel::word_of(event.evidence.as_ref().map_or(0, |e| e.channel))
}

/// 0 when unknown, 1 informational to 5 critical, as OCSF counts. Only a finding says that something is bad.
pub(crate) fn severity(event: &Event) -> u8 {
    match event.finding.as_ref().map(|f| f.severity.as_str()) {
        None | Some("info") => 1,
        Some("low") => 2,
        Some("medium") => 3,
        Some("high") => 4,
        Some("critical") => 5,
        Some(_) => 0,
    }
}

/// What happened, in a few words that claim what the grade does.
pub(super) fn action(event: &Event) -> &'static str {
    match kind(event) {
        Some(EventKind::CredentialRead) => "Credential file read",
        Some(EventKind::CredentialOpened) => "Credential file opened",
        Some(EventKind::CredentialExposed) => "Credential in environment or arguments",
        Some(EventKind::CredentialSent) => match grade(event) {
            Some(EvidenceGrade::Observed) => "Credential sent",
            Some(EvidenceGrade::Identified) => "Credential named in what was sent",
            _ => "Holder of a credential sent something",
        },
        Some(EventKind::CredentialTaken) => match grade(event) {
            Some(EvidenceGrade::Observed) => "Credential taken from a process",
            _ => "Memory of a process with a credential read",
        },
        Some(EventKind::CredentialCreated) => "New credential on this host",
        Some(EventKind::PersistenceWritten) => {
            "File written that runs programs or lets somebody in"
        }
        Some(EventKind::WorkloadNamed) => "Name of a pod, reported late",
        Some(EventKind::CredentialFileChanged) => "Credential file changed",
        Some(EventKind::CredentialReceived) => "Credential given by a metadata service",
        Some(EventKind::CredentialRequested) => "Credentials of a metadata service asked for",
        Some(EventKind::CoverageGap) => "Not seen",
        Some(EventKind::ProcessStart) => "Process started",
        Some(EventKind::ProcessExit) => "Process ended",
        Some(EventKind::Finding) => "Finding",
        None => "Event of a newer agent",
    }
}

/// What the pod of the event is called: reported late, or with its process.
pub(super) fn workload(event: &Event) -> Option<&Workload> {
    let of_process = event.process.as_ref().and_then(|p| p.workload.as_ref());
    event.workload.as_ref().or(of_process)
}

/// One sentence: what, which credential, by whom, where.
pub(super) fn message(event: &Event) -> String {
    if let Some(finding) = &event.finding {
        return match finding.seen.as_str() {
            "" => finding.title.clone(),
            seen => format!("{}: {seen}", finding.title),
        };
    }
    if let Some(gap) = &event.gap {
        let reason = GapReason::word_of(gap.reason);
        return format!("{}: {reason}: {}", action(event), gap.detail);
    }
    let mut text = action(event).to_owned();
    if let Some(w) = &event.workload {
        text.push_str(&format!(
            ": {} is {}/{}/{}",
            w.pod_uid, w.namespace, w.pod, w.container
        ));
    }
    if let Some(credential) = &event.credential {
        text.push_str(": ");
        text.push_str(&credential.kind);
        if !credential.identifier.is_empty() {
            text.push_str(&format!(" ({})", credential.identifier));
        }
    }
    if let Some(process) = &event.process {
        text.push_str(&format!(", by {}[{}]", program(process), process.pid));
    }
    if let Some(destination) = &event.destination {
        if !destination.ip.is_empty() {
            text.push_str(&format!(
                ", to {} port {}",
                destination.ip, destination.port
            ));
        } else if !destination.socket_path.is_empty() {
            text.push_str(&format!(", to socket {}", destination.socket_path));
        } else if !destination.path.is_empty() {
            text.push_str(&format!(", to {}", destination.path));
        }
        let names = hosts(event);
        if !names.is_empty() {
            text.push_str(&format!(" ({})", names.join(", ")));
        }
    }
    if let Some(source) = event.source.as_ref().filter(|s| !s.path.is_empty()) {
        text.push_str(&format!(", from {}", source.path));
    }
    text
}

/// Techniques of ATT&CK, and of a finding those of other catalogues as well.
pub(super) fn techniques(event: &Event) -> Vec<String> {
    let mut all = event.attack.clone();
    for technique in event.finding.iter().flat_map(|f| &f.techniques) {
        if !all.contains(technique) {
            all.push(technique.clone());
        }
    }
    all
}

/// Whether this is an id of ATT&CK, such as T1552.001.
pub(super) fn is_attack(id: &str) -> bool {
    id.strip_prefix('T')
        .is_some_and(|n| n.len() >= 4 && n.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}
