//! The command line.

use super::exit;
use super::kinds::parse_kind;
use crate::config::{DEFAULT_LISTEN, LogFormat, Tier};
use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use keytrail_export::Address;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Who uses which credential on this host, and where it goes.
#[derive(Debug, Parser)]
#[command(name = "keytrail", version, propagate_version = true, after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Shape of log lines (on stderr).
    #[arg(long, global = true, help_heading = "Logging", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// error, warn, info, debug, trace, or a filter such as keytrail::serve=debug,info.
    #[arg(long, global = true, help_heading = "Logging", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: watch this host and serve events.
    Agent(AgentArgs),
    /// Show the events of a running agent.
    Watch(WatchArgs),
    /// Run a command and show what it does with credentials.
    Trace(TraceArgs),
    /// Find credentials in text.
    Classify(super::classify::ClassifyArgs),
    /// Show what can be seen on this host, what cannot, and what to do about it.
    Doctor(DoctorArgs),
    /// Plant a decoy credential, use it over TLS, and show the events: five seconds.
    Demo(DemoArgs),
    /// List the credentials on this host.
    Inventory(super::inventory::InventoryArgs),
    /// Make the events of a recording again (`agent --record`, `trace --record`).
    Replay(ReplayArgs),
    /// Print the version.
    Version,
}

/// What every subcommand that sees for itself takes.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Configuration [default: /etc/keytrail/agent.toml if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Kernel hooks to use, overriding the configuration.
    #[arg(long)]
    pub tier: Option<Tier>,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Where to serve the API [default: unix:/run/keytrail/keytrail.sock].
    #[arg(long, value_name = "unix:PATH")]
    pub listen: Option<Address>,

    /// Where state is kept [default: /var/lib/keytrail].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Print events on stdout as they come.
    #[arg(long)]
    pub print: bool,

    /// Shape of printed events.
    #[arg(short, long, value_name = "FORMAT", requires = "print")]
    pub output: Option<Format>,

    /// Also emit process_start and process_exit for every process.
    #[arg(long)]
    pub process_events: bool,

    /// Log what the kernel side does (needs `cargo xtask build --kernel-log`).
    #[arg(long)]
    pub kernel_log: bool,

    /// Record what the core consumes (no secrets), to be replayed later.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AddressArgs {
    /// The agent's socket.
    #[arg(long, value_name = "unix:PATH", default_value = DEFAULT_LISTEN)]
    pub address: Address,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub output: Format,

    /// Only events of this kind (read, opened, exposed, sent, created, gap, start, exit); may be repeated.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    pub kind: Vec<String>,

    /// Begin with the events of the last DURATION (30s, 5m, 2h, 1d), or with all the agent remembers.
    #[arg(long, value_name = "DURATION|all", value_parser = parse_since)]
    pub since: Option<Since>,

    /// Begin with the last N events that pass the filters.
    #[arg(long, value_name = "N")]
    pub last: Option<u32>,

    /// Only this credential: its kind or identifier (patterns such as 'github-*' too) or fingerprint (8 digits are
    /// enough); may be repeated.
    #[arg(long, value_name = "CREDENTIAL")]
    pub credential: Vec<String>,

    /// Only this process and its descendants; may be repeated.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Only credentials of at least this confidence.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    pub min_confidence: f64,

    /// Stop after so many events.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    All,
    Ago(Duration),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if text == "all" {
        return Ok(Since::All);
    }
    let sentence = || format!("{text:?} is not a time span such as 30s, 5m, 2h or 1d, nor `all`");
    let unit = text.chars().last().ok_or_else(sentence)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(sentence()),
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(sentence());
    }
    let number: u64 = digits.parse().map_err(|_| sentence())?;
    number
        .checked_mul(seconds)
        .map(|seconds| Since::Ago(Duration::from_secs(seconds)))
        .ok_or_else(sentence)
}

#[derive(Debug, Args)]
pub struct TraceArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Write events to FILE as JSON lines instead of showing them on stderr.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,

    /// Record what the core consumes (no secrets), to be replayed later.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Shape of the events on stderr [default: compact].
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,

    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The recording: one observation a line, no secrets in it.
    pub recording: PathBuf,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    #[command(flatten)]
    pub agent: AddressArgs,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: TableFormat,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Shape of the events.
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub output: Format,
}

/// A table for people, JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    #[default]
    Table,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn trace_leaves_the_commands_options_alone() {
        let cli = Cli::try_parse_from([
            "keytrail", "trace", "--events", "e", "--", "curl", "-o", "x", "--help",
        ]);
        let Command::Trace(args) = cli.unwrap().command else {
            panic!()
        };
        assert_eq!(args.command, ["curl", "-o", "x", "--help"]);
        let cli = Cli::try_parse_from(["keytrail", "trace", "npm", "install", "--events", "mine"]);
        let Command::Trace(args) = cli.unwrap().command else {
            panic!()
        };
        assert_eq!(args.command, ["npm", "install", "--events", "mine"]);
        assert!(Cli::try_parse_from(["keytrail", "trace"]).is_err());
    }

    #[test]
    fn time_spans() {
        let ago = |seconds| Ok(Since::Ago(Duration::from_secs(seconds)));
        for (text, expected) in [
            ("30s", ago(30)),
            ("5m", ago(300)),
            ("2h", ago(7_200)),
            ("1d", ago(86_400)),
            ("0s", ago(0)),
            ("all", Ok(Since::All)),
        ] {
            assert_eq!(parse_since(text), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "5 m",
            "-5m",
            "+5m",
            "5.5m",
            "5w",
            "5é",
            "99999999999999999999d",
            "99999999999999999d",
        ] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_are_checked() {
        let cli = Cli::try_parse_from(["keytrail", "watch", "--kind", "read,sent"]).unwrap();
        let Command::Watch(args) = cli.command else {
            panic!()
        };
        assert_eq!(args.kind, ["credential_read", "credential_sent"]);
        assert!(Cli::try_parse_from(["keytrail", "watch", "--kind", "sentt"]).is_err());
        assert!(Cli::try_parse_from(["keytrail", "inventory", "diff", "-o", "json"]).is_ok());
    }
}
