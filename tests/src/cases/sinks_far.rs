//! Collectors and streams: the real ones, killed and started again, and an agent that is killed beside them.

use super::sinks::{Id, enough, free_port, held_upto, id, whole};
use super::tls_programs::installed;
use crate::{
    agent::{Agent, Setup},
    command::{Background, act, sh},
    events::Ask as _,
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::{certificates, free_ports},
    stream,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Takes log records by OpenTelemetry's own types, and knows the names of its conventions.
const COLLECTOR: &str = include_str!("../server/collector.py");
/// Makes and reads a stream, by the client of NATS for Python.
const STREAM: &str = include_str!("../server/stream.py");

/// How often the agent is killed.
const ROUNDS: u32 = 10;

/// Exposures, some fifty a second.
pub(super) fn load() -> Background {
    sh("while :; do GITHUB_TOKEN=$1 true; GITHUB_TOKEN=$1 sh -c :; sleep 0.02; done")
        .arg(plant::github().value)
        .limit(600)
        .spawn()
}

pub(super) struct Collector {
    file: PathBuf,
    pub port: String,
    every: &'static str,
    only: &'static str,
    running: Option<Background>,
}

impl Collector {
    pub fn new(scratch: &Scratch, name: &str, every: &'static str) -> Collector {
        let file = scratch.join(name);
        fs::write(&file, "").unwrap();
        Collector {
            file,
            port: free_port(),
            every,
            only: "",
            running: None,
        }
    }

    /// Of each record its id and nothing else: under a load the rest would be most of the work.
    pub fn only_ids(&mut self) {
        self.only = "ids";
    }

    pub fn start(&mut self) {
        let python = act(installed("python/bin/python3"));
        let args = ["-c", COLLECTOR];
        let python = python.args(args).arg(&self.file).arg(&self.port);
        self.running = Some(python.args([self.every, self.only]).limit(600).spawn());
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        let bad: Vec<&String> = lines.iter().filter(|l| l.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{bad:?}");
        lines
    }
}

/// The ids that lines begin with; lines of what has none are left out.
fn received<'a>(lines: &'a [String]) -> Vec<(Id, &'a str)> {
    let of = |line: &'a String| {
        let (id, rest) = line.split_once(' ').unwrap();
        let mut numbers = id.split(':').skip(1).map(|n| n.parse().unwrap());
        Some(((numbers.next()?, numbers.next()?), rest))
    };
    lines.iter().filter_map(of).collect()
}

fn last_of(received: &[(Id, &str)]) -> Id {
    received.iter().map(|(id, _)| *id).max().unwrap_or((0, 0))
}

/// Rotel as a node's collector, which hands on what it takes.
pub(super) fn rotel(scratch: &Scratch, port: &str, grpc: &str, to: &str) -> Background {
    let python = installed("python/bin/python3");
    let packages = python.ancestors().nth(2).unwrap().join("lib");
    let version = fs::read_dir(&packages).unwrap().next().unwrap().unwrap();
    act(version.path().join("site-packages/rotel/rotel-agent"))
        .args(["start", "--exporter", "otlp", "--otlp-exporter-protocol"])
        .args(["http", "--disable-batching", "--otlp-http-endpoint"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("--otlp-grpc-endpoint")
        .arg(format!("127.0.0.1:{grpc}"))
        .arg("--otlp-exporter-endpoint")
        .arg(format!("http://127.0.0.1:{to}"))
        .arg("--pid-file")
        .arg(scratch.join("rotel.pid"))
        .arg("--log-file")
        .arg(scratch.join("rotel.log"))
        .limit(600)
        .spawn()
}

/// What Rotel gets by gRPC, and what by HTTP: together all that the ledger keeps.
const BY_GRPC: &str = "credential_exposed";
const BY_HTTP: &str = r#""credential_read", "credential_opened", "credential_sent", "credential_created", "coverage_gap",
    "finding", "credential_taken", "persistence_written", "workload_named", "credential_file_changed", "credential_requested", "credential_received""#;

/// Log records reach a collector by way of Rotel, some by HTTP and some by gRPC, and one directly that is killed time and
/// again, while the agent is killed too: none is lost, the direct ones come in order, and what comes twice is the same.
pub fn a_collector_has_all() {
    let _turn = turn();
    let scratch = Scratch::new();
    let mut direct = Collector::new(&scratch, "direct", "5");
    // What a collector has acknowledged it may lose in its memory: what is behind Rotel stays, and Rotel may end in peace.
    let mut behind = Collector::new(&scratch, "behind", "1000000");
    behind.start();
    let (http, grpc) = (free_port(), free_port());
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            r#"
[[sink]]
name = "direct"
carrier = "otlp"
url = "http://127.0.0.1:{}/v1/logs"
[[sink]]
name = "rotel"
carrier = "otlp"
url = "http://localhost:{http}/v1/logs"
kinds = [{BY_HTTP}]
batch = 20
[[sink]]
name = "rotel-grpc"
carrier = "otlp"
protocol = "grpc"
url = "http://localhost:{grpc}"
kinds = ["{BY_GRPC}"]
batch = 20
"#,
            direct.port
        ))
        .start();
    let load = load();
    agent.expect("the gap of a sink that fails", 0, |e| {
        e.reason() == "sink_behind" && e.gap.as_ref().unwrap().detail.contains("sink direct fails")
    });
    let mut count = 0;
    for round in 0..ROUNDS {
        let mut between = rotel(&scratch, &http, &grpc, &behind.port);
        direct.start();
        std::thread::sleep(Duration::from_millis(1200));
        count += agent.events().len();
        agent = agent.kill().start();
        direct.kill();
        if round + 1 < ROUNDS {
            between.signal(libc::SIGTERM);
            between.wait(patience(60), "rotel");
        } else {
            direct.start();
            enough(&agent, count, 200);
            drop(load);
            finish(&agent, &direct, &behind);
            return agent.stop();
        }
    }
}

fn finish(agent: &Agent, direct: &Collector, behind: &Collector) {
    let last = id(&agent.sentinel());
    for collector in [direct, behind] {
        wait_for("a collector to have all", patience(90), || {
            (last_of(&received(&collector.lines())) >= last).then_some(())
        });
    }
    let held = held_upto(agent, last);
    assert!(held.len() > 200, "{}", held.len());
    let lines = direct.lines();
    whole("otlp", &held, &received(&lines));
    // Rotel sends several at a time: all, in whatever order.
    let wanted: BTreeSet<Id> = held.into_iter().collect();
    let lacking = || {
        let lines = behind.lines();
        let came: BTreeSet<Id> = received(&lines).iter().map(|(id, _)| *id).collect();
        wanted.difference(&came).copied().collect::<Vec<_>>()
    };
    wait_for(
        "the collector behind Rotel to have all",
        patience(30),
        || lacking().is_empty().then_some(()),
    );
    let lines = behind.lines();
    let exposed = format!("\"eventName\": \"keytrail.{BY_GRPC}\"");
    let (grpc, http): (Vec<&String>, Vec<&String>) =
        lines.iter().partition(|line| line.contains(&exposed));
    assert!(grpc.len() > 100 && !http.is_empty());
    println!(
        "rotel: {} events, {} deliveries by gRPC and {} by HTTP",
        wanted.len(),
        grpc.len(),
        http.len()
    );
    for sink in &stream::status(&agent.socket()).sinks {
        assert_eq!((sink.error.as_str(), sink.left_out), ("", 0), "{sink:?}");
    }
}

/// Certificates for localhost, and a user's key as NATS writes it: `user.seed`, `user.public`.
pub(super) fn keys(dir: &Path) {
    const MAKE: &str = r#"
        set -e
        cd "$1"
        openssl genpkey -algorithm ed25519 -out user.pem
        python3 - <<'P'
import base64, binascii, subprocess
def der(*how): return subprocess.run(["openssl", "pkey", "-in", "user.pem", "-outform", "DER", *how], check=True, capture_output=True).stdout[-32:]
def text(b): return base64.b32encode(b + binascii.crc_hqx(b, 0).to_bytes(2, "little")).decode().rstrip("=")
open("user.seed", "w").write(text(bytes([18 << 3 | 20 << 3 >> 5, (20 << 3 & 31) << 3]) + der()) + "\n")
open("user.public", "w").write(text(bytes([20 << 3]) + der("-pubout")))
P
    "#;
    certificates(dir);
    sh(MAKE).arg(dir).run().ok();
}

/// Of a server with that key and those certificates, and with these settings of its streams.
pub(super) fn nats_config(dir: &Path, port: &str, jetstream: &str) -> PathBuf {
    let config = dir.join("server.conf");
    let text = format!(
        "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{dir}/store\", {jetstream} }}\n\
         tls {{ cert_file: \"{dir}/server.crt\", key_file: \"{dir}/server.key\" }}\n\
         authorization {{ users: [ {{ nkey: {} }}, {{ user: reader, password: of-the-test }} ] }}\n",
        fs::read_to_string(dir.join("user.public")).unwrap(),
        dir = dir.display(),
    );
    fs::write(&config, text).unwrap();
    config
}

/// Messages in a stream of a real server, by TLS and a key; the server is killed time and again, and the agent too: each event
/// is in the stream, once, in order.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn a_stream_has_all() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("nats");
    keys(&dir);
    let port = free_port();
    let config = nats_config(&dir, &port, "sync_interval: always");
    let serve = || {
        act(installed("python/bin/nats-server"))
            .arg("-c")
            .arg(&config)
            .limit(600)
            .spawn()
    };
    let url = format!("tls://localhost:{port}");
    let client = |what: &str| {
        act(installed("python/bin/python3"))
            .args(["-c", STREAM, what, &url])
            .arg(dir.join("ca.crt"))
            .run()
    };
    let mut server = serve();
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            "[[sink]]\nname = \"stream\"\ncarrier = \"nats\"\nurl = \"{url}\"\nsubject = \"keytrail.events\"\n\
             credentials_file = \"{dir}/user.seed\"\nca_file = \"{dir}/ca.crt\"\nbatch = 30",
            dir = dir.display()
        ))
        .start();
    let load = load();
    // The server is there, and nothing takes the subject yet: nothing is delivered to nobody.
    agent.expect("the gap of a subject without a stream", 0, |e| {
        e.reason() == "sink_behind"
            && e.gap
                .as_ref()
                .unwrap()
                .detail
                .contains("no stream of JetStream takes")
    });
    client("make").ok();
    let mut count = 0;
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(700));
        server.end();
        count += agent.events().len();
        if round % 2 == 0 {
            agent = agent.kill().start();
        }
        server = serve();
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_millis(500));
            agent = agent.kill().start();
        }
    }
    enough(&agent, count, 200);
    drop(load);
    let last = id(&agent.sentinel());
    wait_for("the stream to have all", patience(90), || {
        let sink = stream::status(&agent.socket()).sinks.remove(0);
        (sink.error.is_empty() && sink.behind == 0).then_some(())
    });
    let lines: Vec<String> = client("read")
        .ok()
        .stdout_text()
        .lines()
        .map(str::to_owned)
        .collect();
    let received = received(&lines);
    let held = held_upto(&agent, last);
    assert!(held.len() > 200, "{}", held.len());
    whole("nats", &held, &received);
    let once: BTreeSet<Id> = received.iter().map(|(id, _)| *id).collect();
    assert_eq!(once.len(), received.len(), "the stream has one twice");
    let (_, text) = received.last().unwrap();
    let event: crate::events::Event = serde_json::from_str(text).unwrap();
    assert_eq!(id(&event), received.last().unwrap().0);
    // The seed is nowhere but in its file.
    let seed = fs::read_to_string(dir.join("user.seed")).unwrap();
    assert!(!agent.log().contains(seed.trim()));
    let sink = stream::status(&agent.socket()).sinks.remove(0);
    assert_eq!(sink.left_out, 0, "{sink:?}");
    assert_eq!(sink.target, format!("{url} keytrail.events"));
    server.end();
    agent.stop();
}

pub(super) const KEY_ID: &str = "keytrailtest";
pub(super) const KEY: &str = "of-the-test-only";

/// A store that speaks S3.
pub(super) struct Store {
    dir: PathBuf,
    ports: [u16; 4],
}

impl Store {
    pub fn new(dir: PathBuf) -> Store {
        fs::create_dir(dir.join("data")).unwrap();
        let allowed = format!(
            r#"{{"identities":[{{"name":"a","credentials":[{{"accessKey":"{KEY_ID}","secretKey":"{KEY}"}}],"actions":["Admin"]}}]}}"#
        );
        fs::write(dir.join("s3.json"), allowed).unwrap();
        Store {
            dir,
            // Each has another by gRPC, ten thousand above.
            ports: [free_ports(), free_ports(), free_ports(), free_ports()],
        }
    }

    /// Starts it and waits until it has the bucket.
    pub fn up(&self) -> Background {
        let running = self.start();
        wait_for("the store", patience(60), || {
            let made = self.curl(&["-X", "PUT"], "").is_some();
            (made || self.curl(&[], "?list-type=2").is_some()).then_some(())
        });
        running
    }

    fn start(&self) -> Background {
        let [master, volume, filer, s3] = self.ports.map(|port| port.to_string());
        act(installed("python/bin/weed"))
            .args([
                "server",
                "-ip",
                "127.0.0.1",
                "-ip.bind",
                "127.0.0.1",
                "-filer",
                "-s3",
            ])
            .args(["-s3.port.iceberg", "0", "-volume.max", "20", "-dir"])
            .arg(self.dir.join("data"))
            .arg("-s3.config")
            .arg(self.dir.join("s3.json"))
            .args(["-master.port", &master, "-volume.port", &volume])
            .args(["-filer.port", &filer, "-s3.port", &s3])
            .limit(600)
            .spawn()
    }

    /// A file with the key of those who may write.
    pub fn credentials(scratch: &Scratch) -> PathBuf {
        let file = scratch.join("credentials");
        let text =
            format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {KEY}\n");
        fs::write(&file, text).unwrap();
        file
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/archive", self.ports[3])
    }

    /// By a client that is not ours.
    pub fn curl(&self, more: &[&str], rest: &str) -> Option<String> {
        let done = act("curl")
            .args([
                "-sf",
                "-m",
                "20",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
                "--user",
            ])
            .arg(format!("{KEY_ID}:{KEY}"))
            .args(more)
            .arg(format!("{}{rest}", self.url()))
            .run();
        done.status.success().then(|| done.stdout_text())
    }

    /// Names of objects, in order.
    pub fn names(&self) -> Vec<String> {
        let list = self.curl(&[], "?list-type=2&max-keys=1000").unwrap();
        assert!(
            list.contains("<IsTruncated>false"),
            "more than a thousand objects"
        );
        let name = |part: &str| part.split('<').next().unwrap().to_owned();
        list.split("<Key>").skip(1).map(name).collect()
    }

    /// The lines in all of them.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.names() {
            let text = self.curl(&[], &format!("/{name}")).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

/// Objects in a bucket of a store that is killed and started again, by an agent that is killed too: in the order of their names
/// they hold every event, in order.
pub fn a_bucket_has_all() {
    let _turn = turn();
    let scratch = Scratch::new();
    let store = Store::new(scratch.make("store"));
    let credentials = Store::credentials(&scratch);
    let mut running = store.up();
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            "[[sink]]\nname = \"bucket\"\ncarrier = \"s3\"\nurl = \"{}/node\"\ncredentials_file = \"{}\"\n\
             every_ms = 300\ntimeout_ms = 5000\nbatch = 50",
            store.url(),
            credentials.display()
        ))
        .start();
    let load = load();
    let mut count = 0;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1500));
        running.end();
        std::thread::sleep(Duration::from_millis(500));
        count += agent.events().len();
        agent = agent.kill().start();
        running = store.up();
        count += agent.events().len();
        agent = agent.kill().start();
    }
    enough(&agent, count, 100);
    drop(load);
    let last = id(&agent.sentinel());
    wait_for("the bucket to have all", patience(120), || {
        let sink = stream::status(&agent.socket()).sinks.remove(0);
        (sink.error.is_empty() && sink.behind == 0).then_some(())
    });
    let held = held_upto(&agent, last);
    assert!(held.len() > 100, "{}", held.len());
    let lines = store.lines();
    let events: Vec<crate::events::Event> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let received: Vec<(Id, &str)> = events
        .iter()
        .zip(&lines)
        .filter(|(event, _)| event.id.is_some())
        .map(|(event, line)| (id(event), line.as_str()))
        .collect();
    whole("s3", &held, &received);
    assert!(!agent.log().contains(KEY));
    running.end();
    agent.stop();
}
