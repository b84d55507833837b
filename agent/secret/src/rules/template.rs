//! Examples are templates, so that the files hold no token that looks real and every test run can use fresh values.
//!
//! `{class:n}` or `{class:m-n}` is n random characters of a class; `{crc32_base62}` and `{crc32_hex_le}` are check digits
//! over what precedes them back to the last white space, quote or `=`; `{jwt}`, `{uuid}`, `{pem:LABEL}`, `{openssh}`,
//! `{enc:text}` and `{encurl:text}` (base64; text may hold templates with square brackets) are whole values. `{{` is a literal brace.

use crate::checks::checksum;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Why an example is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("no closing brace in {0:?}")]
    Open(String),
    #[error("bad length in {{{0}}}")]
    Length(String),
    #[error("unknown directive {{{0}}}")]
    Unknown(String),
}

/// SplitMix64: small, deterministic, good enough for examples.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick(&mut self, set: &[u8]) -> char {
        set[(self.word() % set.len() as u64) as usize] as char
    }
}

fn class(name: &str) -> Option<&'static [u8]> {
    Some(match name {
        "digit" => b"0123456789",
        "hex" => b"0123456789abcdef",
        "HEX" => b"0123456789ABCDEF",
        "lower" => b"abcdefghijklmnopqrstuvwxyz",
        "upper" => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "alpha" => b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "base36" => b"0123456789abcdefghijklmnopqrstuvwxyz",
        "BASE36" => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "base32" => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
        "LB32" => b"abcdefghijklmnopqrstuvwxyz234567",
        "bech32" => b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
        "base62" => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "b64" => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/",
        "b64url" => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_",
        "word" => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_",
        _ => return None,
    })
}

/// Expands a template. The same seed gives the same text.
///
/// # Errors
/// The unknown directive, or what is wrong with a known one.
pub fn expand(template: &str, seed: u64) -> Result<String, TemplateError> {
    let mut random = Random::new(seed);
    // Some structures need a warm-up away from small seeds.
    random.word();
    expand_with(template, &mut random)
}

fn expand_with(template: &str, random: &mut Random) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            out.push('{');
            rest = after;
            continue;
        }
        let close = rest
            .find('}')
            .ok_or_else(|| TemplateError::Open(template.to_owned()))?;
        directive(&rest[..close], &mut out, random)?;
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn directive(text: &str, out: &mut String, random: &mut Random) -> Result<(), TemplateError> {
    let (name, argument) = text.split_once(':').unwrap_or((text, ""));
    if let Some(set) = class(name) {
        return characters(set, argument, out, random)
            .ok_or_else(|| TemplateError::Length(text.to_owned()));
    }
    match name {
        "uuid" => uuid(out, random),
        "crc32_base62" => {
            let body = tail(out);
            let body = body.split_once('_').map_or(body, |(_, b)| b);
            let digits = checksum::crc32_base62(body.as_bytes());
            out.push_str(&String::from_utf8_lossy(&digits));
        }
        "crc32_hex_le" => {
            let body = tail(out);
            let digits = checksum::crc32_hex_le(body.strip_suffix('_').unwrap_or(body).as_bytes());
            out.push_str(&String::from_utf8_lossy(&digits));
        }
        "jwt" => token(argument, out, random),
        "pem" => pem(argument, out, random),
        "openssh" => openssh(out, random),
        "enc" | "encurl" => encoded(name == "encurl", argument, out, random)?,
        "pick" => {
            let choices: Vec<&str> = argument.split('|').collect();
            out.push_str(choices[(random.word() % choices.len() as u64) as usize]);
        }
        _ => return Err(TemplateError::Unknown(text.to_owned())),
    }
    Ok(())
}

/// `n` or `m-n` characters of a set; `None` when the argument is neither.
fn characters(set: &[u8], argument: &str, out: &mut String, random: &mut Random) -> Option<()> {
    let (low, high) = match argument.split_once('-') {
        Some((low, high)) => (low.parse::<u64>().ok()?, high.parse::<u64>().ok()?),
        None => {
            let n = argument.parse::<u64>().ok()?;
            (n, n)
        }
    };
    if low > high || high > 8192 {
        return None;
    }
    let n = low + random.word() % (high - low + 1);
    let start = out.len();
    for _ in 0..n {
        out.push(random.pick(set));
    }
    // A value of 8 or more characters practically always has both of its main classes; make it certain.
    if n >= 8
        && set.len() >= 16
        && !out[start..].bytes().any(|b| b.is_ascii_digit())
        && set.iter().any(u8::is_ascii_digit)
    {
        let digit = *set
            .iter()
            .find(|b| b.is_ascii_digit() && **b != b'0' && **b != b'1')
            .unwrap_or(&b'7') as char;
        out.pop();
        out.insert(start + (n as usize) / 2, digit);
    }
    Some(())
}

fn uuid(out: &mut String, random: &mut Random) {
    let hex: String = (0..32).map(|_| random.pick(b"0123456789abcdef")).collect();
    out.push_str(&format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    ));
}

/// A JSON Web Token with the claims of the argument, in single quotes.
fn token(argument: &str, out: &mut String, random: &mut Random) {
    let claims = if argument.is_empty() {
        format!("\"sub\":\"{}\"", random.word() % 1_000_000)
    } else {
        argument.replace('\'', "\"")
    };
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(format!("{{{claims}}}"));
    let signature: String = (0..43)
        .map(|_| random.pick(class("b64url").unwrap_or(b"x")))
        .collect();
    out.push_str(&format!("{header}.{claims}.{signature}"));
}

fn pem(label: &str, out: &mut String, random: &mut Random) {
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    // A DER sequence header, so that the body decodes to what a key begins with.
    let mut der = vec![0x30, 0x82, 0x02, 0x5c, 0x02, 0x01, 0x00];
    der.extend((0..600).map(|_| random.word() as u8));
    columns(&STANDARD.encode(&der), 64, out);
    out.push_str(&format!("-----END {label}-----"));
}

fn columns(text: &str, width: usize, out: &mut String) {
    for line in text.as_bytes().chunks(width) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
}

fn openssh(out: &mut String, random: &mut Random) {
    let string = |out: &mut Vec<u8>, s: &[u8]| {
        out.extend((s.len() as u32).to_be_bytes());
        out.extend(s);
    };
    let public: Vec<u8> = (0..32).map(|_| random.word() as u8).collect();
    let private: Vec<u8> = (0..64).map(|_| random.word() as u8).collect();
    let (mut blob, mut section, mut key) = (
        Vec::new(),
        vec![1, 2, 3, 4, 1, 2, 3, 4],
        b"openssh-key-v1\0".to_vec(),
    );
    string(&mut blob, b"ssh-ed25519");
    string(&mut blob, &public);
    string(&mut section, b"ssh-ed25519");
    string(&mut section, &public);
    string(&mut section, &private);
    string(&mut section, b"user@example");
    section.extend([1, 2, 3]);
    for text in [&b"none"[..], b"none", b""] {
        string(&mut key, text);
    }
    key.extend(1u32.to_be_bytes());
    string(&mut key, &blob);
    string(&mut key, &section);
    out.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    columns(&STANDARD.encode(&key), 70, out);
    out.push_str("-----END OPENSSH PRIVATE KEY-----");
}

/// Base64 of a text that may hold templates with square brackets.
fn encoded(
    url: bool,
    argument: &str,
    out: &mut String,
    random: &mut Random,
) -> Result<(), TemplateError> {
    let template = argument
        .replace("[[", "{{")
        .replace("]]", "\u{1}")
        .replace('[', "{")
        .replace(']', "}");
    let inner = expand_with(&template, random)?.replace('\u{1}', "}");
    out.push_str(&if url {
        URL_SAFE_NO_PAD.encode(inner)
    } else {
        STANDARD.encode(inner)
    });
    Ok(())
}

/// What was written since the last white space, quote, `=` or `:`.
fn tail(out: &str) -> &str {
    let start = out
        .rfind(|c: char| c.is_whitespace() || "\"'=:,@`".contains(c))
        .map_or(0, |i| i + 1);
    &out[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_is_deterministic_and_fresh_per_seed() {
        let t = "TOKEN=npm_{base62:30}{crc32_base62}";
        assert_eq!(expand(t, 1).unwrap(), expand(t, 1).unwrap());
        assert_ne!(expand(t, 1).unwrap(), expand(t, 2).unwrap());
        let token = &expand(t, 3).unwrap()[6..];
        assert_eq!(
            checksum::check("crc32-base62", token.as_bytes()),
            Some(true)
        );
        assert!(expand("{nope:3}", 1).is_err());
        assert!(expand("{hex:x}", 1).is_err());
        assert!(expand("{hex:3", 1).is_err());
        assert_eq!(expand("{{x}", 1).unwrap(), "{x}");
    }
}
