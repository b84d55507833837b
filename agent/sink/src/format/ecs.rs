//! Elastic Common Schema 8.17 (<https://www.elastic.co/docs/reference/ecs>). What it has no field for is below
//! `keytrail`, named as in the event's own schema.

use super::Reporter;
use super::parts::{self, Object, program};
use keytrail_model::{EventKind, EvidenceGrade, SourceType};
use keytrail_proto::v1::{Ancestor, Event, Process};
use serde_json::Value;

const VERSION: &str = "8.17.0";

pub(super) fn event(event: &Event, reporter: &Reporter) -> Value {
    let id = event.id.as_ref();
    let agent = id.map_or(&reporter.agent, |id| &id.agent);
    let destination = event.destination.as_ref();
    let names = parts::hosts(event);
    let remote = Object::new()
        .text("ip", destination.map_or("", |d| &d.ip))
        .nonzero("port", destination.map_or(0, |d| d.port.into()))
        .text("domain", names.first().map_or("", String::as_str))
        .text(
            "address",
            names
                .first()
                .map(String::as_str)
                .or(destination.map(|d| d.ip.as_str()))
                .unwrap_or_default(),
        );
    let local = Object::new()
        .text("ip", destination.map_or("", |d| &d.local_ip))
        .nonzero("port", destination.map_or(0, |d| d.local_port.into()));
    let process = event.process.as_ref();
    let container = process.map_or("", |p| &p.container);
    Object::new()
        .text("@timestamp", &parts::rfc3339(event.time.as_ref(), 9))
        .text("message", &parts::message(event))
        .object("ecs", Object::new().text("version", VERSION))
        .object("event", about(event))
        .object(
            "agent",
            Object::new()
                .text("type", "keytrail")
                .text("id", agent)
                .text("version", &reporter.version),
        )
        .object(
            "host",
            Object::new()
                .text("name", &reporter.host)
                .text("hostname", &reporter.host),
        )
        .object("process", process.map(of_process).unwrap_or_default())
        .object(
            "user",
            process
                .map(|p| Object::new().text("id", &p.uid.to_string()))
                .unwrap_or_default(),
        )
        .object("file", file(event))
        .object("destination", remote)
        .object("source", local)
        .object(
            "network",
            Object::new()
                .text("transport", destination.map_or("", |d| &d.protocol))
                .text("direction", direction(event)),
        )
        .object("http", http(event))
        .object("url", url(event))
        .object("container", Object::new().text("id", container))
        .object("rule", rule(event))
        .object("threat", threat(event))
        .object("related", Object::new().texts("hosts", &names))
        .object("keytrail", own(event))
        .build()
}

fn about(event: &Event) -> Object {
    let (kind, category, types) = match parts::kind(event) {
        Some(EventKind::Finding) => ("alert", "intrusion_detection", "indicator"),
        Some(EventKind::CredentialRead | EventKind::CredentialOpened) => {
            ("event", "file", "access")
        }
        Some(EventKind::CredentialCreated) => ("event", "file", "creation"),
        Some(EventKind::PersistenceWritten | EventKind::CredentialFileChanged) => {
            ("event", "file", "change")
        }
        Some(
            EventKind::CredentialSent
            | EventKind::CredentialRequested
            | EventKind::CredentialReceived,
        ) => ("event", "network", "info"),
        Some(EventKind::CredentialExposed) => ("event", "process", "info"),
        Some(EventKind::CredentialTaken) => ("event", "process", "access"),
        Some(EventKind::ProcessStart) => ("event", "process", "start"),
        Some(EventKind::ProcessExit) => ("event", "process", "end"),
        Some(EventKind::WorkloadNamed) => ("event", "", ""),
        Some(EventKind::CoverageGap) => ("pipeline_error", "", ""),
        None => ("event", "", ""),
    };
    let list = |word: &str| {
        if word.is_empty() {
            Vec::new()
        } else {
            vec![word.to_owned()]
        }
    };
    // "access" of a process is none of ECS's types for that category; what is reported is information.
    let types = if category == "process" && types == "access" {
        "info"
    } else {
        types
    };
    let hook = event.evidence.as_ref().map_or("", |e| &e.hook);
    Object::new()
        .text("kind", kind)
        .texts("category", &list(category))
        .texts("type", &list(types))
        .text("action", EventKind::word_of(event.kind))
        .text("id", &parts::uid(event))
        .text("module", "keytrail")
        .text("dataset", "keytrail.event")
        .text("provider", hook)
        .some("sequence", event.id.as_ref().map(|id| id.sequence))
        .some(
            "start",
            event
                .repeats
                .as_ref()
                .map(|r| parts::rfc3339(r.first.as_ref(), 9)),
        )
        .number("severity", parts::severity(event))
}

fn of_process(process: &Process) -> Object {
    let start = process.start_time.as_ref();
    Object::new()
        .number("pid", process.pid)
        .text("entity_id", &process.key)
        .text("name", program(process))
        .text(
            "executable",
            process.executable.as_ref().map_or("", |e| &e.path),
        )
        .text("command_line", &process.argv.join(" "))
        .texts("args", &process.argv)
        .number("args_count", process.argv.len())
        .text("working_directory", &process.cwd)
        .some("start", start.map(|t| parts::rfc3339(Some(t), 9)))
        .object("user", Object::new().text("id", &process.uid.to_string()))
        .object("group", Object::new().text("id", &process.gid.to_string()))
        .object(
            "parent",
            process.ancestors.first().map(parent).unwrap_or_default(),
        )
}

fn parent(ancestor: &Ancestor) -> Object {
    Object::new()
        .number("pid", ancestor.pid)
        .text("entity_id", &ancestor.key)
        .text("name", &ancestor.comm)
        .text("executable", &ancestor.executable)
}

fn file(event: &Event) -> Object {
    let Some(source) = &event.source else {
        return Object::new();
    };
    if source.path.is_empty() || SourceType::of_number(source.r#type) != Some(SourceType::File) {
        return Object::new();
    }
    let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let inode = if source.inode == 0 {
        String::new()
    } else {
        source.inode.to_string()
    };
    Object::new()
        .text("path", &source.path)
        .text("name", name)
        .text("directory", directory)
        .text("inode", &inode)
        .text("mode", &source.mode)
        .text("uid", &source.owner_uid.to_string())
        .text("gid", &source.owner_gid.to_string())
        .text("type", "file")
}

fn direction(event: &Event) -> &'static str {
    use keytrail_model::Direction;
    match event
        .destination
        .as_ref()
        .and_then(|d| Direction::of_number(d.direction))
    {
        Some(Direction::Outgoing) => "egress",
        Some(Direction::Accepted) => "ingress",
        None => "",
    }
}

fn http(event: &Event) -> Object {
    let Some(request) = &event.request else {
        return Object::new();
    };
    let bytes = Object::new().nonzero("bytes", request.bytes);
    if request.status_class != 0 {
        return Object::new().object("response", bytes.text("mime_type", &request.content_type));
    }
    let of_request = bytes
        .text("method", &request.method)
        .text("mime_type", &request.content_type);
    Object::new()
        .text("version", http_version(&request.protocol))
        .object("request", of_request)
}

fn http_version(protocol: &str) -> &str {
    match protocol {
        "h2" | "grpc" => "2",
        other => other.strip_prefix("http/").unwrap_or_default(),
    }
}

/// What was asked for, with `{id}` where the path had one.
fn url(event: &Event) -> Object {
    let Some(request) = &event.request else {
        return Object::new();
    };
    Object::new()
        .text("domain", &request.host)
        .text("path", &request.path)
}

fn rule(event: &Event) -> Object {
    let Some(finding) = &event.finding else {
        return Object::new();
    };
    Object::new()
        .text("id", &finding.rule)
        .text("name", &finding.title)
        .text("ruleset", "keytrail")
}

fn threat(event: &Event) -> Object {
    let (mut whole, mut parts_of) = (Vec::new(), Vec::new());
    for id in parts::techniques(event) {
        if !parts::is_attack(&id) {
            continue;
        }
        let technique = id.split('.').next().unwrap_or_default().to_owned();
        if !whole.contains(&technique) {
            whole.push(technique);
        }
        if id.contains('.') {
            parts_of.push(id);
        }
    }
    if whole.is_empty() {
        return Object::new();
    }
    let technique = Object::new()
        .texts("id", &whole)
        .object("subtechnique", Object::new().texts("id", &parts_of));
    Object::new()
        .text("framework", "MITRE ATT&CK")
        .object("technique", technique)
}

fn own(event: &Event) -> Object {
    Object::new()
        .text("grade", parts::grade(event).map_or("", EvidenceGrade::word))
        .text("channel", parts::channel(event))
        .texts("coverage", &event.coverage)
        .message("credential", event.credential.as_ref())
        .message("evidence", event.evidence.as_ref())
        .message("source", event.source.as_ref())
        .message("destination", event.destination.as_ref())
        .message(
            "executable",
            event.process.as_ref().and_then(|p| p.executable.as_ref()),
        )
        .message("request", event.request.as_ref())
        .message("change", event.change.as_ref())
        .message("delivery", event.delivery.as_ref())
        .nonzero("group", event.group)
        .text("environment", &event.environment)
        .message("repeats", event.repeats.as_ref())
        .message("victim", event.victim.as_ref())
        .message("gap", event.gap.as_ref())
        .message("finding", event.finding.as_ref())
        .message("truncation", event.truncation.as_ref())
        .message("exit", event.exit.as_ref())
        .text("unit", event.process.as_ref().map_or("", |p| &p.unit))
        .text("pod", event.process.as_ref().map_or("", |p| &p.pod))
        .message("workload", parts::workload(event))
}
