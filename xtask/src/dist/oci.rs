//! The container image: an OCI image layout in a tar file, with the one program in it.
//!
//! https://github.com/opencontainers/image-spec, 1.1: image-layout.md, manifest.md, config.md.

use super::{
    archive::{File, Role, gzip, sha256, tar},
    release::{HOMEPAGE, PROGRAM, Release, SUMMARY, rfc3339},
};
use anyhow::Result;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Folders a container mounts over or writes to; nothing else is there.
const FOLDERS: [(&str, u32); 4] = [
    ("etc/keytrail", 0o755),
    ("run/keytrail", 0o755),
    ("tmp", 0o1777),
    ("var/lib/keytrail", 0o700),
];

pub fn build(release: &Release) -> Result<Vec<u8>> {
    let created = rfc3339(release.epoch)?;
    let inside = [
        File::new(PROGRAM, 0o755, release.program.clone(), Role::Plain),
        File::new(
            "usr/share/doc/keytrail/LICENSE",
            0o644,
            release.licence.clone(),
            Role::Plain,
        ),
    ];
    let layer = tar(&inside, &FOLDERS, release.epoch)?;
    let diff = sha256(&layer);
    let layer = gzip(&layer, release.level)?;
    let config = text(&json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}")],
            // Apart from the entry point, so that other commands (`doctor`) can be named instead.
            "Cmd": ["agent"],
            "Env": ["PATH=/usr/bin"],
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff}")] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    }))?;
    let manifest = text(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        "annotations": {
            "org.opencontainers.image.created": created,
            "org.opencontainers.image.description": SUMMARY,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.revision": release.commit,
            "org.opencontainers.image.source": HOMEPAGE,
            "org.opencontainers.image.title": "keytrail",
            "org.opencontainers.image.version": release.version,
        },
    }))?;
    let mut described = descriptor(MANIFEST, &manifest);
    described["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    described["annotations"] = json!({
        "org.opencontainers.image.ref.name": release.version,
        // What containerd names the image when it imports it.
        "io.containerd.image.name": format!("ghcr.io/keytrail/keytrail:{}", release.version),
    });
    let index = text(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }))?;
    // `docker load` before version 25 reads this and not the index.
    let docker = text(&json!([{
        "Config": blob(&config),
        "RepoTags": [format!("ghcr.io/keytrail/keytrail:{}", release.version)],
        "Layers": [blob(&layer)],
    }]))?;
    let plain = |path: String, bytes: Vec<u8>| File::new(path, 0o644, bytes, Role::Plain);
    let files = [
        plain(
            "oci-layout".to_owned(),
            text(&json!({ "imageLayoutVersion": "1.0.0" }))?,
        ),
        plain("index.json".to_owned(), index),
        plain("manifest.json".to_owned(), docker),
        plain(blob(&config), config),
        plain(blob(&manifest), manifest),
        plain(blob(&layer), layer),
    ];
    tar(&files, &[], release.epoch)
}

fn text(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256(bytes)),
        "size": bytes.len(),
    })
}
