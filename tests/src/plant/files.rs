//! Credentials that live in files.

use super::{Planted, Secret, aws, bytes, text};
use crate::command::act;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Writes `HOME/.aws/credentials` with one profile; returns the credential and the path.
pub fn aws_credentials(home: &Path) -> (Planted, PathBuf) {
    let planted = aws();
    let path = home.join(".aws/credentials");
    let content = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        planted.identifier.as_deref().unwrap(),
        planted.value
    );
    write(&path, &content);
    (planted, path)
}

/// Writes a service-account key of GCP with a fresh RSA key to `path`.
pub fn service_account(path: &Path) -> Planted {
    // On stdout: no other file ever holds the key.
    let pem = act("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA"])
        .args(["-pkeyopt", "rsa_keygen_bits:2048"])
        .limit(120)
        .run();
    let pem = if pem.status.success() {
        pem.stdout_text()
    } else {
        // OpenSSL before 3.0.8 has no -quiet.
        act("openssl")
            .args(["genpkey", "-algorithm", "RSA"])
            .args(["-pkeyopt", "rsa_keygen_bits:2048"])
            .limit(120)
            .run()
            .ok()
            .stdout_text()
    };
    let project = format!("orders-{}", text(b"0123456789", 6));
    let email = format!("exporter@{project}.iam.gserviceaccount.com");
    let hex: String = bytes(20).iter().map(|b| format!("{b:02x}")).collect();
    let content = serde_json::to_string_pretty(&serde_json::json!({
        "type": "service_account",
        "project_id": project,
        "private_key_id": hex,
        "private_key": pem,
        "client_email": email,
        "client_id": text(b"123456789", 21),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
    }))
    .unwrap();
    write(path, &content);
    Planted {
        name: "service account",
        value: content,
        identifier: Some(email),
        secrets: pem_secrets(&pem),
    }
}

/// The lines of a PEM body and pieces of what they decode to. The first line is left out: it begins like every
/// other key's.
fn pem_secrets(pem: &str) -> Vec<Secret> {
    let lines: Vec<&str> = pem
        .lines()
        .filter(|line| !line.starts_with("-----") && line.len() >= 48)
        .skip(1)
        .collect();
    assert!(lines.len() > 10, "openssl made no RSA key");
    let mut secrets: Vec<Secret> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| Secret {
            label: format!("private key, line {}", number + 2),
            bytes: line.as_bytes().to_vec(),
            public_prefix: 0,
        })
        .collect();
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = STANDARD.decode(body).unwrap();
    // The first quarter is the modulus, which is public.
    for at in [der.len() / 3, der.len() / 2, der.len() * 2 / 3] {
        secrets.push(Secret {
            label: format!("private key, decoded, byte {at}"),
            bytes: der[at..at + 32].to_vec(),
            public_prefix: 0,
        });
    }
    secrets
}

/// Writes a file only its owner may read, with the directories above it.
fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
    // The tests are about reads: what is still being written back would only blur them.
    file.sync_all().unwrap();
}
