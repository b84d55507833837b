//! Where Amazon Security Lake looks for what a custom source delivers
//! (<https://docs.aws.amazon.com/security-lake/latest/userguide/custom-sources.html>, "Partitioning").

use crate::spec::LakeSpec;

/// The partition of a day (`2026-11-29`), as it stands in a URL: `ext/SOURCE/region=REGION/accountId=ACCOUNT/eventDay=20261129`.
/// Signatures want `=` to be encoded.
pub(super) fn partition(lake: &LakeSpec, region: &str, day: &str) -> String {
    let day = day.replace('-', "");
    format!(
        "ext/{}/region%3D{region}/accountId%3D{}/eventDay%3D{day}",
        lake.source, lake.account
    )
}
