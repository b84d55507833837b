//! Private keys in DER, without armour. A key is the same credential as in PEM, so the armour is put around it.

use super::Context;
use base64::Engine;
use zeroize::Zeroizing;

/// Longest key: RSA of 16384 bits has about 9 KiB.
const MAX_KEY: usize = 16 * 1024;

/// DER of PBES2 (1.2.840.113549.1.5.13, RFC 8018 appendix A.4), which encrypts keys of PKCS#8.
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";

pub fn parse(context: &mut Context<'_, '_>) {
    let text = context.text;
    let (Some(label), Some((body, head))) = (label(text), sequence(text)) else {
        return;
    };
    let length = head + body;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&text[..length]));
    let armour = Zeroizing::new(format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        body.as_str()
    ));
    let Some(mut key) = crate::scan::pem::at(armour.as_bytes(), 0) else {
        return;
    };
    key.span = 0..length;
    let (classifier, path) = (context.classifier, context.path);
    classifier.pem(text, path, key, 3, context.finds);
}

/// What PEM would call the key that a text is; `None`: it is none. A certificate, a request and a public key begin with
/// other fields.
pub fn label(text: &[u8]) -> Option<&'static str> {
    let (length, head) = sequence(text)?;
    let body = text.get(head..head + length)?;
    match body {
        // Version 0 or 1 (RFC 5958) and the algorithm's own sequence, which begins with its OID.
        [2, 1, 0 | 1, 0x30, _, 6, ..] => Some("PRIVATE KEY"),
        // Version 0 and the modulus, of 512 bits at least.
        [2, 1, 0, 2, 0x40..=0x82, ..] => Some("RSA PRIVATE KEY"),
        // Version 1 and the scalar of P-256, P-384 or P-521 (RFC 5915).
        [2, 1, 1, 4, 32 | 48 | 66, ..] => Some("EC PRIVATE KEY"),
        [0x30, ..] => {
            let (algorithm, inner) = sequence(body)?;
            let rest = body.get(inner + algorithm..)?;
            (body.get(inner..)?.starts_with(PBES2) && rest.first() == Some(&4))
                .then_some("ENCRYPTED PRIVATE KEY")
        }
        _ => None,
    }
}

/// The length of the body of the SEQUENCE that a text begins with and of the bytes before it; the text holds all of it.
fn sequence(text: &[u8]) -> Option<(usize, usize)> {
    let (length, head) = match *text {
        [0x30, short @ 0..=0x7f, ..] => (usize::from(short), 2),
        [0x30, 0x81, length, ..] => (usize::from(length), 3),
        [0x30, 0x82, high, low, ..] => (usize::from(high) << 8 | usize::from(low), 4),
        _ => return None,
    };
    ((32..=MAX_KEY).contains(&length) && text.len() >= head + length).then_some((length, head))
}
