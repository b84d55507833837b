//! OpenSSH keys: fingerprint and comment from the halves that are in clear.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keytrail_model::{KeyAlgorithm, PublicKey};

/// Start of the binary form (PROTOCOL.key in the OpenSSH sources).
pub const MAGIC: &[u8] = b"openssh-key-v1\0";

#[derive(Debug, PartialEq)]
pub struct SshKey {
    /// `ssh-ed25519`, `ssh-rsa`, ...
    pub algorithm: String,
    /// `SHA256:...` as ssh-keygen prints it.
    pub fingerprint: String,
    /// Only readable in a key without passphrase.
    pub comment: String,
    pub encrypted: bool,
    /// Its public half, of the kinds that sign.
    pub public: Option<PublicKey>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_at_checked(4)?;
        self.0 = rest;
        Some(u32::from_be_bytes(head.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
}

/// Fingerprint of a public key blob.
pub fn fingerprint(blob: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, blob);
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest.as_ref()))
}

/// The key in a blob (RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4).
fn public(blob: &[u8]) -> Option<PublicKey> {
    let mut r = Reader(blob);
    let key = |algorithm, bytes| Some(PublicKey { algorithm, bytes });
    match r.string()? {
        b"ssh-ed25519" => key(KeyAlgorithm::Ed25519, r.string()?.to_vec()),
        b"ecdsa-sha2-nistp256" => {
            r.string()?;
            key(KeyAlgorithm::P256, r.string()?.to_vec())
        }
        b"ecdsa-sha2-nistp384" => {
            r.string()?;
            key(KeyAlgorithm::P384, r.string()?.to_vec())
        }
        b"ssh-rsa" => {
            // Numbers of SSH are those of DER.
            let (exponent, modulus) = (r.string()?, r.string()?);
            let numbers = [der(0x02, modulus), der(0x02, exponent)].concat();
            key(KeyAlgorithm::Rsa, der(0x30, &numbers))
        }
        _ => None,
    }
}

/// A value of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    let mut out = vec![tag];
    match content.len() {
        0..0x80 => out.push(length[3]),
        0x80..0x100 => out.extend([0x81, length[3]]),
        0x100..0x1_0000 => out.extend([0x82, length[2], length[3]]),
        _ => out.extend([0x83, length[1], length[2], length[3]]),
    }
    out.extend(content);
    out
}

/// Reads the binary form of a private key. `None` when it is not one.
pub fn private(bytes: &[u8]) -> Option<SshKey> {
    let mut r = Reader(bytes.strip_prefix(MAGIC)?);
    let cipher = r.string()?;
    let _kdf = r.string()?;
    let _options = r.string()?;
    if r.u32()? == 0 {
        return None;
    }
    let blob = r.string()?;
    let algorithm = String::from_utf8_lossy(Reader(blob).string()?)
        .chars()
        .take(64)
        .collect();
    let encrypted = cipher != b"none";
    let comment = if encrypted {
        None
    } else {
        r.string().and_then(comment)
    };
    Some(SshKey {
        algorithm,
        fingerprint: fingerprint(blob),
        comment: comment.unwrap_or_default(),
        encrypted,
        public: public(blob),
    })
}

/// The comment after the first key of the unencrypted private section.
fn comment(section: &[u8]) -> Option<String> {
    let mut r = Reader(section);
    // The same random number twice tells a right passphrase from a wrong one.
    if r.u32()? != r.u32()? {
        return None;
    }
    let fields = match r.string()? {
        b"ssh-ed25519" => 2,
        b"ssh-rsa" => 6,
        b"ssh-dss" => 5,
        kind if kind.starts_with(b"ecdsa-sha2-") => 3,
        _ => return None,
    };
    for _ in 0..fields {
        r.string()?;
    }
    Some(
        String::from_utf8_lossy(r.string()?)
            .chars()
            .filter(|c| !c.is_control())
            .take(120)
            .collect(),
    )
}

impl SshKey {
    pub fn identifier(&self) -> String {
        let mut out = self.fingerprint.clone();
        if !self.comment.is_empty() {
            out.push(' ');
            out.push_str(&self.comment);
        }
        if self.encrypted {
            out.push_str(" (encrypted)");
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn string(out: &mut Vec<u8>, s: &[u8]) {
        out.extend((s.len() as u32).to_be_bytes());
        out.extend(s);
    }

    pub(crate) fn ed25519(comment: &[u8], cipher: &[u8], seed: u8) -> Vec<u8> {
        let mut public = Vec::new();
        string(&mut public, b"ssh-ed25519");
        string(&mut public, &[seed; 32]);
        let mut section = vec![1, 2, 3, 4, 1, 2, 3, 4];
        string(&mut section, b"ssh-ed25519");
        string(&mut section, &[seed; 32]);
        string(&mut section, &[seed.wrapping_add(1); 64]);
        string(&mut section, comment);
        section.extend([1, 2, 3]);
        let mut out = MAGIC.to_vec();
        string(&mut out, cipher);
        string(&mut out, b"none");
        string(&mut out, b"");
        out.extend(1u32.to_be_bytes());
        string(&mut out, &public);
        string(&mut out, &section);
        out
    }

    #[test]
    fn comment_in_clear_and_fingerprint_always() {
        let plain = private(&ed25519(b"deploy@build", b"none", 9)).unwrap();
        assert_eq!(
            (plain.comment.as_str(), plain.encrypted),
            ("deploy@build", false)
        );
        let locked = private(&ed25519(b"deploy@build", b"aes256-ctr", 9)).unwrap();
        assert_eq!((locked.comment.as_str(), locked.encrypted), ("", true));
        assert_eq!(plain.fingerprint, locked.fingerprint);
        for cut in 0..MAGIC.len() + 20 {
            assert_eq!(private(&ed25519(b"c", b"none", 1)[..cut]), None);
        }
    }
}
