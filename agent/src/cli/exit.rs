//! Exit statuses of `keytrail`. `trace` exits as its command does (see [`super::spawn`]).

use crate::engine::EngineError;
use keytrail_export::ClientError;

/// It worked.
pub const OK: u8 = 0;
/// It did not; a line on stderr says why.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 2;
/// There is no agent to talk to.
pub const NO_AGENT: u8 = 3;
/// Another agent is already there.
pub const ALREADY_RUNNING: u8 = 4;
/// Root or a capability is missing.
pub const NOT_PERMITTED: u8 = 5;
/// `used`: it was not.
pub const NOT_USED: u8 = 1;
/// `used`: something could not be seen.
pub const NOT_KNOWN: u8 = 6;
/// `used`: the question could not be answered at all.
pub const UNANSWERED: u8 = 7;
/// `trace`: the command was found but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `trace`: there is no such command.
pub const NOT_FOUND: u8 = 127;

/// The same, for `--help`.
pub const HELP: &str = "Exit status: 0 it worked; 1 it did not; 2 wrong usage or configuration; 3 no agent to talk to; \
4 an agent is already there; 5 not permitted (needs root). `used`: 0 yes, 1 no, 6 unknown, 7 no answer. `verify`: 0 as it was made, 1 changed, 2 it cannot be read. `trace` exits with the command's own status, \
128+N when signal N killed it, 127 when there is no such command, 126 when it cannot be executed.";

/// Exit status where no engine could be started: a file that was asked for and cannot be made is the command line's fault.
pub fn status_of_start(e: &EngineError) -> u8 {
    match e {
        EngineError::Recording(_) => USAGE,
        EngineError::Permission(_) | EngineError::Unsupported(_) | EngineError::State(_) => FAILED,
    }
}

/// Exit status for a failed connection.
pub fn status_of(e: &ClientError) -> u8 {
    match e {
        ClientError::NoAgent(_) => NO_AGENT,
        ClientError::Denied(_) => NOT_PERMITTED,
        ClientError::Other { .. } => FAILED,
    }
}
