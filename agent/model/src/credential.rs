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

/// Kinds of private keys that are not called so. What proves an identity with one is a signature: it does not travel.
const PRIVATE_KEYS: [&str; 3] = ["ssh-host-key", "kubernetes-pki-key", "kubelet-client-key"];

impl Credential {
    /// Whether this describes the secret better than `known` does: a rule that knows a form or a place before one that
    /// knows a name, then the surer one, then one that found the identifier. The order is whole, so that all who ask for
    /// one secret's kind get one answer, whatever they met first.
    #[must_use]
    pub fn is_better(&self, known: &Self) -> bool {
        let key = |c: &Self| {
            (
                !c.rule.starts_with("generic-"),
                (c.confidence.clamp(0.0, 1.0) * 1_000.0) as u32,
                !c.identifier.is_empty(),
            )
        };
        // Of equals the first by name.
        key(self)
            .cmp(&key(known))
            .then_with(|| known.rule.cmp(&self.rule))
            .is_gt()
    }

    /// Whether a server that holds it does not give it to its clients by serving them.
    #[must_use]
    pub fn is_private_key(&self) -> bool {
        let kind = self.kind.as_str();
        kind.ends_with("private-key") || PRIVATE_KEYS.contains(&kind)
    }
}
