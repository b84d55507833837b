//! Learnt secrets in a text that is there as a whole.

use super::matcher::Matcher;
use super::scan::{BUDGET_BASE, BUDGET_PER_BYTE};
use keytrail_model::CredentialRef;
use std::ops::Range;

impl Matcher {
    /// Where learnt secrets are in `text`, whole and in whatever form, and whose they are.
    pub fn places(&self, text: &[u8]) -> Vec<(Range<usize>, CredentialRef)> {
        let (spans, _) = self.spans(text, BUDGET_BASE + 64 * BUDGET_PER_BYTE * text.len());
        spans
            .iter()
            .filter_map(|span| {
                let owner = self.owners.get(self.forms.get(span.form)?.owner)?;
                owner
                    .secret
                    .then(|| (span.start..span.end, owner.credential.clone()))
            })
            .collect()
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
                owner.secret.then(|| (span.start, span.end, label()))
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
