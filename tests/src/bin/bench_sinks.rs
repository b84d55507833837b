//! What each sink can do, at a rate that is known: `bench_sinks SENDER RATE AWAY [WAY...]`. SENDER is the example `load` of
//! keytrail-sink, RATE is events a second, AWAY is for how many seconds the receiver is away. A line for each way: its name, events a second, and of the load events, rate, seconds
//! away, what came twice, and seconds until it had caught up.

use keytrail_tests::cases::sinks_rate::{Load, WAYS, speed, survives};
use std::{env, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((load, ways)) = load(&args) else {
        eprintln!(
            "usage: bench_sinks SENDER RATE AWAY [WAY...]; ways are {}",
            WAYS.join(", ")
        );
        return ExitCode::from(2);
    };
    let ways: Vec<&str> = match ways {
        [] => WAYS.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    for way in ways {
        // What fails says so by a panic, which ends all.
        let speed = speed(&load, way);
        eprintln!("{way}: {speed:.0} events/s");
        let survived = survives(&load, way);
        println!(
            "{way}\t{speed:.1}\t{}\t{}\t{}\t{}\t{:.1}",
            survived.events,
            load.rate,
            load.away.as_secs(),
            survived.twice,
            survived.caught_up.as_secs_f64()
        );
    }
    ExitCode::SUCCESS
}

fn load(args: &[String]) -> Option<(Load, &[String])> {
    let [sender, rate, away, ways @ ..] = args else {
        return None;
    };
    let load = Load {
        sender: sender.into(),
        rate: rate.parse().ok()?,
        away: Duration::from_secs(away.parse().ok()?),
    };
    let known = ways.iter().all(|way| WAYS.contains(&way.as_str()));
    known.then_some((load, ways))
}
