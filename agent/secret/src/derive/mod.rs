//! The public identifier of a credential, and its expiry, from what its own bytes say in clear.

pub mod aws;
pub mod connection;
pub mod date;
pub mod jwk;
pub mod jwt;
pub mod ssh;
pub mod url;
pub mod x509;

use super::checks::user_is_secret;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// What a deriver learnt from a value.
#[derive(Debug, Default, PartialEq)]
pub struct Derived {
    pub identifier: String,
    pub expires: Option<i64>,
    pub public: Vec<String>,
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Longest base64 text that is decoded.
const MAX_BASE64: usize = 1 << 20;

/// Decodes standard or URL-safe base64, padded or not, with line breaks.
pub fn base64_any(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.is_empty() || text.len() > MAX_BASE64 {
        return None;
    }
    let compact: Zeroizing<Vec<u8>> = Zeroizing::new(
        text.iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect(),
    );
    let engine = if compact.iter().any(|b| matches!(b, b'-' | b'_')) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine.decode(compact.as_slice()).ok().map(Zeroizing::new)
}

/// User and password of HTTP Basic credentials; no user where that is the secret itself. `None` unless both are printable
/// and there is a secret.
pub fn basic(text: &[u8]) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let decoded = base64_any(text)?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let printable = decoded.iter().all(|b| *b >= 0x20 && *b < 0x7f);
    if printable && user_is_secret(user, password) {
        return Some((String::new(), Zeroizing::new(user.to_vec())));
    }
    (printable && password.len() >= 3).then(|| {
        (
            String::from_utf8_lossy(user).chars().take(120).collect(),
            Zeroizing::new(password.to_vec()),
        )
    })
}

/// Names of the derivers a rule can ask for.
pub const NAMES: &[&str] = &[
    "prefix",
    "aws-key-id",
    "aws-bedrock",
    "jwt",
    "github-app",
    "before-dot",
    "first-group",
    "url",
    "json-claims",
    "dash-digits",
    "colon-head",
    "connection",
    "jwk",
    "none",
];

/// What stands beside a value in its own notation names its owner; `None`: the deriver inspects the value alone, or nothing
/// stands there.
pub fn beside(name: &str, text: &[u8], value: &std::ops::Range<usize>) -> Option<String> {
    let owner = match name {
        "connection" => connection::owner(text, value),
        "jwk" => jwk::owner(text, value),
        _ => return None,
    };
    (!owner.is_empty()).then_some(owner)
}

/// Runs a named deriver over a token's value.
pub fn derive(name: &str, value: &[u8]) -> Derived {
    let text = String::from_utf8_lossy(value);
    match name {
        "aws-key-id" => aws::key_id(&text),
        "jwt" => jwt::Jwt::parse(value)
            .map(|j| j.derived())
            .unwrap_or_default(),
        // ghs_<app id>_<jwt>
        "github-app" => {
            let app = text
                .strip_prefix("ghs_")
                .and_then(|r| r.split_once('_'))
                .map(|(a, _)| a)
                .unwrap_or_default();
            if !app.is_empty() && app.len() <= 12 && app.bytes().all(|b| b.is_ascii_digit()) {
                Derived {
                    identifier: format!("app {app}"),
                    ..Derived::default()
                }
            } else {
                Derived {
                    identifier: String::new(),
                    ..Derived::default()
                }
            }
        }
        "url" => url::derived(value),
        "before-dot" => Derived {
            identifier: text
                .split('.')
                .next()
                .unwrap_or_default()
                .chars()
                .take(80)
                .collect(),
            ..Derived::default()
        },
        "colon-head" => Derived {
            identifier: text
                .split(':')
                .next()
                .unwrap_or_default()
                .chars()
                .take(80)
                .collect(),
            ..Derived::default()
        },
        // xoxb-<team>-<app>-...: the numeric groups are public ids.
        "dash-digits" => {
            let ids: Vec<&str> = text
                .split('-')
                .filter(|g| g.len() >= 6 && g.bytes().all(|b| b.is_ascii_digit()))
                .take(3)
                .collect();
            let head = text.split('-').next().unwrap_or_default();
            Derived {
                identifier: if ids.is_empty() {
                    String::new()
                } else {
                    format!("{head}-{}", ids.join("-"))
                },
                ..Derived::default()
            }
        }
        "json-claims" => json_claims(value),
        "none" => Derived::default(),
        // `prefix` is the caller's: it knows the rule's literals.
        _ => Derived::default(),
    }
}

/// The issuer's mark that a value begins with (`ghp_`, `sk-ant-`): one of the rule's own literals, so that no random
/// character can ever be part of it.
pub fn mark(literals: &[String], value: &[u8]) -> String {
    literals
        .iter()
        .filter(|l| value.len() >= l.len() && value[..l.len()].eq_ignore_ascii_case(l.as_bytes()))
        .max_by_key(|l| l.len())
        .cloned()
        .unwrap_or_default()
}

/// Fields of base64 JSON inside a token (`sntrys_eyJ...`, `ops_eyJ...`, `glc_eyJ...`) that name its owner.
fn json_claims(value: &[u8]) -> Derived {
    let mut derived = Derived::default();
    let Some(start) = memchr::memmem::find(value, b"eyJ") else {
        return derived;
    };
    let end = value[start..]
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'=')))
        .map_or(value.len(), |n| start + n);
    let Some(json) = base64_any(&value[start..end]) else {
        return derived;
    };
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&json) else {
        return derived;
    };
    let mut parts = Vec::new();
    for key in [
        "signInAddress",
        "email",
        "region_url",
        "region",
        "org",
        "o",
        "n",
        "url",
    ] {
        if let Some(text) = json
            .get(key)
            .and_then(|v| v.as_str())
            .filter(|t| !t.is_empty() && t.len() <= 120)
        {
            parts.push(text.to_string());
        }
    }
    derived.identifier = parts.join(" ");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_nothing_random() {
        let literals = ["ghp_".to_string(), "sk-ant-".to_string()];
        assert_eq!(mark(&literals, b"ghp_aB3-dE5"), "ghp_");
        assert_eq!(mark(&literals, b"sk-ant-api03-xyz"), "sk-ant-");
        assert_eq!(mark(&literals, b"other_value"), "");
    }

    #[test]
    fn base64_in_all_its_forms() {
        for text in ["aGVsbG8+Pz8/", "aGVsbG8-Pz8_", "aGVs\nbG8+\nPz8/"] {
            assert_eq!(
                base64_any(text.as_bytes()).unwrap().as_slice(),
                b"hello>???"
            );
        }
        assert!(base64_any(b"!!").is_none());
        assert_eq!(base64_any(b"YQ==").unwrap().as_slice(), b"a");
        assert_eq!(base64_any(b"YQ").unwrap().as_slice(), b"a");
    }
}
