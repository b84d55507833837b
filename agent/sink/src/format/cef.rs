//! ArcSight's Common Event Format, version 0: a head of seven fields and pairs behind it.
//!
//! In the head `|` and `\` are escaped, in values of pairs `=` and `\`, and line breaks there are `\n` and `\r`
//! ("Implementing ArcSight Common Event Format", revision 25). Other control characters have no form in it: they become
//! blanks.

use super::Reporter;
use super::parts::{self, program};
use keytrail_model::{EventKind, EvidenceGrade, GapReason};
use keytrail_proto::v1::{Event, Request};

pub(super) fn event(event: &Event, reporter: &Reporter) -> String {
    let mut out = String::from("CEF:0|keytrail|keytrail|");
    let signature = match &event.finding {
        Some(finding) => finding.rule.as_str(),
        None => EventKind::word_of(event.kind),
    };
    let name = match &event.finding {
        Some(finding) => finding.title.as_str(),
        None => parts::action(event),
    };
    for field in [reporter.version.as_str(), signature, name] {
        head(&mut out, field);
        out.push('|');
    }
    out.push_str(severity(event));
    out.push('|');
    let mut pairs = Pairs(out);
    pairs.add("rt", &parts::time_ms(event.time.as_ref()).to_string());
    pairs.add("externalId", &parts::uid(event));
    pairs.add("cat", EventKind::word_of(event.kind));
    pairs.add("dvchost", &reporter.host);
    pairs.add(
        "deviceExternalId",
        event.id.as_ref().map_or(&reporter.agent, |id| &id.agent),
    );
    pairs.add("msg", &parts::message(event));
    process(&mut pairs, event);
    place(&mut pairs, event);
    custom(&mut pairs, event);
    pairs.0
}

/// 0 to 10.
fn severity(event: &Event) -> &'static str {
    match parts::severity(event) {
        0 => "Unknown",
        1 => "1",
        2 => "3",
        3 => "5",
        4 => "8",
        _ => "10",
    }
}

fn process(pairs: &mut Pairs, event: &Event) {
    let Some(process) = &event.process else {
        return;
    };
    pairs.add("spid", &process.pid.to_string());
    pairs.add(
        "sproc",
        process
            .executable
            .as_ref()
            .map_or(program(process), |e| &e.path),
    );
    pairs.add("suid", &process.uid.to_string());
}

fn place(pairs: &mut Pairs, event: &Event) {
    if let Some(source) = event.source.as_ref().filter(|s| !s.path.is_empty()) {
        pairs.add("filePath", &source.path);
        pairs.add("fname", source.path.rsplit('/').next().unwrap_or_default());
        pairs.add("filePermission", &source.mode);
        if !source.host_path.is_empty() {
            pairs.add("flexString1", &source.host_path);
            pairs.add("flexString1Label", "HostPath");
        }
    }
    if let Some(destination) = &event.destination {
        pairs.add("dst", &destination.ip);
        if destination.port != 0 {
            pairs.add("dpt", &destination.port.to_string());
        }
        pairs.add("dhost", &parts::hosts(event).join(","));
        pairs.add("src", &destination.local_ip);
        if destination.local_port != 0 {
            pairs.add("spt", &destination.local_port.to_string());
        }
        pairs.add("proto", &destination.protocol.to_ascii_uppercase());
    }
    if let Some(request) = &event.request {
        pairs.add("requestMethod", &request.method);
        pairs.add("request", &request.path);
        pairs.add("app", &request.protocol);
        pairs.add("requestContext", &request_context(request));
    }
    if let Some(first) = parts::first_ms(event) {
        pairs.add("cnt", &event.stands_for().to_string());
        pairs.add("start", &first.to_string());
        pairs.add("end", &parts::time_ms(event.time.as_ref()).to_string());
    }
    if let Some(gap) = &event.gap {
        pairs.add("reason", GapReason::word_of(gap.reason));
        pairs.add("cnt", &gap.count.to_string());
    }
}

/// What else is known of a request, in the words of `keytrail.v1`.
fn request_context(request: &Request) -> String {
    let mut out = Vec::new();
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push(format!("{name}:{value}"));
        }
    };
    say("host", &request.host);
    say("content_type", &request.content_type);
    if request.status_class != 0 {
        say("status_class", &request.status_class.to_string());
    }
    if let Some(target) = &request.target {
        say(&target.service, &format!("{} {}", target.kind, target.name));
    }
    out.join(" ")
}

fn custom(pairs: &mut Pairs, event: &Event) {
    let (kind, identifier, fingerprint) = event.credential.as_ref().map_or(("", "", ""), |c| {
        (
            c.kind.as_str(),
            c.identifier.as_str(),
            c.fingerprint.as_str(),
        )
    });
    let grade = parts::grade(event).map_or("", EvidenceGrade::word);
    let remedy = match (&event.finding, &event.gap) {
        (Some(finding), _) => finding.remedy.as_str(),
        (None, Some(gap)) => gap.remedy.as_str(),
        (None, None) => "",
    };
    let way = match parts::channel(event) {
        "" => String::new(),
        channel if grade.is_empty() => channel.to_owned(),
        channel => format!("{grade} {channel}"),
    };
    let way = match parts::identified_by(event) {
        "" => way,
        by => format!("{way} by {by}"),
    };
    let fields = [
        ("CredentialKind", kind),
        ("CredentialIdentifier", identifier),
        ("CredentialFingerprint", fingerprint),
        ("Evidence", way.as_str()),
        ("Techniques", &parts::techniques(event).join(" ")),
        ("Remedy", remedy),
    ];
    for (number, (label, value)) in fields.iter().enumerate() {
        if !value.is_empty() {
            let number = number + 1;
            pairs.add(&format!("cs{number}"), value);
            pairs.add(&format!("cs{number}Label"), label);
        }
    }
    if let Some(evidence) = &event.evidence
        && evidence.payload_bytes > 0
    {
        pairs.add("out", &evidence.payload_bytes.to_string());
    }
}

struct Pairs(String);

impl Pairs {
    /// Left out when there is nothing to say.
    fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.ends_with('|') {
            self.0.push(' ');
        }
        self.0.push_str(key);
        self.0.push('=');
        for c in value.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '=' => self.0.push_str("\\="),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                c if c.is_control() => self.0.push(' '),
                c => self.0.push(c),
            }
        }
    }
}

fn head(out: &mut String, field: &str) {
    for c in field.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '|' => out.push_str("\\|"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
}
