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
        values: "`file`, `syslog`, `webhook`",
        default: "",
        what: "By which way events go.",
    },
    Key {
        name: "sink.format",
        values: "`json`, `ocsf`, `ecs`, `cef`",
        default: "\"json\"",
        what: "Canonical proto3 JSON of `keytrail.v1.Event`, a line each; OCSF 1.8.0; Elastic Common Schema 8.17; ArcSight CEF.",
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
        values: "`udp:HOST:PORT`, `tcp:HOST:PORT`, `unix:PATH`",
        default: "",
        what: "`syslog`: RFC 5424; by TCP octets are counted (RFC 6587). `unix:/dev/log` is this host's own.",
    },
    Key {
        name: "sink.url",
        values: "`https://...`, `http://...`",
        default: "",
        what: "`webhook`: where batches are POSTed. Redirections are not followed.",
    },
    Key {
        name: "sink.url_file",
        values: "absolute path",
        default: "",
        what: "`webhook`: a file that has the URL, where the URL itself is a secret.",
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
        what: "`webhook`: lines `Name: value`, for example `Authorization: Bearer ...`. Read for each delivery.",
    },
    Key {
        name: "sink.secret_file",
        values: "absolute path",
        default: "",
        what: "`webhook`: the key of the signature: `Keytrail-Signature` is `sha256=` and the hex digits of HMAC-SHA256 over `Keytrail-Timestamp` (seconds since the epoch), a point, and the body. Read for each delivery.",
    },
    Key {
        name: "sink.ca_file",
        values: "absolute path",
        default: "",
        what: "`webhook`: certificates of authorities (PEM) in place of the system's.",
    },
    Key {
        name: "sink.timeout_ms",
        values: "1 to 300000 milliseconds",
        default: "10000",
        what: "`syslog`, `webhook`: how long a delivery may take.",
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
address = "tcp:log.example:601"

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
`event.id` in ECS, `externalId` in CEF). A sink moves on when the file is on disk, when the webhook answered 2xx, and by TCP
when the receiver's kernel has everything; syslog by UDP or to a socket can be lost on its way, and what is longer than a
datagram may be is left out and counted. A new sink begins with the oldest event that is kept, a new response with the run
of the agent that first has it.

A receiver that does not answer, or answers 408, 429 or 5xx, is tried again after 0.25 s, twice as long each time, up to a
minute (`Retry-After` is heeded up to that). Any other answer is tried five times, then the batch is left out. After five
seconds of failure there is a gap, `sink_behind`, and `keytrail doctor` is not well. Events wait as long as
`retain_events`, `retain_days` and `history_bytes` keep them; what was forgotten meanwhile is told to the receiver first, as a
gap with the number and without an id, and to everybody else as `sink_behind` too.

A command that was started has had its finding, however it ended: only one that cannot be started is tried again, and one
that ran when the agent was killed runs again. It is seen like any other process of the host.

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
