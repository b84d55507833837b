//! What the agent counts of itself goes to collectors of OpenTelemetry: nothing waits in the ledger for it, and nothing is kept
//! for later. Each has a thread, which asks for the numbers of the moment, sends them, and sleeps; when that fails, the next time
//! has newer numbers, in which what was counted meanwhile is.

use crate::backoff::Backoff;
use crate::bell::Bell;
use crate::carrier::{Collector, Failure};
use crate::format::Reporter;
use crate::format::otlp;
use crate::format::otlp::metrics::{Since, request};
use crate::spec::{CarrierSpec, MeterSpec, Temporality};
use keytrail_host::clock::wall_ns;
use keytrail_model::Measure;
use keytrail_proto::v1::{NodeStatus, SinkStatus};
use pbjson_types::Timestamp;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Before the first: what starts beside the agent has begun by then.
const FIRST: Duration = Duration::from_secs(1);
/// How long it fails until that is logged.
const OUTAGE: Duration = Duration::from_secs(5);

/// Gives the numbers of this moment. It may wait for the engine, and keeps nobody else waiting.
pub type Measures = Arc<dyn Fn() -> Vec<Measure> + Send + Sync>;

/// Those that run.
pub struct Meters {
    bell: Bell,
    running: Vec<Running>,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters")
            .field("count", &self.running.len())
            .finish()
    }
}

struct Running {
    about: SinkStatus,
    state: Arc<Mutex<State>>,
    thread: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    sent: u64,
    last_ns: u64,
    error: String,
    /// Wall clock, ns; 0 when it does not fail.
    failing_ns: u64,
}

/// Whole even if somebody panicked meanwhile: each field stands for itself.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meters {
    /// Starts a thread for each.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        specs: &[MeterSpec],
        node: &NodeStatus,
        measures: &Measures,
    ) -> io::Result<Meters> {
        let mut this = Meters {
            bell: Bell::new(),
            running: Vec::new(),
        };
        let reporter = Reporter {
            host: node.host.clone(),
            version: node.version.clone(),
            agent: node.agent.clone(),
        };
        for spec in specs {
            let state = Arc::new(Mutex::new(State::default()));
            let meter = Meter {
                title: spec.name.clone(),
                collector: Collector::new(spec.collector.clone(), &reporter.version),
                every: spec.every,
                temporality: spec.temporality,
                reporter: reporter.clone(),
                measures: measures.clone(),
                started_ns: nanoseconds(node.started.as_ref()),
                state: state.clone(),
                bell: this.bell.clone(),
                backoff: Backoff::default(),
                outage: None,
            };
            let thread = std::thread::Builder::new()
                .name("meter".into())
                .spawn(move || meter.run())?;
            let carrier = CarrierSpec::Otlp(spec.collector.clone());
            this.running.push(Running {
                about: SinkStatus {
                    name: spec.name.clone(),
                    carrier: carrier.name().into(),
                    format: "metrics".into(),
                    target: carrier.target(),
                    ..SinkStatus::default()
                },
                state,
                thread,
            });
        }
        Ok(this)
    }

    /// How it stands with each.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.running.iter().map(Running::status).collect()
    }

    /// Lets them tell the last numbers, and ends them; whoever does not come to an end within this time is left alone.
    pub fn stop(self, within: Duration) {
        let threads = self.running.into_iter().map(|running| running.thread);
        self.bell.end_all(threads, within);
    }
}

impl Running {
    fn status(&self) -> SinkStatus {
        let mut state = lock(&self.state).clone();
        if self.thread.is_finished() && state.error.is_empty() {
            "its thread has ended: see the agent's log".clone_into(&mut state.error);
        }
        SinkStatus {
            delivered: state.sent,
            error: state.error,
            failing_since: timestamp(state.failing_ns),
            last_delivered: timestamp(state.last_ns),
            ..self.about.clone()
        }
    }
}

struct Meter {
    title: String,
    collector: Collector,
    every: Duration,
    temporality: Temporality,
    reporter: Reporter,
    measures: Measures,
    started_ns: u64,
    state: Arc<Mutex<State>>,
    bell: Bell,
    backoff: Backoff,
    /// Since when it fails, and whether that was logged.
    outage: Option<(Instant, bool)>,
}

impl Meter {
    fn run(mut self) {
        let first = (self.measures)();
        let mut since = Since::start(self.started_ns, wall_ns(), &first);
        let mut wait = FIRST.min(self.every);
        loop {
            self.bell.rest(wait);
            let ending = self.bell.is_ending();
            let began = Instant::now();
            let rest = self.step(&mut since);
            if ending {
                return;
            }
            // From beginning to beginning, however long a request took.
            wait = rest.unwrap_or_else(|| self.every.saturating_sub(began.elapsed()));
        }
    }

    /// Asks, sends, and says how long to wait when that is not as long as ever.
    fn step(&mut self, since: &mut Since) -> Option<Duration> {
        let measures = (self.measures)();
        let now = wall_ns();
        let body = request(&measures, since, self.temporality, now, &self.reporter);
        match self.collector.export(EXPORT, &body) {
            Ok(answer) => {
                self.backoff.succeeded();
                // What was taken in part must not be sent again, so neither come its deltas.
                if self.temporality == Temporality::Delta {
                    since.go_on(now, &measures);
                }
                match otlp::rejected(&answer) {
                    0 => self.succeeded(),
                    n => self.failed(&format!("the collector rejected {n} points")),
                }
                None
            }
            Err(Failure::Later { why, after, .. }) => {
                self.failed(&why);
                Some(self.backoff.failed(after).min(self.every))
            }
            Err(Failure::Refused(why)) => {
                self.failed(&format!("the receiver refused them: {why}"));
                None
            }
        }
    }

    fn succeeded(&mut self) {
        if let Some((_, true)) = self.outage.take() {
            tracing::info!(sink = self.title, "metrics are taken again");
        }
        let mut state = lock(&self.state);
        state.sent += 1;
        state.last_ns = wall_ns();
        state.error.clear();
        state.failing_ns = 0;
    }

    fn failed(&mut self, why: &str) {
        let (since, logged) = self.outage.get_or_insert_with(|| (Instant::now(), false));
        if since.elapsed() >= OUTAGE && !*logged {
            *logged = true;
            tracing::warn!(sink = self.title, error = why, "metrics cannot be reported");
        }
        let mut state = lock(&self.state);
        why.clone_into(&mut state.error);
        if state.failing_ns == 0 {
            state.failing_ns = wall_ns();
        }
    }
}

fn nanoseconds(time: Option<&Timestamp>) -> u64 {
    time.map_or(0, |time| {
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.nanos).unwrap_or(0)
    })
}

/// None for 0.
fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp {
        seconds: (ns / 1_000_000_000).cast_signed(),
        nanos: (ns % 1_000_000_000) as i32,
    })
}

#[cfg(test)]
mod tests;
