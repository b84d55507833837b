//! A ledger that fills, and one sink that empties it: an agent without its sensors, for `bench_sinks`, which kills it.
//!
//! `load STATE EVENTS RATE WAY...` records events, RATE a second (0: as fast as it goes, and the sink begins when they are
//! there), until the ledger has EVENTS, those of earlier runs among them. It prints `RECORDED DELIVERED BEHIND` several times a
//! second and, when the receiver has all, `done` and the number of each event (`EPOCH:SEQUENCE`).
//!
//! WAY: `file PATH`, `syslog ADDRESS [CA]`, `webhook URL KEYFILE`, `otlp URL http/protobuf|grpc`, `nats URL CA SEED SUBJECT`,
//! `kafka BROKERS TOPIC`, `s3 URL CREDENTIALS`, `lake URL CREDENTIALS`.

#![allow(clippy::print_stdout, reason = "what it prints is read")]

use keytrail_model::{EventKind, EvidenceGrade};
use keytrail_proto::v1::{
    Ancestor, Credential, Destination, Event, EventId, Evidence, Executable, HostName, NodeStatus,
    Process, Request, SinkStatus, Source,
};
use keytrail_sink::{
    Bell, Body, CarrierSpec, FileSpec, Filter, Format, KafkaSpec, LakeSpec, NatsSpec, OcsfClass,
    OtlpProtocol, OtlpSpec, S3Spec, SaslMechanism, Setup, SinkSpec, Sinks, SyslogSpec, Url,
    WebhookSpec,
};
use keytrail_store::{Ledger, Reader, Retention, RunInfo};
use pbjson_types::Timestamp;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

type Error = Box<dyn std::error::Error>;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long events are gathered for an object.
const EVERY: Duration = Duration::from_secs(1);
const BOOT: &str = "7a0b8a0e-0000-4000-8000-000000000001";
/// Between two inspections of the clock.
const TICK: Duration = Duration::from_millis(5);
/// Between two lines.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Numbers that are read together.
const PAGE: usize = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [state, events, rate, way @ ..] => run(state, events, rate, way),
        _ => Err("usage: load STATE EVENTS RATE WAY...".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(state: &str, events: &str, rate: &str, way: &[&str]) -> Result<(), Error> {
    let (events, rate): (u64, u64) = (events.parse()?, rate.parse()?);
    let spec = spec(way)?;
    let state = Path::new(state);
    // More than what waits: nothing is to be forgotten here.
    let ledger = Ledger::open_with(
        state,
        Retention {
            events: events * 2,
            bytes: 8 << 30,
            ..Retention::default()
        },
    )?;
    let run = ledger.begin_run(BOOT)?;
    let bell = Bell::new();
    let ring = bell.clone();
    ledger.publish(Box::new(move |_| ring.ring()));
    let setup = Setup {
        state_dir: state.to_owned(),
        reader: ledger.reader(),
        node: NodeStatus {
            agent: run.agent.clone(),
            boot: BOOT.into(),
            host: "bench".into(),
            epoch: run.epoch,
            version: env!("CARGO_PKG_VERSION").into(),
            ..NodeStatus::default()
        },
        bell,
        report_gap: Arc::new(|gap| eprintln!("load: {} {}", gap.detail, gap.remedy)),
        redact: Arc::new(|text| String::from_utf8_lossy(text).into_owned()),
    };
    let recorder = Recorder {
        recorded: setup.reader.count_after((0, 0))?,
        ledger,
        run,
        sequence: 0,
        reported: Instant::now(),
    };
    recorder.run(events, rate, &spec, &setup)
}

struct Recorder {
    ledger: Ledger,
    run: RunInfo,
    recorded: u64,
    sequence: u64,
    reported: Instant,
}

impl Recorder {
    fn run(mut self, events: u64, rate: u64, spec: &SinkSpec, setup: &Setup) -> Result<(), Error> {
        let start = || Sinks::start(std::slice::from_ref(spec), &[], setup);
        let sinks = match rate {
            0 => {
                while self.recorded < events {
                    self.record();
                    // The writer's queue is bounded.
                    if self.sequence.is_multiple_of(5_000) {
                        self.ledger.flush();
                    }
                }
                self.ledger.flush();
                let (began, sinks) = (Instant::now(), start()?);
                while self.report(&sinks, true) > 0 {
                    std::thread::sleep(TICK);
                }
                println!("rate {}", events as f64 / began.elapsed().as_secs_f64());
                sinks
            }
            rate => {
                let sinks = start()?;
                let (began, before) = (Instant::now(), self.recorded);
                while self.recorded < events {
                    let due = before + (began.elapsed().as_secs_f64() * rate as f64) as u64;
                    while self.recorded < due.min(events) {
                        self.record();
                    }
                    self.report(&sinks, false);
                    std::thread::sleep(TICK);
                }
                self.ledger.flush();
                sinks
            }
        };
        if self.ledger.overflowed() > 0 {
            return Err(format!("{} events were not recorded", self.ledger.overflowed()).into());
        }
        while self.report(&sinks, true) > 0 {
            std::thread::sleep(TICK);
        }
        sinks.stop(Duration::from_secs(5));
        println!("done");
        numbers(&setup.reader)
    }

    fn record(&mut self) {
        self.recorded += 1;
        self.sequence += 1;
        let id = EventId {
            agent: self.run.agent.clone(),
            boot: BOOT.into(),
            epoch: self.run.epoch,
            sequence: self.sequence,
        };
        self.ledger.record(Arc::new(event(id)));
    }

    /// Prints how it stands, unless that was a moment ago; gives what waits.
    fn report(&mut self, sinks: &Sinks, always: bool) -> u64 {
        if !always && self.reported.elapsed() < REPORT_INTERVAL {
            return u64::MAX;
        }
        let status: SinkStatus = sinks.status().remove(0);
        if self.reported.elapsed() >= REPORT_INTERVAL || status.behind == 0 {
            self.reported = Instant::now();
            println!("{} {} {}", self.recorded, status.delivered, status.behind);
        }
        status.behind
    }
}

/// The number of each event that is kept.
fn numbers(reader: &Reader) -> Result<(), Error> {
    let mut after = EventId::default();
    loop {
        let found = reader.events_after_at_most(&after, PAGE, usize::MAX)?;
        let mut page = String::new();
        for id in found.events.iter().filter_map(|event| event.id.as_ref()) {
            page.push_str(&format!("{}:{}\n", id.epoch, id.sequence));
        }
        print!("{page}");
        if !found.more {
            return Ok(());
        }
        (after.epoch, after.sequence) = found.upto;
    }
}

/// What a server that holds a token makes: a send, of one of some processes to one of some hosts.
fn event(id: EventId) -> Event {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let time = Some(Timestamp {
        seconds: now.as_secs().cast_signed(),
        nanos: now.subsec_nanos().cast_signed(),
    });
    let n = id.sequence % 200;
    Event {
        id: Some(id),
        time,
        kind: EventKind::CredentialSent.number(),
        process: Some(process(n, time)),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: format!("kt1:{n:032x}"),
            confidence: 0.99,
            rule: "github-token".into(),
            ..Credential::default()
        }),
        source: Some(Source {
            r#type: 1,
            path: format!("/srv/orders/secrets/token-{n}"),
            inode: 77 + n,
            owner_uid: 1000,
            mode: "0600".into(),
            ..Source::default()
        }),
        destination: Some(Destination {
            ip: "10.1.2.3".into(),
            port: 443,
            protocol: "tcp".into(),
            hosts: vec![HostName {
                name: "api.example".into(),
                provenance: "sni".into(),
            }],
            local_ip: "10.0.0.1".into(),
            local_port: 40_000,
            direction: 1,
            ..Destination::default()
        }),
        evidence: Some(Evidence {
            grade: EvidenceGrade::Observed.number(),
            channel: 1,
            payload_bytes: 512,
            hook: "uprobe:SSL_write".into(),
            ..Evidence::default()
        }),
        request: Some(Request {
            protocol: "http/1.1".into(),
            method: "POST".into(),
            host: "api.example".into(),
            path: "/v1/orders".into(),
            content_type: "application/json".into(),
            bytes: 512,
            ..Request::default()
        }),
        attack: vec!["T1552.001".into()],
        ..Event::default()
    }
}

/// One of some that run all the time.
fn process(n: u64, time: Option<Timestamp>) -> Process {
    let executable = |path: &str| Executable {
        path: path.into(),
        ..Executable::default()
    };
    let ancestor = |pid: u32, comm: &str| Ancestor {
        key: format!("7a0b8a0e:{pid}:1:1"),
        pid,
        comm: comm.into(),
        executable: format!("/usr/bin/{comm}"),
        script: String::new(),
    };
    Process {
        key: format!("7a0b8a0e:{}:99:2", 4000 + n),
        pid: 4000 + n as u32,
        ppid: 900,
        executable: Some(executable("/usr/bin/curl")),
        comm: "curl".into(),
        argv: [
            "curl",
            "-sS",
            "-H",
            "Authorization: Bearer [github-token]",
            "https://api.example/v1/orders",
        ]
        .map(str::to_owned)
        .to_vec(),
        cwd: "/srv/orders".into(),
        cgroup: "/system.slice/orders.service".into(),
        unit: "orders.service".into(),
        uid: 1000,
        gid: 1000,
        ancestors: vec![
            ancestor(900, "bash"),
            ancestor(800, "sshd"),
            ancestor(1, "systemd"),
        ],
        start_time: time,
        ..Process::default()
    }
}

/// As the configuration would have it, with its defaults.
fn spec(way: &[&str]) -> Result<SinkSpec, Error> {
    let mut format = Format::Json;
    let mut batch = 100;
    let mut filter = Filter::default();
    let carrier = match way {
        ["file", path] => CarrierSpec::File(FileSpec {
            path: path.into(),
            rotate_bytes: 100 << 20,
            keep: 1000,
        }),
        ["syslog", address, ca @ ..] => CarrierSpec::Syslog(SyslogSpec {
            address: address.parse()?,
            ca_file: ca.first().map(Into::into),
            timeout: TIMEOUT,
        }),
        ["webhook", url, key] => CarrierSpec::Webhook(WebhookSpec {
            url: Url::Text((*url).to_owned()),
            body: Body::Lines,
            headers_file: None,
            secret_file: Some(key.into()),
            ca_file: None,
            timeout: TIMEOUT,
        }),
        ["otlp", url, protocol] => {
            format = Format::Otlp;
            CarrierSpec::Otlp(OtlpSpec {
                url: Url::Text((*url).to_owned()),
                protocol: OtlpProtocol::of_word(protocol).ok_or("no protocol")?,
                headers_file: None,
                ca_file: None,
                timeout: TIMEOUT,
            })
        }
        ["nats", url, ca, seed, subject] => CarrierSpec::Nats(NatsSpec {
            server: url.parse()?,
            subject: (*subject).to_owned(),
            credentials_file: Some(seed.into()),
            ca_file: Some(ca.into()),
            timeout: TIMEOUT,
        }),
        ["kafka", brokers, topic] => {
            let brokers: Result<_, _> = brokers.split(',').map(str::parse).collect();
            CarrierSpec::Kafka(KafkaSpec {
                brokers: brokers?,
                tls: false,
                topic: (*topic).to_owned(),
                mechanism: SaslMechanism::default(),
                credentials_file: None,
                ca_file: None,
                timeout: TIMEOUT,
            })
        }
        [kind @ ("s3" | "lake"), url, credentials] => {
            let spec = bucket(url, credentials, *kind == "lake");
            if spec.lake.is_some() {
                format = Format::OcsfParquet;
            }
            batch = 1000;
            filter.class = spec.lake.as_ref().map(|lake| lake.class);
            CarrierSpec::S3(spec)
        }
        _ => return Err("no such way".into()),
    };
    Ok(SinkSpec {
        name: "bench".into(),
        carrier,
        format,
        filter,
        batch,
    })
}

fn bucket(url: &str, credentials: &str, lake: bool) -> S3Spec {
    S3Spec {
        url: Url::Text(url.to_owned()),
        region: "us-east-1".into(),
        credentials_file: credentials.into(),
        ca_file: None,
        every: EVERY,
        lake: lake.then(|| LakeSpec {
            source: "keytrail".into(),
            account: "1".into(),
            class: OcsfClass::DataSecurityFinding,
        }),
        timeout: TIMEOUT,
    }
}
