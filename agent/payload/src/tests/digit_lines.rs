//! Hexadecimal digits in lines that break inside of a secret.

use super::*;

/// As `xxd -p` writes them, and other tools with other lengths.
fn in_lines(bytes: &[u8], width: usize, end: &str, upper: bool) -> Vec<u8> {
    let digits = crate::encode::hex(bytes, upper);
    let mut out = Vec::new();
    for line in digits.chunks(width) {
        out.extend_from_slice(line);
        out.extend_from_slice(end.as_bytes());
    }
    out
}

fn text(before: usize) -> Vec<u8> {
    [
        &b"x".repeat(before)[..],
        TOKEN,
        b" and more of it, to the end",
    ]
    .concat()
}

#[test]
fn a_secret_over_lines_at_every_place_and_every_split_is_counted_once() {
    let m = matcher(&[TOKEN]);
    for (width, end, upper) in [(60, "\n", false), (32, "\r\n", true)] {
        for before in 0..30 {
            let body = in_lines(&text(before), width, end, upper);
            let want = [("hex".to_owned(), 1)];
            assert_eq!(found_in(&m, &[&body]), want, "{width} behind {before}");
            for cut in 1..body.len() {
                let (a, b) = body.split_at(cut);
                assert_eq!(
                    found_in(&m, &[a, b]),
                    want,
                    "{width} behind {before} cut at {cut}"
                );
            }
            let single: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(
                found_in(&m, &single),
                want,
                "{width} behind {before}, by bytes"
            );
        }
    }
}

#[test]
fn behind_words() {
    let m = matcher(&[TOKEN]);
    let lines = in_lines(&text(3), 60, "\n", false);
    // A word that ends in letters which are digits too, in an odd and in an even number of them.
    for head in ["POST / HTTP/1.1\r\n\r\ndata=", "code", "face", ": "] {
        let body = [head.as_bytes(), &lines].concat();
        assert_eq!(found_in(&m, &[&body]), [("hex".to_owned(), 1)], "{head}");
    }
}
