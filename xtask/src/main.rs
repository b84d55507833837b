//! `cargo xtask`: sets a machine up, builds both sides, runs, tests and measures keytrail.

mod bench;
mod build;
mod cmd;
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
