//! Lists of names in a filter: literal or patterns, and with `!` before them what is left out.

use globset::{GlobBuilder, GlobMatcher};
use std::net::IpAddr;

/// Most entries in each list of a filter: they are compared with every event.
pub(super) const MAX_ENTRIES: usize = 256;
/// Longest entry, bytes.
const MAX_PATTERN: usize = 1024;

/// An entry that can never match; `what` is what the names are of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a filter may have at most {MAX_ENTRIES} entries of a kind")]
    TooMany,
    #[error("{what}: an empty text names none")]
    Empty { what: &'static str },
    #[error("{what}: a name has at most {MAX_PATTERN} bytes")]
    TooLong { what: &'static str },
    #[error("{text:?}: a network of {most} bits at most")]
    Network { text: String, most: u32 },
    #[error("{text:?} is not a pattern: {kind}")]
    Pattern {
        text: String,
        kind: globset::ErrorKind,
    },
}

/// One list, checked once.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    wanted: Vec<Name>,
    unwanted: Vec<Name>,
}

#[derive(Clone, Debug)]
pub(super) enum Name {
    Literal(String),
    Pattern(Box<GlobMatcher>),
    /// Addresses: `10.0.0.0/8`.
    Network(IpAddr, u32),
}

impl Names {
    /// # Errors
    /// When an entry can never match. `what` is what the names are of.
    pub fn new(entries: &[String], what: &'static str) -> Result<Names, NameError> {
        if entries.len() > MAX_ENTRIES {
            return Err(NameError::TooMany);
        }
        let mut names = Names::default();
        for entry in entries {
            let (list, text) = match entry.strip_prefix('!') {
                Some(text) => (&mut names.unwanted, text),
                None => (&mut names.wanted, entry.as_str()),
            };
            list.push(Name::new(text, what)?);
        }
        Ok(names)
    }

    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Whether something passes of which `matches` tells for each name whether it is called that.
    pub fn pass(&self, matches: impl Fn(&Name) -> bool) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(&matches))
            && !self.unwanted.iter().any(&matches)
    }
}

impl Name {
    fn new(text: &str, what: &'static str) -> Result<Name, NameError> {
        if text.trim().is_empty() {
            return Err(NameError::Empty { what });
        }
        if text.len() > MAX_PATTERN {
            return Err(NameError::TooLong { what });
        }
        if let Some((address, bits)) = text.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse())
        {
            let most = if address.is_ipv4() { 32 } else { 128 };
            return if bits <= most {
                Ok(Name::Network(address, bits))
            } else {
                Err(NameError::Network {
                    text: text.to_owned(),
                    most,
                })
            };
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Name::Literal(text.to_owned()));
        }
        // `*` and `**` alike for any characters.
        let glob = GlobBuilder::new(text)
            .literal_separator(false)
            .build()
            .map_err(|e| NameError::Pattern {
                text: text.to_owned(),
                kind: e.kind().clone(),
            })?;
        Ok(Name::Pattern(Box::new(glob.compile_matcher())))
    }

    /// Whether a thing is called this.
    pub fn is(&self, text: &str) -> bool {
        match self {
            _ if text.is_empty() => false,
            Name::Literal(name) => name == text,
            Name::Pattern(pattern) => pattern.is_match(text),
            Name::Network(..) => false,
        }
    }

    /// Whether an address is this or within it.
    pub fn is_address(&self, text: &str) -> bool {
        let Name::Network(network, bits) = self else {
            return self.is(text);
        };
        let Ok(address) = text.parse::<IpAddr>() else {
            return false;
        };
        match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => same_bits(
                u128::from(network.to_bits()) << 96,
                u128::from(address.to_bits()) << 96,
                *bits,
            ),
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_bits(network.to_bits(), address.to_bits(), *bits)
            }
            _ => false,
        }
    }

    /// The text, if it is no pattern: it may be the beginning of a fingerprint.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Name::Literal(text) => Some(text),
            _ => None,
        }
    }
}

/// Whether the first `bits` of 128 are the same.
fn same_bits(a: u128, b: u128, bits: u32) -> bool {
    (a ^ b).checked_shr(128 - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[&str]) -> Names {
        let entries: Vec<_> = entries.iter().map(|e| (*e).to_owned()).collect();
        Names::new(&entries, "x").unwrap()
    }

    #[test]
    fn wanted_and_unwanted() {
        let passes = |entries: &[&str], text: &str| names(entries).pass(|name| name.is(text));
        assert!(passes(&[], "a"));
        assert!(passes(&["a", "b"], "a") && !passes(&["a", "b"], "c"));
        assert!(!passes(&["!a"], "a") && passes(&["!a"], "b"));
        assert!(passes(&["a*", "!ab"], "ac") && !passes(&["a*", "!ab"], "ab"));
        assert!(
            !passes(&["*"], "") && passes(&["!*"], ""),
            "nothing has no name"
        );
    }

    #[test]
    fn addresses() {
        let within =
            |entry: &str, address: &str| names(&[entry]).pass(|name| name.is_address(address));
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.1"));
        assert!(within("0.0.0.0/0", "1.2.3.4") && !within("0.0.0.0/0", "::1"));
        assert!(within("192.0.2.1/32", "192.0.2.1") && !within("192.0.2.1/32", "192.0.2.0"));
        assert!(
            within("2001:db8::/33", "2001:db8:7fff::1")
                && !within("2001:db8::/33", "2001:db8:8000::1")
        );
        assert!(
            within("::/0", "2001::1")
                && within("10.0.*", "10.0.3.4")
                && within("10.0.0.9", "10.0.0.9")
        );
        assert!(!within("10.0.0.0/8", "") && !within("10.0.0.0/8", "host"));
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for entry in ["", "!", " ", "[a", "10.0.0.0/33", "::/129"] {
            assert!(Names::new(&[entry.to_owned()], "x").is_err(), "{entry:?}");
        }
        assert!(Names::new(&["a".repeat(1025)], "x").is_err());
        assert!(Names::new(&vec!["a".to_owned(); 257], "x").is_err());
    }
}
