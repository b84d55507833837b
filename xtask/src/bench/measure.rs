//! What a run took, as /proc says, and the mark of the lines that report it.

use anyhow::{Context as _, Result};
use std::fs;

/// Begins each line of results.
pub const MARK: &str = "BENCH\t";

/// What one run of a workload took.
#[derive(Clone, Copy)]
pub struct Once {
    /// A round.
    pub nanoseconds: f64,
    pub rounds: u64,
}

/// Nanoseconds that the threads of a process have run: the first field of their schedstat
/// (Documentation/scheduler/sched-stats.rst).
pub fn processor_time(pid: u32) -> Result<u64> {
    let mut total = 0u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ends meanwhile is missing from the sum.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        total += text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(total)
}

/// User and system time of a process in ticks: fields 14 and 15 of proc_pid_stat(5).
pub fn cpu_ticks(pid: u32) -> Result<u64> {
    ticks(&pid.to_string(), 14)
}

/// The same of all that this process has waited for: fields 16 and 17.
pub fn childrens_ticks() -> Result<u64> {
    ticks("self", 16)
}

/// The sum of two fields, counted after the name, which may contain anything.
fn ticks(process: &str, first: usize) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("odd /proc/PID/stat")?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let (user, system) = (field(first), field(first + 1));
    Ok(user.context("no user time")? + system.context("no system time")?)
}

pub fn status_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no {name} in /proc/{pid}/status"))
}
