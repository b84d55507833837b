//! `keytrail agent`: the daemon.

use super::args::AgentArgs;
use super::{exit, fail, privilege};
use crate::answers;
use crate::config::Config;
use crate::engine::{Asker, EngineError, EngineHandle, EngineOptions, Memory};
use crate::output::{Format, Style, Summary, Writer};
use crate::{memory, pods, sinks};
use keytrail_cluster::Watch;
use keytrail_export::{
    Address, AnswersSource, BoundSocket, EventFilter, Hub, Item, Metrics, MetricsServer, Next,
    ServeError, Server, Services, StatusSource, Subscription, TcpServer, measures,
};
use keytrail_proto::v1::GetStatusResponse;
use keytrail_sink::{Bell, Meters, SinkError, Sinks};
use sd_notify::NotifyState;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long the printing thread sleeps between looks whether there is anything to do.
const PRINT_POLL: Duration = Duration::from_secs(1);
/// How long sinks may take for the last events; what is left goes out after the next start.
const SINKS_END: Duration = Duration::from_millis(300);
/// How often the engine's progress is inspected when systemd does not ask for a watchdog.
const DEFAULT_CHECK: Duration = Duration::from_secs(10);

pub(super) fn run(args: &AgentArgs, config: Config) -> u8 {
    let config = with_arguments(config, args);
    let socket = match bind(&config) {
        Ok(socket) => socket,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("grpc")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, exit::FAILED),
    };
    let hub = Hub::new();
    let (quit, quits) = mpsc::channel(1);
    let printer = args
        .print
        .then(|| Printer::start(&hub, args.output.unwrap_or_default(), quit.clone()))
        .flatten();
    let engine = match start_engine(args, &config, &hub) {
        Ok(engine) => engine,
        Err(e) => {
            hub.close();
            if let Some(printer) = printer {
                printer.join();
            }
            return fail(&e, e.status());
        }
    };
    let status: StatusSource = {
        let engine = engine.clone();
        Arc::new(move || engine.status())
    };
    engine.report_counts(&config, &hub, &status);
    let answers = engine.memory().map(answers::source);
    let elsewhere = Elsewhere::start(runtime.handle(), &config, &hub, &engine, &status, &answers);
    let served = Server::start_with(runtime.handle(), socket, hub.clone(), status, answers);
    let (server, mut result) = match served {
        Ok(server) => {
            tracing::info!(address = %server.address(), "serving events; see them with `keytrail watch`");
            (Some(server), exit::OK)
        }
        Err(e) => (None, fail(&e, exit::FAILED)),
    };
    if server.is_some() {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        if let Err(e) = runtime.block_on(until_signalled(&engine, quits, args.print)) {
            result = fail(&format_args!("cannot wait for signals: {e}"), exit::FAILED);
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    // The engine first: what it decides at the end still reaches the clients.
    engine.stop();
    hub.close();
    runtime.block_on(shut_down(server, elsewhere));
    let last = engine.status();
    if let Some(summary) = printer.map(Printer::join) {
        eprintln!(
            "{}",
            summary.footer(
                Some(&last.libraries),
                last.counters.as_ref(),
                &Style::of(io::stderr())
            )
        );
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// What the command line says goes before what the file says.
fn with_arguments(mut config: Config, args: &AgentArgs) -> Config {
    config.process_events |= args.process_events;
    if let Some(dir) = &args.state_dir {
        config.state_dir.clone_from(dir);
    }
    if let Some(address) = &args.listen {
        config.listen = address.to_string();
    }
    config
}

/// The engine, whose events go to `hub`, with what the configuration wants beside it.
fn start_engine(args: &AgentArgs, config: &Config, hub: &Arc<Hub>) -> Result<Engine, StartError> {
    let options = EngineOptions {
        record: args.record.clone(),
        kernel_log: args.kernel_log,
        leave_probes: true,
        can_exercise: true,
        config_file: super::config_file(&args.engine),
        ..EngineOptions::daemon(config.clone())
    };
    let bell = Bell::new();
    let (publish, ring) = (hub.clone(), bell.clone());
    let sink = move |event| {
        publish.publish(event);
        ring.ring();
    };
    let engine = EngineHandle::start(options, Box::new(sink))?;
    Ok(Engine::start(engine, config, bell)?)
}

/// Lets clients take what is queued, at the same time wherever they are.
async fn shut_down(server: Option<Server>, elsewhere: Elsewhere) {
    let here = async {
        if let Some(server) = server {
            server.shutdown().await;
        }
    };
    tokio::join!(here, elsewhere.shutdown());
}

/// The socket, for who may load something into the kernel; or with what exit status this ends.
fn bind(config: &Config) -> Result<BoundSocket, u8> {
    let address = config
        .listen
        .parse::<Address>()
        .map_err(|e| fail(&e, exit::USAGE))?;
    if let Some(sentence) = privilege::missing() {
        return Err(fail(&sentence, exit::NOT_PERMITTED));
    }
    // First of all: a second agent must not load anything into the kernel.
    BoundSocket::bind(&address).map_err(|e| match e {
        ServeError::AlreadyRunning(_) => fail(&e, exit::ALREADY_RUNNING),
        e => fail(&e, exit::FAILED),
    })
}

/// What is served beside the socket, where the configuration says so.
struct Elsewhere {
    tcp: Option<TcpServer>,
    // Held: it ends when it is dropped.
    metrics: Option<MetricsServer>,
}

impl Elsewhere {
    fn start(
        runtime: &Handle,
        config: &Config,
        hub: &Arc<Hub>,
        engine: &Engine,
        status: &StatusSource,
        answers: &Option<AnswersSource>,
    ) -> Elsewhere {
        let services = || Services::new(hub.clone(), status.clone(), answers.clone());
        let metrics = || {
            let engine = engine.clone();
            Metrics {
                hub: hub.clone(),
                status: status.clone(),
                progress: Arc::new(move || engine.progress()),
            }
        };
        Elsewhere {
            tcp: config
                .tcp
                .spec()
                .map(|spec| TcpServer::start(runtime, spec, services())),
            metrics: config
                .metrics_listen
                .map(|listen| MetricsServer::start(runtime, listen, metrics())),
        }
    }

    async fn shutdown(self) {
        drop(self.metrics);
        if let Some(tcp) = self.tcp {
            tcp.shutdown().await;
        }
    }
}

/// Waits for SIGTERM, SIGINT or a word on `quits`, feeding systemd's watchdog while the engine makes progress.
async fn until_signalled(
    engine: &Engine,
    mut quits: mpsc::Receiver<()>,
    interactive: bool,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A daemon does not care for terminals; one that prints on a terminal ends with it.
    let mut hangup = signal(SignalKind::hangup())?;
    let watchdog = sd_notify::watchdog_enabled();
    let mut beat = tokio::time::interval(watchdog.map_or(DEFAULT_CHECK, |limit| limit / 3));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => if interactive { return Ok(()) },
            word = quits.recv() => if word.is_some() { return Ok(()) },
            _ = beat.tick() => {
                let now = engine.progress();
                if progress == Some(now) {
                    tracing::error!("the engine made no progress; the watchdog is not fed");
                } else if watchdog.is_some() {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                progress = Some(now);
                memory::trim();
            }
        }
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Sinks(#[from] SinkError),
}

impl StartError {
    fn status(&self) -> u8 {
        match self {
            StartError::Engine(e) => exit::status_of_start(e),
            StartError::Sinks(_) => exit::FAILED,
        }
    }
}

/// The engine, shared with the server's threads, answering with its last status once stopped.
#[derive(Clone)]
struct Engine {
    /// Whoever feeds the watchdog waits for no one who asks.
    asker: Asker,
    state: Arc<Mutex<State>>,
}

struct State {
    handle: Option<EngineHandle>,
    sinks: Option<Sinks>,
    meters: Option<Meters>,
    pods: Option<Watch>,
    last: GetStatusResponse,
}

impl Engine {
    /// With what the configuration wants beside it.
    fn start(handle: EngineHandle, config: &Config, bell: Bell) -> Result<Engine, SinkError> {
        let sinks = match handle.memory() {
            Some(memory) => sinks::start(config, memory, handle.node(), bell).map(Some),
            None => Ok(None),
        };
        Ok(Engine {
            asker: handle.asker(),
            state: Arc::new(Mutex::new(State {
                sinks: sinks?,
                meters: None,
                pods: pods::start(&config.kubernetes, handle.commands()),
                handle: Some(handle),
                last: GetStatusResponse::default(),
            })),
        })
    }

    /// Lets collectors know what is counted, where the configuration says so. What cannot be started is logged: nobody's
    /// events depend on it.
    fn report_counts(&self, config: &Config, hub: &Arc<Hub>, status: &StatusSource) {
        if config.meters.is_empty() {
            return;
        }
        let mut state = self.lock();
        let Some(node) = state.handle.as_ref().map(EngineHandle::node) else {
            return;
        };
        let (hub, status) = (hub.clone(), status.clone());
        let source = Arc::new(move || measures(&status(), &hub));
        match Meters::start(&config.meters, node, &(source as _)) {
            Ok(meters) => state.meters = Some(meters),
            Err(e) => tracing::error!("metrics cannot be told to collectors: {e}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> GetStatusResponse {
        let runs = self.lock().handle.is_some();
        // Without the lock: it may take its time, and must not be waited for when the agent ends.
        let answer = runs.then(|| self.asker.status());
        let state = self.lock();
        let mut status = answer
            .filter(|_| state.handle.is_some())
            .unwrap_or_else(|| state.last.clone());
        if let Some(sinks) = &state.sinks {
            status.sinks = sinks.status();
        }
        if let Some(meters) = &state.meters {
            status.sinks.extend(meters.status());
        }
        if let Some(pods) = &state.pods {
            status.name_sources = pods::sources(pods);
        }
        status
    }

    fn memory(&self) -> Option<Memory> {
        let state = self.lock();
        state.handle.as_ref().and_then(|h| h.memory().cloned())
    }

    fn progress(&self) -> u64 {
        self.asker.progress()
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.pods = None;
        if let Some(handle) = state.handle.take() {
            state.last = handle.stop();
        }
        // What was decided at the end still goes out, where the receiver is quick.
        if let Some(sinks) = state.sinks.take() {
            sinks.stop(SINKS_END);
        }
        let meters = state.meters.take();
        // They ask for the last status, which wants the lock.
        drop(state);
        if let Some(meters) = meters {
            meters.stop(SINKS_END);
        }
    }
}

/// Prints on a thread of its own: a paused terminal holds up nothing but itself.
struct Printer(JoinHandle<Summary>);

impl Printer {
    fn start(hub: &Arc<Hub>, format: Format, quit: mpsc::Sender<()>) -> Option<Printer> {
        let events = hub.subscribe(EventFilter::default())?;
        let thread = std::thread::Builder::new()
            .name("print".into())
            .spawn(move || print(events, format, &quit));
        thread.map(Printer).ok()
    }

    fn join(self) -> Summary {
        self.0.join().unwrap_or_default()
    }
}

fn print(mut events: Subscription, format: Format, quit: &mpsc::Sender<()>) -> Summary {
    let mut writer = Writer::new(io::stdout(), format, Style::of(io::stdout()));
    let mut summary = Summary::default();
    let mut result = writer.header();
    while result.is_ok() {
        result = match events.wait(PRINT_POLL) {
            Next::Item(Item::Event(event)) => {
                summary.add(&event);
                writer.event(&event)
            }
            Next::Item(Item::Missed { count, from, to }) => {
                let gap = Item::gap(count, from, to);
                summary.missed(&gap);
                writer.gap(gap)
            }
            Next::Idle => Ok(()),
            Next::Closed => return summary,
        };
    }
    // Nobody reads any more (`| head`): what was started to print ends.
    let _ = quit.try_send(());
    summary
}
