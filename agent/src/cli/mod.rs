//! The command line's subcommands. Thin: each wires library parts and speaks plainly about failures.

mod agent;
pub mod args;
pub mod capture;
pub mod classify;
mod decoy;
mod demo;
mod doctor;
mod examples;
pub mod exit;
mod filter_args;
mod follow;
mod history;
mod host;
pub mod inventory;
mod kinds;
mod logging;
mod privilege;
mod replay;
mod report;
mod resources;
mod shared_args;
mod shell;
pub mod spawn;
mod status;
mod top;
mod trace;
mod verdict;
mod verify;
mod watch;

use crate::config::{Config, ConfigError};
use args::{Cli, Command, EngineArgs};
use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Read when `--config` is not given and the file exists.
const DEFAULT_CONFIG: &str = "/etc/keytrail/agent.toml";

/// Runs `keytrail` with the arguments of this process.
pub fn main() -> ExitCode {
    crate::memory::give_back();
    let matches = without_empty_variables(Cli::command()).get_matches();
    // What clap has matched it has checked against the same declaration.
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    ExitCode::from(run(cli))
}

/// A variable that is set to nothing says nothing, as with NO_COLOR: a unit or a manifest often cannot leave one out.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let says_nothing = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if says_nothing(name) => arg.env(Resettable::Reset),
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

fn run(cli: Cli) -> u8 {
    if matches!(cli.command, Command::HoldProbes) {
        // Whatever comes, or nothing: its end is what is waited for.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        return exit::OK;
    }
    if let Command::SelfTestActivity { file } = &cli.command {
        return keytrail_sensor::self_test_activity(file.as_deref());
    }
    if let Some(sentence) = resources::missing(sees_for_itself(&cli.command)) {
        return fail(&sentence, exit::FAILED);
    }
    let config = match &cli.command {
        Command::Agent(a) => Some(load(&a.engine)),
        Command::Trace(a) => Some(load(&a.engine)),
        Command::Doctor(a) => Some(load(&a.engine)),
        Command::Demo(a) => Some(load(&a.engine)),
        Command::Capture(a) => Some(load(&a.engine)),
        _ => None,
    };
    let config = match config.transpose() {
        Ok(config) => config.unwrap_or_default(),
        Err(e) => return fail(&e, exit::USAGE),
    };
    let fallback = match &cli.command {
        // The kernel side speaks at this level, under the name of its crate.
        Command::Agent(args) if args.kernel_log => "info,keytrail_ebpf=debug",
        Command::Agent(_) => "info",
        _ => "warn",
    };
    if let Err(e) = logging::init(&cli, &config.log, fallback) {
        return fail(&e, exit::USAGE);
    }
    // Before anything is inspected: agents on this host are to know that it is not somebody's use of a credential, and
    // that events which are printed to a file or a pipe are no secrets on their way.
    if !looks_at_this_host(&cli.command) {
        keytrail_host::own::be_a_guest();
    }
    if !matches!(
        cli.command,
        Command::Completions(_)
            | Command::Man(_)
            | Command::HoldProbes
            | Command::SelfTestActivity { .. }
            | Command::Version
    ) {
        keytrail_host::own::announce();
    }
    match cli.command {
        Command::Agent(args) => agent::run(&args, config),
        Command::Watch(args) => watch::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Trace(args) => trace::run(&args, config),
        Command::Capture(args) => capture::run(&args, config),
        Command::Verify(args) => verify::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Classify(args) => classify::run(&args).unwrap_or_else(|e| fail(&e, exit::FAILED)),
        Command::Doctor(args) => doctor::run(&args, config),
        Command::Demo(args) => demo::run(&args, config),
        Command::Inventory(args) => inventory::run(&args),
        Command::Credentials(args) => history::credentials(&args),
        Command::Credential(args) => history::credential(&args),
        Command::Used(args) => history::used(&args),
        Command::Uses(args) => history::uses(&args),
        Command::Findings(args) => history::findings(&args),
        Command::Coverage(args) => history::coverage(&args),
        Command::Graph(args) => history::graph(&args),
        Command::Baseline(args) => history::baseline(&args),
        Command::Decoy(args) => decoy::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::HoldProbes | Command::SelfTestActivity { .. } => exit::OK,
        Command::Version => {
            println!("keytrail {}", env!("CARGO_PKG_VERSION"));
            exit::OK
        }
    }
}

/// Whether a command has sensors of its own.
fn sees_for_itself(command: &Command) -> bool {
    matches!(
        command,
        Command::Agent(_)
            | Command::Trace(_)
            | Command::Doctor(_)
            | Command::Demo(_)
            | Command::Capture(_)
    )
}

/// Whether a command belongs to a host where agents are to be expected; all others leave one without as it was.
fn looks_at_this_host(command: &Command) -> bool {
    matches!(
        command,
        Command::Agent(_)
            | Command::Trace(_)
            | Command::Classify(_)
            | Command::Doctor(_)
            | Command::Demo(_)
            | Command::Inventory(_)
    )
}

/// The configuration file that is read, if there is one.
fn config_file(args: &EngineArgs) -> Option<PathBuf> {
    let default = Path::new(DEFAULT_CONFIG);
    let given = args.config.clone();
    given.or_else(|| default.exists().then(|| default.to_owned()))
}

fn load(args: &EngineArgs) -> Result<Config, ConfigError> {
    let mut config = match config_file(args) {
        Some(file) => Config::load(&file)?,
        None => Config::default(),
    };
    if let Some(tier) = args.tier {
        config.tier = tier;
    }
    Ok(config)
}

/// Says what went wrong, in one line, and gives the exit status back.
fn fail(message: &dyn std::fmt::Display, status: u8) -> u8 {
    eprintln!("keytrail: {message}");
    status
}
