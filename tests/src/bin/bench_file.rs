//! Benchmark load: opens, reads and closes one file again and again; prints nanoseconds per round, and those of
//! its processor time.
//!
//! `bench_file FILE ROUNDS`

use keytrail_tests::load::{Spent, Whose};
use std::{env, fs::File, io::Read as _, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let file = args.next();
    let rounds = args
        .next()
        .and_then(|text| text.to_str()?.parse::<u32>().ok());
    let (Some(file), Some(rounds)) = (file, rounds.filter(|&rounds| rounds > 0)) else {
        eprintln!("usage: bench_file FILE ROUNDS");
        return ExitCode::from(2);
    };
    let mut buffer = [0; 4096];
    let mut round = || File::open(&file)?.read(&mut buffer);
    let mut run = |rounds: u32| -> std::io::Result<Spent> {
        let started = Spent::now(Whose::Process)?;
        for _ in 0..rounds {
            round()?;
        }
        started.until_now(rounds)
    };
    // The first rounds fill the page cache and whatever the agent remembers about this process.
    match run(rounds / 20 + 1).and_then(|_| run(rounds)) {
        Ok(spent) => {
            println!("{spent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_file: {error}");
            ExitCode::FAILURE
        }
    }
}
