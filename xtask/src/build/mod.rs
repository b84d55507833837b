//! `cargo xtask build`: the kernel side's object first, then the agent that embeds it.

mod ebpf;

pub use ebpf::{Log, executable};

use crate::{cmd, setup};
use anyhow::Result;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Build the agent optimised (the kernel side always is)
    #[arg(long)]
    release: bool,
    /// With the kernel side's debug log, for `keytrail agent --kernel-log`
    #[arg(long)]
    kernel_log: bool,
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
}

/// How the agent is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Dependencies optimised, the agent itself not.
    Debug,
    Release,
}

impl Profile {
    pub fn from_flag(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }
}

/// Where cargo puts the agent.
pub fn agent_path(profile: Profile) -> PathBuf {
    let dir = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    cmd::target().join(dir).join("keytrail")
}

/// `cargo xtask build`
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Group::Build], args.no_install)?;
    let agent = all(
        Profile::from_flag(args.release),
        Log::from_flag(args.kernel_log),
    )?;
    cmd::step(format!("built {}", agent.display()));
    Ok(())
}

/// Both sides; returns the agent's path.
pub fn all(profile: Profile, log: Log) -> Result<PathBuf> {
    ebpf::build(log)?;
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--package", "keytrail"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cmd::run(&mut cargo)?;
    Ok(agent_path(profile))
}

/// The kernel side alone, for cargo commands that build the agent themselves.
pub fn kernel_side() -> Result<()> {
    ebpf::build(Log::Silent)
}

/// Clippy on it, every warning an error.
pub fn lint_kernel_side() -> Result<()> {
    ebpf::lint()
}
