//! Where an agent listens, as users write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `sockaddr_un.sun_path` holds 108 bytes, the closing NUL included (unix(7)).
const SUN_PATH_MAX: usize = 107;

/// A unix socket on which an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    path: PathBuf,
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl AddressError {
    pub(super) fn new(sentence: String) -> AddressError {
        AddressError(sentence)
    }
}

impl Address {
    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.path.display())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Accepts `unix:/path`, `unix:///path` and a bare absolute path.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = match text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
        {
            Some(path) => path,
            None if text.starts_with('/') => text,
            None => {
                return Err(AddressError(format!(
                    "{text:?} is not of the form unix:/path/to/socket (TCP has a table of its own in the configuration: `[tcp]`)"
                )));
            }
        };
        if !path.starts_with('/') {
            return Err(AddressError(format!(
                "{text:?}: the socket's path must be absolute"
            )));
        }
        if path.len() > SUN_PATH_MAX {
            return Err(AddressError(format!(
                "the socket's path has {} bytes, the kernel takes at most {SUN_PATH_MAX}",
                path.len()
            )));
        }
        if path.contains('\0') || path.ends_with('/') {
            return Err(AddressError(format!("{text:?} does not name a file")));
        }
        Ok(Address { path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for text in ["unix:/run/k.sock", "unix:///run/k.sock", "/run/k.sock"] {
            assert_eq!(
                text.parse::<Address>().unwrap().path(),
                Path::new("/run/k.sock"),
                "{text}"
            );
        }
        for text in [
            "",
            "tcp:127.0.0.1:80",
            "unix:run/k.sock",
            "unix:",
            "unix:/a\0b",
            "unix:/run/",
            "run/k.sock",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert!(
            format!("unix:/{}", "a".repeat(106))
                .parse::<Address>()
                .is_ok()
        );
        assert!(
            format!("unix:/{}", "a".repeat(107))
                .parse::<Address>()
                .is_err()
        );
    }
}
