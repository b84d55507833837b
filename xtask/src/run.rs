//! `cargo xtask run`: from a fresh machine to live events.

use crate::{arch::Arch, build, cmd, setup};
use anyhow::{Context as _, Result};
use std::os::unix::process::CommandExt as _;

#[derive(clap::Args)]
pub struct Args {
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
    /// Build optimised: starts minutes later from cold, runs faster
    #[arg(long)]
    release: bool,
    /// With the kernel side's debug log; it is printed by `keytrail agent --kernel-log`
    #[arg(long)]
    kernel_log: bool,
    /// Arguments for keytrail
    #[arg(last = true)]
    args: Vec<String>,
}

/// State and socket of an agent started this way. Under /run, where only root can have put anything, and
/// apart from a keytrail that is installed here.
const PRIVATE: &str = "/run/keytrail-dev";

/// `cargo xtask run`
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build], args.no_install)?;
    let agent = build::all(
        Arch::default(),
        build::Profile::from_flag(args.release),
        build::Log::from_flag(args.kernel_log),
    )?;

    // These inspect text they are given, not at the machine.
    let harmless = [
        "classify",
        "help",
        "completions",
        "--help",
        "-h",
        "--version",
        "-V",
    ];
    let as_self = args
        .args
        .first()
        .is_some_and(|word| harmless.contains(&word.as_str()));
    let mut command = if as_self {
        cmd::clean(&agent)
    } else {
        cmd::as_root(&agent)
    };
    if args.args.is_empty() {
        let state = format!("{PRIVATE}/state");
        cmd::run(cmd::as_root("install").args(["-d", "-m", "0700", &state]))?;
        let listen = format!("unix:{PRIVATE}/keytrail.sock");
        command.args([
            "agent",
            "--print",
            "--listen",
            &listen,
            "--state-dir",
            &state,
        ]);
    } else {
        command.args(&args.args);
    }
    // In our place: signals and the exit status are keytrail's own.
    Err(command.exec()).with_context(|| format!("cannot start {}", agent.display()))
}
