//! Public halves of keys that are held here: which of them has signed a JSON Web Token (RFC 7515) that was sent.
//!
//! A verified signature is the strongest proof of a key's use that can be had without the key. Verifying costs about 40 µs a
//! key, so tokens that were seen lately are remembered, and how many are verified in a time is bounded by the caller.

use super::encode::{self, sextet};
use keytrail_model::{CredentialRef, KeyAlgorithm, PublicKey};
use ring::{hmac, signature};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Keys that signatures are verified with at most.
pub const MAX_KEYS: usize = 1_024;
/// Keys that one token is tried with at most, those learnt last first.
const MAX_TRIES: usize = 32;
/// Longest token.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest header; the name of the algorithm stands in it.
const MAX_HEADER: usize = 2 * 1024;
/// Tokens that are remembered, with who signed them.
const MAX_RECENT: usize = 1_024;

type Verifier = &'static dyn signature::VerificationAlgorithm;

#[derive(Default)]
pub struct Keys {
    list: Vec<(CredentialRef, PublicKey)>,
    recent: Mutex<HashMap<[u8; 32], Option<CredentialRef>>>,
}

/// What became of a token.
pub enum Signed {
    By(CredentialRef),
    ByOthers,
    /// It was not verified for want of time.
    Unknown,
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// False when there are too many.
    pub fn learn(&mut self, credential: CredentialRef, key: &PublicKey) -> bool {
        let room = self.list.len() < MAX_KEYS;
        if room {
            self.list.push((credential, key.clone()));
            self.recent_mut().clear();
        }
        room
    }

    pub fn forget(&mut self, fingerprint: &str) {
        let before = self.list.len();
        self.list.retain(|(c, _)| c.fingerprint != fingerprint);
        if self.list.len() < before {
            self.recent_mut().clear();
        }
    }

    fn recent_mut(&mut self) -> &mut HashMap<[u8; 32], Option<CredentialRef>> {
        self.recent
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who signed this token. `name` hides it in what is remembered; each key tried costs one of `allowed`.
    pub fn signer(&self, token: &[u8], name: &hmac::Key, allowed: &mut u32) -> Signed {
        let Some((algorithm, how)) = algorithm(token) else {
            return Signed::ByOthers;
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(name, token).as_ref());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match recent.get(&digest) {
            Some(Some(by)) => return Signed::By(by.clone()),
            Some(None) => return Signed::ByOthers,
            None => {}
        }
        let Some((signed, signature)) = apart(token) else {
            return Signed::ByOthers;
        };
        let fitting = self
            .list
            .iter()
            .rev()
            .filter(|(_, key)| key.algorithm == algorithm);
        let mut by = None;
        for (n, (credential, key)) in fitting.enumerate() {
            if n >= MAX_TRIES || *allowed == 0 {
                return Signed::Unknown;
            }
            *allowed -= 1;
            let key = signature::UnparsedPublicKey::new(how, &key.bytes);
            if key.verify(signed, &signature).is_ok() {
                by = Some(credential.clone());
                break;
            }
        }
        if recent.len() >= MAX_RECENT {
            recent.clear();
        }
        recent.insert(digest, by.clone());
        by.map_or(Signed::ByOthers, Signed::By)
    }
}

/// Tokens in compact form in `bytes`, each once.
pub fn tokens(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            // The beginning of a JSON object in base64.
            let start = from + memchr::memmem::find(bytes.get(from..)?, b"eyJ")?;
            let rest = &bytes[start..bytes.len().min(start + MAX_TOKEN)];
            let end = start + rest.iter().take_while(|&&c| is_part(c)).count();
            from = end.max(start + 3);
            let alone = start == 0 || !is_part(bytes[start - 1]);
            let token = &bytes[start..end];
            let dots = memchr::memchr_iter(b'.', token).count();
            if alone && dots == 2 && token.last().is_some_and(|&c| c != b'.') {
                return Some(start..end);
            }
        }
    })
}

fn is_part(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')
}

/// What is signed, and the signature.
fn apart(token: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let dot = memchr::memrchr(b'.', token)?;
    // A signature is no secret; the token is.
    Some((&token[..dot], decode(&token[dot + 1..])?.to_vec()))
}

/// Base64 for URLs without padding (RFC 7515 section 2).
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = encode::buffer(text.len());
    let (mut bits, mut count) = (0u32, 0);
    for &c in text {
        bits = bits << 6 | u32::from(sextet(c)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// The algorithm that the header names (RFC 7518 section 3.1, RFC 8037), of those that need a key pair.
fn algorithm(token: &[u8]) -> Option<(KeyAlgorithm, Verifier)> {
    let header = &token[..memchr::memchr(b'.', token).filter(|n| *n <= MAX_HEADER)?];
    let header = decode(header)?;
    let name = memchr::memmem::find(&header, b"\"alg\"")? + 5;
    let rest = header[name..].trim_ascii_start().strip_prefix(b":")?;
    let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
    let name = &rest[..memchr::memchr(b'"', rest)?];
    let known: (KeyAlgorithm, Verifier) = match name {
        b"RS256" => (KeyAlgorithm::Rsa, &signature::RSA_PKCS1_2048_8192_SHA256),
        b"RS384" => (KeyAlgorithm::Rsa, &signature::RSA_PKCS1_2048_8192_SHA384),
        b"RS512" => (KeyAlgorithm::Rsa, &signature::RSA_PKCS1_2048_8192_SHA512),
        b"PS256" => (KeyAlgorithm::Rsa, &signature::RSA_PSS_2048_8192_SHA256),
        b"PS384" => (KeyAlgorithm::Rsa, &signature::RSA_PSS_2048_8192_SHA384),
        b"PS512" => (KeyAlgorithm::Rsa, &signature::RSA_PSS_2048_8192_SHA512),
        b"ES256" => (KeyAlgorithm::P256, &signature::ECDSA_P256_SHA256_FIXED),
        b"ES384" => (KeyAlgorithm::P384, &signature::ECDSA_P384_SHA384_FIXED),
        b"EdDSA" => (KeyAlgorithm::Ed25519, &signature::ED25519),
        _ => return None,
    };
    Some(known)
}

/// The bytes of a public key that stand in certificates, in keys of SSH and wherever else it is shown: the modulus, the
/// point without its first byte, the key.
pub fn material(key: &PublicKey) -> Option<&[u8]> {
    let bytes = match key.algorithm {
        KeyAlgorithm::Rsa => modulus(&key.bytes)?,
        KeyAlgorithm::P256 | KeyAlgorithm::P384 => key.bytes.strip_prefix(&[4])?,
        KeyAlgorithm::Ed25519 => &key.bytes[..],
    };
    (bytes.len() >= 32).then_some(bytes)
}

/// The first number in `SEQUENCE { INTEGER, INTEGER }`, without the zero before it.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let sequence = content(der, 0x30)?;
    let number = content(sequence, 0x02)?;
    Some(number.strip_prefix(&[0]).unwrap_or(number))
}

fn content(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let more = usize::from(length & 0x7f);
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x82 => {
            let (bytes, rest) = rest.split_at_checked(more)?;
            let length = bytes.iter().fold(0, |all, &b| all << 8 | usize::from(b));
            (length, rest)
        }
        _ => return None,
    };
    (first == tag).then(|| rest.get(..length))?
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
