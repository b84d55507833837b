//! Files whose format says which of their values is a secret, and whose.
//!
//! A parser is chosen by a rule's path or by a literal in the text; it reports finds under the names of rules, which give
//! kind, privilege and confidence. All input is hostile: sizes, depths and counts are bounded.

mod accounts;
mod binary;
mod consul;
mod der;
mod gnupg;
mod ini;
mod json;
mod json_clients;
mod lines;
mod sqlite;
mod table;
mod toml;
mod tree;
mod yaml;

use super::api::Origin;
use super::checks::{Doubt, doubt, refers};
use super::ruleset::Classifier;
use super::scan::text::clean;
use super::scan::{Finds, Raw, part, pem};
use std::ops::Range;

/// Names of the parsers, and of the scanners of the text itself that rules refer to.
pub const NAMES: &[&str] = &[
    "json",
    "yaml",
    "ini",
    "toml",
    "gnupg",
    "gcloud-store",
    "netrc",
    "pgpass",
    "accounts",
    "table",
    "shadow",
    "htpasswd",
    "keytab",
    "ccache",
    "pkcs12",
    "jks",
    "der",
    "consul",
    "keyfile",
    "whole-file",
    "assign",
    "url",
    "pem",
];

pub use binary::by_magic;

/// Largest text given to a parser that builds a tree.
const MAX_TREE: usize = 8 << 20;

/// What a parser works on.
pub struct Context<'a, 'f> {
    pub classifier: &'a Classifier,
    pub text: &'a [u8],
    /// Empty when unknown.
    pub path: &'a str,
    /// The rule that called the parser.
    pub rule: usize,
    pub finds: &'f mut Finds,
    pub cursor: &'f mut Cursor,
}

/// Runs the parser of that name.
pub fn run(name: &str, context: &mut Context<'_, '_>) {
    match name {
        "json" => json::parse(context),
        "yaml" => yaml::parse(context),
        "ini" => ini::parse(context),
        "toml" => toml::parse(context),
        "gnupg" => gnupg::parse(context),
        "gcloud-store" => sqlite::gcloud(context),
        "netrc" => lines::netrc(context),
        "pgpass" => lines::pgpass(context),
        "accounts" => accounts::parse(context),
        "table" => table::parse(context),
        "shadow" => lines::shadow(context),
        "htpasswd" => lines::htpasswd(context),
        "keytab" => binary::keytab(context),
        "ccache" => binary::ccache(context),
        "pkcs12" => binary::pkcs12(context),
        "jks" => binary::jks(context),
        "der" => der::parse(context),
        "consul" => consul::parse(context),
        "keyfile" => keyfile(context),
        "whole-file" => whole_file(context),
        // `assign`, `url` and `pem` are found by the scan itself.
        _ => {}
    }
}

/// Steps in which a value is looked for around the one before it.
const NEAR: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Least confidence that makes a value more than a secret of the file it stands in.
const KNOWN: f64 = 0.5;

/// Longest name of an owner that is repeated for each of his secrets, in bytes.
const MAX_OWNER: usize = 256;

/// The beginning of a text that says whose a secret is.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_OWNER)]
}

/// Worth reporting: not empty, no placeholder, and not the place of a secret in its stead.
fn worth(value: &[u8]) -> bool {
    value.len() >= 3 && doubt(value) != Doubt::Hard && !refers(value)
}

/// Where the last value was found, and how many bytes may still be searched: parsers report in about the order of the
/// text, so that the next one is near.
#[derive(Debug)]
pub struct Cursor {
    at: usize,
    left: usize,
}

impl Cursor {
    pub fn of(text: &[u8]) -> Cursor {
        Cursor {
            at: 0,
            left: (1 << 20) + text.len() * 8,
        }
    }

    /// The place of one of the `forms` of a value: nearest after the last place that was found, else before it.
    fn find(&mut self, text: &[u8], forms: &[&[u8]]) -> Option<Range<usize>> {
        let finders: Vec<_> = forms
            .iter()
            .filter(|form| !form.is_empty())
            .map(memchr::memmem::Finder::new)
            .collect();
        for near in NEAR.into_iter().chain([text.len()]) {
            let from = self.at.saturating_sub(near);
            let to = self.at.saturating_add(near).min(text.len());
            for finder in &finders {
                let length = finder.needle().len();
                // One that begins before the cursor may end behind it.
                let before = from..(self.at + length - 1).min(text.len());
                for region in [self.at..to, before] {
                    if region.len() < length {
                        continue;
                    }
                    self.left = self.left.checked_sub(region.len())?;
                    if let Some(n) = finder.find(&text[region.clone()]) {
                        let start = region.start + n;
                        self.at = start + length;
                        return Some(start..self.at);
                    }
                }
            }
            if from == 0 && to == text.len() {
                break;
            }
        }
        None
    }
}

impl Context<'_, '_> {
    /// Reports a value under a rule's name. Placeholders and empty values are left out.
    pub fn emit(&mut self, rule: &str, value: &[u8], identifier: String) -> Option<&mut Raw> {
        if self.finds.full() || !worth(value) {
            return None;
        }
        let span = self.locate(value);
        self.push(rule, value, span, identifier)
    }

    pub fn emit_at(
        &mut self,
        rule: &str,
        value: &[u8],
        span: Range<usize>,
        identifier: String,
    ) -> Option<&mut Raw> {
        if self.finds.full() || !worth(value) {
            return None;
        }
        self.push(rule, value, span, identifier)
    }

    fn push(
        &mut self,
        rule: &str,
        value: &[u8],
        span: Range<usize>,
        identifier: String,
    ) -> Option<&mut Raw> {
        let rule = self.classifier.rule_named(rule)?;
        let raw = self
            .classifier
            .raw(rule, value, span, clean(identifier.as_bytes()), 3);
        self.finds.push(raw);
        self.finds.list.last_mut()
    }

    /// Several secret values of one credential; the first that is not empty is the one that is fingerprinted.
    pub fn emit_parts(
        &mut self,
        rule: &str,
        values: &[(&str, &str)],
        identifier: String,
    ) -> Option<&mut Raw> {
        let values: Vec<&(&str, &str)> =
            values.iter().filter(|(_, v)| worth(v.as_bytes())).collect();
        let (first, rest) = values.split_first()?;
        if self.finds.full() {
            return None;
        }
        let more: Vec<_> = rest
            .iter()
            .map(|(name, value)| part(name, value.as_bytes(), self.locate(value.as_bytes())))
            .collect();
        let raw = self.emit(rule, first.1.as_bytes(), identifier)?;
        raw.parts[0].name = first.0.to_string();
        raw.parts.extend(more);
        Some(raw)
    }

    /// Credentials of a kind of their own in a value that a field calls secret: each keeps its kind, its fingerprint and
    /// what it says of itself, and the field is added to that. False when there are none.
    pub fn emit_known(&mut self, name: &str, value: &str, field: &str) -> bool {
        // Variables are known by their names in capitals.
        let variable = name.to_ascii_uppercase();
        let origin = Origin::Env { name: &variable };
        let mut known = self.classifier.classify_value(value.as_bytes(), origin);
        known.retain(|f| !f.parts.is_empty() && f.specific() && f.confidence >= KNOWN);
        let whole = match known.is_empty() {
            true => 0..0,
            false => self.locate(value.as_bytes()),
        };
        let mut any = false;
        for found in known {
            let part = &found.parts[0];
            let within = part.span.clone();
            // As it stands there; with escapes before it, it is looked for by itself.
            let span = match whole.len() == value.len() && within.end <= value.len() {
                true => whole.start + within.start..whole.start + within.end,
                false => self.locate(&part.value),
            };
            let identifier = match found.identifier.as_str() {
                "" => field.to_owned(),
                own => format!("{own} ({field})"),
            };
            if let Some(raw) = self.emit_at(&found.rule, &part.value, span, identifier) {
                raw.confidence = found.confidence;
                raw.expires = found.expires;
                raw.public = found.public;
                raw.login = found.login;
                any = true;
            }
        }
        any
    }

    /// A key in PEM inside a parsed value.
    pub fn emit_pem(
        &mut self,
        rule: &str,
        pem_text: &[u8],
        identifier: String,
    ) -> Option<&mut Raw> {
        if self.finds.full() {
            return None;
        }
        let at = memchr::memmem::find(pem_text, b"-----BEGIN")?;
        let mut key = pem::at(pem_text, at)?;
        let identifier = if key.encrypted && !identifier.contains("(encrypted)") {
            format!("{identifier} (encrypted)")
        } else {
            identifier
        };
        // The block as it stands in the text, escaped or not.
        let span = self.locate(&pem_text[key.span.clone()]);
        let part = pem::to_part(&mut key);
        let raw = self.emit_at(rule, &part.value, span.clone(), identifier)?;
        raw.parts[0].span = span;
        raw.key = key.public.take();
        Some(raw)
    }

    /// Where a value stands in the text, verbatim or with JSON escapes; an empty range when it does not, or when the
    /// search for all of them has become too long for the text.
    pub fn locate(&mut self, value: &[u8]) -> Range<usize> {
        let escaped = escaped(value);
        let forms: Vec<&[u8]> = std::iter::once(value)
            .chain(escaped.iter().map(|form| form.as_slice()))
            .collect();
        self.cursor.find(self.text, &forms).unwrap_or(0..0)
    }

    /// The last component of the path.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// A value as JSON writes it, where that differs: with escapes, and with those of slashes, as PHP and others add.
fn escaped(value: &[u8]) -> Vec<zeroize::Zeroizing<Vec<u8>>> {
    let plain = |b: &u8| *b >= 0x20 && *b < 0x7f && !matches!(b, b'"' | b'\\' | b'/');
    if value.iter().all(plain) {
        return Vec::new();
    }
    let Some(json) = std::str::from_utf8(value)
        .ok()
        .and_then(|text| serde_json::to_string(text).ok())
    else {
        return Vec::new();
    };
    let json = zeroize::Zeroizing::new(json);
    let inner = &json[1..json.len() - 1];
    let mut out = Vec::new();
    if inner.as_bytes() != value {
        out.push(zeroize::Zeroizing::new(inner.as_bytes().to_vec()));
    }
    if inner.contains('/') {
        out.push(zeroize::Zeroizing::new(
            inner.replace('/', "\\/").into_bytes(),
        ));
    }
    out
}

/// Letters of base64 that a key must have to be told from a word, and that a file of one has at most.
const KEYFILE: std::ops::RangeInclusive<usize> = 32..=1024;

/// A file of base64 alone, over any number of lines; white space counts for nothing (mongod's keyFile).
fn keyfile(context: &mut Context<'_, '_>) {
    let text = context.text.trim_ascii();
    if text.len() > 2 * KEYFILE.end() {
        return;
    }
    let key: zeroize::Zeroizing<Vec<u8>> = zeroize::Zeroizing::new(
        text.iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect(),
    );
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    if !KEYFILE.contains(&key.len())
        || !key.iter().all(base64)
        || !super::checks::looks_random(&key[..*KEYFILE.start()])
    {
        return;
    }
    let name = context.classifier.rule(context.rule).spec.name.clone();
    let start = context.text.len() - context.text.trim_ascii_start().len();
    let identifier = context.file_name().to_string();
    context.emit_at(&name, &key, start..start + text.len(), identifier);
}

/// A file that holds nothing but the secret (`~/.vault-token`, `/var/run/secrets/...`).
fn whole_file(context: &mut Context<'_, '_>) {
    let text = context.text.trim_ascii();
    if text.len() < 8
        || text.len() > 16 * 1024
        || text.iter().any(|b| matches!(b, b'\n' | b' ' | 0))
    {
        return;
    }
    let spec = &context.classifier.rule(context.rule).spec;
    let (name, deriver) = (spec.name.clone(), spec.identifier.clone());
    let derived = super::derive::derive(if deriver.is_empty() { "none" } else { &deriver }, text);
    let start = context.text.len() - context.text.trim_ascii_start().len();
    let identifier = if derived.identifier.is_empty() {
        context.file_name().to_string()
    } else {
        derived.identifier
    };
    if let Some(raw) = context.emit_at(&name, text, start..start + text.len(), identifier) {
        raw.expires = derived.expires;
    }
}
