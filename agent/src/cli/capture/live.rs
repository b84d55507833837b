//! The half that watches: an engine in this process, its events into a file, until what ends it has come.

use super::processes::{self, Hashed};
use super::signals::Signals;
use super::work::{End, Work};
use super::{CaptureArgs, LONGEST, Plan, connections, say};
use crate::cli::spawn::{Ended, Held, SpawnError};
use crate::config::Config;
use crate::engine::{EngineError, EngineHandle, EngineOptions};
use crate::output::{Format, Style, Writer, gap_event, json};
use keytrail_export::{EventFilter, Hub, Item, Next, Subscription};
use keytrail_host::clock::wall_ns;
use keytrail_model::EventKind;
use keytrail_proto::v1::Filter;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Events that may wait for a slow disk.
const QUEUE: usize = 65_536;
/// How often it is looked whether it is over.
const POLL: Duration = Duration::from_millis(50);
/// How often the user hears that it goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// What a command gets to end after the signal that ended the capture.
const COMMAND_END: Duration = Duration::from_secs(2);
/// What hashing executables gets once the watching is over.
const HASH_END: Duration = Duration::from_secs(60);
/// The same when somebody wants the capture to end.
const HASH_END_SOON: Duration = Duration::from_secs(3);

pub const EVENTS: &str = "events.jsonl";
pub const RECORDING: &str = "recording.jsonl";
pub const STATUS: &str = "status.part";
const STATE: &str = "state";

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{EVENTS}: {0}")]
    Events(io::Error),
    #[error("no events can be had")]
    NoEvents,
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Command(#[from] SpawnError),
}

/// Attaches, inspects who runs, lets the command go, watches, and takes the sensors off.
///
/// # Errors
/// See [`WatchError`].
pub fn watch(
    args: &CaptureArgs,
    mut config: Config,
    plan: Plan,
    held: Option<Held>,
    signals: &Signals,
    work: &Work,
    end: &mut End,
) -> Result<(), WatchError> {
    let limit = args.max_size << 20;
    config.state_dir = work.path(STATE);
    config.history_bytes = config.history_bytes.min(limit);
    if args.key.is_some() {
        config.fingerprint_key_file.clone_from(&args.key);
    }
    say(&"attaching the sensors");
    let hub = Hub::with_queue(QUEUE);
    let count = Arc::new(AtomicU64::new(0));
    let file = work.create(EVENTS).map_err(WatchError::Events)?;
    let writer = start_writer(&hub, file, &count)?;
    let options = EngineOptions {
        record: Some(work.path(RECORDING)),
        leave_probes: true,
        ..EngineOptions::daemon(config)
    };
    let publish = hub.clone();
    let started = EngineHandle::start(options, Box::new(move |event| publish.publish(event)));
    let engine = started.inspect_err(|_| hub.close())?;
    let from = wall_ns();
    if let Some(memory) = engine.memory() {
        end.key.clone_from(&memory.fingerprint_key);
    }
    // What goes away first is inspected first.
    let all = processes::list();
    if let Err(e) = connections::write(work, &all) {
        end.error(format!("the connections cannot be written: {e}"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let hashing = hash(all, stop.clone());
    let ended = wait(plan, held, signals, work, limit, &engine, &count);
    let status = engine.stop();
    end.watched = Some((from, wall_ns()));
    hub.close();
    match writer.join() {
        Ok(Ok(())) => {}
        Ok(Err(e)) => end.partial(format!("events could not be written: {e}")),
        Err(_) => end.partial("events could not be written"),
    }
    match json(&status) {
        Ok(text) => {
            if let Err(e) = work.write(STATUS, text.as_bytes()) {
                end.error(format!("{STATUS}: {e}"));
            }
        }
        Err(e) => end.error(format!("the coverage cannot be written: {e}")),
    }
    keep_processes(hashing, &stop, signals, work, end);
    let ended = ended?;
    end.by = ended.by.to_owned();
    end.command = ended.command;
    if let Some(why) = ended.partial {
        end.partial(why);
    }
    Ok(())
}

type Writing = thread::JoinHandle<io::Result<()>>;

fn start_writer(
    hub: &Arc<Hub>,
    file: BufWriter<File>,
    count: &Arc<AtomicU64>,
) -> Result<Writing, WatchError> {
    let events = hub.subscribe(all_kinds()).ok_or(WatchError::NoEvents)?;
    let count = count.clone();
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || write_events(events, file, &count))
        .map_err(WatchError::Thread)
}

/// Ends and beginnings of processes too, where they are asked for: the recording has them.
fn all_kinds() -> EventFilter {
    let filter = Filter {
        kinds: EventKind::ALL.iter().map(|kind| kind.number()).collect(),
        ..Filter::default()
    };
    EventFilter::new(filter).unwrap_or_default()
}

/// Each event is in the file before the next one is waited for: a capture that is killed loses none that was there.
fn write_events(
    mut events: Subscription,
    file: BufWriter<File>,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut writer = Writer::new(file, Format::Json, Style::PLAIN);
    loop {
        match events.wait(Duration::from_secs(1)) {
            Next::Item(Item::Event(event)) => {
                writer.event(&event)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Next::Item(Item::Missed { count, from, to }) => {
                writer.event(&gap_event(Item::gap(count, from, to)))?;
            }
            Next::Idle => {}
            Next::Closed => return writer.into_inner().flush(),
        }
    }
}

struct Over {
    by: &'static str,
    command: Option<String>,
    partial: Option<String>,
}

fn wait(
    plan: Plan,
    held: Option<Held>,
    signals: &Signals,
    work: &Work,
    limit: u64,
    engine: &EngineHandle,
    count: &AtomicU64,
) -> Result<Over, WatchError> {
    let begun = Instant::now();
    let span = match plan {
        Plan::For(span) => span,
        _ => LONGEST,
    };
    let mut command = match held {
        Some(held) => Some(Running::start(held)?),
        None => None,
    };
    match plan {
        Plan::For(span) => say(&format_args!(
            "watching for {} s; Ctrl-C ends it",
            span.as_secs()
        )),
        Plan::Command => say(&"watching while the command runs"),
        _ => say(&"watching until Ctrl-C or SIGTERM"),
    }
    let mut reported = Instant::now();
    let mut partial = None;
    let by = loop {
        if let Some(running) = &mut command
            && running.has_ended()
        {
            break "command";
        }
        if signals.count() > 0 {
            if plan != Plan::UntilSignal {
                partial = Some("a signal ended it before its time".to_owned());
            }
            break "signal";
        }
        if begun.elapsed() >= span {
            if plan == Plan::Command {
                partial = Some("the command ran for longer than a day".to_owned());
            }
            break "time";
        }
        if work.size(&[EVENTS, RECORDING]) > limit {
            partial = Some(format!(
                "events and recording had become longer than {} MiB (--max-size)",
                limit >> 20
            ));
            break "size";
        }
        if !engine.is_alive() {
            partial = Some("the engine ended by itself".to_owned());
            break "engine";
        }
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            let seconds = begun.elapsed().as_secs();
            say(&format_args!(
                "{seconds} s, {} events",
                count.load(Ordering::Relaxed)
            ));
        }
        thread::sleep(POLL);
    };
    let command = command.map(|running| running.finish(by == "signal", signals));
    Ok(Over {
        by,
        command,
        partial,
    })
}

/// A command that is waited for by a thread of its own.
struct Running {
    pid: libc::pid_t,
    ends: mpsc::Receiver<io::Result<Ended>>,
    ended: Option<String>,
}

impl Running {
    fn start(held: Held) -> Result<Running, WatchError> {
        let running = held.release()?;
        let pid = running.pid().cast_signed();
        let (sender, ends) = mpsc::channel();
        thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || drop(sender.send(running.wait())))
            .map_err(WatchError::Thread)?;
        Ok(Running {
            pid,
            ends,
            ended: None,
        })
    }

    fn take(&mut self, result: Result<io::Result<Ended>, ()>) {
        self.ended = Some(match result {
            Ok(Ok(ended)) => ended.to_string(),
            Ok(Err(e)) => format!("not known: {e}"),
            Err(()) => "not known".to_owned(),
        });
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            match self.ends.try_recv() {
                Ok(result) => self.take(Ok(result)),
                Err(mpsc::TryRecvError::Disconnected) => self.take(Err(())),
                Err(mpsc::TryRecvError::Empty) => {}
            }
        }
        self.ended.is_some()
    }

    /// What was sent to us is passed on: whoever sent it knows no other pid. A command that does not end is left alone.
    fn finish(mut self, asked_to_end: bool, signals: &Signals) -> String {
        if asked_to_end && !self.has_ended() {
            // SAFETY: kill touches no memory; the child has not been waited for, so the pid is still its own.
            unsafe { libc::kill(self.pid, signals.last()) };
            if let Ok(result) = self.ends.recv_timeout(COMMAND_END) {
                self.take(Ok(result));
            }
        }
        self.ended
            .unwrap_or_else(|| "still ran when the capture ended".to_owned())
    }
}

/// Hashes executables beside the watching, behind everybody else.
fn hash(all: Vec<processes::Process>, stop: Arc<AtomicBool>) -> mpsc::Receiver<Hashed> {
    let (sender, hashed) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("executables".to_owned())
        .spawn(move || {
            keytrail_host::priority::lower_this_thread();
            // Whoever waited has given up by now, or takes it.
            drop(sender.send(processes::hash(all, &stop)));
        });
    // Without the thread nothing comes, and that is reported.
    drop(spawned);
    hashed
}

fn keep_processes(
    hashing: mpsc::Receiver<Hashed>,
    stop: &AtomicBool,
    signals: &Signals,
    work: &Work,
    end: &mut End,
) {
    let (begun, before) = (Instant::now(), signals.count());
    let most = if before > 0 { HASH_END_SOON } else { HASH_END };
    let hashed = loop {
        match hashing.recv_timeout(POLL) {
            Ok(hashed) => break Some(hashed),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if begun.elapsed() > most || signals.count() > before {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let Some(hashed) = hashed else {
        return end.error("the running processes were not listed");
    };
    if stop.load(Ordering::Relaxed) {
        end.partial("not all executables were hashed");
    }
    end.footprint.executables_hashed = hashed.executables;
    if let Err(e) = processes::write(work, &hashed) {
        end.error(format!("the running processes cannot be written: {e}"));
    }
}
