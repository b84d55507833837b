//! The only place that wires stages together: one thread drains the kernel's records, digests them, steps the core
//! and hands events on. The ring is the queue; what does not fit is counted in the kernel.

mod coverage;
mod places;
mod replay;
mod run;
mod start;

pub use replay::{ReplayError, replay};

use crate::config::Config;
use keytrail_proto::v1;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

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
}

/// Why an engine could not be started.
#[derive(Debug)]
pub enum EngineError {
    /// Root or a capability is missing.
    Permission(String),
    /// The kernel lacks something without which nothing can be seen.
    Unsupported(String),
    /// The state directory or a file could not be used.
    State(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission(s) | Self::Unsupported(s) | Self::State(s) => f.write_str(s),
        }
    }
}

impl std::error::Error for EngineError {}

/// Receives every event, in order, on the engine's thread: it must not block.
pub type Sink = Box<dyn FnMut(Arc<v1::Event>) + Send>;

enum Command {
    Status(mpsc::Sender<v1::GetStatusResponse>),
}

/// What the handle and the thread share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Grows with every turn of the loop: a watchdog sees that it lives.
    turns: AtomicU64,
    /// Set when the process named by `follow_only` is gone.
    root_gone: AtomicBool,
}

/// A running engine. Dropping it stops it.
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<v1::GetStatusResponse>>,
    node: v1::NodeStatus,
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

    /// What is seen and what is not, now.
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

    /// Turns of the loop so far; it makes several a second as long as it lives.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Whether the thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }

    /// Drains what is there, decides what is pending, and ends the thread.
    pub fn stop(mut self) -> v1::Counters {
        self.shared.stop.store(true, Ordering::Release);
        let status = self
            .thread
            .take()
            .and_then(|t| t.join().ok())
            .unwrap_or_default();
        status.counters.unwrap_or_default()
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
