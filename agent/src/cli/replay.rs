//! `keytrail replay`: a recording through the same core, to the same events.

use super::args::ReplayArgs;
use super::{exit, fail};
use crate::engine::replay;
use crate::output::{Style, Writer};
use std::fs::File;
use std::io::{self, BufReader};

pub(super) fn run(args: &ReplayArgs) -> u8 {
    let file = match File::open(&args.recording) {
        Ok(file) => file,
        Err(e) => {
            return fail(
                &format_args!("{}: {e}", args.recording.display()),
                exit::FAILED,
            );
        }
    };
    let mut writer = Writer::new(io::stdout(), args.output, Style::of(io::stdout()));
    let mut written = Ok(());
    let replayed = replay(BufReader::new(file), |event| {
        if written.is_ok() {
            written = writer.event(&event);
        }
    });
    match (replayed, written) {
        (Err(e), _) => fail(&e, exit::FAILED),
        // Whoever read the output has seen enough.
        (_, Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        (_, Err(e)) => fail(&e, exit::FAILED),
        (Ok(_), Ok(())) => exit::OK,
    }
}
