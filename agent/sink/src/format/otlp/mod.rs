//! Log records of OpenTelemetry (OTLP), with the attributes of its semantic conventions 1.44
//! (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/>). What they have no name for is below `keytrail.`,
//! named as in the event's own schema. An event is a record in protobuf; `carrier::otlp` puts records into a request.

pub(crate) mod metrics;
pub(crate) mod wire;

use super::Reporter;
use super::parts::{self, Object, program};
use keytrail_model::{EventKind, EvidenceGrade, SourceType};
use keytrail_proto::v1::{Event, Process};
use prost::Message as _;
use wire::{AnyValue, LogRecord, Resource, ResourceLogs, Scope, ScopeLogs, Value, attributes};

/// The version of the conventions by which attributes are named.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";

/// One record.
pub(super) fn event(event: &Event) -> Vec<u8> {
    // When it happened is when it was seen: both by the clock of the host.
    let time = u64::try_from(parts::time_ns(event.time.as_ref())).unwrap_or(0);
    let (severity_number, severity_text) = severity(event);
    let named = match named(event).build() {
        serde_json::Value::Object(map) => attributes(map),
        _ => Vec::new(),
    };
    let record = LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number,
        severity_text: severity_text.into(),
        body: Some(AnyValue {
            value: Some(Value::Text(parts::message(event))),
        }),
        attributes: named,
        event_name: format!("keytrail.{}", EventKind::word_of(event.kind)),
    };
    record.encode_to_vec()
}

/// A request with these records.
pub(crate) fn request(records: Vec<Vec<u8>>, reporter: &Reporter) -> Vec<u8> {
    let scope = ScopeLogs {
        scope: Some(Scope {
            name: "keytrail".into(),
            version: reporter.version.clone(),
        }),
        records,
        schema_url: SCHEMA.into(),
    };
    let logs = ResourceLogs {
        resource: Some(resource(reporter)),
        scopes: vec![scope],
        schema_url: SCHEMA.into(),
    };
    wire::Request {
        resources: vec![logs],
    }
    .encode_to_vec()
}

/// Who tells: the agent, as a service.
fn resource(reporter: &Reporter) -> Resource {
    let named = Object::new()
        .text("service.name", "keytrail")
        .text("service.version", &reporter.version)
        .text("service.instance.id", &reporter.agent)
        .text("host.name", &reporter.host)
        .text("os.type", "linux")
        .build();
    Resource {
        attributes: match named {
            serde_json::Value::Object(map) => attributes(map),
            _ => Vec::new(),
        },
    }
}

/// How many records (or points) the receiver did not take, by its answer.
pub(crate) fn rejected(answer: &[u8]) -> u64 {
    // A receiver that answers something else has taken all, by its status.
    let answer = wire::Response::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    u64::try_from(partial.rejected_log_records).unwrap_or(0)
}

/// `SeverityNumber` and its name. Only a finding says that something is bad; a gap says that something may be.
fn severity(event: &Event) -> (i32, &'static str) {
    if event.gap.is_some() {
        return (13, "WARN");
    }
    match parts::severity(event) {
        3 => (13, "WARN"),
        4 => (17, "ERROR"),
        5 => (21, "FATAL"),
        _ => (9, "INFO"),
    }
}

fn named(event: &Event) -> Object {
    let mut out = Object::new().text("log.record.uid", &parts::uid(event));
    if let Some(process) = &event.process {
        out = of_process(out, process);
    }
    out = of_file(out, event);
    out = of_network(out, event);
    out = of_pod(out, event);
    if let Some(finding) = &event.finding {
        out = out
            .text("security_rule.name", &finding.rule)
            .text("security_rule.description", &finding.title)
            .text("security_rule.ruleset.name", "keytrail")
            .text("keytrail.finding.severity", &finding.severity);
    }
    own(out, event)
}

fn of_process(out: Object, process: &Process) -> Object {
    let path = process.executable.as_ref().map_or("", |e| &e.path);
    let start = process.start_time.as_ref();
    out.number("process.pid", process.pid)
        .nonzero("process.vpid", process.namespace_pid.into())
        .nonzero("process.parent_pid", process.ppid.into())
        .text("process.executable.path", path)
        .text("process.executable.name", program(process))
        .texts("process.command_args", &process.argv)
        .nonzero("process.args_count", process.argv.len() as u64)
        .text("process.working_directory", &process.cwd)
        .text("process.linux.cgroup", &process.cgroup)
        .some(
            "process.creation.time",
            start.map(|t| parts::rfc3339(Some(t), 9)),
        )
        .number("process.real_user.id", process.uid)
        .number("process.user.id", process.euid)
        .text("container.id", &process.container)
        .text("k8s.pod.uid", &process.pod)
        .text("keytrail.process.key", &process.key)
        .text("keytrail.process.unit", &process.unit)
        .messages("keytrail.process.ancestors", &process.ancestors)
}

fn of_file(out: Object, event: &Event) -> Object {
    let Some(source) = &event.source else {
        return out;
    };
    if source.path.is_empty() || SourceType::of_number(source.r#type) != Some(SourceType::File) {
        return out;
    }
    let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let inode = match source.inode {
        0 => String::new(),
        inode => inode.to_string(),
    };
    out.text("file.path", &source.path)
        .text("file.directory", directory)
        .text("file.name", name)
        .text("file.inode", &inode)
        .text("file.mode", &source.mode)
        .text("file.owner.id", &source.owner_uid.to_string())
        .text("file.group.id", &source.owner_gid.to_string())
}

fn of_network(mut out: Object, event: &Event) -> Object {
    out = out.message("keytrail.repeats", event.repeats.as_ref());
    if let Some(to) = &event.destination {
        let names = parts::hosts(event);
        // A name is what the process asked for, the address is where the bytes went.
        let server = names.first().unwrap_or(&to.ip);
        let sni = to.hosts.iter().find(|host| host.provenance == "sni");
        out = out
            .text("server.address", server)
            .nonzero("server.port", to.port.into())
            .text("network.peer.address", &to.ip)
            .nonzero("network.peer.port", to.port.into())
            .text("network.local.address", &to.local_ip)
            .nonzero("network.local.port", to.local_port.into())
            .text("network.transport", &to.protocol)
            .text("tls.client.server_name", sni.map_or("", |h| &h.name));
    }
    if let Some(request) = &event.request {
        let (name, version) = match request.protocol.as_str() {
            "h2" => ("http", "2"),
            other => other.split_once('/').unwrap_or((other, "")),
        };
        out = out
            .text("network.protocol.name", name)
            .text("network.protocol.version", version)
            .text("http.request.method", &request.method)
            .text("url.template", &request.path);
    }
    out
}

fn of_pod(out: Object, event: &Event) -> Object {
    let Some(pod) = parts::workload(event) else {
        return out;
    };
    let mut out = out
        .text("k8s.pod.uid", &pod.pod_uid)
        .text("k8s.namespace.name", &pod.namespace)
        .text("k8s.pod.name", &pod.pod)
        .text("k8s.container.name", &pod.container)
        .text("k8s.node.name", &pod.node)
        .text("container.id", &pod.container_id)
        .text("container.image.name", &pod.image)
        .text("oci.manifest.digest", &pod.image_digest);
    let owner = match pod.owner_kind.as_str() {
        "Deployment" => "k8s.deployment.name",
        "ReplicaSet" => "k8s.replicaset.name",
        "StatefulSet" => "k8s.statefulset.name",
        "DaemonSet" => "k8s.daemonset.name",
        "Job" => "k8s.job.name",
        "CronJob" => "k8s.cronjob.name",
        _ => "keytrail.workload.owner",
    };
    out = out
        .text(owner, &pod.owner)
        .text("keytrail.workload.service_account", &pod.service_account);
    for (key, value) in &pod.labels {
        out = out.text(&format!("k8s.pod.label.{key}"), value);
    }
    out
}

fn own(out: Object, event: &Event) -> Object {
    out.text(
        "keytrail.grade",
        parts::grade(event).map_or("", EvidenceGrade::word),
    )
    .text("keytrail.channel", parts::channel(event))
    .texts("keytrail.coverage", &event.coverage)
    .texts("keytrail.techniques", &parts::techniques(event))
    .message("keytrail.credential", event.credential.as_ref())
    .message("keytrail.evidence", event.evidence.as_ref())
    .message("keytrail.source", event.source.as_ref())
    .message("keytrail.destination", event.destination.as_ref())
    .message("keytrail.request", event.request.as_ref())
    .message(
        "keytrail.executable",
        event.process.as_ref().and_then(|p| p.executable.as_ref()),
    )
    .message("keytrail.change", event.change.as_ref())
    .message("keytrail.delivery", event.delivery.as_ref())
    .message("keytrail.repeats", event.repeats.as_ref())
    .nonzero("keytrail.group", event.group)
    .text("keytrail.environment", &event.environment)
    .message("keytrail.victim", event.victim.as_ref())
    .message("keytrail.gap", event.gap.as_ref())
    .message("keytrail.finding", event.finding.as_ref())
    .message("keytrail.truncation", event.truncation.as_ref())
    .message("keytrail.exit", event.exit.as_ref())
}
