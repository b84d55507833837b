//! Agent configuration: one TOML file, every key optional, unknown keys refused.
//!
//! `deploy/agent.toml` is the commented file with every default; a test keeps both the same.

mod keys;
mod parse;
pub mod reference;
mod sinks;

pub use parse::ConfigError;

use keytrail_cluster::{ACCOUNT_DIR, PODS_SOCKET};
use keytrail_export::{Identity, TcpSpec, TlsFiles};
use keytrail_sensor::Limits;
use keytrail_sink::{MeterSpec, ResponseSpec, SinkSpec};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

/// Where the daemon listens and `watch` looks when nobody says otherwise.
pub const DEFAULT_LISTEN: &str = "unix:/run/keytrail/keytrail.sock";

/// Everything an administrator may decide. Command-line options override the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `listen`: where the gRPC API is served, `unix:PATH`. Default [`DEFAULT_LISTEN`].
    pub listen: String,
    /// `state_dir`: SQLite state and the fingerprint key, mode 0700. Default `/var/lib/keytrail`.
    pub state_dir: PathBuf,
    /// `rules_dir`: credential rules of this site, `*.toml`. Default `/etc/keytrail/rules.d`; may be absent.
    pub rules_dir: PathBuf,
    /// `findings_dir`: rules and exclusions of findings of this site, `*.toml`. Default `/etc/keytrail/findings.d`; may be
    /// absent.
    pub findings_dir: PathBuf,
    /// `fingerprint_key_file`: the fleet's fingerprint key (at least 32 bytes). Default: none, the agent makes its
    /// own in `state_dir`.
    pub fingerprint_key_file: Option<PathBuf>,
    /// `tier`: which kind of kernel hooks to use. Default `auto`.
    pub tier: Tier,
    /// `ring_bytes`: size of each kernel ring buffer, a power of two of at least 64 KiB. Default 8 MiB.
    pub ring_bytes: u32,
    /// `process_events`: also emit `process_start` and `process_exit`. Default false.
    pub process_events: bool,
    /// `system_calls`: see writes that are no sends, and what is taken out of processes by system calls. Default true.
    pub system_calls: bool,
    /// `self_check_seconds`: how often hooks are exercised and BPF programs of others are inspected. Default 60; 0: never.
    pub self_check_seconds: u32,
    /// `watch`: globs of files watched besides those the rules name. Default none.
    pub watch: Vec<String>,
    /// `exclude`: globs of files and directories that are not inspected. Default none.
    pub exclude: Vec<String>,
    /// `inspect_timeout_ms`: how long the records of a process wait for a file it read to be inspected. Default 1,000.
    pub inspect_timeout_ms: u32,
    /// `inspect_bytes`: largest file that is read whole. Default 8 MiB.
    pub inspect_bytes: u64,
    /// `inspect_share`: percent of one processor that inspecting the files of one user (but root) may take. Default 50.
    pub inspect_share: u32,
    /// `retain_events`: most events kept in the ledger. Default 200,000; 0 keeps none.
    pub retain_events: u64,
    /// `retain_days`: oldest event kept in the ledger, days. Default 30.
    pub retain_days: u32,
    /// `history_bytes`: bytes that everything remembered may take: the oldest goes first. Default 512 MiB.
    pub history_bytes: u64,
    /// `history_days`: oldest hour of which it is remembered who used what, days. Default 90.
    pub history_days: u32,
    /// `[capture]`.
    pub capture: CaptureConfig,
    /// `[tcp]`: the API by TLS.
    pub tcp: TcpConfig,
    /// `metrics.listen`: where `/metrics`, `/healthz` and `/readyz` are served. Default: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// `[kubernetes]`.
    pub kubernetes: KubernetesConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[[sink]]`: where events go. Default none.
    pub sinks: Vec<SinkSpec>,
    /// `[[sink]]` of metrics: what the agent counts of itself. Default none.
    pub meters: Vec<MeterSpec>,
    /// `[[response]]`: what is done about findings. Default none.
    pub responses: Vec<ResponseSpec>,
}

/// How much of what processes send is captured, bytes a second. Beyond it payloads are passed over, which is counted and
/// reported as a gap. 0 captures nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// `capture.answer_bytes`: of what a holder answers on connections it accepted. Default 1 MiB.
    pub answer_bytes: u32,
    /// `capture.key_server_bytes`: the same of a process that holds nothing but private keys. Default 64 KiB.
    pub key_server_bytes: u32,
    /// `capture.process_bytes`: of everything else a process sends. Default 64 MiB.
    pub process_bytes: u32,
    /// `capture.connection_bytes`: of one of its connections. Default 32 MiB.
    pub connection_bytes: u32,
    /// `capture.write_bytes`: of what a process writes to files, pipes and terminals. Default 1 MiB.
    pub write_bytes: u32,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        let Limits {
            answers,
            keys,
            process,
            connection,
            writes,
        } = Limits::default();
        CaptureConfig {
            answer_bytes: answers,
            key_server_bytes: keys,
            process_bytes: process,
            connection_bytes: connection,
            write_bytes: writes,
        }
    }
}

/// The API over TCP: TLS 1.3, and both sides show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// `tcp.listen`: address and port. Default: not by TCP.
    pub listen: Option<SocketAddr>,
    /// `tcp.certificate_file`: the agent's certificate and those between it and its authority, PEM. Default
    /// `/etc/keytrail/tls/tls.crt`.
    pub certificate_file: PathBuf,
    /// `tcp.key_file`: its private key, PEM. Default `/etc/keytrail/tls/tls.key`.
    pub key_file: PathBuf,
    /// `tcp.client_ca_file`: who vouches for clients, PEM. Default `/etc/keytrail/tls/ca.crt`.
    pub client_ca_file: PathBuf,
    /// `tcp.read`: who may ask. Default nobody.
    pub read: Vec<Identity>,
    /// `tcp.administer`: who may also change something. Default nobody.
    pub administer: Vec<Identity>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        TcpConfig {
            listen: None,
            certificate_file: "/etc/keytrail/tls/tls.crt".into(),
            key_file: "/etc/keytrail/tls/tls.key".into(),
            client_ca_file: "/etc/keytrail/tls/ca.crt".into(),
            read: Vec::new(),
            administer: Vec::new(),
        }
    }
}

impl TcpConfig {
    /// What is served; `None` when nothing is.
    #[must_use]
    pub fn spec(&self) -> Option<TcpSpec> {
        Some(TcpSpec {
            listen: self.listen?,
            files: TlsFiles {
                ca: self.client_ca_file.clone(),
                certificate: self.certificate_file.clone(),
                key: self.key_file.clone(),
            },
            read: self.read.clone(),
            administer: self.administer.clone(),
        })
    }
}

/// What is asked of the cluster whose node this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// `kubernetes.names`: ask the kubelet, or the API server, what the pods of this node are called. Default true; without
    /// effect on a host that is no node.
    pub names: bool,
    /// `kubernetes.pods_socket`: the kubelet's Pods API, used where it is there. Default [`PODS_SOCKET`].
    pub pods_socket: PathBuf,
    /// `kubernetes.account_dir`: `token` and `ca.crt` of the agent's service account. Default [`ACCOUNT_DIR`].
    pub account_dir: PathBuf,
    /// `kubernetes.runtime_socket`: the container runtime's CRI socket, asked last. Without it: wherever runtimes have theirs.
    pub runtime_socket: Option<PathBuf>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        KubernetesConfig {
            names: true,
            pods_socket: PODS_SOCKET.into(),
            account_dir: ACCOUNT_DIR.into(),
            runtime_socket: None,
        }
    }
}

/// How the agent logs (on stderr; events are not logs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `log.level`: error, warn, info, debug, trace, or a `tracing` filter such as `keytrail::serve=debug`.
    /// Default: what the subcommand chooses (`info` for `keytrail agent`, `warn` elsewhere).
    pub level: Option<String>,
    /// `log.format`: `text` or `json`. Default `text`.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Which kind of kernel hooks is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// The best this kernel has, hook by hook.
    #[default]
    Auto,
    /// Raw tracepoints, uprobes and cgroup hooks only.
    Base,
    /// Prefer fentry/fexit trampolines; fall back where the kernel refuses them.
    Fentry,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Auto => "auto",
            Tier::Base => "base",
            Tier::Fentry => "fentry",
        })
    }
}

impl FromStr for Tier {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "auto" => Ok(Tier::Auto),
            "base" => Ok(Tier::Base),
            "fentry" => Ok(Tier::Fentry),
            _ => Err(()),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: DEFAULT_LISTEN.into(),
            state_dir: "/var/lib/keytrail".into(),
            rules_dir: "/etc/keytrail/rules.d".into(),
            findings_dir: "/etc/keytrail/findings.d".into(),
            fingerprint_key_file: None,
            tier: Tier::Auto,
            ring_bytes: 8 << 20,
            process_events: false,
            system_calls: true,
            self_check_seconds: 60,
            watch: Vec::new(),
            exclude: Vec::new(),
            inspect_timeout_ms: 1_000,
            inspect_bytes: 8 << 20,
            inspect_share: 50,
            retain_events: 200_000,
            retain_days: 30,
            history_bytes: 512 << 20,
            history_days: 90,
            capture: CaptureConfig::default(),
            tcp: TcpConfig::default(),
            metrics_listen: None,
            kubernetes: KubernetesConfig::default(),
            log: LogConfig {
                level: None,
                format: LogFormat::Text,
            },
            sinks: Vec::new(),
            meters: Vec::new(),
            responses: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 1 MiB, is not TOML, has an unknown key or a value of the wrong type
    /// or out of range. The message begins with `FILE:LINE:` whenever a line is to blame.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = parse::read_bounded(file)?;
        Config::parse(&text, file)
    }

    /// Reads a configuration from text; `file` is only named in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        keys::apply(parse::Document::new(text, file)?)
    }
}

/// The names of all keys, as in messages (`log.level`); those of a sink and of a response, which there may be several of,
/// as in [`sink_keys`].
#[must_use]
pub fn keys() -> Vec<String> {
    keys::all()
}

/// The keys of a `[[sink]]` (`sink.name`) and of a `[[response]]`.
#[must_use]
pub fn sink_keys() -> Vec<String> {
    sinks::all()
}

/// A text that is neither a log level nor a filter.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    #[error("{0:?} is not error, warn, info, debug or trace")]
    Level(String),
    #[error(transparent)]
    Filter(#[from] ParseError),
}

/// Parses a log level or filter.
///
/// # Errors
/// A bare word that is no level is refused: `tracing` would take it for the name of a module, and say nothing for ever.
pub fn log_filter(text: &str) -> Result<Targets, LogFilterError> {
    for word in text.split(',').map(str::trim).filter(|w| !w.contains('=')) {
        if word.parse::<LevelFilter>().is_err() {
            return Err(LogFilterError::Level(word.to_owned()));
        }
    }
    Ok(text.parse()?)
}
