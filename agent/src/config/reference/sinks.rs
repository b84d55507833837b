//! What may be said in `[[sink]]` and `[[response]]`.

use super::Key;

/// Keys of `[[sink]]` and `[[response]]`, of which there may be several each.
pub const SINK_KEYS: &[Key] = &[
    Key {
        name: "sink.name",
        values: "letters, digits, `-`, `_`, `.`",
        default: "",
        what: "What it is called in `keytrail doctor`, and its place in the ledger: another name begins anew.",
    },
    Key {
        name: "sink.carrier",
        values: "`file`, `syslog`, `webhook`, `otlp`, `nats`, `kafka`, `s3`",
        default: "",
        what: "By which way events go, and with `signal = \"metrics\"` what the agent counts.",
    },
    Key {
        name: "sink.format",
        values: "`json`, `ocsf`, `ecs`, `cef`, `ocsf-parquet`",
        default: "\"json\"",
        what: "Canonical proto3 JSON of `keytrail.v1.Event`, a line each; OCSF 1.8.0; Elastic Common Schema 8.17; ArcSight CEF; OCSF 1.8.0 as Parquet, for `s3` only. `otlp` has a form of its own: log records with the names of OpenTelemetry's semantic conventions 1.44.",
    },
    Key {
        name: "sink.path",
        values: "absolute path",
        default: "",
        what: "`file`: where lines are appended, mode 0640. Not by a link.",
    },
    Key {
        name: "sink.rotate_bytes",
        values: "4096 to 1099511627776 bytes",
        default: "104857600",
        what: "`file`: from this size on it is moved aside, to PATH.1 and so on.",
    },
    Key {
        name: "sink.keep",
        values: "0 to 1000 files",
        default: "5",
        what: "`file`: how many that were moved aside are kept.",
    },
    Key {
        name: "sink.address",
        values: "`udp:HOST:PORT`, `tcp:HOST:PORT`, `tls:HOST:PORT`, `unix:PATH`",
        default: "",
        what: "`syslog`: RFC 5424; by TCP octets are counted (RFC 6587), and by TLS (RFC 5425), whose port is 6514 unless another is said. `unix:/dev/log` is this host's own.",
    },
    Key {
        name: "sink.url",
        values: "`https://...`, `http://...`; `tls://HOST:PORT`, `nats://HOST:PORT`",
        default: "",
        what: "`webhook`: where batches are POSTed; redirections are not followed. `otlp`: the same, with the path: most often `/v1/logs` or `/v1/metrics`; by gRPC `https://HOST:PORT` and no path, most often port 4317. `nats`: the server. `s3`: `https://HOST/BUCKET` or with a prefix behind.",
    },
    Key {
        name: "sink.url_file",
        values: "absolute path",
        default: "",
        what: "`webhook`, `otlp`: a file that has the URL, where the URL itself is a secret.",
    },
    Key {
        name: "sink.protocol",
        values: "`http/protobuf`, `grpc`",
        default: "\"http/protobuf\"",
        what: "`otlp`: what carries the records, by the words of `OTEL_EXPORTER_OTLP_PROTOCOL`.",
    },
    Key {
        name: "sink.signal",
        values: "`logs`, `metrics`",
        default: "\"logs\"",
        what: "`otlp`: events as log records, or what the agent counts of itself. See [Metrics to a collector](#metrics-to-a-collector).",
    },
    Key {
        name: "sink.temporality",
        values: "`cumulative`, `delta`",
        default: "\"cumulative\"",
        what: "`otlp` of metrics: whether counts are reported since the agent's start, or since the request before.",
    },
    Key {
        name: "sink.body",
        values: "`lines`, `array`, `single`",
        default: "\"lines\"",
        what: "`webhook`: a line for each event, a JSON array, or a request for each event.",
    },
    Key {
        name: "sink.headers_file",
        values: "absolute path",
        default: "",
        what: "`webhook`, `otlp`: lines `Name: value`, for example `Authorization: Bearer ...`; by gRPC they are metadata. Read for each delivery.",
    },
    Key {
        name: "sink.secret_file",
        values: "absolute path",
        default: "",
        what: "`webhook`: the key of the signature: `Keytrail-Signature` is `sha256=` and the hex digits of HMAC-SHA256 over `Keytrail-Timestamp` (seconds since the epoch), a point, and the body. Read for each delivery.",
    },
    Key {
        name: "sink.subject",
        values: "words with points between",
        default: "",
        what: "`nats`: the subject, which a stream of JetStream has to take.",
    },
    Key {
        name: "sink.brokers",
        values: "array of 1 to 16 `HOST:PORT`",
        default: "",
        what: "`kafka`: whom to ask for the others, one after the other; port 9092 unless another is said.",
    },
    Key {
        name: "sink.topic",
        values: "letters, digits, `.`, `_`, `-`",
        default: "",
        what: "`kafka`: the topic, which has to be there.",
    },
    Key {
        name: "sink.tls",
        values: "`true`, `false`",
        default: "true",
        what: "`kafka`: whether brokers are spoken to by TLS, those of `brokers` and those that they name.",
    },
    Key {
        name: "sink.mechanism",
        values: "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`",
        default: "\"SCRAM-SHA-512\"",
        what: "`kafka`: how the password of `credentials_file` is sent (`PLAIN`, by TLS only) or proved.",
    },
    Key {
        name: "sink.credentials_file",
        values: "absolute path",
        default: "",
        what: "`nats`: credentials as `nsc` writes them, a user's seed (`SU...`), `USER:PASSWORD`, or a token; `kafka`: `USER:PASSWORD`. Read for each connection. `s3`: lines `aws_access_key_id = ...` and so on, as the AWS tools keep them. Read for each delivery.",
    },
    Key {
        name: "sink.region",
        values: "letters, digits, `-`",
        default: "\"us-east-1\"",
        what: "`s3`: the region, which is a part of the signature.",
    },
    Key {
        name: "sink.source",
        values: "letters, digits, `-`, `_`, `.`, `/`",
        default: "",
        what: "`s3` with `ocsf-parquet`: the custom source of the data lake; `NAME/VERSION` where it has a version.",
    },
    Key {
        name: "sink.account",
        values: "letters, digits, `-`, `_`",
        default: "",
        what: "`s3` with `ocsf-parquet`: the account of AWS whose events these are.",
    },
    Key {
        name: "sink.class",
        values: "`data_security_finding`, `detection_finding`, `file_activity`, `base_event`",
        default: "",
        what: "`s3` with `ocsf-parquet`: of which class of OCSF the events are that go there. No others do.",
    },
    Key {
        name: "sink.every_ms",
        values: "100 to 3600000 milliseconds",
        default: "30000",
        what: "`s3`: how long events are gathered for one object, of `batch` events at most. 300000 with `ocsf-parquet`. `otlp` of metrics, 1000 at least: how often they are reported; 60000 unless said.",
    },
    Key {
        name: "sink.ca_file",
        values: "absolute path",
        default: "",
        what: "`syslog` by TLS, `webhook`, `otlp`, `nats`, `kafka`, `s3`: certificates of authorities (PEM) in place of the system's.",
    },
    Key {
        name: "sink.timeout_ms",
        values: "1 to 300000 milliseconds",
        default: "10000",
        what: "All but `file`: how long a delivery may take; `kafka`: each request of it.",
    },
    Key {
        name: "sink.kinds",
        values: "array of kinds of events",
        default: "[]",
        what: "Which kinds go there; all when empty. `process_start` and `process_exit` are not in the ledger.",
    },
    Key {
        name: "sink.grades",
        values: "array of `observed`, `identified`, `lineage`",
        default: "[]",
        what: "Which grades go there, of events that have one; all when empty.",
    },
    Key {
        name: "sink.severity",
        values: "`info`, `low`, `medium`, `high`, `critical`",
        default: "",
        what: "The least severity of findings that go there.",
    },
    Key {
        name: "sink.batch",
        values: "1 to 1000 events",
        default: "100",
        what: "The most events delivered together.",
    },
    Key {
        name: "response.name",
        values: "letters, digits, `-`, `_`, `.`",
        default: "",
        what: "As of a sink.",
    },
    Key {
        name: "response.rules",
        values: "array of names, `*` for any characters",
        default: "[]",
        what: "Of which rules the findings are; all when empty.",
    },
    Key {
        name: "response.severity",
        values: "`info`, `low`, `medium`, `high`, `critical`",
        default: "",
        what: "The least severity.",
    },
    Key {
        name: "response.command",
        values: "array: absolute path, arguments",
        default: "",
        what: "Run for each finding: the event as JSON on its standard input, nothing in its environment but PATH, in `/`, as the agent's user. What it says is logged without credentials.",
    },
    Key {
        name: "response.url",
        values: "`https://...`, `http://...`",
        default: "",
        what: "In place of a command: where each finding is POSTed.",
    },
    Key {
        name: "response.url_file",
        values: "absolute path",
        default: "",
        what: "As of a sink.",
    },
    Key {
        name: "response.headers_file",
        values: "absolute path",
        default: "",
        what: "As of a sink.",
    },
    Key {
        name: "response.secret_file",
        values: "absolute path",
        default: "",
        what: "As of a sink.",
    },
    Key {
        name: "response.ca_file",
        values: "absolute path",
        default: "",
        what: "As of a sink.",
    },
    Key {
        name: "response.timeout_ms",
        values: "1 to 300000 milliseconds",
        default: "10000",
        what: "How long a command may run (then it and what it started is killed), or a delivery take.",
    },
    Key {
        name: "response.at_once",
        values: "1 to 32 commands",
        default: "4",
        what: "The most commands that run at a time.",
    },
];

/// What stands before the table of these keys.
pub(super) const EXAMPLES: &str = r#"## Where events go

Each `[[sink]]` gets the events that the ledger keeps, each `[[response]]` the findings. Each has a place of its own there:

```toml
[[sink]]
name = "local"
carrier = "file"
path = "/var/log/keytrail/events.jsonl"

[[sink]]
name = "siem"
carrier = "webhook"
format = "ocsf"
url = "https://siem.example/keytrail"
headers_file = "/etc/keytrail/siem.headers"
secret_file = "/etc/keytrail/siem.key"
kinds = ["finding", "credential_sent", "coverage_gap"]

[[sink]]
name = "syslog"
carrier = "syslog"
format = "cef"
address = "tls:log.example:6514"

[[sink]]
name = "collector"
carrier = "otlp"
protocol = "grpc"
url = "https://otel.example:4317"      # by HTTP, without `protocol`: https://otel.example:4318/v1/logs

[[sink]]
name = "counts"
carrier = "otlp"
signal = "metrics"
url = "https://otel.example:4318/v1/metrics"

[[sink]]
name = "stream"
carrier = "nats"
url = "tls://nats.example:4222"
subject = "keytrail.events"
credentials_file = "/etc/keytrail/nats.creds"

[[sink]]
name = "topic"
carrier = "kafka"
format = "ocsf"
brokers = ["kafka-1.example:9093", "kafka-2.example:9093"]
topic = "keytrail.events"
credentials_file = "/etc/keytrail/kafka.credentials"

[[sink]]
name = "archive"
carrier = "s3"
format = "ocsf"
url = "https://s3.eu-central-1.amazonaws.com/my-bucket/keytrail"
region = "eu-central-1"
credentials_file = "/etc/keytrail/s3.credentials"
batch = 1000

[[response]]
name = "page"
severity = "high"
command = ["/usr/local/sbin/page-someone", "keytrail"]
```

| key | values | default | what it does |
|---|---|---|---|
"#;

/// What stands behind it.
pub(super) const DELIVERY: &str = r#"
Delivery is at least once and in order. An event that comes twice has the same id (`id` in JSON, `metadata.uid` in OCSF,
`event.id` in ECS, `externalId` in CEF, `log.record.uid` in OTLP, `Nats-Msg-Id` of a message in NATS, the key and the header
`event.id` of one in Kafka). A sink moves on when the file is on disk, when the webhook, the collector or the bucket answered
2xx (by gRPC: OK), when the stream has acknowledged every message, when every replica of a partition that is in sync has
(`acks=all`), and by TCP and TLS when the receiver's kernel has everything; syslog by UDP or to a socket can be lost on its way,
and what is longer than a datagram may be is left out and counted. A new sink begins with the oldest event that is kept, a new
response with the run of the agent that first has it.

A sink has one delivery under way at a time, of `batch` events: so what it can do is `batch` in the time of a round trip, 2,000
events a second at 100 events and 50 ms. [BENCHMARKS](BENCHMARKS.md) has what each way did with a receiver nearby.

A receiver that does not answer, or answers 408, 429 or 5xx, is tried again after 0.25 s, twice as long each time, up to a
minute (`Retry-After` is heeded up to that). By gRPC these answers are CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE,
UNAVAILABLE, DATA_LOSS, and RESOURCE_EXHAUSTED where it says when to try again (`RetryInfo`). Any other answer is tried five
times, then the batch is left out. After five seconds of failure there is a gap, `sink_behind`, and `keytrail doctor` is not
well. Events wait as long as `retain_events`, `retain_days` and `history_bytes` keep them; what was forgotten meanwhile is reported
to the receiver first, as a gap with the number and without an id, and to everybody else as `sink_behind` too.

What a collector acknowledged may still be in its memory, and what a stream acknowledged is on its disk only with
`sync_interval: always` in the server's `jetstream`; then each message is a write to the disk of its own, and the disk is what the
stream can do (some 800 events a second where it did 29,000 without). A stream leaves out what comes twice within its `duplicate_window` (two
minutes unless it says otherwise). Records that a collector rejects, and messages larger than the server or the stream takes, are
left out and counted.

Which partition a message goes to is by its key, as Kafka's own producer has it: in order are those of one partition, and a topic
of one partition has all in order. What a broker says about all of it (no such topic, no right to write, too few replicas) waits
until it says otherwise; a message that it does not take (`MESSAGE_TOO_LARGE`, `INVALID_RECORD`, `INVALID_TIMESTAMP`,
`POLICY_VIOLATION`) is left out and counted. Messages are not compressed. Brokers have to be of Kafka 1.0 or newer. It was tested
with the brokers that librdkafka brings for tests, not with a cluster of Apache Kafka; TLS and logins only with brokers of the
unit tests.

Who receives syslog by TLS has to have a certificate for the host of `address`, and may not ask for the agent's: it has none.
It closes a connection with `close_notify`, as RFC 5425 wants it: after any other end up to 8 MiB of what it was sent come again.

Objects of `s3` are `YEAR/MONTH/DAY/AGENT-EPOCH-FIRST-LAST.jsonl` below the URL's path, by the time and the numbers of the
events in them; a batch that is sent again replaces itself, or overlaps with another in events of the same ids.

With `format = "ocsf-parquet"` they are as Amazon Security Lake takes them of a custom source, one of OCSF's classes to a source
and so to a sink: files of Parquet, compressed by zstd, in the order of the events' times, that lie at
`ext/SOURCE/region=REGION/accountId=ACCOUNT/eventDay=YYYYMMDD/AGENT-EPOCH-FIRST-LAST.parquet`. Uses of credentials are
`data_security_finding`, findings `detection_finding`, opens `file_activity`; gaps and all else, `base_event`. Columns have the
names and types of the schema; what has no place in it is in the map `unmapped`. Security Lake wants an object no more often
than every five minutes: a node with more than `batch` events in that time writes more. It was tested with SeaweedFS and read by
DuckDB, not with AWS.

```toml
[[sink]]
name = "lake"
carrier = "s3"
format = "ocsf-parquet"
class = "data_security_finding"
url = "https://s3.eu-central-1.amazonaws.com/aws-security-data-lake-eu-central-1-abcdefgh"
region = "eu-central-1"
source = "keytrail-data-security"
account = "123456789012"
credentials_file = "/etc/keytrail/lake.credentials"
batch = 1000
```

A command that was started has had its finding, however it ended: only one that cannot be started is tried again, and one
that ran when the agent was killed runs again. It is seen like any other process of the host.

### Metrics to a collector

With `signal = "metrics"` a sink of the carrier `otlp` tells a collector what `/metrics` shows (whether that is served or not), every
`every_ms`: counts and levels of the agent, no event, and no label whose values a host or a client could choose. Names are
`keytrail.events`, `keytrail.lost`, `keytrail.gaps` and so on, with attributes such as `keytrail.kind`; what the semantic conventions
have a name for has that (`process.cpu.time` with `cpu.mode`, `process.memory.usage`, `process.uptime`,
`process.unix.file_descriptor.count`), by the schema `https://opentelemetry.io/schemas/1.44.0`. The resource is that of the log
records: `service.name`, `service.version`, `service.instance.id` (the agent's id), `host.name`, `os.type`.

Counts are monotonic sums. `cumulative`: since the agent's start, which each point says; what sinks delivered, which goes on over
restarts, since the first look of this run. `delta`: since the last request that the collector took. Levels (holders, known
credentials, memory) are sums that are not monotonic and cumulative always; what has no meaning as a sum is a gauge. Nothing is kept
for a collector that does not answer, and no gap is reported: it is tried again as other sinks are, after `every_ms` at the latest, with the
numbers of then, in which what was counted meanwhile is. A request that was taken and whose answer was lost makes no difference to
cumulative counts; deltas it counts twice. `keytrail doctor` shows such a sink like the others, with the requests that were taken as
delivered, and is not well while it fails.

What the systemd unit lets a sink do: write below `/var/log/keytrail`, speak to `/dev/log` and to receivers on this host. For
others, and for what commands need, there is `systemctl edit keytrail`:

```ini
[Service]
# a receiver elsewhere, and the name server when it is not a local one
IPAddressAllow=192.0.2.10 192.0.2.53
# another directory for a file
ReadWritePaths=/srv/log
```

Commands inherit the unit's limits: no writing elsewhere, no gaining of privileges, no new namespaces, no memory that is both
writable and executable (which Node and Java want), 512 MB and 128 tasks together with the agent.
"#;
