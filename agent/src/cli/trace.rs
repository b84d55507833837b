//! `keytrail trace`: what does this command do with credentials?

use super::args::TraceArgs;
use super::follow::{Follow, FollowError, Sinks, follow};
use super::spawn::Held;
use super::{exit, fail, privilege, spawn};
use crate::config::Config;
use crate::output::{Format, Style, TraceEnd, Writer};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

pub(super) fn run(args: &TraceArgs, config: Config) -> u8 {
    // A mistyped command is the commonest mistake: reported before anything is asked of the kernel, or of the user's rights.
    let program = args.command.first().cloned().unwrap_or_default();
    if let Err(e) = spawn::find(&program) {
        return fail(&e, e.status());
    }
    if let Some(sentence) = privilege::missing() {
        return fail(&sentence, exit::NOT_PERMITTED);
    }
    let sinks = match sinks(args) {
        Ok(sinks) => sinks,
        Err(e) => return fail(&e, exit::USAGE),
    };
    let held = match Held::spawn(&args.command) {
        Ok(held) => held,
        Err(e) => return fail(&e, e.status()),
    };
    let followed = match follow(Follow {
        held,
        config,
        record: args.record.clone(),
        sinks,
    }) {
        Ok(followed) => followed,
        Err(FollowError::Spawn(e)) => return fail(&e, e.status()),
        Err(FollowError::Engine(e)) => return fail(&e, exit::status_of_start(&e)),
        Err(e) => return fail(&e, exit::FAILED),
    };
    for e in &followed.unwritten {
        eprintln!("keytrail: events could not be written: {e}");
    }
    // What programs read on stderr is of one form.
    if matches!(args.output, None | Some(Format::Compact | Format::Wide)) {
        let end = TraceEnd {
            command: command_line(&args.command),
            elapsed: followed.elapsed,
            outcome: followed.ended.to_string(),
            survivors: followed.survivors,
        };
        let style = Style::of(io::stderr());
        // stderr may be gone; the command's status is what counts.
        let _ = io::stderr().write_all(
            followed
                .summary
                .trace(&end, &followed.status, &style)
                .as_bytes(),
        );
    }
    followed.ended.status()
}

/// The file for events cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write events to {}: {error}", .path.display())]
struct EventsError {
    path: PathBuf,
    error: io::Error,
}

fn sinks(args: &TraceArgs) -> Result<Sinks, EventsError> {
    let mut sinks: Sinks = Vec::new();
    if let Some(path) = &args.events {
        let file = File::create(path).map_err(|error| EventsError {
            path: path.clone(),
            error,
        })?;
        sinks.push(Writer::new(
            Box::new(BufWriter::new(file)),
            Format::Json,
            Style::PLAIN,
        ));
    }
    // With a file, events are shown as well only when a shape for them is given.
    if args.events.is_none() || args.output.is_some() {
        let format = args.output.unwrap_or_default();
        sinks.push(Writer::new(
            Box::new(io::stderr()),
            format,
            Style::of(io::stderr()),
        ));
    }
    Ok(sinks)
}

/// The command's name only: its arguments may hold a secret that nobody has looked for yet.
fn command_line(command: &[OsString]) -> String {
    let name = command
        .first()
        .map(|c| c.to_string_lossy().into_owned())
        .unwrap_or_default();
    match command.len() {
        0 | 1 => format!("trace of {name}"),
        2 => format!("trace of {name} with 1 argument"),
        n => format!("trace of {name} with {} arguments", n - 1),
    }
}
