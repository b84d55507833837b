//! What holds on a busy host: nothing lost that is not counted, news at once, and memory that does not grow.

use super::subject::{self, Running};
use super::{measure, text};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Sends a second that are tried, the last as fast as the generator goes.
const RATES: [u64; 4] = [10_000, 30_000, 100_000, 0];
/// Bytes of one send.
const BYTES: u64 = 200;
/// Most memory the agent may take under a mixed load, KiB.
const RSS_MAX: u64 = 128 << 10;
/// Percent by which it may grow after the first third of a soak.
const GROWTH: u64 = 10;

/// An agent at work in a directory of its own, and the program that loads it.
struct Bench<'a> {
    running: Running<'a>,
    program: PathBuf,
    socket: PathBuf,
    token: String,
}

/// What an agent counts.
#[derive(Clone, Copy, Debug)]
struct Counters {
    sends: u64,
    lost: u64,
}

impl Bench<'_> {
    fn run(&self, args: &[&str]) -> Result<Vec<f64>> {
        let output = cmd::output(&mut self.command(args))?;
        output
            .split_whitespace()
            .map(|word| {
                word.parse()
                    .with_context(|| format!("{word:?} is no number"))
            })
            .collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("GITHUB_TOKEN", &self.token);
        command
    }

    fn counters(&self) -> Result<Counters> {
        let socket = self.socket.to_string_lossy().into_owned();
        match self.run(&["counters", &socket])?[..] {
            [sends, _, lost] => Ok(Counters {
                sends: sends as u64,
                lost: lost as u64,
            }),
            _ => bail!("the agent's counters are not to be read"),
        }
    }

    /// The counters once nothing is added to them any more.
    fn idle(&self) -> Result<Counters> {
        let mut before = self.counters()?;
        for _ in 0..60 {
            thread::sleep(Duration::from_millis(500));
            let now = self.counters()?;
            if (now.sends, now.lost) == (before.sends, before.lost) {
                return Ok(now);
            }
            before = now;
        }
        bail!("the agent is still busy after half a minute")
    }
}

/// Starts an agent, does `work` and ends it.
fn with_agent(agent: &Path, work: impl FnOnce(&mut Bench<'_>) -> Result<()>) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("keytrail-bench-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let subject = subject::keytrail(agent, &dir);
    let mut bench = Bench {
        running: subject.start(&dir)?,
        program: cmd::target().join("release").join("bench_busy"),
        socket: dir.join("keytrail.sock"),
        token: text::Random(u64::from(std::process::id()) << 20 | 1).github(),
    };
    let done = work(&mut bench);
    let began = Instant::now();
    bench.running.stop()?;
    println!("the agent ended in {} ms", began.elapsed().as_millis());
    fs::remove_dir_all(&dir)?;
    done
}

/// `--loss`: received and reported as lost is what was produced, at every rate.
pub fn loss(agent: &Path, seconds: u64) -> Result<()> {
    with_agent(agent, |bench| {
        println!(
            "{:>10} {:>10} {:>10} {:>8} {:>8}",
            "rate/s", "sent", "received", "lost", "missing"
        );
        for rate in RATES {
            let before = bench.idle()?;
            let words = [seconds, rate, BYTES].map(|number| number.to_string());
            let made = bench.run(&["send", &words[0], &words[1], &words[2]])?;
            let after = bench.idle()?;
            let [sent, _, reached] = made[..] else {
                bail!("the generator said something else")
            };
            let (received, lost) = (after.sends - before.sends, after.lost - before.lost);
            let missing = (sent as i64) - (received as i64) - (lost as i64);
            println!("{reached:>10.0} {sent:>10.0} {received:>10} {lost:>8} {missing:>8}");
        }
        Ok(())
    })
}

/// `--latency`: from a send to the event at a client, with the agent at rest.
pub fn latency(agent: &Path, rounds: u64) -> Result<()> {
    with_agent(agent, |bench| {
        let socket = bench.socket.to_string_lossy().into_owned();
        let times = bench.run(&["latency", &socket, &rounds.to_string()])?;
        let [median, p99, longest] = times[..] else {
            bail!("the generator said something else")
        };
        println!(
            "latency at rest: median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms"
        );
        Ok(())
    })
}

/// `--soak`: a mixed load for so long; memory stays within its bound and does not grow.
pub fn soak(agent: &Path, time: Duration) -> Result<()> {
    with_agent(agent, |bench| {
        let pid = bench.running.pid().context("the agent has no process")?;
        let seconds = time.as_secs().max(3);
        let send = bench
            .command(&["send", &seconds.to_string(), "2000", "200"])
            .stdout(Stdio::null())
            .spawn()?;
        let script = "while :; do /bin/true; cat /etc/passwd /etc/services >/dev/null; \
                      f=$(mktemp); echo \"token = ghp_$(od -An -N18 -tx1 /dev/urandom | tr -d ' \\n')\" >$f; cat $f >/dev/null; rm $f; done";
        let shell = Command::new("sh").args(["-c", script]).spawn()?;
        let load = Load(vec![send, shell]);
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed() < time {
            thread::sleep((time / 60).max(Duration::from_millis(500)));
            bench.running.check()?;
            samples.push(measure::status_kib(pid, "VmRSS")?);
        }
        drop(load);
        let third = samples.len() / 3;
        let most = |of: &[u64]| of.iter().copied().max().unwrap_or(0);
        let (early, late) = (most(&samples[..=third]), most(&samples[third..]));
        println!("memory: {early} KiB at most in the first third, {late} KiB after it");
        if late > RSS_MAX {
            bail!("more than {RSS_MAX} KiB");
        }
        if late > early + early * GROWTH / 100 {
            bail!("it grows");
        }
        Ok(())
    })
}

/// Ended when dropped.
struct Load(Vec<Child>);

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
