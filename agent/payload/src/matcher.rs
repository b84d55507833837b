//! What is kept of the learnt secrets: keyed window hashes to find candidates, HMAC-SHA256 to confirm them.
//!
//! Of each form: 32 bits of keyed hash for one or two windows of eight bytes, its length, and the HMAC of
//! the whole form. No byte of the secret. The keys are in the same memory: who takes an image of the agent
//! can test guesses, so a guessable secret is as safe as it is hard to guess; without the keys nothing
//! can be tested.

use super::filter::Filter;
use super::forms::Transform;
use super::keys::Keys;
use super::logins::Logins;
use super::window::WindowHash;
use hashbrown::HashTable;
use keytrail_model::CredentialRef;
use ring::hmac;
use std::collections::HashMap;
use std::fmt;

/// Finds learnt secrets and identifiers in payloads.
pub struct Matcher {
    pub(super) hash: WindowHash,
    pub(super) confirm: hmac::Key,
    pub(super) filter: Filter,
    pub(super) entries: HashTable<Entry>,
    pub(super) forms: Slab<StoredForm>,
    pub(super) owners: Slab<Owner>,
    /// Owners by fingerprint.
    pub(super) known: HashMap<String, Vec<u32>>,
    /// Furthest a window's end lies behind its form's beginning: what a connection's tail must keep.
    pub(super) lead: usize,
    /// Entries removed since the filter was built: they only cost look-ups.
    pub(super) stale: usize,
    /// Most secrets and identifiers known at a time.
    pub(super) limit: usize,
    pub(super) keys: Keys,
    pub(super) logins: Logins,
}

/// One window of one form.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub hash: u32,
    pub form: u32,
    /// Of the window in the form's text.
    pub offset: u32,
}

/// What is kept of a [`super::Form`].
pub(super) struct StoredForm {
    pub digest: [u8; 32],
    pub owner: u32,
    /// Length of the text in bytes, without edges and breaks.
    pub len: u32,
    pub transform: Transform,
    pub breaks: bool,
    /// Hashes of its windows, to find its entries again.
    pub windows: Vec<u32>,
    /// Masks of the edges, 0 for none.
    pub head: u8,
    pub tail: u8,
}

/// Most secrets and identifiers known at a time: a host that mints tokens without end must not fill memory.
pub const MAX_KNOWN: usize = 64 * 1024;

/// Whose forms they are.
pub(super) struct Owner {
    pub credential: CredentialRef,
    /// Name of the part; of an identifier, its public text; of a key, nothing.
    pub part: String,
    pub sort: Sort,
    pub forms: Vec<u32>,
}

/// What was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Secret,
    /// Public, and distinctive as a word of its own.
    Identifier,
    /// The public half of a key: so many random bytes stand nowhere by chance.
    PublicKey,
}

impl Matcher {
    /// `key` must be random and secret; the same key gives the same hashes.
    pub fn new(key: &[u8; 32]) -> Self {
        crate::scrub_stack();
        crate::coded::prepare();
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derive = |label: &[u8]| {
            let tag = hmac::sign(&root, label);
            let mut out = [0; 32];
            out.copy_from_slice(tag.as_ref());
            out
        };
        let seed = derive(b"keytrail wire window");
        Self {
            hash: WindowHash::new(std::array::from_fn(|i| seed[i])),
            confirm: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"keytrail wire confirm")),
            filter: Filter::new(0),
            entries: HashTable::new(),
            forms: Slab::default(),
            owners: Slab::default(),
            known: HashMap::new(),
            lead: 0,
            stale: 0,
            limit: MAX_KNOWN,
            keys: Keys::default(),
            logins: Logins::default(),
        }
    }

    /// Learnt secrets and identifiers.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Windows in the table.
    pub fn windows(&self) -> usize {
        self.entries.len()
    }

    /// Drops everything learnt about the credential with this fingerprint.
    pub fn forget(&mut self, fingerprint: &str) {
        self.keys.forget(fingerprint);
        self.logins.forget(fingerprint);
        for owner in self.known.remove(fingerprint).unwrap_or_default() {
            let Some(owner) = self.owners.remove(owner) else {
                continue;
            };
            for form in owner.forms {
                self.remove_form(form);
            }
        }
        // A filter with stale bits is right, only slower.
        if self.stale > self.entries.len() / 2 + 64 {
            self.rebuild_filter();
        }
    }

    pub(super) fn remove_form(&mut self, id: u32) {
        let Some(form) = self.forms.remove(id) else {
            return;
        };
        for hash in form.windows {
            if let Ok(entry) = self
                .entries
                .find_entry(spread(hash), |e| e.hash == hash && e.form == id)
            {
                entry.remove();
                self.stale += 1;
            }
        }
    }

    pub(super) fn add_entry(&mut self, entry: Entry) {
        self.entries
            .insert_unique(spread(entry.hash), entry, |e| spread(e.hash));
        if self.filter.is_tight(self.entries.len()) {
            self.rebuild_filter();
        } else {
            self.filter.insert(entry.hash);
        }
    }

    fn rebuild_filter(&mut self) {
        // Twice the need, so that rebuilding while growing stays linear in all.
        let mut filter = Filter::new(self.entries.len() * 2);
        for entry in &self.entries {
            filter.insert(entry.hash);
        }
        self.filter = filter;
        self.stale = 0;
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("known", &self.len())
            .field("windows", &self.windows())
            .finish_non_exhaustive()
    }
}

/// The 64-bit hash the table wants (it takes its tag from the high bits).
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Values with small stable numbers that are used again.
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop()
            && let Some(slot) = self.items.get_mut(id as usize)
        {
            *slot = Some(value);
            return id;
        }
        self.items.push(Some(value));
        (self.items.len() - 1) as u32
    }

    pub fn get(&self, id: u32) -> Option<&T> {
        self.items.get(id as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(id as usize)?.as_mut()
    }

    pub fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.items.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}
