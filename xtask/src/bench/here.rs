//! The measurement itself, as root, on the machine it runs on.

use super::{
    Row,
    harm::{Served, make_certificate, token},
    measure::{MARK, Once, cpu_ticks, processor_time, status_kib},
    postgres::Postgres,
    stats::median,
    subject,
};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long the agent is watched with nothing to do.
const REST: Duration = Duration::from_secs(30);
/// How long it may be busy with its start, and for how many times five seconds it has to be quiet then.
const IDLE_WITHIN: Duration = Duration::from_secs(300);
const QUIET: u32 = 3;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    agent: PathBuf,
    /// Where the bench_* programs are
    #[arg(long)]
    programs: PathBuf,
    #[arg(long)]
    pairs: u32,
    /// Divides the rounds of each run
    #[arg(long)]
    scale: u32,
    /// Measure auditd too: it marks every later task of the kernel, so only in a guest
    #[arg(long)]
    auditd: bool,
    /// Compare the processor time of the load, not the time on the wall
    #[arg(long)]
    processor: bool,
    #[arg(value_enum)]
    rows: Vec<Row>,
}

/// Measures the rows and prints one line for each subject.
pub fn run(args: &Args) -> Result<()> {
    if !cmd::is_root() {
        bail!("measuring needs root");
    }
    let work = Work::new()?;
    for row in &args.rows {
        if matches!(row, Row::Inventory | Row::Large) {
            let files = row.rounds() / args.scale.max(1);
            super::inventory::run(*row, &args.agent, &work.0, files, args.pairs)?;
            continue;
        }
        if *row == Row::Classify {
            let megabytes = (row.rounds() / args.scale.max(1)).max(1);
            super::classify::run(&args.agent, &work.0, megabytes, args.pairs)?;
            continue;
        }
        let subjects = subject::of(
            *row,
            (&args.agent, &args.programs),
            &work.0,
            args.scale,
            args.auditd,
        );
        if *row == Row::Rest {
            for subject in &subjects {
                rest(subject, &work.0)?;
            }
            continue;
        }
        let load = Load::new(*row, args, &work.0)?;
        for subject in &subjects {
            cmd::step(format!("{}: {}", row.name(), subject.name));
            match pairs(*row, &load, subject, &work.0, args.pairs) {
                Ok(line) => println!("{MARK}{}\t{}\t{line}", row.name(), subject.name),
                // A peer that does not work here is said to; keytrail must.
                Err(error) if subject.name != "keytrail" => {
                    let reason = format!("{error:#}").replace(['\t', '\n'], " ");
                    println!("{MARK}{}\t{}\tfailed\t{reason}", row.name(), subject.name);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A folder for the files of the measurement, gone afterwards.
struct Work(PathBuf);

impl Work {
    /// On a disk: the agent's file probe sits on the page cache, which tmpfs does not use in the same way.
    fn new() -> Result<Self> {
        let dir = PathBuf::from(format!("/var/tmp/keytrail-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A workload.
enum Load {
    Program(Program),
    Served(Served),
    Postgres(Postgres),
}

impl Load {
    fn new(row: Row, args: &Args, work: &Path) -> Result<Self> {
        Ok(match row {
            Row::NginxTls
            | Row::NginxTlsLarge
            | Row::NginxPlain
            | Row::NginxTlsRate
            | Row::NginxTlsLargeRate
            | Row::NginxPlainRate
            | Row::NginxProxy
            | Row::Redis
            | Row::Git => Self::Served(Served::new(row, work)?),
            Row::Postgres => Self::Postgres(Postgres::new(work)?),
            _ => Self::Program(Program::new(row, args, work)?),
        })
    }

    fn once(&self) -> Result<Once> {
        match self {
            Self::Program(program) => Ok(Once {
                nanoseconds: program.once()?,
                rounds: program.rounds.into(),
            }),
            Self::Served(served) => served.once(),
            Self::Postgres(postgres) => postgres.once(),
        }
    }
}

/// A program that says how long it took, with its arguments.
struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    /// Makes it a holder.
    variable: Option<(&'static str, String)>,
    rounds: u32,
    processor: bool,
}

impl Program {
    fn new(row: Row, args: &Args, work: &Path) -> Result<Self> {
        let rounds = (row.rounds() / args.scale.max(1)).max(1);
        let arguments = match row {
            Row::File => {
                let file = work.join("unwatched");
                fs::write(&file, [b'x'; 4096])?;
                vec![file.display().to_string()]
            }
            Row::Tls | Row::Holder => {
                let (certificate, key) = (work.join("cert.pem"), work.join("key.pem"));
                make_certificate(&certificate, &key)?;
                vec![certificate.display().to_string(), key.display().to_string()]
            }
            Row::Compile | Row::CompileHolder => {
                vec![work.join("build").display().to_string()]
            }
            _ => Vec::new(),
        };
        let (name, holds) = match row {
            Row::Holder => ("tls".to_owned(), true),
            Row::CompileHolder => ("compile".to_owned(), true),
            row => (row.name(), false),
        };
        Ok(Self {
            program: args.programs.join(format!("bench_{name}")),
            variable: holds.then(token),
            arguments,
            rounds,
            processor: args.processor,
        })
    }

    /// Nanoseconds per round: the load says those on the wall and those of processors.
    fn once(&self) -> Result<f64> {
        // An environment without anything else that could look like a credential.
        let text = cmd::output(
            std::process::Command::new(&self.program)
                .args(&self.arguments)
                .arg(self.rounds.to_string())
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .envs(self.variable.clone()),
        )?;
        text.split_whitespace()
            .nth(usize::from(self.processor))
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{} printed no number", self.program.display()))
    }
}

/// Runs with and without the subject, each pair in the other order than the one before, so that a machine
/// that gets slower or faster meanwhile favours neither. It goes on running from the end of one pair to the beginning of
/// the next.
fn pairs(
    row: Row,
    load: &Load,
    subject: &subject::Subject,
    work: &Path,
    pairs: u32,
) -> Result<String> {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut delivered: Option<u64> = None;
    let mut own = Vec::new();
    let mut rounds = 0;
    let mut at_work: Option<subject::Running<'_>> = None;
    let mut measured = |last: bool| -> Result<f64> {
        let mut running = match at_work.take() {
            Some(running) => running,
            None => begin(load, subject, work)?,
        };
        let before = running.pid().map(processor_time).transpose()?;
        let once = load.once()?;
        let mut time = once.nanoseconds;
        rounds += once.rounds;
        running.check()?;
        if let (Some(pid), Some(before)) = (running.pid(), before) {
            let spent = processor_time(pid)?.saturating_sub(before);
            let spent = spent as f64 / once.rounds as f64;
            if row.counts_the_subject() {
                time += spent;
            }
            own.push(spent);
        }
        if !last {
            at_work = Some(running);
        } else if let Some(count) = running.stop()? {
            delivered = Some(delivered.unwrap_or(0) + count);
        }
        Ok(time)
    };
    for number in 0..pairs {
        let (off, on) = if number % 2 == 0 {
            let off = load.once()?.nanoseconds;
            (off, measured(number + 1 == pairs)?)
        } else {
            let on = measured(true)?;
            (load.once()?.nanoseconds, on)
        };
        without.push(off);
        with.push(on);
        ratios.push(on / off);
    }
    if delivered == Some(0) {
        bail!("it delivered nothing, so it was not at work");
    }
    let list: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.4}")).collect();
    Ok(format!(
        "{:.1}\t{:.1}\t{}\t{}\t{}\t{}",
        median(&without).unwrap_or_default(),
        median(&with).unwrap_or_default(),
        list.join(","),
        median(&own).map_or_else(|| "-".to_owned(), |time| format!("{time:.1}")),
        delivered.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        rounds,
    ))
}

/// Starts the subject for this load, and waits until that is over.
fn begin<'a>(
    load: &Load,
    subject: &'a subject::Subject,
    work: &Path,
) -> Result<subject::Running<'a>> {
    let running = subject.start(work)?;
    if matches!(load, Load::Served(_) | Load::Postgres(_))
        && let Some(pid) = running.pid()
    {
        // Programs that are seen for the first time are inspected, once a version, and for minutes after its start the
        // agent walks through the file systems at a slow pace: neither is a cost of a request.
        load.once()?;
        wait_idle(pid)?;
    }
    Ok(running)
}

/// Waits until the agent has inspected what was there before it: programs, files. What that took.
fn wait_idle(pid: u32) -> Result<Duration> {
    let started = Instant::now();
    let mut quiet = 0;
    while quiet < QUIET && started.elapsed() < IDLE_WITHIN {
        let before = cpu_ticks(pid)?;
        thread::sleep(Duration::from_secs(5));
        // At most 1% of a core.
        quiet = if cpu_ticks(pid)? - before <= 5 {
            quiet + 1
        } else {
            0
        };
    }
    Ok(started.elapsed())
}

/// The agent with nothing to do.
fn rest(subject: &subject::Subject, work: &Path) -> Result<()> {
    let mut running = subject.start(work)?;
    let pid = running.pid().context("no process to watch")?;
    let idle = wait_idle(pid)?;
    let (before, started) = (cpu_ticks(pid)?, Instant::now());
    thread::sleep(REST);
    let (after, elapsed) = (cpu_ticks(pid)?, started.elapsed());
    let rss = status_kib(pid, "VmRSS:")?;
    let peak = status_kib(pid, "VmHWM:")?;
    running.check()?;
    running.stop()?;
    // USER_HZ is 100 on every architecture Linux has BPF on.
    let share = after.saturating_sub(before) as f64 / 100.0 / elapsed.as_secs_f64() * 100.0;
    println!(
        "{MARK}rest\t{}\t{rss}\t{peak}\t{share:.3}\t{:.0}\t{:.0}",
        subject.name,
        elapsed.as_secs_f64(),
        idle.as_secs_f64()
    );
    Ok(())
}
