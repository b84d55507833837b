//! What the agent counts of itself, as whoever collects metrics is given it.

/// Names and values. Values are of closed vocabularies, of the agent's own code, or of its configuration.
pub type Labels = Vec<(&'static str, String)>;

/// How the numbers of a measure go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureKind {
    /// Only grows, from 0 at the agent's start.
    Count,
    /// Only grows, and began with an earlier run.
    Lasting,
    /// Goes up and down; over several agents its sum means something.
    Level,
    /// Goes up and down; a sum means nothing.
    Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Whole(u64),
    Part(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub labels: Labels,
    pub number: Number,
}

/// One measure of a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// By the rules of OpenMetrics; empty for what is not reported there.
    pub name: &'static str,
    /// By those of OpenTelemetry; empty for what is not reported there.
    pub semantic: &'static str,
    /// By the Unified Code for Units of Measure, as OpenTelemetry wants it.
    pub unit: &'static str,
    pub help: &'static str,
    pub kind: MeasureKind,
    pub points: Vec<Point>,
}
