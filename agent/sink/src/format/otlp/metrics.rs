//! What the agent counts, as metrics of OpenTelemetry. What its semantic conventions have a name for has that name; the rest is
//! below `keytrail.`.
//!
//! A count is reported with the time from which on it is: cumulative, since the agent's start (of what began with an earlier run,
//! since the first look); as a delta, since the last request that was taken. Levels are cumulative whatever is asked for, as the
//! specification wants it of sums that are not monotonic.

use super::wire::metrics as wire;
use super::wire::{AnyValue, KeyValue, Scope, Value};
use super::{SCHEMA, resource};
use crate::format::Reporter;
use crate::spec::Temporality;
use keytrail_model::{Labels, Measure, MeasureKind, Number, Point};
use prost::Message as _;
use std::collections::BTreeMap;

/// From when on counts are reported, by the wall clock, and what they were then.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Since {
    counts_ns: u64,
    lasting_ns: u64,
    before: BTreeMap<(&'static str, Labels), Number>,
}

impl Since {
    /// Counts since the agent's start; those that go on from earlier runs, since this first look.
    pub fn start(started_ns: u64, now_ns: u64, first: &[Measure]) -> Since {
        Since {
            counts_ns: started_ns.min(now_ns),
            lasting_ns: now_ns,
            before: numbers(first, |kind| kind == MeasureKind::Lasting),
        }
    }

    /// Everything since now. What is not among these measures, since the engine was late with its counts, goes on from
    /// where it was: as new it would be reported whole, once more.
    pub fn go_on(&mut self, now_ns: u64, measures: &[Measure]) {
        (self.counts_ns, self.lasting_ns) = (now_ns, now_ns);
        self.before.extend(numbers(measures, grows));
    }
}

fn grows(kind: MeasureKind) -> bool {
    matches!(kind, MeasureKind::Count | MeasureKind::Lasting)
}

fn numbers(
    measures: &[Measure],
    of: impl Fn(MeasureKind) -> bool,
) -> BTreeMap<(&'static str, Labels), Number> {
    let wanted = measures.iter().filter(|measure| of(measure.kind));
    wanted
        .flat_map(|measure| {
            let point = |point: &Point| ((measure.semantic, point.labels.clone()), point.number);
            measure.points.iter().map(point)
        })
        .collect()
}

/// A request with these measures.
pub(crate) fn request(
    measures: &[Measure],
    since: &Since,
    temporality: Temporality,
    now_ns: u64,
    reporter: &Reporter,
) -> Vec<u8> {
    let reported = measures
        .iter()
        .filter(|measure| !measure.semantic.is_empty() && !measure.points.is_empty());
    let scope = wire::ScopeMetrics {
        scope: Some(Scope {
            name: "keytrail".into(),
            version: reporter.version.clone(),
        }),
        metrics: reported
            .map(|measure| metric(measure, since, temporality, now_ns))
            .collect(),
        schema_url: SCHEMA.into(),
    };
    let all = wire::ResourceMetrics {
        resource: Some(resource(reporter)),
        scopes: vec![scope],
        schema_url: SCHEMA.into(),
    };
    wire::Request {
        resources: vec![all],
    }
    .encode_to_vec()
}

fn metric(measure: &Measure, since: &Since, temporality: Temporality, now_ns: u64) -> wire::Metric {
    let begin = match measure.kind {
        MeasureKind::Count => since.counts_ns,
        MeasureKind::Lasting => since.lasting_ns,
        MeasureKind::Level | MeasureKind::Gauge => 0,
    };
    let points = measure.points.iter().map(|point| {
        let number = match grows(measure.kind) {
            true => grown(measure, point, since),
            false => point.number,
        };
        wire::Point {
            start_time_unix_nano: begin,
            // A clock that was set back must not make an interval that ends before it begins.
            time_unix_nano: now_ns.max(begin),
            attributes: attributes(measure.semantic, &point.labels),
            value: Some(match number {
                Number::Whole(whole) => {
                    wire::PointValue::Int(i64::try_from(whole).unwrap_or(i64::MAX))
                }
                Number::Part(part) => wire::PointValue::Double(part),
            }),
        }
    });
    let points = points.collect();
    let data = match measure.kind {
        MeasureKind::Gauge => wire::Data::Gauge(wire::Gauge { points }),
        kind => wire::Data::Sum(wire::Sum {
            points,
            temporality: match (temporality, grows(kind)) {
                (Temporality::Delta, true) => wire::DELTA,
                _ => wire::CUMULATIVE,
            },
            is_monotonic: grows(kind),
        }),
    };
    wire::Metric {
        name: measure.semantic.into(),
        description: measure.help.into(),
        unit: measure.unit.into(),
        data: Some(data),
    }
}

/// What came since then. A count that is less than it was has begun anew.
fn grown(measure: &Measure, point: &Point, since: &Since) -> Number {
    let before = since.before.get(&(measure.semantic, point.labels.clone()));
    match (point.number, before) {
        (Number::Whole(now), Some(Number::Whole(before))) => {
            Number::Whole(now.checked_sub(*before).unwrap_or(now))
        }
        (Number::Part(now), Some(Number::Part(before))) if now >= *before => {
            Number::Part(now - before)
        }
        (now, _) => now,
    }
}

/// Labels of our own measures have our own names before them; those of the conventions are the conventions'.
fn attributes(semantic: &str, labels: &Labels) -> Vec<KeyValue> {
    let own = semantic.starts_with("keytrail.");
    let one = |(name, value): &(&'static str, String)| KeyValue {
        key: match own {
            true => format!("keytrail.{name}"),
            false => (*name).to_owned(),
        },
        value: Some(AnyValue {
            value: Some(Value::Text(value.clone())),
        }),
    };
    labels.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(semantic: &'static str, kind: MeasureKind, number: Number) -> Measure {
        Measure {
            name: "x",
            semantic,
            unit: "{x}",
            help: "h",
            kind,
            points: vec![Point {
                labels: vec![("kind", "a".into())],
                number,
            }],
        }
    }

    /// Name, start, time, value and attribute of a point, and what its sum is.
    type Reported = (String, u64, u64, f64, String, Option<(i32, bool)>);

    fn reported(
        measures: &[Measure],
        since: &Since,
        temporality: Temporality,
        now: u64,
    ) -> Vec<Reported> {
        let reporter = Reporter {
            host: "h".into(),
            version: "1".into(),
            agent: "a".into(),
        };
        let bytes = request(measures, since, temporality, now, &reporter);
        let request = wire::Request::decode(bytes.as_slice()).unwrap();
        let [all] = request.resources.as_slice() else {
            panic!()
        };
        assert_eq!(all.schema_url, SCHEMA);
        let names: Vec<_> = all.resource.as_ref().unwrap().attributes.iter().collect();
        assert!(names.iter().any(|pair| pair.key == "service.instance.id"));
        let mut out = Vec::new();
        for metric in &all.scopes[0].metrics {
            let (points, sum) = match metric.data.as_ref().unwrap() {
                wire::Data::Gauge(gauge) => (&gauge.points, None),
                wire::Data::Sum(sum) => (&sum.points, Some((sum.temporality, sum.is_monotonic))),
            };
            for point in points {
                let value = match point.value.as_ref().unwrap() {
                    wire::PointValue::Int(int) => *int as f64,
                    wire::PointValue::Double(double) => *double,
                };
                let attribute = point.attributes[0].key.clone();
                let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                out.push((metric.name.clone(), start, time, value, attribute, sum));
            }
        }
        out
    }

    fn all(count: u64, lasting: u64) -> Vec<Measure> {
        vec![
            measure("keytrail.count", MeasureKind::Count, Number::Whole(count)),
            measure(
                "keytrail.lasting",
                MeasureKind::Lasting,
                Number::Whole(lasting),
            ),
            measure(
                "process.cpu.time",
                MeasureKind::Count,
                Number::Part(count as f64 / 2.0),
            ),
            measure("keytrail.level", MeasureKind::Level, Number::Whole(count)),
            measure("keytrail.gauge", MeasureKind::Gauge, Number::Part(0.5)),
            // Reported in the other form only.
            measure("", MeasureKind::Gauge, Number::Whole(1)),
        ]
    }

    #[test]
    fn counts_are_cumulative_since_the_start_and_what_is_older_since_the_first_look() {
        let since = Since::start(100, 200, &all(4, 1000));
        let own = "keytrail.kind".to_owned();
        let counts = Some((wire::CUMULATIVE, true));
        assert_eq!(
            reported(&all(6, 1007), &since, Temporality::Cumulative, 300),
            [
                ("keytrail.count".into(), 100, 300, 6.0, own.clone(), counts),
                (
                    "keytrail.lasting".into(),
                    200,
                    300,
                    7.0,
                    own.clone(),
                    counts
                ),
                (
                    "process.cpu.time".into(),
                    100,
                    300,
                    3.0,
                    "kind".into(),
                    counts
                ),
                (
                    "keytrail.level".into(),
                    0,
                    300,
                    6.0,
                    own.clone(),
                    Some((wire::CUMULATIVE, false))
                ),
                ("keytrail.gauge".into(), 0, 300, 0.5, own, None),
            ]
        );
        // A clock that was set back.
        assert_eq!(
            reported(&all(6, 1007), &since, Temporality::Cumulative, 50)[0].2,
            100
        );
    }

    #[test]
    fn deltas_add_up_and_begin_anew_with_what_does() {
        let mut since = Since::start(100, 100, &all(0, 1000));
        let mut sums = [0.0; 3];
        for (at, count, lasting) in [(200, 5, 1001), (300, 5, 1001), (400, 9, 1010)] {
            let measures = all(count, lasting);
            let reported = reported(&measures, &since, Temporality::Delta, at);
            for (sum, (_, start, time, value, _, kind)) in sums.iter_mut().zip(&reported) {
                assert_eq!((*start, *time), (at - 100, at));
                assert_eq!(*kind, Some((wire::DELTA, true)));
                *sum += value;
            }
            assert_eq!(reported[3].5, Some((wire::CUMULATIVE, false)));
            since.go_on(at, &measures);
        }
        assert_eq!(sums, [9.0, 10.0, 4.5]);
        // An engine that was late once had no counts: they are not new for that.
        since.go_on(450, &[]);
        assert_eq!(
            reported(&all(11, 1010), &since, Temporality::Delta, 460)[0].3,
            2.0
        );
        assert_eq!(
            reported(&all(2, 1010), &since, Temporality::Delta, 500)[0].3,
            2.0
        );
    }
}
