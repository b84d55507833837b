//! Certificates, by a real parser.

use super::base64_any;
use x509_parser::prelude::*;

#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    pub subject: String,
    pub serial: String,
    /// Seconds since the epoch.
    pub not_after: i64,
    pub authority: bool,
    /// First DNS name or URI of the subject alternative names.
    pub name: String,
}

/// Reads one DER certificate.
pub fn der(bytes: &[u8]) -> Option<Certificate> {
    let (_, cert) = X509Certificate::from_der(bytes).ok()?;
    let mut name = String::new();
    if let Ok(Some(sans)) = cert.subject_alternative_name() {
        for san in &sans.value.general_names {
            if let GeneralName::DNSName(text) | GeneralName::URI(text) = san {
                name = clip(text);
                break;
            }
        }
    }
    Some(Certificate {
        subject: clip(&cert.subject().to_string()),
        serial: clip(&cert.raw_serial_as_string()),
        not_after: cert.validity().not_after.timestamp(),
        authority: cert.is_ca(),
        name,
    })
}

/// The first certificate of a PEM text, which by convention is the leaf.
pub fn first_pem(text: &[u8]) -> Option<Certificate> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let start = memchr::memmem::find(text, BEGIN)? + BEGIN.len();
    let body = &text[start..text.len().min(start + 64 * 1024)];
    let end = memchr::memmem::find(body, b"-----END")?;
    der(&base64_any(&body[..end])?)
}

impl Certificate {
    pub fn identifier(&self) -> String {
        let mut out = if self.subject.is_empty() {
            self.name.clone()
        } else {
            self.subject.clone()
        };
        if !self.name.is_empty() && !out.contains(&self.name) {
            out.push_str(&format!(" ({})", self.name));
        }
        out.push_str(&format!(" serial {}", self.serial));
        out
    }
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(der(b"\x30\x82\xff\xff"), None);
        assert_eq!(
            first_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
            None
        );
        assert_eq!(first_pem(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
