//! Benchmark load: fork, exec and wait for /bin/true again and again; prints nanoseconds per round, and
//! those of its and its children's processor time.
//!
//! `bench_exec ROUNDS`. Each child gets thirty ordinary variables, about what a login shell passes on, because
//! the agent looks through the environment of whatever is executed.

use keytrail_tests::load::{Spent, Whose};
use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
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

fn run(rounds: u32) -> std::io::Result<Spent> {
    let started = Spent::now(Whose::Family)?;
    for _ in 0..rounds {
        round()?;
    }
    started.until_now(rounds)
}

fn main() -> ExitCode {
    let rounds = env::args().nth(1).and_then(|text| text.parse::<u32>().ok());
    let Some(rounds) = rounds.filter(|&rounds| rounds > 0) else {
        eprintln!("usage: bench_exec ROUNDS");
        return ExitCode::from(2);
    };
    match run(rounds / 20 + 1).and_then(|_| run(rounds)) {
        Ok(spent) => {
            println!("{spent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_exec: {error}");
            ExitCode::FAILURE
        }
    }
}
