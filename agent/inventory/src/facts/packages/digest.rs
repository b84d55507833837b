//! Is a file what its package shipped?

use super::md5::Md5;
use ring::digest;
use std::io::Read;

/// Largest file that is compared.
const MAX_FILE: u64 = 256 << 20;

/// What a package's records say of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

impl Digest {
    /// By its length, in hexadecimal digits.
    pub fn from_hex(text: &[u8]) -> Option<Digest> {
        let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let bytes: Vec<u8> = text
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
            .collect::<Option<_>>()?;
        match text.len() {
            32 => bytes.try_into().ok().map(Digest::Md5),
            64 => bytes.try_into().ok().map(Digest::Sha256),
            _ => None,
        }
    }

    /// Whether that is the content of `file`. One that cannot be read, or is too large, is not said to be.
    pub fn is_of(self, file: impl Read) -> bool {
        let mut file = file.take(MAX_FILE + 1);
        let mut buffer = vec![0; 64 * 1024];
        let mut md5 = Md5::default();
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut length = 0;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            length += n as u64;
            let piece = buffer.get(..n).unwrap_or_default();
            match self {
                Digest::Md5(_) => md5.update(piece),
                Digest::Sha256(_) => sha256.update(piece),
            }
        }
        // What was read is a file with a secret in it.
        zeroize::Zeroize::zeroize(&mut buffer);
        length <= MAX_FILE
            && match self {
                Digest::Md5(digest) => md5.finish() == digest,
                Digest::Sha256(digest) => sha256.finish().as_ref() == digest,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_another_file() {
        let md5 = Digest::from_hex(b"900150983cd24fb0d6963f7d28e17f72").unwrap();
        let sha256 =
            Digest::from_hex(b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
                .unwrap();
        for digest in [md5, sha256] {
            assert!(digest.is_of(&b"abc"[..]));
            assert!(!digest.is_of(&b"abd"[..]) && !digest.is_of(&b""[..]));
        }
        for text in [&b""[..], b"12", b"zz0150983cd24fb0d6963f7d28e17f72"] {
            assert_eq!(Digest::from_hex(text), None);
        }
    }
}
