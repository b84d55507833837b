//! Licences, sources and duplicate crates, by cargo-deny.

use super::summary::Part;
use crate::{cmd, setup::linker};
use std::path::PathBuf;

const VERSION: &str = "0.19.0";

/// Runs cargo-deny where there is one. It takes minutes to compile, so a developer without it is told rather
/// than made to wait; CI builds it.
pub fn check(part: &mut Part) {
    let program = find().or_else(|| {
        std::env::var_os("CI")?;
        cmd::step(format!(
            "building cargo-deny {VERSION} into {}",
            linker::tools().display()
        ));
        // Unoptimised: it is built in half the time and runs once.
        let built = cmd::run(
            cmd::clean("cargo")
                .args([
                    "install",
                    "cargo-deny",
                    "--version",
                    VERSION,
                    "--locked",
                    "--quiet",
                    "--debug",
                    "--root",
                ])
                .arg(linker::tools())
                .env("CARGO_TARGET_DIR", linker::tools().join("build"))
                .current_dir(cmd::root()),
        );
        if let Err(error) = built {
            cmd::step(format!("{error:#}"));
        }
        find()
    });
    match program {
        // Advisories come from a git repository, which not every machine that tests can reach; they have
        // nothing to do with the change under test either.
        Some(program) => part.check(
            "cargo deny",
            cmd::run(
                cmd::clean(program)
                    .args([
                        "--workspace",
                        "check",
                        "--hide-inclusion-graph",
                        "licenses",
                        "bans",
                        "sources",
                    ])
                    .current_dir(cmd::root()),
            ),
        ),
        None => part.note("cargo deny skipped: not installed (cargo install --locked cargo-deny)"),
    }
}

fn find() -> Option<PathBuf> {
    let ours = linker::tools().join("bin/cargo-deny");
    if ours.is_file() {
        Some(ours)
    } else {
        cmd::find("cargo-deny")
    }
}
