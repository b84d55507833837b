//! The command line.

use super::filter_args::{FilterArgs, When, parse_since, parse_when};
pub use super::shared_args::{AddressArgs, EngineArgs, TableFormat};
use super::{examples, exit};
use crate::config::LogFormat;
use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use keytrail_export::Address;
use std::ffi::OsString;
use std::path::PathBuf;

/// Who uses which credential on this host, and where it goes.
#[derive(Debug, Parser)]
#[command(name = "keytrail", version, propagate_version = true,
    after_help = exit::HELP, after_long_help = format!("{}{}", examples::KEYTRAIL, exit::HELP))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Shape of log lines (on stderr).
    #[arg(long, global = true, help_heading = "Logging", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// error, warn, info, debug, trace, or a filter such as keytrail::serve=debug,info.
    #[arg(
        long,
        global = true,
        help_heading = "Logging",
        value_name = "LEVEL",
        env = "KEYTRAIL_LOG"
    )]
    pub log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: watch this host and serve events.
    #[command(after_help = examples::AGENT)]
    Agent(AgentArgs),
    /// Show the events of a running agent.
    #[command(after_help = examples::WATCH)]
    Watch(WatchArgs),
    /// Show which credentials are in use, by whom, and where they go, live.
    #[command(after_help = examples::TOP)]
    Top(TopArgs),
    /// Run a command and show what it does with credentials.
    #[command(after_help = examples::TRACE)]
    Trace(TraceArgs),
    /// Find credentials in text.
    #[command(after_help = examples::CLASSIFY)]
    Classify(super::classify::ClassifyArgs),
    /// Watch this host for a while and put everything into one signed file; nothing has to be installed.
    #[command(after_help = examples::CAPTURE)]
    Capture(Box<super::capture::CaptureArgs>),
    /// Say whether the bundle of a capture is as it was made.
    #[command(after_help = examples::VERIFY)]
    Verify(super::verify::VerifyArgs),
    /// Write a report of what a running agent remembers, as one page.
    #[command(after_help = examples::REPORT)]
    Report(super::report::ReportArgs),
    /// Show what can be seen on this host, what cannot, and what to do about it.
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Plant a decoy credential, use it over TLS, and show the events: five seconds.
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),
    /// List the credentials on this host.
    #[command(after_help = examples::INVENTORY)]
    Inventory(super::inventory::InventoryArgs),
    /// List the credentials a running agent has seen: who used them, where they went.
    #[command(after_help = examples::CREDENTIALS)]
    Credentials(super::history::CredentialsArgs),
    /// Show all that is known of one credential.
    #[command(after_help = examples::CREDENTIAL)]
    Credential(super::history::CredentialArgs),
    /// Was it used? Yes with the uses, no, or unknown with what could hide a use.
    #[command(after_help = examples::USED)]
    Used(super::history::UsedArgs),
    /// List who used what, by the hour.
    #[command(after_help = examples::USES)]
    Uses(super::history::UsesArgs),
    /// List findings.
    #[command(after_help = examples::FINDINGS)]
    Findings(super::history::FindingsArgs),
    /// Show when the agent ran and what it could not see.
    #[command(after_help = examples::COVERAGE)]
    Coverage(super::history::CoverageArgs),
    /// Draw credentials, programs and destinations.
    #[command(after_help = examples::GRAPH)]
    Graph(super::history::GraphArgs),
    /// Show, accept or forget what is usual for credentials.
    // Options of the agent stand before the action or behind it.
    #[command(after_help = examples::BASELINE, mut_args(everywhere))]
    Baseline(super::history::BaselineArgs),
    /// Plant credentials that open nothing: whoever touches one is found.
    #[command(after_help = examples::DECOY, mut_args(everywhere))]
    Decoy(super::decoy::DecoyArgs),
    /// Make the events of a recording again (`agent --record`, `trace --record`).
    #[command(after_help = examples::REPLAY)]
    Replay(ReplayArgs),
    /// Print the completions of a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands.
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
    /// Print the version.
    Version,
    /// Holds the probes of a keytrail that ends, until it has ended.
    #[command(hide = true)]
    HoldProbes,
    /// Does harmless things that hooks are there to see, when a byte comes on standard input.
    #[command(hide = true)]
    SelfTestActivity { file: Option<PathBuf> },
}

/// Of a command with actions: its options may stand behind the action as well.
fn everywhere(arg: clap::Arg) -> clap::Arg {
    match arg.is_positional() {
        true => arg,
        false => arg.global(true),
    }
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Where to serve the API [default: unix:/run/keytrail/keytrail.sock].
    #[arg(long, value_name = "unix:PATH", env = "KEYTRAIL_ADDRESS")]
    pub listen: Option<Address>,

    /// Where state is kept [default: /var/lib/keytrail].
    #[arg(long, value_name = "DIR", env = "KEYTRAIL_STATE_DIR")]
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
pub struct WatchArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// Begin with the events of the last DURATION (30s, 5m, 2h, 1d), or since a time (2026-11-28T21:03, in the local
    /// zone unless it says otherwise), or with all the agent remembers.
    #[arg(long, value_name = "DURATION|TIME|all", value_parser = parse_since)]
    pub since: Option<When>,

    /// End with the events of this time: a time, or a DURATION before now.
    #[arg(long, value_name = "DURATION|TIME", value_parser = parse_when)]
    pub until: Option<When>,

    /// End with what has happened until now [begins with all the agent remembers, unless --since or --last is given].
    #[arg(long)]
    pub no_follow: bool,

    /// Begin with the last N events that pass the filters.
    #[arg(long, value_name = "N")]
    pub last: Option<u32>,

    /// Stop after so many events.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(flatten)]
    pub filter: FilterArgs,

    /// Begin with the events of the last DURATION (30s, 5m, 2h, 1d), or since a time, or with all the agent remembers.
    #[arg(long, value_name = "DURATION|TIME|all", value_parser = parse_since, default_value = "1h")]
    pub since: Option<When>,
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

    /// Shape of the events on stderr [default: table].
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,

    /// The command and its arguments. Whatever follows CMD is the command's own.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The recording: one observation a line, no secrets in it.
    pub recording: PathBuf,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
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

    /// Not well is also what no setting changes: processes that ran before the agent, libraries that cannot be covered.
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Shape of the events.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into DIR.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use keytrail_model::EventKind;

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
        // A mistyped option of ours is no command: but what stands behind `--` is.
        assert!(Cli::try_parse_from(["keytrail", "trace", "--event", "x", "true"]).is_err());
        assert!(Cli::try_parse_from(["keytrail", "trace", "-x", "--", "true"]).is_err());
        assert!(Cli::try_parse_from(["keytrail", "trace", "--", "-x"]).is_ok());
    }

    #[test]
    fn options_of_a_command_stand_before_its_action_or_behind() {
        let asked = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["keytrail"], words].concat());
            match cli.unwrap_or_else(|e| panic!("{e}")).command {
                Command::Baseline(args) => args.agent.address.to_string(),
                Command::Decoy(args) => args.agent.address.to_string(),
                other => panic!("{other:?}"),
            }
        };
        for command in ["baseline", "decoy"] {
            let plain = asked(&[command, "list"]);
            assert_eq!(plain, crate::config::DEFAULT_LISTEN);
            for words in [
                [command, "--address", "unix:/x", "list"],
                [command, "list", "--address", "unix:/x"],
            ] {
                assert_eq!(asked(&words), "unix:/x", "{words:?}");
            }
        }
    }

    #[test]
    fn kinds_are_checked() {
        let cli = Cli::try_parse_from(["keytrail", "watch", "--kind", "read,sent"]).unwrap();
        let Command::Watch(args) = cli.command else {
            panic!()
        };
        let kinds: Vec<_> = args.filter.kind.iter().map(|c| c.value).collect();
        assert_eq!(
            kinds,
            [EventKind::CredentialRead, EventKind::CredentialSent]
        );
        assert!(Cli::try_parse_from(["keytrail", "watch", "--kind", "sentt"]).is_err());
        assert!(Cli::try_parse_from(["keytrail", "inventory", "diff", "-o", "json"]).is_ok());
    }
}
