//! Benchmark load: fork, exec and wait for /bin/true again and again; prints nanoseconds per round.
//!
//! `bench_exec ROUNDS`. Each child gets thirty ordinary variables, about what a login shell passes on, because
//! the agent looks through the environment of whatever is executed.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

fn round() -> std::io::Result<()> {
    let mut command = Command::new("/bin/true");
    command.env_clear().stdin(Stdio::null());
    for number in 0..30 {
        command.env(
            format!("BENCH_SETTING_{number}"),
            "/usr/share/some/ordinary/directory:and-another",
        );
    }
    // SAFETY: the hook does nothing, so there is nothing in it that could not be done between fork and exec.
    // Its presence makes the standard library fork rather than vfork, as shells do.
    unsafe { command.pre_exec(|| Ok(())) };
    let status = command.status()?;
    if !status.success() {
        return Err(std::io::Error::other(format!("/bin/true: {status}")));
    }
    Ok(())
}

fn run(rounds: u32) -> std::io::Result<f64> {
    let started = Instant::now();
    for _ in 0..rounds {
        round()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(rounds))
}

fn main() -> ExitCode {
    let rounds = env::args().nth(1).and_then(|text| text.parse::<u32>().ok());
    let Some(rounds) = rounds.filter(|&rounds| rounds > 0) else {
        eprintln!("usage: bench_exec ROUNDS");
        return ExitCode::from(2);
    };
    match run(rounds / 20 + 1).and_then(|_| run(rounds)) {
        Ok(nanoseconds) => {
            println!("{nanoseconds:.1}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_exec: {error}");
            ExitCode::FAILURE
        }
    }
}
