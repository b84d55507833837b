//! `[[sink]]` and `[[response]]`.

mod meter;

use super::parse::{ConfigError, Value};
use keytrail_model::{EventKind, EvidenceGrade};
use keytrail_sink::{
    Body, Broker, CarrierSpec, CommandSpec, FileSpec, Filter, Format, KafkaSpec, LakeSpec,
    MeterSpec, NatsServer, NatsSpec, OcsfClass, OtlpProtocol, OtlpSpec, ResponseSpec, S3Spec,
    SaslMechanism, Severity, SinkSpec, SyslogAddress, SyslogSpec, Url, WebhookSpec, is_subject,
    is_topic,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const SINK_KEYS: &[&str] = &[
    "name",
    "carrier",
    "format",
    "path",
    "rotate_bytes",
    "keep",
    "address",
    "url",
    "url_file",
    "protocol",
    "signal",
    "temporality",
    "body",
    "headers_file",
    "secret_file",
    "subject",
    "brokers",
    "topic",
    "tls",
    "mechanism",
    "credentials_file",
    "region",
    "source",
    "account",
    "class",
    "every_ms",
    "ca_file",
    "timeout_ms",
    "kinds",
    "grades",
    "severity",
    "batch",
];
const RESPONSE_KEYS: &[&str] = &[
    "name",
    "rules",
    "severity",
    "command",
    "url",
    "url_file",
    "headers_file",
    "secret_file",
    "ca_file",
    "timeout_ms",
    "at_once",
];

/// Keys that only some carriers have.
const OF_CARRIERS: &[(&str, &[&str])] = &[
    (
        "format",
        &["file", "syslog", "webhook", "nats", "kafka", "s3"],
    ),
    ("path", &["file"]),
    ("rotate_bytes", &["file"]),
    ("keep", &["file"]),
    ("address", &["syslog"]),
    ("url", &["webhook", "otlp", "nats", "s3"]),
    ("url_file", &["webhook", "otlp"]),
    ("protocol", &["otlp"]),
    ("signal", &["otlp"]),
    ("temporality", &["otlp"]),
    ("body", &["webhook"]),
    ("headers_file", &["webhook", "otlp"]),
    ("secret_file", &["webhook"]),
    ("subject", &["nats"]),
    ("brokers", &["kafka"]),
    ("topic", &["kafka"]),
    ("tls", &["kafka"]),
    ("mechanism", &["kafka"]),
    ("credentials_file", &["nats", "kafka", "s3"]),
    ("region", &["s3"]),
    ("source", &["s3"]),
    ("account", &["s3"]),
    ("class", &["s3"]),
    ("every_ms", &["s3", "otlp"]),
    (
        "ca_file",
        &["syslog", "webhook", "otlp", "nats", "kafka", "s3"],
    ),
    (
        "timeout_ms",
        &[
            "syslog", "webhook", "otlp", "nats", "kafka", "s3", "command",
        ],
    ),
    ("command", &["command"]),
];

const NAME_MAX: usize = 64;
const BROKERS_MAX: usize = 16;
/// Each is a thread.
const MOST: usize = 32;
const BATCH: u64 = 100;
const BATCH_MAX: u64 = 1000;
const AT_ONCE: u64 = 4;
const AT_ONCE_MAX: u64 = 32;
const ROTATE: u64 = 100 << 20;
const ROTATE_MIN: u64 = 4 << 10;
const ROTATE_MAX: u64 = 1 << 40;
const KEEP: u64 = 5;
const KEEP_MAX: u64 = 1000;
/// Where buckets are when nothing else is said.
const REGION: &str = "us-east-1";
const EVERY_MS: u64 = 30_000;
/// Amazon Security Lake wants no more than one object in five minutes.
const LAKE_EVERY_MS: u64 = 300_000;
const EVERY_MAX_MS: u64 = 3_600_000;
const TIMEOUT_MS: u64 = 10_000;
const TIMEOUT_MAX_MS: u64 = 300_000;

/// Every key, with the table's name before.
pub(super) fn all() -> Vec<String> {
    let of = |table: &str, keys: &[&str]| -> Vec<String> {
        keys.iter().map(|key| format!("{table}.{key}")).collect()
    };
    let mut all = of("sink", SINK_KEYS);
    all.extend(of("response", RESPONSE_KEYS));
    all
}

/// What takes events, and what takes the agent's own counts.
#[derive(Default)]
pub(super) struct AllSinks {
    pub sinks: Vec<SinkSpec>,
    pub meters: Vec<MeterSpec>,
}

impl AllSinks {
    fn have(&self, name: &str) -> bool {
        self.sinks.iter().any(|sink| sink.name == name)
            || self.meters.iter().any(|meter| meter.name == name)
    }
}

pub(super) fn sinks(value: &Value<'_, '_>) -> Result<AllSinks, ConfigError> {
    let mut all = AllSinks::default();
    for element in bounded(value)? {
        let entry = Entry::of(&element, SINK_KEYS)?;
        let name = entry.name()?;
        if all.have(&name) {
            return Err(entry.error("name", &format!("{name:?} is there already")));
        }
        match entry.meter(&name)? {
            Some(meter) => all.meters.push(meter),
            None => all.sinks.push(entry.sink(name)?),
        }
    }
    Ok(all)
}

impl Entry<'_, '_, '_> {
    /// One that takes events.
    fn sink(&self, name: String) -> Result<SinkSpec, ConfigError> {
        let entry = self;
        let carrier = entry.need("carrier")?;
        let format = entry.word(
            "format",
            "json, ocsf, ecs, cef or ocsf-parquet",
            Format::of_word,
        )?;
        let mut format = format.unwrap_or_default();
        let mut batch = entry.number("batch", 1..=BATCH_MAX, BATCH)?;
        let word = carrier.string()?;
        if format == Format::OcsfParquet && word != "s3" {
            return Err(entry.error("format", "makes objects in a bucket: it is of s3 alone"));
        }
        let carrier = match word.as_str() {
            "file" => entry.file()?,
            "syslog" => entry.syslog()?,
            "webhook" => {
                let body = entry.word("body", "lines, array or single", |word| match word {
                    "lines" => Some(Body::Lines),
                    "array" => Some(Body::Array),
                    "single" => Some(Body::Single),
                    _ => None,
                })?;
                let body = body.unwrap_or_default();
                if body == Body::Array && !format.is_json() {
                    return Err(entry.error("body", "is an array of JSON, which cef is not"));
                }
                if body == Body::Single {
                    if entry.values.contains_key("batch") {
                        return Err(entry.error("batch", "has no meaning with body = \"single\""));
                    }
                    batch = 1;
                }
                entry.webhook(body)?
            }
            "otlp" => {
                let carrier = entry.otlp()?;
                entry.fits(&carrier)?;
                format = Format::Otlp;
                carrier
            }
            "nats" => entry.nats()?,
            "kafka" => entry.kafka()?,
            "s3" => {
                if !format.is_json() {
                    return Err(entry.error("format", "must be of JSON for s3, which cef is not"));
                }
                entry.s3(format)?
            }
            _ => {
                return Err(carrier.error("must be file, syslog, webhook, otlp, nats, kafka or s3"));
            }
        };
        entry.fits(&carrier)?;
        let mut filter = entry.filter()?;
        if let CarrierSpec::S3(s3) = &carrier {
            filter.class = s3.lake.as_ref().map(|lake| lake.class);
        }
        Ok(SinkSpec {
            name,
            carrier,
            format,
            filter,
            // The ranges fit.
            batch: batch as usize,
        })
    }
}

pub(super) fn responses(value: &Value<'_, '_>) -> Result<Vec<ResponseSpec>, ConfigError> {
    let mut responses: Vec<ResponseSpec> = Vec::new();
    for element in bounded(value)? {
        let entry = Entry::of(&element, RESPONSE_KEYS)?;
        let name = entry.name()?;
        if responses.iter().any(|response| response.name == name) {
            return Err(entry.error("name", &format!("{name:?} is there already")));
        }
        let mut at_once = entry.number("at_once", 1..=AT_ONCE_MAX, AT_ONCE)?;
        let carrier = match entry.values.get("command") {
            Some(command) => CarrierSpec::Command(CommandSpec {
                argv: argv(command)?,
                timeout: entry.timeout()?,
            }),
            None if entry.values.contains_key("url") || entry.values.contains_key("url_file") => {
                if entry.values.contains_key("at_once") {
                    return Err(entry.error(
                        "at_once",
                        "is a key of commands: a webhook gets one finding after the other",
                    ));
                }
                at_once = 1;
                entry.webhook(Body::Single)?
            }
            None => return Err(element.error("needs `command`, `url` or `url_file`")),
        };
        entry.fits(&carrier)?;
        responses.push(ResponseSpec {
            name,
            carrier,
            filter: entry.filter()?,
            at_once: at_once as usize,
        });
    }
    Ok(responses)
}

fn bounded<'d, 't>(value: &Value<'d, 't>) -> Result<Vec<Value<'d, 't>>, ConfigError> {
    let elements = value.elements()?;
    match elements.get(MOST) {
        Some(beyond) => Err(beyond.error(format!("is one too many: there may be {MOST}"))),
        None => Ok(elements),
    }
}

/// The program and its arguments.
fn argv(value: &Value<'_, '_>) -> Result<Vec<String>, ConfigError> {
    let argv = value.strings()?;
    match argv.first() {
        Some(program) if program.starts_with('/') => Ok(argv),
        Some(_) => Err(value.error("must begin with the absolute path of a program")),
        None => Err(value.error("must name a program")),
    }
}

/// The keys of one table.
struct Entry<'a, 'd, 't> {
    element: &'a Value<'d, 't>,
    values: BTreeMap<String, Value<'d, 't>>,
}

impl<'a, 'd, 't> Entry<'a, 'd, 't> {
    fn of(element: &'a Value<'d, 't>, known: &[&str]) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        element.table()?.each(known, |key, value| {
            values.insert(key.to_owned(), value);
            Ok(())
        })?;
        Ok(Entry { element, values })
    }

    /// An error at a key that is there.
    fn error(&self, key: &str, message: &str) -> ConfigError {
        self.values.get(key).unwrap_or(self.element).error(message)
    }

    fn need(&self, key: &str) -> Result<&Value<'d, 't>, ConfigError> {
        self.values
            .get(key)
            .ok_or_else(|| self.element.error(format!("needs `{key}`")))
    }

    fn name(&self) -> Result<String, ConfigError> {
        let value = self.need("name")?;
        let name = value.string()?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            return Err(value.error(format!(
                "must be 1 to {NAME_MAX} letters, digits, `-`, `_` or `.`"
            )));
        }
        Ok(name)
    }

    fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        self.values
            .get(key)
            .map_or(Ok(default), |v| v.integer(range))
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.values.get(key).map(Value::path).transpose()
    }

    fn word<T>(
        &self,
        key: &str,
        words: &str,
        of: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        let found = of(&value.string()?);
        found
            .map(Some)
            .ok_or_else(|| value.error(format!("must be {words}")))
    }

    fn words<T>(&self, key: &str, of: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ConfigError> {
        let Some(value) = self.values.get(key) else {
            return Ok(Vec::new());
        };
        let one = |word: &String| {
            of(word).ok_or_else(|| value.error(format!("holds {word:?}, which does not exist")))
        };
        value.strings()?.iter().map(one).collect()
    }

    fn filter(&self) -> Result<Filter, ConfigError> {
        let kinds = self.words("kinds", EventKind::of_word)?;
        if let Some(kind) = kinds.iter().find(|kind| kind.is_context()) {
            let why =
                format!("holds {kind}, which the ledger does not keep: `keytrail watch` tells it");
            return Err(self.error("kinds", &why));
        }
        Ok(Filter {
            kinds,
            grades: self.words("grades", EvidenceGrade::of_word)?,
            severity: self.word(
                "severity",
                "info, low, medium, high or critical",
                Severity::of_word,
            )?,
            rules: self
                .values
                .get("rules")
                .map_or(Ok(Vec::new()), Value::strings)?,
            class: None,
        })
    }

    fn timeout(&self) -> Result<Duration, ConfigError> {
        let ms = self.number("timeout_ms", 1..=TIMEOUT_MAX_MS, TIMEOUT_MS)?;
        Ok(Duration::from_millis(ms))
    }

    fn file(&self) -> Result<CarrierSpec, ConfigError> {
        let path = self.need("path")?;
        let absolute = path.path()?;
        if absolute.file_name().is_none() {
            return Err(path.error("must name a file"));
        }
        Ok(CarrierSpec::File(FileSpec {
            path: absolute,
            rotate_bytes: self.number("rotate_bytes", ROTATE_MIN..=ROTATE_MAX, ROTATE)?,
            // The range fits.
            keep: self.number("keep", 0..=KEEP_MAX, KEEP)? as u32,
        }))
    }

    fn syslog(&self) -> Result<CarrierSpec, ConfigError> {
        let value = self.need("address")?;
        let address = value.string()?.parse::<SyslogAddress>();
        let address = address.map_err(|why| value.error(why))?;
        if !matches!(address, SyslogAddress::Tls(_)) && self.values.contains_key("ca_file") {
            return Err(self.error("ca_file", "has a meaning with `address` = \"tls:...\" only"));
        }
        Ok(CarrierSpec::Syslog(SyslogSpec {
            address,
            ca_file: self.path("ca_file")?,
            timeout: self.timeout()?,
        }))
    }

    fn url(&self) -> Result<Url, ConfigError> {
        match (self.values.get("url"), self.path("url_file")?) {
            (Some(_), Some(_)) => {
                Err(self.error("url_file", "says the same as `url`: leave one out"))
            }
            (Some(value), None) => Ok(Url::Text(url(value)?)),
            (None, Some(path)) => Ok(Url::File(path)),
            (None, None) => Err(self.element.error("needs `url` or `url_file`")),
        }
    }

    fn otlp(&self) -> Result<CarrierSpec, ConfigError> {
        let words = "http/protobuf or grpc";
        let protocol = self.word("protocol", words, OtlpProtocol::of_word)?;
        let protocol = protocol.unwrap_or_default();
        let url = self.url()?;
        if let (OtlpProtocol::Grpc, Url::Text(url)) = (protocol, &url)
            && has_path(url)
        {
            let why = "must be https://HOST:PORT or http://HOST:PORT with protocol = \"grpc\"";
            return Err(self.error("url", why));
        }
        Ok(CarrierSpec::Otlp(OtlpSpec {
            url,
            protocol,
            headers_file: self.path("headers_file")?,
            ca_file: self.path("ca_file")?,
            timeout: self.timeout()?,
        }))
    }

    fn nats(&self) -> Result<CarrierSpec, ConfigError> {
        let url = self.need("url")?;
        let server = url.string()?.parse::<NatsServer>();
        let subject = self.need("subject")?;
        let name = subject.string()?;
        if !is_subject(&name) {
            return Err(subject.error("must be words with points between, no wildcards"));
        }
        Ok(CarrierSpec::Nats(NatsSpec {
            server: server.map_err(|why| url.error(why))?,
            subject: name,
            credentials_file: self.path("credentials_file")?,
            ca_file: self.path("ca_file")?,
            timeout: self.timeout()?,
        }))
    }

    fn kafka(&self) -> Result<CarrierSpec, ConfigError> {
        let value = self.need("brokers")?;
        let brokers = value.strings()?;
        if brokers.is_empty() || brokers.len() > BROKERS_MAX {
            return Err(value.error(format!("must name 1 to {BROKERS_MAX} brokers")));
        }
        let brokers: Result<Vec<Broker>, _> = brokers.iter().map(|text| text.parse()).collect();
        let topic = self.need("topic")?;
        let name = topic.string()?;
        if !is_topic(&name) {
            return Err(topic.error("must be 1 to 249 letters, digits, `.`, `_` or `-`"));
        }
        let words = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
        let mechanism = self.word("mechanism", words, SaslMechanism::of_word)?;
        let mechanism = mechanism.unwrap_or_default();
        let tls = self.values.get("tls").map_or(Ok(true), Value::boolean)?;
        if mechanism == SaslMechanism::Plain && !tls {
            let why = "would tell the password to the network: leave out tls = false";
            return Err(self.error("mechanism", why));
        }
        if !tls && self.values.contains_key("ca_file") {
            return Err(self.error("ca_file", "has no meaning with tls = false"));
        }
        Ok(CarrierSpec::Kafka(KafkaSpec {
            brokers: brokers.map_err(|why| value.error(why))?,
            tls,
            topic: name,
            mechanism,
            credentials_file: self.path("credentials_file")?,
            ca_file: self.path("ca_file")?,
            timeout: self.timeout()?,
        }))
    }

    /// What goes into a data lake, and nothing for other formats.
    fn lake(&self, format: Format) -> Result<Option<LakeSpec>, ConfigError> {
        if format != Format::OcsfParquet {
            for key in ["source", "account", "class"] {
                if self.values.contains_key(key) {
                    return Err(self.error(key, "is a key of format = \"ocsf-parquet\""));
                }
            }
            return Ok(None);
        }
        let word = |key: &str, more: &[u8]| {
            let value = self.need(key)?;
            let text = value.string()?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
            let empty = text.split('/').any(|part| matches!(part, "" | "." | ".."));
            if empty || text.len() > NAME_MAX || !text.bytes().all(plain) {
                let more: Vec<String> = more.iter().map(|b| format!("`{}`", *b as char)).collect();
                let more = more.join(", ");
                return Err(value.error(format!("must be 1 to {NAME_MAX} letters, digits, {more}")));
            }
            Ok(text)
        };
        let words: Vec<&str> = OcsfClass::ALL.iter().map(|class| class.word()).collect();
        let class = self.word("class", &words.join(", "), OcsfClass::of_word)?;
        Ok(Some(LakeSpec {
            source: word("source", b"-_./")?,
            account: word("account", b"-_")?,
            class: class.ok_or_else(|| self.element.error("needs `class`"))?,
        }))
    }

    fn s3(&self, format: Format) -> Result<CarrierSpec, ConfigError> {
        let value = self.need("url")?;
        let url = url(value)?;
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if path.trim_matches('/').is_empty() || path.contains("//") || !path.bytes().all(plain) {
            return Err(value.error(
                "must have the bucket as its path: letters, digits, `-`, `_`, `.`, `~` and `/`",
            ));
        }
        let region = match self.values.get("region") {
            Some(value) => {
                let region = value.string()?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if region.is_empty() || !region.bytes().all(plain) {
                    return Err(value.error("must be letters, digits and `-`"));
                }
                region
            }
            None => REGION.to_owned(),
        };
        let credentials_file = self.need("credentials_file")?.path()?;
        let lake = self.lake(format)?;
        let default = match lake {
            Some(_) => LAKE_EVERY_MS,
            None => EVERY_MS,
        };
        let every = self.number("every_ms", 100..=EVERY_MAX_MS, default)?;
        Ok(CarrierSpec::S3(S3Spec {
            url: Url::Text(url),
            region,
            credentials_file,
            ca_file: self.path("ca_file")?,
            every: Duration::from_millis(every),
            lake,
            timeout: self.timeout()?,
        }))
    }

    fn webhook(&self, body: Body) -> Result<CarrierSpec, ConfigError> {
        Ok(CarrierSpec::Webhook(WebhookSpec {
            url: self.url()?,
            body,
            headers_file: self.path("headers_file")?,
            secret_file: self.path("secret_file")?,
            ca_file: self.path("ca_file")?,
            timeout: self.timeout()?,
        }))
    }

    /// Refuses keys that have no meaning here: they would be believed to have one.
    fn fits(&self, carrier: &CarrierSpec) -> Result<(), ConfigError> {
        for (key, carriers) in OF_CARRIERS {
            if self.values.contains_key(*key) && !carriers.contains(&carrier.name()) {
                return Err(
                    self.error(key, &format!("is no key of the carrier {}", carrier.name()))
                );
            }
        }
        Ok(())
    }
}

fn url(value: &Value<'_, '_>) -> Result<String, ConfigError> {
    let url = value.string()?;
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(value.error("must be https://HOST... or http://HOST..."));
    }
    if host.contains('@') {
        return Err(value.error("must not hold a password: put it into `headers_file`"));
    }
    Ok(url)
}

/// Whether there is anything behind the host of such a URL but a last `/`.
fn has_path(url: &str) -> bool {
    let host = url.splitn(3, '/').nth(2).unwrap_or_default();
    let host = host.strip_suffix('/').unwrap_or(host);
    host.contains(['/', '?', '#'])
}
