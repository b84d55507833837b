//! What goes into every package, and where.

use super::{
    archive::{File, Role, gzip},
    parts::{self, Part},
};
use crate::cmd;
use anyhow::{Context as _, Result};
use flate2::Compression;
use std::{fs, path::Path};

pub const HOMEPAGE: &str = "https://github.com/keytrail/keytrail";
pub const SUMMARY: &str = "who uses which credential on this host, and where it goes";
pub const PROGRAM: &str = "usr/bin/keytrail";

/// Everything that packages are made of: nothing else is asked when they are.
pub struct Release {
    pub version: String,
    pub commit: String,
    /// Seconds since 1970; the one time that stands in the files.
    pub epoch: u64,
    pub level: Compression,
    pub program: Vec<u8>,
    pub unit: Vec<u8>,
    pub config: Vec<u8>,
    pub licence: Vec<u8>,
    /// Name of the file and the page.
    pub man: Vec<(String, Vec<u8>)>,
    pub bash: Vec<u8>,
    pub zsh: Vec<u8>,
    pub fish: Vec<u8>,
    /// Of the Helm chart: name of the file, and what is in it.
    pub chart: Vec<(String, Vec<u8>)>,
    /// What the program is linked from.
    pub parts: Vec<Part>,
}

/// Who installs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Debian,
    Rpm,
}

impl Release {
    /// Reads what the checkout has, and lets the program say the rest. `speaker` is the program, as a file that starts.
    pub fn gather(
        program: Vec<u8>,
        speaker: &Path,
        source: Source,
        level: Compression,
    ) -> Result<Self> {
        let file = |path: &str| fs::read(cmd::root().join(path)).with_context(|| path.to_owned());
        let completions = |shell: &str| -> Result<Vec<u8>> {
            Ok(cmd::output(cmd::clean(speaker).args(["completions", shell]))?.into_bytes())
        };
        let parts = parts::parts()?;
        let own = parts
            .iter()
            .find(|part| part.name == "keytrail")
            .context("keytrail is not among its own parts")?;
        Ok(Self {
            version: own.version.clone(),
            commit: source.commit,
            epoch: source.epoch,
            level,
            unit: file("deploy/systemd/keytrail.service")?,
            config: file("deploy/agent.toml")?,
            licence: file("LICENSE")?,
            man: man(speaker)?,
            bash: completions("bash")?,
            zsh: completions("zsh")?,
            fish: completions("fish")?,
            chart: chart()?,
            program,
            parts,
        })
    }

    /// The files of a package.
    pub fn files(&self, family: Family) -> Result<Vec<File>> {
        let plain = |path: &str, bytes: &[u8]| File::new(path, 0o644, bytes, Role::Plain);
        let zsh = match family {
            Family::Debian => "usr/share/zsh/vendor-completions/_keytrail",
            Family::Rpm => "usr/share/zsh/site-functions/_keytrail",
        };
        let mut files = vec![
            File::new(PROGRAM, 0o755, self.program.clone(), Role::Plain),
            File::new(
                "etc/keytrail/agent.toml",
                0o644,
                self.config.clone(),
                Role::Config,
            ),
            plain("usr/lib/systemd/system/keytrail.service", &self.unit),
            plain("usr/share/bash-completion/completions/keytrail", &self.bash),
            plain(zsh, &self.zsh),
            plain(
                "usr/share/fish/vendor_completions.d/keytrail.fish",
                &self.fish,
            ),
        ];
        for (name, page) in &self.man {
            let page = gzip(page, Compression::best())?;
            files.push(File::new(
                format!("usr/share/man/man1/{name}.gz"),
                0o644,
                page,
                Role::Doc,
            ));
        }
        match family {
            Family::Debian => {
                let doc = |name: &str, bytes: Vec<u8>| {
                    File::new(
                        format!("usr/share/doc/keytrail/{name}"),
                        0o644,
                        bytes,
                        Role::Doc,
                    )
                };
                files.push(doc("copyright", self.copyright()?.into_bytes()));
                let changes = gzip(self.changelog()?.as_bytes(), Compression::best())?;
                files.push(doc("changelog.gz", changes));
                files.push(File::new(
                    "usr/share/lintian/overrides/keytrail",
                    0o644,
                    include_bytes!("../../../deploy/deb/lintian-overrides"),
                    Role::Plain,
                ));
            }
            Family::Rpm => files.push(File::new(
                "usr/share/licenses/keytrail/LICENSE",
                0o644,
                self.licence.clone(),
                Role::Licence,
            )),
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Debian's machine-readable form, version 1.0; the licence's text is in base-files.
    fn copyright(&self) -> Result<String> {
        let linked: String = self
            .parts
            .iter()
            .filter(|part| !part.own)
            .map(|part| format!(" {} {}: {}\n", part.name, part.version, part.licence))
            .collect();
        let year = date(self.epoch, "+%Y")?;
        Ok(format!(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
             Upstream-Name: keytrail\n\
             Source: {HOMEPAGE}\n\
             Comment: Linked into the program, each under its own licence:\n{linked}\n\
             Files: *\n\
             Copyright: {year} the authors of keytrail\n\
             License: Apache-2.0\n \
             On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n"
        ))
    }

    /// deb-changelog(5): this release alone, and the commit it is of.
    fn changelog(&self) -> Result<String> {
        Ok(format!(
            "keytrail ({}) stable; urgency=medium\n\n  * Release of commit {}.\n\n \
             -- keytrail maintainers <keytrail@users.noreply.github.com>  {}\n",
            self.version,
            self.commit,
            date(self.epoch, "+%a, %d %b %Y %H:%M:%S +0000")?
        ))
    }
}

/// What a release is made from, as it is before anything is built.
pub struct Source {
    pub commit: String,
    pub epoch: u64,
}

impl Source {
    /// The commit that is checked out (a source without history has none), and the time that stands wherever one has
    /// to: SOURCE_DATE_EPOCH, or the commit's.
    pub fn of_checkout() -> Result<Self> {
        let git = |words: &[&str]| {
            cmd::output(cmd::clean("git").args(words).current_dir(cmd::root()))
                .map(|text| text.trim().to_owned())
        };
        // Without its tags: the commit alone, and a word when files are not as they were committed.
        let describe = [
            "describe",
            "--always",
            "--abbrev=40",
            "--exclude=*",
            "--dirty",
        ];
        let time = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => git(&["log", "-1", "--format=%ct"])
                .context("no commit to take the time from: set SOURCE_DATE_EPOCH")?,
        };
        Ok(Self {
            commit: git(&describe).unwrap_or_else(|_| "unknown".to_owned()),
            epoch: time
                .parse()
                .with_context(|| format!("{time:?} is no number of seconds"))?,
        })
    }
}

/// The chart's files, by their paths below `keytrail/`, in order.
fn chart() -> Result<Vec<(String, Vec<u8>)>> {
    fn read(dir: &Path, name: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => read(&entry.path(), &name, files)?,
                false => files.push((name, fs::read(entry.path())?)),
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    read(
        &cmd::root().join("deploy/helm/keytrail"),
        "keytrail",
        &mut files,
    )?;
    files.sort();
    Ok(files)
}

/// The manual pages, in order of their names.
fn man(speaker: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let dir = cmd::target().join("dist-man");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    cmd::run(cmd::clean(speaker).args(["man", "--dir"]).arg(&dir))?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        pages.push((name, fs::read(entry.path())?));
    }
    pages.sort();
    fs::remove_dir_all(&dir)?;
    Ok(pages)
}

/// RFC 3339, in UTC.
pub fn rfc3339(epoch: u64) -> Result<String> {
    date(epoch, "+%Y-%m-%dT%H:%M:%SZ")
}

fn date(epoch: u64, format: &str) -> Result<String> {
    let text = cmd::output(
        cmd::clean("date")
            .env("LC_ALL", "C")
            .args(["-u", "-d"])
            .arg(format!("@{epoch}"))
            .arg(format),
    )?;
    Ok(text.trim().to_owned())
}
