//! The public half of a private key: nothing secret, and what is known again in what others are shown of it.

/// What is signed with it, as far as signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    pub algorithm: KeyAlgorithm,
    /// RSA: `RSAPublicKey` in DER (RFC 8017, A.1.1). Curves: the point, uncompressed (SEC 1, 2.3.3). Ed25519: its 32 bytes.
    pub bytes: Vec<u8>,
}
