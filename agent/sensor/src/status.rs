//! What the sensor sees, by which hook, and what it was refused.

use keytrail_proto::v1;

/// Which kind of hooks is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Raw tracepoints, uprobes, cgroup hooks, fanotify.
    Base,
    /// Trampolines on kernel functions.
    Fentry,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Fentry => "fentry",
        }
    }
}

/// A hook that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub hook: String,
    pub reason: String,
    pub remedy: String,
}

/// How one signal is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalReport {
    pub signal: &'static str,
    /// Chosen hooks, joined by " + "; empty when there is none.
    pub hook: String,
    pub tier: Option<Tier>,
    pub refused: Vec<Refused>,
    pub self_test: String,
    pub note: String,
}

/// One TLS library or executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryReport {
    pub path: String,
    /// openssl, gnutls, go, nss, ...
    pub stack: String,
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
    pub fn signal(&self, name: &str) -> Option<&SignalReport> {
        self.signals.iter().find(|report| report.signal == name)
    }

    pub(super) fn signal_mut(&mut self, name: &str) -> Option<&mut SignalReport> {
        self.signals.iter_mut().find(|report| report.signal == name)
    }
}

impl From<&SignalReport> for v1::SignalStatus {
    fn from(report: &SignalReport) -> Self {
        Self {
            signal: report.signal.to_owned(),
            hook: report.hook.clone(),
            tier: report.tier.map(Tier::name).unwrap_or_default().to_owned(),
            refused: report
                .refused
                .iter()
                .map(|refused| v1::RefusedHook {
                    hook: refused.hook.clone(),
                    reason: refused.reason.clone(),
                    remedy: refused.remedy.clone(),
                })
                .collect(),
            self_test: report.self_test.clone(),
            note: report.note.clone(),
        }
    }
}

impl From<&LibraryReport> for v1::LibraryStatus {
    fn from(report: &LibraryReport) -> Self {
        Self {
            path: report.path.clone(),
            stack: report.stack.clone(),
            covered: report.covered,
            reason: report.reason.clone(),
            remedy: report.remedy.clone(),
            hooks: report.hooks.clone(),
        }
    }
}
