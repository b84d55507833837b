//! A credential as everything after `secret` knows it: never the secret.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Shared because one credential is held, read and sent by many processes.
pub type CredentialRef = Arc<Credential>;

/// What may be said about a credential. Two with the same fingerprint are the same credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// For example `aws-access-key`.
    pub kind: String,
    /// Public identifier, empty when there is none.
    pub identifier: String,
    /// `kt1:` and 32 hex digits.
    pub fingerprint: String,
    /// Measured precision of the rule, 0 to 1.
    pub confidence: f64,
    /// Seconds since the epoch.
    pub expires: Option<i64>,
    /// Name of the rule that found it.
    pub rule: String,
    /// 1 (root, cluster, organisation) to 4 (low); 0 unknown.
    pub privilege: u8,
    /// ATT&CK technique of finding it where it was found, for example T1552.001.
    pub attack: String,
}
