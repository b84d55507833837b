//! Certificates of a test: an authority, and what it signs.

#![allow(dead_code, reason = "each test that has this module uses a part of it")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keytrail_export::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<_> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

pub const HOUR: Duration = Duration::from_secs(3600);

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.as_ref().der())
    }

    /// Certificate and key, PEM, for these names (URIs, addresses and DNS names).
    pub fn issue(&self, names: &[&str], lifetime: Duration) -> (String, String) {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        // A common name counts for nothing.
        params
            .distinguished_name
            .push(DnType::CommonName, "reader.example");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) if name.contains("://") => SanType::URI((*name).try_into().unwrap()),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let begin = u64::try_from(params.not_before.unix_timestamp()).unwrap();
        params.not_after = params.not_before + (now + lifetime - Duration::from_secs(begin));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (
            pem("CERTIFICATE", certificate.der()),
            pem("PRIVATE KEY", &key.serialize_der()),
        )
    }
}

/// Writes the three files of one side as a mounted Secret changes: each new one is renamed over the old.
pub fn write(dir: &Path, authority: &Authority, own: &(String, String)) -> TlsFiles {
    let put = |name: &str, text: &str| {
        let (new, path) = (dir.join(format!(".{name}")), dir.join(name));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    };
    fs::create_dir_all(dir).unwrap();
    TlsFiles {
        ca: put("ca.crt", &authority.pem()),
        certificate: put("tls.crt", &own.0),
        key: put("tls.key", &own.1),
    }
}
