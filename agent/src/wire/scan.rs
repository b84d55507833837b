//! One pass over a payload: hash every window, look up the few that the filter lets through, confirm.
//!
//! Work is linear in the payload whatever it contains: confirmations are paid from a budget that
//! grows with the payload, and when it is used up the hits are marked as limited.

use super::boundary::{self, CONTEXT, Spelling, Standing};
use super::encode::sextet;
use super::forms::Transform;
use super::hits::Hits;
use super::matcher::{Matcher, StoredForm, spread};
use super::pem::is_break;
use super::tail::{PENDING_MAX, Pending, StreamTail, TAIL_MAX};
use super::window::{STEP, WIDTH};
use crate::model::CredentialRef;
use ring::hmac;
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes whose windows are hashed before the results are looked at.
const BLOCK: usize = 8 * STEP;
/// Looking at a candidate costs about as much as hashing this many bytes.
const CANDIDATE_COST: usize = 8;
/// Confirmation costs about as much as hashing this many bytes more than the form has.
const CONFIRM_COST: usize = 256;
const BUDGET_BASE: usize = 64 * 1024;
const BUDGET_PER_BYTE: usize = 8;

/// Line breaks and indentation tolerated within `len` characters.
pub fn breaks_allowed(len: usize) -> usize {
    16 + len / 4
}

/// The HMAC of a form in its canonical spelling.
pub struct Digest {
    context: hmac::Context,
    fold: bool,
}

impl Digest {
    pub fn new(key: &hmac::Key, transform: Transform) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(&[transform as u8]);
        Self {
            context,
            fold: transform == Transform::Hex,
        }
    }

    pub fn edge(&mut self, value: u8) {
        self.context.update(&[value]);
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if !self.fold {
            return self.context.update(bytes);
        }
        let mut lower = Zeroizing::new([0; 64]);
        for chunk in bytes.chunks(lower.len()) {
            let lower = &mut lower[..chunk.len()];
            lower.copy_from_slice(chunk);
            lower.make_ascii_lowercase();
            self.context.update(lower);
        }
    }

    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.context.sign().as_ref());
        out
    }
}

/// What became of a candidate.
enum Verdict {
    No,
    Match {
        start: usize,
        end: usize,
    },
    /// `missing` bytes more are needed at least.
    Short {
        start: usize,
        missing: usize,
    },
}

/// A confirmed form in the bytes of one scan.
pub(super) struct Span {
    pub form: u32,
    pub start: usize,
    pub end: usize,
}

/// State of one pass.
struct Pass<'a> {
    matcher: &'a Matcher,
    data: &'a [u8],
    /// Bytes of `data` that an earlier pass has seen.
    seen: usize,
    budget: usize,
    limited: bool,
    spans: Vec<Span>,
    pending: Vec<Pending>,
}

impl Matcher {
    /// Adds to `hits` what is in `bytes`, or began in the bytes before on the same connection and ends in them.
    pub fn scan(&self, stream: &mut StreamTail, bytes: &[u8], hits: &mut Hits) {
        if bytes.is_empty() {
            return;
        }
        if self.entries.is_empty() {
            stream.joined = boundary::may_be_continued(bytes);
            stream.bytes = Zeroizing::default();
            stream.pending = Vec::new();
            return;
        }
        let joined;
        let data = if stream.bytes.is_empty() {
            bytes
        } else {
            let mut both = super::encode::buffer(stream.bytes.len() + bytes.len());
            both.extend_from_slice(&stream.bytes);
            both.extend_from_slice(bytes);
            joined = both;
            &joined[..]
        };
        let mut pass = Pass {
            matcher: self,
            data,
            seen: stream.bytes.len(),
            budget: BUDGET_BASE + BUDGET_PER_BYTE * bytes.len(),
            limited: false,
            spans: Vec::new(),
            pending: Vec::new(),
        };
        // Candidates of before first: their second windows must find them confirmed.
        for waiting in &stream.pending {
            if waiting.need <= data.len() {
                pass.candidate(waiting.form, waiting.offset, waiting.at);
            } else {
                pass.pending.push(*waiting);
            }
        }
        // Of windows in a row that were all whole in the bytes of before, one has been looked at.
        pass.windows(stream.bytes.len().saturating_sub(WIDTH + STEP - 2));
        for span in &pass.spans {
            self.record(span, data, stream.joined, hits);
        }
        if pass.limited {
            hits.limit();
        }
        let mut pending = pass.pending;
        let floor = data.len().saturating_sub(TAIL_MAX);
        let before = pending.len();
        pending.retain(|p| p.start >= floor);
        if pending.len() < before {
            hits.limit();
        }
        let keep = pending
            .iter()
            .map(|p| p.start)
            .chain([data.len().saturating_sub(self.lead)])
            .min()
            .unwrap_or(0)
            .saturating_sub(CONTEXT);
        for p in &mut pending {
            p.at -= keep;
            p.start -= keep;
            p.need -= keep;
        }
        if keep > 0 {
            stream.joined = boundary::may_be_continued(&data[..keep]);
        }
        stream.bytes = super::encode::copy(&data[keep..]);
        stream.pending = pending;
    }

    /// Counts a confirmed form. A secret is one wherever it stands; an identifier must stand alone.
    fn record(&self, span: &Span, data: &[u8], joined: bool, hits: &mut Hits) {
        let Some(form) = self.forms.get(span.form) else {
            return;
        };
        let Some(owner) = self.owners.get(form.owner) else {
            return;
        };
        if owner.secret {
            hits.record(&owner.credential, true, form.transform, &owner.part, false);
            return;
        }
        let spelling = Spelling {
            transform: form.transform,
            head: form.head,
            tail: form.tail,
        };
        let open = match boundary::standing(spelling, data, span.start..span.end, joined) {
            Standing::Inside => return,
            Standing::Alone => false,
            Standing::Open => true,
        };
        hits.record(&owner.credential, false, form.transform, "", open);
    }

    /// All complete forms in `data`, and whether some candidates were left out.
    pub(super) fn spans(&self, data: &[u8], budget: usize) -> (Vec<Span>, bool) {
        let mut pass = Pass {
            matcher: self,
            data,
            seen: 0,
            budget,
            limited: false,
            spans: Vec::new(),
            pending: Vec::new(),
        };
        pass.windows(0);
        (pass.spans, pass.limited)
    }

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

impl Pass<'_> {
    /// Looks at all windows that begin at `from` or later.
    fn windows(&mut self, from: usize) {
        let data = self.data;
        let (hash, filter) = (&self.matcher.hash, &self.matcher.filter);
        let mut at = from;
        while let Some(block) = data
            .get(at..)
            .and_then(|rest| rest.first_chunk::<{ BLOCK + WIDTH - 1 }>())
        {
            // The first position ends up in the highest bit.
            let mut passed = 0u32;
            for i in (0..BLOCK).step_by(STEP) {
                // A copy by slice becomes one eight-byte load; byte by byte it would become eight.
                let mut window = [0; WIDTH];
                window.copy_from_slice(&block[i..i + WIDTH]);
                passed = passed << 1 | filter.test(hash.hash(u64::from_le_bytes(window)));
            }
            while passed != 0 {
                let bit = passed.ilog2();
                self.probe(at + BLOCK - STEP * (1 + bit as usize));
                passed ^= 1 << bit;
            }
            at += BLOCK;
        }
        for at in (at..(data.len() + 1).saturating_sub(WIDTH)).step_by(STEP) {
            self.probe(at);
        }
    }

    #[inline(never)]
    fn probe(&mut self, at: usize) {
        let Some(window) = super::window::window_at(self.data, at) else {
            return;
        };
        let matcher = self.matcher;
        let hash = matcher.hash.hash_bytes(window);
        if !matcher.filter.may_contain(hash) {
            return;
        }
        for entry in matcher.entries.iter_hash(spread(hash)) {
            if entry.hash == hash {
                self.candidate(entry.form, entry.offset, at);
            }
        }
    }

    fn candidate(&mut self, id: u32, offset: u32, at: usize) {
        let Some(form) = self.matcher.forms.get(id) else {
            return;
        };
        if self.budget == 0 {
            self.limited = true;
            return;
        }
        self.pay(CANDIDATE_COST);
        match self.confirm(id, form, offset as usize, at) {
            Verdict::No => {}
            // Forms that ended in the bytes of before were counted then.
            Verdict::Match { end, .. } if end <= self.seen => {}
            Verdict::Match { start, end } => self.spans.push(Span {
                form: id,
                start,
                end,
            }),
            Verdict::Short { start, missing } => {
                if self
                    .pending
                    .iter()
                    .any(|p| p.form == id && p.start == start)
                {
                } else if self.pending.len() < PENDING_MAX {
                    self.pending.push(Pending {
                        form: id,
                        offset,
                        at,
                        start,
                        need: self.data.len() + missing,
                    });
                } else {
                    self.limited = true;
                }
            }
        }
    }

    fn confirm(&mut self, id: u32, form: &StoredForm, offset: usize, at: usize) -> Verdict {
        let data = self.data;
        let len = form.len as usize;
        let head = usize::from(form.head != 0);
        let tail = usize::from(form.tail != 0);
        let Some(start) = self.walk_back(form.breaks, offset + head, at) else {
            return Verdict::No;
        };
        if self.confirmed(id, start) {
            return Verdict::No;
        }
        if splits_escape(form.transform, &data[start.saturating_sub(CONTEXT)..start]) {
            return Verdict::No;
        }
        let whole = head + len + tail;
        let end = match self.walk_on(form.breaks, whole, start) {
            Walk::End(end) => end,
            Walk::Missing(missing) => return Verdict::Short { start, missing },
            Walk::Broken => return Verdict::No,
        };
        self.pay(CONFIRM_COST + end - start);
        let mut digest = Digest::new(&self.matcher.confirm, form.transform);
        let mut region = &data[start..end];
        if form.head != 0 {
            let Some(value) = region.first().and_then(|&c| sextet(c)) else {
                return Verdict::No;
            };
            digest.edge(value & form.head);
            region = &region[1..];
        }
        let mut last = None;
        if form.tail != 0 {
            let Some((value, rest)) = region
                .split_last()
                .and_then(|(&c, rest)| Some((sextet(c)?, rest)))
            else {
                return Verdict::No;
            };
            last = Some(value & form.tail);
            region = rest;
        }
        if form.breaks {
            for run in region.split(|&c| is_break(c)) {
                digest.update(run);
            }
        } else {
            digest.update(region);
        }
        if let Some(value) = last {
            digest.edge(value);
        }
        if digest.finish() == form.digest {
            Verdict::Match { start, end }
        } else {
            Verdict::No
        }
    }

    /// Was this occurrence confirmed by the form's other window? That one cannot be far behind.
    fn confirmed(&self, id: u32, start: usize) -> bool {
        self.spans
            .iter()
            .rev()
            .take(64)
            .any(|s| s.form == id && s.start == start)
    }

    fn pay(&mut self, cost: usize) {
        self.budget = self.budget.saturating_sub(cost);
    }

    /// Where the character `count` before `at` is.
    fn walk_back(&mut self, breaks: bool, count: usize, at: usize) -> Option<usize> {
        if !breaks {
            return at.checked_sub(count);
        }
        let mut skipped = 0;
        let mut at = at;
        let mut left = count;
        let allowed = breaks_allowed(count);
        self.pay(count);
        while left > 0 {
            at = at.checked_sub(1)?;
            if is_break(self.data[at]) {
                skipped += 1;
                if skipped > allowed {
                    return None;
                }
            } else {
                left -= 1;
            }
        }
        Some(at)
    }

    /// The end of `count` characters from `start` on.
    fn walk_on(&mut self, breaks: bool, count: usize, start: usize) -> Walk {
        let rest = &self.data[start..];
        if !breaks {
            return if count <= rest.len() {
                Walk::End(start + count)
            } else {
                Walk::Missing(count - rest.len())
            };
        }
        let allowed = breaks_allowed(count);
        self.pay(rest.len().min(count + allowed));
        let mut left = count;
        let mut skipped = 0;
        for (i, &c) in rest.iter().enumerate() {
            if is_break(c) {
                skipped += 1;
                if skipped > allowed {
                    return Walk::Broken;
                }
            } else {
                left -= 1;
                if left == 0 {
                    return Walk::End(start + i + 1);
                }
            }
        }
        Walk::Missing(left)
    }
}

/// Does a form that begins after `before` begin in the middle of an escape? Then its first character is none:
/// in `%20Ab` there is no `0Ab`, and in `\\nab` no `nab`.
fn splits_escape(transform: Transform, before: &[u8]) -> bool {
    match transform {
        Transform::Percent => match before {
            [.., b'%'] => true,
            [.., b'%', digit] => digit.is_ascii_hexdigit(),
            _ => false,
        },
        Transform::Json => {
            let digits = before
                .iter()
                .rev()
                .take(3)
                .take_while(|c| c.is_ascii_hexdigit())
                .count();
            let odd = |text: &[u8]| text.iter().rev().take_while(|&&c| c == b'\\').count() % 2 == 1;
            odd(before)
                || (0..=digits).any(|n| {
                    before[..before.len() - n]
                        .strip_suffix(b"u")
                        .is_some_and(odd)
                })
        }
        _ => false,
    }
}

enum Walk {
    End(usize),
    Missing(usize),
    Broken,
}
