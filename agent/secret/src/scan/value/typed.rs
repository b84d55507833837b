//! Values that a person typed to fill a place: runs, trial words, expressions.

use crate::checks::strength::distinct;

/// Brackets and backslashes as expressions have them: few, among words; a generated secret has many signs of all sorts.
pub(super) fn pattern(value: &[u8]) -> bool {
    let brackets = value
        .iter()
        .filter(|b| b"\\()[]{}<>|;,`\"'".contains(b))
        .count();
    if brackets == 0 {
        return false;
    }
    const SYNTAX: &[&[u8]] = &[
        b"(?", b"[^", b"\\s", b"\\d", b"\\w", b"\\(", b"\\.", b"\\|", b"]*", b"]+", b")*", b")+",
        b".*", b".+", b"[a-", b"[A-", b"[0-",
    ];
    let signs = value.iter().filter(|b| b.is_ascii_punctuation()).count();
    value.len() < 20
        || signs * 4 < value.len()
        || distinct(value) * 3 < value.len() * 2
        || SYNTAX
            .iter()
            .any(|s| memchr::memmem::find(value, s).is_some())
}

/// Typed by a person to look like a secret: a run of six letters or digits in order, or pairs that count
/// (`d4c3b2a1`). In random text of 40 characters a run of six happens once in a million.
pub(super) fn by_hand(value: &[u8]) -> bool {
    let next = |a: u8, b: u8| {
        a.is_ascii_alphanumeric() && (b == a.wrapping_add(1) || (a == b'9' && b == b'0'))
    };
    let mut run = 1;
    let mut pairs = 1;
    for (i, w) in value.windows(2).enumerate() {
        run = if next(w[0].to_ascii_lowercase(), w[1].to_ascii_lowercase()) {
            run + 1
        } else {
            1
        };
        if run >= 6 {
            return true;
        }
        // a1b2c3: every other character goes on.
        if i >= 1 {
            let (a, b) = (value[i - 1], value[i + 1]);
            pairs = if next(a, b) || next(b, a) {
                pairs + 1
            } else {
                1
            };
            if pairs >= 6 {
                return true;
            }
        }
    }
    false
}

/// Words that tests and manuals use for any password, with a number or sign at the end at most.
pub(super) fn trial(value: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"test",
        b"tester",
        b"testing",
        b"demo",
        b"sample",
        b"dummy",
        b"foo",
        b"bar",
        b"foobar",
        b"abc",
        b"example",
        b"supersecret",
        b"mysecret",
        b"topsecret",
        b"mypassword",
        b"mypass",
        b"newpassword",
        b"oldpassword",
        b"wrongpassword",
        b"somepassword",
        b"token",
        b"user",
        b"guest",
        b"anonymous",
        b"qux",
        b"sesame",
        b"opensesame",
        b"open_sesame",
        b"letmein",
        b"logmein",
        b"fake",
        b"mock",
        b"string",
        b"value",
    ];
    let mut plain = [0u8; 24];
    let mut n = 0;
    for &b in value.iter().take(24) {
        let b = b.to_ascii_lowercase();
        if b.is_ascii_alphabetic() || b == b'_' {
            plain[n] = b;
            n += 1;
        }
    }
    value.len() <= n + 4
        && WORDS.contains(&&plain[..n])
        // An address without a host: what anonymous FTP asks for.
        || value.last() == Some(&b'@')
            && value[..value.len() - 1].iter().all(u8::is_ascii_alphabetic)
}
