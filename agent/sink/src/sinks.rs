//! All sinks and responses of an agent.

use crate::bell::Bell;
use crate::carrier;
use crate::cursor::{Cursor, Cursors};
use crate::format::Reporter;
use crate::progress::{Progress, Redact, ReportGap, lock};
use crate::spec::{CarrierSpec, Filter, Format, ResponseSpec, SinkSpec};
use crate::worker::{State, Worker};
use keytrail_model::EventKind;
use keytrail_proto::v1::{EventId, NodeStatus, SinkStatus};
use keytrail_store::{ReadError, Reader};
use pbjson_types::Timestamp;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

/// What sinks need of the agent.
#[derive(Clone)]
pub struct Setup {
    pub state_dir: PathBuf,
    /// The ledger.
    pub reader: Reader,
    /// Who this agent is.
    pub node: NodeStatus,
    /// Rung when there is something new in the ledger.
    pub bell: Bell,
    pub report_gap: ReportGap,
    pub redact: Redact,
}

/// Why sinks cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("sinks in {}: {why}", .state_dir.display())]
pub struct SinkError {
    state_dir: PathBuf,
    why: StartError,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Cursors(#[from] rusqlite::Error),
    #[error(transparent)]
    Ledger(#[from] ReadError),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// One of them, from outside.
struct Running {
    about: SinkStatus,
    progress: Arc<Mutex<Progress>>,
    thread: JoinHandle<()>,
}

/// The running sinks and responses.
pub struct Sinks {
    bell: Bell,
    reader: Reader,
    running: Vec<Running>,
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sinks")
            .field("count", &self.running.len())
            .finish()
    }
}

struct Start {
    name: String,
    response: bool,
    carrier: CarrierSpec,
    format: Format,
    filter: Filter,
    batch: usize,
}

impl From<&SinkSpec> for Start {
    fn from(spec: &SinkSpec) -> Start {
        Start {
            name: spec.name.clone(),
            response: false,
            carrier: spec.carrier.clone(),
            format: spec.format,
            filter: spec.filter.clone(),
            batch: spec.batch,
        }
    }
}

impl From<&ResponseSpec> for Start {
    fn from(spec: &ResponseSpec) -> Start {
        let mut filter = spec.filter.clone();
        filter.kinds = vec![EventKind::Finding];
        Start {
            name: spec.name.clone(),
            response: true,
            carrier: spec.carrier.clone(),
            format: Format::Json,
            filter,
            batch: spec.at_once,
        }
    }
}

impl Sinks {
    /// Starts a thread for each. A sink that is new begins with what the ledger has, a response with this run: nobody wants
    /// to respond to what was found weeks ago.
    ///
    /// # Errors
    /// Where they are cannot be kept, or a thread cannot be started.
    pub fn start(
        sinks: &[SinkSpec],
        responses: &[ResponseSpec],
        setup: &Setup,
    ) -> Result<Sinks, SinkError> {
        let starts: Vec<Start> = sinks
            .iter()
            .map(Start::from)
            .chain(responses.iter().map(Start::from))
            .collect();
        let mut this = Sinks {
            bell: setup.bell.clone(),
            reader: setup.reader.clone(),
            running: Vec::new(),
        };
        if starts.is_empty() {
            return Ok(this);
        }
        let begun = this.begin(starts, setup);
        begun.map_err(|why| SinkError {
            state_dir: setup.state_dir.clone(),
            why,
        })?;
        Ok(this)
    }

    fn begin(&mut self, starts: Vec<Start>, setup: &Setup) -> Result<(), StartError> {
        let cursors = Arc::new(Cursors::open(&setup.state_dir)?);
        // A response that was taken out and comes back is a new one.
        let kept: Vec<String> = starts.iter().map(Start::key).collect();
        cursors.keep_only("response:", &kept)?;
        for start in starts {
            self.running.push(start.run(setup, &cursors)?);
        }
        Ok(())
    }

    /// How far each is.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.running
            .iter()
            .map(|r| r.status(&self.reader))
            .collect()
    }

    /// Lets them deliver what there is, and ends them; whoever does not come to an end within this time is left alone, and
    /// goes on from where it was after the next start.
    pub fn stop(self, within: Duration) {
        let threads = self.running.into_iter().map(|running| running.thread);
        self.bell.end_all(threads, within);
    }
}

impl Start {
    fn key(&self) -> String {
        let kind = if self.response { "response" } else { "sink" };
        format!("{kind}:{}", self.name)
    }

    fn run(self, setup: &Setup, cursors: &Arc<Cursors>) -> Result<Running, StartError> {
        let key = self.key();
        let title = format!(
            "{} {}",
            if self.response { "response" } else { "sink" },
            self.name
        );
        let known = cursors.load(&key)?;
        let cursor = match known {
            Some(cursor) => reconciled(cursor, &setup.node, &title),
            None => self.beginning(setup)?,
        };
        // So that the next start is not the first again.
        cursors.save(&key, &cursor)?;
        let about = SinkStatus {
            name: self.name.clone(),
            response: self.response,
            carrier: self.carrier.name().into(),
            format: self.format.word().into(),
            target: self.carrier.target(),
            ..SinkStatus::default()
        };
        let reporter = Reporter {
            host: setup.node.host.clone(),
            version: setup.node.version.clone(),
            agent: setup.node.agent.clone(),
        };
        let progress = Arc::new(Mutex::new(Progress {
            cursor,
            ..Progress::default()
        }));
        let worker = Worker {
            title,
            key,
            carrier: carrier::carrier(
                &self.carrier,
                self.format.is_json(),
                &reporter,
                &setup.redact,
            ),
            format: self.format,
            filter: self.filter,
            batch: self.batch.max(1),
            together: self.carrier.together(),
            reporter,
            reader: setup.reader.clone(),
            cursors: cursors.clone(),
            progress: progress.clone(),
            bell: setup.bell.clone(),
            report_gap: setup.report_gap.clone(),
            state: State::default(),
        };
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        Ok(Running {
            about,
            progress,
            thread,
        })
    }

    /// Where one begins that was not there before.
    fn beginning(&self, setup: &Setup) -> Result<Cursor, ReadError> {
        let mut cursor = Cursor {
            agent: setup.node.agent.clone(),
            epoch: setup.node.epoch,
            ..Cursor::default()
        };
        if !self.response {
            let first = setup
                .reader
                .events_after_at_most(&EventId::default(), 1, 1)?;
            if first.upto != (0, 0) {
                (cursor.epoch, cursor.sequence) = (first.upto.0, first.upto.1.saturating_sub(1));
            }
        }
        Ok(cursor)
    }
}

/// A place that this ledger has not: the state of before was lost, wholly or in its last moments.
fn reconciled(mut cursor: Cursor, node: &NodeStatus, title: &str) -> Cursor {
    if cursor.agent != node.agent {
        tracing::warn!(
            sink = title,
            "this agent's state was lost: it begins with the first event of the new"
        );
        cursor.agent.clone_from(&node.agent);
        (cursor.epoch, cursor.sequence) = (0, 0);
    } else if cursor.epoch >= node.epoch {
        (cursor.epoch, cursor.sequence) = (node.epoch, 0);
    }
    cursor
}

impl Running {
    fn status(&self, reader: &Reader) -> SinkStatus {
        let (cursor, mut error, failing) = {
            let progress = lock(&self.progress);
            (
                progress.cursor.clone(),
                progress.error.clone(),
                progress.failing_since_ns,
            )
        };
        if self.thread.is_finished() && error.is_empty() {
            "its thread has ended: see the agent's log".clone_into(&mut error);
        }
        SinkStatus {
            delivered: cursor.delivered,
            behind: reader
                .count_after((cursor.epoch, cursor.sequence))
                .unwrap_or(0),
            left_out: cursor.left_out,
            error,
            failing_since: timestamp(failing),
            last_delivered: timestamp(cursor.last_delivered_ns),
            ..self.about.clone()
        }
    }
}

/// None for 0.
fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp {
        seconds: (ns / 1_000_000_000).cast_signed(),
        nanos: (ns % 1_000_000_000) as i32,
    })
}
