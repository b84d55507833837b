//! A `[[sink]]` of metrics: `carrier = "otlp"` with `signal = "metrics"`.

use super::{ConfigError, EVERY_MAX_MS, Entry};
use keytrail_sink::{CarrierSpec, MeterSpec, Temporality};
use std::time::Duration;

/// As SDKs of OpenTelemetry have it.
const EVERY_MS: u64 = 60_000;
const EVERY_MIN_MS: u64 = 1_000;
/// What events have, and numbers have not.
const OF_EVENTS: [&str; 5] = ["format", "kinds", "grades", "severity", "batch"];
/// What numbers have, and records have not.
const OF_NUMBERS: [&str; 2] = ["temporality", "every_ms"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum OtlpSignal {
    Logs,
    Metrics,
}

impl Entry<'_, '_, '_> {
    /// What this entry says of metrics; nothing where it is one of events.
    pub(super) fn meter(&self, name: &str) -> Result<Option<MeterSpec>, ConfigError> {
        if self.need("carrier")?.string()? != "otlp" {
            return Ok(None);
        }
        let signal = self.word("signal", "logs or metrics", |word| match word {
            "logs" => Some(OtlpSignal::Logs),
            "metrics" => Some(OtlpSignal::Metrics),
            _ => None,
        })?;
        let metrics = signal == Some(OtlpSignal::Metrics);
        let strange = match metrics {
            true => OF_EVENTS.as_slice(),
            false => &OF_NUMBERS,
        };
        if let Some(key) = strange.iter().find(|key| self.values.contains_key(**key)) {
            let why = match metrics {
                true => "is of events: metrics have none",
                false => "has a meaning with signal = \"metrics\" only",
            };
            return Err(self.error(key, why));
        }
        if !metrics {
            return Ok(None);
        }
        let carrier = self.otlp()?;
        self.fits(&carrier)?;
        let CarrierSpec::Otlp(collector) = carrier else {
            return Ok(None);
        };
        let words = "cumulative or delta";
        let temporality = self.word("temporality", words, Temporality::of_word)?;
        let every = self.number("every_ms", EVERY_MIN_MS..=EVERY_MAX_MS, EVERY_MS)?;
        Ok(Some(MeterSpec {
            name: name.to_owned(),
            collector,
            every: Duration::from_millis(every),
            temporality: temporality.unwrap_or_default(),
        }))
    }
}
