//! The agent as it is released: one static program, of the same bytes wherever the same source is built.

use crate::{arch::Arch, build, cmd};
use anyhow::{Context as _, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Largest release that is let through.
const MAX_BYTES: usize = 32 << 20;

/// Builds the kernel side and the agent; returns the program's path.
///
/// glibc linked statically, not musl: the same C library as in every test, and nothing more to install.
pub fn build(epoch: u64) -> Result<PathBuf> {
    build::kernel_side(Arch::X86_64)?;
    // Apart from the other builds: other flags would throw theirs away.
    let dir = cmd::target().join("dist-build");
    let moves = moves(&dir)?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(
        moves
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={from}={to}")),
    );
    let c_flags: Vec<String> = moves
        .iter()
        .map(|(from, to)| format!("-ffile-prefix-map={from}={to}"))
        .collect();
    let mut cargo = cmd::cargo();
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        // Flags and profiles of whoever calls are not the release's.
        if text.starts_with("CARGO_PROFILE_") || text == "RUSTFLAGS" {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--locked", "--package", "keytrail"])
        // With the target named, flags are not for build scripts and macros: a static macro does not load.
        .args(["--profile", "dist", "--target", TARGET, "--target-dir"])
        .arg(&dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(
            format!("CFLAGS_{}", TARGET.replace('-', "_")),
            c_flags.join(" "),
        )
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    cmd::run(&mut cargo)?;
    Ok(dir.join(TARGET).join("dist/keytrail"))
}

/// Paths of this machine that compilers would write into the program, and what stands there instead. The last that
/// fits counts, so that what lies inside another comes behind it.
fn moves(target_dir: &Path) -> Result<Vec<(String, &'static str)>> {
    let sysroot = cmd::output(
        cmd::clean("rustc")
            .args(["--print", "sysroot"])
            .current_dir(cmd::root()),
    )?;
    let mut moves = vec![
        (cmd::registry()?, "/cargo/registry"),
        (sysroot.trim().into(), "/rust"),
        (cmd::root().to_owned(), "/keytrail"),
        (target_dir.to_owned(), "/target"),
    ];
    // Stable, so that what lies in no other keeps its place.
    moves.sort_by_key(|(from, _)| from.components().count());
    Ok(moves
        .into_iter()
        .map(|(from, to)| (from.display().to_string(), to))
        .collect())
}

/// Reads the program and refuses what must not be released.
///
/// # Errors
/// When it is too large, needs a loader, or names this machine's folders.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    if bytes.len() > MAX_BYTES {
        bail!(
            "{} has {} bytes, more than the {MAX_BYTES} that are allowed",
            path.display(),
            bytes.len()
        );
    }
    if let Some(loader) = interpreter(&bytes)? {
        bail!("{} is not static: it wants {loader}", path.display());
    }
    for (from, _) in moves(&cmd::target().join("dist-build"))? {
        if contains(&bytes, format!("{from}/").as_bytes()) {
            bail!("{} names {from}, a folder of this machine", path.display());
        }
    }
    Ok(bytes)
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The loader a 64-bit little-endian ELF program asks for (PT_INTERP), elf(5).
fn interpreter(elf: &[u8]) -> Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> Result<u64> {
        let bytes = elf
            .get(at..at + size)
            .context("the program's headers are cut off")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit ELF program");
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = usize::try_from(table + index * size)?;
        if number(at, 4)? == PT_INTERP {
            let from = usize::try_from(number(at + 8, 8)?)?;
            let length = usize::try_from(number(at + 32, 8)?)?;
            let name = elf
                .get(from..from + length)
                .context("the loader's name is cut off")?;
            return Ok(Some(
                String::from_utf8_lossy(name)
                    .trim_end_matches('\0')
                    .to_owned(),
            ));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_found() {
        let shell = fs::read("/bin/sh").unwrap();
        let loader = interpreter(&shell).unwrap();
        assert!(loader.is_some_and(|name| name.contains("ld-linux")));
        assert!(interpreter(b"#!/bin/sh\n").is_err());
        assert!(interpreter(&shell[..100]).is_err());
    }

    #[test]
    fn the_innermost_folder_comes_last() {
        let inside = cmd::root().join("target/dist-build");
        let moves = moves(&inside).unwrap();
        let place = |to: &str| moves.iter().position(|(_, other)| *other == to).unwrap();
        assert!(place("/keytrail") < place("/target"));
    }
}
