//! The Debian package; deb(5), deb-control(5).

use super::{
    archive::{File, Role, ar, gzip, md5, tar},
    release::{Family, HOMEPAGE, Release, SUMMARY},
};
use anyhow::Result;

const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../../../deploy/deb/postinst")),
    ("prerm", include_str!("../../../deploy/deb/prerm")),
    ("postrm", include_str!("../../../deploy/deb/postrm")),
];

/// gzip throughout, which every dpkg reads: zstd came with Debian 12.
pub fn build(release: &Release) -> Result<Vec<u8>> {
    let files = release.files(Family::Debian)?;
    let data = gzip(&tar(&files, &[], release.epoch)?, release.level)?;
    let control = gzip(
        &tar(&control(release, &files), &[], release.epoch)?,
        release.level,
    )?;
    Ok(ar(
        &[
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", &control),
            ("data.tar.gz", &data),
        ],
        release.epoch,
    ))
}

fn control(release: &Release, files: &[File]) -> Vec<File> {
    let config = |file: &&File| file.role == Role::Config;
    let conffiles: String = files
        .iter()
        .filter(config)
        .map(|file| format!("/{}\n", file.path))
        .collect();
    let sums: String = files
        .iter()
        .filter(|file| !config(file))
        .map(|file| format!("{}  {}\n", md5(&file.bytes), file.path))
        .collect();
    // KiB, each file rounded up, as dpkg-gencontrol counts.
    let size: usize = files
        .iter()
        .map(|file| file.bytes.len().div_ceil(1024))
        .sum();
    let text = format!(
        "Package: keytrail\n\
         Version: {}\n\
         Architecture: amd64\n\
         Maintainer: keytrail maintainers <keytrail@users.noreply.github.com>\n\
         Installed-Size: {size}\n\
         Section: admin\n\
         Priority: optional\n\
         Homepage: {HOMEPAGE}\n\
         Description: {SUMMARY}\n \
         Probes in the kernel on file reads, execve and the TLS write path find the\n \
         processes that read secret files or carry secrets in their environment, and\n \
         where they send them. No secret is kept.\n",
        release.version
    );
    let plain = |name: &str, text: String| File::new(name, 0o644, text, Role::Plain);
    let mut control = vec![
        plain("control", text),
        plain("conffiles", conffiles),
        plain("md5sums", sums),
    ];
    control.extend(SCRIPTS.map(|(name, text)| File::new(name, 0o755, text, Role::Plain)));
    control
}
