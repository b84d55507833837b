//! What the tests of this folder begin with.

use keytrail_model::Credential;

/// A token of which only the fingerprint matters.
pub fn credential(fingerprint: &str) -> Credential {
    Credential {
        kind: "github-pat".into(),
        identifier: String::new(),
        fingerprint: fingerprint.into(),
        confidence: 0.9,
        expires: None,
        rule: "r".into(),
        privilege: 2,
        attack: String::new(),
    }
}
