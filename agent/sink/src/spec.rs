//! What a sink or a response is, as the configuration says.

mod kafka;
mod lake;
mod meter;

pub use kafka::{Broker, KafkaSpec, SaslMechanism, is_topic};
pub use lake::{LakeSpec, OcsfClass};
pub use meter::{MeterSpec, Temporality};

use keytrail_model::{EventKind, EvidenceGrade};
use keytrail_proto::v1::Event;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A place where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// Names its cursor: another name begins anew.
    pub name: String,
    pub carrier: CarrierSpec,
    pub format: Format,
    pub filter: Filter,
    /// Most events delivered together.
    pub batch: usize,
}

/// What is done about findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseSpec {
    pub name: String,
    /// [`CarrierSpec::Command`] or [`CarrierSpec::Webhook`].
    pub carrier: CarrierSpec,
    pub filter: Filter,
    /// Most findings responded to at a time.
    pub at_once: usize,
}

/// By which way events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarrierSpec {
    File(FileSpec),
    Syslog(SyslogSpec),
    Webhook(WebhookSpec),
    Otlp(OtlpSpec),
    Nats(NatsSpec),
    Kafka(KafkaSpec),
    S3(S3Spec),
    Command(CommandSpec),
}

impl CarrierSpec {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            CarrierSpec::File(_) => "file",
            CarrierSpec::Syslog(_) => "syslog",
            CarrierSpec::Webhook(_) => "webhook",
            CarrierSpec::Otlp(_) => "otlp",
            CarrierSpec::Nats(_) => "nats",
            CarrierSpec::Kafka(_) => "kafka",
            CarrierSpec::S3(_) => "s3",
            CarrierSpec::Command(_) => "command",
        }
    }

    /// How long an event waits for others, to be sent in a batch with them.
    #[must_use]
    pub fn together(&self) -> Duration {
        match self {
            CarrierSpec::S3(s3) => s3.every,
            _ => Duration::from_millis(100),
        }
    }

    /// What may be shown of where it goes: paths and queries of URLs are secrets at some services.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            CarrierSpec::File(file) => file.path.display().to_string(),
            CarrierSpec::Syslog(syslog) => syslog.address.to_string(),
            CarrierSpec::Webhook(webhook) => webhook.url.shown(),
            CarrierSpec::Otlp(otlp) => otlp.url.shown(),
            CarrierSpec::S3(s3) => match &s3.url {
                // Its path is the bucket, which is no secret.
                Url::Text(url) => url.clone(),
                Url::File(_) => s3.url.shown(),
            },
            CarrierSpec::Nats(nats) => format!("{} {}", nats.server, nats.subject),
            CarrierSpec::Kafka(kafka) => kafka.target(),
            CarrierSpec::Command(command) => command.argv.first().cloned().unwrap_or_default(),
        }
    }
}

/// `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']);
    let origin = end.map_or(url, |end| &url[..host + end]);
    // Who put a password before the host does not want to read it again.
    match origin.rfind('@') {
        Some(at) => &origin[at + 1..],
        None => origin,
    }
}

/// Lines in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    pub path: PathBuf,
    /// Size from which on it is moved aside, bytes.
    pub rotate_bytes: u64,
    /// How many that were moved aside are kept.
    pub keep: u32,
}

/// Messages of RFC 5424.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSpec {
    pub address: SyslogAddress,
    /// By TLS: certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// `HOST:PORT`, a datagram each (RFC 5426).
    Udp(String),
    /// `HOST:PORT`, octets counted (RFC 6587, 3.4.1).
    Tcp(String),
    /// `HOST:PORT`, octets counted inside TLS (RFC 5425).
    Tls(String),
    /// A socket of datagrams, such as /dev/log.
    Unix(PathBuf),
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogAddress::Udp(address) => write!(f, "udp:{address}"),
            SyslogAddress::Tcp(address) => write!(f, "tcp:{address}"),
            SyslogAddress::Tls(address) => write!(f, "tls:{address}"),
            SyslogAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for SyslogAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be udp:HOST:PORT, tcp:HOST:PORT, tls:HOST:PORT or unix:PATH";
        // Registered for syslog over TLS (RFC 5425, 4.1). The others have no port that all receivers use.
        const TLS_PORT: u16 = 6514;
        let (way, rest) = text.split_once(':').ok_or(FORM)?;
        if way == "unix" {
            return if rest.starts_with('/') {
                Ok(SyslogAddress::Unix(rest.into()))
            } else {
                Err("needs an absolute path after unix:")
            };
        }
        let (host, port) = match host_and_port(rest).ok_or(FORM)? {
            (host, Some(port)) => (host, port),
            (host, None) if way == "tls" => (host, TLS_PORT),
            _ => return Err(FORM),
        };
        let address = format!("{host}:{port}");
        match way {
            "udp" => Ok(SyslogAddress::Udp(address)),
            "tcp" => Ok(SyslogAddress::Tcp(address)),
            "tls" => Ok(SyslogAddress::Tls(address)),
            _ => Err(FORM),
        }
    }
}

/// POSTs to a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSpec {
    pub url: Url,
    pub body: Body,
    /// Lines `Name: value`, read for each delivery.
    pub headers_file: Option<PathBuf>,
    /// The key of the signature, read for each delivery.
    pub secret_file: Option<PathBuf>,
    /// Certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

/// A URL, or the file that has it: of some services it is all one needs to write to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    Text(String),
    File(PathBuf),
}

impl Url {
    fn shown(&self) -> String {
        match self {
            Url::Text(url) => origin(url).to_owned(),
            Url::File(path) => format!("as {} says", path.display()),
        }
    }
}

/// Log records of OpenTelemetry, or metrics, to a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSpec {
    /// By HTTP with its path, most often /v1/logs or /v1/metrics; by gRPC without.
    pub url: Url,
    pub protocol: OtlpProtocol,
    /// Lines `Name: value`, read for each delivery.
    pub headers_file: Option<PathBuf>,
    /// Certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

/// What carries OTLP, by the words of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    #[default]
    Http,
    Grpc,
}

impl OtlpProtocol {
    #[must_use]
    pub fn of_word(word: &str) -> Option<OtlpProtocol> {
        match word {
            "http/protobuf" => Some(OtlpProtocol::Http),
            "grpc" => Some(OtlpProtocol::Grpc),
            _ => None,
        }
    }
}

/// Messages into a stream of NATS JetStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSpec {
    pub server: NatsServer,
    /// That a stream has to take.
    pub subject: String,
    /// A file of credentials as `nsc` writes it, a seed, `USER:PASSWORD` or a token; read for each connection.
    pub credentials_file: Option<PathBuf>,
    /// Certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

/// Objects in a bucket: of lines, or of Parquet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Spec {
    /// With the bucket, and a prefix if there is to be one, as its path.
    pub url: Url,
    pub region: String,
    /// As the AWS tools keep it, read for each delivery.
    pub credentials_file: PathBuf,
    /// Certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    /// How long events are gathered for one object.
    pub every: Duration,
    /// With [`Format::OcsfParquet`].
    pub lake: Option<LakeSpec>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsServer {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl std::str::FromStr for NatsServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be nats://HOST:PORT or tls://HOST:PORT";
        // The port that is registered for it.
        const PORT: u16 = 4222;
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(FORM),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("must not hold a password: put it into `credentials_file`");
        }
        let (host, port) = host_and_port(rest).ok_or(FORM)?;
        Ok(NatsServer {
            tls,
            host: host.to_owned(),
            port: port.unwrap_or(PORT),
        })
    }
}

/// `HOST` or `HOST:PORT`; an address of IPv6 is in brackets.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|port| *port > 0)?;
            (host, Some(port))
        }
        _ => (text, None),
    };
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#');
    (!host.is_empty() && host.bytes().all(plain)).then_some((host, port))
}

/// Whether this is a subject to publish to: words between points, none of them a wildcard.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    // What begins so is the server's own.
    text.len() <= 255 && !text.starts_with('$') && text.split('.').all(word)
}

/// How events are put into one body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// A line each.
    #[default]
    Lines,
    /// An array of JSON.
    Array,
    /// Each alone.
    Single,
}

/// A program that gets the finding on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program by an absolute path, and its arguments.
    pub argv: Vec<String>,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Ocsf,
    Ecs,
    Cef,
    /// Of the carrier `s3` alone, whose objects are Parquet: a line is as of `Ocsf`.
    OcsfParquet,
    /// Of the carrier `otlp` alone, which has no other.
    Otlp,
}

impl Format {
    /// Those that may be chosen.
    pub const ALL: [Format; 5] = [
        Format::Json,
        Format::Ocsf,
        Format::Ecs,
        Format::Cef,
        Format::OcsfParquet,
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ocsf => "ocsf",
            Format::Ecs => "ecs",
            Format::Cef => "cef",
            Format::OcsfParquet => "ocsf-parquet",
            Format::Otlp => "protobuf",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.word() == word)
    }

    /// Whether an event is a JSON object.
    #[must_use]
    pub fn is_json(self) -> bool {
        !matches!(self, Format::Cef | Format::Otlp)
    }
}

/// Severities of findings, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    #[must_use]
    pub fn of_word(word: &str) -> Option<Severity> {
        Some(match word {
            "info" => Severity::Info,
            "low" => Severity::Low,
            "medium" => Severity::Medium,
            "high" => Severity::High,
            "critical" => Severity::Critical,
            _ => return None,
        })
    }
}

/// Which events go there. Each part concerns the events that have what it asks about, and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// All when empty.
    pub kinds: Vec<EventKind>,
    /// Of events with evidence; all when empty.
    pub grades: Vec<EvidenceGrade>,
    /// Of findings, the least.
    pub severity: Option<Severity>,
    /// Of findings: names of rules, `*` for any characters; all when empty.
    pub rules: Vec<String>,
    /// What they are in OCSF; all when there is none. Who knows the format inspects it.
    pub class: Option<OcsfClass>,
}

impl Filter {
    #[must_use]
    pub fn passes(&self, event: &Event) -> bool {
        let of_kind = |kind: &EventKind| kind.number() == event.kind;
        if !self.kinds.is_empty() && !self.kinds.iter().any(of_kind) {
            return false;
        }
        if let Some(evidence) = &event.evidence
            && !self.grades.is_empty()
            && !self.grades.iter().any(|g| g.number() == evidence.grade)
        {
            return false;
        }
        let Some(finding) = &event.finding else {
            return true;
        };
        // A severity of a newer agent's is not known to be too little.
        let severe = Severity::of_word(&finding.severity).is_none_or(|s| Some(s) >= self.severity);
        let named = |pattern: &String| is_match(pattern.as_bytes(), finding.rule.as_bytes());
        severe && (self.rules.is_empty() || self.rules.iter().any(named))
    }
}

/// Whether a text is what a pattern with `*` says, in time proportional to the product of their lengths.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not fit.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{Evidence, Finding};

    fn finding(rule: &str, severity: &str) -> Event {
        Event {
            kind: EventKind::Finding.number(),
            finding: Some(Finding {
                rule: rule.into(),
                severity: severity.into(),
                ..Finding::default()
            }),
            ..Event::default()
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("decoy", "decoy", true),
            ("decoy", "decoys", false),
            ("decoy-*", "decoy-read", true),
            ("*-read", "decoy-read-read", true),
            ("*a*b*", "xxaxxb", true),
            ("*a*b*", "xxbxxa", false),
            ("", "x", false),
        ] {
            assert_eq!(
                is_match(pattern.as_bytes(), text.as_bytes()),
                is,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn each_part_of_a_filter_concerns_what_has_it() {
        let gap = Event {
            kind: EventKind::CoverageGap.number(),
            ..Event::default()
        };
        let sent = |grade: EvidenceGrade| Event {
            kind: EventKind::CredentialSent.number(),
            evidence: Some(Evidence {
                grade: grade.number(),
                ..Evidence::default()
            }),
            ..Event::default()
        };
        let all = Filter::default();
        assert!(all.passes(&gap) && all.passes(&finding("a", "info")));
        let filter = Filter {
            grades: vec![EvidenceGrade::Observed],
            severity: Some(Severity::High),
            rules: vec!["decoy*".into()],
            ..Filter::default()
        };
        assert!(filter.passes(&gap), "asking for less hides no gap");
        assert!(filter.passes(&sent(EvidenceGrade::Observed)));
        assert!(!filter.passes(&sent(EvidenceGrade::Lineage)));
        assert!(filter.passes(&finding("decoy-read", "critical")));
        assert!(filter.passes(&finding("decoy-read", "high")));
        assert!(!filter.passes(&finding("decoy-read", "medium")));
        assert!(!filter.passes(&finding("other", "critical")));
        assert!(filter.passes(&finding("decoy-read", "of a newer agent")));
        let findings = Filter {
            kinds: vec![EventKind::Finding],
            ..Filter::default()
        };
        assert!(!findings.passes(&gap) && findings.passes(&finding("x", "low")));
    }

    #[test]
    fn addresses_are_understood_or_refused() {
        let parse = |text: &str| text.parse::<SyslogAddress>();
        for (text, shown) in [
            ("udp:log.example:514", "udp:log.example:514"),
            ("tcp:[::1]:6514", "tcp:[::1]:6514"),
            ("unix:/dev/log", "unix:/dev/log"),
            ("tls:log.example:601", "tls:log.example:601"),
            ("tls:log.example", "tls:log.example:6514"),
            ("tls:[::1]", "tls:[::1]:6514"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "log.example:514",
            "udp:log.example",
            "tcp::514",
            "unix:dev/log",
            "udp:h:0",
            "tls:",
            "tls:h:x",
            "ssl:h:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn servers_and_subjects_of_nats() {
        let parse = |text: &str| text.parse::<NatsServer>();
        for (text, shown) in [
            ("nats://a:4223", "nats://a:4223"),
            ("tls://log.example", "tls://log.example:4222"),
            ("nats://[::1]:5/", "nats://[::1]:5"),
            ("nats://[::1]", "nats://[::1]:4222"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "a:4222",
            "http://a",
            "nats://",
            "nats://:1",
            "nats://a:0",
            "nats://a:x",
            "nats://a/b",
            "nats://u:p@a",
            "nats://a b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(is_subject("keytrail.events") && is_subject("a"));
        for bad in [
            "",
            ".",
            "a.",
            "a..b",
            "a.*",
            "a.>",
            "a b",
            "a\r\nPUB b",
            "$JS.API",
        ] {
            assert!(!is_subject(bad), "{bad}");
        }
    }

    #[test]
    fn of_a_url_only_the_origin_is_shown() {
        assert_eq!(
            origin("https://hooks.example/services/T0/SECRET"),
            "https://hooks.example"
        );
        assert_eq!(origin("http://a:8080?token=SECRET"), "http://a:8080");
        assert_eq!(origin("http://user:SECRET@a:8080/x"), "a:8080");
    }
}
