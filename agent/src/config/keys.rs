//! The keys of the file and what they may hold.

use super::parse::{ConfigError, Document, Value};
use super::{
    CaptureConfig, Config, KubernetesConfig, LogConfig, LogFormat, TcpConfig, Tier, sinks,
};
use keytrail_export::Identity;
use keytrail_ingest::Excluded;
use std::net::SocketAddr;

const KEYS: &[&str] = &[
    "listen",
    "state_dir",
    "rules_dir",
    "findings_dir",
    "fingerprint_key_file",
    "tier",
    "ring_bytes",
    "process_events",
    "system_calls",
    "self_check_seconds",
    "watch",
    "exclude",
    "inspect_timeout_ms",
    "inspect_bytes",
    "inspect_share",
    "retain_events",
    "retain_days",
    "history_bytes",
    "history_days",
    "capture",
    "tcp",
    "metrics",
    "kubernetes",
    "log",
    "sink",
    "response",
];
const CAPTURE_KEYS: &[&str] = &[
    "answer_bytes",
    "key_server_bytes",
    "process_bytes",
    "connection_bytes",
    "write_bytes",
];
const TCP_KEYS: &[&str] = &[
    "listen",
    "certificate_file",
    "key_file",
    "client_ca_file",
    "read",
    "administer",
];
const KUBERNETES_KEYS: &[&str] = &["names", "pods_socket", "account_dir", "runtime_socket"];
const METRICS_KEYS: &[&str] = &["listen"];
const LOG_KEYS: &[&str] = &["level", "format"];

/// Every key, those of a table with its name before.
pub(super) fn all() -> Vec<String> {
    let tables = [
        ("capture", CAPTURE_KEYS),
        ("tcp", TCP_KEYS),
        ("metrics", METRICS_KEYS),
        ("kubernetes", KUBERNETES_KEYS),
        ("log", LOG_KEYS),
    ];
    let of_tables = tables
        .iter()
        .flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}")));
    KEYS.iter()
        .filter(|key| tables.iter().all(|(table, _)| table != *key))
        .filter(|key| !matches!(**key, "sink" | "response"))
        .map(|key| (*key).to_owned())
        .chain(of_tables)
        .collect()
}

/// A day.
const SELF_CHECK_MAX: u64 = 86_400;
/// A ring is mapped twice and pinned in memory: beyond this it is a mistake.
const RING_MAX: u64 = 1 << 30;
const RING_MIN: u64 = 64 << 10;
/// A file is held in memory while it is inspected.
const INSPECT_MAX: u64 = 256 << 20;

/// An empty file has some pages; one of a terabyte is a mistake.
const HISTORY_MIN: u64 = 1 << 20;
const HISTORY_MAX: u64 = 1 << 40;

pub(super) fn apply(document: Document<'_>) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let root = document.root();
    root.each(KEYS, |key, value| {
        match key {
            "listen" => config.listen = address(&value)?,
            "state_dir" => config.state_dir = value.path()?,
            "rules_dir" => config.rules_dir = value.path()?,
            "findings_dir" => config.findings_dir = value.path()?,
            "fingerprint_key_file" => config.fingerprint_key_file = Some(value.path()?),
            "tier" => config.tier = tier(&value)?,
            "ring_bytes" => config.ring_bytes = ring_bytes(&value)?,
            "process_events" => config.process_events = value.boolean()?,
            "system_calls" => config.system_calls = value.boolean()?,
            // The ranges fit, here and below.
            "self_check_seconds" => {
                config.self_check_seconds = value.integer(0..=SELF_CHECK_MAX)? as u32;
            }
            "watch" => config.watch = watched(&value)?,
            "exclude" => config.exclude = excluded(&value)?,
            "inspect_timeout_ms" => {
                config.inspect_timeout_ms = value.integer(10..=60_000)? as u32;
            }
            "inspect_bytes" => config.inspect_bytes = value.integer(4_096..=INSPECT_MAX)?,
            "inspect_share" => config.inspect_share = value.integer(1..=100)? as u32,
            "retain_events" => config.retain_events = value.integer(0..=100_000_000)?,
            "retain_days" => config.retain_days = value.integer(1..=3650)? as u32,
            "history_bytes" => {
                config.history_bytes = value.integer(HISTORY_MIN..=HISTORY_MAX)?;
            }
            "history_days" => config.history_days = value.integer(1..=3650)? as u32,
            "capture" => capture(&value, &mut config.capture)?,
            "tcp" => tcp(&value, &mut config.tcp)?,
            "metrics" => value.table()?.each(METRICS_KEYS, |_, value| {
                config.metrics_listen = Some(socket_address(&value)?);
                Ok(())
            })?,
            "kubernetes" => kubernetes(&value, &mut config.kubernetes)?,
            "log" => log(&value, &mut config.log)?,
            "sink" => {
                let all = sinks::sinks(&value)?;
                (config.sinks, config.meters) = (all.sinks, all.meters);
            }
            "response" => config.responses = sinks::responses(&value)?,
            // `each` lets only KEYS through.
            _ => {}
        }
        Ok(())
    })?;
    if config.retain_events == 0 && !(config.sinks.is_empty() && config.responses.is_empty()) {
        return Err(document.whole(
            "sinks and responses take events from the ledger: `retain_events` must not be 0",
        ));
    }
    Ok(config)
}

fn address(value: &Value<'_, '_>) -> Result<String, ConfigError> {
    let text = value.string()?;
    match text.parse::<keytrail_export::Address>() {
        Ok(_) => Ok(text),
        Err(e) => Err(value.error(format!("is not an address: {e}"))),
    }
}

fn tier(value: &Value<'_, '_>) -> Result<Tier, ConfigError> {
    let wrong = |()| value.error("must be \"auto\", \"base\" or \"fentry\"");
    value.string()?.parse().map_err(wrong)
}

fn ring_bytes(value: &Value<'_, '_>) -> Result<u32, ConfigError> {
    let bytes = value.integer(RING_MIN..=RING_MAX)?;
    u32::try_from(bytes)
        .ok()
        .filter(|b| b.is_power_of_two())
        .ok_or_else(|| value.error("must be a power of two, for example 8388608 (8 MiB)"))
}

fn watched(value: &Value<'_, '_>) -> Result<Vec<String>, ConfigError> {
    let patterns = value.strings()?;
    for pattern in &patterns {
        check_glob(pattern).map_err(|why| value.error(why))?;
    }
    Ok(patterns)
}

fn excluded(value: &Value<'_, '_>) -> Result<Vec<String>, ConfigError> {
    let patterns = value.strings()?;
    for pattern in &patterns {
        if !pattern.starts_with('/') {
            return Err(value.error(PatternError::Relative(pattern.clone())));
        }
        if let Err(e) = Excluded::new(std::slice::from_ref(pattern)) {
            return Err(value.error(format!("holds a bad glob: {pattern:?}: {}", e.kind())));
        }
    }
    Ok(patterns)
}

fn capture(value: &Value<'_, '_>, capture: &mut CaptureConfig) -> Result<(), ConfigError> {
    value.table()?.each(CAPTURE_KEYS, |key, value| {
        // The range fits.
        let bytes = value.integer(0..=u64::from(u32::MAX))? as u32;
        match key {
            "answer_bytes" => capture.answer_bytes = bytes,
            "key_server_bytes" => capture.key_server_bytes = bytes,
            "process_bytes" => capture.process_bytes = bytes,
            "connection_bytes" => capture.connection_bytes = bytes,
            _ => capture.write_bytes = bytes,
        }
        Ok(())
    })
}

fn tcp(value: &Value<'_, '_>, tcp: &mut TcpConfig) -> Result<(), ConfigError> {
    value.table()?.each(TCP_KEYS, |key, value| {
        match key {
            "listen" => tcp.listen = Some(socket_address(&value)?),
            "certificate_file" => tcp.certificate_file = value.path()?,
            "key_file" => tcp.key_file = value.path()?,
            "client_ca_file" => tcp.client_ca_file = value.path()?,
            "read" => tcp.read = identities(&value)?,
            _ => tcp.administer = identities(&value)?,
        }
        Ok(())
    })
}

fn kubernetes(value: &Value<'_, '_>, kubernetes: &mut KubernetesConfig) -> Result<(), ConfigError> {
    value.table()?.each(KUBERNETES_KEYS, |key, value| {
        match key {
            "names" => kubernetes.names = value.boolean()?,
            "pods_socket" => kubernetes.pods_socket = value.path()?,
            "account_dir" => kubernetes.account_dir = value.path()?,
            _ => kubernetes.runtime_socket = Some(value.path()?),
        }
        Ok(())
    })
}

fn log(value: &Value<'_, '_>, log: &mut LogConfig) -> Result<(), ConfigError> {
    value.table()?.each(LOG_KEYS, |key, value| {
        match key {
            "level" => {
                let level = value.string()?;
                if let Err(e) = super::log_filter(&level) {
                    return Err(value.error(format!("is not a log level or filter: {e}")));
                }
                log.level = Some(level);
            }
            _ => {
                log.format = match value.string()?.as_str() {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err(value.error("must be \"text\" or \"json\"")),
                };
            }
        }
        Ok(())
    })
}

fn socket_address(value: &Value<'_, '_>) -> Result<SocketAddr, ConfigError> {
    value.string()?.parse().map_err(|_| {
        value.error("must be ADDRESS:PORT, for example 127.0.0.1:9479 or [::]:9479, and no name")
    })
}

/// The most clients one list names.
const CLIENTS_MAX: usize = 1_000;

fn identities(value: &Value<'_, '_>) -> Result<Vec<Identity>, ConfigError> {
    let names = value.strings()?;
    if names.len() > CLIENTS_MAX {
        return Err(value.error(format!("has more than {CLIENTS_MAX} clients")));
    }
    names
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|e| value.error(format!("names a client that cannot be: {e}")))
        })
        .collect()
}

/// What is wrong with a pattern of files: what follows the name of its key.
#[derive(Debug, thiserror::Error)]
enum PatternError {
    #[error("must hold absolute globs; {0:?} is not absolute")]
    Relative(String),
    #[error("holds {0:?}, which names no file")]
    NoFile(String),
    #[error("holds {0:?}: `**` cannot be watched; name each level, as in /srv/*/*.json")]
    Unbounded(String),
    #[error("holds {0:?}: `{1}` is not allowed in it")]
    Dots(String, String),
    #[error("holds a bad glob: {whole:?}: {kind} in {part:?}")]
    Glob {
        whole: String,
        part: String,
        kind: globset::ErrorKind,
    },
}

/// Watched patterns are expanded component by component, so each has to be one by itself; and each directory on the way
/// is watched for changes, so `**`, which stands for any number of them, has no bound.
fn check_glob(pattern: &str) -> Result<(), PatternError> {
    let whole = || pattern.to_owned();
    if !pattern.starts_with('/') {
        return Err(PatternError::Relative(whole()));
    }
    let mut components = pattern
        .split('/')
        .filter(|part| !part.is_empty())
        .peekable();
    if components.peek().is_none() {
        return Err(PatternError::NoFile(whole()));
    }
    for part in components {
        if part.contains("**") {
            return Err(PatternError::Unbounded(whole()));
        }
        if part == ".." || part == "." {
            return Err(PatternError::Dots(whole(), part.to_owned()));
        }
        globset::GlobBuilder::new(part)
            .literal_separator(true)
            .build()
            .map_err(|e| PatternError::Glob {
                whole: whole(),
                part: part.to_owned(),
                kind: e.kind().clone(),
            })?;
    }
    Ok(())
}
