//! Words that nobody guesses.

use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt::Write as _;

/// N random bytes in hex digits; `None` when the system has none.
pub fn random<const N: usize>() -> Option<String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let mut out = String::new();
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    Some(out)
}
