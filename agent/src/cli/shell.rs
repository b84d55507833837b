//! `keytrail completions` and `keytrail man`: made of the declaration of the command line, so they cannot be behind it.

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{exit, fail};
use clap::CommandFactory as _;
use std::io::{self, Write as _};

pub(super) fn completions(args: &CompletionsArgs) -> u8 {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keytrail", &mut out);
    print(&out)
}

pub(super) fn man(args: &ManArgs) -> u8 {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        let mut out = Vec::new();
        return match clap_mangen::Man::new(command).render(&mut out) {
            Ok(()) => print(&out),
            Err(e) => fail(&e, exit::FAILED),
        };
    };
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    match written {
        Ok(()) => exit::OK,
        Err(e) => fail(&format_args!("{}: {e}", dir.display()), exit::FAILED),
    }
}

fn print(bytes: &[u8]) -> u8 {
    match io::stdout().write_all(bytes) {
        Ok(()) => exit::OK,
        // `keytrail man | head` is no error.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(e) => fail(&e, exit::FAILED),
    }
}
