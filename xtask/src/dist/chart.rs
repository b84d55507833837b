//! The Helm chart as `helm package` would pack it: what a cluster is given needs no checkout.

use super::{
    archive::{File, Role, gzip, tar},
    release::Release,
};
use anyhow::{Context as _, Result, bail};
use flate2::Compression;

/// # Errors
/// When the chart is of another version: it would ask for another image.
pub fn build(release: &Release) -> Result<Vec<u8>> {
    let about = release
        .chart
        .iter()
        .find(|(name, _)| name == "keytrail/Chart.yaml")
        .map(|(_, bytes)| String::from_utf8_lossy(bytes))
        .context("the chart has no Chart.yaml")?;
    for key in ["version", "appVersion"] {
        let said = about
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let said = said.unwrap_or_default().trim_matches('"');
        if said != release.version {
            bail!(
                "the chart's {key} is {said:?}, of a release {}",
                release.version
            );
        }
    }
    let files: Vec<File> = release
        .chart
        .iter()
        .map(|(name, bytes)| File::new(name.clone(), 0o644, bytes.clone(), Role::Plain))
        .collect();
    gzip(&tar(&files, &[], release.epoch)?, Compression::best())
}
