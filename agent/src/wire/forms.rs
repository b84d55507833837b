//! The shapes in which one secret travels.

use super::encode::{self, Edge, JsonStyle, Secret};
use super::pem;
use std::fmt;

/// How a secret was encoded in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transform {
    Raw,
    Base64,
    Base64Url,
    Percent,
    Json,
    Hex,
}

impl Transform {
    /// The name in `Evidence.transform`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Percent => "percent",
            Self::Json => "json",
            Self::Hex => "hex",
        }
    }
}

/// One encoded form of a secret. Wiped on drop, and silent in `Debug`.
#[derive(PartialEq, Eq)]
pub struct Form {
    pub transform: Transform,
    /// The characters the secret decides alone, without line breaks when `breaks`.
    pub text: Secret,
    /// Partly decided base64 characters right before and after `text`.
    pub head: Edge,
    pub tail: Edge,
    /// Line breaks and indentation inside are ignored (base64, hex, PEM bodies).
    pub breaks: bool,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form")
            .field("transform", &self.transform)
            .field("len", &self.text.len())
            .field("breaks", &self.breaks)
            .finish_non_exhaustive()
    }
}

/// What common URL encoders leave alone beside letters and digits, and whether a space becomes `+`:
/// RFC 3986; JavaScript's encodeURIComponent; Python's quote; nothing at all; Java's and HTML's form encoding.
const PERCENT: [(&[u8], bool); 6] = [
    (b"-._~", false),
    (b"-._~!'()*", false),
    (b"-._~/", false),
    (b"", false),
    (b"-._*", true),
    (b"-._~", true),
];

/// What common JSON writers do: plain; PHP (slashes); Go (HTML-safe); Python (ASCII only); .NET (both, and `+`).
const JSON: [JsonStyle; 6] = [
    JsonStyle {
        escaped: b"",
        slash: false,
        ascii: false,
        upper: false,
    },
    JsonStyle {
        escaped: b"",
        slash: true,
        ascii: true,
        upper: false,
    },
    JsonStyle {
        escaped: b"<>&",
        slash: false,
        ascii: false,
        upper: false,
    },
    JsonStyle {
        escaped: b"",
        slash: false,
        ascii: true,
        upper: false,
    },
    JsonStyle {
        escaped: b"\"&'+<>`",
        slash: false,
        ascii: true,
        upper: true,
    },
    JsonStyle {
        escaped: b"\"&'+<>`",
        slash: false,
        ascii: true,
        upper: false,
    },
];

/// All forms of `secret`, equal ones once, the simplest name first.
///
/// A PEM text is represented by its body alone: the boundary lines are no secret and get lost on the way.
pub fn forms(secret: &[u8]) -> Vec<Form> {
    let mut out = Vec::new();
    let body = pem::body(secret);
    let secret = body.clone().map_or(secret, |range| &secret[range]);
    if secret.is_empty() {
        return out;
    }
    if body.is_some() {
        let mut joined = encode::buffer(secret.len());
        joined.extend(secret.iter().copied().filter(|&c| !pem::is_break(c)));
        push(&mut out, plain(Transform::Raw, joined, true));
    } else {
        push(&mut out, plain(Transform::Raw, encode::copy(secret), false));
    }
    let escaped = encode::json(secret, JSON[0]);
    push_plain(&mut out, Transform::Json, encode::copy(&escaped));
    for style in &JSON[1..] {
        push_plain(&mut out, Transform::Json, encode::json(secret, *style));
    }
    // A JSON text inside a JSON string, such as a service account's key file in a request body.
    push_plain(&mut out, Transform::Json, encode::json(&escaped, JSON[0]));
    for (safe, plus) in PERCENT {
        for upper in [true, false] {
            push_plain(
                &mut out,
                Transform::Percent,
                encode::percent(secret, safe, plus, upper),
            );
        }
    }
    // A JSON file sent as base64 holds the escaped secret.
    let sources = if escaped[..] == *secret {
        &[secret][..]
    } else {
        &[secret, &escaped[..]][..]
    };
    for source in sources {
        for (url, transform) in [(false, Transform::Base64), (true, Transform::Base64Url)] {
            for alignment in 0..3 {
                if let Some((head, text, tail)) = encode::base64(source, alignment, url) {
                    push(
                        &mut out,
                        Form {
                            transform,
                            text,
                            head,
                            tail,
                            breaks: true,
                        },
                    );
                }
            }
        }
        // The matcher treats both cases as one.
        push(
            &mut out,
            plain(Transform::Hex, encode::hex(source, false), true),
        );
    }
    out
}

fn plain(transform: Transform, text: Secret, breaks: bool) -> Form {
    Form {
        transform,
        text,
        head: Edge::default(),
        tail: Edge::default(),
        breaks,
    }
}

/// Adds a form unless an equal one is there under a simpler name.
fn push(out: &mut Vec<Form>, form: Form) {
    let known = out
        .iter()
        .any(|f| f.text == form.text && f.head == form.head && f.tail == form.tail);
    if !known {
        out.push(form);
    }
}

/// As [`push`], and drops a form around a simpler one: `\"abc` is not another occurrence of `"abc`.
fn push_plain(out: &mut Vec<Form>, transform: Transform, text: Secret) {
    let around = out.iter().any(|f| {
        f.head.mask == 0 && f.tail.mask == 0 && memchr::memmem::find(&text, &f.text).is_some()
    });
    if !around {
        out.push(plain(transform, text, false));
    }
}
