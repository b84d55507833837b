//! What the sensor sees, by which hook, and what it was refused.

use super::words::{Signal, Tier, TlsStack};

/// What [`SignalReport::self_test`] says of a hook that works.
pub const FIRED: &str = "fired";
/// Of one that worked, and is at its place.
pub const SILENT: &str = "does not fire any more";
/// Of one that was taken off its place from outside.
pub const TAKEN_OFF: &str = "taken off";
/// The same, and put on again.
pub const ATTACHED_AGAIN: &str = "attached again";

/// A hook that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub hook: String,
    pub reason: String,
    pub remedy: String,
}

/// How one signal is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalReport {
    pub signal: Signal,
    /// Chosen hooks, joined by " + "; empty when there is none.
    pub hook: String,
    pub tier: Option<Tier>,
    pub refused: Vec<Refused>,
    pub self_test: String,
    pub note: String,
}

impl SignalReport {
    /// A signal that nothing serves yet.
    #[must_use]
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            hook: String::new(),
            tier: None,
            refused: Vec::new(),
            self_test: String::new(),
            note: String::new(),
        }
    }
}

/// One TLS library or executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryReport {
    pub path: String,
    pub stack: Option<TlsStack>,
    pub covered: bool,
    pub reason: String,
    pub remedy: String,
    pub hooks: Vec<String>,
    /// Processes that had it mapped when it was last looked.
    pub users: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
pub struct SensorStatus {
    pub signals: Vec<SignalReport>,
    pub libraries: Vec<LibraryReport>,
    /// Proofs of the field offsets that failed: each is a coverage gap.
    pub offsets: Vec<String>,
}

impl SensorStatus {
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Option<&SignalReport> {
        self.signals.iter().find(|report| report.signal == signal)
    }

    pub fn signal_mut(&mut self, signal: Signal) -> Option<&mut SignalReport> {
        self.signals
            .iter_mut()
            .find(|report| report.signal == signal)
    }
}
