//! `keytrail trace`.

use crate::{
    command::{Act, Done, act},
    events::{Ask as _, Event, parse_lines},
    machine::{Scratch, Stopwatch, keytrail},
};
use std::{fs, path::PathBuf, time::Duration};

/// A command traced to its end.
pub struct Traced {
    pub done: Done,
    /// Events of `--events FILE`.
    pub events: Vec<Event>,
    pub file: PathBuf,
}

/// `keytrail trace --events FILE -- ...`; the command's words, its environment and stdin are added by the caller.
pub fn command(scratch: &Scratch, options: &[&str]) -> Act {
    trace(scratch)
        .arg("--events")
        .arg(file(scratch))
        .args(options)
        .arg("--")
}

/// The same without a file: events are shown.
pub fn shown(scratch: &Scratch, options: &[&str]) -> Act {
    trace(scratch).args(options).arg("--")
}

fn trace(scratch: &Scratch) -> Act {
    let config = scratch.join("trace.toml");
    let home = scratch.make("home");
    fs::write(
        &config,
        format!(
            "state_dir = \"{}\"\nwatch = [\"{}/.aws/credentials\"]\n",
            scratch.join("trace-state").display(),
            home.display()
        ),
    )
    .unwrap();
    act(keytrail())
        .arg("trace")
        .arg("--config")
        .arg(config)
        .env("HOME", home)
}

/// Where [`command`] has the events written.
pub fn file(scratch: &Scratch) -> PathBuf {
    scratch.join("trace.jsonl")
}

/// Runs what [`command`] began.
pub fn run(scratch: &Scratch, act: Act) -> Traced {
    collect(scratch, |act| act.run(), act)
}

/// The same, for a test that wants all reported: where a gap says that there was no time to inspect something, which is honest
/// beside others, it is done again, three times at most.
pub fn run_in_time(scratch: &Scratch, act: impl Fn() -> Act) -> Traced {
    for _ in 0..2 {
        let traced = run(scratch, act());
        if !traced.events.iter().any(out_of_time) {
            return traced;
        }
        eprintln!("once more: there was no time to inspect something");
    }
    run(scratch, act())
}

/// Whether an event says that there was no time to inspect something.
#[must_use]
pub fn out_of_time(event: &Event) -> bool {
    event.reason() == "inspection_timeout"
}

/// As [`run`], with how long it took (see [`Stopwatch`]).
pub fn run_timed(scratch: &Scratch, act: Act) -> (Traced, Duration) {
    let mut watch = Stopwatch::start();
    let traced = collect(
        scratch,
        |act| act.run_watched(|pid| watch.inspect(pid)),
        act,
    );
    (traced, watch.took())
}

fn collect(scratch: &Scratch, run: impl FnOnce(Act) -> Done, act: Act) -> Traced {
    let file = file(scratch);
    let _ = fs::remove_file(&file);
    let done = run(act);
    let text = fs::read_to_string(&file).unwrap_or_default();
    Traced {
        done,
        events: parse_lines(&text),
        file,
    }
}
