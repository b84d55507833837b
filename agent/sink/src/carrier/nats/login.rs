//! Who the agent is to a server: nobody, a token, a user with a password, a key, or a key with what an account signed.
//!
//! Keys are Ed25519; their text is base32 of a prefix, the bytes and a CRC16
//! (<https://github.com/nats-io/nkeys>, `strkey.go` and `crc16.go`).

use super::fault::{BadLogin, LoginError};
use crate::carrier::http::secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::Value;
use std::path::Path;
use zeroize::Zeroizing;

/// Prefixes: the letters S and U of base32 in the upper bits of a byte.
const SEED: u8 = 18 << 3;
const USER: u8 = 20 << 3;
/// Two bytes of prefix, 32 of the seed, two of the check.
const SEED_BYTES: usize = 36;

pub(super) enum Login {
    Nobody,
    Token(Zeroizing<String>),
    Password(Zeroizing<String>, Zeroizing<String>),
    Key(Ed25519KeyPair),
    /// What an account says of the key, and the key.
    Jwt(Zeroizing<String>, Ed25519KeyPair),
}

impl Login {
    pub fn read(path: &Path) -> Result<Login, LoginError> {
        Login::of(&secret(path)?).map_err(|why| LoginError::Content {
            path: path.to_owned(),
            why,
        })
    }

    fn of(text: &str) -> Result<Login, BadLogin> {
        if let Some(jwt) = between(text, "NATS USER JWT") {
            let seed = between(text, "USER NKEY SEED").ok_or(BadLogin::NoSeed)?;
            let key = key(seed).ok_or(BadLogin::Damaged)?;
            return Ok(Login::Jwt(Zeroizing::new(jwt.to_owned()), key));
        }
        let text = text.trim();
        if text.is_empty() || text.contains(['\n', '\r']) {
            return Err(BadLogin::Unknown);
        }
        if text.len() == 58 && text.starts_with("SU") {
            return key(text).map(Login::Key).ok_or(BadLogin::Damaged);
        }
        let own = |text: &str| Zeroizing::new(text.to_owned());
        Ok(match text.split_once(':') {
            Some((user, password)) => Login::Password(own(user), own(password)),
            None => Login::Token(own(text)),
        })
    }

    /// Adds to what a client says of itself. `nonce`: what the server wants to have signed.
    pub fn say(&self, hello: &mut Value, nonce: Option<&str>) -> Result<(), LoginError> {
        let signed = |key: &Ed25519KeyPair| {
            let nonce = nonce.ok_or(LoginError::Unasked)?;
            Ok::<_, LoginError>(URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes())))
        };
        match self {
            Login::Nobody => {}
            Login::Token(token) => hello["auth_token"] = token.as_str().into(),
            Login::Password(user, password) => {
                hello["user"] = user.as_str().into();
                hello["pass"] = password.as_str().into();
            }
            Login::Key(key) => {
                hello["sig"] = signed(key)?.into();
                hello["nkey"] = public(key).into();
            }
            Login::Jwt(jwt, key) => {
                hello["sig"] = signed(key)?.into();
                hello["jwt"] = jwt.as_str().into();
            }
        }
        Ok(())
    }
}

/// What stands between `-----BEGIN NAME-----` and the next line of dashes.
fn between<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("-----BEGIN {name}-----");
    let rest = &text[text.find(&begin)? + begin.len()..];
    let inside = &rest[..rest.find("---")?];
    Some(inside.trim())
}

/// The key of a user's seed.
fn key(seed: &str) -> Option<Ed25519KeyPair> {
    let bytes = Zeroizing::new(unbase32(seed)?);
    let (data, check) = bytes.split_at_checked(SEED_BYTES - 2)?;
    let kind = (data[0] & 7) << 5 | (data[1] & 0xf8) >> 3;
    if data[0] & 0xf8 != SEED || kind != USER || check != crc16(data).to_le_bytes() {
        return None;
    }
    Ed25519KeyPair::from_seed_unchecked(&data[2..]).ok()
}

/// Its public half, as a server knows it.
fn public(key: &Ed25519KeyPair) -> String {
    let mut bytes = vec![USER];
    bytes.extend_from_slice(key.public_key().as_ref());
    let check = crc16(&bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    base32(&bytes)
}

const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// RFC 4648, without padding.
fn base32(bytes: &[u8]) -> String {
    let (mut out, mut bits, mut count) = (String::new(), 0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(DIGITS[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(DIGITS[(bits << (5 - count) & 31) as usize]));
    }
    out
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    // Room for all of it, so that growing leaves no copy.
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == byte)?;
        bits = bits << 5 | digit as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => crc << 1 ^ 0x1021,
            };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed of these bytes.
    fn seed(of: u8, kind: u8) -> String {
        let mut bytes = vec![SEED | kind >> 5, (kind & 31) << 3];
        bytes.extend_from_slice(&[of; 32]);
        let check = crc16(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        base32(&bytes)
    }

    #[test]
    fn check_and_digits_are_those_of_the_standards() {
        // The check values of CRC-16/XMODEM and of RFC 4648, 10.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(unbase32("MZXW6YTBOI").unwrap(), b"foobar");
        assert!(unbase32("mz1").is_none());
    }

    #[test]
    fn what_a_file_may_hold() {
        let seed_ = seed(7, USER);
        assert!(seed_.starts_with("SU") && seed_.len() == 58, "{seed_}");
        let Ok(Login::Key(key)) = Login::of(&format!("{seed_}\n")) else {
            panic!("no key");
        };
        let public = public(&key);
        assert!(public.starts_with('U') && public.len() == 56, "{public}");
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n*** x\n\
             -----BEGIN USER NKEY SEED-----\n{seed_}\n------END USER NKEY SEED------\n"
        );
        let Ok(Login::Jwt(jwt, _)) = Login::of(&creds) else {
            panic!("no credentials");
        };
        assert_eq!(jwt.as_str(), "abc.def");
        assert!(
            matches!(Login::of("u:p:q"), Ok(Login::Password(u, p)) if *u == "u" && *p == "p:q")
        );
        assert!(matches!(Login::of(" tok "), Ok(Login::Token(t)) if *t == "tok"));
        // An account's seed, a damaged one, two lines, nothing.
        let mut damaged = seed_.clone();
        damaged.replace_range(20..21, if &damaged[20..21] == "A" { "B" } else { "A" });
        for bad in [
            damaged.as_str(),
            "a\nb",
            "",
            "-----BEGIN NATS USER JWT-----\nx\n---",
        ] {
            assert!(Login::of(bad).is_err(), "{bad}");
        }
        assert!(super::key(&seed(7, 0)).is_none());
    }

    #[test]
    fn the_signature_is_over_what_the_server_said() {
        let login = Login::of(&seed(9, USER)).unwrap();
        let mut hello = serde_json::json!({});
        assert!(login.say(&mut hello, None).is_err());
        login.say(&mut hello, Some("nonce")).unwrap();
        let signature = URL_SAFE_NO_PAD
            .decode(hello["sig"].as_str().unwrap())
            .unwrap();
        let public = unbase32(hello["nkey"].as_str().unwrap()).unwrap();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public[1..33])
            .verify(b"nonce", &signature)
            .unwrap();
    }
}
