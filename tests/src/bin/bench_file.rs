//! Benchmark load: opens, reads and closes one file again and again; prints nanoseconds per round.
//!
//! `bench_file FILE ROUNDS`

use std::{env, fs::File, io::Read as _, process::ExitCode, time::Instant};

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
    let mut run = |rounds: u32| -> std::io::Result<f64> {
        let started = Instant::now();
        for _ in 0..rounds {
            round()?;
        }
        Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(rounds))
    };
    // The first rounds fill the page cache and whatever the agent remembers about this process.
    match run(rounds / 20 + 1).and_then(|_| run(rounds)) {
        Ok(nanoseconds) => {
            println!("{nanoseconds:.1}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_file: {error}");
            ExitCode::FAILURE
        }
    }
}
