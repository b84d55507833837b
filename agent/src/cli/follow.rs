//! Runs a held command under an engine of its own and collects what its processes do. `trace` and `demo` share it.

use super::spawn::{Ended, Held, SpawnError, stand_in_for};
use crate::config::Config;
use crate::engine::{EngineError, EngineHandle, EngineOptions};
use crate::output::{Summary, Writer};
use keytrail_export::{EventFilter, Hub, Item, Next, Subscription};
use keytrail_model::EventKind;
use keytrail_proto::v1::{Event, GetStatusResponse};
use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Events that may wait for a slow terminal or disk.
const QUEUE: usize = 65_536;
const POLL: Duration = Duration::from_secs(1);
/// Processes that obtained credentials and are remembered, to be counted if they outlive the command.
const MAX_MEMBERS: usize = 262_144;

pub(super) type Sinks = Vec<Writer<Box<dyn Write + Send>>>;

/// What to follow and where to say it.
pub(super) struct Follow {
    pub held: Held,
    pub config: Config,
    pub record: Option<PathBuf>,
    pub sinks: Sinks,
}

/// How it went.
pub(super) struct Followed {
    pub ended: Ended,
    pub elapsed: Duration,
    pub summary: Summary,
    pub status: GetStatusResponse,
    /// The first failure to write each sink.
    pub unwritten: Vec<io::Error>,
    /// Processes of the command that obtained credentials and outlive it.
    pub survivors: usize,
}

pub(super) enum FollowError {
    Engine(EngineError),
    Spawn(SpawnError),
    Io(io::Error),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowError::Engine(e) => e.fmt(f),
            FollowError::Spawn(e) => e.fmt(f),
            FollowError::Io(e) => e.fmt(f),
        }
    }
}

/// Attaches, lets the command run to its end, drains.
pub(super) fn follow(follow: Follow) -> Result<Followed, FollowError> {
    let Follow {
        held,
        config,
        record,
        sinks,
    } = follow;
    stand_in_for(&held);
    let root = held.pid();
    let hub = Hub::with_queue(QUEUE);
    let events = hub.subscribe(EventFilter::default());
    let thread = std::thread::Builder::new()
        .name("events".into())
        .spawn(move || events.map(|events| collect(events, Tree::new(root), sinks)))
        .map_err(FollowError::Io)?;
    let options = EngineOptions {
        can_exercise: false,
        state_dir: None,
        config,
        record,
        follow_only: Some(root),
        kernel_log: false,
        config_file: None,
        leave_probes: true,
    };
    let publish = hub.clone();
    // On an error the held child is dropped and ends without having executed anything.
    let engine = EngineHandle::start(options, Box::new(move |event| publish.publish(event)));
    let run = engine.map_err(FollowError::Engine).and_then(|engine| {
        let start = Instant::now();
        let ended = match held.release() {
            Ok(running) => running.wait().map_err(FollowError::Io),
            Err(e) => Err(FollowError::Spawn(e)),
        };
        let elapsed = start.elapsed();
        let status = engine.stop();
        Ok((ended?, elapsed, status))
    });
    hub.close();
    let collected = thread.join().ok().flatten();
    let (ended, elapsed, status) = run?;
    let Collected {
        summary,
        unwritten,
        survivors,
    } = collected
        .ok_or_else(|| FollowError::Io(io::Error::other("the events could not be collected")))?;
    Ok(Followed {
        ended,
        elapsed,
        summary,
        status,
        unwritten,
        survivors,
    })
}

struct Collected {
    summary: Summary,
    unwritten: Vec<io::Error>,
    survivors: usize,
}

fn collect(mut events: Subscription, mut tree: Tree, sinks: Sinks) -> Collected {
    let mut summary = Summary::default();
    let mut unwritten = Vec::new();
    let mut sinks: Vec<_> = sinks.into_iter().map(Some).collect();
    let mut write = |event: &Event, sinks: &mut Vec<Option<Writer<_>>>| {
        for slot in sinks {
            if let Some(Err(e)) = slot.as_mut().map(|w| w.event(event)) {
                // The command goes on; what could not be written is said at the end.
                unwritten.push(e);
                *slot = None;
            }
        }
    };
    loop {
        match events.wait(POLL) {
            Next::Item(Item::Event(event)) => {
                if tree.concerns(&event) {
                    summary.add(&event);
                    write(&event, &mut sinks);
                }
            }
            Next::Item(Item::Missed { count, from, to }) => {
                let gap = Item::gap(count, from, to);
                summary.missed(&gap);
                write(&crate::output::gap_event(gap), &mut sinks);
            }
            Next::Idle => {}
            Next::Closed => break,
        }
    }
    let survivors = tree.survivors();
    Collected {
        summary,
        unwritten,
        survivors,
    }
}

/// A command and those of its processes that events name: the engine, which sees each fork, reports no others.
struct Tree {
    root: u32,
    members: HashSet<String>,
}

impl Tree {
    fn new(root: u32) -> Tree {
        Tree {
            root,
            members: HashSet::new(),
        }
    }

    /// Whether an event is about the command, or about what could not be seen at all.
    fn concerns(&mut self, event: &Event) -> bool {
        let Some(process) = &event.process else {
            return event.kind == EventKind::CoverageGap.number();
        };
        if process.pid == self.root {
            // Before its first exec this is our own child, holding still: what it has is ours, not the command's.
            return !process.key.ends_with(":0");
        }
        if self.members.len() < MAX_MEMBERS {
            self.members.insert(identity(&process.key).to_owned());
        }
        true
    }

    /// Members that still run: same pid, same start time.
    fn survivors(&self) -> usize {
        self.members
            .iter()
            .filter(|identity| is_alive(identity))
            .count()
    }
}

/// Whether "BOOT:PID:START" names a running process. Process keys count start times as /proc/PID/stat does.
fn is_alive(identity: &str) -> bool {
    let mut parts = identity.split(':').skip(1);
    let (Some(pid), Some(start)) = (parts.next(), parts.next()) else {
        return false;
    };
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name, in parentheses, may hold anything; the state is field 3 and the start time field 22 (proc(5)).
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_ascii_whitespace();
    fields.next().is_some_and(|state| state != "Z") && fields.nth(18) == Some(start)
}

/// A process key without its count of execs.
fn identity(key: &str) -> &str {
    key.rsplit_once(':').map_or(key, |(identity, _)| identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::Process;

    fn event(pid: u32, exec: u32) -> Event {
        Event {
            kind: EventKind::CredentialRead.number(),
            process: Some(Process {
                pid,
                key: format!("b:{pid}:1:{exec}"),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_process_lives_by_pid_and_start_time() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .nth(19)
            .unwrap()
            .to_owned();
        let identity = format!("b:{}:{start}", child.id());
        assert!(is_alive(&identity));
        assert!(!is_alive(&format!("b:{}:{start}1", child.id())));
        assert!(!is_alive("b:x:y") && !is_alive(""));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(&identity));
    }

    #[test]
    fn the_held_child_is_not_the_command() {
        let mut tree = Tree::new(100);
        assert!(!tree.concerns(&event(100, 0)));
        assert!(tree.concerns(&event(100, 1)));
        assert!(tree.concerns(&event(140, 1)) && tree.concerns(&event(140, 2)));
        assert_eq!(tree.members.len(), 1);
        let no_process = |kind: EventKind| Event {
            kind: kind.number(),
            ..Default::default()
        };
        assert!(tree.concerns(&no_process(EventKind::CoverageGap)));
        assert!(!tree.concerns(&no_process(EventKind::CredentialCreated)));
    }
}
