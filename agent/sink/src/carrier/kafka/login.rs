//! Who the agent is to a broker: a user with a password, by SASL.

use super::fault::LoginError;
use super::scram::{Hash, Scram, ScramError};
use crate::carrier::http::secret;
use crate::carrier::random::random;
use crate::spec::SaslMechanism;
use std::path::Path;
use zeroize::Zeroizing;

pub(super) struct Login {
    mechanism: SaslMechanism,
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Login {
    /// `USER:PASSWORD` of a file.
    pub fn read(path: &Path, mechanism: SaslMechanism) -> Result<Login, LoginError> {
        let login = Login::of(&secret(path)?, mechanism);
        login.ok_or_else(|| LoginError::Content(path.to_owned()))
    }

    fn of(text: &str, mechanism: SaslMechanism) -> Option<Login> {
        let (user, password) = text.split_once(':')?;
        // Zeros are what separates them in PLAIN.
        if user.is_empty() || password.is_empty() || text.contains(['\n', '\r', '\0']) {
            return None;
        }
        let own = |text: &str| Zeroizing::new(text.to_owned());
        Some(Login {
            mechanism,
            user: own(user),
            password: own(password),
        })
    }

    pub fn mechanism(&self) -> &'static str {
        self.mechanism.word()
    }

    /// Logs in: `ask` brings a token to the broker and gives what it answers.
    pub fn exchange<E: From<LoginError>>(
        &self,
        mut ask: impl FnMut(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let (user, password) = (self.user.as_str(), self.password.as_str());
        let hash = match self.mechanism {
            SaslMechanism::Plain => {
                // RFC 4616; the user acts for nobody else.
                let token = Zeroizing::new(format!("\0{user}\0{password}"));
                return ask(token.as_bytes()).map(drop);
            }
            SaslMechanism::ScramSha256 => Hash::Sha256,
            SaslMechanism::ScramSha512 => Hash::Sha512,
        };
        let nonce = random::<18>().ok_or(LoginError::Random)?;
        let scram = Scram {
            hash,
            user,
            password,
            nonce: &nonce,
        };
        let wrong = |error: ScramError| E::from(LoginError::Scram(error));
        let text = |answer: Vec<u8>| {
            String::from_utf8(answer).map_err(|_| E::from(LoginError::Scram(ScramError::Strange)))
        };
        let first = text(ask(scram.first().as_bytes())?)?;
        let last = scram.last(&first).map_err(wrong)?;
        let answer = text(ask(last.message.as_bytes())?)?;
        last.verify(&answer).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_user_and_a_password() {
        let login = Login::of("u:p:q", SaslMechanism::Plain).unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("u", "p:q"));
        let mut said = Vec::new();
        let done = login.exchange(|token| {
            said.push(token.to_vec());
            Ok::<_, LoginError>(Vec::new())
        });
        done.unwrap();
        assert_eq!(said, [b"\0u\0p:q".to_vec()]);
        for bad in ["", "user", ":p", "u:", "u:p\nv:q", "u\0:p"] {
            assert!(Login::of(bad, SaslMechanism::Plain).is_none(), "{bad}");
        }
    }

    /// Who does not know the password cannot say that it lets the agent in.
    #[test]
    fn a_broker_that_proves_nothing_is_none() {
        let login = Login::of("u:p", SaslMechanism::ScramSha512).unwrap();
        let mut round = 0;
        let done = login.exchange(|token| {
            round += 1;
            let text = String::from_utf8(token.to_vec()).unwrap();
            let answer = match round {
                1 => format!("r={}x,s=W22Z,i=4096", text.split("r=").nth(1).unwrap()),
                _ => "v=AAAA".to_owned(),
            };
            Ok::<_, LoginError>(answer.into_bytes())
        });
        assert!(matches!(done, Err(LoginError::Scram(ScramError::Unproven))));
    }
}
