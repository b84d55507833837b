//! One pass over a payload: hash every window, look up the few that the filter lets through, confirm.
//!
//! Work is linear in the payload whatever it contains: confirmations are paid from a budget that
//! grows with the payload, and when it is used up the hits are marked as limited.

use super::boundary::{self, CONTEXT, Spelling, Standing, splits_escape};
use super::confirm::Digest;
use super::encode::sextet;
use super::forms::Transform;
use super::hits::Hits;
use super::matcher::{Matcher, Sort, StoredForm, spread};
use super::pem::is_break;
use super::tail::{PENDING_MAX, Pending, StreamTail, TAIL_MAX};
use super::window::{STEP, WIDTH};
use keytrail_model::IdentifiedBy;
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes whose windows are hashed before the results are inspected.
const BLOCK: usize = 8 * STEP;
/// Inspecting a candidate costs about as much as hashing this many bytes.
const CANDIDATE_COST: usize = 8;
/// Confirmation costs about as much as hashing this many bytes more than the form has.
const CONFIRM_COST: usize = 256;
pub(super) const BUDGET_BASE: usize = 64 * 1024;
pub(super) const BUDGET_PER_BYTE: usize = 8;

/// Line breaks and indentation tolerated within `len` characters.
pub fn breaks_allowed(len: usize) -> usize {
    16 + len / 4
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
        // Of windows in a row that were all whole in the bytes of before, one has been inspected.
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
            p.moves(keep);
        }
        if keep > 0 {
            stream.joined = boundary::may_be_continued(&data[..keep]);
        }
        stream.bytes = super::encode::copy(&data[keep..]);
        stream.pending = pending;
    }

    /// Adds to `hits` what is in a text that goes on with nothing, of those that are `wanted` at their place.
    pub(super) fn scan_some(
        &self,
        text: &[u8],
        wanted: impl Fn(&Range<usize>) -> bool,
        hits: &mut Hits,
    ) {
        let (spans, limited) = self.spans(text, BUDGET_BASE + BUDGET_PER_BYTE * text.len());
        for span in spans {
            if wanted(&(span.start..span.end)) {
                self.record(&span, text, true, hits);
            }
        }
        if limited {
            hits.limit();
        }
    }

    /// Counts a confirmed form. A secret is one wherever it stands; an identifier must stand alone.
    fn record(&self, span: &Span, data: &[u8], joined: bool, hits: &mut Hits) {
        let Some(form) = self.forms.get(span.form) else {
            return;
        };
        let Some(owner) = self.owners.get(form.owner) else {
            return;
        };
        match owner.sort {
            Sort::Secret => {
                hits.record(&owner.credential, None, form.transform, &owner.part, false);
                return;
            }
            Sort::PublicKey => {
                let by = Some(IdentifiedBy::PublicKey);
                hits.record(&owner.credential, by, form.transform, "", false);
                return;
            }
            Sort::Identifier => {}
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
        let by = Some(surroundings(spelling.transform, data, span));
        hits.record(&owner.credential, by, form.transform, "", open);
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
}

/// Longest part of a JSON Web Token before a claim that is looked for.
const MAX_CLAIMS: usize = 2 * 1024;

/// What an identifier stands in: the scope of an AWS signature, a JSON Web Token, or anything else.
fn surroundings(transform: Transform, data: &[u8], span: &Span) -> IdentifiedBy {
    let (before, after) = (&data[..span.start], &data[span.end..]);
    match transform {
        Transform::Raw | Transform::Percent => {
            const SCOPE: &[u8] = b"credential=";
            // `Credential=AKIA.../20260101/eu-west-1/s3/aws4_request`, the slashes escaped in a query.
            let named = before
                .last_chunk::<{ SCOPE.len() }>()
                .is_some_and(|word| word.eq_ignore_ascii_case(SCOPE));
            let day = after
                .strip_prefix(b"/")
                .or_else(|| after.strip_prefix(b"%2F"))
                .or_else(|| after.strip_prefix(b"%2f"));
            let day = day.and_then(|day| day.first_chunk::<8>());
            if named && day.is_some_and(|day| day.iter().all(u8::is_ascii_digit)) {
                return IdentifiedBy::AwsSignature;
            }
        }
        Transform::Base64 | Transform::Base64Url => {
            let near = &before[before.len().saturating_sub(MAX_CLAIMS)..];
            let word = near
                .iter()
                .rev()
                .take_while(|&&c| sextet(c).is_some() || c == b'.')
                .count();
            if before[before.len() - word..].starts_with(b"eyJ") {
                return IdentifiedBy::JwtClaim;
            }
        }
        _ => {}
    }
    IdentifiedBy::Identifier
}

impl Pass<'_> {
    /// Inspects all windows that begin at `from` or later.
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

enum Walk {
    End(usize),
    Missing(usize),
    Broken,
}
