//! Counts as OpenMetrics. Labels have values of closed vocabularies, of the agent's own code, or of its configuration.

use crate::hub::{Hub, MAX_READERS};
use keytrail_model::{EventKind, Signal, Tier, TlsStack};
use keytrail_proto::v1::GetStatusResponse;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Ticks of the processor times in /proc, a second (Linux: always 100 for user space).
const TICKS: f64 = 100.0;

type Labels = Vec<(&'static str, String)>;
type Float = Gauge<f64, AtomicU64>;

struct Page(Registry);

impl Page {
    fn counters(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, count) in rows {
            family.get_or_create(&labels).inc_by(count);
        }
        self.0.register(name, help, family);
    }

    fn gauges(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in rows {
            family
                .get_or_create(&labels)
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(count);
        self.0.register(name, help, counter);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(name, help, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Float::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

/// The page of this moment.
pub(super) fn render(status: &GetStatusResponse, hub: &Hub) -> String {
    let mut page = Page(Registry::default());
    engine(&mut page, status);
    coverage(&mut page, status);
    readers(&mut page, hub);
    sinks(&mut page, status);
    process(&mut page, status);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &page.0);
    text
}

fn engine(page: &mut Page, status: &GetStatusResponse) {
    let Some(counters) = &status.counters else {
        return;
    };
    let rows = |name: &'static str, map: &std::collections::HashMap<String, u64>| {
        let sorted: BTreeMap<_, _> = map.iter().collect();
        sorted
            .into_iter()
            .map(|(key, count)| (label(name, key), *count))
            .collect::<Vec<_>>()
    };
    page.counters(
        "keytrail_records",
        "Records of the kernel side that were taken in, by kind",
        rows("record", &counters.records),
    );
    page.counters(
        "keytrail_lost",
        "Records that were lost or passed over, by kind",
        rows("record", &counters.lost),
    );
    page.counters(
        "keytrail_gaps",
        "What could not be seen, by reason",
        rows("reason", &counters.gaps),
    );
    page.gauge(
        "keytrail_credentials",
        "Credentials that are known",
        counters.credentials,
    );
    page.gauge(
        "keytrail_processes",
        "Processes that are known",
        counters.processes,
    );
    page.gauge(
        "keytrail_holders",
        "Processes that hold a credential",
        counters.holders,
    );
    page.gauge(
        "keytrail_watched_files",
        "Files whose reads are watched",
        counters.watched_files,
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
    page.gauges(
        "keytrail_signal_served",
        "1 where a hook serves the signal, 0 where none does",
        signals,
    );
    let refused = status.signals.iter().map(|signal| {
        let labels = label("signal", Signal::word_of(signal.signal));
        (labels, signal.refused.len() as u64)
    });
    page.gauges(
        "keytrail_hooks_refused",
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
    page.gauges(
        "keytrail_tls_libraries",
        "TLS libraries and programs with TLS inside that were met",
        libraries,
    );
}

fn readers(page: &mut Page, hub: &Hub) {
    let counts = hub.counts();
    let events = EventKind::ALL
        .iter()
        .map(|&kind| (label("kind", kind.word()), counts.events(kind)));
    page.counters("keytrail_events", "Events, by kind", events);
    page.gauge(
        "keytrail_streams",
        "Streams of events that are being read",
        hub.readers() as u64,
    );
    page.gauge(
        "keytrail_streams_limit",
        "Streams of events that are served at a time",
        MAX_READERS as u64,
    );
    page.counter(
        "keytrail_stream_events_missed",
        "Events that a stream did not get because it was read too slowly",
        counts.missed,
    );
    page.counter(
        "keytrail_streams_evicted",
        "Streams that were ended to make room for another",
        counts.evicted,
    );
}

fn sinks(page: &mut Page, status: &GetStatusResponse) {
    let rows = |value: fn(&keytrail_proto::v1::SinkStatus) -> u64| {
        let sinks = status.sinks.iter();
        sinks
            .map(|sink| (label("sink", sink.name.as_str()), value(sink)))
            .collect::<Vec<_>>()
    };
    page.counters(
        "keytrail_sink_delivered",
        "Events delivered, by sink or response",
        rows(|sink| sink.delivered),
    );
    page.counters(
        "keytrail_sink_left_out",
        "Events that will never be delivered",
        rows(|sink| sink.left_out),
    );
    page.gauges(
        "keytrail_sink_behind",
        "Events that are kept and not delivered yet",
        rows(|sink| sink.behind),
    );
    page.gauges(
        "keytrail_sink_failing",
        "1 while deliveries fail",
        rows(|sink| u64::from(!sink.error.is_empty())),
    );
}

fn process(page: &mut Page, status: &GetStatusResponse) {
    let version = label("version", env!("CARGO_PKG_VERSION"));
    page.gauges("keytrail_build_info", "The agent's version", [(version, 1)]);
    let started = status.node.as_ref().and_then(|node| node.started.as_ref());
    if let Some(started) = started {
        let seconds = started.seconds as f64 + f64::from(started.nanos) / 1e9;
        page.seconds(
            "process_start_time_seconds",
            "Start of the agent, seconds since 1970",
            seconds,
        );
    }
    if let Some(bytes) = resident() {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory of the agent",
            bytes,
        );
    }
    if let Some(seconds) = processor_seconds() {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(seconds);
        page.0.register(
            "process_cpu_seconds",
            "Processor time of the agent, of programs and of the kernel",
            counter,
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge(
            "process_open_fds",
            "Open descriptors of the agent",
            open.count() as u64,
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

/// proc_pid_stat(5): utime and stime, the 14th and 15th field.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS)
}
