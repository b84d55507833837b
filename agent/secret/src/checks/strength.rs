//! How much a value looks like a made secret rather than a word.

/// Shannon entropy in bits per byte of the value's own distribution, 0 for the empty value.
pub fn entropy(value: &[u8]) -> f64 {
    if value.is_empty() {
        return 0.0;
    }
    let mut counts = [0u32; 256];
    for &b in value {
        counts[usize::from(b)] += 1;
    }
    let n = value.len() as f64;
    counts
        .iter()
        .filter(|&&c| c > 0)
        .map(|&c| f64::from(c) / n)
        .map(|p| -p * p.log2())
        .sum()
}

/// Number of different bytes.
pub fn distinct(value: &[u8]) -> usize {
    let mut seen = [false; 256];
    for &b in value {
        seen[usize::from(b)] = true;
    }
    seen.iter().filter(|&&s| s).count()
}

/// True for values a generator makes: enough entropy for the length, and either digits among letters, mixed case,
/// or symbols. Words, phrases and identifiers fail.
pub fn looks_random(value: &[u8]) -> bool {
    if value.len() < 12 {
        return false;
    }
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    let lower = value.iter().filter(|b| b.is_ascii_lowercase()).count();
    let upper = value.iter().filter(|b| b.is_ascii_uppercase()).count();
    let letters = lower + upper;
    if letters == 0 {
        // A number: dates, ids, phone numbers. Only long ones are keys.
        return digits >= 32 && entropy(value) > 2.8;
    }
    // Bits per byte a uniform source reaches at this length, with a margin for short values.
    let hex = value.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
    let wanted = match (hex, value.len()) {
        (true, 0..=15) => 2.4,
        (true, _) => 2.9,
        (false, 0..=15) => 2.8,
        (false, 16..=23) => 3.2,
        (false, _) => 3.5,
    };
    if entropy(value) < wanted {
        return false;
    }
    if hex {
        return digits > 0;
    }
    if worded(value) {
        return false;
    }
    let turns = value
        .windows(2)
        .filter(|w| class(w[0]) != class(w[1]))
        .count();
    // Identifiers and sentences change class at word borders only; random text changes all the time.
    digits > 0 && turns * 4 >= value.len()
        || (lower > 0 && upper > 0 && turns * 3 >= value.len())
        || (digits >= 2 && letters >= 6 && turns * 6 >= value.len())
}

/// The two hundred pairs of letters that nine tenths of the pairs in words and names consist of, counted over the names in
/// Python's library and in manuals: for each first letter the set of second ones, bit 0 is `a`. A third of all pairs, so
/// random letters seldom stay within.
const PAIRS: [u32; 26] = [
    0x13ebd4e, 0x0104911, 0x01a4d95, 0x0144119, 0x1afb87f, 0x0104131, 0x0100110, 0x0004111,
    0x22ef87f, 0x0000000, 0x0000110, 0x11c4919, 0x000d111, 0x01c615d, 0x07ef80e, 0x01ac911,
    0x0100000, 0x11e715d, 0x11cc195, 0x11e4991, 0x00eb916, 0x0000111, 0x0024191, 0x0080000,
    0x0008000, 0x0000010,
];

/// How the letters of a value stand in pieces: split at signs, at digits and where a capital follows a small letter.
struct Pieces {
    letters: usize,
    /// Letters in pieces of the least length or more.
    long: usize,
    pairs: usize,
    /// Pairs of letters that words have.
    usual: usize,
}

impl Pieces {
    fn of(value: &[u8], least: usize) -> Pieces {
        let mut out = Pieces {
            letters: 0,
            long: 0,
            pairs: 0,
            usual: 0,
        };
        let (mut piece, mut previous) = (0usize, 0u8);
        for &b in value.iter().chain(b"\0") {
            let joined = b.is_ascii_lowercase() && previous.is_ascii_alphabetic()
                || b.is_ascii_uppercase() && previous.is_ascii_uppercase();
            if joined {
                out.pairs += 1;
                let first = previous.to_ascii_lowercase() - b'a';
                let second = b.to_ascii_lowercase() - b'a';
                out.usual += usize::from(PAIRS[usize::from(first)] & (1 << second) != 0);
            } else {
                if piece >= least {
                    out.long += piece;
                }
                piece = 0;
            }
            if b.is_ascii_alphabetic() {
                piece += 1;
                out.letters += 1;
            }
            previous = b;
        }
        out
    }
}

/// Made of words, whatever digits stand among them: nearly all letters stand in pieces longer than chance makes them, with
/// pairs that words have. Of random values of 19 letters and digits one in a thousand is called so, of names of things
/// with numbers nine in ten.
pub fn phrased(value: &[u8]) -> bool {
    let Pieces {
        letters,
        long,
        pairs,
        usual,
    } = Pieces::of(value, 3);
    long * 10 >= letters * 8 && usual * 10 >= pairs * 7
}

/// Made of words: split at signs, at digits and where a capital follows a small letter, most letters stand in pieces longer
/// than chance makes them, and their pairs are those of words. Calls one random value in a hundred of 12 characters
/// worded and one in a thousand of 32; of names in programs nine in ten.
pub fn worded(value: &[u8]) -> bool {
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    if digits * 6 > value.len() {
        return false;
    }
    let separators = value
        .iter()
        .filter(|b| matches!(b, b'_' | b'.' | b'-' | b'/'))
        .count();
    let least = if separators >= 2 { 3 } else { 4 };
    let Pieces {
        letters,
        long,
        pairs,
        usual,
    } = Pieces::of(value, least);
    long * 10 >= letters * 6 && usual * 10 >= pairs * 6
}

fn class(b: u8) -> u8 {
    match b {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_random_and_keys_are() {
        for word in [
            "configuration",
            "get_user_password",
            "application/json",
            "20240101123000",
            "AbstractFactoryBean",
            "Access-Control-Allow-Headers",
            "NID_pbe_WithSHA1And3_Key_TripleDES_CBC",
        ] {
            assert!(!looks_random(word.as_bytes()), "{word}");
        }
        for key in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "q3VtZcK8s1LwXy7BnR0uTd4P",
            "x7f0q2mz81kd",
        ] {
            assert!(looks_random(key.as_bytes()), "{key}");
        }
        for name in [
            "ApiToken_v2-Prod",
            "Company2024Secret",
            "CI-Runner-Token-42",
            "Kubernetes-Admin-1",
        ] {
            assert!(phrased(name.as_bytes()), "{name}");
        }
        assert!(!phrased(b"q3VtZcK8s1LwXy7BnR0"));
        assert_eq!(entropy(b""), 0.0);
        assert!((entropy(b"abcd") - 2.0).abs() < 1e-9);
        assert_eq!(distinct(b"aab"), 2);
    }
}
