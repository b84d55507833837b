//! Check digits that some issuers put into their tokens. They raise confidence; a wrong one never rejects,
//! because issuers change formats without notice.

use super::strength::{entropy, looks_random, phrased};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// CRC32 in six base62 digits, as npm's and GitHub's classic tokens carry it over their random part.
pub fn crc32_base62(data: &[u8]) -> [u8; 6] {
    let mut n = crc32fast::hash(data);
    let mut out = [b'0'; 6];
    for slot in out.iter_mut().rev() {
        *slot = BASE62[(n % 62) as usize];
        n /= 62;
    }
    out
}

/// CRC32 in eight hex digits, least significant byte first, as Grafana's `glsa_` tokens carry it over all
/// before the last underscore.
pub fn crc32_hex_le(data: &[u8]) -> [u8; 8] {
    let mut out = [b'0'; 8];
    for (i, byte) in crc32fast::hash(data).to_le_bytes().iter().enumerate() {
        out[i * 2] = b"0123456789abcdef"[usize::from(byte >> 4)];
        out[i * 2 + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    out
}

/// Names of the checks a rule can ask for.
pub const NAMES: &[&str] = &[
    "crc32-base62",
    "crc32-hex-le",
    "jwt",
    "base64",
    "base64-json",
    "basic-auth",
    "grafana-legacy",
    "not-hex",
    "mixed",
    "digit",
    "alpha-digit",
    "random",
    "not-word",
    "password",
];

/// Result of a named check: `Some(true)` proves the value, `Some(false)` says it fails, `None`: says nothing.
pub fn check(name: &str, value: &[u8]) -> Option<bool> {
    match name {
        "crc32-base62" => {
            let body = value
                .iter()
                .position(|&b| b == b'_')
                .map(|i| &value[i + 1..])?;
            if body.len() != 36 {
                return None;
            }
            Some(crc32_base62(&body[..30])[..] == body[30..])
        }
        "crc32-hex-le" => {
            let cut = value.iter().rposition(|&b| b == b'_')?;
            Some(crc32_hex_le(&value[..cut])[..] == value[cut + 1..])
        }
        _ => None,
    }
}

/// Structure that a value must have: a failed one drops it.
pub fn structure(name: &str, value: &[u8]) -> bool {
    match name {
        "jwt" => crate::derive::jwt::Jwt::parse(value).is_some(),
        "base64" => crate::derive::base64_any(value).is_some(),
        // {"k": secret, "n": name, "id": organisation}; other products encode JSON that begins with k, too.
        "grafana-legacy" => crate::derive::base64_any(value)
            .and_then(|v| serde_json::from_slice::<serde_json::Value>(&v).ok())
            .is_some_and(|v| {
                v.get("n").is_some()
                    && v.get("k")
                        .and_then(|k| k.as_str())
                        .is_some_and(|k| super::doubt(k.as_bytes()) != super::Doubt::Hard)
            }),
        "not-hex" => !value.iter().all(u8::is_ascii_hexdigit),
        "basic-auth" => crate::derive::basic(value).is_some(),
        "base64-json" => crate::derive::base64_any(value).is_some_and(|v| v.first() == Some(&b'{')),
        // Letters in both cases and a digit: what a random base62 value of this length practically always has.
        "mixed" => {
            value.iter().any(u8::is_ascii_lowercase)
                && value.iter().any(u8::is_ascii_uppercase)
                && value.iter().any(u8::is_ascii_digit)
        }
        "digit" => value.iter().any(u8::is_ascii_digit),
        // A digit, a sign that names of things do not have, or letters as chance makes them: a word there is how manuals
        // write it.
        "password" => {
            looks_random(value)
                || letters_by_chance(value)
                || value.iter().any(|b| {
                    b.is_ascii_digit()
                        || b.is_ascii_punctuation()
                            && !matches!(
                                b,
                                b'_' | b'-'
                                    | b'.'
                                    | b':'
                                    | b'/'
                                    | b'<'
                                    | b'>'
                                    | b'['
                                    | b']'
                                    | b'('
                                    | b')'
                                    | b','
                                    | b';'
                            )
                })
        }
        // A name with a number at its end (`MYTOKEN1`) is how manuals write it.
        "not-word" => {
            let digits = value
                .iter()
                .rev()
                .take_while(|b| b.is_ascii_digit())
                .count();
            digits > 4
                || !value[..value.len() - digits]
                    .iter()
                    .all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b'.'))
        }
        "alpha-digit" => {
            value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic)
        }
        "random" => super::looks_random(value),
        _ => true,
    }
}

/// Letters of both cases alone, as generators make them: no word is so long and has such pairs.
fn letters_by_chance(value: &[u8]) -> bool {
    value.len() >= 12
        && value.iter().all(u8::is_ascii_alphabetic)
        && value.iter().any(u8::is_ascii_lowercase)
        && value.iter().any(u8::is_ascii_uppercase)
        && entropy(value) >= 2.9
        && !phrased(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        // CRC32("123456789") = cbf43926, the check value of the polynomial's catalogue.
        assert_eq!(&crc32_hex_le(b"123456789"), b"2639f4cb");
        assert_eq!(&crc32_base62(b"123456789"), b"3jZRME");
        let token = [b"npm_".as_slice(), &[b'a'; 30], &crc32_base62(&[b'a'; 30])].concat();
        assert_eq!(check("crc32-base62", &token), Some(true));
        assert_eq!(
            check("crc32-base62", &[b"npm_".as_slice(), &[b'a'; 36]].concat()),
            Some(false)
        );
    }
}
