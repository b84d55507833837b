//! Pieces of secrets that are at hand in clear, in a text that is about to be shown.
//!
//! A secret that is only known by its hashes is found whole, or by the few bytes its windows are about; hashes that found
//! any half of it would tell the whole to who has the agent's memory. But a program is mostly given pieces of what its own
//! environment and command line hold, and these are at hand while its arguments are made ready to be shown.

use super::views::views;
use std::collections::HashMap;
use std::ops::Range;

/// A piece counts from this many bytes on, or from half of the secret, whichever is less, but never below [`LEAST`].
const PIECE: usize = 12;
const LEAST: usize = 6;

/// Bytes by which pieces are looked up.
const GRAM: usize = LEAST;
/// Places of one gram that are tried: a secret that repeats itself must not cost more than its length.
const MAX_SAME: usize = 8;
/// Most bytes of secrets that are looked for.
const MAX_BYTES: usize = 64 * 1024;

/// Secrets to look for pieces of.
#[derive(Default)]
pub struct Pieces<'a> {
    secrets: Vec<&'a [u8]>,
    grams: HashMap<&'a [u8], Vec<(usize, usize)>>,
}

impl<'a> Pieces<'a> {
    pub fn of(secrets: impl IntoIterator<Item = &'a [u8]>) -> Pieces<'a> {
        let mut pieces = Pieces::default();
        let mut room = MAX_BYTES;
        for secret in secrets {
            if secret.len() < LEAST || pieces.secrets.contains(&secret) {
                continue;
            }
            let Some(left) = room.checked_sub(secret.len()) else {
                break;
            };
            room = left;
            let which = pieces.secrets.len();
            pieces.secrets.push(secret);
            for (at, gram) in secret.windows(GRAM).enumerate() {
                let same = pieces.grams.entry(gram).or_default();
                if same.len() < MAX_SAME {
                    same.push((which, at));
                }
            }
        }
        pieces
    }

    /// Where pieces of the secrets are in `text`, as they are or encoded.
    pub fn places(&self, text: &[u8]) -> Vec<Range<usize>> {
        if self.secrets.is_empty() {
            return Vec::new();
        }
        let mut out = self.verbatim(text);
        for view in views(text) {
            out.extend(
                self.verbatim(&view.bytes)
                    .iter()
                    .map(|place| view.origin(place)),
            );
        }
        out
    }

    fn verbatim(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut out: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while let Some(gram) = text.get(at..at + GRAM) {
            let longest = self
                .grams
                .get(gram)
                .into_iter()
                .flatten()
                .filter_map(|&(which, offset)| {
                    let secret = self.secrets[which];
                    let length = secret[offset..]
                        .iter()
                        .zip(&text[at..])
                        .take_while(|(a, b)| a == b)
                        .count();
                    (length >= PIECE.min(secret.len().div_ceil(2).max(LEAST))).then_some(length)
                })
                .max();
            match longest {
                Some(length) => {
                    out.push(at..at + length);
                    at += length;
                }
                None => at += 1,
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"ghp_q3VtZcK8s1LwXy7BnR0uTd4PmM9kJhGf";

    fn shown(text: &str) -> String {
        let pieces = Pieces::of([TOKEN, b"S3cret-V"]);
        let mut hidden = vec![false; text.len()];
        for place in pieces.places(text.as_bytes()) {
            hidden[place].fill(true);
        }
        let kept = text.bytes().zip(hidden).filter(|(_, hidden)| !hidden);
        kept.map(|(b, _)| b as char).collect()
    }

    #[test]
    fn halves_and_long_pieces_go_and_short_ones_stay() {
        assert_eq!(shown("--head=ghp_q3VtZcK8s1LwXy --tail"), "--head= --tail");
        assert_eq!(shown("a BnR0uTd4PmM9kJhGf b"), "a  b");
        assert_eq!(shown("t-V S3cret 3cret-V"), "t-V  ");
        for text in ["ghp_q3VtZ", "S3cre", "nothing of it", ""] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn encoded_pieces_go() {
        let hex: String = TOKEN[..16].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown(&format!("{hex}.evil.example")), ".evil.example");
        let percent: String = TOKEN.iter().map(|b| format!("%{b:02X}")).collect();
        assert_eq!(shown(&format!("/?q={percent}&x=1")), "/?q=&x=1");
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(TOKEN);
        let left = shown(&format!("x {} y", &text[5..40]));
        assert!(left.len() <= 4 + 8, "{left}");
    }

    #[test]
    fn a_secret_that_repeats_itself_costs_no_more_than_its_length() {
        let secret = b"ab".repeat(20_000);
        let text = b"ab".repeat(50_000);
        let pieces = Pieces::of([&secret[..]]);
        let start = std::time::Instant::now();
        assert!(!pieces.places(&text).is_empty());
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }
}
