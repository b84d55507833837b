//! bpf-linker: found where it already is, else built once into `target/tools`.

use super::toolchain::LLVM;
use crate::cmd;
use anyhow::{Context as _, Result};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

pub const VERSION: &str = "0.13.0";

/// Tools built for this checkout alone.
pub fn tools() -> PathBuf {
    cmd::target().join("tools")
}

/// A bpf-linker of the right version that runs: ours, cargo's, or the one on PATH.
pub fn find() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    [Some(tools()), cargo_home]
        .into_iter()
        .flatten()
        .map(|dir| dir.join("bin/bpf-linker"))
        .chain(cmd::find("bpf-linker"))
        // It is linked to LLVM's shared library, so it may be there and yet not start.
        .find(|path| {
            cmd::output(cmd::clean(path).arg("--version"))
                .is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
        })
}

fn command() -> Command {
    let llvm = format!("/usr/lib/llvm-{LLVM}");
    let mut path = vec![Path::new(&llvm).join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut command = cmd::clean("cargo");
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--no-default-features",
        ])
        .arg(format!("--features=llvm-{LLVM}"))
        .arg("--root")
        .arg(tools())
        .env("LLVM_PREFIX", &llvm)
        .env("CARGO_TARGET_DIR", tools().join("build"))
        .current_dir(cmd::root());
    if let Ok(joined) = env::join_paths(path) {
        command.env("PATH", joined);
    }
    command
}

/// The command with the environment it needs.
pub fn shown() -> String {
    format!(
        "LLVM_PREFIX=/usr/lib/llvm-{LLVM} PATH=/usr/lib/llvm-{LLVM}/bin:$PATH {}",
        cmd::show(&command())
    )
}

/// Builds it (about a minute).
pub fn install() -> Result<()> {
    cmd::step(format!(
        "building bpf-linker {VERSION} into {}: it links the kernel side",
        tools().display()
    ));
    cmd::run(&mut command()).context("cannot build bpf-linker")?;
    // Half a gigabyte that nothing needs any more.
    let _ = std::fs::remove_dir_all(tools().join("build"));
    find()
        .map(|_| ())
        .context("bpf-linker was built but does not start")
}
