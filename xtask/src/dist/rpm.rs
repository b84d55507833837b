//! The package for distributions with RPM.

use super::{
    archive::Role,
    release::{Family, HOMEPAGE, Release, SUMMARY},
};
use anyhow::{Context as _, Result};
use rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder, Scriptlet};

pub fn build(release: &Release) -> Result<Vec<u8>> {
    let epoch = u32::try_from(release.epoch).context("a package's time ends in 2106")?;
    let config = BuildConfig::v4()
        .compression(CompressionWithLevel::Gzip(release.level.level()))
        .source_date(epoch);
    let mut builder = PackageBuilder::new(
        "keytrail",
        &release.version,
        "Apache-2.0",
        "x86_64",
        SUMMARY,
    );
    builder
        .using_config(config)
        .release("1")
        .url(HOMEPAGE)
        // Otherwise the name of this machine.
        .build_host("localhost")
        .description(
            "Probes in the kernel on file reads, execve and the TLS write path find the processes that\n\
             read secret files or carry secrets in their environment, and where they send them.\n\
             No secret is kept.",
        )
        .post_install_script(script(include_str!("../../../deploy/rpm/post")))
        .pre_uninstall_script(script(include_str!("../../../deploy/rpm/preun")))
        .post_uninstall_script(script(include_str!("../../../deploy/rpm/postun")));
    for folder in ["/etc/keytrail", "/usr/share/licenses/keytrail"] {
        builder.with_dir_entry(FileOptions::dir(folder).permissions(0o755))?;
    }
    for file in release.files(Family::Rpm)? {
        let mode = u16::try_from(file.mode).context("a mode has sixteen bits")?;
        let options = FileOptions::new(format!("/{}", file.path)).permissions(mode);
        let options = match file.role {
            Role::Plain => options,
            Role::Config => options.config().noreplace(),
            Role::Doc => options.doc(),
            Role::Licence => options.license(),
        };
        builder.with_file_contents(file.bytes, options)?;
    }
    let mut out = Vec::new();
    builder.build()?.write(&mut out)?;
    Ok(out)
}

/// Without a program named, rpm takes its own shell, which not every build of it has.
fn script(text: &str) -> Scriptlet {
    Scriptlet::new(text).prog(vec!["/bin/sh"])
}
