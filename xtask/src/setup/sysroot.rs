//! Rust's standard library for another machine. rustup has it for who is online; Debian has it as a package of that machine,
//! built by the very compiler that is installed here, and it is unpacked, never installed.

use super::{apt, toolchain::DEBIAN_RUSTC};
use crate::{arch::Arch, cmd};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PACKAGE: &str = "libstd-rust-web-dev";

/// A compiler that can build for a machine.
pub enum Compiler {
    /// The one that cargo takes anyway.
    Rustup,
    /// Debian's, with this sysroot.
    Debian(PathBuf),
}

/// Finds a compiler for `arch`, and fetches what it lacks.
///
/// # Errors
/// When there is none, and it may not be, or cannot be, fetched.
pub fn compiler(arch: Arch, no_install: bool) -> Result<Compiler> {
    let own = cmd::output(
        cmd::clean("rustc")
            .args(["--print", "target-libdir", "--target", arch.target()])
            .current_dir(cmd::root()),
    );
    if own.is_ok_and(|dir| has_core(Path::new(dir.trim()))) {
        return Ok(Compiler::Rustup);
    }
    if !apt::available() || !Path::new(DEBIAN_RUSTC).is_file() {
        bail!(
            "no compiler here builds for {arch}: rustup target add {}",
            arch.target()
        );
    }
    let version =
        cmd::output(cmd::clean("dpkg-query").args(["--show", "--showformat=${Version}", PACKAGE]))
            .with_context(|| format!("{PACKAGE} is missing: run `cargo xtask setup`"))?;
    let sysroot = cmd::target().join(format!("sysroot{}-{version}", arch.suffix()));
    let libraries = sysroot.join("lib/rustlib").join(arch.target()).join("lib");
    if !has_core(&libraries) {
        if no_install {
            bail!(
                "{PACKAGE} {version} for {} is not unpacked in {}, and --no-install was given",
                arch.debian(),
                sysroot.display()
            );
        }
        fetch(arch, &version, &sysroot)?;
    }
    Ok(Compiler::Debian(sysroot))
}

fn has_core(libraries: &Path) -> bool {
    fs::read_dir(libraries)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
}

/// Only the version of the compiler here will do: it reads no other one's libraries.
fn fetch(arch: Arch, version: &str, sysroot: &Path) -> Result<()> {
    cmd::step(format!(
        "unpacking {PACKAGE} {version} for {}: Rust's standard library for {arch}",
        arch.debian()
    ));
    let sources = apt::Private::for_release_of(&apt::codename(), arch)?;
    let work = sysroot.with_extension("partial");
    apt::remake(&work)?;
    cmd::run(
        sources
            .get()
            .args(["-qq", "download"])
            .arg(format!("{PACKAGE}={version}"))
            .current_dir(&work),
    )?;
    for deb in apt::debs(&work)? {
        cmd::run(cmd::clean("dpkg-deb").arg("-x").arg(&deb).arg(&work))?;
    }
    if sysroot.exists() {
        fs::remove_dir_all(sysroot)?;
    }
    fs::rename(work.join("usr"), sysroot).context("the package has no /usr")?;
    fs::remove_dir_all(&work)?;
    Ok(())
}
