//! Whom a client talks to: the agent of this host by its socket, or one elsewhere by TLS.

use super::tcp::TlsFiles;
use super::{Address, AddressError};
use std::fmt;
use std::str::FromStr;

/// The longest name of a host (RFC 1035), bytes.
const HOST_MAX: usize = 253;

/// An agent to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Unix(Address),
    Tcp {
        /// A DNS name or an address (without the brackets of IPv6): the certificate of the agent has to have it.
        host: String,
        port: u16,
        /// How the client shows who it is; [`super::connect`] needs it.
        files: Option<Box<TlsFiles>>,
    },
}

impl Target {
    /// With the files of a client; without a meaning for a unix socket.
    #[must_use]
    pub fn with(self, given: Option<TlsFiles>) -> Target {
        match self {
            Target::Tcp { host, port, .. } => Target::Tcp {
                host,
                port,
                files: given.map(Box::new),
            },
            unix @ Target::Unix(_) => unix,
        }
    }

    /// Whether it is the agent of this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Target::Unix(_))
    }
}

impl From<&Address> for Target {
    fn from(address: &Address) -> Target {
        Target::Unix(address.clone())
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Target {
        target.clone()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(address) => address.fmt(f),
            Target::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "https://[{host}]:{port}")
            }
            Target::Tcp { host, port, .. } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl FromStr for Target {
    type Err = AddressError;

    /// Accepts what [`Address`] does, and `https://HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(rest) = text.strip_prefix("https://") else {
            return match text.parse() {
                Ok(address) => Ok(Target::Unix(address)),
                Err(_) if !text.starts_with("unix:") && !text.starts_with('/') => {
                    Err(AddressError::new(format!(
                        "{text:?} is neither of the form unix:/path/to/socket nor https://HOST:PORT"
                    )))
                }
                Err(e) => Err(e),
            };
        };
        let bad = || AddressError::new(format!("{text:?} is not of the form https://HOST:PORT"));
        let (host, port) = rest
            .strip_suffix('/')
            .unwrap_or(rest)
            .rsplit_once(':')
            .ok_or_else(bad)?;
        let port = port.parse().ok().filter(|&p| p != 0).ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let ok = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.len() <= HOST_MAX
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !ok {
            return Err(bad());
        }
        Ok(Target::Tcp {
            host: bracketed.unwrap_or(host).to_owned(),
            port,
            files: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for text in [
            "unix:/run/k.sock",
            "https://host.example.org:7443",
            "https://10.0.0.1:7443",
            "https://[::1]:7443",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "tcp:1",
            "http://host:80",
            "https://host",
            "https://host:0",
            "https://:80",
            "https://user@host:80",
            "https://host:80/path",
            "https://::1:80",
            "https://[host]:80",
            "unix:relative",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
