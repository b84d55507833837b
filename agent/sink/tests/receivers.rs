//! A real ledger and real receivers, which are killed and come back while events come, as are the sinks.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's result")]

use keytrail_model::{EventKind, GapSeen};
use keytrail_proto::v1::{Event, EventId, NodeStatus};
use keytrail_sink::{
    Bell, Body, CarrierSpec, FileSpec, Filter, Format, Setup, SinkSpec, Sinks, SyslogSpec, Url,
    WebhookSpec,
};
use keytrail_store::Ledger;
use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Speaks each way as its standard says, and is strict about it.
const RECEIVER: &str = include_str!("../../../tests/src/server/receiver.py");

struct Receiver {
    args: Vec<String>,
    file: PathBuf,
    running: Option<Child>,
}

impl Receiver {
    fn new(dir: &Path, way: &str, port: &str, key: &Path) -> Receiver {
        let file = dir.join(way);
        fs::write(&file, "").unwrap();
        let args = [way, file.to_str().unwrap(), port, key.to_str().unwrap()];
        Receiver {
            args: args.map(str::to_owned).to_vec(),
            file,
            running: None,
        }
    }

    fn start(&mut self) {
        let mut python = Command::new("python3");
        python.arg("-c").arg(RECEIVER).args(&self.args);
        self.running = Some(python.stdin(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|l| !l.starts_with("BAD")), "{lines:?}");
        lines
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn number(line: &str) -> u64 {
    let event: Event = serde_json::from_str(line).unwrap();
    event.id.unwrap().sequence
}

/// All of these, the first time in order; what came twice came the same.
fn whole(what: &str, last: u64, lines: &[String]) {
    let mut seen: HashMap<u64, &str> = HashMap::new();
    let mut first = Vec::new();
    for line in lines {
        match seen.insert(number(line), line) {
            None => first.push(number(line)),
            Some(before) => assert_eq!(before, line, "{what}: in two forms"),
        }
    }
    let expected: Vec<u64> = (1..=last).collect();
    assert_eq!(first, expected, "{what}");
    println!("{what}: {last} events, {} deliveries", lines.len());
}

#[test]
fn nothing_is_lost_while_receivers_and_sinks_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "a key that both ends have\n").unwrap();
    let (http, tcp) = (free_port(), free_port());
    let mut hook = Receiver::new(dir.path(), "http", &http, &key);
    let mut syslog = Receiver::new(dir.path(), "tcp", &tcp, &key);
    let file = dir.path().join("events.jsonl");
    let sink = |name: &str, carrier| SinkSpec {
        name: name.into(),
        carrier,
        format: Format::Json,
        filter: Filter::default(),
        batch: 20,
    };
    let sinks = [
        sink(
            "file",
            CarrierSpec::File(FileSpec {
                path: file.clone(),
                rotate_bytes: 1 << 30,
                keep: 1,
            }),
        ),
        sink(
            "hook",
            CarrierSpec::Webhook(WebhookSpec {
                url: Url::Text(format!("http://localhost:{http}/path")),
                body: Body::Lines,
                headers_file: None,
                secret_file: Some(key.clone()),
                ca_file: None,
                timeout: Duration::from_secs(5),
            }),
        ),
        sink(
            "syslog",
            CarrierSpec::Syslog(SyslogSpec {
                address: format!("tcp:localhost:{tcp}").parse().unwrap(),
                timeout: Duration::from_secs(5),
            }),
        ),
    ];
    let state = dir.path().join("state");
    let ledger = Arc::new(Ledger::open(&state).unwrap());
    let run = ledger.begin_run("boot").unwrap();
    let bell = Arc::new(Mutex::new(Bell::new()));
    let told: Arc<Mutex<Vec<GapSeen>>> = Arc::default();
    let start = || {
        let new = Bell::new();
        *bell.lock().unwrap() = new.clone();
        let told = told.clone();
        let setup = Setup {
            state_dir: state.clone(),
            reader: ledger.reader(),
            node: NodeStatus {
                agent: run.agent.clone(),
                // A later start of the agent, as far as cursors know.
                epoch: run.epoch + 1,
                ..NodeStatus::default()
            },
            bell: new,
            tell: Arc::new(move |gap| told.lock().unwrap().push(gap)),
            redact: Arc::new(|_| String::new()),
        };
        Sinks::start(&sinks, &[], &setup).unwrap()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (ledger, bell, stop) = (ledger.clone(), bell.clone(), stop.clone());
        let (agent, epoch) = (run.agent.clone(), run.epoch);
        std::thread::spawn(move || {
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) {
                sequence += 1;
                ledger.record(Arc::new(Event {
                    id: Some(EventId {
                        agent: agent.clone(),
                        epoch,
                        sequence,
                        ..EventId::default()
                    }),
                    kind: EventKind::CredentialRead.number(),
                    ..Event::default()
                }));
                bell.lock().unwrap().ring();
                std::thread::sleep(Duration::from_millis(2));
            }
            sequence
        })
    };
    let mut running = start();
    // Nobody is there for longer than what is put up with in silence.
    std::thread::sleep(Duration::from_secs(8));
    let failing = running.status();
    assert!(
        failing[1].error.contains("refused") && failing[1].failing_since.is_some(),
        "{failing:?}"
    );
    assert_eq!(told.lock().unwrap().len(), 2, "one for each that fails");
    for round in 0..10 {
        hook.start();
        syslog.start();
        std::thread::sleep(Duration::from_millis(900));
        if round % 2 == 0 {
            // In the middle of whatever they do.
            running.stop(Duration::ZERO);
            running = start();
        }
        hook.kill();
        syslog.kill();
        std::thread::sleep(Duration::from_millis(100));
    }
    hook.start();
    syslog.start();
    stop.store(true, Ordering::Relaxed);
    let last = load.join().unwrap();
    ledger.flush();
    bell.lock().unwrap().ring();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !running.status().iter().all(|s| s.behind == 0) {
        assert!(Instant::now() < deadline, "{:?}", running.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        running
            .status()
            .iter()
            .all(|s| s.error.is_empty() && s.left_out == 0)
    );
    running.stop(Duration::from_secs(5));
    // The receiver writes what it has read a moment later.
    while syslog.lines().last().map(|l| number(l)) != Some(last) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(last > 1000, "{last}");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    whole("file", last, &lines);
    whole("webhook", last, &hook.lines());
    whole("syslog", last, &syslog.lines());
}
