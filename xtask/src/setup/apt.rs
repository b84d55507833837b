//! Debian packages: what is installed, what the machine's sources offer, and a private list for the rest.
//!
//! The machine's own sources are never changed. What they do not have in a version that will do comes from a
//! private list in `target/apt`, which apt is pointed at for one command.

use super::Package;
use crate::{arch::Arch, cmd};
use anyhow::{Context as _, Result, bail};
use std::{
    cmp::Ordering,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Taken from backports where the private list has them. Only these: with backports as the target release apt
/// would also raise libraries that this release's own packages want in their own version.
const FROM_BACKPORTS: &str = "qemu-system-* seabios";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether this is a Debian whose packages we can install.
pub fn available() -> bool {
    Path::new(KEYRING).is_file()
        && cmd::find("apt-get").is_some()
        && os_release("ID").as_deref() == Some("debian")
}

/// The release of this machine, or Debian 12 where it is another system.
pub fn codename() -> String {
    match (os_release("ID").as_deref(), os_release("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => name,
        _ => "bookworm".to_owned(),
    }
}

fn os_release(key: &str) -> Option<String> {
    fs::read_to_string("/etc/os-release")
        .ok()?
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name == key).then(|| value.trim_matches('"').to_owned())
        })
}

/// Debian's version order.
pub fn compare(left: &str, right: &str) -> Ordering {
    let holds = |relation| {
        cmd::clean("dpkg")
            .args(["--compare-versions", left, relation, right])
            .status()
            .is_ok_and(|status| status.success())
    };
    if holds("gt") {
        Ordering::Greater
    } else if holds("eq") {
        Ordering::Equal
    } else {
        Ordering::Less
    }
}

/// Whether a version will do for a package.
fn will_do(package: &Package, version: &str) -> bool {
    package
        .at_least
        .is_none_or(|least| compare(version, least) != Ordering::Less)
}

/// Those of `wanted` that are not installed, or too old.
pub fn missing(wanted: &[Package]) -> Result<Vec<Package>> {
    let names: Vec<&str> = wanted.iter().map(|package| package.name).collect();
    // Its status is 1 when one of them is unknown; the known ones are printed all the same.
    let out = cmd::clean("dpkg-query")
        .args([
            "--show",
            "--showformat=${Package} ${Version} ${db:Status-Status}\n",
        ])
        .args(&names)
        .output()
        .context("cannot start dpkg-query")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let installed: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_suffix(" installed")?.split_once(' '))
        .collect();
    let mut missing: Vec<Package> = Vec::new();
    for package in wanted {
        let there = installed
            .get(package.name)
            .is_some_and(|version| will_do(package, version));
        if !there && missing.iter().all(|other| other.name != package.name) {
            missing.push(*package);
        }
    }
    Ok(missing)
}

/// What to install from where.
#[derive(Default)]
pub struct Plan {
    /// From the machine's own sources.
    own: Vec<Package>,
    /// From the private list, and from which suite there.
    private: Vec<(Package, String)>,
    sources: Option<Private>,
}

impl Plan {
    /// Everything from the machine's own sources, without asking them.
    #[cfg(test)]
    pub fn from_own(packages: &[Package]) -> Self {
        Self {
            own: packages.to_vec(),
            ..Self::default()
        }
    }

    pub fn packages(&self) -> impl Iterator<Item = (&Package, Option<&str>)> {
        let own = self.own.iter().map(|package| (package, None));
        own.chain(
            self.private
                .iter()
                .map(|(package, suite)| (package, Some(suite.as_str()))),
        )
    }

    /// The commands that carry it out.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        if !self.own.is_empty() {
            commands.push(install_command(
                &[],
                self.own.iter().map(|package| package.name),
            ));
        }
        commands.extend(self.private_command());
        commands
    }

    fn private_command(&self) -> Option<Command> {
        let names = self.private.iter().map(|(package, _)| package.name);
        Some(install_command(&self.sources.as_ref()?.options(), names))
    }
}

/// Finds out where each package comes from: the machine's sources (updated once when they lack any), else the
/// private list.
pub fn plan(missing: &[Package]) -> Result<Plan> {
    if missing.is_empty() {
        return Ok(Plan::default());
    }
    let offers = |package: &Package| {
        candidate(package.name).is_some_and(|version| will_do(package, &version))
    };
    let (mut own, mut rest): (Vec<Package>, Vec<Package>) =
        missing.iter().partition(|package| offers(package));
    if !rest.is_empty() && lists_are_old() {
        update();
        (own, rest) = missing.iter().partition(|package| offers(package));
    }
    if rest.is_empty() {
        return Ok(Plan {
            own,
            ..Plan::default()
        });
    }
    let suite = codename();
    let sources = Private::for_release(&suite)?;
    let mut private = Vec::new();
    for package in rest {
        let from = sources.suite_of(&package)?.with_context(|| {
            format!(
                "no Debian suite here has {} {}",
                package.name,
                package.at_least.unwrap_or_default()
            )
        })?;
        cmd::step(format!(
            "{} {}is not in this machine's apt sources; {from} has it (private list, sources stay as they are)",
            package.name,
            package
                .at_least
                .map(|version| format!("(at least {version}) "))
                .unwrap_or_default()
        ));
        private.push((package, from));
    }
    Ok(Plan {
        own,
        private,
        sources: Some(sources),
    })
}

/// Carries a plan out.
pub fn install(plan: Plan) -> Result<()> {
    for (package, suite) in plan.packages() {
        let from = suite.map(|suite| format!(" [{suite}]")).unwrap_or_default();
        cmd::step(format!(
            "installing {}{from}: {}",
            package.name, package.why
        ));
    }
    let own: Vec<&str> = plan.own.iter().map(|package| package.name).collect();
    if !own.is_empty() {
        install_own(&own)?;
    }
    if let Some(mut command) = plan.private_command() {
        cmd::step(cmd::show(&command));
        cmd::run(&mut command).context("apt-get failed; is the mirror reachable?")?;
    }
    Ok(())
}

/// Installs from the machine's own sources, and from the private list when those cannot: a machine without
/// its release's security updates among its sources may have newer libraries than those sources fit.
fn install_own(names: &[&str]) -> Result<()> {
    let mut command = install_command(&[], names.iter().copied());
    cmd::step(cmd::show(&command));
    if cmd::run(&mut command).is_ok() {
        return Ok(());
    }
    // An old list names versions that the mirror has dropped since.
    update();
    if cmd::run(&mut command).is_ok() {
        return Ok(());
    }
    let sources = Private::for_release(&codename())?;
    let mut command = install_command(&sources.options(), names.iter().copied());
    cmd::step(format!(
        "this machine's apt sources cannot; once more with a private list: {}",
        cmd::show(&command)
    ));
    cmd::run(&mut command).context("apt-get failed three times; is the mirror reachable?")
}

fn install_command<'a>(options: &[String], names: impl Iterator<Item = &'a str>) -> Command {
    let mut command = cmd::as_root("env");
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(options);
    command.args([
        "install",
        "--yes",
        "--no-install-recommends",
        "-o",
        "Dpkg::Use-Pty=0",
        "-qq",
    ]);
    command.args(names);
    command
}

/// The version apt would install from the machine's own sources.
fn candidate(name: &str) -> Option<String> {
    parse_candidate(
        &cmd::output(
            cmd::clean("apt-cache")
                .args(["policy", name])
                .env("LC_ALL", "C"),
        )
        .ok()?,
    )
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Whether the machine's package lists are absent or older than an hour: then an update may help.
fn lists_are_old() -> bool {
    let newest = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|meta| meta.is_file() && meta.len() > 0)
        .filter_map(|meta| std::os::unix::fs::MetadataExt::ctime(&meta).try_into().ok())
        .max()
        .map(|seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    newest.is_none_or(|time| {
        time.elapsed()
            .is_ok_and(|age| age > Duration::from_secs(3600))
    })
}

/// Updates the machine's lists. A source of somebody else's that cannot be reached is not our problem: what
/// matters is whether the packages are found afterwards.
fn update() {
    let mut command = cmd::as_root("apt-get");
    command.args(["update", "-qq"]);
    cmd::step(cmd::show(&command));
    if let Err(error) = cmd::run(&mut command) {
        cmd::step(format!(
            "some apt source failed, going on without it: {error:#}"
        ));
    }
}

/// A list of suites of our own, used through apt's options for single commands.
#[derive(Clone)]
pub struct Private {
    dir: PathBuf,
    suites: Vec<String>,
    arch: Arch,
}

impl Private {
    /// Everything of one release: its updates, its security fixes and its backports.
    pub fn for_release(codename: &str) -> Result<Self> {
        Self::for_release_of(codename, Arch::default())
    }

    /// The same of another machine: nothing of it is ever installed here.
    pub fn for_release_of(codename: &str, arch: Arch) -> Result<Self> {
        let names = [
            codename.to_owned(),
            format!("{codename}-updates"),
            format!("{codename}-security"),
            format!("{codename}-backports"),
        ];
        Self::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), arch)
    }

    /// These suites of Debian; fetches their lists when they are absent or older than a day.
    pub fn new(suites: &[&str], arch: Arch) -> Result<Self> {
        let name = format!("{}{}", suites[0], arch.suffix());
        let dir = cmd::target().join("apt").join(name);
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let of = match arch {
            Arch::X86_64 => String::new(),
            other => format!("arch={} ", other.debian()),
        };
        let list: String = suites
            .iter()
            .map(|suite| {
                let mirror = if suite.ends_with("-security") {
                    security_mirror()
                } else {
                    mirror()
                };
                format!("deb [{of}signed-by={KEYRING}] {mirror} {suite} main\n")
            })
            .collect();
        let private = Self {
            dir,
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            arch,
        };
        let stamp = private.dir.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| {
                time.elapsed()
                    .is_ok_and(|age| age < Duration::from_secs(86_400))
            });
        let file = private.dir.join("sources.list");
        let same = fs::read_to_string(&file).is_ok_and(|old| old == list);
        if !(fresh && same) {
            fs::write(&file, list)?;
            let pins: String = suites
                .iter()
                .filter(|suite| suite.ends_with("-backports"))
                .map(|suite| {
                    format!(
                        "Package: {FROM_BACKPORTS}\nPin: release n={suite}\nPin-Priority: 990\n\n"
                    )
                })
                .collect();
            fs::write(private.dir.join("preferences"), pins)?;
            cmd::run(private.get().args(["update", "-qq"])).with_context(|| {
                format!("cannot fetch the package lists of {}", suites.join(", "))
            })?;
            fs::write(&stamp, "")?;
        }
        Ok(private)
    }

    /// Options that point apt at this list.
    fn options(&self) -> Vec<String> {
        let dir = self.dir.display();
        let other = match self.arch {
            Arch::X86_64 => vec![],
            other => vec![
                format!("APT::Architecture={}", other.debian()),
                format!("APT::Architectures={}", other.debian()),
            ],
        };
        [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            // The machine's pinning is about the machine's sources.
            format!("Dir::Etc::preferences={dir}/preferences"),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            // Nothing of root's must end up in the checkout.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // apt's own user cannot read a checkout under /root or a closed home.
            format!(
                "APT::Sandbox::User={}",
                if cmd::is_root() { "root" } else { "" }
            ),
            "Acquire::Languages=none".to_owned(),
        ]
        .into_iter()
        .chain(other)
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    fn unprivileged(&self, program: &str) -> Command {
        let mut command = cmd::clean(program);
        command
            .args(self.options())
            .arg("-o")
            .arg(format!("Dir::Cache={}/cache", self.dir.display()));
        command
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// `apt-get` on this list, for what needs no root (update, download).
    pub fn get(&self) -> Command {
        self.unprivileged("apt-get")
    }

    /// `apt-cache` on this list.
    pub fn cache(&self) -> Command {
        self.unprivileged("apt-cache")
    }

    /// The first suite that has the package in a version that will do.
    fn suite_of(&self, package: &Package) -> Result<Option<String>> {
        let table = cmd::output(self.cache().args(["madison", package.name]))?;
        for suite in &self.suites {
            for (version, place) in parse_madison(&table) {
                let there = place
                    .split_whitespace()
                    .any(|word| word.strip_suffix("/main") == Some(suite));
                if there && will_do(package, version) {
                    return Ok(Some(suite.clone()));
                }
            }
        }
        Ok(None)
    }
}

/// Version and source of each line of `apt-cache madison`.
fn parse_madison(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        Some((fields.nth(1)?, fields.next()?))
    })
}

/// `KEYTRAIL_DEBIAN_MIRROR`, else the mirror this machine uses, else Debian's.
fn mirror() -> String {
    from_env("KEYTRAIL_DEBIAN_MIRROR")
        .or_else(|| own_mirror(false))
        .unwrap_or_else(|| MIRROR.to_owned())
}

fn security_mirror() -> String {
    from_env("KEYTRAIL_DEBIAN_SECURITY_MIRROR")
        .or_else(|| own_mirror(true))
        .unwrap_or_else(|| SECURITY_MIRROR.to_owned())
}

fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Base address of this machine's source for its own release.
fn own_mirror(security: bool) -> Option<String> {
    let release = codename();
    let format = "$(SITE) $(RELEASE) $(ORIGIN) $(LABEL)";
    let targets = cmd::output(cmd::clean("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))
    .ok()?;
    let wanted = if security {
        format!("{release}-security")
    } else {
        release
    };
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (site, suite, origin) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && suite == wanted && site.starts_with("http")).then(|| site.to_owned())
    })
}

/// An empty folder at `dir`, whatever was there.
pub fn remake(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Packages in a folder.
pub fn debs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("no package in {}", dir.display());
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates() {
        let policy = "qemu:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n  Version table:\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("1:7.2+dfsg-7"));
        assert_eq!(parse_candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn madison_lines() {
        let table = " rustc-web | 1.96.0+dfsg1-1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages\nbroken\n";
        let lines: Vec<_> = parse_madison(table).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].0, "1.96.0+dfsg1-1");
        assert!(lines[0].1.contains("bookworm-security/main"));
    }
}
