//! Measures as OpenMetrics.

use keytrail_model::{Labels, Measure, MeasureKind, Number, Point};
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt::Debug;
use std::sync::atomic::AtomicU64;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page of these.
pub(super) fn render(measures: &[Measure]) -> String {
    let mut page = Registry::default();
    for measure in measures.iter().filter(|measure| !measure.name.is_empty()) {
        register(&mut page, measure);
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &page);
    text
}

fn register(page: &mut Registry, measure: &Measure) {
    let is_part = |number| matches!(number, Number::Part(_));
    let parts = measure.points.iter().any(|point| is_part(point.number));
    match (measure.kind, parts) {
        (MeasureKind::Count | MeasureKind::Lasting, false) => {
            let set = |counter: &Counter, number| {
                counter.inc_by(whole(number));
            };
            put(page, measure, set);
        }
        (MeasureKind::Count | MeasureKind::Lasting, true) => {
            let set = |counter: &Counter<f64, AtomicU64>, number| {
                counter.inc_by(fraction(number));
            };
            put(page, measure, set);
        }
        (MeasureKind::Level | MeasureKind::Gauge, false) => {
            let set = |gauge: &Gauge, number| {
                gauge.set(i64::try_from(whole(number)).unwrap_or(i64::MAX));
            };
            put(page, measure, set);
        }
        (MeasureKind::Level | MeasureKind::Gauge, true) => {
            let set = |gauge: &Gauge<f64, AtomicU64>, number| {
                gauge.set(fraction(number));
            };
            put(page, measure, set);
        }
    }
}

fn put<M>(page: &mut Registry, measure: &Measure, set: impl Fn(&M, Number))
where
    M: EncodeMetric + TypedMetric + Default + Debug + Send + Sync + 'static,
{
    let Measure { name, help, .. } = *measure;
    // A family of one without labels would be reported with empty braces.
    if let [Point { labels, number }] = measure.points.as_slice()
        && labels.is_empty()
    {
        let metric = M::default();
        set(&metric, *number);
        page.register(name, help, metric);
        return;
    }
    let family = Family::<Labels, M>::default();
    for point in &measure.points {
        set(&family.get_or_create(&point.labels), point.number);
    }
    page.register(name, help, family);
}

fn whole(number: Number) -> u64 {
    match number {
        Number::Whole(whole) => whole,
        Number::Part(part) => part as u64,
    }
}

fn fraction(number: Number) -> f64 {
    match number {
        Number::Whole(whole) => whole as f64,
        Number::Part(part) => part,
    }
}
