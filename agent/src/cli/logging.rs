//! Logs go to stderr: stdout belongs to events.

use super::args::Cli;
use crate::config::{LogConfig, LogFilterError, LogFormat, log_filter};
use std::io::IsTerminal as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

/// `--log-level` makes no sense: what the configuration says was inspected when it was read.
#[derive(Debug, thiserror::Error)]
#[error("--log-level: {0}")]
pub(super) struct LogLevelError(LogFilterError);

/// Sets up `tracing`; options on the command line override the configuration.
pub(super) fn init(cli: &Cli, config: &LogConfig, fallback: &str) -> Result<(), LogLevelError> {
    let level = cli
        .log_level
        .as_deref()
        .or(config.level.as_deref())
        .unwrap_or(fallback);
    let filter = log_filter(level).map_err(LogLevelError)?;
    let stderr = std::io::stderr;
    let colour =
        stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let layer = match cli.log_format.unwrap_or(config.format) {
        LogFormat::Text => fmt::layer()
            .with_writer(stderr)
            .with_ansi(colour)
            .with_target(false)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(stderr)
            .json()
            .flatten_event(true)
            .boxed(),
    };
    // A second initialisation cannot happen in the binary; if it did, the first one stays.
    let _ = Registry::default()
        .with(layer.with_filter(filter))
        .try_init();
    Ok(())
}
