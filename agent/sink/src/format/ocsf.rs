//! OCSF 1.8.0 (<https://schema.ocsf.io/1.8.0>).
//!
//! A finding is a Detection Finding (2004). What says that a credential was used or came is a Data Security Finding (2006);
//! an open, which claims nothing of the kind, File System Activity (1001); processes are Process Activity (1007). A gap
//! has no class of its own and is a Base Event (0). What the schema has no place for is in `unmapped`.

use super::Reporter;
use super::parts::{self, Object, program};
use keytrail_model::{Direction, EventKind, EvidenceGrade, SourceType};
use keytrail_proto::v1::{Ancestor, Destination, Event, Process, Source};
use serde_json::Value;

const VERSION: &str = "1.8.0";
/// Of the events' technique ids; see `attack` in the schema.
const ATTACK_VERSION: &str = "17";

/// A class, its category and what happened.
struct Class {
    uid: u32,
    name: &'static str,
    category: u32,
    activity: u32,
    activity_name: &'static str,
}

const fn class(uid: u32, name: &'static str, activity: u32, activity_name: &'static str) -> Class {
    Class {
        uid,
        name,
        category: uid / 1000,
        activity,
        activity_name,
    }
}

fn class_of(event: &Event) -> Class {
    match parts::kind(event) {
        Some(EventKind::Finding) => class(2004, "Detection Finding", 1, "Create"),
        Some(
            EventKind::CredentialRead
            | EventKind::CredentialExposed
            | EventKind::CredentialSent
            | EventKind::CredentialTaken
            | EventKind::CredentialReceived
            | EventKind::CredentialCreated,
        ) => class(2006, "Data Security Finding", 1, "Create"),
        // Both have to name a file and who opened it.
        Some(EventKind::CredentialOpened)
            if event.source.as_ref().is_some_and(|s| !s.path.is_empty())
                && event.process.is_some() =>
        {
            class(1001, "File System Activity", 14, "Open")
        }
        Some(EventKind::ProcessStart) if event.process.is_some() => {
            class(1007, "Process Activity", 1, "Launch")
        }
        Some(EventKind::ProcessExit) if event.process.is_some() => {
            class(1007, "Process Activity", 2, "Terminate")
        }
        _ => class(0, "Base Event", 99, "Other"),
    }
}

/// The `class_uid` of what is said of this event.
pub(crate) fn class_uid(event: &Event) -> u32 {
    class_of(event).uid
}

/// What every class has.
fn base(event: &Event, reporter: &Reporter, class: &Class) -> Object {
    Object::new()
        .number("class_uid", class.uid)
        .text("class_name", class.name)
        .number("category_uid", class.category)
        .number("activity_id", class.activity)
        .text("activity_name", class.activity_name)
        .number("type_uid", class.uid * 100 + class.activity)
        .number("severity_id", parts::severity(event))
        .number("time", parts::time_ms(event.time.as_ref()))
        .some("count", event.repeats.as_ref().map(|r| r.count))
        .some("start_time", parts::first_ms(event))
        .some(
            "end_time",
            parts::first_ms(event).and(Some(parts::time_ms(event.time.as_ref()))),
        )
        .text("message", &parts::message(event))
        .object("metadata", metadata(event, reporter, class))
        .object("device", device(event, reporter))
        .object("unmapped", unmapped(event))
}

pub(super) fn event(event: &Event, reporter: &Reporter) -> Value {
    let class = class_of(event);
    let out = base(event, reporter, &class);
    let actor = || {
        let process = event.process.as_ref().map(process).unwrap_or_default();
        Object::new().object("process", process)
    };
    match class.uid {
        1001 => out
            .object("actor", actor())
            .object("file", event.source.as_ref().map(file).unwrap_or_default()),
        // Nobody is known to have started it but itself: who acts is its parent, where that is known.
        1007 => {
            let of = event.process.as_ref();
            let parent = of.and_then(|p| p.ancestors.first()).map(ancestor);
            let exit = event.exit.as_ref().map(|e| e.status);
            out.object(
                "actor",
                parent.map_or_else(actor, |p| Object::new().object("process", p)),
            )
            .object("process", of.map(process).unwrap_or_default())
            .some("exit_code", exit)
        }
        2004 => {
            let evidence = Object::new()
                .object("actor", actor())
                .object("file", event.source.as_ref().map(file).unwrap_or_default())
                .object(
                    "dst_endpoint",
                    event.destination.as_ref().map(remote).unwrap_or_default(),
                );
            let remedy = event.finding.as_ref().map_or("", |f| &f.remedy);
            out.object("finding_info", finding_info(event))
                .number("status_id", 1)
                .number("is_alert", true)
                .object("actor", actor())
                .objects("evidences", evidence.alone())
                .objects("resources", credential(event).alone())
                .object("remediation", Object::new().text("desc", remedy))
        }
        2006 => out
            .object("finding_info", finding_info(event))
            .number("status_id", 1)
            .object("actor", actor())
            .object("file", event.source.as_ref().map(file).unwrap_or_default())
            .object(
                "dst_endpoint",
                event.destination.as_ref().map(remote).unwrap_or_default(),
            )
            .object(
                "src_endpoint",
                event.destination.as_ref().map(local).unwrap_or_default(),
            )
            .objects("resources", credential(event).alone())
            .object("data_security", data_security(event))
            .number("confidence_id", confidence(event))
            .text(
                "confidence",
                parts::grade(event).map_or("", EvidenceGrade::word),
            ),
        _ => out,
    }
    .build()
}

impl Object {
    /// A list of this, or of nothing when it is empty.
    fn alone(self) -> Vec<Object> {
        if self.is_empty() {
            Vec::new()
        } else {
            vec![self]
        }
    }
}

fn metadata(event: &Event, reporter: &Reporter, class: &Class) -> Object {
    let product = Object::new()
        .text("name", "keytrail")
        .text("vendor_name", "keytrail")
        .text("version", &reporter.version);
    let fingerprint = event.credential.as_ref().map_or("", |c| &c.fingerprint);
    let truncated = event
        .truncation
        .as_ref()
        .is_some_and(|t| t.argv || t.environment || t.payload || t.file);
    // Who acts on which device is, in these, said by a profile.
    let profiles = match class.uid {
        0 | 2004 => vec!["host".to_owned()],
        _ => Vec::new(),
    };
    let mut metadata = Object::new()
        .text("version", VERSION)
        .texts("profiles", &profiles)
        .object("product", product)
        .text("uid", &parts::uid(event))
        .text("event_code", keytrail_model::EventKind::word_of(event.kind))
        .text("correlation_uid", fingerprint)
        .some("sequence", event.id.as_ref().map(|id| id.sequence));
    if truncated {
        metadata = metadata.number("is_truncated", true);
    }
    metadata
}

fn device(event: &Event, reporter: &Reporter) -> Object {
    let agent = event.id.as_ref().map_or(&reporter.agent, |id| &id.agent);
    let boot = event.id.as_ref().map_or("", |id| &id.boot);
    Object::new()
        .number("type_id", 0)
        .text("hostname", &reporter.host)
        .text("name", &reporter.host)
        .text("uid", agent)
        .text("boot_uid", boot)
}

fn executable(path: &str) -> Object {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        return Object::new();
    }
    Object::new()
        .text("name", name)
        .text("path", path)
        .number("type_id", 1)
}

fn process(process: &Process) -> Object {
    let path = process.executable.as_ref().map_or("", |e| &e.path);
    let start = process.start_time.as_ref();
    Object::new()
        .number("pid", process.pid)
        .text("uid", &process.key)
        .text("name", program(process))
        .text("cmd_line", &process.argv.join(" "))
        .text("working_directory", &process.cwd)
        .some("created_time", start.map(|t| parts::time_ms(Some(t))))
        .object("file", executable(path))
        .object("user", Object::new().text("uid", &process.uid.to_string()))
        .object(
            "parent_process",
            process.ancestors.first().map(ancestor).unwrap_or_default(),
        )
}

fn ancestor(ancestor: &Ancestor) -> Object {
    Object::new()
        .number("pid", ancestor.pid)
        .text("uid", &ancestor.key)
        .text("name", &ancestor.comm)
        .object("file", executable(&ancestor.executable))
}

fn file(source: &Source) -> Object {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || SourceType::of_number(source.r#type) != Some(SourceType::File) {
        return Object::new();
    }
    let owner = Object::new().text("uid", &source.owner_uid.to_string());
    let inode = match source.inode {
        0 => String::new(),
        inode => format!("{}:{inode}", source.device),
    };
    Object::new()
        .text("name", name)
        .text("path", &source.path)
        .number("type_id", 1)
        .text("uid", &inode)
        .object("owner", owner)
}

fn remote(destination: &Destination) -> Object {
    // Without an address or a name it is no endpoint: then its port says nothing either.
    let host = destination.hosts.first().map_or("", |h| &h.name);
    if destination.ip.is_empty() && host.is_empty() {
        return Object::new();
    }
    Object::new()
        .text("ip", &destination.ip)
        .text("hostname", host)
        .nonzero("port", destination.port.into())
}

fn local(destination: &Destination) -> Object {
    if destination.local_ip.is_empty() {
        return Object::new();
    }
    Object::new()
        .text("ip", &destination.local_ip)
        .nonzero("port", destination.local_port.into())
}

fn credential(event: &Event) -> Object {
    let Some(credential) = &event.credential else {
        return Object::new();
    };
    Object::new()
        .text("type", &credential.kind)
        .text("name", &credential.identifier)
        .text("uid", &credential.fingerprint)
}

fn finding_info(event: &Event) -> Object {
    let uid = parts::uid(event);
    let (title, rule) = match &event.finding {
        Some(finding) => (finding.title.clone(), finding.rule.as_str()),
        None => (parts::action(event).to_owned(), ""),
    };
    let analytic = match rule {
        "" => Object::new(),
        rule => Object::new()
            .number("type_id", 1)
            .text("uid", rule)
            .text("name", rule),
    };
    let attacks = parts::techniques(event)
        .into_iter()
        .filter(|id| parts::is_attack(id))
        .map(|id| {
            let whole = id.split('.').next().unwrap_or_default();
            let attack = Object::new()
                .text("version", ATTACK_VERSION)
                .object("technique", Object::new().text("uid", whole));
            match id.contains('.') {
                true => attack.object("sub_technique", Object::new().text("uid", &id)),
                false => attack,
            }
        });
    let rests_on = event.finding.iter().flat_map(|f| &f.events).map(|id| {
        let uid = format!("{}:{}:{}", id.agent, id.epoch, id.sequence);
        Object::new().text("uid", &uid)
    });
    let hook = event.evidence.as_ref().map_or("", |e| &e.hook);
    let hooks: Vec<String> = if hook.is_empty() {
        Vec::new()
    } else {
        vec![hook.to_owned()]
    };
    // What has no id was made on the way here and is named by its time.
    let uid = if uid.is_empty() {
        parts::rfc3339(event.time.as_ref(), 9)
    } else {
        uid
    };
    Object::new()
        .text("uid", &uid)
        .text("title", &title)
        .text("desc", &parts::message(event))
        .texts("types", &[EventKind::word_of(event.kind).to_owned()])
        .texts("data_sources", &hooks)
        .object("analytic", analytic)
        .objects("attacks", attacks.collect())
        .objects("related_events", rests_on.collect())
}

fn data_security(event: &Event) -> Object {
    // In use: in a process; at rest: in a file that somebody wrote; in transit: only where its own bytes were sent.
    let (state, name) = match (parts::kind(event), parts::grade(event)) {
        (Some(EventKind::CredentialSent), Some(EvidenceGrade::Observed)) => (2, "Data in-Transit"),
        (Some(EventKind::CredentialCreated), _) => (1, "Data at-Rest"),
        (Some(EventKind::CredentialSent), _) => (0, "Unknown"),
        _ => (3, "Data in-Use"),
    };
    let classifier = event.credential.as_ref().filter(|c| !c.rule.is_empty());
    let classifier = classifier.map(|c| Object::new().text("type", "rule").text("name", &c.rule));
    Object::new()
        .number("category_id", 6)
        .text("category", "Security")
        .number("data_lifecycle_state_id", state)
        .text("data_lifecycle_state", name)
        .number("detection_system_id", 1)
        .text("detection_system", "Endpoint")
        .number("confidentiality_id", 3)
        .text("confidentiality", "Secret")
        .text(
            "detection_pattern",
            event.credential.as_ref().map_or("", |c| &c.kind),
        )
        .text(
            "uid",
            event.credential.as_ref().map_or("", |c| &c.fingerprint),
        )
        .object("classifier_details", classifier.unwrap_or_default())
}

/// High only where the secret's own bytes were seen.
fn confidence(event: &Event) -> u32 {
    match parts::grade(event) {
        Some(EvidenceGrade::Observed) => 3,
        Some(EvidenceGrade::Identified) => 2,
        Some(EvidenceGrade::Lineage) => 1,
        None => 0,
    }
}

fn unmapped(event: &Event) -> Object {
    let outgoing = event.destination.as_ref().map_or(0, |d| d.direction);
    let techniques: Vec<String> = parts::techniques(event)
        .into_iter()
        .filter(|id| !parts::is_attack(id))
        .collect();
    Object::new()
        .text("grade", parts::grade(event).map_or("", EvidenceGrade::word))
        .text("channel", parts::channel(event))
        .text("direction", Direction::word_of(outgoing))
        .texts("coverage", &event.coverage)
        .texts("techniques", &techniques)
        .message("credential", event.credential.as_ref())
        .message("evidence", event.evidence.as_ref())
        .message("request", event.request.as_ref())
        .message("source", event.source.as_ref())
        .message("destination", event.destination.as_ref())
        .message(
            "executable",
            event.process.as_ref().and_then(|p| p.executable.as_ref()),
        )
        .message("change", event.change.as_ref())
        .message("delivery", event.delivery.as_ref())
        .nonzero("group", event.group)
        .text("environment", &event.environment)
        .message("victim", event.victim.as_ref())
        .message("gap", event.gap.as_ref())
        .message("truncation", event.truncation.as_ref())
        .message("finding", event.finding.as_ref())
        .text(
            "container",
            event.process.as_ref().map_or("", |p| &p.container),
        )
        .text("unit", event.process.as_ref().map_or("", |p| &p.unit))
        .text("pod", event.process.as_ref().map_or("", |p| &p.pod))
        .message("workload", parts::workload(event))
}
