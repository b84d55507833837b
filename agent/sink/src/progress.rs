//! What the parts of a sink share: how far it is, and whom it tells.

use crate::cursor::Cursor;
use keytrail_model::GapSeen;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes what was not delivered, to be reported like anything else that is not seen. Never waits.
pub type ReportGap = Arc<dyn Fn(GapSeen) + Send + Sync>;

/// A text without the credentials in it.
pub type Redact = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// How far one is, shared with its thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub cursor: Cursor,
    pub error: String,
    /// Wall clock, ns; 0 when it does not fail.
    pub failing_since_ns: u64,
}

/// The data stay whole if somebody panicked meanwhile.
pub(crate) fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
