//! The shapes in which one secret travels.

use super::encode::{self, Edge, JsonStyle, Secret};
use super::pem;
pub use keytrail_model::Transform;
use std::fmt;
use std::ops::Range;

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
    /// Where in `text` the secret's [`REGION`] is: windows are taken from there alone.
    pub region: Range<usize>,
}

/// Bytes of a secret that its windows are about.
///
/// A window's hash tells up to 32 bits to who has the matcher's key and memory, and one secret has many
/// forms. All their windows are about the same few bytes, so that the rest is in no hash but the HMACs.
pub const REGION: usize = 16;
/// The same for PEM bodies, which line breaks may cut anywhere.
const PEM_REGION: usize = 24;

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
/// `pick` says where in the secret the most telling bytes are.
pub fn forms(secret: &[u8], pick: impl FnOnce(&[u8]) -> usize) -> Vec<Form> {
    let mut out = Vec::new();
    let body = pem::body(secret);
    let secret = body.clone().map_or(secret, |range| &secret[range]);
    if secret.is_empty() {
        return out;
    }
    let width = if body.is_some() { PEM_REGION } else { REGION };
    let middle = pick(secret).min(secret.len()) + super::window::WIDTH / 2;
    let from = middle
        .saturating_sub(width / 2)
        .min(secret.len().saturating_sub(width));
    let region = from..(from + width).min(secret.len());

    let unbroken = |bytes: &[u8]| {
        let mut joined = encode::buffer(bytes.len());
        joined.extend(
            bytes
                .iter()
                .copied()
                .filter(|&c| body.is_none() || !pem::is_break(c)),
        );
        joined
    };
    push(
        &mut out,
        Form {
            breaks: body.is_some(),
            ..plain(Transform::Raw, secret, &region, unbroken)
        },
    );
    let minimal = |bytes: &[u8]| encode::json(bytes, JSON[0]);
    for style in JSON {
        push_plain(
            &mut out,
            plain(Transform::Json, secret, &region, |bytes| {
                encode::json(bytes, style)
            }),
        );
    }
    // A JSON text inside a JSON string, such as a service account's key file in a request body.
    push_plain(
        &mut out,
        plain(Transform::Json, secret, &region, |bytes| {
            minimal(&minimal(bytes))
        }),
    );
    // And that in another one, as a message of a queue holds a request.
    push_plain(
        &mut out,
        plain(Transform::Json, secret, &region, |bytes| {
            minimal(&minimal(&minimal(bytes)))
        }),
    );
    push_percent(&mut out, secret, &region);
    let escaped = secret
        .iter()
        .any(|c| matches!(c, b'&' | b'<' | b'>' | b'"' | b'\''));
    for style in encode::XML.into_iter().filter(|_| escaped) {
        push_plain(
            &mut out,
            plain(Transform::Xml, secret, &region, |bytes| {
                encode::xml(bytes, style)
            }),
        );
    }
    push_binary(&mut out, secret, &region);
    // A JSON file sent as base64 holds the escaped secret.
    let escaped = minimal(secret);
    if memchr::memmem::find(&escaped, secret).is_none() {
        let region = minimal(&secret[..region.start]).len()..minimal(&secret[..region.end]).len();
        push_binary(&mut out, &escaped, &region);
    }
    out
}

/// Adds what encoders of addresses make of it, also twice.
fn push_percent(out: &mut Vec<Form>, secret: &[u8], region: &Range<usize>) {
    for (safe, plus) in PERCENT {
        for upper in [true, false] {
            let encoder = |bytes: &[u8]| encode::percent(bytes, safe, plus, upper);
            push_plain(out, plain(Transform::Percent, secret, region, encoder));
            if upper && !safe.is_empty() {
                // An address inside another one's query.
                let twice = |bytes: &[u8]| encoder(&encoder(bytes));
                push_plain(out, plain(Transform::Percent, secret, region, twice));
            }
        }
    }
}

/// Adds base64 in both alphabets at all alignments, and hex.
fn push_binary(out: &mut Vec<Form>, source: &[u8], region: &Range<usize>) {
    for (url, transform) in [(false, Transform::Base64), (true, Transform::Base64Url)] {
        for alignment in 0..3 {
            let Some((head, text, tail)) = encode::base64(source, alignment, url) else {
                continue;
            };
            // `text` begins at this character of the whole encoding; six bits a character.
            let first = [0, 2, 3][alignment];
            let place = |at: usize| {
                ((at + alignment) * 8)
                    .div_ceil(6)
                    .saturating_sub(first)
                    .min(text.len())
            };
            let region = place(region.start)..place(region.end);
            push(
                out,
                Form {
                    transform,
                    text,
                    head,
                    tail,
                    breaks: true,
                    region,
                },
            );
        }
    }
    // The matcher treats both cases as one.
    let hex = plain(Transform::Hex, source, region, |bytes| {
        encode::hex(bytes, false)
    });
    push(
        out,
        Form {
            breaks: true,
            ..hex
        },
    );
}

/// A form by an encoder that treats every byte (or character) on its own.
fn plain(
    transform: Transform,
    secret: &[u8],
    region: &Range<usize>,
    encoder: impl Fn(&[u8]) -> Secret,
) -> Form {
    let text = encoder(secret);
    // A prefix that ends inside a character may be encoded longer than the whole.
    let place = |at: usize| encoder(&secret[..at]).len().min(text.len());
    let region = place(region.start)..place(region.end);
    Form {
        transform,
        text,
        head: Edge::default(),
        tail: Edge::default(),
        breaks: false,
        region,
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
fn push_plain(out: &mut Vec<Form>, form: Form) {
    let around = out.iter().any(|f| {
        f.head.mask == 0 && f.tail.mask == 0 && memchr::memmem::find(&form.text, &f.text).is_some()
    });
    if !around {
        out.push(form);
    }
}
