//! Turns a secret into what the matcher keeps of it.

use super::confirm::Digest;
use super::forms::{Form, Transform, forms};
use super::keys;
use super::matcher::{Entry, Matcher, Owner, Sort, StoredForm};
use super::strength::is_strong;
use super::window::{self, LEAD, SPAN, STEP, WIDTH};
use keytrail_model::{CredentialRef, PublicKey};
use std::ops::Range;

/// Longest secret that is learnt, bytes.
pub const MAX_SECRET: usize = 16 * 1024;
/// Longest form that is matched, bytes: the most a connection's tail may have to hold.
pub const MAX_FORM: usize = 32 * 1024;

/// What became of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It will be found in `forms` different forms.
    New { forms: usize },
    /// This part of this credential was learnt before.
    Known,
    /// Too short or too monotonous: a match would be a coincidence. It is not matched.
    TooWeak,
    /// Longer than [`MAX_SECRET`]. It is not matched.
    TooLong,
    /// [`MAX_KNOWN`](super::matcher::MAX_KNOWN) secrets are known already. It is not matched.
    Full,
}

impl Matcher {
    /// Learns one secret of a credential in all its forms. The caller wipes `secret`.
    ///
    /// Idempotent for each (fingerprint, part).
    pub fn learn(&mut self, credential: CredentialRef, part: &str, secret: &[u8]) -> Learned {
        let learned = self.learn_as(credential, part, secret, Sort::Secret);
        // Its forms were made here; what is built next and kept (a connection's state has room that is not in use) would be moved
        // with what of them lies on the stack.
        keytrail_model::scrub_stack();
        learned
    }

    /// Learns a public string that betrays the use of a credential (`identified`). Weak ones are left out.
    pub fn learn_identifier(&mut self, credential: CredentialRef, identifier: &str) -> Learned {
        self.learn_as(
            credential,
            identifier,
            identifier.as_bytes(),
            Sort::Identifier,
        )
    }

    /// Learns the public half of a key: where it is shown, and what is signed with it, are `identified`.
    pub fn learn_key(&mut self, credential: CredentialRef, key: &PublicKey) -> Learned {
        let Some(material) = keys::material(key) else {
            return Learned::TooWeak;
        };
        let learned = self.learn_as(credential.clone(), "", material, Sort::PublicKey);
        match learned {
            Learned::New { .. } if !self.keys.learn(credential, key) => Learned::Full,
            learned => learned,
        }
    }

    /// Learns the user that a password of a database belongs to.
    pub fn learn_login(&mut self, credential: CredentialRef, user: &str) {
        self.logins.learn(credential, user);
    }

    fn learn_as(
        &mut self,
        credential: CredentialRef,
        part: &str,
        text: &[u8],
        sort: Sort,
    ) -> Learned {
        let siblings = self
            .known
            .get(&credential.fingerprint)
            .map_or(&[][..], |ids| ids);
        if siblings
            .iter()
            .filter_map(|&id| self.owners.get(id))
            .any(|o| o.part == part && o.sort == sort)
        {
            return Learned::Known;
        }
        if text.len() > MAX_SECRET {
            return Learned::TooLong;
        }
        if !is_strong(text) {
            return Learned::TooWeak;
        }
        if self.len() >= self.limit {
            return Learned::Full;
        }
        let fingerprint = credential.fingerprint.clone();
        let owner = self.owners.insert(Owner {
            credential,
            part: part.to_owned(),
            sort,
            forms: Vec::new(),
        });
        let ids: Vec<u32> = forms(text, |secret| self.pick(secret))
            .iter()
            .filter_map(|form| self.store(owner, form))
            .collect();
        if ids.is_empty() {
            self.owners.remove(owner);
            return Learned::TooWeak;
        }
        let count = ids.len();
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.forms = ids;
        }
        self.known.entry(fingerprint).or_default().push(owner);
        Learned::New { forms: count }
    }

    /// Keeps the hashes of a form, unless it is too long or has no telling window.
    fn store(&mut self, owner: u32, form: &Form) -> Option<u32> {
        if form.text.len() > MAX_FORM {
            return None;
        }
        let offsets = self.windows_of(form);
        let furthest = *offsets.iter().max()?;
        let id = self.forms.insert(StoredForm {
            digest: self.digest(form),
            owner,
            len: form.text.len() as u32,
            transform: form.transform,
            breaks: form.breaks,
            windows: Vec::new(),
            head: form.head.mask,
            tail: form.tail.mask,
        });
        let mut hashes = Vec::new();
        for offset in offsets.iter().flat_map(|&first| first..first + STEP) {
            let Some(bytes) = window::window_at(&form.text, offset) else {
                continue;
            };
            hashes.push((self.hash.hash_bytes(bytes), offset));
            if form.transform == Transform::Hex {
                // The form is in lower case; the upper-case spelling of the window leads to it as well.
                let upper = self.hash.hash_bytes(bytes.map(|c| c.to_ascii_uppercase()));
                if upper != hashes[hashes.len() - 1].0 {
                    hashes.push((upper, offset));
                }
            }
        }
        for &(hash, offset) in &hashes {
            self.add_entry(Entry {
                hash,
                form: id,
                offset: offset as u32,
            });
        }
        if let Some(stored) = self.forms.get_mut(id) {
            stored.windows = hashes.into_iter().map(|(hash, _)| hash).collect();
        }
        let reach = furthest + SPAN + 1;
        let breaks = if form.breaks {
            super::scan::breaks_allowed(reach)
        } else {
            0
        };
        self.lead = self.lead.max(reach + breaks);
        Some(id)
    }

    /// Where the most telling bytes of a secret are.
    fn pick(&self, secret: &[u8]) -> usize {
        let taken = |bytes| self.is_taken(bytes);
        window::best(secret, 0, LEAD, taken)
            .or_else(|| window::best(secret, 0, usize::MAX, taken))
            .unwrap_or(0)
    }

    /// Where the form's windows are. Two for forms that may be wrapped: close enough that no second line break
    /// falls in, without overlap, so that one of them is whole.
    fn windows_of(&self, form: &Form) -> Vec<usize> {
        let text = &form.text[..];
        let taken = |bytes| self.is_taken(bytes);
        let Range { start, end } = form.region;
        let best = |from: usize, to: usize| {
            to.checked_sub(SPAN)
                .and_then(|last| window::best(text, from, last, taken))
        };
        if form.breaks && end - start >= 2 * SPAN {
            let middle = start.midpoint(end);
            let halves: Vec<usize> = [best(start, middle), best(middle, end)]
                .into_iter()
                .flatten()
                .collect();
            if !halves.is_empty() {
                return halves;
            }
        }
        // A monotonous region of a secret that is not: rather tell a little more than miss it.
        // And in hex a secret may have few digits everywhere.
        best(start, end)
            .or_else(|| best(0, text.len()))
            .or_else(|| window::best_of(text, 0, text.len() - SPAN.min(text.len()), 2, taken))
            .into_iter()
            .collect()
    }

    fn is_taken(&self, window: [u8; WIDTH]) -> bool {
        let hash = self.hash.hash_bytes(window);
        self.filter.may_contain(hash)
            && self
                .entries
                .find(super::matcher::spread(hash), |e| e.hash == hash)
                .is_some()
    }

    fn digest(&self, form: &Form) -> [u8; 32] {
        let mut digest = Digest::new(&self.confirm, form.transform);
        if form.head.mask != 0 {
            digest.edge(form.head.value);
        }
        digest.update(&form.text);
        if form.tail.mask != 0 {
            digest.edge(form.tail.value);
        }
        digest.finish()
    }
}
