//! What the rest of the agent asks of this stage.

use super::Fingerprinter;
use keytrail_model::{Credential, PublicKey};
use std::fmt;
use std::ops::Range;
use zeroize::Zeroizing;

/// Where the text comes from: decides which rules apply and how it is parsed.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A file's content; the path chooses structured parsers (INI, JSON, PEM, ...) and gives context.
    File { path: &'a str },
    /// The value of an environment variable.
    Env { name: &'a str },
    /// One command-line argument (`index` within argv).
    Argv { index: u32 },
    /// Text of unknown origin.
    Text,
}

/// One secret value of a credential. Most have one; an AWS session has `secret_access_key` and `session_token`.
pub struct Part {
    /// Field name, for example `secret_access_key`; empty for the only part.
    pub name: String,
    /// The canonical secret bytes (decoded from JSON escapes, base64 and so on).
    pub value: Zeroizing<Vec<u8>>,
    /// Where it is in the input, when it is there verbatim or encoded.
    pub span: Range<usize>,
}

impl fmt::Debug for Part {
    /// Never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("name", &self.name)
            .field("length", &self.value.len())
            .field("span", &self.span)
            .finish()
    }
}

/// A credential found in a text, still with its secret bytes. Never leaves `secret` and `wire`.
#[derive(Debug, Default)]
pub struct Finding {
    pub kind: String,
    pub rule: String,
    /// Public identifier, empty when there is none.
    pub identifier: String,
    /// Measured precision of the rule, 0 to 1.
    pub confidence: f64,
    pub expires: Option<i64>,
    pub privilege: u8,
    pub attack: String,
    /// The first part is the one that is fingerprinted. Empty when the text held only a public identifier
    /// (an AWS key id without its secret): such a finding must never be matched as a secret.
    pub parts: Vec<Part>,
    /// Distinctive public strings that betray use without the secret (AKIA..., client_email): `identified`.
    pub public: Vec<String>,
    /// The public half of a private key, where it could be determined.
    pub key: Option<PublicKey>,
    /// The user of a database whose password it is; empty for everything else.
    pub login: String,
    /// Every place of the credential in the text, the first one first: what a redaction has to cover.
    pub places: Vec<Range<usize>>,
}

/// What bounded the search of one text. A bound that was reached is no failure, but what lies behind it was not seen, and
/// that is to be reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The text holds more findings than are kept of one.
    pub findings: bool,
    /// Trying the rules would have cost more than a text of this length may.
    pub work: bool,
    /// A document too large, too deep or too repetitive for its parser: only what stands there by itself was found.
    pub document: bool,
    /// The text is longer than what is inspected.
    pub length: bool,
}

impl Limits {
    #[must_use]
    pub fn any(self) -> bool {
        self != Limits::default()
    }

    /// What was seen first, as the end of a sentence; empty when nothing was.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Limits { length: true, .. } => "longer than what is inspected",
            Limits { findings: true, .. } => "more credentials than are kept of one text",
            Limits { work: true, .. } => "made to be slow: its end was not inspected",
            Limits { document: true, .. } => {
                "a document too large, too deep or too repetitive for its parser"
            }
            _ => "",
        }
    }
}

/// What was found in one text, and what bounded the search.
#[derive(Debug, Default)]
pub struct Classified {
    pub findings: Vec<Finding>,
    pub limits: Limits,
}

impl Finding {
    /// The first place, or an empty range at the start when it has none.
    pub fn span(&self) -> Range<usize> {
        self.places.first().cloned().unwrap_or(0..0)
    }

    /// Known by its form or place, not only by the name it stands under.
    pub fn specific(&self) -> bool {
        !self.rule.starts_with("generic-")
    }

    /// What may be said about it once the secret bytes are gone.
    pub fn credential(&self, fingerprinter: &Fingerprinter) -> Credential {
        let bytes: &[u8] = match self.parts.first() {
            Some(part) => &part.value,
            // A different prefix keeps the fingerprint of an identifier apart from that of any secret.
            None => &[b"public\0", self.identifier.as_bytes()].concat(),
        };
        Credential {
            kind: self.kind.clone(),
            identifier: self.identifier.clone(),
            fingerprint: fingerprinter.fingerprint(bytes),
            confidence: self.confidence,
            expires: self.expires,
            rule: self.rule.clone(),
            privilege: self.privilege,
            attack: self.attack.clone(),
        }
    }
}

/// A place where a kind of credential lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchGlob {
    /// `~/` stands for every home directory; otherwise an absolute path or a name pattern (`**/.env`).
    pub glob: String,
    pub kind: String,
}

/// One kind this build knows.
#[derive(Clone, Debug, PartialEq)]
pub struct KindInfo {
    pub kind: String,
    pub rule: String,
    pub description: String,
    pub confidence: f64,
    pub privilege: u8,
    /// How it travels: one or more of H, B, U, Q, S, J, P, L (see docs/RULES.md).
    pub wire: String,
    pub attack: String,
    pub env: Vec<String>,
    pub paths: Vec<String>,
}

/// A rule that was refused; the others stay in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct RuleError {
    pub file: String,
    /// 1-based; 0 when the whole file could not be read.
    pub line: usize,
    pub reason: String,
}
