//! From options to a running thread.

use super::guard::Guard;
use super::pipeline::Pipeline;
use super::pipeline::inventory::Inventory;
use super::pipeline::programs::Programs;
use super::run::Runner;
use super::{
    CommandSender, EngineError, EngineHandle, EngineOptions, Memory, Shared, Sink, coverage, rights,
};
use crate::config;
use keytrail_host::clock::{boot_ns, both, wall_ns};
use keytrail_ingest::{Digest, DigestOptions, Excluded, Files, InspectionOptions, Registry};
use keytrail_model::{AgentStart, GapReason, GapSeen, Observation, Pid, Signal, Tier};
use keytrail_payload::{Matcher, Streams};
use keytrail_proto::v1;
use keytrail_secret::{Classifier, Fingerprinter};
use keytrail_sensor::{Checks, Limits, Sensor, SensorError, SensorOptions};
use keytrail_store::{Ledger, Retention, RunInfo};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long the start waits for the watch set.
const WATCH_SET: Duration = Duration::from_millis(1_500);
/// The same for TLS libraries: who is seen to send before they are found is `lineage` at most.
const LIBRARIES: Duration = Duration::from_millis(500);

pub(super) fn start(options: EngineOptions, sink: Sink) -> Result<EngineHandle, EngineError> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .map_err(|e| {
            EngineError::Unsupported(format!(
                "/proc/sys/kernel/random/boot_id cannot be read: {e}"
            ))
        })?;
    // Rules take a tenth of a second to compile: meanwhile the kernel side is loaded.
    let rules = options.config.rules_dir.clone();
    let classifier = thread::Builder::new()
        .name("rules".to_owned())
        .spawn(move || Classifier::with_rules_dir(&rules))
        .map_err(|e| EngineError::State(format!("a thread cannot be started: {e}")))?;
    // The sensor first: what happens while the rest is set up waits in the ring.
    let sensor = Sensor::open(&sensor_options(&options)).map_err(sensor_error)?;
    let fingerprinter = fingerprinter(&options)?;
    let fingerprint_key = fingerprinter.key_name();
    let (ledger, run) = identity(&options, &boot_id)?;
    let (classifier, bad_rules) = classifier
        .join()
        .map_err(|_| EngineError::State("the rules could not be compiled".to_owned()))?;
    for bad in &bad_rules {
        tracing::error!("{bad}");
    }
    let digest = digest(&options, classifier, fingerprinter)?;
    let reader = ledger.as_ref().map(Ledger::reader);
    let mut pipeline = new_pipeline(&options, digest, ledger, sink)?;
    let node = v1::NodeStatus {
        agent: run.agent.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        boot: boot_id.clone(),
        epoch: run.epoch,
        started: Some(keytrail_export::convert::timestamp(wall_ns())),
    };
    let epoch = node.epoch;
    let first = first_observation(&options, run, &node);
    pipeline.step(&Observation::Start(first));
    pipeline.begin_findings(&options.config.findings_dir);
    let shared = Arc::new(Shared::default());
    let (commands, receiver) = mpsc::channel();
    let mut runner = Runner::new(sensor, pipeline, &shared, receiver, &node);
    runner.leave_probes = options.leave_probes;
    runner.guard = Guard::new(options.config_file.clone());
    if !options.config.exclude.is_empty() {
        let gap = coverage::excluded(&options.config.exclude, boot_ns());
        runner.pipeline.gap(gap);
    }
    prepare(&mut runner, options.follow_only);
    let thread = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || runner.run())
        .map_err(|e| EngineError::State(format!("the engine's thread cannot be started: {e}")))?;
    Ok(EngineHandle {
        shared,
        memory: reader.map(|reader| Memory {
            commands: CommandSender(commands.clone()),
            reader,
            epoch,
            fingerprint_key,
        }),
        commands,
        thread: Some(thread),
        node,
    })
}

/// Where secret bytes end, with its rules and what it watches.
fn digest(
    options: &EngineOptions,
    classifier: Classifier,
    fingerprinter: Fingerprinter,
) -> Result<Digest, EngineError> {
    let mut files = Files::new(patterns(&classifier, &options.config));
    files.add_own(std::env::var("HOME").ok());
    let matcher = Matcher::new(&random()?);
    Digest::new(DigestOptions {
        classifier: Arc::new(classifier),
        registry: Registry::new(fingerprinter, matcher),
        streams: Streams::new(),
        files,
        inspection: inspection_options(&options.config)?,
    })
    .map_err(|e| EngineError::State(format!("files cannot be inspected: {e}")))
}

/// What a record passes, with where it ends up.
fn new_pipeline(
    options: &EngineOptions,
    digest: Digest,
    ledger: Option<Ledger>,
    sink: Sink,
) -> Result<Pipeline, EngineError> {
    let sink = match &ledger {
        Some(ledger) => {
            ledger.publish(sink);
            None
        }
        None => Some(sink),
    };
    let mut pipeline = Pipeline::new(digest, sink, options.follow_only);
    if ledger.is_some() {
        pipeline.programs = Programs::start();
    }
    pipeline.ledger = ledger;
    if options.follow_only.is_none() {
        pipeline.inventory = Inventory::open(options.state_dir.as_deref());
    }
    if let Some(path) = &options.record {
        pipeline.recording = Some(BufWriter::new(create_private(path)?));
    }
    Ok(pipeline)
}

/// Gaps known from the start, watched files, and the processes that run already.
fn prepare(runner: &mut Runner, follow_only: Option<u32>) {
    let now = boot_ns();
    for gap in coverage::initial(runner.sensor.status(), now) {
        runner.pipeline.gap(gap);
    }
    if let Some(why) = keytrail_ingest::files_refused() {
        let refused = coverage::openat2(&why);
        runner.pipeline.gap(coverage::files_closed(&refused, now));
        runner.sensor.refused(Signal::FileRead, refused);
    }
    for right in rights::lacking() {
        let refused = right.refused();
        tracing::warn!("{}", refused.reason);
        runner.pipeline.gap(right.gap(now));
        runner.sensor.refused(right.signal(), refused);
    }
    // Who holds what comes first: until then the kernel side takes running holders for clean.
    match follow_only {
        None => backfill(runner),
        Some(root) => {
            // The chain above the command is read when its first record comes; the command itself is known by pid.
            if let Some(start) = keytrail_ingest::start_of(root)
                && let Some(followed) = &mut runner.pipeline.followed
            {
                followed.insert(Pid { tgid: root, start });
            }
        }
    }
    runner.sensor.search_libraries();
    if follow_only.is_none() {
        runner.pipeline.start_background();
        runner.sensor.search_ahead();
        for tgid in keytrail_ingest::list_pids() {
            runner.pipeline.digest.files.add_process(tgid);
        }
    }
    // The engine's thread has a reader of its own.
    keytrail_host::areas::rest();
    // What was read of processes is not to lie there while the rest is found.
    keytrail_payload::scrub_stack();
    find_watched(runner);
    runner.pipeline.apply(&mut runner.sensor);
    runner.report_libraries(now);
    keytrail_payload::scrub_stack();
}

/// Finds what is watched, and TLS. What takes longer is found while the agent runs: until then a first read of a watched
/// file is reported like that of any other. Records are taken in meanwhile: a host that is busy fills a ring in a moment.
fn find_watched(runner: &mut Runner) {
    let begin = Instant::now();
    loop {
        let digest = &runner.pipeline.digest;
        let watching = digest.files.is_dirty() || !digest.is_idle();
        let spent = begin.elapsed();
        if !(watching && spent < WATCH_SET || runner.sensor.is_searching() && spent < LIBRARIES) {
            return;
        }
        if watching {
            runner.pipeline.rescan();
        }
        runner.pause();
        runner.pipeline.answers();
        runner.drain();
    }
}

/// What is watched: the places of the rules and those of the configuration.
fn patterns(classifier: &Classifier, config: &config::Config) -> Vec<String> {
    let of_rules = classifier.watch_globs().into_iter().map(|g| g.glob);
    let mut patterns: Vec<String> = of_rules.chain(config.watch.iter().cloned()).collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

fn inspection_options(config: &config::Config) -> Result<InspectionOptions, EngineError> {
    let excluded = Excluded::new(&config.exclude)
        .map_err(|e| EngineError::State(format!("`exclude` in the configuration: {e}")))?;
    Ok(InspectionOptions {
        timeout_ns: u64::from(config.inspect_timeout_ms) * 1_000_000,
        file_bytes: config.inspect_bytes,
        user_share: u64::from(config.inspect_share) * 10,
        excluded,
    })
}

/// The processes that run already, as /proc shows them.
fn backfill(runner: &mut Runner) {
    let me = std::process::id();
    let mut seen = 0;
    for tgid in keytrail_ingest::list_pids() {
        if tgid == me {
            continue;
        }
        let snapshot = runner.pipeline.digest.snapshot(tgid, boot_ns());
        // Gone by now, or there and telling nothing of itself.
        if snapshot.is_none()
            && keytrail_ingest::start_of(tgid).is_none()
            && Path::new(&format!("/proc/{tgid}")).exists()
        {
            runner.pipeline.gap(unknown_process(tgid));
        }
        if let Some(snapshot) = snapshot {
            let unreadable = snapshot
                .env_unreadable
                .clone()
                .map(|why| (snapshot.at.pid, why));
            runner.pipeline.snapshot(snapshot);
            seen += 1;
            if let Some((pid, why)) = unreadable {
                runner.pipeline.gap(coverage::unreadable_environment(
                    pid,
                    &why,
                    rights::may_trace(),
                    boot_ns(),
                ));
            }
        }
    }
    runner.pipeline.apply(&mut runner.sensor);
    runner.pipeline.gap(before_the_agent(seen));
}

/// Processes that had done what they did before the agent looked.
fn before_the_agent(count: u64) -> GapSeen {
    GapSeen {
        detail: format!(
            "{count} processes ran before the agent; what they read and sent until now was not seen"
        ),
        remedy: "start the agent early in the boot".to_owned(),
        count,
        signal: Some(Signal::Exec),
        ..GapSeen::new(GapReason::Backfill, boot_ns())
    }
}

fn unknown_process(tgid: u32) -> GapSeen {
    GapSeen {
        detail: format!(
            "/proc/{tgid}/stat cannot be read: what process {tgid} was started with is not known"
        ),
        remedy: "run the agent where /proc is the host's own, mounted without hidepid".to_owned(),
        count: 1,
        signal: Some(Signal::Exec),
        ..GapSeen::new(GapReason::EnvironmentUnreadable, boot_ns())
    }
}

fn first_observation(options: &EngineOptions, run: RunInfo, node: &v1::NodeStatus) -> AgentStart {
    let (boot_ns, wall_ns) = both();
    AgentStart {
        agent: run.agent,
        boot_id: node.boot.clone(),
        epoch: run.epoch,
        boot_ns,
        wall_ns,
        host: node.host.clone(),
        previous_alive_wall_ns: run.previous_alive_wall_ns,
        previous_clean: run.previous_clean,
        rebooted: run.rebooted,
        process_events: options.config.process_events,
        followed: options.follow_only,
    }
}

fn retention(config: &config::Config) -> Retention {
    Retention {
        events: config.retain_events,
        days: config.retain_days,
        bytes: config.history_bytes,
        history_days: config.history_days,
    }
}

fn limits(capture: &config::CaptureConfig) -> Limits {
    Limits {
        answers: capture.answer_bytes,
        keys: capture.key_server_bytes,
        process: capture.process_bytes,
        connection: capture.connection_bytes,
        writes: capture.write_bytes,
    }
}

fn sensor_options(options: &EngineOptions) -> SensorOptions {
    SensorOptions {
        ring_bytes: options.config.ring_bytes,
        tier: match options.config.tier {
            config::Tier::Auto => None,
            config::Tier::Base => Some(Tier::Base),
            config::Tier::Fentry => Some(Tier::Fentry),
        },
        debug_log: options.kernel_log,
        system_calls: options.config.system_calls,
        limits: limits(&options.config.capture),
        checks: Checks {
            every: Duration::from_secs(options.config.self_check_seconds.into()),
            can_exercise: options.can_exercise,
            file: options.state_dir.as_ref().map(|dir| dir.join("self-test")),
        },
        ..SensorOptions::default()
    }
}

fn sensor_error(error: SensorError) -> EngineError {
    match error {
        SensorError::Privilege => EngineError::Permission(error.to_string()),
        _ => EngineError::Unsupported(error.to_string()),
    }
}

fn fingerprinter(options: &EngineOptions) -> Result<Fingerprinter, EngineError> {
    let bad =
        |path: &Path, e: std::io::Error| EngineError::State(format!("{}: {e}", path.display()));
    if let Some(path) = &options.config.fingerprint_key_file {
        return Fingerprinter::load(path).map_err(|e| bad(path, e));
    }
    match &options.state_dir {
        Some(dir) => {
            let path = dir.join("fingerprint.key");
            private_dir(dir)?;
            Fingerprinter::load_or_create(&path).map_err(|e| bad(&path, e))
        }
        None => {
            Fingerprinter::random().map_err(|e| EngineError::State(format!("no random bytes: {e}")))
        }
    }
}

/// The state directory, made for its owner only.
fn private_dir(dir: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| {
            EngineError::State(format!(
                "the state directory {} cannot be made: {e}",
                dir.display()
            ))
        })?;
    keytrail_store::own(dir).map_err(|e| EngineError::State(e.to_string()))
}

fn create_private(path: &Path) -> Result<File, EngineError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| EngineError::Recording(format!("cannot record to {}: {e}", path.display())))
}

fn identity(
    options: &EngineOptions,
    boot_id: &str,
) -> Result<(Option<Ledger>, RunInfo), EngineError> {
    let Some(dir) = &options.state_dir else {
        let bytes = random()?;
        let agent = bytes[..16].iter().map(|b| format!("{b:02x}")).collect();
        return Ok((
            None,
            RunInfo {
                agent,
                epoch: 1,
                previous_alive_wall_ns: None,
                previous_clean: true,
                rebooted: false,
            },
        ));
    };
    let state = |e: &dyn std::fmt::Display| {
        EngineError::State(format!("the ledger in {}: {e}", dir.display()))
    };
    let ledger = Ledger::open_with(dir, retention(&options.config)).map_err(|e| state(&e))?;
    let run = ledger.begin_run(boot_id).map_err(|e| state(&e))?;
    Ok((Some(ledger), run))
}

fn random() -> Result<[u8; 32], EngineError> {
    let mut key = [0u8; 32];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| EngineError::State("the kernel gives no random bytes".to_owned()))?;
    Ok(key)
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
