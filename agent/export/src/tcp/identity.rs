//! Who a client is: the names in its certificate, and what they may do.

use std::fmt;
use std::str::FromStr;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// SPIFFE-ID section 2.3: the longest identity there may be, bytes.
const URI_MAX: usize = 2048;
/// RFC 1035: the longest name, bytes.
const DNS_MAX: usize = 253;
/// Names of one certificate that are compared with the lists; a certificate with more has none.
const NAMES_MAX: usize = 64;

/// What a client may ask for. Each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing: its certificate is good, and none of its names is in the configuration.
    None,
    /// Events, status and questions about the past.
    Read,
    /// Also what changes something: baselines and decoys.
    Administer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::None => "none",
            Role::Read => "read",
            Role::Administer => "administer",
        })
    }
}

/// A name of a client, as the configuration has it: one of the subject alternative names of its certificate (RFC 5280,
/// 4.2.1.6). It is compared as a whole: no wildcards, and no common names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// `spiffe://trust-domain/path`, or another URI, byte for byte.
    Uri(String),
    /// `host.example.org`, in lower case.
    Dns(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Uri(text) | Identity::Dns(text) => f.write_str(text),
        }
    }
}

/// A text that is no name of a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{0:?} is no URI of a client (no wildcards)")]
    Uri(String),
    #[error(
        "{0:?} is neither a URI such as spiffe://example.org/collector nor a DNS name (no wildcards)"
    )]
    Other(String),
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let ok = !scheme.is_empty()
                && !rest.is_empty()
                && text.len() <= URI_MAX
                && text.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
            let spiffe = scheme == "spiffe" && (rest.starts_with('/') || rest.ends_with('/'));
            return match ok && !spiffe {
                true => Ok(Identity::Uri(text.to_owned())),
                false => Err(IdentityError::Uri(text.to_owned())),
            };
        }
        let ok = !text.is_empty()
            && text.len() <= DNS_MAX
            && text.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        match ok {
            true => Ok(Identity::Dns(text.to_ascii_lowercase())),
            false => Err(IdentityError::Other(text.to_owned())),
        }
    }
}

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub names: Vec<Identity>,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
}

/// Reads the names of a certificate that was verified. What cannot be read has no name, so no role.
pub(super) fn names_of(certificate: &[u8]) -> Names {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Names::default();
    };
    let not_after = certificate.validity().not_after.timestamp();
    let alternative = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.as_slice(),
        _ => &[],
    };
    let uris = alternative
        .iter()
        .filter(|name| matches!(name, GeneralName::URI(_)))
        .count();
    if alternative.len() > NAMES_MAX {
        return Names {
            names: Vec::new(),
            not_after,
        };
    }
    let names = alternative
        .iter()
        .filter_map(|name| match name {
            // A SPIFFE certificate has exactly one URI; with a second one it says nothing (X.509-SVID, section 2).
            GeneralName::URI(uri) if !(uris > 1 && uri.starts_with("spiffe://")) => {
                uri.parse().ok()
            }
            GeneralName::DNSName(name) if !name.contains("://") => name.parse().ok(),
            _ => None,
        })
        .collect();
    Names { names, not_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn names(of: Vec<SanType>) -> Vec<String> {
        names_of(&certificate(of))
            .names
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn forms() {
        for text in [
            "spiffe://a/b",
            "spiffe://a",
            "https://a/x",
            "a.example.org",
            "host-1",
        ] {
            assert!(text.parse::<Identity>().is_ok(), "{text}");
        }
        for text in [
            "",
            "*",
            "*.example.org",
            "spiffe://",
            "spiffe:///x",
            "spiffe://a/",
            "spiffe://a/*",
            "spiffe://a b",
            "a..b",
            "a/b",
            "a\nb",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_names_of_a_certificate() {
        assert_eq!(
            names(vec![uri("spiffe://a/b"), dns("Host.Example.org")]),
            ["spiffe://a/b", "host.example.org"]
        );
        // Two URIs: neither is a SPIFFE identity.
        assert_eq!(
            names(vec![uri("spiffe://a/b"), uri("spiffe://a/c"), dns("h")]),
            ["h"]
        );
        // A wildcard names nobody, and a DNS name is no URI whatever it looks like.
        assert_eq!(names(vec![dns("*.example.org")]), [""; 0]);
        assert_eq!(names(vec![dns("spiffe://a/b")]), [""; 0]);
        let many = (0..100).map(|n| dns(&format!("h{n}"))).collect();
        assert_eq!(names(many), [""; 0]);
        assert_eq!(names_of(b"nonsense"), Names::default());
        assert!(names_of(&certificate(vec![])).not_after > 0);
    }
}
