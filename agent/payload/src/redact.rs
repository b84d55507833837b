//! Learnt secrets in a text that is there as a whole.

use super::forms::Transform;
use super::matcher::{Matcher, Sort, spread};
use super::scan::{BUDGET_BASE, BUDGET_PER_BYTE};
use super::views::views;
use super::window::{WIDTH, window_at};
use keytrail_model::CredentialRef;
use std::ops::Range;

/// Forms with one window that are inspected.
const SAME: usize = 8;
/// Farthest that a word goes on beyond the bytes that are known.
const MAX_WORD: usize = 4096;

/// What stands around a place without a blank or a sign that ends words.
fn word(text: &[u8], place: &Range<usize>) -> Range<usize> {
    let inside = |b: &&u8| b.is_ascii_alphanumeric() || b"+/_-%~".contains(b);
    let before = text[..place.start]
        .iter()
        .rev()
        .take(MAX_WORD)
        .take_while(inside)
        .count();
    let after = text[place.end..]
        .iter()
        .take(MAX_WORD)
        .take_while(inside)
        .count();
    place.start - before..place.end + after
}

impl Matcher {
    /// Where learnt secrets are in `text`, whole and in whatever form, and whose they are.
    pub fn places(&self, text: &[u8]) -> Vec<(Range<usize>, CredentialRef)> {
        let mut out = self.whole(text);
        if self.is_empty() {
            return out;
        }
        for view in views(text) {
            let decoded = self.whole(&view.bytes).into_iter();
            out.extend(decoded.map(|(place, owner)| (view.origin(&place), owner)));
        }
        out
    }

    fn whole(&self, text: &[u8]) -> Vec<(Range<usize>, CredentialRef)> {
        let (spans, _) = self.spans(text, BUDGET_BASE + 64 * BUDGET_PER_BYTE * text.len());
        spans
            .iter()
            .filter_map(|span| {
                let owner = self.owners.get(self.forms.get(span.form)?.owner)?;
                (owner.sort == Sort::Secret)
                    .then(|| (span.start..span.end, owner.credential.clone()))
            })
            .collect()
    }

    /// Words of `text` that hold the bytes by which a learnt secret is looked for, as they are or encoded: most likely a
    /// piece of it. Whose it is is not proven, so nobody is named.
    pub fn suspects(&self, text: &[u8]) -> Vec<Range<usize>> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut out = self.windows_in(text);
        for view in views(text) {
            let decoded = self.windows_in(&view.bytes);
            out.extend(decoded.iter().map(|place| view.origin(place)));
        }
        for place in &mut out {
            *place = word(text, place);
        }
        out
    }

    /// Where all windows in a row of a secret's own form are.
    fn windows_in(&self, text: &[u8]) -> Vec<Range<usize>> {
        let forms_at = |at: usize| -> Vec<(u32, u32)> {
            let Some(bytes) = window_at(text, at) else {
                return Vec::new();
            };
            let hash = self.hash.hash_bytes(bytes);
            if !self.filter.may_contain(hash) {
                return Vec::new();
            }
            self.entries
                .iter_hash(spread(hash))
                .filter(|entry| entry.hash == hash)
                .filter(|entry| {
                    self.forms.get(entry.form).is_some_and(|form| {
                        form.transform == Transform::Raw
                            && self
                                .owners
                                .get(form.owner)
                                .is_some_and(|o| o.sort == Sort::Secret)
                    })
                })
                .map(|entry| (entry.form, entry.offset))
                .take(SAME)
                .collect()
        };
        let mut out: Vec<Range<usize>> = Vec::new();
        let mut before: Vec<(u32, u32)> = Vec::new();
        for at in 0..text.len().saturating_sub(WIDTH - 1) {
            let here = forms_at(at);
            // One window may be seen by chance; two in a row are not.
            let follows =
                |&(form, offset): &(u32, u32)| offset > 0 && before.contains(&(form, offset - 1));
            if here.iter().any(follows) {
                out.push(at - 1..at + WIDTH);
            }
            before = here;
        }
        out
    }

    /// `text` with every learnt secret in it replaced by `[redacted KIND FINGERPRINT]`; `None` when there is
    /// none. Identifiers stay: they are public.
    pub fn redact(&self, text: &[u8]) -> Option<String> {
        let (spans, limited) = self.spans(text, BUDGET_BASE + 64 * BUDGET_PER_BYTE * text.len());
        if limited {
            // Better no argument than half a secret.
            return Some("[redacted]".to_owned());
        }
        let mut found: Vec<(usize, usize, String)> = spans
            .iter()
            .filter_map(|span| {
                let owner = self.owners.get(self.forms.get(span.form)?.owner)?;
                let label = || {
                    format!(
                        "[redacted {} {}]",
                        owner.credential.kind, owner.credential.fingerprint
                    )
                };
                (owner.sort == Sort::Secret).then(|| (span.start, span.end, label()))
            })
            .collect();
        if found.is_empty() {
            return None;
        }
        found.sort_by(|a, b| (a.0, b.1, &a.2).cmp(&(b.0, a.1, &b.2)));
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (start, end, label) in found {
            if start >= done {
                out.push_str(&String::from_utf8_lossy(&text[done..start]));
                out.push_str(&label);
            }
            done = done.max(end);
        }
        out.push_str(&String::from_utf8_lossy(&text[done..]));
        Some(out)
    }
}
