//! Which half of `user:password` is the secret.

use super::{Doubt, doubt, looks_random};

/// What stands for a password where the token is the user: services ask for it, or take anything.
const FILLERS: [&[u8]; 16] = [
    b"x-oauth-basic",
    b"x-token-auth",
    b"x-access-token",
    b"api_token",
    b"api-token",
    b"apitoken",
    b"api_key",
    b"apikey",
    b"oauth2",
    b"oauth",
    b"token",
    b"unused",
    b"ignored",
    b"none",
    b"password",
    b"anything",
];

/// `TOKEN:`, `TOKEN:X`, `TOKEN:x-oauth-basic`: the user is the secret, and no name.
pub fn user_is_secret(user: &[u8], password: &[u8]) -> bool {
    let filler = password.len() <= 4 || FILLERS.iter().any(|f| password.eq_ignore_ascii_case(f));
    // The ids of AWS keys are users of its mail service.
    let id = user.starts_with(b"AKIA") || user.contains(&b'@');
    filler
        && !id
        && (20..=512).contains(&user.len())
        && looks_random(user)
        && doubt(user) == Doubt::None
}

#[cfg(test)]
mod tests {
    use super::user_is_secret;

    #[test]
    fn tokens_are_no_names() {
        let token = b"glpat-7Qh2Xk9ZrT4vBn8WcYm3";
        for password in [
            &b""[..],
            b"X",
            b"x-oauth-basic",
            b"X-OAuth-Basic",
            b"api_token",
        ] {
            assert!(user_is_secret(token, password));
        }
        assert!(user_is_secret(
            b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            b""
        ));
        assert!(
            !user_is_secret(token, b"n8Kq2LmV7xPz"),
            "two secrets, or a key and its id"
        );
        for user in [
            &b"bob"[..],
            b"deployment-automation-user",
            b"ci@example.org",
            b"AKIA4NGCJ774DXWVXDEC",
        ] {
            assert!(!user_is_secret(user, b""), "{user:?}");
        }
    }
}
