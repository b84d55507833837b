//! Fingerprints for people.

use super::escape::escape;

/// `9c1e..a2`: enough to tell fingerprints apart by eye.
pub fn short_fingerprint(fingerprint: &str) -> String {
    let digits = fingerprint.strip_prefix("kt1:").unwrap_or(fingerprint);
    let digits = escape(digits);
    let n = digits.chars().count();
    if n <= 8 {
        return digits.into_owned();
    }
    let head: String = digits.chars().take(4).collect();
    let tail: String = digits.chars().skip(n - 2).collect();
    format!("{head}..{tail}")
}
