//! Ed25519 keys as files: PKCS#8 (RFC 8410) for the private one, SubjectPublicKeyInfo for the public one, each PEM or DER.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair as _};
use std::fmt;
use zeroize::Zeroizing;

/// DER before the 32 bytes of a public key (RFC 8410, section 4): SEQUENCE, algorithm 1.3.101.112, BIT STRING.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Longest key file that is read, bytes.
pub const MAX_KEY: usize = 16 << 10;

/// Why a key is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub &'static str);

/// Signs bundles.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// A key that is kept nowhere.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn fresh() -> Result<SigningKey, KeyError> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| KeyError("the system gave no random bytes"))?;
        SigningKey::of_der(made.as_ref())
    }

    /// PKCS#8, PEM or DER, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(bytes: &[u8]) -> Result<SigningKey, KeyError> {
        match pem(bytes, "PRIVATE KEY")? {
            Some(der) => SigningKey::of_der(&der),
            None => SigningKey::of_der(bytes),
        }
    }

    fn of_der(der: &[u8]) -> Result<SigningKey, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(SigningKey)
            .map_err(|_| KeyError("it is no Ed25519 key in PKCS#8, PEM or DER"))
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut raw = [0; 32];
        for (to, from) in raw.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(raw)
    }

    /// 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// Checks signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// SubjectPublicKeyInfo, PEM or DER, or the 32 bytes alone.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        let der = pem(bytes, "PUBLIC KEY")?;
        let der = der.as_deref().map_or(bytes, |der| der);
        let raw = der.strip_prefix(SPKI.as_slice()).unwrap_or(der);
        <[u8; 32]>::try_from(raw)
            .map(PublicKey)
            .map_err(|_| KeyError("it is no Ed25519 public key, PEM or DER"))
    }

    #[must_use]
    pub fn pem(&self) -> String {
        let der = [SPKI.as_slice(), &self.0].concat();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    /// SHA-256 of its DER form, in hex: what people compare.
    #[must_use]
    pub fn name(&self) -> String {
        let der = [SPKI.as_slice(), &self.0].concat();
        super::hex(digest::digest(&digest::SHA256, &der).as_ref())
    }

    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(&signature::ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// What stands between the lines of a PEM file of this kind; `None` when it is no PEM.
fn pem(bytes: &[u8], label: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(None);
    };
    let Some((_, rest)) = text.split_once("-----BEGIN ") else {
        return Ok(None);
    };
    let (begin, end) = (format!("{label}-----"), format!("-----END {label}-----"));
    let body = rest
        .strip_prefix(begin.as_str())
        .and_then(|rest| rest.split_once(end.as_str()))
        .ok_or(KeyError("it is PEM of something else than that key"))?;
    let digits: Zeroizing<String> = Zeroizing::new(body.0.split_ascii_whitespace().collect());
    STANDARD
        .decode(digits.as_bytes())
        .map(|der| Some(Zeroizing::new(der)))
        .map_err(|_| KeyError("it is PEM, and not base64 inside"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_the_standard_are_understood() {
        let key = SigningKey::parse(PRIVATE.as_bytes()).unwrap();
        assert_eq!(key.public(), PublicKey::parse(PUBLIC.as_bytes()).unwrap());
        assert_eq!(key.public().pem(), PUBLIC);
        assert_eq!(PublicKey::parse(&key.public().0).unwrap(), key.public());
        let signature = key.sign(b"message");
        assert!(key.public().has_signed(b"message", &signature));
        assert!(!key.public().has_signed(b"massage", &signature));
        assert!(
            !SigningKey::fresh()
                .unwrap()
                .public()
                .has_signed(b"message", &signature)
        );
        assert_eq!(format!("{key:?}"), "SigningKey");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "x",
            PUBLIC,
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
        ] {
            assert!(SigningKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["", "x", PRIVATE, &PUBLIC[..60]] {
            assert!(PublicKey::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
