//! What was found, added up.

use keytrail_model::{CredentialRef, Hit, IdentifiedBy, Transform};
use std::sync::Arc;

/// Decodings within each other that are named and followed.
pub(super) const MAX_CHAIN: usize = 4;

/// Hits of one payload, one entry for each (credential, secret or identifier, transform, part, request, open).
#[derive(Debug, Default)]
pub struct Hits {
    found: Vec<Found>,
    limited: bool,
    /// What the bytes that are being inspected were decoded from, the outermost first.
    chain: Vec<Transform>,
    /// Whose bytes they are: the text, and the request it belongs to.
    pub(super) text: u32,
    pub(super) request: Option<u16>,
    /// They are of the body of a message of HTTP.
    pub(super) body: bool,
    /// They are of the first line of a request of HTTP.
    pub(super) target: bool,
    /// Identifiers so far at the end of their bytes.
    pub(super) opened: u32,
}

#[derive(Debug)]
struct Found {
    hit: Hit,
    text: u32,
}

/// A hit that may be seen again without its bytes: what a header table keeps of a value.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    credential: CredentialRef,
    by: Option<IdentifiedBy>,
    transform: Transform,
    layers: Vec<Transform>,
    part: String,
}

impl Hits {
    pub fn new() -> Self {
        Self::default()
    }

    /// `by` is what a credential was known by that was not seen itself.
    pub(super) fn record(
        &mut self,
        credential: &CredentialRef,
        by: Option<IdentifiedBy>,
        transform: Transform,
        part: &str,
        open: bool,
    ) {
        // The base64 and the JSON in base64 of a secret are forms of their own and were found as such.
        if self.chain.last() == Some(&Transform::Base64)
            && matches!(transform, Transform::Raw | Transform::Json)
        {
            return;
        }
        // Where decoded bytes end is not where the payload ends: what an identifier goes on with is not known.
        if open && !self.chain.is_empty() {
            return;
        }
        self.opened += u32::from(open);
        let (layers, transform) = innermost(self.chain.clone(), transform);
        self.add(credential, by, (layers, transform), part, open);
    }

    fn add(
        &mut self,
        credential: &CredentialRef,
        by: Option<IdentifiedBy>,
        (layers, transform): (Vec<Transform>, Transform),
        part: &str,
        open: bool,
    ) {
        let (text, request) = (if open { self.text } else { 0 }, self.request);
        let same = |found: &&mut Found| {
            let hit = &found.hit;
            hit.by == by
                && hit.open == open
                && found.text == text
                && hit.request == request
                && hit.transform == transform
                && hit.layers == layers
                && hit.part == part
                && (Arc::ptr_eq(&hit.credential, credential)
                    || hit.credential.fingerprint == credential.fingerprint)
        };
        match self.found.iter_mut().find(same) {
            Some(found) => {
                found.hit.occurrences = found.hit.occurrences.saturating_add(1);
                found.hit.body |= self.body;
                found.hit.target |= self.target;
            }
            None => self.found.push(Found {
                hit: Hit {
                    credential: credential.clone(),
                    secret: by.is_none(),
                    transform,
                    layers,
                    part: part.to_owned(),
                    occurrences: 1,
                    by,
                    open,
                    request,
                    body: self.body,
                    target: self.target,
                },
                text,
            }),
        }
    }

    /// Counts what was found in these bytes before, when a reference to them is seen.
    pub(super) fn again(&mut self, kept: &[Kept]) {
        for k in kept {
            let chain = [&self.chain[..], &k.layers].concat();
            let spelling = innermost(chain, k.transform);
            self.add(&k.credential, k.by, spelling, &k.part, false);
        }
    }

    /// What was found, to be counted again later.
    pub(super) fn keep(self) -> Vec<Kept> {
        let closed = self.found.into_iter().filter(|f| !f.hit.open);
        closed
            .map(|Found { hit, .. }| Kept {
                credential: hit.credential,
                by: hit.by,
                transform: hit.transform,
                layers: hit.layers,
                part: hit.part,
            })
            .collect()
    }

    /// Adds what was found apart, as of the current request.
    pub(super) fn absorb(&mut self, other: Hits) {
        self.limited |= other.limited;
        for Found { hit, .. } in other.found {
            let target = std::mem::replace(&mut self.target, hit.target);
            for _ in 0..hit.occurrences {
                let spelling = (hit.layers.clone(), hit.transform);
                self.add(&hit.credential, hit.by, spelling, &hit.part, false);
            }
            self.target = target;
        }
    }

    /// Enters a decoding. To be left by [`Hits::leave`].
    pub(super) fn enter(&mut self, decoding: Transform) {
        self.chain.push(decoding);
    }

    pub(super) fn leave(&mut self) {
        self.chain.pop();
    }

    pub(super) fn depth(&self) -> usize {
        self.chain.len()
    }

    /// More of a text has come: identifiers at its end so far are parts of longer words, or words.
    pub(super) fn resolve(&mut self, text: u32, goes_on: bool) {
        if goes_on {
            self.found.retain(|f| !f.hit.open || f.text != text);
            return;
        }
        let (open, rest) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(|f| f.hit.open && f.text == text);
        self.found = rest;
        for Found { hit, .. } in open {
            self.close(hit);
        }
    }

    /// No text that was inspected goes on: open identifiers are words.
    pub(super) fn resolve_all(&mut self) {
        let (open, rest) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(|f| f.hit.open);
        self.found = rest;
        for Found { hit, .. } in open {
            self.close(hit);
        }
    }

    /// What open identifiers go on with will never be known.
    pub(super) fn drop_open(&mut self) {
        self.found.retain(|f| !f.hit.open);
    }

    fn close(&mut self, hit: Hit) {
        let (request, body, target) = (self.request, self.body, self.target);
        (self.request, self.body, self.target) = (hit.request, hit.body, hit.target);
        for _ in 0..hit.occurrences {
            self.add(
                &hit.credential,
                hit.by,
                (hit.layers.clone(), hit.transform),
                &hit.part,
                false,
            );
        }
        (self.request, self.body, self.target) = (request, body, target);
    }

    /// Only what was known by the public half of a key, and then by this.
    pub(super) fn only_keys(&mut self, by: IdentifiedBy) {
        self.found
            .retain(|f| f.hit.by == Some(IdentifiedBy::PublicKey));
        for found in &mut self.found {
            found.hit.by = Some(by);
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

    /// In an order that depends on nothing but the hits: by fingerprint, part, secrets first, transform, request, open
    /// last.
    pub fn into_vec(self) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for Found { hit, .. } in self.found {
            // Open ones of several texts become one here.
            let same = |known: &&mut Hit| {
                let key = |h: &Hit| (h.by, h.open, h.request);
                key(known) == key(&hit)
                    && known.transform == hit.transform
                    && known.layers == hit.layers
                    && known.part == hit.part
                    && known.credential.fingerprint == hit.credential.fingerprint
            };
            match hits.iter_mut().find(same) {
                Some(known) => {
                    known.occurrences = known.occurrences.saturating_add(hit.occurrences);
                    known.body |= hit.body;
                    known.target |= hit.target;
                }
                None => hits.push(hit),
            }
        }
        hits.sort_by(|a, b| {
            let key = |h: &'_ Hit| {
                (
                    h.credential.fingerprint.clone(),
                    h.part.clone(),
                    h.by,
                    h.transform.word(),
                    h.layers.clone(),
                    h.request,
                    h.open,
                )
            };
            key(a).cmp(&key(b))
        });
        hits
    }
}

/// Of decodings within each other, the innermost by itself: bytes that are there as they are have none of their own.
fn innermost(mut chain: Vec<Transform>, transform: Transform) -> (Vec<Transform>, Transform) {
    match (transform, chain.pop()) {
        (Transform::Raw, Some(last)) => (chain, last),
        (_, last) => {
            chain.extend(last);
            (chain, transform)
        }
    }
}
