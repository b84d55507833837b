//! Keyed fingerprints: the only trace of a secret that may be stored.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// HMAC-SHA256 under a key of this host or fleet. Cheap to clone; holds the key, never a secret.
#[derive(Clone)]
pub struct Fingerprinter {
    key: hmac::Key,
}

impl std::fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprinter")
    }
}

impl Fingerprinter {
    pub fn new(key: &[u8; 32]) -> Fingerprinter {
        Fingerprinter {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
        }
    }

    /// A key that lives as long as this value: fingerprints are comparable within one run only.
    pub fn random() -> io::Result<Fingerprinter> {
        let mut key = Zeroizing::new([0u8; 32]);
        SystemRandom::new()
            .fill(key.as_mut())
            .map_err(|_| io::Error::other("the system gave no random bytes"))?;
        Ok(Fingerprinter::new(&key))
    }

    /// Reads the key (64 hex digits or 32 raw bytes), or makes one with mode 0600.
    ///
    /// # Errors
    /// When the file is readable by group or others, not a regular file, or not a key.
    pub fn load_or_create(path: &Path) -> io::Result<Fingerprinter> {
        match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
        {
            Ok(file) => Fingerprinter::read(file, path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Fingerprinter::create(path),
            Err(e) => Err(io::Error::new(
                e.kind(),
                format!("cannot open the fingerprint key {}: {e}", path.display()),
            )),
        }
    }

    /// Reads an existing key; never makes one.
    ///
    /// # Errors
    /// As [`Fingerprinter::load_or_create`], and when there is no such file.
    pub fn load(path: &Path) -> io::Result<Fingerprinter> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        Fingerprinter::read(file, path)
    }

    fn read(file: File, path: &Path) -> io::Result<Fingerprinter> {
        let invalid = |why: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the fingerprint key {} {why}", path.display()),
            )
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(invalid("is not a regular file"));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(invalid(&format!(
                "is accessible to group or others (mode {:04o}); run `chmod 600` on it",
                meta.mode() & 0o7777
            )));
        }
        // One byte more than the longest valid content tells a longer file apart.
        let mut bytes = Zeroizing::new(Vec::with_capacity(80));
        file.take(70).read_to_end(&mut bytes)?;
        let mut key = Zeroizing::new([0u8; 32]);
        if bytes.len() == 32 {
            key.copy_from_slice(&bytes);
            return Ok(Fingerprinter::new(&key));
        }
        let hex = bytes.trim_ascii();
        if hex.len() != 64 {
            return Err(invalid("holds neither 64 hex digits nor 32 bytes"));
        }
        for (out, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16);
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => *out = (high * 16 + low) as u8,
                _ => return Err(invalid("holds something that is not a hex digit")),
            }
        }
        Ok(Fingerprinter::new(&key))
    }

    fn create(path: &Path) -> io::Result<Fingerprinter> {
        let mut key = Zeroizing::new([0u8; 32]);
        SystemRandom::new()
            .fill(key.as_mut())
            .map_err(|_| io::Error::other("the system gave no random bytes"))?;
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in key.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text.push('\n');
        // A half-written key must never be read as one: write aside, then link into place without replacing.
        let aside = path.with_extension(format!("new.{}", std::process::id()));
        let result = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::hard_link(&aside, path)
        })();
        let _ = std::fs::remove_file(&aside);
        match result {
            Ok(()) => Ok(Fingerprinter::new(&key)),
            // Another agent was faster: its key is the key.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Fingerprinter::load(path),
            Err(e) => Err(io::Error::new(
                e.kind(),
                format!("cannot write the fingerprint key {}: {e}", path.display()),
            )),
        }
    }

    /// Tells keys apart and says nothing about them: eight hex digits.
    pub fn key_name(&self) -> String {
        // No secret has a NUL in front: this is the fingerprint of none.
        self.fingerprint(b"\0keytrail fingerprint key")[4..12].to_owned()
    }

    /// `kt1:` and the first 16 bytes of the HMAC in hex.
    pub fn fingerprint(&self, secret: &[u8]) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let tag = hmac::sign(&self.key, secret);
        let mut out = String::with_capacity(36);
        out.push_str("kt1:");
        for byte in &tag.as_ref()[..16] {
            out.push(DIGITS[usize::from(byte >> 4)] as char);
            out.push(DIGITS[usize::from(byte & 15)] as char);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = Fingerprinter::load_or_create(&path)
            .unwrap()
            .fingerprint(b"x");
        let second = Fingerprinter::load_or_create(&path)
            .unwrap()
            .fingerprint(b"x");
        assert_eq!(first, second);
        assert!(first.starts_with("kt1:") && first.len() == 36);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_readable_or_odd_key_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [7u8; 32]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let e = Fingerprinter::load_or_create(&path)
            .unwrap_err()
            .to_string();
        assert!(e.contains("0640") && e.contains("chmod 600"), "{e}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(
            Fingerprinter::load_or_create(&path)
                .unwrap()
                .fingerprint(b"x"),
            Fingerprinter::new(&[7; 32]).fingerprint(b"x")
        );
        std::fs::write(&path, b"short").unwrap();
        assert!(
            Fingerprinter::load_or_create(&path)
                .unwrap_err()
                .to_string()
                .contains("neither")
        );
        assert!(
            Fingerprinter::load_or_create(dir.path())
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }

    #[test]
    fn hex_and_raw_forms_of_one_key_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "ab".repeat(32) + "\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let hex = Fingerprinter::load_or_create(&path)
            .unwrap()
            .fingerprint(b"secret");
        assert_eq!(hex, Fingerprinter::new(&[0xab; 32]).fingerprint(b"secret"));
    }
}
