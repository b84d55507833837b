//! What the rest of the agent asks of this stage. (Contract; see the folder's other files for the work.)

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
#[derive(Debug)]
pub struct Part {
    /// Field name, for example `secret_access_key`; empty for the only part.
    pub name: String,
    /// The canonical secret bytes (decoded from JSON escapes, base64 and so on).
    pub value: Zeroizing<Vec<u8>>,
    /// Where it is in the input, when it is there verbatim or encoded.
    pub span: Range<usize>,
}

/// A credential found in a text, still with its secret bytes. Never leaves `secret` and `wire`.
#[derive(Debug)]
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
    /// The first part is the one that is fingerprinted.
    pub parts: Vec<Part>,
    /// Distinctive public strings that betray use without the secret (AKIA..., client_email): `identified`.
    pub public: Vec<String>,
}
