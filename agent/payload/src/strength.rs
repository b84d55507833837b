//! Which secrets are worth matching: short or monotonous ones would be "found" by coincidence, and a
//! coincidence would be reported as `observed`.

use super::window::{SPAN, distinct};

/// Shortest secret that is matched, bytes: what the windows of a form cover.
pub const MIN_SECRET: usize = SPAN;

/// From this length on a secret needs no mixture of character classes.
const LONG: usize = 12;
/// Digits alone below this length are as likely a time, a phone or an account number.
const LONG_DIGITS: usize = 16;

/// Is a match of these bytes in a payload beyond coincidence?
///
/// From 9 to 11 bytes: six different bytes of two classes (so that `passwords` or `localhost`, which occur
/// in innocent payloads, are refused). From 12 on: five different bytes. Digits alone: from 16 on.
pub fn is_strong(secret: &[u8]) -> bool {
    if secret.len() < MIN_SECRET {
        return false;
    }
    let distinct = distinct(secret);
    if secret.iter().all(u8::is_ascii_digit) && secret.len() < LONG_DIGITS {
        return false;
    }
    if secret.len() >= LONG {
        distinct >= 5
    } else {
        distinct >= 6 && classes(secret) >= 2
    }
}

fn classes(bytes: &[u8]) -> usize {
    let any = |test: fn(&u8) -> bool| usize::from(bytes.iter().any(test));
    any(u8::is_ascii_lowercase)
        + any(u8::is_ascii_uppercase)
        + any(u8::is_ascii_digit)
        + any(|c| !c.is_ascii_alphanumeric())
}
