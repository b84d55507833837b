//! SCRAM (RFC 5802, RFC 7677): proves that one knows a password, and has the server prove it too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// What a server may ask for: RFC 7677 wants no fewer, and more would keep the sink busy for seconds.
const ROUNDS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// Why it came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    #[error("the broker's answer is not SCRAM")]
    Strange,
    #[error("the broker asks for fewer rounds than are safe, or for more than a million")]
    Rounds,
    #[error("the broker does not know the password: it may be somebody else")]
    Unproven,
}

pub(super) struct Scram<'a> {
    pub hash: Hash,
    pub user: &'a str,
    pub password: &'a str,
    /// That nobody used before: printable, no comma.
    pub nonce: &'a str,
}

/// What the client says last, and what the server has to answer.
pub(super) struct Last {
    pub message: Zeroizing<String>,
    signature: hmac::Tag,
}

impl Scram<'_> {
    fn bare(&self) -> String {
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    pub fn first(&self) -> String {
        format!("n,,{}", self.bare())
    }

    /// The answer to what the server said first.
    pub fn last(&self, server: &str) -> Result<Last, ScramError> {
        let mut parts = server.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let (nonce, salt, rounds) = (part("r="), part("s="), part("i="));
        let nonce = nonce
            .filter(|nonce| nonce.len() > self.nonce.len() && nonce.starts_with(self.nonce))
            .ok_or(ScramError::Strange)?;
        let salt = salt.and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.ok_or(ScramError::Strange)?;
        let rounds = rounds.and_then(|n| n.parse::<u32>().ok());
        let rounds = rounds
            .filter(|n| ROUNDS.contains(n))
            .and_then(NonZeroU32::new)
            .ok_or(ScramError::Rounds)?;
        let (of_mac, of_digest, derive) = match self.hash {
            Hash::Sha256 => (
                hmac::HMAC_SHA256,
                &digest::SHA256,
                pbkdf2::PBKDF2_HMAC_SHA256,
            ),
            Hash::Sha512 => (
                hmac::HMAC_SHA512,
                &digest::SHA512,
                pbkdf2::PBKDF2_HMAC_SHA512,
            ),
        };
        let mut salted = Zeroizing::new(vec![0; of_digest.output_len()]);
        pbkdf2::derive(
            derive,
            rounds,
            &salt,
            self.password.as_bytes(),
            salted.as_mut_slice(),
        );
        let mac =
            |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(of_mac, key), text.as_bytes());
        // "biws": `n,,` in Base64, which says that nothing is bound to the connection's TLS.
        let without_proof = format!("c=biws,r={nonce}");
        let all = format!("{},{server},{without_proof}", self.bare());
        let client = Zeroizing::new(mac(&salted, "Client Key").as_ref().to_vec());
        let stored = digest::digest(of_digest, &client);
        let signed = mac(stored.as_ref(), &all);
        let proof: Vec<u8> = client
            .iter()
            .zip(signed.as_ref())
            .map(|(key, signed)| key ^ signed)
            .collect();
        let server_key = Zeroizing::new(mac(&salted, "Server Key").as_ref().to_vec());
        Ok(Last {
            message: Zeroizing::new(format!("{without_proof},p={}", STANDARD.encode(proof))),
            signature: mac(&server_key, &all),
        })
    }
}

impl Last {
    /// Whether the server has proved that it knows the password.
    pub fn verify(&self, server: &str) -> Result<(), ScramError> {
        let text = server.split(',').next().unwrap_or_default();
        let signature = text
            .strip_prefix("v=")
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(ScramError::Strange)?;
        // Who guesses has one guess a connection: no time tells anything.
        if signature == self.signature.as_ref() {
            Ok(())
        } else {
            Err(ScramError::Unproven)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, 3.
    const SERVER: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn scram() -> Scram<'static> {
        Scram {
            hash: Hash::Sha256,
            user: "user",
            password: "pencil",
            nonce: "rOprNGfwEbeRWgbNEkqO",
        }
    }

    #[test]
    fn the_exchange_is_that_of_the_rfc() {
        assert_eq!(scram().first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = scram().last(SERVER).unwrap();
        assert_eq!(
            last.message.as_str(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let good = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(last.verify(good), Ok(()));
        let bad = good.replace("6r", "7r");
        assert_eq!(last.verify(&bad), Err(ScramError::Unproven));
        assert_eq!(last.verify("e=other-error"), Err(ScramError::Strange));
    }

    #[test]
    fn servers_that_cheat_are_refused() {
        for (server, expected) in [
            ("", ScramError::Strange),
            ("e=unknown-user", ScramError::Strange),
            // A nonce that is not the client's, or adds nothing to it.
            (
                "r=xyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                ScramError::Strange,
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                ScramError::Strange,
            ),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096", ScramError::Strange),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1", ScramError::Rounds),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4294967295",
                ScramError::Rounds,
            ),
        ] {
            assert_eq!(scram().last(server).err(), Some(expected), "{server}");
        }
        let odd = Scram {
            user: "a=b,c",
            hash: Hash::Sha512,
            ..scram()
        };
        assert_eq!(odd.first(), "n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
        assert!(odd.last(SERVER).unwrap().message.len() > 100);
    }
}
