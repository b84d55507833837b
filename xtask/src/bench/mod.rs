//! `cargo xtask bench`: what keytrail costs a workload, beside what peers cost the same workload.
//!
//! The measuring part is this very program, started again as root here or in a booted kernel
//! (`bench-here`), so that both places measure in the same way.

mod busy;
mod classify;
mod harm;
mod here;
mod inventory;
mod measure;
mod postgres;
mod report;
mod row;
mod section;
mod sinks;
mod stats;
mod subject;
mod text;

use crate::{arch::Arch, build, cmd, setup, vm};
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

pub use here::{Args as HereArgs, run as run_here};
use row::Row;

#[derive(clap::Args)]
pub struct Args {
    /// In a booted kernel rather than on this machine: there the agent has other hooks
    #[arg(long)]
    vm: bool,
    /// Kernel to boot
    #[arg(long, default_value = "6.12", requires = "vm")]
    kernel: String,
    /// Pairs of runs with and without, for each row and subject
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
    pairs: u32,
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
    /// Instead: a mixed load for so long (15m, 40s); the agent's memory stays within its bound and does not grow
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["vm", "rows"])]
    soak: Option<Duration>,
    /// Instead: sends whose number is known, at several rates; what was received, lost and neither
    #[arg(long, conflicts_with_all = ["vm", "rows"])]
    loss: bool,
    /// Instead: from a send to its event at a client, with the agent at rest
    #[arg(long, conflicts_with_all = ["vm", "rows"])]
    latency: bool,
    /// Instead: how fast sinks empty a ledger, and that nothing is lost at 2,000 events a second while the receiver is away for
    /// a minute and the agent is killed 20 times; all ways, or those that are named (nats,kafka)
    #[arg(long, value_name = "WAY", num_args = 0.., value_delimiter = ',', conflicts_with_all = ["vm", "rows", "soak", "loss", "latency"])]
    sinks: Option<Vec<String>>,
    /// Only these rows; the others of docs/BENCHMARKS.md stay as they are
    #[arg(value_enum)]
    rows: Vec<Row>,
}

/// Seconds at each rate, and sends that are timed.
const LOSS_SECONDS: u64 = 5;
const LATENCY_ROUNDS: u64 = 200;

/// Emulation is that many times slower, so that rounds are divided by it.
const VM_SCALE: u32 = 10;

/// `cargo xtask bench`
pub fn run(args: &Args) -> Result<()> {
    if let Some(ways) = &args.sinks {
        return sinks::run(ways, args.no_install);
    }
    if let Some(row) = args.rows.iter().find(|row| args.vm && !row.in_guests()) {
        bail!("{} is measured on this machine only", row.name());
    }
    let mut groups = vec![setup::Group::Build, setup::Group::Bench];
    if args.vm {
        groups.push(setup::Group::Vm);
    }
    setup::ensure(&groups, args.no_install)?;
    let agent = build::all(Arch::default(), build::Profile::Release, build::Log::Silent)?;
    cmd::run(cmd::cargo().args([
        "build",
        "--release",
        "--package",
        "keytrail-tests",
        "--bins",
    ]))?;

    if args.soak.is_some() || args.loss || args.latency {
        return on_a_busy_host(args, &agent);
    }
    let mut rows = args.rows.clone();
    if rows.is_empty() {
        rows = Row::all().to_vec();
        rows.retain(|row| !args.vm || row.in_guests());
    }
    let measured = |rows: &[Row]| {
        let mut lines = Vec::new();
        let place = if args.vm {
            in_vm(args, &agent, rows, &mut lines)?
        } else {
            on_host(args, &agent, rows, &mut lines)?
        };
        let results = report::Results::parse(&lines)?;
        print!("{}", results.section(&report::stamp(args.pairs)).text());
        report::write(&results, &place, args.vm, args.pairs)
    };
    if args.vm {
        // One boot for all.
        return measured(&rows);
    }
    // All take an hour: what is measured is written, whatever becomes of the rest.
    rows.chunks(1).try_for_each(measured)
}

/// What holds under load, rather than what it costs others.
fn on_a_busy_host(args: &Args, agent: &Path) -> Result<()> {
    if !cmd::is_root() {
        bail!("these need root: sudo -E cargo xtask bench ...");
    }
    if args.loss {
        busy::loss(agent, LOSS_SECONDS)?;
    }
    if args.latency {
        busy::latency(agent, LATENCY_ROUNDS)?;
    }
    args.soak.map_or(Ok(()), |time| busy::soak(agent, time))
}

fn time(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number
        .parse()
        .map_err(|_| anyhow!("a number and s, m or h: 15m"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("a number and s, m or h: 15m"),
    };
    Ok(Duration::from_secs(number * seconds))
}

/// The programs that make the load.
fn programs() -> [PathBuf; 3] {
    ["bench_file", "bench_exec", "bench_tls"].map(|name| cmd::target().join("release").join(name))
}

fn keep(line: &str, lines: &mut Vec<String>) {
    if line.starts_with(measure::MARK) {
        lines.push(line.to_owned());
    } else {
        eprintln!("{line}");
    }
}

/// Measures on this machine; returns what the report says of it.
fn on_host(args: &Args, agent: &Path, rows: &[Row], lines: &mut Vec<String>) -> Result<String> {
    let ourselves = env::current_exe().context("cannot find this program")?;
    let mut command = cmd::as_root(ourselves);
    command.arg("bench-here").arg("--agent").arg(agent);
    command.arg("--programs").arg(cmd::target().join("release"));
    command.args(["--pairs", &args.pairs.to_string(), "--scale", "1"]);
    command.args(rows.iter().map(|row| row.name()));
    if !cmd::lines(&mut command, |line| keep(line, lines))? {
        bail!("the measurement failed: see above");
    }
    Ok(format!(
        "this machine's kernel {}",
        cmd::output(cmd::clean("uname").arg("-r"))?.trim()
    ))
}

/// Measures in a guest.
fn in_vm(args: &Args, agent: &Path, rows: &[Row], lines: &mut Vec<String>) -> Result<String> {
    let ourselves = env::current_exe().context("cannot find this program")?;
    let mut files = vec![
        vm::GuestFile {
            host: agent.to_owned(),
            guest: "/usr/local/bin/keytrail".into(),
        },
        vm::GuestFile {
            host: ourselves,
            guest: "/job/xtask".into(),
        },
    ];
    for program in programs() {
        files.push(vm::into_job(&program)?);
    }
    let mut command: Vec<String> = [
        "/job/xtask",
        "bench-here",
        "--agent",
        "/usr/local/bin/keytrail",
        "--programs",
    ]
    .map(str::to_owned)
    .to_vec();
    command.extend(["/job".into(), "--pairs".into(), args.pairs.to_string()]);
    command.extend(["--scale".into(), VM_SCALE.to_string(), "--auditd".into()]);
    command.push("--processor".into());
    command.extend(rows.iter().map(|row| row.name().to_owned()));
    let kernel = vm::Kernel::of(Arch::default(), &args.kernel);
    let job = vm::Job {
        kernel: &kernel,
        flavour: vm::Flavour::Bench,
        init: vm::Init::Script,
        command: &command,
        files,
        collect: None,
        timeout: Duration::from_secs(3 * 3600),
        nice: false,
    };
    let outcome = vm::run(&job, |line| keep(line, lines))?;
    if outcome.status != 0 {
        bail!("the measurement failed in the guest: see above");
    }
    Ok(format!(
        "kernel {} booted under QEMU's software emulation",
        outcome.release
    ))
}
