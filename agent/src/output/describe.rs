//! What an event says, in words. The words never claim more than the evidence.

use super::changed;
use super::escape::escape;
use super::fingerprint::short_fingerprint;
use super::style::Colour;
use keytrail_model::{
    Channel, EventKind, EvidenceGrade, GapReason, IdentifiedBy, SourceType, Transform,
};
use keytrail_proto::v1::{
    Credential, Delivery, Destination, Event, Evidence, PathStep, Process, Source, Workload,
};
use std::fmt::Write as _;

/// Where on the fleet the process belongs: pod, container, unit or user of the host.
pub fn who(process: Option<&Process>) -> String {
    let Some(p) = process else {
        return "host".into();
    };
    let short = |id: &str| escape(id).chars().take(12).collect::<String>();
    match p {
        Process {
            workload: Some(w), ..
        } => workload(w),
        _ if !p.pod.is_empty() && !p.container.is_empty() => {
            format!("pod {}/{}", short(&p.pod), short(&p.container))
        }
        _ if !p.pod.is_empty() => format!("pod {}", short(&p.pod)),
        _ if !p.container.is_empty() => format!("container {}", short(&p.container)),
        _ if !p.unit.is_empty() => format!("host {}", escape(&p.unit)),
        _ if p.uid == 0 => "host root".into(),
        _ => format!("host uid {}", p.uid),
    }
}

/// As people of its cluster call it: namespace, pod, and container where that is known.
fn workload(w: &Workload) -> String {
    let parts = [&w.namespace, &w.pod, &w.container];
    let named = parts.iter().filter(|part| !part.is_empty());
    named
        .map(|part| escape(part).into_owned())
        .collect::<Vec<_>>()
        .join("/")
}

/// Name of the program, from its file when known (comm is 15 bytes and can be set at will).
pub fn program(process: &Process) -> String {
    let path = process
        .executable
        .as_ref()
        .map(|e| e.path.as_str())
        .unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    match (name.is_empty(), process.comm.is_empty()) {
        (false, _) => escape(name).into_owned(),
        (true, false) => escape(&process.comm).into_owned(),
        (true, true) => "?".into(),
    }
}

/// `python3[4121]`.
pub fn process(process: Option<&Process>) -> String {
    process.map_or_else(|| "-".into(), |p| format!("{}[{}]", program(p), p.pid))
}

/// `aws-access-key 9c1e..a2`.
pub fn credential(credential: Option<&Credential>) -> String {
    credential.map_or_else(
        || "-".into(),
        |c| {
            format!("{} {}", escape(&c.kind), short_fingerprint(&c.fingerprint))
                .trim_end()
                .to_owned()
        },
    )
}

/// What happened, with the colour that goes with it.
pub fn action(event: &Event) -> (String, Colour) {
    let Some(kind) = EventKind::of_number(event.kind) else {
        return (EventKind::word_of(event.kind).into(), Colour::Plain);
    };
    match kind {
        EventKind::CredentialRead => ("read file".into(), Colour::Cyan),
        EventKind::CredentialOpened => ("opened file".into(), Colour::Dim),
        EventKind::CredentialCreated => ("new file".into(), Colour::Cyan),
        EventKind::CredentialExposed => match event
            .source
            .as_ref()
            .and_then(|s| SourceType::of_number(s.r#type))
        {
            Some(SourceType::Env) => ("has in env".into(), Colour::Yellow),
            Some(SourceType::Argv) => ("has in argv".into(), Colour::Yellow),
            _ => ("exposed".into(), Colour::Yellow),
        },
        EventKind::CredentialSent => sent(event),
        EventKind::CredentialTaken => took(event),
        EventKind::PersistenceWritten if event.change.is_some() => {
            ("linked start-up".into(), Colour::Yellow)
        }
        EventKind::PersistenceWritten => ("wrote start-up".into(), Colour::Yellow),
        EventKind::CredentialFileChanged => changed::action(event),
        EventKind::CredentialRequested => ("asked for".into(), Colour::Cyan),
        EventKind::CredentialReceived => ("was given".into(), Colour::Yellow),
        EventKind::Finding => {
            let severity = event.finding.as_ref().map_or("", |f| &f.severity);
            let colour = match severity {
                "critical" | "high" => Colour::Red,
                "medium" => Colour::Yellow,
                _ => Colour::Plain,
            };
            (format!("! {}", escape(severity)), colour)
        }
        EventKind::WorkloadNamed => ("pod named".into(), Colour::Dim),
        EventKind::CoverageGap => ("NOT SEEN".into(), Colour::Bold),
        EventKind::ProcessStart => ("start".into(), Colour::Dim),
        EventKind::ProcessExit => (
            match event.exit.as_ref() {
                Some(e) if e.signal != 0 => format!("killed ({})", e.signal),
                Some(e) => format!("exit {}", e.status),
                None => "exit".into(),
            },
            Colour::Dim,
        ),
    }
}

fn grade(event: &Event) -> Option<EvidenceGrade> {
    let evidence = event.evidence.as_ref()?;
    EvidenceGrade::of_number(evidence.grade)
}

fn channel(event: &Event) -> Option<Channel> {
    let evidence = event.evidence.as_ref()?;
    Channel::of_number(evidence.channel)
}

/// The grade is in the verb: only `observed` says that the credential was sent.
fn sent(event: &Event) -> (String, Colour) {
    let channel = channel(event);
    let by = match channel {
        Some(Channel::Tls) => "TLS",
        Some(Channel::Tcp) => "clear",
        _ => Channel::word_of(event.evidence.as_ref().map_or(0, |e| e.channel)),
    };
    match (grade(event), channel) {
        (Some(EvidenceGrade::Observed), Some(Channel::File)) => ("wrote file".into(), Colour::Red),
        (Some(EvidenceGrade::Observed), Some(Channel::Pipe)) => {
            ("wrote pipe".into(), Colour::Yellow)
        }
        (Some(EvidenceGrade::Observed), Some(Channel::Terminal)) => {
            ("wrote terminal".into(), Colour::Yellow)
        }
        (Some(EvidenceGrade::Observed), _) => (format!("sent {by}"), Colour::Red),
        (Some(EvidenceGrade::Identified), _) => (format!("named in {by}"), Colour::Yellow),
        _ => ("holder sent".into(), Colour::Dim),
    }
}

/// Memory may have held it: only what surely lay in what was read was taken.
fn took(event: &Event) -> (String, Colour) {
    let channel = channel(event);
    let (action, colour) = match (grade(event), own(event)) {
        _ if channel == Some(Channel::CoreDump) => ("dumped core", Colour::Red),
        (Some(EvidenceGrade::Observed), true) => ("read own env", Colour::Yellow),
        (Some(EvidenceGrade::Observed), false) => ("took from env", Colour::Red),
        (_, true) => ("read own memory", Colour::Dim),
        (_, false) => match channel {
            Some(Channel::Ptrace) => ("traced", Colour::Red),
            Some(Channel::Descriptor) => ("took fd of", Colour::Red),
            _ => ("read memory of", Colour::Red),
        },
    };
    (action.to_owned(), colour)
}

/// Whether the process read itself.
fn own(event: &Event) -> bool {
    match (&event.process, &event.victim) {
        (Some(process), Some(victim)) => process.key == victim.key,
        _ => false,
    }
}

/// Where the process has it from: `/root/.netrc`, `env GITHUB_TOKEN`, `argv[2]`.
pub fn source(source: &Source) -> String {
    let mut text = match SourceType::of_number(source.r#type) {
        Some(SourceType::File | SourceType::Service) => escape(&source.path).into_owned(),
        Some(SourceType::Env) => format!("env {}", escape(&source.env_name)),
        Some(SourceType::Argv) => format!("argv[{}]", source.argv_index),
        Some(SourceType::Payload) => first_used(source),
        _ if source.r#type == 0 => "unknown".into(),
        _ => SourceType::word_of(source.r#type).into(),
    };
    if SourceType::of_number(source.r#type) == Some(SourceType::Process) {
        text = match source.env_name.as_str() {
            "" => "another process".into(),
            name => format!("env {} of another process", escape(name)),
        };
    } else if !source.inherited_from.is_empty() {
        text.push_str(" (inherited)");
    }
    text
}

/// Where it came from is not known: what it is likely to have been got with.
fn first_used(source: &Source) -> String {
    let mut text = String::from("first seen in use");
    for (n, parent) in source.likely_parents.iter().enumerate() {
        text.push_str(if n == 0 { ", likely got with " } else { ", " });
        text.push_str(&escape(&parent.kind));
    }
    if let Some(parent) = source.likely_parents.first() {
        text.push_str(" at ");
        text.push_str(&escape(&parent.host));
        text.push_str(&escape(&parent.path));
    }
    text
}

/// `10.0.0.9:443 (api.github.com)`, or the address when no name was seen, or that it is not known. The address is where
/// the bytes went. A name is what the process said (for whom it wanted TLS, which site it asked for), and it may say
/// what it likes: `curl --connect-to`, `--resolve`. So a name never stands for the address.
pub fn destination(destination: &Destination) -> String {
    if !destination.path.is_empty() {
        return escape(&destination.path).into_owned();
    }
    if destination.protocol == "unix" || !destination.socket_path.is_empty() {
        return unix_socket(destination);
    }
    let address = match destination.ip.as_str() {
        "" => None,
        ip if ip.contains(':') => Some(format!("[{}]:{}", escape(ip), destination.port)),
        ip => Some(format!("{}:{}", escape(ip), destination.port)),
    };
    let named = |provenance: &[&str]| {
        destination
            .hosts
            .iter()
            .find(|h| !h.name.is_empty() && provenance.contains(&h.provenance.as_str()))
            .map(|h| without_port(&h.name))
    };
    // The proxy got the bytes; whether it passed them on is not seen.
    if let (Some(target), Some(address)) = (named(&["connect_target", "request_target"]), &address)
    {
        return format!("{address} (proxy to {target})");
    }
    let (asked, said) = (named(&["sni"]), named(&["host_header"]));
    let name = match (asked, said.or_else(|| any_name(destination))) {
        (Some(asked), Some(said)) if asked != said => Some(format!("{asked}, Host: {said}")),
        (asked, said) => asked.or(said),
    };
    match (address, name) {
        (None, None) => "unknown destination".into(),
        (Some(address), None) => address,
        (None, Some(name)) => format!("{name} (address unknown)"),
        (Some(address), Some(name)) => format!("{address} ({name})"),
    }
}

/// `unix:/run/docker.sock of dockerd[812]`: the socket's name, if it has one, and who listens, or is served, as far as that
/// is known.
fn unix_socket(destination: &Destination) -> String {
    let mut text = match destination.socket_path.as_str() {
        "" => "unix socket".to_owned(),
        path => format!("unix:{}", escape(path)),
    };
    if let Some(peer) = &destination.peer {
        let file = peer.executable.rsplit('/').next().unwrap_or_default();
        let name = match (file, peer.comm.as_str()) {
            ("", "") => "process",
            ("", comm) => comm,
            (file, _) => file,
        };
        let _ = write!(text, " of {}[{}]", escape(name), peer.pid);
    }
    text
}

fn any_name(destination: &Destination) -> Option<String> {
    let mut names = destination.hosts.iter().filter(|h| !h.name.is_empty());
    names.next().map(|h| without_port(&h.name))
}

/// The Host header may carry a port of its own; the socket's port is the true one.
fn without_port(name: &str) -> String {
    match name.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            escape(name).into_owned()
        }
        _ => escape(name).into_owned(),
    }
}

/// `nginx[812] env DB_PASSWORD`: out of whom, and which of its variables.
fn taken(victim: Option<&Process>, source: &Source) -> String {
    let mut text = victim.map_or_else(String::new, |p| format!("{}[{}]", escape(&p.comm), p.pid));
    if !source.env_name.is_empty() {
        let _ = write!(text, " env {}", escape(&source.env_name));
    }
    text
}

/// The last column.
pub fn place(event: &Event) -> String {
    let mut text = bare_place(event);
    text.push_str(&remarks(event));
    text
}

/// The last column where there is no room for remarks: where it went is whole.
pub fn bare_place(event: &Event) -> String {
    if let Some(finding) = &event.finding {
        return format!("{}: {}", escape(&finding.title), escape(&finding.seen));
    }
    if let Some(w) = &event.workload {
        let short = |id: &str| escape(id).chars().take(12).collect::<String>();
        return format!(
            "pod {}/{} is {}",
            short(&w.pod_uid),
            short(&w.container_id),
            workload(w)
        );
    }
    if let (Some(change), Some(source)) = (&event.change, &event.source) {
        return changed::place(change, source);
    }
    match (
        EventKind::of_number(event.kind),
        &event.destination,
        &event.source,
        &event.gap,
    ) {
        (Some(EventKind::CoverageGap), _, _, Some(gap)) => {
            let mut text = GapReason::word_of(gap.reason).to_owned();
            if gap.count > 0 {
                let _ = write!(
                    text,
                    ", {}",
                    counted(GapReason::word_of(gap.reason), gap.count)
                );
            }
            if !gap.detail.is_empty() {
                let _ = write!(text, ": {}", escape(&gap.detail));
            }
            text
        }
        (Some(EventKind::CredentialSent), Some(d), ..) => destination(d),
        (Some(EventKind::CredentialSent), None, ..) => "unknown destination".into(),
        (Some(EventKind::ProcessStart), ..) => command(event.process.as_ref()),
        (Some(EventKind::CredentialTaken), _, Some(s), _) => taken(event.victim.as_ref(), s),
        (_, _, Some(s), _) => source(s),
        (_, Some(d), ..) => destination(d),
        _ => String::new(),
    }
}

/// What is said behind the place: in which form it was sent or by what it was known, how often, by whom it came.
fn remarks(event: &Event) -> String {
    let mut text = String::new();
    if event.finding.is_some() || event.workload.is_some() || event.change.is_some() {
        return text;
    }
    if let Some(e) = event
        .evidence
        .as_ref()
        .filter(|_| event.kind == EventKind::CredentialSent.number())
    {
        if let Some(by) = identified_by(e) {
            let _ = write!(text, " by {by}");
        } else if let Some(transform) = encoded(e) {
            let _ = write!(text, " as {transform}");
        }
    }
    if event.repeats.is_some() {
        let _ = write!(text, " ({} times more)", event.stands_for());
    }
    if let Some(delivery) = &event.delivery {
        let _ = write!(text, ", {}", delivered(delivery));
    }
    text
}

/// What was asked for, or answered: `POST /repos/{id} (github repository octo/hello)`, `answer 2xx`. Empty when no request was
/// recognised.
pub fn request(event: &Event) -> String {
    let Some(request) = &event.request else {
        return String::new();
    };
    if request.status_class != 0 {
        return format!("answer {}xx", request.status_class);
    }
    let line = format!("{} {}", escape(&request.method), escape(&request.path));
    let mut text = line.trim().to_owned();
    if let Some(target) = &request.target {
        let words = [&target.service, &target.kind, &target.name];
        let words: Vec<_> = words
            .iter()
            .filter(|w| !w.is_empty())
            .map(|w| escape(w))
            .collect();
        let _ = write!(text, " ({})", words.join(" "));
    }
    text
}

/// By what a credential was known that was not seen itself, where it is more than its identifier.
pub fn identified_by(evidence: &Evidence) -> Option<&'static str> {
    Some(match IdentifiedBy::of_number(evidence.identified_by)? {
        IdentifiedBy::Identifier => return None,
        IdentifiedBy::ScramLogin => "a SCRAM login",
        IdentifiedBy::JwtClaim => "claims of a JWT",
        IdentifiedBy::AwsSignature => "an AWS signature",
        IdentifiedBy::PublicKey => "its public key",
        IdentifiedBy::ClientCertificate => "its client certificate",
        IdentifiedBy::JwtSignature => "a JWT it signed",
    })
}

/// `brought into container c1 by runc`: the nearest of those who did.
fn delivered(delivery: &Delivery) -> String {
    let by = delivery.path.last().map_or_else(String::new, |step| {
        let name = match step.executable.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => step.comm.as_str(),
        };
        format!(" by {}[{}]", escape(name), step.pid)
    });
    format!("brought into container {}{by}", escape(&delivery.container))
}

/// How the secret was encoded, where it was not sent as it is.
pub fn encoded(evidence: &Evidence) -> Option<&'static str> {
    let plain = evidence.transform == 0 || evidence.transform == Transform::Raw.number();
    (!plain).then(|| Transform::word_of(evidence.transform))
}

/// ATT&CK techniques, each set off from what stands before it.
pub fn techniques(event: &Event) -> String {
    event
        .attack
        .iter()
        .map(|t| format!("  {}", escape(t)))
        .collect()
}

/// A count of what is not seen, with its unit: by the reason of a gap, or the kind of records that were lost.
pub fn counted(reason: &str, count: u64) -> String {
    let (one, many) = match GapReason::of_word(reason) {
        Some(
            GapReason::FilesSkipped
            | GapReason::FileUnreadable
            | GapReason::FileTruncated
            | GapReason::InspectionTimeout
            | GapReason::InspectionBacklog
            | GapReason::InspectionBudget
            | GapReason::FileUnwatched,
        ) => ("file", "files"),
        Some(
            GapReason::EnvironmentUnreadable
            | GapReason::EnvironmentTruncated
            | GapReason::ArgvTruncated
            | GapReason::Backfill,
        ) => ("process", "processes"),
        Some(GapReason::PayloadTruncated) => ("send", "sends"),
        Some(GapReason::TlsWriteUnsent) => ("write", "writes"),
        Some(GapReason::SecretNotMatched) => ("secret", "secrets"),
        Some(GapReason::LibraryNotCovered) => ("library", "libraries"),
        Some(GapReason::ClientTooSlow | GapReason::LedgerLost | GapReason::SinkBehind) => {
            ("event", "events")
        }
        Some(GapReason::TableFull) => ("entry", "entries"),
        Some(GapReason::Excluded) => ("place", "places"),
        Some(GapReason::RecordsLost | GapReason::RecordsLeft) | None => ("record", "records"),
        Some(_) => ("time", "times"),
    };
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `read /root/.ssh/id by tar > pipe > openssl > pipe > curl`: the way a credential can have come by.
pub fn path(steps: &[PathStep]) -> String {
    let mut text = String::new();
    for step in steps {
        let name = match step.executable.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => step.comm.as_str(),
        };
        let who = escape(name);
        let _ = match step.how.as_str() {
            how if text.is_empty() => {
                write!(text, "{} {} by {who}", escape(how), escape(&step.name))
            }
            "file" | "socket" if !step.name.is_empty() => {
                write!(text, " > {} > {who}", escape(&step.name))
            }
            how => write!(text, " > {} > {who}", escape(how)),
        };
    }
    text
}

/// The (redacted) command line.
pub fn command(process: Option<&Process>) -> String {
    let argv = process.map(|p| p.argv.as_slice()).unwrap_or_default();
    argv.iter().map(|a| escape(a)).collect::<Vec<_>>().join(" ")
}

/// ` < bash[3] < sshd[2]`: parents, nearest first.
pub fn ancestry(process: &Process) -> String {
    process
        .ancestors
        .iter()
        .map(|a| format!(" < {}[{}]", escape(&a.comm), a.pid))
        .collect()
}
