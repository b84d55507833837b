//! What memory, baselines and rules need of an event: the one place that knows the schema of events.

use crate::finding::Finding;
use crate::network::network;
use keytrail_model::{
    Actor, Channel, ContextKind, DestinationMethod, EventKind, EvidenceGrade, FileAction,
    GapReason, INLINE, Reach, Signal, SourceType, applet, script_of,
};
use keytrail_proto::v1;
use serde::Deserialize;
use std::borrow::Cow;

/// One event, flat. Words are those people are shown: `credential_sent`, `observed`, `tls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    pub epoch: u64,
    pub sequence: u64,
    /// Wall clock, nanoseconds since the epoch; 0 when the event says no time.
    pub time_ns: i64,
    pub kind: String,
    pub credential: Option<CredentialFacts>,
    pub process: Option<ProcessFacts>,
    /// Out of whom it was taken.
    pub victim: Option<ProcessFacts>,
    pub source: SourceFacts,
    /// `None` for what was not sent and where the destination was not found.
    pub destination: Option<DestinationFacts>,
    /// Of a pipe: key of the outermost process, from the writer up, that has it as its standard output.
    pub stdout_of: String,
    /// Fingerprint of the credential in whose place this one is now, where that is what is reported; or empty.
    pub replaced: String,
    pub grade: String,
    pub channel: String,
    /// Which part of the credential was seen, of those that have several.
    pub part: String,
    /// It was in the body of a message of HTTP.
    pub in_body: bool,
    /// It was in the URL of a request of HTTP.
    pub in_url: bool,
    /// The way of what was passed on.
    pub steps: Vec<StepFacts>,
    pub bytes: u64,
    /// Acts that the event stands for, 0 for one, and the time of the first.
    pub repeats: u64,
    pub first_ns: i64,
    /// Method and path of the request, without query; empty where none was recognised.
    pub request: String,
    /// The environment of the site; empty for none.
    pub environment: String,
    pub gap: Option<GapFacts>,
    pub change: Option<ChangeFacts>,
    pub finding: Option<FindingFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialFacts {
    pub fingerprint: String,
    pub kind: String,
    pub identifier: String,
    pub confidence: f64,
    pub privilege: u32,
    /// Seconds since the epoch.
    pub expires: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessFacts {
    pub key: String,
    pub pid: u32,
    pub executable: String,
    pub device: u64,
    pub inode: u64,
    /// The executable was less than a minute old.
    pub fresh: bool,
    /// The executable lies in the upper layer of an overlay.
    pub upper_layer: bool,
    /// Script or module when the executable is an interpreter, otherwise empty.
    pub script: String,
    pub comm: String,
    pub argv: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub euid: u32,
    pub loginuid: u32,
    pub container: String,
    pub unit: String,
    pub pod: String,
    pub start_ns: i64,
    /// Parent first.
    pub ancestors: Vec<AncestorFacts>,
    /// Innermost first.
    pub contexts: Vec<ContextFacts>,
    /// `person`, `agent`, `package`, `ci`, `job`, `service`, or empty.
    pub actor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextFacts {
    /// `package_install`, `agent_tool`, `ci_job`, `cron`, `ssh_session` or `login_shell`.
    pub kind: String,
    pub name: String,
    /// Key of the ancestor that gives it.
    pub ancestor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AncestorFacts {
    pub key: String,
    pub comm: String,
    pub executable: String,
    pub script: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceFacts {
    /// `file`, `env`, `argv`, `payload`, `unknown` or empty.
    pub kind: String,
    pub path: String,
    pub env_name: String,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub mode: String,
    /// Who comes as far as the file: `world`, `few`, or empty where that is not known.
    pub reach: String,
    pub inherited: bool,
    /// git has the file in the index of its work tree.
    pub tracked: bool,
    /// The user it belongs to has no account on the host.
    pub orphaned: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationFacts {
    /// Names it was called by, without repetition, separated by commas.
    pub host: String,
    pub ip: String,
    pub port: u32,
    pub protocol: String,
    /// Of the file, the pipe or the terminal it was written to; empty for what was sent.
    pub path: String,
}

/// A process on the way of a credential, and how it came to it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepFacts {
    /// `read`, `pipe`, `file` and so on.
    pub how: String,
    pub name: String,
    /// Key of the process.
    pub process: String,
    pub executable: String,
}

/// What happened to the file that `source` is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeFacts {
    /// `replaced`, `rotated`, `moved` and so on.
    pub action: String,
    pub new_path: String,
    /// Where its name leads now that was its own before.
    pub link: String,
    pub previous_owner_uid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GapFacts {
    pub reason: String,
    pub detail: String,
    pub remedy: String,
    pub signal: String,
    pub count: u64,
    pub from_ns: Option<i64>,
    pub to_ns: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FindingFacts {
    pub rule: String,
    pub severity: String,
    pub title: String,
    pub subject: String,
    pub seen: String,
    pub expected: String,
    pub remedy: String,
    pub techniques: Vec<String>,
    pub act: u64,
}

/// The word before the environment of the site, among contexts.
pub const ENVIRONMENT: &str = "environment";

/// No login: what the kernel gives for a process that no session started.
pub const NO_LOGIN: u32 = u32::MAX;

impl Facts {
    #[must_use]
    pub fn of(event: &v1::Event) -> Facts {
        let id = event.id.as_ref();
        let evidence = event.evidence.as_ref();
        let unknown = evidence.is_none_or(|e| {
            DestinationMethod::of_number(e.destination_method) == Some(DestinationMethod::Unknown)
        });
        Facts {
            epoch: id.map_or(0, |id| id.epoch),
            sequence: id.map_or(0, |id| id.sequence),
            time_ns: event.time.as_ref().map_or(0, nanoseconds),
            kind: EventKind::word_of(event.kind).to_owned(),
            credential: event
                .credential
                .as_ref()
                .filter(|c| !c.fingerprint.is_empty())
                .map(credential),
            process: event.process.as_ref().map(process),
            victim: event.victim.as_ref().map(process),
            source: event.source.as_ref().map(source).unwrap_or_default(),
            destination: event
                .destination
                .as_ref()
                .filter(|d| {
                    !(unknown || d.ip.is_empty() && d.socket_path.is_empty() && d.path.is_empty())
                })
                .map(destination),
            stdout_of: event
                .destination
                .as_ref()
                .map_or_else(String::new, |d| d.stdout_of.clone()),
            replaced: event
                .change
                .as_ref()
                .map_or_else(String::new, |c| c.previous_fingerprint.clone()),
            grade: evidence
                .map_or_else(String::new, |e| EvidenceGrade::word_of(e.grade).to_owned()),
            channel: evidence.map_or_else(String::new, |e| Channel::word_of(e.channel).to_owned()),
            part: evidence.map_or_else(String::new, |e| e.part.clone()),
            in_body: evidence.is_some_and(|e| e.in_body),
            in_url: evidence.is_some_and(|e| e.in_url),
            steps: evidence.map_or_else(Vec::new, |e| e.path.iter().map(step).collect()),
            bytes: evidence.map_or(0, |e| e.payload_bytes),
            repeats: event.repeats.as_ref().map_or(0, |repeats| repeats.count),
            first_ns: event
                .repeats
                .as_ref()
                .and_then(|repeats| repeats.first.as_ref())
                .map_or(0, nanoseconds),
            request: event.request.as_ref().map(request).unwrap_or_default(),
            environment: event.environment.clone(),
            gap: event.gap.as_ref().map(gap),
            change: event.change.as_ref().map(|c| ChangeFacts {
                action: FileAction::word_of(c.action).to_owned(),
                new_path: c.new_path.clone(),
                link: c.link.clone(),
                previous_owner_uid: c.previous_owner_uid,
            }),
            finding: event.finding.as_ref().map(|f| FindingFacts {
                rule: f.rule.clone(),
                severity: f.severity.clone(),
                title: f.title.clone(),
                subject: f.subject.clone(),
                seen: f.seen.clone(),
                expected: f.expected.clone(),
                remedy: f.remedy.clone(),
                techniques: f.techniques.clone(),
                act: f.act,
            }),
        }
    }

    /// The words by which lists of uses and findings say where a process runs: `package_install:npm`, the innermost first, and
    /// `environment:production`.
    #[must_use]
    pub fn surroundings(&self) -> Vec<String> {
        let contexts = self.process.iter().flat_map(|p| &p.contexts);
        let mut words: Vec<String> = contexts.map(|c| format!("{}:{}", c.kind, c.name)).collect();
        if !self.environment.is_empty() {
            words.push(format!("{ENVIRONMENT}:{}", self.environment));
        }
        words
    }

    /// The event that tells a finding about another event.
    #[must_use]
    pub fn finding_event(finding: &Finding, about: &v1::Event) -> v1::Event {
        v1::Event {
            id: None,
            kind: EventKind::Finding.number(),
            attack: finding
                .techniques
                .iter()
                .filter(|id| id.starts_with('T'))
                .cloned()
                .collect(),
            finding: Some(v1::Finding {
                rule: finding.rule.clone(),
                severity: finding.severity.clone(),
                title: finding.title.clone(),
                subject: finding.subject.clone(),
                seen: finding.seen.clone(),
                expected: finding.expected.clone(),
                remedy: finding.remedy.clone(),
                techniques: finding.techniques.clone(),
                events: about.id.iter().cloned().collect(),
                act: finding.act,
            }),
            // A gap is reported by its own event.
            gap: None,
            truncation: None,
            coverage: Vec::new(),
            ..about.clone()
        }
    }

    /// `file:PATH`, `env:NAME`, `argv`, `service:URL`, or empty.
    #[must_use]
    pub fn source_text(&self) -> String {
        match self.source.kind.as_str() {
            "file" => format!("file:{}", self.source.path),
            "env" => format!("env:{}", self.source.env_name),
            "argv" => "argv".to_owned(),
            "service" => format!("service:{}", self.source.path),
            _ => String::new(),
        }
    }
}

impl ProcessFacts {
    /// What it runs as: the innermost of pod, container and unit, otherwise the user.
    #[must_use]
    pub fn workload(&self) -> String {
        if !self.pod.is_empty() {
            return format!("pod:{}", self.pod);
        }
        if !self.container.is_empty() {
            let end = self.container.len().min(12);
            return format!(
                "container:{}",
                self.container.get(..end).unwrap_or_default()
            );
        }
        // A session's scope has a number that is another the next time.
        if !self.unit.is_empty() && !self.unit.ends_with(".scope") {
            return format!("unit:{}", self.unit);
        }
        format!("user:{}", self.uid)
    }

    /// The program by which it is known again: the script of an interpreter, otherwise the executable. Code in an argument and
    /// modules have no path of their own, and are those of their interpreter: `/usr/bin/bash -c`.
    #[must_use]
    pub fn program(&self) -> Cow<'_, str> {
        match applet(&self.executable, &self.argv) {
            Some((name, _)) if !is_path(&self.script) => {
                let called = format!("{} {name}", self.executable);
                Cow::Owned(program_of(&called, &self.script).into_owned())
            }
            _ => program_of(&self.executable, &self.script),
        }
    }

    /// The same for people: `bash -c`.
    #[must_use]
    pub fn program_text(&self) -> Cow<'_, str> {
        if !self.script.is_empty() {
            return program_of(self.name(), &self.script);
        }
        match applet(&self.executable, &self.argv) {
            Some((name, _)) => Cow::Owned(format!("{} {name}", self.executable)),
            None => Cow::Borrowed(&self.executable),
        }
    }

    /// The file name of the executable; of one that is many programs, which of them it is.
    #[must_use]
    pub fn name(&self) -> &str {
        applet(&self.executable, &self.argv)
            .map_or_else(|| file_name(&self.executable), |(name, _)| name)
    }

    /// The file name of the program; of code in an argument that of its interpreter, of a module its name.
    #[must_use]
    pub fn called(&self) -> &str {
        if self.script.is_empty() || self.script == INLINE {
            self.name()
        } else {
            let module = self.script.strip_prefix(MODULE);
            module.unwrap_or_else(|| file_name(&self.script))
        }
    }
}

/// Before the name of a module, where the path of a script would be.
const MODULE: &str = "-m ";

fn is_path(script: &str) -> bool {
    !script.is_empty() && script != INLINE && !script.starts_with(MODULE)
}

/// See [`ProcessFacts::program`].
pub(crate) fn program_of<'a>(executable: &'a str, script: &'a str) -> Cow<'a, str> {
    if script.is_empty() {
        Cow::Borrowed(executable)
    } else if is_path(script) {
        Cow::Borrowed(script)
    } else {
        Cow::Owned(format!("{executable} {script}"))
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl DestinationFacts {
    /// What it was called, with the port; the address where it has no name. Whoever sends chooses the name.
    #[must_use]
    pub fn place(&self) -> String {
        if !self.path.is_empty() {
            return self.path.clone();
        }
        if self.is_named() {
            with_port(&self.host, self.port)
        } else {
            with_port(&self.ip, self.port)
        }
    }

    /// The same for people, who are told where it went as well: `api.example (192.0.2.1:443)`.
    #[must_use]
    pub fn text(&self) -> String {
        if self.path.is_empty() && self.is_named() && !self.ip.is_empty() {
            format!("{} ({})", self.host, with_port(&self.ip, self.port))
        } else {
            self.place()
        }
    }

    /// Whether it has a name that says more than its address.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.host.is_empty() && self.host != self.ip
    }

    /// Which of the networks a name may move in it went to; empty where that is not known.
    #[must_use]
    pub fn network(&self) -> String {
        network(&self.ip)
    }
}

fn with_port(name: &str, port: u32) -> String {
    match port {
        0 => name.to_owned(),
        // Of an address of version 6 nobody would know where it ends.
        port if name.contains(':') => format!("[{name}]:{port}"),
        port => format!("{name}:{port}"),
    }
}

fn nanoseconds(time: &pbjson_types::Timestamp) -> i64 {
    let seconds = time.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(time.nanos.into())
}

fn credential(c: &v1::Credential) -> CredentialFacts {
    CredentialFacts {
        fingerprint: c.fingerprint.clone(),
        kind: c.kind.clone(),
        identifier: c.identifier.clone(),
        confidence: c.confidence,
        privilege: c.privilege,
        expires: c.expires.as_ref().map(|t| t.seconds),
    }
}

fn process(p: &v1::Process) -> ProcessFacts {
    let exe = p.executable.clone().unwrap_or_default();
    ProcessFacts {
        key: p.key.clone(),
        pid: p.pid,
        script: script_of(&exe.path, &p.argv, &p.cwd).unwrap_or_default(),
        executable: exe.path,
        device: exe.device,
        inode: exe.inode,
        fresh: exe.fresh,
        upper_layer: exe.upper_layer,
        comm: p.comm.clone(),
        argv: p.argv.clone(),
        cwd: p.cwd.clone(),
        uid: p.uid,
        euid: p.euid,
        loginuid: p.loginuid,
        container: p.container.clone(),
        unit: p.unit.clone(),
        pod: p.pod.clone(),
        start_ns: p.start_time.as_ref().map_or(0, nanoseconds),
        ancestors: p
            .ancestors
            .iter()
            .map(|a| AncestorFacts {
                key: a.key.clone(),
                comm: a.comm.clone(),
                executable: a.executable.clone(),
                script: a.script.clone(),
            })
            .collect(),
        contexts: p
            .contexts
            .iter()
            .map(|c| ContextFacts {
                kind: ContextKind::word_of(c.kind).to_owned(),
                name: c.name.clone(),
                ancestor: c.ancestor.clone(),
            })
            .collect(),
        actor: Actor::word_of(p.actor).to_owned(),
    }
}

fn source(s: &v1::Source) -> SourceFacts {
    SourceFacts {
        kind: SourceType::word_of(s.r#type).to_owned(),
        path: s.path.clone(),
        env_name: s.env_name.clone(),
        owner_uid: s.owner_uid,
        owner_gid: s.owner_gid,
        mode: s.mode.clone(),
        reach: Reach::word_of(s.reach).to_owned(),
        inherited: !s.inherited_from.is_empty(),
        tracked: s.tracked,
        orphaned: s.orphaned,
    }
}

fn step(s: &v1::PathStep) -> StepFacts {
    StepFacts {
        how: s.how.clone(),
        name: s.name.clone(),
        process: s.process.clone(),
        executable: s.executable.clone(),
    }
}

fn destination(d: &v1::Destination) -> DestinationFacts {
    let mut names: Vec<&str> = Vec::new();
    for host in &d.hosts {
        if !names.contains(&host.name.as_str()) {
            names.push(&host.name);
        }
    }
    // A pipe has another number each time.
    let path = if d.path.starts_with("pipe:[") {
        "pipe".to_owned()
    } else {
        d.path.clone()
    };
    DestinationFacts {
        // What a client of a Unix socket calls the other end is made up: `http://localhost`, `http://docker`.
        host: if d.protocol == "unix" {
            String::new()
        } else {
            names.join(",")
        },
        ip: if !d.ip.is_empty() {
            d.ip.clone()
        } else if !d.socket_path.is_empty() {
            d.socket_path.clone()
        } else {
            path.clone()
        },
        port: d.port,
        protocol: d.protocol.clone(),
        path,
    }
}

/// Longest request line that is told apart, characters: a path is as long as somebody likes.
const REQUEST: usize = 160;

fn request(r: &v1::Request) -> String {
    if r.status_class != 0 {
        return format!("answer {}xx", r.status_class);
    }
    let line = format!("{} {}", r.method, r.path);
    line.trim().chars().take(REQUEST).collect()
}

fn gap(g: &v1::Gap) -> GapFacts {
    GapFacts {
        reason: GapReason::word_of(g.reason).to_owned(),
        detail: g.detail.clone(),
        remedy: g.remedy.clone(),
        signal: Signal::word_of(g.signal).to_owned(),
        count: g.count,
        from_ns: g.from.as_ref().map(nanoseconds),
        to_ns: g.to.as_ref().map(nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_was_not_found_is_none() {
        let mut event = v1::Event {
            destination: Some(v1::Destination {
                ip: "192.0.2.1".into(),
                port: 443,
                ..Default::default()
            }),
            evidence: Some(v1::Evidence {
                destination_method: DestinationMethod::Socket.number(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            Facts::of(&event).destination.map(|d| d.text()),
            Some("192.0.2.1:443".into())
        );
        event.evidence.as_mut().unwrap().destination_method = DestinationMethod::Unknown.number();
        assert_eq!(Facts::of(&event).destination, None);
    }

    /// A name is what the sender says.
    #[test]
    fn a_name_is_reported_with_its_address() {
        for (host, ip, port, place, text) in [
            (
                "api.example",
                "192.0.2.1",
                443,
                "api.example:443",
                "api.example (192.0.2.1:443)",
            ),
            (
                "api.example",
                "2001:db8::1",
                443,
                "api.example:443",
                "api.example ([2001:db8::1]:443)",
            ),
            ("", "192.0.2.1", 443, "192.0.2.1:443", "192.0.2.1:443"),
            ("192.0.2.1", "192.0.2.1", 80, "192.0.2.1:80", "192.0.2.1:80"),
            ("api.example", "", 443, "api.example:443", "api.example:443"),
            ("a", "192.0.2.1", 0, "a", "a (192.0.2.1)"),
        ] {
            let destination = DestinationFacts {
                host: host.into(),
                ip: ip.into(),
                port,
                ..Default::default()
            };
            assert_eq!(destination.place(), place);
            assert_eq!(destination.text(), text);
        }
    }

    #[test]
    fn a_unix_socket_is_called_by_its_own_name() {
        let facts = destination(&v1::Destination {
            protocol: "unix".into(),
            socket_path: "/run/docker.sock".into(),
            hosts: vec![v1::HostName {
                name: "docker".into(),
                provenance: "host_header".into(),
            }],
            ..Default::default()
        });
        assert_eq!(facts.text(), "/run/docker.sock");
    }

    #[test]
    fn what_was_written_went_to_a_path() {
        let written = |path: &str| {
            let event = v1::Event {
                destination: Some(v1::Destination {
                    path: path.into(),
                    ..Default::default()
                }),
                evidence: Some(v1::Evidence {
                    destination_method: DestinationMethod::Descriptor.number(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            Facts::of(&event).destination.map(|d| d.text())
        };
        assert_eq!(written("/var/log/x.log"), Some("/var/log/x.log".into()));
        assert_eq!(written("pipe:[4711]"), Some("pipe".into()));
        assert_eq!(written(""), None);
    }

    /// Whatever `bash -c` did says nothing of what `perl -e` does.
    #[test]
    fn code_in_an_argument_is_its_interpreters() {
        for (executable, script, program, text, called) in [
            ("/usr/bin/bash", "-c", "/usr/bin/bash -c", "bash -c", "bash"),
            ("/usr/bin/perl", "-c", "/usr/bin/perl -c", "perl -c", "perl"),
            (
                "/usr/bin/python3.11",
                "-m http.server",
                "/usr/bin/python3.11 -m http.server",
                "python3.11 -m http.server",
                "http.server",
            ),
            (
                "/usr/bin/node",
                "/srv/x.js",
                "/srv/x.js",
                "/srv/x.js",
                "x.js",
            ),
            ("/usr/bin/cat", "", "/usr/bin/cat", "/usr/bin/cat", "cat"),
        ] {
            let process = ProcessFacts {
                executable: executable.into(),
                script: script.into(),
                ..Default::default()
            };
            assert_eq!(process.program(), program);
            assert_eq!(process.program_text(), text);
            assert_eq!(process.called(), called);
        }
    }

    /// On Alpine everything is one file.
    #[test]
    fn a_program_of_many_is_the_one_it_was_called_as() {
        let argv = |argv: &str| argv.split(' ').map(str::to_owned).collect();
        let mut process = ProcessFacts {
            executable: "/bin/busybox".into(),
            argv: argv("wget -q https://x/"),
            ..Default::default()
        };
        assert_eq!((process.name(), process.called()), ("wget", "wget"));
        assert_eq!(process.program(), "/bin/busybox wget");
        assert_eq!(process.program_text(), "/bin/busybox wget");
        process.argv = argv("sh -c id");
        process.script = INLINE.into();
        assert_eq!((process.name(), process.called()), ("sh", "sh"));
        assert_eq!(process.program(), "/bin/busybox sh -c");
        assert_eq!(process.program_text(), "sh -c");
        process.script = "/run.sh".into();
        assert_eq!(
            (process.called(), &*process.program()),
            ("run.sh", "/run.sh")
        );
    }

    #[test]
    fn workloads_from_the_inside_out() {
        let mut p = ProcessFacts {
            uid: 7,
            unit: "session-3.scope".into(),
            ..Default::default()
        };
        assert_eq!(p.workload(), "user:7");
        p.unit = "web.service".into();
        assert_eq!(p.workload(), "unit:web.service");
        p.container = "0123456789abcdef".repeat(4);
        assert_eq!(p.workload(), "container:0123456789ab");
        p.pod = "p".into();
        assert_eq!(p.workload(), "pod:p");
    }
}
