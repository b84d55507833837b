//! A recording through the same core: byte-identical events.

use super::pipeline::judge::Judge;
use keytrail_core::correlate::Core;
use keytrail_export::convert;
use keytrail_model::Observation;
use keytrail_proto::v1;
use std::io::{self, BufRead};

/// Longest line of a recording that is read, bytes. The longest is what the findings are told at the start: what is usual, which
/// findings are known, and the rules of the site.
const MAX_LINE: u64 = 128 * 1024 * 1024;

/// Why a recording could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the recording cannot be read: {0}")]
    Io(io::Error),
    /// A line is not an observation.
    #[error("line {number} of the recording: {reason}")]
    Line { number: u64, reason: String },
}

/// Feeds every observation of `recording` to a new core; `each` gets the events.
///
/// # Errors
/// Reading fails, or a line is not an observation.
pub fn replay(
    mut recording: impl BufRead,
    mut each: impl FnMut(v1::Event),
) -> Result<u64, ReplayError> {
    let mut core = Core::new();
    let mut judge = Judge::default();
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = io::Read::take(&mut recording, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(ReplayError::Io)?;
        if n == 0 {
            return Ok(number);
        }
        number += 1;
        let observation: Observation =
            serde_json::from_slice(&line).map_err(|e| ReplayError::Line {
                number,
                reason: e.to_string(),
            })?;
        if let Observation::Findings { input } = &observation {
            judge.apply(input);
        }
        let mut found = Vec::new();
        for event in core.step(&observation).events {
            let mut event = convert::event(event);
            found.extend(judge.step(&mut event));
            each(event);
        }
        for mut event in found {
            event.id = Some(convert::id(core.next_id()));
            each(event);
        }
    }
}
