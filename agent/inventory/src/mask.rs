//! A file that is named after what is in it: its path is shown without that.

use super::names;
use keytrail_secret::Finding;

/// What the path has of less, is of no use to anybody.
const MIN: usize = 8;
/// A word of letters: the password `postgres` would take the name of every `/srv/postgres`.
const WORD: usize = 16;

/// Would its being in a path say what it is?
fn is_telling(secret: &[u8]) -> bool {
    let word =
        secret.iter().all(u8::is_ascii_lowercase) || secret.iter().all(u8::is_ascii_uppercase);
    secret.len() >= if word { WORD } else { MIN }
}

/// The path as it is shown and stored, with `[redacted KIND FINGERPRINT]` in place of each secret of the file itself: the same for the
/// same secret, so that the place stays the same place. `None` when there is none in it.
pub fn masked<'a>(
    path: &[u8],
    found: impl Iterator<Item = (&'a Finding, &'a str)>,
) -> Option<String> {
    let mut shown: Option<Vec<u8>> = None;
    for (finding, fingerprint) in found {
        let label = format!("[redacted {} {fingerprint}]", finding.kind);
        for part in finding.parts.iter().filter(|part| is_telling(&part.value)) {
            let text = shown.as_deref().unwrap_or(path);
            let finder = memchr::memmem::Finder::new(&part.value[..]);
            let mut out = Vec::new();
            let mut rest = 0;
            for at in finder.find_iter(text) {
                out.extend_from_slice(&text[rest..at]);
                out.extend_from_slice(label.as_bytes());
                rest = at + part.value.len();
            }
            if rest > 0 {
                out.extend_from_slice(&text[rest..]);
                shown = Some(out);
            }
        }
    }
    shown.map(|shown| names::escape(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_secrets_of_a_path() {
        for (secret, telling) in [
            ("postgres", false),
            ("PRODUCTION", false),
            ("hunter2x", true),
            ("a1b2c3", false),
            ("correcthorsebatterystaple", true),
        ] {
            assert_eq!(is_telling(secret.as_bytes()), telling, "{secret}");
        }
    }
}
