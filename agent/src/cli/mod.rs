//! The command line's subcommands. Thin: each wires library parts and speaks plainly about failures.

mod agent;
pub mod args;
pub mod classify;
mod demo;
mod doctor;
pub mod exit;
mod follow;
mod host;
pub mod inventory;
mod kinds;
mod logging;
mod privilege;
mod replay;
pub mod spawn;
mod status;
mod trace;
mod watch;

use crate::config::{Config, ConfigError};
use args::{Cli, Command, EngineArgs};
use clap::Parser as _;
use std::path::Path;
use std::process::ExitCode;

/// Read when `--config` is not given and the file exists.
const DEFAULT_CONFIG: &str = "/etc/keytrail/agent.toml";

/// Runs `keytrail` with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    let config = match &cli.command {
        Command::Agent(a) => Some(load(&a.engine)),
        Command::Trace(a) => Some(load(&a.engine)),
        Command::Doctor(a) => Some(load(&a.engine)),
        Command::Demo(a) => Some(load(&a.engine)),
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
    match cli.command {
        Command::Agent(args) => agent::run(&args, config),
        Command::Watch(args) => watch::run(&args),
        Command::Trace(args) => trace::run(&args, config),
        Command::Classify(args) => classify::run(&args).unwrap_or_else(|e| fail(&e, exit::FAILED)),
        Command::Doctor(args) => doctor::run(&args, config),
        Command::Demo(args) => demo::run(&args, config),
        Command::Inventory(args) => inventory::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Version => {
            println!("keytrail {}", env!("CARGO_PKG_VERSION"));
            exit::OK
        }
    }
}

fn load(args: &EngineArgs) -> Result<Config, ConfigError> {
    let default = Path::new(DEFAULT_CONFIG);
    let mut config = match &args.config {
        Some(file) => Config::load(file)?,
        None if default.exists() => Config::load(default)?,
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
