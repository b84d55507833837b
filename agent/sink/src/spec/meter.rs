//! Where the agent's own counts go.

use super::OtlpSpec;
use std::time::Duration;

/// A collector that is told what the agent counts, every so often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterSpec {
    pub name: String,
    pub collector: OtlpSpec,
    pub every: Duration,
    pub temporality: Temporality,
}

/// How counts are reported, by the words of `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// All since the start: what is missed is in the next.
    #[default]
    Cumulative,
    /// Since the last request that was taken.
    Delta,
}

impl Temporality {
    #[must_use]
    pub fn of_word(word: &str) -> Option<Temporality> {
        match word {
            "cumulative" => Some(Temporality::Cumulative),
            "delta" => Some(Temporality::Delta),
            _ => None,
        }
    }
}
