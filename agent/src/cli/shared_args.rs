//! Options that several subcommands have.

use crate::config::{DEFAULT_LISTEN, Tier};
use crate::output::{Format, Style};
use clap::{Args, ValueEnum};
use keytrail_export::{Target, TlsFiles};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// What every subcommand that sees for itself takes.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Configuration [default: /etc/keytrail/agent.toml if there is one].
    #[arg(long, value_name = "FILE", env = "KEYTRAIL_CONFIG")]
    pub config: Option<PathBuf>,

    /// Kernel hooks to use, overriding the configuration.
    #[arg(long)]
    pub tier: Option<Tier>,
}

#[derive(Debug, Args)]
pub struct AddressArgs {
    /// The agent: its socket, or https://HOST:PORT of one elsewhere.
    #[arg(long, value_name = "unix:PATH|https://HOST:PORT", default_value = DEFAULT_LISTEN, env = "KEYTRAIL_ADDRESS")]
    pub address: Target,

    #[command(flatten)]
    pub tls: TlsArgs,
}

/// A confidence: 0 to 1.
pub fn confidence(text: &str) -> Result<f64, NoConfidence> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(NoConfidence),
    }
}

/// Not a confidence.
#[derive(Debug, thiserror::Error)]
#[error("a number from 0 to 1 is wanted")]
pub struct NoConfidence;

/// Under which options for agents of other hosts stand.
const ELSEWHERE: &str = "Agents elsewhere";

/// How a client shows who it is, to an agent elsewhere.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Who vouches for the agent, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYTRAIL_TLS_CA",
        help_heading = ELSEWHERE
    )]
    pub tls_ca: Option<PathBuf>,

    /// The client's certificate, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYTRAIL_TLS_CERT",
        help_heading = ELSEWHERE
    )]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYTRAIL_TLS_KEY",
        help_heading = ELSEWHERE
    )]
    pub tls_key: Option<PathBuf>,
}

impl AddressArgs {
    /// Whom to ask, and how.
    pub fn target(&self) -> Target {
        let TlsArgs {
            tls_ca,
            tls_cert,
            tls_key,
        } = &self.tls;
        let files = match (tls_ca, tls_cert, tls_key) {
            (Some(ca), Some(certificate), Some(key)) => Some(TlsFiles {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        };
        self.address.clone().with(files)
    }
}

/// A table for people, the rest for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    #[default]
    Table,
    /// The table with nothing cut.
    Wide,
    Json,
    Yaml,
    Csv,
}

impl TableFormat {
    /// How a table for people is shown on `stream`; `None` for what programs read.
    pub fn style(self, stream: impl AsFd) -> Option<Style> {
        match self {
            TableFormat::Table => Some(Style::of(stream)),
            TableFormat::Wide => Some(Style::of(stream).uncut()),
            TableFormat::Json | TableFormat::Yaml | TableFormat::Csv => None,
        }
    }

    /// As what documents are written in.
    pub fn format(self) -> Format {
        match self {
            TableFormat::Table => Format::Compact,
            TableFormat::Wide => Format::Wide,
            TableFormat::Json => Format::Json,
            TableFormat::Yaml => Format::Yaml,
            TableFormat::Csv => Format::Csv,
        }
    }
}
