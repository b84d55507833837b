//! A freshly made token that opens nothing, in a file where such tokens live, removed with its directory.

use ring::rand::{SecureRandom as _, SystemRandom};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random characters of a classic token, before its check digits.
const RANDOM: usize = 30;

pub(super) struct Decoy {
    dir: PathBuf,
    path: PathBuf,
}

impl Decoy {
    pub fn plant() -> io::Result<Decoy> {
        let suffix = random_base62(12)?;
        let dir = std::env::temp_dir().join(format!("keytrail-demo-{}", suffix.as_str()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        // From here on dropping it cleans up.
        let decoy = Decoy {
            path: dir.join(".config/gh/hosts.yml"),
            dir,
        };
        if let Some(parent) = decoy.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)?;
        }
        let token = token()?;
        let text = Zeroizing::new(format!(
            "github.com:\n    user: keytrail-demo\n    oauth_token: {}\n    git_protocol: https\n",
            token.as_str()
        ));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&decoy.path)?;
        file.write_all(text.as_bytes())?;
        Ok(decoy)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as a glob that matches nothing else.
    pub fn glob(&self) -> String {
        globset::escape(&self.path.to_string_lossy())
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("keytrail: {} could not be removed: {e}", self.dir.display());
        }
    }
}

/// `ghp_`, random characters, and their CRC32 in six base62 digits: the shape of a classic token.
pub(in crate::cli) fn token() -> io::Result<Zeroizing<String>> {
    let random = random_base62(RANDOM)?;
    let mut crc = crc32fast::hash(random.as_bytes());
    let mut check = [b'0'; 6];
    for digit in check.iter_mut().rev() {
        *digit = BASE62[(crc % 62) as usize];
        crc /= 62;
    }
    let mut token = Zeroizing::new(String::with_capacity(4 + RANDOM + check.len()));
    token.push_str("ghp_");
    token.push_str(&random);
    token.extend(check.map(char::from));
    Ok(token)
}

pub(in crate::cli) fn random_base62(length: usize) -> io::Result<Zeroizing<String>> {
    let rng = SystemRandom::new();
    let mut text = Zeroizing::new(String::with_capacity(length));
    while text.len() < length {
        let mut byte = [0u8; 1];
        rng.fill(&mut byte)
            .map_err(|_| io::Error::other("the system gave no random numbers"))?;
        // 248 is the largest multiple of 62 in a byte: no digit is likelier than another.
        if byte[0] < 248 {
            text.push(char::from(BASE62[usize::from(byte[0] % 62)]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn planted_private_and_removed() {
        let decoy = Decoy::plant().unwrap();
        let (dir, path) = (decoy.dir.clone(), decoy.path.clone());
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let token = text
            .split("oauth_token: ")
            .nth(1)
            .unwrap()
            .split('\n')
            .next()
            .unwrap();
        assert_eq!((token.len(), &token[..4]), (40, "ghp_"));
        assert!(
            globset::Glob::new(&decoy.glob())
                .unwrap()
                .compile_matcher()
                .is_match(&path)
        );
        drop(decoy);
        assert!(!dir.exists());
    }

    #[test]
    fn no_two_are_alike_and_check_digits_follow_the_random_part() {
        let (a, b) = (token().unwrap(), token().unwrap());
        assert_ne!(a, b);
        let number = a[34..].bytes().fold(0u64, |n, c| {
            n * 62 + BASE62.iter().position(|d| *d == c).unwrap() as u64
        });
        assert_eq!(number, u64::from(crc32fast::hash(&a.as_bytes()[4..34])));
    }
}
