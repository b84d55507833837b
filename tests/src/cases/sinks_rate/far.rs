//! The receivers: real ones where there are any.

use super::super::{
    sinks::{Id, Receiver, free_port},
    sinks_far::{self, Collector, Store, rotel},
    sinks_syslog::Rsyslog,
    tls_programs::installed,
};
use crate::{
    command::{Background, act},
    machine::{Scratch, patience, wait_for},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// By their names on the command line.
pub const WAYS: [&str; 10] = [
    "file",
    "syslog-tcp",
    "syslog-tls",
    "webhook",
    "otlp-http",
    "otlp-grpc",
    "nats",
    "kafka",
    "s3",
    "lake",
];

const STREAM: &str = include_str!("../../server/stream.py");
const KAFKA: &str = include_str!("../../server/kafka.py");
/// Reads the numbers of events in a lake.
const LAKE: &str = r#"
import duckdb, sys
rows = duckdb.connect().execute(f"SELECT metadata.uid FROM read_parquet('{sys.argv[1]}/**/*.parquet')").fetchall()
print("\n".join(row[0] for row in rows))
"#;

/// Who takes events.
pub(super) trait Far {
    /// What the sender is told.
    fn words(&self) -> Vec<String>;
    fn up(&mut self);
    /// Some cannot be away without losing what they have: what is in their memory is all there is.
    fn down(&mut self) {}
    /// What it has, as often as it came.
    fn ids(&mut self) -> Vec<Id>;
}

pub(super) fn of(way: &str, scratch: &Scratch) -> Box<dyn Far> {
    match way {
        "file" => Box::new(Lines::file(scratch)),
        "syslog-tcp" => Box::new(Lines::syslog(scratch)),
        "webhook" => Box::new(Lines::webhook(scratch)),
        "syslog-tls" => Box::new(Tls(Rsyslog::new(scratch.make("rsyslog")), None)),
        "otlp-http" => Box::new(Otlp::new(scratch, false)),
        "otlp-grpc" => Box::new(Otlp::new(scratch, true)),
        "nats" => Box::new(Nats::new(scratch)),
        "kafka" => Box::new(Kafka::new(scratch)),
        "s3" => Box::new(Bucket::new(scratch, false)),
        "lake" => Box::new(Bucket::new(scratch, true)),
        other => panic!("{other} is none of {WAYS:?}"),
    }
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// Of a line of canonical JSON: `"id":{..., "epoch":"1","sequence":"2"}` is its first member with such names.
fn of_json(line: &str) -> Id {
    let number = |name: &str| {
        let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("{line}"));
        let end = rest.find('"').unwrap_or(0);
        rest[..end]
            .parse()
            .unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    (number(r#""epoch":""#), number(r#""sequence":""#))
}

/// Of `AGENT:EPOCH:SEQUENCE`, up to a blank.
fn of_uid(line: &str) -> Id {
    let uid = line.split_whitespace().next().unwrap_or_default();
    let mut numbers = uid.split(':').skip(1).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whole lines of JSON, in a file that the sink or a receiver writes.
struct Lines {
    dir: PathBuf,
    receiver: Option<Receiver>,
    words: Vec<String>,
}

impl Lines {
    fn file(scratch: &Scratch) -> Lines {
        let dir = scratch.make("files");
        let path = dir.join("events.jsonl");
        Lines {
            words: words(&["file", &path.display().to_string()]),
            dir,
            receiver: None,
        }
    }

    fn syslog(scratch: &Scratch) -> Lines {
        let port = free_port();
        Lines {
            dir: scratch.make("files"),
            receiver: Some(Receiver::new(scratch, "tcp", &port, &[])),
            words: words(&["syslog", &format!("tcp:localhost:{port}")]),
        }
    }

    fn webhook(scratch: &Scratch) -> Lines {
        let port = free_port();
        let key = scratch.join("hmac.key");
        fs::write(&key, "a key that only both ends have\n").unwrap();
        let url = format!("http://localhost:{port}/x");
        Lines {
            dir: scratch.make("files"),
            words: words(&["webhook", &url, &key.display().to_string()]),
            receiver: Some(Receiver::new(
                scratch,
                "http",
                &port,
                // It never refuses.
                &[&key, Path::new("1000000000")],
            )),
        }
    }
}

impl Far for Lines {
    fn words(&self) -> Vec<String> {
        self.words.clone()
    }

    fn up(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.start();
        }
    }

    fn down(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.kill();
        }
    }

    fn ids(&mut self) -> Vec<Id> {
        if let Some(receiver) = &self.receiver {
            return receiver.lines().iter().map(|line| of_json(line)).collect();
        }
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            ids.extend(text.lines().map(of_json));
        }
        ids
    }
}

/// Syslog by TLS to rsyslog, which may end in peace: what it was sent and did not read comes again, what it has in its queue
/// it writes.
struct Tls(Rsyslog, Option<Background>);

impl Far for Tls {
    fn words(&self) -> Vec<String> {
        let ca = self.0.dir.join("ca.crt").display().to_string();
        words(&["syslog", &format!("tls:localhost:{}", self.0.port), &ca])
    }

    fn up(&mut self) {
        self.1 = Some(self.0.start());
    }

    fn down(&mut self) {
        if let Some(mut running) = self.1.take() {
            running.signal(libc::SIGTERM);
            running.wait(patience(60), "rsyslog");
        }
    }

    fn ids(&mut self) -> Vec<Id> {
        self.down();
        let text = fs::read_to_string(self.0.dir.join("received")).unwrap();
        let ours = text.lines().filter(|line| line.starts_with("keytrail "));
        ours.map(of_json).collect()
    }
}

/// Log records by HTTP to a collector that may be killed, or by gRPC by way of Rotel, which ends in peace: what it took is in its
/// memory.
struct Otlp {
    behind: Collector,
    between: Option<Background>,
    ports: Option<(String, String)>,
    dir: Scratch,
}

impl Otlp {
    fn new(scratch: &Scratch, grpc: bool) -> Otlp {
        let mut behind = Collector::new(scratch, "collector", "1000000");
        behind.only_ids();
        if grpc {
            behind.start();
        }
        Otlp {
            behind,
            between: None,
            ports: grpc.then(|| (free_port(), free_port())),
            dir: Scratch::new(),
        }
    }
}

impl Far for Otlp {
    fn words(&self) -> Vec<String> {
        match &self.ports {
            Some((_, grpc)) => words(&["otlp", &format!("http://localhost:{grpc}"), "grpc"]),
            None => {
                let url = format!("http://localhost:{}/v1/logs", self.behind.port);
                words(&["otlp", &url, "http/protobuf"])
            }
        }
    }

    fn up(&mut self) {
        match &self.ports {
            Some((http, grpc)) => {
                self.between = Some(rotel(&self.dir, http, grpc, &self.behind.port));
            }
            None => self.behind.start(),
        }
    }

    fn down(&mut self) {
        match self.between.take() {
            Some(mut rotel) => {
                rotel.signal(libc::SIGTERM);
                rotel.wait(patience(60), "rotel");
            }
            None => self.behind.kill(),
        }
    }

    fn ids(&mut self) -> Vec<Id> {
        self.down();
        self.behind
            .lines()
            .iter()
            .map(|line| of_uid(line))
            .collect()
    }
}

/// A stream of JetStream by TLS and a key.
struct Nats {
    dir: PathBuf,
    port: String,
    running: Option<Background>,
    made: bool,
}

impl Nats {
    fn new(scratch: &Scratch) -> Nats {
        let dir = scratch.make("nats");
        sinks_far::keys(&dir);
        let port = free_port();
        // As it is by default: otherwise each message is a write to the disk of its own, and the disk is what is measured.
        sinks_far::nats_config(&dir, &port, "sync_interval: 2m");
        Nats {
            dir,
            port,
            running: None,
            made: false,
        }
    }

    fn url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    fn client(&self, what: &str) -> Option<String> {
        let client = act(installed("python/bin/python3")).args(["-c", STREAM, what]);
        let done = client
            .arg(self.url())
            .arg(self.dir.join("ca.crt"))
            .limit(600)
            .run();
        done.status.success().then(|| done.stdout_text())
    }
}

impl Far for Nats {
    fn words(&self) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        words(&[
            "nats",
            &self.url(),
            &file("ca.crt"),
            &file("user.seed"),
            "keytrail.events",
        ])
    }

    fn up(&mut self) {
        let server = act(installed("python/bin/nats-server")).arg("-c");
        let server = server.arg(self.dir.join("server.conf")).limit(3600);
        self.running = Some(server.spawn());
        if !self.made {
            self.made = true;
            wait_for("the stream", patience(30), || self.client("make"));
        }
    }

    fn down(&mut self) {
        self.running = None;
    }

    fn ids(&mut self) -> Vec<Id> {
        let text = self.client("ids").expect("the stream can be read");
        text.lines().map(of_uid).collect()
    }
}

/// The brokers of librdkafka, which have everything in memory and not for long: somebody reads along.
struct Kafka {
    brokers: String,
    keys: PathBuf,
    _cluster: Background,
    _follower: Background,
}

impl Kafka {
    fn new(scratch: &Scratch) -> Kafka {
        let file = scratch.join("brokers");
        let python = || act(installed("python/bin/python3")).args(["-c", KAFKA]);
        let cluster = python().arg("serve").arg(&file).limit(3600).spawn();
        let brokers = wait_for("the brokers", patience(30), || {
            fs::read_to_string(&file).ok()
        });
        fs::write(scratch.join("brokers.make"), "").unwrap();
        // The topic is made within moments.
        std::thread::sleep(patience(1));
        let keys = scratch.join("keys");
        let follower = python().args(["follow", &brokers]).arg(&keys);
        let follower = follower.limit(3600).spawn();
        wait_for("who reads along", patience(30), || {
            keys.exists().then_some(())
        });
        Kafka {
            brokers,
            keys,
            _cluster: cluster,
            _follower: follower,
        }
    }
}

impl Far for Kafka {
    fn words(&self) -> Vec<String> {
        words(&["kafka", &self.brokers, "keytrail.events"])
    }

    fn up(&mut self) {}

    fn ids(&mut self) -> Vec<Id> {
        let size = || fs::metadata(&self.keys).unwrap().len();
        let mut before = 0;
        while before != size() {
            before = size();
            std::thread::sleep(patience(2));
        }
        let text = fs::read_to_string(&self.keys).unwrap();
        text.lines().map(of_uid).collect()
    }
}

/// Objects in a store: lines, or files of Parquet.
struct Bucket {
    store: Store,
    credentials: PathBuf,
    lake: Option<PathBuf>,
    running: Option<Background>,
}

impl Bucket {
    fn new(scratch: &Scratch, lake: bool) -> Bucket {
        Bucket {
            store: Store::new(scratch.make("store")),
            credentials: Store::credentials(scratch),
            lake: lake.then(|| scratch.make("lake")),
            running: None,
        }
    }

    fn fetch(&self, name: &str, to: &Path) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let to = to.display().to_string();
        // Its partitions have a sign that a signature wants encoded.
        let url = format!("/{}", name.replace('=', "%3D"));
        let fetched = self.store.curl(&["-o", &to], &url);
        assert!(fetched.is_some(), "{name}");
    }
}

impl Far for Bucket {
    fn words(&self) -> Vec<String> {
        let kind = if self.lake.is_some() { "lake" } else { "s3" };
        words(&[
            kind,
            &self.store.url(),
            &self.credentials.display().to_string(),
        ])
    }

    fn up(&mut self) {
        self.running = Some(self.store.up());
    }

    fn down(&mut self) {
        self.running = None;
    }

    fn ids(&mut self) -> Vec<Id> {
        let Some(lake) = &self.lake else {
            return self
                .store
                .lines()
                .iter()
                .map(|line| of_json(line))
                .collect();
        };
        for name in self.store.names() {
            self.fetch(&name, &lake.join(&name));
        }
        let python = act(installed("python/bin/python3")).args(["-c", LAKE]);
        let text = python.arg(lake).limit(600).run().ok().stdout_text();
        text.lines().map(of_uid).collect()
    }
}
