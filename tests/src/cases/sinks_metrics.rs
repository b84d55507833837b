//! What the agent counts, told to a real collector.

use super::sinks::free_port;
use super::sinks_far::{Collector, load, rotel};
use crate::{
    agent::Setup,
    events::Ask as _,
    machine::{Scratch, patience, turn, wait_for},
    stream,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// `AggregationTemporality` of OpenTelemetry.
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// A point, as the collector writes it.
struct Point {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    temporality: i32,
    counts: bool,
    begin: u64,
    end: u64,
}

impl Point {
    fn of(value: &Value) -> Point {
        let labels = value["labels"].as_object().unwrap().iter();
        let label =
            |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap().to_owned());
        Point {
            name: value["name"].as_str().unwrap().to_owned(),
            labels: labels.map(label).collect(),
            value: value["value"].as_f64().unwrap(),
            temporality: value["temporality"].as_i64().unwrap() as i32,
            counts: value["counts"].as_bool().unwrap(),
            begin: value["begin"].as_u64().unwrap(),
            end: value["end"].as_u64().unwrap(),
        }
    }
}

fn points(collector: &Collector) -> Vec<Point> {
    let lines = collector.lines();
    let of = |line: &String| {
        let text = line.strip_prefix("metric ")?;
        Some(Point::of(&serde_json::from_str(text).unwrap()))
    };
    lines.iter().filter_map(of).collect()
}

/// Points of the number of exposures, in the order of their times.
fn exposures(points: &[Point], temporality: i32) -> Vec<&Point> {
    let mut found: Vec<&Point> = points
        .iter()
        .filter(|point| {
            let kind = point.labels.get("keytrail.kind");
            let exposed = kind.is_some_and(|kind| kind == "credential_exposed");
            point.name == "keytrail.events" && exposed && point.temporality == temporality
        })
        .collect();
    found.sort_by_key(|point| point.end);
    found
}

/// Counts reach a collector by way of Rotel, cumulative by HTTP and as deltas by gRPC, also when Rotel is away for a time: at the end
/// both say what the agent reported. Names are those of the semantic conventions, or below `keytrail.`: the collector looks.
pub fn a_collector_receives_counts() {
    let _turn = turn();
    let scratch = Scratch::new();
    let mut behind = Collector::new(&scratch, "behind", "1000000");
    behind.start();
    let (http, grpc) = (free_port(), free_port());
    let agent = Setup::new(&scratch)
        .config(&format!(
            r#"
[[sink]]
name = "counts"
carrier = "otlp"
signal = "metrics"
url = "http://localhost:{http}/v1/metrics"
every_ms = 1000
[[sink]]
name = "deltas"
carrier = "otlp"
signal = "metrics"
temporality = "delta"
protocol = "grpc"
url = "http://localhost:{grpc}"
every_ms = 1000
"#
        ))
        .start();
    let failing = || {
        let sinks = stream::status(&agent.socket()).sinks;
        assert!(sinks.iter().all(|sink| sink.format == "metrics"));
        sinks.iter().filter(|sink| !sink.error.is_empty()).count()
    };
    wait_for("both to fail", patience(20), || {
        (failing() == 2).then_some(())
    });
    let load = load();
    let mut between = rotel(&scratch, &http, &grpc, &behind.port);
    wait_for("both to be well", patience(40), || {
        (failing() == 0).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    between.signal(libc::SIGTERM);
    between.wait(patience(60), "rotel");
    std::thread::sleep(Duration::from_secs(2));
    let mut between = rotel(&scratch, &http, &grpc, &behind.port);
    drop(load);
    wait_for("both to be well again", patience(40), || {
        (failing() == 0).then_some(())
    });
    agent.wait_idle();
    agent.stop();
    // What Rotel took it hands on before it ends.
    std::thread::sleep(Duration::from_secs(1));
    between.signal(libc::SIGTERM);
    between.wait(patience(60), "rotel");
    let reported = agent
        .events()
        .iter()
        .filter(|e| e.is("credential_exposed"))
        .count();
    judge(&points(&behind), reported);
}

fn judge(points: &[Point], reported: usize) {
    let cumulative = exposures(points, CUMULATIVE);
    let deltas = exposures(points, DELTA);
    assert!(
        cumulative.len() > 3 && deltas.len() > 3,
        "{} {}",
        cumulative.len(),
        deltas.len()
    );
    let last = cumulative.last().unwrap().value;
    let sum: f64 = deltas.iter().map(|point| point.value).sum();
    println!(
        "{reported} exposures; {} points say {last}, {} add up to {sum}",
        cumulative.len(),
        deltas.len()
    );
    assert!(reported > 50);
    assert_eq!((last, sum), (reported as f64, reported as f64));
    assert!(
        cumulative
            .iter()
            .all(|point| point.begin == cumulative[0].begin)
    );
    assert!(
        cumulative
            .windows(2)
            .all(|two| two[0].value <= two[1].value)
    );
    // Each begins where the one before ended, however long nobody took any.
    assert!(deltas.windows(2).all(|two| two[0].end == two[1].begin));
    for (name, counts) in [
        ("keytrail.records", true),
        ("keytrail.sink.delivered", true),
        ("keytrail.holders", false),
        ("keytrail.signal.served", false),
        ("process.cpu.time", true),
        ("process.memory.usage", false),
        ("process.unix.file_descriptor.count", false),
        ("process.uptime", false),
    ] {
        let mut of = points.iter().filter(|point| point.name == name).peekable();
        assert!(of.peek().is_some(), "nothing of {name}");
        assert!(of.all(|point| point.counts == counts), "{name}");
    }
    // A level is no delta, whatever was asked for.
    let level = |point: &&Point| point.name == "keytrail.holders";
    assert!(
        points
            .iter()
            .filter(level)
            .all(|point| point.temporality == CUMULATIVE)
    );
}
