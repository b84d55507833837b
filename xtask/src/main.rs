//! `cargo xtask`: sets a machine up, builds both sides, runs, tests and measures keytrail.

mod arch;
mod bench;
mod build;
mod cmd;
#[cfg(feature = "dist")]
mod dist;
#[cfg(feature = "eval")]
mod eval;
mod run;
mod setup;
mod test;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets up, builds, runs, tests and measures keytrail"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine (says what and why)
    Setup(setup::Args),
    /// Build the kernel side and the agent
    Build(build::Args),
    /// Set up, build and start keytrail; without arguments: the agent, printing events live
    Run(run::Args),
    /// Run the tests: unit, host (this machine's kernel), vm (booted kernels), or all
    Test(test::Args),
    /// Boot a Debian kernel and run a command in it
    Vm(vm::Args),
    /// Measure what keytrail costs a workload, beside peers; writes docs/BENCHMARKS.md
    Bench(bench::Args),
    /// Measure how well credentials are recognised; writes docs/EVALUATION.md
    #[cfg(feature = "eval")]
    Eval(eval::EvalArgs),
    /// Measure how well credentials are recognised; writes docs/EVALUATION.md
    #[cfg(not(feature = "eval"))]
    #[command(disable_help_flag = true)]
    Eval {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Make the release files in target/dist: static binary, .deb, .rpm, OCI image, SBOM, checksums
    #[cfg(feature = "dist")]
    Dist(dist::Args),
    /// Make the release files in target/dist: static binary, .deb, .rpm, OCI image, SBOM, checksums
    #[cfg(not(feature = "dist"))]
    #[command(disable_help_flag = true)]
    Dist {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// The measuring part of `bench`, as root, here or in a guest
    #[command(hide = true)]
    BenchHere(bench::HereArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Run(args) => run::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::command(&args),
        Task::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "eval")]
        Task::Eval(args) => eval::run(args).map(|()| ExitCode::SUCCESS),
        #[cfg(not(feature = "eval"))]
        Task::Eval { args } => Err(with_feature("eval", &args)),
        #[cfg(feature = "dist")]
        Task::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(not(feature = "dist"))]
        Task::Dist { args } => Err(with_feature("dist", &args)),
        Task::BenchHere(args) => bench::run_here(&args).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again with the command of that name compiled in, whose dependencies nothing else here needs.
/// Returns only when that fails.
#[cfg(not(all(feature = "eval", feature = "dist")))]
fn with_feature(name: &str, args: &[std::ffi::OsString]) -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let mut cargo = cmd::cargo();
    // Relative paths among the arguments are relative to where the user is, not to the checkout.
    if let Ok(here) = std::env::current_dir() {
        cargo.current_dir(here);
    }
    let manifest = cmd::root().join("xtask/Cargo.toml");
    cargo
        .args(["run", "--quiet", "--features", name, "--manifest-path"])
        .arg(manifest);
    cargo.args(["--", name]).args(args);
    anyhow::Error::new(cargo.exec()).context("cannot start cargo")
}
