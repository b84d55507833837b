//! Debian's cloud kernels: which suite has which version, downloaded and unpacked, never installed.

use crate::{cmd, setup::apt};
use anyhow::{Context as _, Result, bail};
use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
};

/// The kernel of a quick run.
pub const DEFAULT: &str = "6.12";

/// Versions in the test matrix, each with the suites that carry it, the first that has it wins.
pub const KNOWN: [(&str, &[&str]); 6] = [
    ("5.10", &["bullseye-security", "bullseye"]),
    ("6.1", &["bookworm-security", "bookworm"]),
    ("6.12", &["bookworm-backports", "trixie"]),
    ("6.18", &["trixie-backports"]),
    ("7.2", &["forky"]),
    ("7.3", &["trixie-backports"]),
];

/// Suites for a version that is not in [`KNOWN`].
const NEWEST: &[&str] = &["trixie-backports", "forky", "sid"];

/// Path of the kernel `version` (such as "6.12") in the cache; downloads its newest package the first time.
pub fn fetch(version: &str, cache: &Path) -> Result<PathBuf> {
    let valid = version.chars().all(|c| c.is_ascii_digit() || c == '.') && version.contains('.');
    if !valid {
        bail!("{version}: not a kernel version; known are {}", known());
    }
    let dir = cache.join(format!("kernel-{version}"));
    let vmlinuz = dir.join("vmlinuz");
    if vmlinuz.is_file() {
        return Ok(vmlinuz);
    }
    let suites = KNOWN
        .iter()
        .find(|(known, _)| *known == version)
        .map_or(NEWEST, |(_, suites)| suites);
    for suite in suites {
        let sources = apt::Private::new(&[suite])?;
        if let Some((package, full)) = newest(&sources, version)? {
            cmd::step(format!("kernel {version}: {package} {full} from {suite}"));
            download(&sources, &package, &full, &dir)?;
            return Ok(vmlinuz);
        }
    }
    bail!(
        "no suite of {} has a cloud kernel {version}; known are {}",
        suites.join(", "),
        known()
    )
}

fn known() -> String {
    KNOWN.map(|(version, _)| version).join(", ")
}

/// Package name and version of the newest cloud kernel `version.*`.
fn newest(sources: &apt::Private, version: &str) -> Result<Option<(String, String)>> {
    let names = cmd::output(sources.cache().args(["pkgnames", "linux-"]))?;
    let named = |kind: &str| -> Vec<String> {
        names
            .lines()
            .filter(|name| is_kernel(name, kind, version))
            .map(str::to_owned)
            .collect()
    };
    // From 7.2 on linux-image-* only pulls in linux-binary-*, which has the kernel.
    let mut packages = named("linux-binary-");
    if packages.is_empty() {
        packages = named("linux-image-");
    }
    if packages.is_empty() {
        return Ok(None);
    }
    let table = cmd::output(sources.cache().arg("madison").args(&packages))?;
    let mut best: Option<(String, String)> = None;
    for line in table.lines() {
        let mut fields = line.split('|').map(str::trim);
        if let (Some(package), Some(full)) = (fields.next(), fields.next())
            && best
                .as_ref()
                .is_none_or(|(_, old)| apt::compare(full, old) == Ordering::Greater)
        {
            best = Some((package.to_owned(), full.to_owned()));
        }
    }
    Ok(best)
}

/// Whether `name` is a signed cloud kernel of `version`: its image, not a meta package, not debug symbols.
fn is_kernel(name: &str, kind: &str, version: &str) -> bool {
    name.strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix(version))
        .and_then(|rest| rest.strip_suffix("-cloud-amd64"))
        .is_some_and(|middle| middle.starts_with(['.', '-', '+', '~']))
}

fn download(sources: &apt::Private, package: &str, version: &str, dir: &Path) -> Result<()> {
    let work = dir.with_extension("partial");
    apt::remake(&work)?;
    cmd::run(
        sources
            .get()
            .arg("-qq")
            .arg("download")
            .arg(format!("{package}={version}"))
            .current_dir(&work),
    )?;
    let deb = apt::debs(&work)?
        .pop()
        .with_context(|| format!("apt-get download left no {package}"))?;
    cmd::run(cmd::clean("dpkg-deb").arg("-x").arg(&deb).arg(&work))?;
    let found =
        find_vmlinuz(&work)?.with_context(|| format!("{package} {version} has no vmlinuz"))?;
    // Only what is needed stays: the package is ten times the size of the kernel.
    let done = dir.with_extension("done");
    apt::remake(&done)?;
    fs::rename(found, done.join("vmlinuz"))?;
    fs::write(done.join("package"), format!("{package} {version}\n"))?;
    fs::remove_dir_all(&work)?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(done, dir)?;
    Ok(())
}

/// `boot/vmlinuz-*`, or `usr/lib/modules/*/vmlinuz` from 7.2 on.
fn find_vmlinuz(root: &Path) -> Result<Option<PathBuf>> {
    for dir in ["boot", "usr/lib/modules", "lib/modules"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let inner = path.join("vmlinuz");
            if inner.is_file() {
                return Ok(Some(inner));
            }
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::is_kernel;

    #[test]
    fn only_the_image_of_that_version() {
        let image = |name| is_kernel(name, "linux-image-", "6.1");
        assert!(image("linux-image-6.1.0-50-cloud-amd64"));
        assert!(!image("linux-image-6.1.0-50-cloud-amd64-unsigned"));
        assert!(!image("linux-image-6.1.0-50-cloud-amd64-dbg"));
        assert!(!image("linux-image-6.12.95+deb12-cloud-amd64"));
        assert!(!image("linux-image-6.1-cloud-amd64"));
        assert!(!image("linux-image-6.1.0-50-amd64"));
        assert!(is_kernel(
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-",
            "6.12"
        ));
    }
}
