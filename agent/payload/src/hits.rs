//! What was found, added up.

use super::forms::Transform;
use keytrail_model::{CredentialRef, Hit};
use std::sync::Arc;

/// Hits of one payload, one entry for each (credential, secret or identifier, transform, part, open).
#[derive(Debug, Default)]
pub struct Hits {
    found: Vec<Hit>,
    limited: bool,
}

impl Hits {
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn record(
        &mut self,
        credential: &CredentialRef,
        secret: bool,
        transform: Transform,
        part: &str,
        open: bool,
    ) {
        let same = |hit: &Hit| {
            hit.secret == secret
                && hit.transform == transform.name()
                && hit.part == part
                && hit.open == open
                && (Arc::ptr_eq(&hit.credential, credential)
                    || hit.credential.fingerprint == credential.fingerprint)
        };
        match self.found.iter_mut().find(|hit| same(hit)) {
            Some(hit) => hit.occurrences = hit.occurrences.saturating_add(1),
            None => self.found.push(Hit {
                credential: credential.clone(),
                secret,
                transform: transform.name().to_owned(),
                part: part.to_owned(),
                occurrences: 1,
                open,
            }),
        }
    }

    pub(super) fn limit(&mut self) {
        self.limited = true;
    }

    /// Candidates were left unconfirmed, because there were more than an honest payload has: there may
    /// be more hits than these.
    pub fn limited(&self) -> bool {
        self.limited
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In an order that depends on nothing but the hits: by fingerprint, part, secrets first, transform, open last.
    pub fn into_vec(mut self) -> Vec<Hit> {
        self.found.sort_by(|a, b| {
            let key = |h: &'_ Hit| {
                (
                    h.credential.fingerprint.clone(),
                    h.part.clone(),
                    !h.secret,
                    h.transform.clone(),
                    h.open,
                )
            };
            key(a).cmp(&key(b))
        });
        self.found
    }
}
