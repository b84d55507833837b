//! What a sink can do: how fast it empties a ledger, and that nothing is lost at a given rate while its receiver is away and
//! its agent is killed. The agent here is a ledger and a sink without sensors (`agent/sink/examples/load.rs`): so the rate is known.
//! `bench_sinks` runs it.

mod far;

use super::sinks::Id;
use crate::{
    command::{Background, act},
    machine::{Scratch, patience},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use far::WAYS;

/// How often the agent is killed.
const KILLS: u32 = 20;
/// Before the receiver goes away, and after it came back.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(15);
/// Events of which the speed is taken; the brokers of librdkafka forget what is more.
fn many(way: &str) -> u64 {
    match way {
        "kafka" => 10_000,
        _ => 60_000,
    }
}

/// What is asked of each way.
pub struct Load {
    /// The program that records and delivers.
    pub sender: PathBuf,
    /// Events a second.
    pub rate: u64,
    /// How long the receiver is away.
    pub away: Duration,
}

/// Events a second with nothing in the way.
pub fn speed(load: &Load, way: &str) -> f64 {
    let scratch = Scratch::new();
    let mut far = far::of(way, &scratch);
    far.up();
    let mut sender = start(&load.sender, &scratch, many(way), 0, &far.words());
    let text = finished(&mut sender, &scratch);
    let rate = text.lines().find_map(|line| line.strip_prefix("rate "));
    let rate = rate.unwrap().parse().unwrap();
    compare(way, &numbers(&text), &far.ids());
    rate
}

/// What became of a receiver that was away and an agent that was killed.
pub struct Survived {
    pub events: usize,
    /// What came more than once.
    pub twice: usize,
    /// From the receiver's return until no more than a second's events waited.
    pub caught_up: Duration,
}

/// Kills the agent again and again, and the receiver for a time, where it can be away at all.
///
/// # Panics
/// Something was lost.
pub fn survives(load: &Load, way: &str) -> Survived {
    let scratch = Scratch::new();
    let mut far = far::of(way, &scratch);
    far.up();
    let whole = BEFORE + load.away + AFTER;
    let events = load.rate * whole.as_secs();
    let words = far.words();
    let mut sender = start(&load.sender, &scratch, events, load.rate, &words);
    let began = Instant::now();
    let (mut away, mut back, mut killed) = (false, None, 0);
    let mut caught_up = None;
    while began.elapsed() < whole {
        std::thread::sleep(Duration::from_millis(20));
        if !away && began.elapsed() > BEFORE {
            away = true;
            far.down();
        }
        if back.is_none() && began.elapsed() > BEFORE + load.away {
            far.up();
            back = Some(Instant::now());
        }
        if let Some(back) = &back
            && caught_up.is_none()
            && waiting(&sender) <= load.rate
        {
            caught_up = Some(Instant::elapsed(back));
        }
        if killed < KILLS && began.elapsed() > whole * (killed + 1) / (KILLS + 1) {
            killed += 1;
            sender.end();
            sender = start(&load.sender, &scratch, events, load.rate, &words);
        }
    }
    let back = back.unwrap();
    while waiting(&sender) > load.rate && sender.ended().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let caught_up = caught_up.unwrap_or_else(|| back.elapsed());
    let held = numbers(&finished(&mut sender, &scratch));
    let received = far.ids();
    let once = compare(way, &held, &received);
    Survived {
        events: held.len(),
        twice: received.len() - once,
        caught_up,
    }
}

fn start(
    program: &Path,
    scratch: &Scratch,
    events: u64,
    rate: u64,
    words: &[String],
) -> Background {
    let numbers = [events.to_string(), rate.to_string()];
    let sender = act(program).arg(scratch.join("state")).args(numbers);
    let sender = sender.args(words).limit(3600);
    sender.spawn_reading(&scratch.join("sender.log"))
}

/// What waits, as the sender last said.
fn waiting(sender: &Background) -> u64 {
    let text = String::from_utf8(sender.written()).unwrap();
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    let last = whole.lines().last().and_then(|line| line.split(' ').nth(2));
    last.and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
}

/// All that the sender says, when its receiver has all.
fn finished(sender: &mut Background, scratch: &Scratch) -> String {
    let status = sender.wait(patience(600), "the sender");
    let log = std::fs::read_to_string(scratch.join("sender.log")).unwrap_or_default();
    assert!(status.success(), "{status}: {log}");
    String::from_utf8(sender.written()).unwrap()
}

/// The numbers behind the word that says that all is done.
fn numbers(text: &str) -> Vec<Id> {
    let behind = text.lines().skip_while(|line| *line != "done").skip(1);
    let number = |line: &str| {
        let (epoch, sequence) = line.split_once(':').unwrap();
        (epoch.parse().unwrap(), sequence.parse().unwrap())
    };
    behind.map(number).collect()
}

/// Fails when something was lost, or came that is in no ledger; gives how many there are.
fn compare(way: &str, held: &[Id], received: &[Id]) -> usize {
    let (held, received): (BTreeSet<&Id>, BTreeSet<&Id>) =
        (held.iter().collect(), received.iter().collect());
    let lost = held.difference(&received).count();
    let strange = received.difference(&held).count();
    assert!(!held.is_empty());
    assert!(
        lost == 0 && strange == 0,
        "{way}: {lost} of {} events were lost, and {strange} came that nobody recorded",
        held.len()
    );
    received.len()
}
