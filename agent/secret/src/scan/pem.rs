//! Private keys in PEM armour, also inside JSON strings, source code and base64.

use super::text::clean;
use crate::api::Part;
use crate::derive::{base64_any, ssh};
use keytrail_model::{KeyAlgorithm, PublicKey};
use std::ops::Range;
use zeroize::Zeroizing;

/// Longest block inspected.
const MAX_BLOCK: usize = 64 * 1024;

/// A private key found in a text.
#[derive(Debug)]
pub struct PemKey {
    pub span: Range<usize>,
    /// Between BEGIN and the dashes, for example `RSA PRIVATE KEY`.
    pub label: String,
    /// The block in canonical form: label lines and a body in the columns its writers use.
    pub canonical: Zeroizing<Vec<u8>>,
    pub identifier: String,
    pub encrypted: bool,
    pub ssh: bool,
    /// The body decodes to what a key begins with.
    pub sound: bool,
    /// Its public half, of the kinds that sign.
    pub public: Option<PublicKey>,
}

/// Reads the block whose `-----BEGIN` is at `at`.
pub fn at(text: &[u8], at: usize) -> Option<PemKey> {
    let limit = text.len().min(at + MAX_BLOCK);
    let block = &text[at..limit];
    let after_begin = block.get(10..)?;
    let label_end = memchr::memmem::find(&after_begin[..after_begin.len().min(60)], b"-----")?;
    let label = after_begin[..label_end].trim_ascii();
    if memchr::memmem::find(label, b"PRIVATE KEY").is_none_or(|i| label.len() - i > 17)
        || label
            .iter()
            .any(|b| !(b.is_ascii_alphanumeric() || *b == b' '))
    {
        return None;
    }
    let body_start = 10 + label_end + 5;
    // Whatever dashes come next end the body, so that a file full of BEGIN lines costs no more than its length.
    let dashes = memchr::memmem::find(&block[body_start..], b"-----");
    let end = dashes.filter(|&n| block[body_start + n..].starts_with(b"-----END"));
    // A truncated block is still key material.
    let (body_end, span_end) = match end {
        Some(n) => {
            let close = body_start + n + 8;
            let tail = memchr::memmem::find(&block[close..block.len().min(close + 60)], b"-----")
                .map_or(close, |m| close + m + 5);
            (body_start + n, tail)
        }
        None => {
            let stop = dashes.map_or(block.len(), |n| body_start + n);
            (stop, stop)
        }
    };
    let raw = &block[body_start..body_end];
    let proc_type = memchr::memmem::find(raw, b"ENCRYPTED").is_some()
        && memchr::memmem::find(raw, b"Proc-Type").is_some();
    let body = body_of(raw);
    if body.len() < 24 {
        return None;
    }
    let truncated_end = if end.is_some() {
        span_end
    } else {
        body_start + raw.len().min(body.len() * 2)
    };
    let text_label = clean(label);
    let der = base64_any(&body);
    let About {
        encrypted,
        identifier,
        is_ssh,
        sound,
        public,
    } = about(der.as_deref().map(Vec::as_slice), &text_label, proc_type);
    // A mention of the armour (a table of file types, a parser's source) and not a key.
    if !sound && (body.len() < 64 || end.is_none() || is_code(raw)) {
        return None;
    }
    let canonical = canonical(label, &body);
    Some(PemKey {
        span: at..at + truncated_end,
        label: text_label,
        canonical,
        identifier,
        encrypted,
        ssh: is_ssh,
        sound,
        public,
    })
}

/// What the body says of the key.
struct About {
    encrypted: bool,
    identifier: String,
    is_ssh: bool,
    /// It decodes to what a key begins with.
    sound: bool,
    public: Option<PublicKey>,
}

fn about(der: Option<&[u8]>, label: &str, proc_type: bool) -> About {
    let mut encrypted = proc_type || label.starts_with("ENCRYPTED");
    let mut identifier = String::new();
    let mut is_ssh = label.contains("OPENSSH") || label.contains("SSH2");
    let mut sound = false;
    let mut public = None;
    if let Some(der) = der {
        if let Some(key) = ssh::private(der) {
            encrypted = key.encrypted;
            identifier = key.identifier();
            is_ssh = true;
            sound = true;
            public = key.public;
        } else if !encrypted {
            sound = der.first() == Some(&0x30) || label.contains("PGP");
            public = pkcs8(der, label).or_else(|| sec1(der, label));
            identifier = public.as_ref().map(fingerprint).unwrap_or_default();
        } else {
            sound = true;
        }
    }
    if encrypted && !identifier.contains("(encrypted)") {
        identifier = if identifier.is_empty() {
            "(encrypted)".to_string()
        } else {
            format!("{identifier} (encrypted)")
        };
    }
    About {
        encrypted,
        identifier,
        is_ssh,
        sound,
        public,
    }
}

/// The block as it is usually written.
fn canonical(label: &[u8], body: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut canonical = Zeroizing::new(Vec::with_capacity(body.len() + 128));
    canonical.extend_from_slice(b"-----BEGIN ");
    canonical.extend_from_slice(label);
    canonical.extend_from_slice(b"-----\n");
    // RFC 7468, section 2 asks for 64 columns; OpenSSH writes 70 (sshkey.c).
    let columns = if label.starts_with(b"OPENSSH") {
        70
    } else {
        64
    };
    for line in body.chunks(columns) {
        canonical.extend_from_slice(line);
        canonical.push(b'\n');
    }
    canonical.extend_from_slice(b"-----END ");
    canonical.extend_from_slice(label);
    canonical.extend_from_slice(b"-----\n");
    canonical
}

/// Between the lines of the armour stands what puts a key together, not one: brackets and semicolons, which neither base64 nor
/// its quotes and header lines have.
fn is_code(raw: &[u8]) -> bool {
    let signs = raw.iter().filter(|b| b"(){}[];*".contains(b)).count();
    signs * 32 > raw.len()
}

/// The base64 of a block without line breaks, escapes (`\n`), quotes, concatenation signs and header lines.
fn body_of(raw: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(raw.len()));
    let mut i = 0;
    while i < raw.len() {
        let b = raw[i];
        match b {
            b'\\' => {
                // \n, \r, \\n, \u000a
                i += 1;
                while raw.get(i) == Some(&b'\\') {
                    i += 1;
                }
                i += match raw.get(i) {
                    Some(b'u') => 5,
                    Some(b'n' | b'r' | b't' | b'"' | b'/') if raw.get(i) != Some(&b'/') => 1,
                    _ => 0,
                };
                continue;
            }
            b'-' if raw[i..].starts_with(b"-----") => break,
            // A header line (Proc-Type, DEK-Info, Version, Comment) has a colon; so has no base64.
            _ if header_line(&raw[i..])
                && (i == 0 || matches!(raw[i - 1], b'\n' | b'n' | b'"' | b'\'' | b' ')) =>
            {
                while i < raw.len() && raw[i] != b'\n' && !raw[i..].starts_with(b"\\n") {
                    i += 1;
                }
                continue;
            }
            _ if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=') => {
                // `+` between quotes is concatenation in source code.
                let concatenation = b == b'+'
                    && raw[..i]
                        .iter()
                        .rev()
                        .find(|c| !c.is_ascii_whitespace())
                        .is_some_and(|c| matches!(c, b'"' | b'\''));
                if !concatenation {
                    out.push(b);
                }
            }
            _ => {}
        }
        i += 1;
    }
    out
}

fn header_line(rest: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"Proc-Type:",
        b"DEK-Info:",
        b"Version:",
        b"Comment:",
        b"Charset:",
        b"Hash:",
        b"MessageID:",
        b"Subject:",
        b"X-",
    ];
    NAMES.iter().any(|n| rest.starts_with(n))
}

/// `SHA256:` of the public half: one key in two encodings gets one identifier.
fn fingerprint(key: &PublicKey) -> String {
    let algorithm = match key.algorithm {
        KeyAlgorithm::Rsa => "rsa",
        KeyAlgorithm::P256 => "p256",
        KeyAlgorithm::P384 => "p384",
        KeyAlgorithm::Ed25519 => "ed25519",
    };
    format!("{algorithm} {}", ssh::fingerprint(&key.bytes))
}

/// The public half, when `ring` can read the key.
fn pkcs8(der: &[u8], label: &str) -> Option<PublicKey> {
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RsaKeyPair,
    };
    let rng = ring::rand::SystemRandom::new();
    let key = |algorithm, bytes: &[u8]| PublicKey {
        algorithm,
        bytes: bytes.to_vec(),
    };
    if label.starts_with("RSA") {
        let pair = RsaKeyPair::from_der(der).ok()?;
        return Some(key(KeyAlgorithm::Rsa, pair.public().as_ref()));
    }
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
        return Some(key(KeyAlgorithm::Rsa, pair.public().as_ref()));
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some(key(KeyAlgorithm::Ed25519, pair.public_key().as_ref()));
    }
    if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &rng) {
        return Some(key(KeyAlgorithm::P256, pair.public_key().as_ref()));
    }
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der, &rng).ok()?;
    Some(key(KeyAlgorithm::P384, pair.public_key().as_ref()))
}

/// The point in `ECPrivateKey` (RFC 5915), which `ring` does not read: `[1] { BIT STRING }` at its end.
fn sec1(der: &[u8], label: &str) -> Option<PublicKey> {
    if !label.starts_with("EC ") {
        return None;
    }
    // 1.2.840.10045.3.1.7 and 1.3.132.0.34, in `[0]`.
    let curves: [(&[u8], KeyAlgorithm, usize); 2] = [
        (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", KeyAlgorithm::P256, 65),
        (b"\x2b\x81\x04\x00\x22", KeyAlgorithm::P384, 97),
    ];
    curves.iter().find_map(|&(oid, algorithm, length)| {
        memchr::memmem::find(der, oid)?;
        let (before, point) = der.split_at_checked(der.len().checked_sub(length)?)?;
        let head = [0xa1, length as u8 + 3, 0x03, length as u8 + 1, 0];
        (before.ends_with(&head) && point.first() == Some(&4)).then(|| PublicKey {
            algorithm,
            bytes: point.to_vec(),
        })
    })
}

pub fn to_part(key: &mut PemKey) -> Part {
    Part {
        name: String::new(),
        value: std::mem::take(&mut key.canonical),
        span: key.span.clone(),
    }
}
