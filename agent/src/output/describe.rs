//! What an event says, in words. The words never claim more than the evidence.

use super::escape::escape;
use super::style::Colour;
use keytrail_proto::v1::{Credential, Destination, Event, Process, Source};
use pbjson_types::Timestamp;
use std::fmt::Write as _;

/// HH:MM:SS.mmm in UTC.
pub fn time_of_day(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    let day = time.seconds.rem_euclid(86_400);
    let millis = time.nanos.clamp(0, 999_999_999) / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{millis:03}",
        day / 3600,
        day / 60 % 60,
        day % 60
    )
}

/// Where on the fleet the process belongs: pod, container, unit or user of the host.
pub fn who(process: Option<&Process>) -> String {
    let Some(p) = process else {
        return "host".into();
    };
    let short = |id: &str| escape(id).chars().take(12).collect::<String>();
    match p {
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

/// `9c1e..a2`: enough to tell fingerprints apart by eye.
pub fn short_fingerprint(fingerprint: &str) -> String {
    let digits = fingerprint.strip_prefix("kt1:").unwrap_or(fingerprint);
    let digits = escape(digits);
    let n = digits.chars().count();
    if n <= 8 {
        return digits.into_owned();
    }
    let head: String = digits.chars().take(4).collect();
    let tail: String = digits.chars().skip(n - 2).collect();
    format!("{head}..{tail}")
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
    let channel = || match event
        .evidence
        .as_ref()
        .map(|e| e.channel.as_str())
        .unwrap_or_default()
    {
        "tls" => "TLS".to_owned(),
        "tcp" => "clear".to_owned(),
        other => escape(other).into_owned(),
    };
    let grade = event
        .evidence
        .as_ref()
        .map(|e| e.grade.as_str())
        .unwrap_or_default();
    match event.kind.as_str() {
        "credential_read" => ("read file".into(), Colour::Cyan),
        "credential_opened" => ("opened file".into(), Colour::Dim),
        "credential_created" => ("new file".into(), Colour::Cyan),
        "credential_exposed" => match event.source.as_ref().map(|s| s.r#type.as_str()) {
            Some("env") => ("has in env".into(), Colour::Yellow),
            Some("argv") => ("has in argv".into(), Colour::Yellow),
            _ => ("exposed".into(), Colour::Yellow),
        },
        // The grade is in the verb: only `observed` says that the credential was sent.
        "credential_sent" => match grade {
            "observed" => (format!("sent {}", channel()), Colour::Red),
            "identified" => (format!("named in {}", channel()), Colour::Yellow),
            _ => ("holder sent".into(), Colour::Dim),
        },
        "coverage_gap" => ("NOT SEEN".into(), Colour::Bold),
        "process_start" => ("start".into(), Colour::Dim),
        "process_exit" => (
            match event.exit.as_ref() {
                Some(e) if e.signal != 0 => format!("killed ({})", e.signal),
                Some(e) => format!("exit {}", e.status),
                None => "exit".into(),
            },
            Colour::Dim,
        ),
        other => (escape(other).into_owned(), Colour::Plain),
    }
}

/// Where the process has it from: `/root/.netrc`, `env GITHUB_TOKEN`, `argv[2]`.
pub fn source(source: &Source) -> String {
    let mut text = match source.r#type.as_str() {
        "file" => escape(&source.path).into_owned(),
        "env" => format!("env {}", escape(&source.env_name)),
        "argv" => format!("argv[{}]", source.argv_index),
        "" => "unknown".into(),
        other => escape(other).into_owned(),
    };
    if !source.inherited_from.is_empty() {
        text.push_str(" (inherited)");
    }
    text
}

/// `api.github.com:443`, or the address when no name was seen, or that it is not known. A name is what the process said,
/// the address is where the bytes went: one that TLS was asked for stands alone, any other with the address.
pub fn destination(destination: &Destination) -> String {
    if !destination.socket_path.is_empty() {
        return format!("unix:{}", escape(&destination.socket_path));
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
    match (asked, said.or_else(|| any_name(destination)), address) {
        (None, None, None) => "unknown destination".into(),
        (None, None, Some(address)) => address,
        (Some(host), _, None) | (None, Some(host), None) => format!("{host} (address unknown)"),
        (None, Some(host), Some(address)) => format!("{host} ({address})"),
        (Some(host), Some(other), Some(_)) if other != host => {
            format!("{host}:{} (Host: {other})", destination.port)
        }
        (Some(host), _, Some(_)) => format!("{host}:{}", destination.port),
    }
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

/// The last column.
pub fn place(event: &Event) -> String {
    let mut text = match (
        event.kind.as_str(),
        &event.destination,
        &event.source,
        &event.gap,
    ) {
        ("coverage_gap", _, _, Some(gap)) => {
            let mut text = escape(&gap.reason).into_owned();
            if gap.count > 0 {
                let _ = write!(text, " x{}", gap.count);
            }
            if !gap.detail.is_empty() {
                let _ = write!(text, ": {}", escape(&gap.detail));
            }
            text
        }
        ("credential_sent", Some(d), ..) => destination(d),
        ("credential_sent", None, ..) => "unknown destination".into(),
        ("process_start", ..) => command(event.process.as_ref()),
        (_, _, Some(s), _) => source(s),
        (_, Some(d), ..) => destination(d),
        _ => String::new(),
    };
    if let Some(e) = event
        .evidence
        .as_ref()
        .filter(|_| event.kind == "credential_sent")
        && !matches!(e.transform.as_str(), "" | "raw")
    {
        let _ = write!(text, " as {}", escape(&e.transform));
    }
    text
}

/// ATT&CK techniques, each set off from what stands before it.
pub fn techniques(event: &Event) -> String {
    event
        .attack
        .iter()
        .map(|t| format!("  {}", escape(t)))
        .collect()
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
