//! Debian's cloud kernels: which suite has which version, downloaded and unpacked, never installed.

use crate::{arch::Arch, cmd, setup::apt};
use anyhow::{Context as _, Result, bail};
use std::{
    cmp::Ordering,
    convert::Infallible,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
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

/// Those of them that are booted for aarch64 too: the oldest that has what the base tier needs, and one with trampolines.
const OF_AARCH64: [&str; 2] = ["6.1", "6.12"];

/// A kernel of some machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    pub arch: Arch,
    /// Such as "6.12".
    pub version: String,
}

impl Kernel {
    pub fn of(arch: Arch, version: &str) -> Self {
        Self {
            arch,
            version: version.to_owned(),
        }
    }

    /// Those of the test matrix.
    pub fn all() -> Vec<Self> {
        let own = KNOWN.iter().map(|(version, _)| *version);
        let own = own.map(|version| Self::of(Arch::default(), version));
        own.chain(OF_AARCH64.map(|version| Self::of(Arch::Aarch64, version)))
            .collect()
    }
}

/// As the document's columns are headed: those of this machine by their version alone.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.version, self.arch.suffix())
    }
}

impl FromStr for Kernel {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_suffix(Arch::Aarch64.suffix()) {
            Some(version) => Self::of(Arch::Aarch64, version),
            None => Self::of(Arch::default(), text),
        })
    }
}

/// Suites for a version that is not in [`KNOWN`].
const NEWEST: &[&str] = &["trixie-backports", "forky", "sid"];

/// Path of the kernel in the cache; downloads its newest package the first time.
pub fn fetch(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let (arch, version) = (kernel.arch, kernel.version.as_str());
    let valid = version.chars().all(|c| c.is_ascii_digit() || c == '.') && version.contains('.');
    if !valid {
        bail!("{version}: not a kernel version; known are {}", known());
    }
    let dir = cache.join(format!("kernel-{kernel}"));
    let vmlinuz = dir.join("vmlinuz");
    if vmlinuz.is_file() {
        return Ok(vmlinuz);
    }
    let suites = KNOWN
        .iter()
        .find(|(known, _)| *known == version)
        .map_or(NEWEST, |(_, suites)| suites);
    for suite in suites {
        let sources = apt::Private::new(&[suite], arch)?;
        if let Some((package, full)) = newest(&sources, kernel)? {
            cmd::step(format!("kernel {kernel}: {package} {full} from {suite}"));
            download(&sources, &package, &full, &dir)?;
            return Ok(vmlinuz);
        }
    }
    bail!(
        "no suite of {} has a cloud kernel {kernel}; known are {}",
        suites.join(", "),
        known()
    )
}

fn known() -> String {
    let all: Vec<String> = Kernel::all().iter().map(Kernel::to_string).collect();
    all.join(", ")
}

/// Package name and version of the newest cloud kernel `version.*`.
fn newest(sources: &apt::Private, kernel: &Kernel) -> Result<Option<(String, String)>> {
    let names = cmd::output(sources.cache().args(["pkgnames", "linux-"]))?;
    let named = |kind: &str| -> Vec<String> {
        names
            .lines()
            .filter(|name| is_kernel(name, kind, kernel))
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

/// Whether `name` is a signed cloud kernel of that version: its image, not a meta package, not debug symbols.
fn is_kernel(name: &str, kind: &str, kernel: &Kernel) -> bool {
    name.strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix(&kernel.version))
        .and_then(|rest| rest.strip_suffix(kernel.arch.debian()))
        .and_then(|rest| rest.strip_suffix("-cloud-"))
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
    use super::{Kernel, is_kernel};
    use crate::arch::Arch;

    #[test]
    fn only_the_image_of_that_version() {
        let image = |name| is_kernel(name, "linux-image-", &"6.1".parse().unwrap());
        assert!(image("linux-image-6.1.0-50-cloud-amd64"));
        assert!(!image("linux-image-6.1.0-50-cloud-amd64-unsigned"));
        assert!(!image("linux-image-6.1.0-50-cloud-amd64-dbg"));
        assert!(!image("linux-image-6.12.95+deb12-cloud-amd64"));
        assert!(!image("linux-image-6.1-cloud-amd64"));
        assert!(!image("linux-image-6.1.0-50-amd64"));
        assert!(is_kernel(
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-",
            &"6.12".parse().unwrap()
        ));
        let of_aarch64 = |name| is_kernel(name, "linux-image-", &"6.1-aarch64".parse().unwrap());
        assert!(of_aarch64("linux-image-6.1.0-50-cloud-arm64"));
        assert!(!of_aarch64("linux-image-6.1.0-50-cloud-amd64"));
        assert!(!image("linux-image-6.1.0-50-cloud-arm64"));
    }

    #[test]
    fn a_kernel_has_one_name() {
        for kernel in Kernel::all() {
            assert_eq!(kernel.to_string().parse(), Ok(kernel));
        }
        let one = Kernel::of(Arch::Aarch64, "6.12");
        assert_eq!(one.to_string(), "6.12-aarch64");
        assert!(Kernel::all().contains(&one));
    }
}
