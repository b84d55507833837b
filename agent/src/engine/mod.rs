//! The only place that wires stages together: one thread drains the kernel's records, digests them, steps the core
//! and hands events on. The ring is the queue; what does not fit is counted in the kernel.

mod accesses;
mod budgets;
mod checks;
mod coverage;
mod followed;
mod guard;
mod lanes;
mod pipeline;
mod replay;
mod rights;
mod run;
mod start;

pub use replay::{ReplayError, replay};

use crate::config::Config;
use keytrail_findings::StageInput;
use keytrail_model::{GapSeen, PodNames};
use keytrail_proto::v1;
use keytrail_store::{DecoySeen, Reader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Under this name the records of other keytrail processes that were left out are counted.
pub const OWN_LEFT_OUT: &str = "own_left_out";

/// What an engine is started with.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where the fingerprint key and the agent's identity are kept; `None` makes both for this run only.
    pub state_dir: Option<PathBuf>,
    pub config: Config,
    /// Writes every observation to this file, one JSON object a line.
    pub record: Option<PathBuf>,
    /// Only events of this process and its descendants reach the sink; other processes are not read at start.
    pub follow_only: Option<u32>,
    /// Pass the kernel side's debug log on, where it was built with one.
    pub kernel_log: bool,
    /// Where the configuration was read from.
    pub config_file: Option<PathBuf>,
    /// The program of this process is `keytrail`: it may be started to make the hooks fire, as long as the agent runs.
    pub can_exercise: bool,
    /// The process is about to exit when the engine ends: its probes are left to `keytrail hold-probes` then.
    pub leave_probes: bool,
}

impl EngineOptions {
    /// What the daemon starts an engine with: the state directory of the configuration, and all processes.
    #[must_use]
    pub fn daemon(config: Config) -> Self {
        Self {
            state_dir: Some(config.state_dir.clone()),
            config,
            ..Self::default()
        }
    }
}

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Root or a capability is missing.
    #[error("{0}")]
    Permission(String),
    /// The kernel lacks something without which nothing can be seen.
    #[error("{0}")]
    Unsupported(String),
    /// The state directory or a file could not be used.
    #[error("{0}")]
    State(String),
    /// The file of a recording cannot be made.
    #[error("{0}")]
    Recording(String),
}

/// Receives every event, in order, on the engine's thread: it must not block.
pub type Sink = Box<dyn FnMut(Arc<v1::Event>) + Send>;

#[derive(Debug)]
enum Command {
    Status(mpsc::Sender<v1::GetStatusResponse>),
    /// Something for the stage of findings, as it is recorded.
    StageInput(String),
    /// A decoy to be remembered, or not any more.
    Decoy(DecoySeen),
    /// What somebody else could not do, to be reported.
    Gap(Box<GapSeen>),
    /// What a pod is called.
    Pod(Box<PodNames>),
    PodGone(String),
}

/// What the handle and the thread share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Grows with every record and every turn of the loop that took in what there was: a watchdog sees that it lives.
    turns: AtomicU64,
}

/// A running engine. Dropping it stops it.
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<v1::GetStatusResponse>>,
    node: v1::NodeStatus,
    memory: Option<Memory>,
}

/// Tells the loop something, from any thread.
#[derive(Clone, Debug)]
pub struct CommandSender(mpsc::Sender<Command>);

impl CommandSender {
    /// For the stage of findings: what is usual, what is a decoy. An engine that has ended judges nothing any more.
    pub fn stage_input(&self, input: &StageInput) {
        if let Ok(input) = serde_json::to_string(input) {
            let _ = self.0.send(Command::StageInput(input));
        }
    }

    /// For the stream: what was not delivered, or not seen by others than the sensors.
    pub fn gap(&self, gap: GapSeen) {
        let _ = self.0.send(Command::Gap(Box::new(gap)));
    }

    /// For events: what a pod of this node is called.
    pub fn pod(&self, names: Box<PodNames>) {
        let _ = self.0.send(Command::Pod(names));
    }

    /// The pod of this uid has gone.
    pub fn pod_gone(&self, uid: String) {
        let _ = self.0.send(Command::PodGone(uid));
    }

    /// For memory.
    pub fn decoy(&self, seen: DecoySeen) {
        let _ = self.0.send(Command::Decoy(seen));
    }
}

/// Asks the loop something, from any thread; nobody else waits meanwhile.
#[derive(Clone)]
pub struct Asker {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    node: v1::NodeStatus,
}

impl Asker {
    /// What is seen and what is not, now. Waits for the loop, five seconds at most.
    #[must_use]
    pub fn status(&self) -> v1::GetStatusResponse {
        let (tx, rx) = mpsc::channel();
        let asked = self.commands.send(Command::Status(tx)).is_ok();
        let answer = if asked {
            rx.recv_timeout(Duration::from_secs(5)).ok()
        } else {
            None
        };
        answer.unwrap_or_else(|| v1::GetStatusResponse {
            node: Some(self.node.clone()),
            ..Default::default()
        })
    }

    /// Grows with what the loop takes in, and with its turns: it makes several a second as long as it lives. Waits for
    /// nothing.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }
}

/// What this agent remembers, for whoever answers questions.
#[derive(Clone, Debug)]
pub struct Memory {
    pub commands: CommandSender,
    pub reader: Reader,
    /// The run that answers.
    pub epoch: u64,
    /// Name of the fingerprint key.
    pub fingerprint_key: String,
}

impl EngineHandle {
    /// Opens the sensors, reads the running processes, and starts the thread. Returns when both are done.
    ///
    /// # Errors
    /// See [`EngineError`]; its text is a sentence for the user.
    pub fn start(options: EngineOptions, sink: Sink) -> Result<Self, EngineError> {
        start::start(options, sink)
    }

    /// Who this agent is.
    #[must_use]
    pub fn node(&self) -> &v1::NodeStatus {
        &self.node
    }

    /// Tells the loop something.
    #[must_use]
    pub fn commands(&self) -> CommandSender {
        CommandSender(self.commands.clone())
    }

    /// What it remembers; `None` without a state directory.
    #[must_use]
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// Asks it, from any thread.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker {
            shared: self.shared.clone(),
            commands: self.commands.clone(),
            node: self.node.clone(),
        }
    }

    /// Whether the thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Drains what is there, decides what is pending, and ends the thread; what was seen and what was not, at the end.
    pub fn stop(mut self) -> v1::GetStatusResponse {
        self.shared.stop.store(true, Ordering::Release);
        self.thread
            .take()
            .and_then(|t| t.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_feeds_the_watchdog_waits_for_nobody_who_asks() {
        // A loop that takes nothing in: its commands are kept, and not answered.
        let (commands, kept) = mpsc::channel();
        let asker = Asker {
            shared: Arc::default(),
            commands,
            node: v1::NodeStatus::default(),
        };
        let asked = std::thread::spawn({
            let asker = asker.clone();
            move || asker.status()
        });
        let question = kept.recv().expect("it asks");
        asker.shared.turns.fetch_add(3, Ordering::Relaxed);
        assert_eq!(asker.progress(), 3);
        assert!(!asked.is_finished(), "it waits for its answer");
        let Command::Status(answer) = question else {
            panic!("another question")
        };
        let status = v1::GetStatusResponse::default();
        answer.send(status.clone()).expect("it waits still");
        assert_eq!(asked.join().expect("an answer"), status);
    }
}
