//! `cargo xtask build`: the kernel side's object first, then the agent that embeds it.

mod ebpf;

pub use ebpf::{Log, executable};

use crate::{
    arch::Arch,
    cmd,
    setup::{
        self,
        sysroot::{self, Compiler},
        toolchain::DEBIAN_RUSTC,
    },
};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

#[derive(clap::Args)]
pub struct Args {
    /// Build the agent optimised (the kernel side always is)
    #[arg(long)]
    release: bool,
    /// The machine it is to run on; for another one than this it is cross-built
    #[arg(long, value_enum, default_value_t)]
    target: Arch,
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

/// Where cargo puts what it builds for a machine.
pub fn programs(arch: Arch, profile: Profile) -> PathBuf {
    let dir = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    match arch {
        Arch::X86_64 => cmd::target().join(dir),
        other => cross_dir(other).join(other.target()).join(dir),
    }
}

/// Apart from the other builds: another compiler would take turns with theirs.
fn cross_dir(arch: Arch) -> PathBuf {
    cmd::target().join(format!("cross{}", arch.suffix()))
}

/// Where cargo puts the agent.
pub fn agent_path(arch: Arch, profile: Profile) -> PathBuf {
    programs(arch, profile).join("keytrail")
}

/// `cargo xtask build`
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(groups(args.target), args.no_install)?;
    let agent = all(
        args.target,
        Profile::from_flag(args.release),
        Log::from_flag(args.kernel_log),
    )?;
    cmd::step(format!("built {}", agent.display()));
    Ok(())
}

/// What it takes to build for a machine.
fn groups(arch: Arch) -> &'static [setup::Group] {
    match arch {
        Arch::X86_64 => &[setup::Group::Build],
        Arch::Aarch64 => &[setup::Group::Build, setup::Group::Aarch64],
    }
}

/// Both sides; returns the agent's path.
pub fn all(arch: Arch, profile: Profile, log: Log) -> Result<PathBuf> {
    ebpf::build(arch, log)?;
    let mut cargo = cargo(arch, "build")?;
    cargo.args(["--package", "keytrail"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cmd::run(&mut cargo)?;
    Ok(agent_path(arch, profile))
}

/// A command of cargo that builds for a machine.
///
/// # Errors
/// When no compiler here can.
pub fn cargo(arch: Arch, command: &str) -> Result<Command> {
    let mut cargo = cmd::cargo();
    cargo.arg(command);
    if arch == Arch::default() {
        return Ok(cargo);
    }
    let of_target = |name: &str| {
        format!(
            "CARGO_TARGET_{}_{name}",
            arch.target().to_uppercase().replace('-', "_")
        )
    };
    let gcc = arch.tool("gcc");
    cargo
        .args(["--target", arch.target(), "--target-dir"])
        .arg(cross_dir(arch))
        .env(of_target("LINKER"), &gcc)
        .env(format!("CC_{}", arch.target().replace('-', "_")), &gcc)
        .env("CARGO_PROFILE_DEV_DEBUG", "none")
        .args(soon_built())
        // Whoever names the object of this machine does not mean the other one's.
        .env("KEYTRAIL_BPF_OBJECT", ebpf::object(arch));
    if let Compiler::Debian(sysroot) = sysroot::compiler(arch, false)? {
        cargo
            .env("RUSTC", DEBIAN_RUSTC)
            // With the target named, flags are not for build scripts and macros, which run here.
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!("--sysroot={}", sysroot.display()),
            );
    }
    Ok(cargo)
}

/// What is not released only runs in guests, a few cases long. So dependencies are rather built soon, but for those in which
/// an agent that starts spends its time; this also goes for what runs here to build them.
fn soon_built() -> Vec<String> {
    const OWN: [&str; 4] = [
        "keytrail-sensor",
        "keytrail-ingest",
        "keytrail-payload",
        "keytrail-core",
    ];
    const BUSY: [&str; 10] = [
        "aho-corasick",
        "aya",
        "aya-obj",
        "globset",
        "hashbrown",
        "memchr",
        "object",
        "regex-automata",
        "regex-syntax",
        "ring",
    ];
    let level = |package: &str, level: u8| {
        format!("--config=profile.dev.package.{package}.opt-level={level}")
    };
    let some = OWN.iter().chain(&BUSY).map(|package| level(package, 1));
    some.chain([level("'*'", 0)]).collect()
}

/// The kernel side alone, for cargo commands that build the agent themselves.
pub fn kernel_side(arch: Arch) -> Result<()> {
    ebpf::build(arch, Log::Silent)
}

/// Clippy on it, every warning an error.
pub fn lint_kernel_side(arch: Arch) -> Result<()> {
    ebpf::lint(arch)
}
