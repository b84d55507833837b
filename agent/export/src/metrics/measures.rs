//! What there is to count, of this moment, whichever way it is reported. Labels have values of closed vocabularies, of the
//! agent's own code, or of its configuration.

use crate::hub::{Hub, MAX_READERS};
use keytrail_model::MeasureKind::{Count, Gauge, Lasting, Level};
use keytrail_model::{
    EventKind, Labels, Measure, MeasureKind, Number, Point, Signal, Tier, TlsStack,
};
use keytrail_proto::v1::{GetStatusResponse, SinkStatus};
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// Ticks of the processor times in /proc, a second (Linux: always 100 for user space).
const TICKS: f64 = 100.0;

/// Name for OpenMetrics, name for OpenTelemetry, unit there.
type Names = (&'static str, &'static str, &'static str);

#[derive(Default)]
struct Page(Vec<Measure>);

impl Page {
    fn put(&mut self, names: Names, kind: MeasureKind, help: &'static str, points: Vec<Point>) {
        let (name, semantic, unit) = names;
        self.0.push(Measure {
            name,
            semantic,
            unit,
            help,
            kind,
            points,
        });
    }

    fn rows(
        &mut self,
        names: Names,
        kind: MeasureKind,
        help: &'static str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let point = |(labels, count)| Point {
            labels,
            number: Number::Whole(count),
        };
        self.put(names, kind, help, rows.into_iter().map(point).collect());
    }

    fn one(&mut self, names: Names, kind: MeasureKind, help: &'static str, number: Number) {
        let labels = Labels::new();
        self.put(names, kind, help, vec![Point { labels, number }]);
    }
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

/// All measures, in the order in which they are reported.
#[must_use]
pub fn measures(status: &GetStatusResponse, hub: &Hub) -> Vec<Measure> {
    let mut page = Page::default();
    engine(&mut page, status);
    coverage(&mut page, status);
    readers(&mut page, hub);
    sinks(&mut page, status);
    process(&mut page, status);
    page.0
}

fn engine(page: &mut Page, status: &GetStatusResponse) {
    let Some(counters) = &status.counters else {
        return;
    };
    let rows = |name: &'static str, map: &HashMap<String, u64>| {
        let sorted: BTreeMap<_, _> = map.iter().collect();
        sorted
            .into_iter()
            .map(|(key, count)| (label(name, key), *count))
            .collect::<Vec<_>>()
    };
    page.rows(
        ("keytrail_records", "keytrail.records", "{record}"),
        Count,
        "Records of the kernel side that were taken in, by kind",
        rows("record", &counters.records),
    );
    page.rows(
        ("keytrail_lost", "keytrail.lost", "{record}"),
        Count,
        "Records that were lost or passed over, by kind",
        rows("record", &counters.lost),
    );
    page.rows(
        ("keytrail_gaps", "keytrail.gaps", "{gap}"),
        Count,
        "What could not be seen, by reason",
        rows("reason", &counters.gaps),
    );
    page.one(
        (
            "keytrail_credentials",
            "keytrail.credentials",
            "{credential}",
        ),
        Level,
        "Credentials that are known",
        Number::Whole(counters.credentials),
    );
    page.one(
        ("keytrail_processes", "keytrail.processes", "{process}"),
        Level,
        "Processes that are known",
        Number::Whole(counters.processes),
    );
    page.one(
        ("keytrail_holders", "keytrail.holders", "{process}"),
        Level,
        "Processes that hold a credential",
        Number::Whole(counters.holders),
    );
    page.one(
        ("keytrail_watched_files", "keytrail.watched_files", "{file}"),
        Level,
        "Files whose reads are watched",
        Number::Whole(counters.watched_files),
    );
}

fn coverage(page: &mut Page, status: &GetStatusResponse) {
    let signals = status.signals.iter().map(|signal| {
        let labels = vec![
            ("signal", Signal::word_of(signal.signal).to_owned()),
            ("tier", Tier::word_of(signal.tier).to_owned()),
        ];
        (labels, u64::from(!signal.hook.is_empty()))
    });
    page.rows(
        ("keytrail_signal_served", "keytrail.signal.served", "1"),
        Gauge,
        "1 where a hook serves the signal, 0 where none does",
        signals,
    );
    let refused = status.signals.iter().map(|signal| {
        let labels = label("signal", Signal::word_of(signal.signal));
        (labels, signal.refused.len() as u64)
    });
    page.rows(
        ("keytrail_hooks_refused", "keytrail.hooks.refused", "{hook}"),
        Level,
        "Hooks that the kernel refused, by signal",
        refused,
    );
    let mut libraries = BTreeMap::<Labels, u64>::new();
    for library in &status.libraries {
        let labels = vec![
            ("stack", TlsStack::word_of(library.stack).to_owned()),
            ("covered", library.covered.to_string()),
        ];
        *libraries.entry(labels).or_default() += 1;
    }
    page.rows(
        (
            "keytrail_tls_libraries",
            "keytrail.tls.libraries",
            "{library}",
        ),
        Level,
        "TLS libraries and programs with TLS inside that were seen",
        libraries,
    );
}

fn readers(page: &mut Page, hub: &Hub) {
    let counts = hub.counts();
    let events = EventKind::ALL
        .iter()
        .map(|&kind| (label("kind", kind.word()), counts.events(kind)));
    page.rows(
        ("keytrail_events", "keytrail.events", "{event}"),
        Count,
        "Events, by kind",
        events,
    );
    page.one(
        ("keytrail_streams", "keytrail.streams", "{stream}"),
        Level,
        "Streams of events that are being read",
        Number::Whole(hub.readers() as u64),
    );
    page.one(
        (
            "keytrail_streams_limit",
            "keytrail.streams.limit",
            "{stream}",
        ),
        Gauge,
        "Streams of events that are served at a time",
        Number::Whole(MAX_READERS as u64),
    );
    page.one(
        (
            "keytrail_stream_events_missed",
            "keytrail.stream.events.missed",
            "{event}",
        ),
        Count,
        "Events that a stream did not get because it was read too slowly",
        Number::Whole(counts.missed),
    );
    page.one(
        (
            "keytrail_streams_evicted",
            "keytrail.streams.evicted",
            "{stream}",
        ),
        Count,
        "Streams that were ended to make room for another",
        Number::Whole(counts.evicted),
    );
}

fn sinks(page: &mut Page, status: &GetStatusResponse) {
    let rows = |value: fn(&SinkStatus) -> u64| {
        let sinks = status.sinks.iter();
        sinks
            .map(|sink| (label("sink", sink.name.as_str()), value(sink)))
            .collect::<Vec<_>>()
    };
    page.rows(
        (
            "keytrail_sink_delivered",
            "keytrail.sink.delivered",
            "{event}",
        ),
        Lasting,
        "Events delivered, by sink or response",
        rows(|sink| sink.delivered),
    );
    page.rows(
        (
            "keytrail_sink_left_out",
            "keytrail.sink.left_out",
            "{event}",
        ),
        Lasting,
        "Events that will never be delivered",
        rows(|sink| sink.left_out),
    );
    page.rows(
        ("keytrail_sink_behind", "keytrail.sink.behind", "{event}"),
        Level,
        "Events that are kept and not delivered yet",
        rows(|sink| sink.behind),
    );
    page.rows(
        ("keytrail_sink_failing", "keytrail.sink.failing", "1"),
        Gauge,
        "1 while deliveries fail",
        rows(|sink| u64::from(!sink.error.is_empty())),
    );
}

/// The agent itself. A collector of OpenTelemetry has its version with the resource, and its names for the rest.
fn process(page: &mut Page, status: &GetStatusResponse) {
    let version = label("version", env!("CARGO_PKG_VERSION"));
    page.rows(
        ("keytrail_build_info", "", ""),
        Gauge,
        "The agent's version",
        [(version, 1)],
    );
    let started = status.node.as_ref().and_then(|node| node.started.as_ref());
    if let Some(started) = started {
        let seconds = started.seconds as f64 + f64::from(started.nanos) / 1e9;
        page.one(
            ("process_start_time_seconds", "", ""),
            Gauge,
            "Start of the agent, seconds since 1970",
            Number::Part(seconds),
        );
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let uptime = now.map_or(0.0, |now| (now.as_secs_f64() - seconds).max(0.0));
        page.one(
            ("", "process.uptime", "s"),
            Gauge,
            "Time since the agent's start",
            Number::Part(uptime),
        );
    }
    if let Some(bytes) = resident() {
        page.one(
            (
                "process_resident_memory_bytes",
                "process.memory.usage",
                "By",
            ),
            Level,
            "Resident memory of the agent",
            Number::Whole(bytes),
        );
    }
    if let Some((user, system)) = processor_seconds() {
        page.one(
            ("process_cpu_seconds", "", ""),
            Count,
            "Processor time of the agent, of programs and of the kernel",
            Number::Part(user + system),
        );
        let modes = [("user", user), ("system", system)];
        let point = |(mode, seconds): (&str, f64)| Point {
            labels: label("cpu.mode", mode),
            number: Number::Part(seconds),
        };
        page.put(
            ("", "process.cpu.time", "s"),
            Count,
            "Processor time of the agent, by mode",
            modes.map(point).to_vec(),
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.one(
            (
                "process_open_fds",
                "process.unix.file_descriptor.count",
                "{file_descriptor}",
            ),
            Level,
            "Open descriptors of the agent",
            Number::Whole(open.count() as u64),
        );
    }
}

/// proc_pid_status(5): VmRSS, in kB of 1,024 bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// proc_pid_stat(5): utime and stime, the 14th and 15th field, in seconds.
fn processor_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user as f64 / TICKS, system as f64 / TICKS))
}
