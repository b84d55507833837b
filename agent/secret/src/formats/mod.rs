//! Files whose format says which of their values is a secret, and whose.
//!
//! A parser is chosen by a rule's path or by a literal in the text; it reports finds under the names of rules, which give
//! kind, privilege and confidence. All input is hostile: sizes, depths and counts are bounded.

mod accounts;
mod binary;
mod gnupg;
mod ini;
mod json;
mod json_clients;
mod lines;
mod sqlite;
mod table;
mod toml;
mod yaml;

use super::checks::{Doubt, doubt};
use super::classifier::Classifier;
use super::scan::token::clean;
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
        "whole-file" => whole_file(context),
        // `assign`, `url` and `pem` are found by the scan itself.
        _ => {}
    }
}

impl Context<'_, '_> {
    /// Reports a value under a rule's name. Placeholders and empty values are left out.
    pub fn emit(&mut self, rule: &str, value: &[u8], identifier: String) -> Option<&mut Raw> {
        let span = self.locate(value);
        self.emit_at(rule, value, span, identifier)
    }

    pub fn emit_at(
        &mut self,
        rule: &str,
        value: &[u8],
        span: Range<usize>,
        identifier: String,
    ) -> Option<&mut Raw> {
        if value.len() < 3 || doubt(value) == Doubt::Hard || self.finds.full() {
            return None;
        }
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
        let values: Vec<&(&str, &str)> = values
            .iter()
            .filter(|(_, v)| v.len() >= 3 && doubt(v.as_bytes()) != Doubt::Hard)
            .collect();
        let (first, rest) = values.split_first()?;
        let more: Vec<_> = rest
            .iter()
            .map(|(name, value)| part(name, value.as_bytes(), self.locate(value.as_bytes())))
            .collect();
        let raw = self.emit(rule, first.1.as_bytes(), identifier)?;
        raw.parts[0].name = first.0.to_string();
        raw.parts.extend(more);
        Some(raw)
    }

    /// A key in PEM inside a parsed value.
    pub fn emit_pem(
        &mut self,
        rule: &str,
        pem_text: &[u8],
        identifier: String,
    ) -> Option<&mut Raw> {
        let at = memchr::memmem::find(pem_text, b"-----BEGIN")?;
        let mut key = pem::at(pem_text, at)?;
        let identifier = if key.encrypted && !identifier.contains("(encrypted)") {
            format!("{identifier} (encrypted)")
        } else {
            identifier
        };
        // The block as it stands in the text, escaped or not.
        let span = self.locate_pem();
        let part = pem::to_part(&mut key);
        let raw = self.emit_at(rule, &part.value, span.clone(), identifier)?;
        raw.parts[0].span = span;
        Some(raw)
    }

    fn locate_pem(&self) -> Range<usize> {
        memchr::memmem::find_iter(self.text, b"-----BEGIN")
            .find_map(|at| pem::at(self.text, at).map(|k| k.span))
            .unwrap_or(0..0)
    }

    /// Where a value stands in the text, verbatim or with JSON escapes; an empty range when it does not.
    pub fn locate(&self, value: &[u8]) -> Range<usize> {
        if value.is_empty() {
            return 0..0;
        }
        if let Some(at) = memchr::memmem::find(self.text, value) {
            return at..at + value.len();
        }
        if let Ok(text) = std::str::from_utf8(value)
            && let Ok(escaped) = serde_json::to_string(text)
        {
            let inner = zeroize::Zeroizing::new(escaped);
            let inner = &inner.as_bytes()[1..inner.len() - 1];
            if let Some(at) = memchr::memmem::find(self.text, inner) {
                return at..at + inner.len();
            }
            // PHP and others also escape slashes.
            let slashed =
                zeroize::Zeroizing::new(String::from_utf8_lossy(inner).replace('/', "\\/"));
            if let Some(at) = memchr::memmem::find(self.text, slashed.as_bytes()) {
                return at..at + slashed.len();
            }
        }
        0..0
    }

    /// The last component of the path.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
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
