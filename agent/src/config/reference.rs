//! What may be configured, for people: docs/CONFIGURATION.md is made of this, and a test holds them together.

mod remote;
mod sinks;

pub use sinks::SINK_KEYS;
use std::fmt::Write as _;

/// One key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in messages: `log.level`.
    pub name: &'static str,
    /// What it may hold.
    pub values: &'static str,
    /// As TOML; empty when there is none.
    pub default: &'static str,
    pub what: &'static str,
}

/// All keys, in the order of the commented file.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        values: "`unix:PATH`",
        default: "\"unix:/run/keytrail/keytrail.sock\"",
        what: "Where the gRPC API is served on this host: a unix socket, mode 0660. For other hosts there is `[tcp]`.",
    },
    Key {
        name: "state_dir",
        values: "absolute path",
        default: "\"/var/lib/keytrail\"",
        what: "SQLite state and the fingerprint key of this host, mode 0700.",
    },
    Key {
        name: "rules_dir",
        values: "absolute path",
        default: "\"/etc/keytrail/rules.d\"",
        what: "Credential rules of your own, `*.toml`, beside the built-in ones. It may be absent.",
    },
    Key {
        name: "findings_dir",
        values: "absolute path",
        default: "\"/etc/keytrail/findings.d\"",
        what: "Rules and exclusions of findings of your own, `*.toml`, beside the built-in ones. It may be absent.",
    },
    Key {
        name: "fingerprint_key_file",
        values: "absolute path",
        default: "",
        what: "The fleet's fingerprint key: with the same key on every host, the same credential has the same fingerprint \
               everywhere. Without it each agent makes a key of its own in `state_dir`.",
    },
    Key {
        name: "tier",
        values: "`auto`, `base`, `fentry`",
        default: "\"auto\"",
        what: "Kernel hooks: the best this kernel has, hook by hook; or raw tracepoints, uprobes and cgroup hooks only; or \
               trampolines where the kernel has them.",
    },
    Key {
        name: "ring_bytes",
        values: "a power of two, 65536 to 1073741824 bytes",
        default: "8388608",
        what: "Size of each kernel ring buffer.",
    },
    Key {
        name: "process_events",
        values: "`true`, `false`",
        default: "false",
        what: "Also emit `process_start` and `process_exit` for every process.",
    },
    Key {
        name: "system_calls",
        values: "`true`, `false`",
        default: "true",
        what: "See writes to files, pipes and terminals, and what is taken out of processes by system calls. Without trampolines (base tier) their hook costs every system call of the host about 0.1 \u{b5}s, and `false` leaves it out; with them each such call has a hook of its own, and this key changes nothing.",
    },
    Key {
        name: "self_check_seconds",
        values: "0 to 86400 seconds",
        default: "60",
        what: "How often the agent exercises its hooks, by a process of its own that does harmless things (`keytrail self-test-activity`), and looks for BPF programs of others that can deceive it and for who has its maps open; `0` never, but for the self-test at the start.",
    },
    Key {
        name: "watch",
        values: "array of absolute globs, no `**`",
        default: "[]",
        what: "Files to watch besides those the rules name.",
    },
    Key {
        name: "exclude",
        values: "array of absolute globs",
        default: "[]",
        what: "Files and directories that are not inspected: network file systems that may not answer, trees without credentials that change all the time. The agent says at its start what it leaves out.",
    },
    Key {
        name: "inspect_timeout_ms",
        values: "10 to 60000 milliseconds",
        default: "1000",
        what: "How long the records of a process wait for a file that it read to be inspected; beyond it they go on without, and the gap is reported. Above 1300, bytes of what they sent may stay in the agent's memory for longer than two seconds.",
    },
    Key {
        name: "inspect_bytes",
        values: "4096 to 268435456 bytes",
        default: "8388608",
        what: "The largest file that is read whole; larger ones are inspected at their beginning (1 MiB).",
    },
    Key {
        name: "inspect_share",
        values: "1 to 100 percent",
        default: "50",
        what: "Of one processor, what inspecting the files of one user (but root) may take.",
    },
    Key {
        name: "retain_events",
        values: "0 to 100000000 events",
        default: "200000",
        what: "The most events kept in the ledger; 0 keeps none.",
    },
    Key {
        name: "retain_days",
        values: "1 to 3650 days",
        default: "30",
        what: "The oldest event kept in the ledger.",
    },
    Key {
        name: "history_bytes",
        values: "1048576 to 1099511627776 bytes",
        default: "536870912",
        what: "What everything remembered may take on disk: who used which credential, and single events, of which the \
               oldest go first.",
    },
    Key {
        name: "history_days",
        values: "1 to 3650 days",
        default: "90",
        what: "How long it is remembered who used which credential.",
    },
    Key {
        name: "capture.answer_bytes",
        values: "0 to 4294967295 bytes a second",
        default: "1048576",
        what: "What is inspected of the answers of a holder of credentials on connections that it accepted. Beyond it, and the following three, payloads are counted and reported as a gap (`budget_used`).",
    },
    Key {
        name: "capture.key_server_bytes",
        values: "0 to 4294967295 bytes a second",
        default: "65536",
        what: "The same of a process that holds nothing but private keys, which are not sent to be used; and what it writes to files, pipes and terminals.",
    },
    Key {
        name: "capture.process_bytes",
        values: "0 to 4294967295 bytes a second",
        default: "67108864",
        what: "What is inspected of everything else a process sends.",
    },
    Key {
        name: "capture.connection_bytes",
        values: "0 to 4294967295 bytes a second",
        default: "33554432",
        what: "And of that on one connection.",
    },
    Key {
        name: "capture.write_bytes",
        values: "0 to 4294967295 bytes a second",
        default: "1048576",
        what: "What is inspected of what a process writes to files, pipes and terminals.",
    },
    Key {
        name: "tcp.listen",
        values: "`ADDRESS:PORT`",
        default: "",
        what: "Where the API is served to other hosts as well: gRPC over TLS 1.3, and each client has to show a certificate. Never without. See [Clients elsewhere](#clients-elsewhere).",
    },
    Key {
        name: "tcp.certificate_file",
        values: "absolute path",
        default: "\"/etc/keytrail/tls/tls.crt\"",
        what: "The agent's certificate and those between it and its authority, PEM. It, the key and the authorities are read anew when their files change.",
    },
    Key {
        name: "tcp.key_file",
        values: "absolute path",
        default: "\"/etc/keytrail/tls/tls.key\"",
        what: "The private key of that certificate, PEM.",
    },
    Key {
        name: "tcp.client_ca_file",
        values: "absolute path",
        default: "\"/etc/keytrail/tls/ca.crt\"",
        what: "The authorities that vouch for clients, PEM.",
    },
    Key {
        name: "tcp.read",
        values: "array of subject alternative names",
        default: "[]",
        what: "Clients that may ask: URIs such as `spiffe://example.org/collector` and DNS names, each compared as a whole. Nobody else is answered.",
    },
    Key {
        name: "tcp.administer",
        values: "array of subject alternative names",
        default: "[]",
        what: "Clients that may also change something: what is usual for a credential, and decoys.",
    },
    Key {
        name: "metrics.listen",
        values: "`ADDRESS:PORT`",
        default: "",
        what: "Where `/metrics` (OpenMetrics), `/healthz` and `/readyz` are served by HTTP, to anybody who reaches it: counts, no credentials. `127.0.0.1:9479` is for this host only.",
    },
    Key {
        name: "kubernetes.names",
        values: "`true`, `false`",
        default: "true",
        what: "On a node of a cluster: ask its kubelet, or the API server, what the pods of this node are called. See [Names of pods](#names-of-pods).",
    },
    Key {
        name: "kubernetes.pods_socket",
        values: "absolute path",
        default: "\"/var/lib/kubelet/pods-api/pods-api.sock\"",
        what: "The kubelet's Pods API (Kubernetes 1.37), which is asked first. Used where it is there, also if it comes later.",
    },
    Key {
        name: "kubernetes.account_dir",
        values: "absolute path",
        default: "\"/var/run/secrets/kubernetes.io/serviceaccount\"",
        what: "`token` and `ca.crt` of the agent's service account, with which the API server is asked.",
    },
    Key {
        name: "kubernetes.runtime_socket",
        values: "absolute path",
        default: "",
        what: "The container runtime's CRI socket, which is asked last, outside of a pod. Without it the first that serves of `/run/k3s/containerd/containerd.sock` (k3s, RKE2), `/run/k0s/containerd.sock`, `/var/snap/microk8s/common/run/containerd.sock`, `/run/crio/crio.sock`, `/run/cri-dockerd.sock` and `/run/containerd/containerd.sock`.",
    },
    Key {
        name: "log.level",
        values: "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `keytrail_export=debug,info`",
        default: "",
        what: "How much is logged, on stderr. Without it: `info` for `keytrail agent`, `warn` for every other command.",
    },
    Key {
        name: "log.format",
        values: "`text`, `json`",
        default: "\"text\"",
        what: "Shape of a log line.",
    },
];

/// Variables of the environment, and what they stand for. An option on the command line goes before its variable, and a
/// variable before the file.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        "KEYTRAIL_ADDRESS",
        "Where the agent is: `--address` of the commands that ask an agent (`unix:PATH`, `https://HOST:PORT`), `--listen` of `keytrail agent` (`unix:PATH`).",
    ),
    (
        "KEYTRAIL_TLS_CA",
        "`--tls-ca` of the commands that ask an agent: who vouches for it, PEM.",
    ),
    (
        "KEYTRAIL_TLS_CERT",
        "`--tls-cert`: the client's certificate, PEM.",
    ),
    ("KEYTRAIL_TLS_KEY", "`--tls-key`: its private key, PEM."),
    (
        "KEYTRAIL_STATE_DIR",
        "`--state-dir` of `agent`, `classify`, `decoy`, `inventory` and `used`.",
    ),
    (
        "KEYTRAIL_CONFIG",
        "`--config` of the commands that have it.",
    ),
    (
        "KEYTRAIL_LOG",
        "`--log-level` of every command: a level or a filter.",
    ),
    (
        "KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT",
        "Of the agent: where the API server is. Kubernetes sets them in every pod.",
    ),
    (
        "NODE_NAME",
        "Of the agent: the name of the node it runs on. The chart sets it.",
    ),
    (
        "NO_COLOR",
        "When set to anything but nothing: no colours (<https://no-color.org>).",
    ),
    (
        "TZ",
        "The zone in which times of day are shown; JSON, YAML and CSV are always in UTC.",
    ),
];

/// Lines of a table of keys.
fn rows(out: &mut String, keys: &[Key]) {
    for key in keys {
        let default = match key.default {
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            key.name, key.values, key.what
        );
    }
}

/// docs/CONFIGURATION.md.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "\
# Configuration

<!-- Made of agent/src/config/reference.rs: `KEYTRAIL_BLESS=1 cargo test -p keytrail --test config` writes it anew. -->

One TOML file, `/etc/keytrail/agent.toml` unless `--config` says otherwise. Every key is optional. An unknown key is
refused by name and line, so a typing mistake never goes unnoticed. [deploy/agent.toml](../deploy/agent.toml) is the same
with every default, to be copied. The agent reads it when it starts.

| key | values | default | what it does |
|---|---|---|---|
",
    );
    rows(&mut out, KEYS);
    out.push_str(
        "
Keys with a point belong to a table: `log.level` is `level` under `[log]`.

",
    );
    out.push_str(remote::CLIENTS);
    out.push_str(sinks::EXAMPLES);
    rows(&mut out, SINK_KEYS);
    out.push_str(sinks::DELIVERY);
    out.push_str(
        "
## Environment

An option on the command line goes before its variable, and a variable before the file.

| variable | what it does |
|---|---|
",
    );
    for (name, what) in VARIABLES {
        let _ = writeln!(out, "| `{name}` | {what} |");
    }
    out
}
