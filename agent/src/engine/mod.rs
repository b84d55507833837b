//! See docs/ARCHITECTURE.md.

use crate::config::Config;
use keytrail_proto::v1;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What an engine is started with.
pub struct EngineOptions {
    /// Where state is kept; `None` keeps none.
    pub state_dir: Option<PathBuf>,
    pub config: Config,
    /// Where the observations are recorded.
    pub record: Option<PathBuf>,
    /// Only this process and its descendants are of interest.
    pub follow_only: Option<u32>,
}

/// Why an engine cannot start.
#[derive(Debug)]
pub struct EngineError(String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

/// A running engine.
pub struct EngineHandle {
    never: std::convert::Infallible,
}

impl EngineHandle {
    /// # Errors
    /// Always: this branch has no engine.
    pub fn start(
        _options: EngineOptions,
        _sink: Box<dyn FnMut(Arc<v1::Event>) + Send>,
    ) -> Result<EngineHandle, EngineError> {
        Err(EngineError("engine not linked".into()))
    }

    /// What the engine sees and cannot see.
    pub fn status(&self) -> v1::GetStatusResponse {
        match self.never {}
    }

    /// Turns of the engine's loop so far: stands still when the engine does.
    pub fn progress(&self) -> u64 {
        match self.never {}
    }

    /// Drains, decides what is pending, joins.
    pub fn stop(self) -> v1::Counters {
        match self.never {}
    }
}
