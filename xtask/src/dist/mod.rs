//! `cargo xtask dist`: the files of a release, of the same bytes for the same commit.
//!
//! Own writers for what takes a few lines; cargo-deb and cargo-generate-rpm compile for minutes and do not share them.

mod agent;
mod archive;
mod chart;
mod deb;
mod oci;
mod parts;
mod release;
mod rpm;
mod sbom;
#[cfg(test)]
mod tests;

use crate::{arch::Arch, build, cmd, setup};
use anyhow::{Context as _, Result};
use flate2::Compression;
use release::{Release, Source};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

#[derive(clap::Args)]
pub struct Args {
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
    /// Only target/debug/keytrail.deb, of the debug build that is there: what the tests install
    #[arg(long, hide = true)]
    for_tests: bool,
}

/// `cargo xtask dist`
pub fn run(args: &Args) -> Result<()> {
    let source = Source::of_checkout()?;
    if args.for_tests {
        return for_tests(source);
    }
    setup::ensure(&[setup::Group::Build], args.no_install)?;
    let path = agent::build(source.epoch)?;
    let release = Release::gather(agent::read(&path)?, &path, source, Compression::best())?;
    let dir = cmd::target().join("dist");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    for (name, bytes) in outputs(&release)? {
        let path = dir.join(&name);
        fs::write(&path, &bytes).with_context(|| path.display().to_string())?;
        let mode = if name == "keytrail" { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        cmd::step(format!("{} ({} bytes)", path.display(), bytes.len()));
    }
    Ok(())
}

/// Every file of a release by its name, SHA256SUMS last.
fn outputs(release: &Release) -> Result<Vec<(String, Vec<u8>)>> {
    let version = &release.version;
    let mut outputs = vec![
        ("keytrail".to_owned(), release.program.clone()),
        // As Helm names it.
        (format!("keytrail-{version}.tgz"), chart::build(release)?),
        (
            format!("keytrail-{version}-1.x86_64.rpm"),
            rpm::build(release)?,
        ),
        (format!("keytrail-{version}-oci.tar"), oci::build(release)?),
        (
            format!("keytrail-{version}.cdx.json"),
            sbom::build(release)?,
        ),
        (
            format!("keytrail_{version}_amd64.deb"),
            deb::build(release)?,
        ),
    ];
    let sums: String = outputs
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", archive::sha256(bytes)))
        .collect();
    outputs.push(("SHA256SUMS".to_owned(), sums.into_bytes()));
    Ok(outputs)
}

/// A package of the debug build, which is not static and not small: installing it is what is tested.
fn for_tests(source: Source) -> Result<()> {
    let built = build::agent_path(Arch::X86_64, build::Profile::Debug);
    let lean = built.with_extension("stripped");
    cmd::run(cmd::clean("strip").arg("-o").arg(&lean).arg(&built))?;
    let release = Release::gather(fs::read(&lean)?, &lean, source, Compression::fast())?;
    fs::remove_file(&lean)?;
    write_new(&built.with_extension("deb"), &deb::build(&release)?)
}

/// Renamed into place: a test that reads it meanwhile has the old or the new one.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, path).with_context(|| path.display().to_string())
}
