//! Rules with an expression: tokens with a known form, and values after a vendor's word.

use super::text::clean;
use super::{Finds, Raw, digest, ends_word, part, pem, starts_word};
use crate::checks::placeholder::contains_ignore_case;
use crate::checks::strength::worded;
use crate::checks::{Doubt, checksum, doubt, entropy, named_for_reference, refers, user_is_secret};
use crate::derive;
use crate::rules::{Rule, RuleSpec};
use regex::bytes::{Captures, Match, Regex};
use std::ops::Range;
use zeroize::Zeroizing;

/// Tries a rule whose literal is at `literal`.
pub fn at_literal(
    text: &[u8],
    literal: Range<usize>,
    rule: &Rule,
    index: usize,
    finds: &mut Finds,
) {
    let spec = &rule.spec;
    let Some(regex) = rule.regex() else { return };
    if spec.back == 0 {
        if !starts_word(text, literal.start, &spec.head) {
            return;
        }
        let window = &text[literal.start..text.len().min(literal.start + spec.max)];
        if !finds.spend(cost(window, rule)) {
            return;
        }
        if let Some(captures) = regex.captures(window) {
            accept(text, literal.start, &captures, rule, index, 2, finds);
        }
        return;
    }
    let start = literal.start.saturating_sub(spec.back);
    let window = &text[start..text.len().min(literal.start + spec.max)];
    let mut from = 0;
    // Few tries: the match must cover the literal, and matches before it are skipped.
    for _ in 0..8 {
        if !finds.spend(window.len() - from) {
            return;
        }
        let Some(captures) = regex.captures_at(window, from) else {
            return;
        };
        let Some(whole) = captures.get(0) else { return };
        if start + whole.start() > literal.start {
            return;
        }
        if start + whole.end() >= literal.end
            && starts_word(text, start + whole.start(), &spec.head)
        {
            accept(text, start, &captures, rule, index, 2, finds);
            return;
        }
        from = whole.start() + 1;
    }
}

/// What trying an anchored expression costs: it goes on until a byte comes that it cannot have, which for a token is the
/// next blank or quote.
fn cost(window: &[u8], rule: &Rule) -> usize {
    let run = if rule.crosses_blanks {
        window.len()
    } else {
        memchr::memchr3(b' ', b'\n', b'"', window).unwrap_or(window.len())
    };
    32 + run
}

/// Words that make an English word before them the name of a secret.
const TRADE: &[&[u8]] = &[
    b"key", b"token", b"secret", b"pass", b"pwd", b"pat", b"auth", b"api", b"cred", b"access",
    b"private", b"license", b"bearer",
];

/// Tries a rule whose word is at `word`: the value must follow within the window, after a sign of assignment.
pub fn after_word(text: &[u8], word: Range<usize>, rule: &Rule, index: usize, finds: &mut Finds) {
    let spec = &rule.spec;
    let Some(regex) = rule.regex() else { return };
    if spec.need_word && word.start > 0 && text[word.start - 1].is_ascii_alphabetic() {
        let (before, first) = (text[word.start - 1], text[word.start]);
        // fooLine is a word border, outline is not.
        if !(before.is_ascii_lowercase() && first.is_ascii_uppercase()) {
            return;
        }
    }
    let stranger = !spec.of.is_empty() && !named_for(text, word.start, &spec.of);
    let Some(reach) = reach(&text[word.end..text.len().min(word.end + spec.window + 1)]) else {
        return;
    };
    // Most values are short: what a short window cuts off is inspected again in the full one.
    let full = text.len().min(word.end + reach + spec.max);
    let short = if rule.long {
        full
    } else {
        full.min(word.end + reach + SHORT)
    };
    let mut window = &text[word.end..short];
    // The gap is on one line, or runs over one line break into the next.
    let mut from = 0;
    for _ in 0..8 {
        if !finds.spend(window.len() - from) {
            return;
        }
        // Finding is much cheaper than capturing, and mostly finds nothing.
        let Some(found) = regex.find_at(window, from) else {
            return;
        };
        if found.start() > reach {
            return;
        }
        if found.end() == window.len() && short < full {
            window = &text[word.end..full];
        }
        let Some(captures) = regex.captures_at(window, from) else {
            return;
        };
        let Some(whole) = captures.get(0) else { return };
        let value = captures
            .name("secret")
            .or_else(|| captures.get(1))
            .unwrap_or(whole);
        if whole.start() > reach {
            return;
        }
        let gap = &window[..value.start()];
        let glued = value.start() == 0 || !(starts_word(window, value.start(), &spec.head));
        let place = word.end + value.start()..word.end + value.end();
        let good = !glued
            && plausible_gap(gap, spec.need_word)
            && !named_for_reference(gap)
            && !in_path(gap, value.as_bytes())
            && !digest::is(text, place.clone())
            && !is_constant(value.as_bytes())
            && (spec.tail == "any" || !worded(last_piece(value.as_bytes())));
        let owned = || {
            rule.identifier_near()
                .is_some_and(|near| nearest(text, &place, near).is_some())
        };
        if good
            && (!stranger || owned())
            && ends_word(window, value.end(), &spec.tail)
            && (spec.entropy == 0.0 || entropy(value.as_bytes()) >= spec.entropy)
        {
            accept(text, word.end, &captures, rule, index, 1, finds);
            return;
        }
        from = whole.start() + 1;
    }
}

/// Longest beginning of a name that is inspected.
const MAX_PREFIX: usize = 64;

/// The name that goes on before `at` holds one of the words, or does not go on.
fn named_for(text: &[u8], at: usize, words: &[String]) -> bool {
    let length = text[..at]
        .iter()
        .rev()
        .take(MAX_PREFIX)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        .count();
    let before = &text[at - length..at];
    !before.iter().any(u8::is_ascii_alphanumeric)
        || words
            .iter()
            .any(|word| contains_ignore_case(before, word.as_bytes()))
}

/// Length of value that is looked for first.
const SHORT: usize = 128;

/// How far from a word its value can begin: a statement's end or a second line break ends the reach. `None` when no sign
/// of assignment or word of the trade can stand between (a host name in a URL, prose).
fn reach(gap: &[u8]) -> Option<usize> {
    let mut lines = 0;
    let mut sign = false;
    for (i, b) in gap.iter().enumerate() {
        match b {
            b'\n' => {
                lines += 1;
                if lines > 1 {
                    return sign.then_some(i);
                }
                sign = true;
            }
            b';' | b'}' => return (sign || i <= 2).then_some(i),
            // A blank or dash counts after a word of the trade; that is judged with the value.
            b'=' | b':' | b'"' | b'\'' | b'`' | b'>' | b'(' | b' ' | b'\t' | b'-' => sign = true,
            // `acme_api_key,VALUE`: a row of two cells.
            b',' if cell_follows(&gap[i + 1..]) => sign = true,
            _ => {}
        }
    }
    (sign || gap.len() <= 2).then_some(gap.len())
}

/// Between a vendor's word and its value stand names, quotes and a sign of assignment, not prose.
fn plausible_gap(gap: &[u8], need_word: bool) -> bool {
    if gap.iter().filter(|&&b| b == b'\n').count() > 1
        || gap.iter().any(|b| matches!(b, b';' | b'}'))
    {
        return false;
    }
    // On the next line stands a value only where a sign leads to it: lists of digests have one a line.
    if let Some(at) = memchr::memchr(b'\n', gap)
        && !led_on(&gap[..at], &gap[at + 1..])
    {
        return false;
    }
    let trade = TRADE.iter().any(|w| contains_ignore_case(gap, w));
    if need_word && !trade {
        return false;
    }
    let sign = gap
        .iter()
        .any(|b| matches!(b, b'=' | b':' | b'"' | b'\'' | b'`' | b'>' | b'('));
    let cell = trade
        && gap.split_last().is_some_and(|(last, name)| {
            *last == b',' && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        });
    sign || cell
        || (trade && gap.iter().any(|b| b.is_ascii_whitespace() || *b == b'-'))
        || gap.len() <= 2
}

/// No blank after the comma of a table, as prose has it.
fn cell_follows(rest: &[u8]) -> bool {
    rest.first().is_some_and(u8::is_ascii_graphic)
}

/// A line that goes on in the next one, or one that has a sign of assignment of its own.
fn led_on(line: &[u8], next: &[u8]) -> bool {
    let sign = |b: &u8| b"=:>(\"'`[{,|\\".contains(b);
    line.trim_ascii_end().last().is_some_and(sign) || next.iter().any(sign)
}

/// What follows the last `_` or `-`, when it is long: an issuer's mark before it may be a word.
fn last_piece(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|b| matches!(b, b'_' | b'-')) {
        Some(at) if value.len() - at > 8 => &value[at + 1..],
        _ => value,
    }
}

/// `NEXTAUTH_SECRET`: the name of a constant or of a variable.
fn is_constant(value: &[u8]) -> bool {
    // Manuals put names between backquotes.
    value.contains(&b'_')
        && value
            .iter()
            .all(|b| b.is_ascii_uppercase() || b"_`".contains(b))
}

/// A digest as a segment of a path (`github.com/o/r/commit/9f86d0...`) is the name of a version.
fn in_path(gap: &[u8], value: &[u8]) -> bool {
    gap.trim_ascii_end().last() == Some(&b'/') && value.iter().all(u8::is_ascii_hexdigit)
}

fn accept(
    text: &[u8],
    base: usize,
    captures: &Captures<'_>,
    rule: &Rule,
    index: usize,
    rank: u8,
    finds: &mut Finds,
) {
    let spec = &rule.spec;
    let Some(whole) = captures.get(0) else { return };
    let Some((value, named)) = value_and_name(captures, whole) else {
        return;
    };
    let span = base + value.start()..base + value.end();
    // A host that only manuals have (RFC 2606), where the host is part of what is secret.
    if spec.kind == "webhook-url" && contains_ignore_case(whole.as_bytes(), b"//example.") {
        return;
    }
    if span.is_empty() || !ends_word(text, span.end, &spec.tail) {
        return;
    }
    let bytes = value.as_bytes();
    // After a name alone, a piece of the path or address of a secret may look like one.
    let whole = if rank < 2 { around(text, &span) } else { bytes };
    if refers(whole) {
        return;
    }
    if spec.entropy > 0.0 && entropy(bytes) < spec.entropy {
        return;
    }
    let Some(mut confidence) = confidence(spec, bytes, rank) else {
        return;
    };
    let mut derived = derived_of(spec, bytes, named.map(|id| id.as_bytes()));
    find_owner(text, &span, rule, &mut derived);
    let decoded = match decoded(spec, bytes, &mut derived) {
        Decoded::Nothing => return,
        Decoded::AsIs => None,
        Decoded::Bytes(bytes) => Some(bytes),
    };
    let secret: Zeroizing<Vec<u8>> = match decoded {
        Some(decoded) => decoded,
        None => Zeroizing::new(bytes.to_vec()),
    };
    let kind = match spec.kind.as_str() {
        "jwt" => kind_of_jwt(bytes, &mut confidence),
        _ => None,
    };
    let parts = if spec.public {
        Vec::new()
    } else {
        vec![part("", &secret, span.clone())]
    };
    if spec.public {
        if derived.identifier.is_empty() {
            derived.identifier = clean(bytes);
        }
        if derived.public.is_empty() {
            derived.public.push(clean(bytes));
        }
    }
    finds.push(Raw {
        rule: index,
        kind,
        span,
        parts,
        identifier: derived.identifier,
        expires: derived.expires,
        public: derived.public,
        confidence,
        rank,
        ..Raw::default()
    });
}

/// Whose a secret is, by what stands beside it or near it.
fn find_owner(text: &[u8], span: &Range<usize>, rule: &Rule, derived: &mut derive::Derived) {
    if let Some(owner) = derive::beside(&rule.spec.identifier, text, span) {
        derived.identifier = owner;
    }
    if let Some(near) = rule.identifier_near()
        && let Some(owner) = nearest(text, span, near)
    {
        derived.public.push(owner.clone());
        derived.identifier = owner;
    }
}

/// The value of a match, and what stands for its name; `None`: the value is none.
fn value_and_name<'t>(
    captures: &Captures<'t>,
    whole: Match<'t>,
) -> Option<(Match<'t>, Option<Match<'t>>)> {
    let value = captures
        .name("secret")
        .or_else(|| captures.get(1))
        .unwrap_or(whole);
    // `TOKEN:x-oauth-basic`: what stands for the name is the secret.
    match captures.name("id") {
        Some(id) if user_is_secret(id.as_bytes(), value.as_bytes()) => Some((id, None)),
        Some(_) if value.len() < 3 => None,
        id => Some((value, id)),
    }
}

/// Most that is claimed of a value that counts up or repeats itself.
const BY_HAND: f64 = 0.45;

/// That of the rule, as far as the value itself raises or lowers it; `None`: it is no secret.
fn confidence(spec: &RuleSpec, bytes: &[u8], rank: u8) -> Option<f64> {
    let confidence = match doubt(bytes) {
        Doubt::Hard => return None,
        Doubt::Word if rank >= 2 && spec.privilege <= 2 => spec.confidence.min(0.2),
        Doubt::Word => return None,
        // Kept, because the form is the issuer's, but below what is shown: no generator makes it.
        Doubt::Soft => spec.confidence.min(BY_HAND),
        Doubt::None => spec.confidence,
    };
    if spec.check.is_empty() {
        return Some(confidence);
    }
    if !checksum::structure(&spec.check, bytes) {
        return None;
    }
    Some(match checksum::check(&spec.check, bytes) {
        Some(true) => confidence.max(0.999),
        Some(false) => confidence * 0.97,
        None => confidence,
    })
}

/// What the claims of a JSON Web Token say it is.
fn kind_of_jwt(bytes: &[u8], confidence: &mut f64) -> Option<&'static str> {
    let claims = derive::jwt::Jwt::parse(bytes);
    let kind = claims.as_ref().and_then(derive::jwt::Jwt::kind);
    if kind.is_some() {
        *confidence = confidence.max(0.97);
    } else if claims.is_none_or(|c| !c.names_someone()) {
        // Without issuer, subject or expiry it is a lesson in JWTs more often than a credential.
        *confidence = confidence.min(0.6);
    }
    kind
}

/// What a value says of itself, or what stands for its name in the match.
fn derived_of(spec: &RuleSpec, bytes: &[u8], named: Option<&[u8]>) -> derive::Derived {
    let mut derived = derive::derive(&spec.identifier, bytes);
    if matches!(
        spec.identifier.as_str(),
        "" | "prefix" | "github-app" | "dash-digits"
    ) && derived.identifier.is_empty()
    {
        derived.identifier = derive::mark(&spec.literals, bytes);
    }
    if let Some(id) = named.filter(|id| !id.is_empty()) {
        // `user:password@host` in a URL: only what is not secret of it.
        let host = id
            .iter()
            .rposition(|b| *b == b'@')
            .filter(|_| id.windows(3).any(|w| w == b"://"))
            .map_or(id, |at| &id[at + 1..]);
        derived.identifier = clean(host);
    }
    derived
}

/// The owner that stands nearest to a value. One before it wins over one after it: files list the id first.
fn nearest(text: &[u8], span: &Range<usize>, near: &Regex) -> Option<String> {
    let from = span.start.saturating_sub(300);
    let to = text.len().min(span.end + 300);
    let mut best: Option<&[u8]> = None;
    for found in near.captures_iter(&text[from..to]).take(8) {
        if let Some(group) = found.get(1)
            && (from + group.start() < span.start || best.is_none())
        {
            best = Some(group.as_bytes());
        }
    }
    best.map(clean)
}

/// What a rule's decoder makes of a value.
enum Decoded {
    AsIs,
    Bytes(Zeroizing<Vec<u8>>),
    /// It is no secret.
    Nothing,
}

fn decoded(spec: &RuleSpec, bytes: &[u8], derived: &mut derive::Derived) -> Decoded {
    match spec.decode.as_str() {
        "base64" => derive::base64_any(bytes).map_or(Decoded::AsIs, |decoded| {
            let key =
                memchr::memmem::find(&decoded, b"-----BEGIN").and_then(|at| pem::at(&decoded, at));
            Decoded::Bytes(match key {
                // The same key in another wrapping is the same credential.
                Some(mut key) => {
                    derived.identifier = std::mem::take(&mut key.identifier);
                    std::mem::take(&mut key.canonical)
                }
                None => decoded,
            })
        }),
        "basic" => match derive::basic(bytes) {
            Some((_, password)) if doubt(&password) >= Doubt::Word => Decoded::Nothing,
            Some((user, password)) => {
                derived.identifier = user;
                Decoded::Bytes(password)
            }
            None => Decoded::AsIs,
        },
        _ => Decoded::AsIs,
    }
}

/// Farthest that a value goes on beyond what an expression took of it.
const MAX_AROUND: usize = 128;

/// The whole value of which `span` is a piece: to the blanks, quotes and signs around it.
fn around<'a>(text: &'a [u8], span: &Range<usize>) -> &'a [u8] {
    let ends = |b: &u8| b.is_ascii_whitespace() || b"\"'`=,;<>()".contains(b);
    let before = text[..span.start]
        .iter()
        .rev()
        .take(MAX_AROUND)
        .take_while(|b| !ends(b))
        .count();
    let after = text[span.end..]
        .iter()
        .take(MAX_AROUND)
        .take_while(|b| !ends(b))
        .count();
    &text[span.start - before..span.end + after]
}
