//! Logins in which a client proves that it knows a password and does not send it: SCRAM (RFC 5802) as PostgreSQL speaks it.
//!
//! The proof cannot be checked without the server's half of the exchange. What is known by it is the user, and that his
//! password was used.

use keytrail_model::CredentialRef;
use std::collections::HashMap;

/// Users that are known, and credentials of one.
const MAX_USERS: usize = 4_096;
const MAX_OF_USER: usize = 64;
/// Longest name, and longest message a connection begins with.
const MAX_NAME: usize = 128;
const MAX_STARTUP: usize = 4_096;

/// Users of databases whose passwords are known.
#[derive(Default)]
pub struct Logins {
    users: HashMap<String, Vec<CredentialRef>>,
}

impl Logins {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn learn(&mut self, credential: CredentialRef, user: &str) {
        let fits = !user.is_empty() && user.len() <= MAX_NAME;
        if !fits || self.users.len() >= MAX_USERS && !self.users.contains_key(user) {
            return;
        }
        let of = self.users.entry(user.to_owned()).or_default();
        if of.len() < MAX_OF_USER && of.iter().all(|c| c.fingerprint != credential.fingerprint) {
            of.push(credential);
        }
    }

    pub fn forget(&mut self, fingerprint: &str) {
        self.users.retain(|_, of| {
            of.retain(|c| c.fingerprint != fingerprint);
            !of.is_empty()
        });
    }

    pub fn of(&self, user: &str) -> &[CredentialRef] {
        self.users.get(user).map_or(&[], |of| of)
    }
}

/// How far a login on one connection has come.
#[derive(Debug)]
pub struct Login {
    user: String,
    /// The client has chosen SCRAM.
    scram: bool,
}

impl Login {
    /// By the first message of a connection to PostgreSQL (`StartupMessage` of version 3 of its protocol).
    pub fn begun(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, 0, 3, 0, _, parameters @ ..] = bytes else {
            return None;
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if length != bytes.len() || length > MAX_STARTUP {
            return None;
        }
        let mut words = parameters.split(|&c| c == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name == b"user" {
                let user = std::str::from_utf8(value).ok()?;
                return (user.len() <= MAX_NAME).then(|| Self {
                    user: user.to_owned(),
                    scram: false,
                });
            }
        }
        None
    }

    /// Takes the next message of the client; whose password it proves, when it does.
    pub fn message(&mut self, bytes: &[u8]) -> Option<&str> {
        let [b'p', _, _, _, _, content @ ..] = bytes else {
            return None;
        };
        if content.starts_with(b"SCRAM-SHA-256\0") || content.starts_with(b"SCRAM-SHA-256-PLUS\0") {
            self.scram = true;
            return None;
        }
        let proof = content.starts_with(b"c=") && memchr::memmem::find(content, b",p=").is_some();
        (self.scram && proof).then_some(self.user.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &[u8], content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32 + 4).to_be_bytes();
        [kind, &length, content].concat()
    }

    fn startup() -> Vec<u8> {
        message(
            b"",
            b"\0\x03\0\0database\0orders\0user\0orders_rw\0application_name\0psql\0\0",
        )
    }

    #[test]
    fn the_proof_and_nothing_before_it_is_a_login() {
        let mut login = Login::begun(&startup()).unwrap();
        let first = message(b"p", b"SCRAM-SHA-256\0\0\0\0\x10n,,n=,r=rOprNGfw");
        let last = message(
            b"p",
            b"c=biws,r=rOprNGfwEbe,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgs",
        );
        assert_eq!(login.message(&last), None, "not asked for");
        assert_eq!(login.message(&first), None);
        assert_eq!(login.message(b"Q\0\0\0\x0eselect 1;\0"), None);
        assert_eq!(login.message(&last), Some("orders_rw"));
        // A password, or a hash of it, is no proof of this kind.
        let mut other = Login::begun(&startup()).unwrap();
        assert_eq!(
            other.message(&message(b"p", b"md5a3556571e93b0d20\0")),
            None
        );
    }

    #[test]
    fn what_is_no_startup_message_begins_no_login() {
        assert!(Login::begun(b"GET / HTTP/1.1\r\n\r\n").is_none());
        for cut in 0..startup().len() {
            assert!(Login::begun(&startup()[..cut]).is_none());
        }
        // SSLRequest.
        assert!(Login::begun(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).is_none());
    }
}
