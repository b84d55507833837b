//! What is said about a credential is shown to everybody, so it must not hold a secret, whichever parser made it.
//!
//! A user may be a token, a host pasted wrong, a password the same as its user, or a piece of the path. Here, where every
//! finding passes, such words are taken out again: tokens of a form of their own, and the finding's own secret values.

use super::api::Finding;
use super::ruleset::Classifier;
use super::scan::text::clean;
use std::ops::Range;

/// A secret of this length is looked for anywhere in a word. A shorter one stands in other words by chance (`app` in
/// `application`), where hiding it would say more about it than showing them: it is hidden only as a whole word.
const ANYWHERE: usize = 6;

/// As much of a long secret as is looked for: what is shown of a name is cut off (`clean`, the parts of a URL at 120
/// characters), and the beginning of a secret must not be shown either. Issuers' own ids that tokens begin with are
/// shorter: derivers take 80 characters at most.
const NEEDLE: usize = 100;

/// Takes secrets out of everything that is said about a finding.
pub(super) fn hide(classifier: &Classifier, finding: &mut Finding) {
    hide_tokens(classifier, &mut finding.identifier);
    let own = Own::of(finding);
    for span in own.places(&finding.identifier).into_iter().rev() {
        replace(&mut finding.identifier, span, &finding.kind);
    }
    finding
        .public
        .retain(|word| classifier.tokens_in(word).is_empty() && own.places(word).is_empty());
    if !own.places(&finding.login).is_empty() {
        finding.login.clear();
    }
}

/// A token that stands where a name should is shown by its kind.
fn hide_tokens(classifier: &Classifier, shown: &mut String) {
    for (span, kind) in classifier.tokens_in(shown).into_iter().rev() {
        if !replace(shown, span, &kind) {
            break;
        }
    }
}

/// Puts the kind where a secret stood. Where that cannot be cut out nothing is shown at all, and false is returned.
fn replace(shown: &mut String, span: Range<usize>, kind: &str) -> bool {
    let whole = shown.is_char_boundary(span.start) && shown.is_char_boundary(span.end);
    if whole {
        shown.replace_range(span, &format!("<{kind}>"));
    } else {
        shown.clear();
    }
    whole
}

/// The secret values of one finding, in the forms in which a text may repeat them.
struct Own(Vec<String>);

impl Own {
    fn of(finding: &Finding) -> Own {
        let mut forms = Vec::new();
        for part in &finding.parts {
            let head = part.value.get(..4 * NEEDLE).unwrap_or(&part.value);
            for form in [head, &percent_decoded(head).bytes] {
                let form = clean(form);
                if !form.is_empty() && !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        Own(forms)
    }

    /// Where one of them stands in a text that is shown: as it is, or percent-encoded, in any letter case. In the order of
    /// their places; none overlaps another.
    fn places(&self, shown: &str) -> Vec<Range<usize>> {
        if shown.is_empty() || self.0.is_empty() {
            return Vec::new();
        }
        let decoded = percent_decoded(shown.as_bytes());
        let mut found: Vec<Range<usize>> = Vec::new();
        for form in &self.0 {
            found.extend(occurrences(shown.as_bytes(), form.as_bytes()));
            if decoded.bytes.len() < shown.len() {
                found.extend(
                    occurrences(&decoded.bytes, form.as_bytes())
                        .into_iter()
                        .map(|at| decoded.starts[at.start]..decoded.starts[at.end]),
                );
            }
        }
        found.sort_by_key(|at| (at.start, at.end));
        let mut out: Vec<Range<usize>> = Vec::new();
        for at in found {
            match out.last_mut() {
                Some(last) if at.start < last.end => last.end = last.end.max(at.end),
                _ => out.push(at),
            }
        }
        out
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// Where a secret stands, without regard to letter case; a long one also when it is cut off.
fn occurrences(shown: &[u8], secret: &[u8]) -> Vec<Range<usize>> {
    let needle = &secret[..secret.len().min(NEEDLE)];
    let mut out = Vec::new();
    let mut at = 0;
    while at + needle.len() <= shown.len() {
        let end = at + needle.len();
        let same = shown[at..end].eq_ignore_ascii_case(needle)
            && (needle.len() >= ANYWHERE || is_word(shown, at..end));
        if !same {
            at += 1;
            continue;
        }
        // As far as it goes on.
        let more = shown[end..]
            .iter()
            .zip(&secret[needle.len()..])
            .take_while(|(a, b)| a.eq_ignore_ascii_case(b))
            .count();
        out.push(at..end + more);
        at = end + more;
    }
    out
}

/// No letter, digit or `_` goes on before or after it.
fn is_word(text: &[u8], at: Range<usize>) -> bool {
    let goes_on = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let before = at.start.checked_sub(1).and_then(|i| text.get(i));
    !goes_on(before) && !goes_on(text.get(at.end))
}

/// A text with its percent-encoding undone.
struct Decoded {
    bytes: zeroize::Zeroizing<Vec<u8>>,
    /// Where each byte began before, and where the text ended.
    starts: Vec<usize>,
}

fn percent_decoded(text: &[u8]) -> Decoded {
    let hex = |at: usize| text.get(at).and_then(|b| (*b as char).to_digit(16));
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(text.len()));
    let mut starts = Vec::with_capacity(text.len() + 1);
    let mut at = 0;
    while at < text.len() {
        starts.push(at);
        match (text[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    starts.push(text.len());
    Decoded { bytes, starts }
}
