//! Mails whose lines are broken inside of a secret.

use super::*;

/// As Python's `quopri` and PHP's `quoted_printable_encode` write it: lines of 76 characters with the sign at their end.
fn quoted(text: &[u8], end: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        let mut width = 0;
        for &b in line {
            let one = match b {
                b'=' | 0..=31 | 127.. => format!("={b:02X}"),
                _ => char::from(b).to_string(),
            };
            if width + one.len() > 75 {
                out.push(b'=');
                out.extend_from_slice(end.as_bytes());
                width = 0;
            }
            width += one.len();
            out.extend_from_slice(one.as_bytes());
        }
        out.extend_from_slice(end.as_bytes());
    }
    out
}

fn mail(secret: &[u8], before: usize) -> Vec<u8> {
    let filler: Vec<u8> = b"lorem ipsum, "
        .iter()
        .copied()
        .cycle()
        .take(before)
        .collect();
    [&filler[..], secret, b" and more of it\nsecond paragraph"].concat()
}

#[test]
fn a_secret_over_two_lines_at_every_place_and_every_split_is_counted_once() {
    let m = matcher(&[TOKEN]);
    for end in ["\n", "\r\n"] {
        for before in 0..80 {
            let body = quoted(&mail(TOKEN, before), end);
            let whole = memchr::memmem::find(&body, TOKEN).is_some();
            let want = [(if whole { "raw" } else { "quoted_printable" }.to_owned(), 1)];
            assert_eq!(found_in(&m, &[&body]), want, "behind {before}");
            for cut in 1..body.len() {
                let (a, b) = body.split_at(cut);
                assert_eq!(found_in(&m, &[a, b]), want, "behind {before} cut at {cut}");
            }
            let single: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(found_in(&m, &single), want, "behind {before} byte by byte");
        }
    }
}

#[test]
fn long_secrets_and_signs_that_are_escaped() {
    let padded = b"q3VtZcK8s1LwXy7BnR0uTd4PfGhJkM==";
    let long: Vec<u8> = base64(&noise(9, 900))
        .into_iter()
        .filter(u8::is_ascii_alphanumeric)
        .collect();
    let m = matcher(&[padded, &long]);
    for (number, secret) in [("0", &padded[..]), ("1", &long[..])] {
        for before in 0..76 {
            let body = quoted(&mail(secret, before), "\r\n");
            let hits = reported(&m, &body).hits;
            let all: Vec<_> = hits
                .iter()
                .map(|h| (&h.credential.fingerprint[4..], spelling(h), h.occurrences))
                .collect();
            assert_eq!(
                all,
                [(number, "quoted_printable".to_owned(), 1)],
                "behind {before}"
            );
        }
    }
}

#[test]
fn what_only_looks_like_it_joins_nothing() {
    let m = matcher(&[TOKEN]);
    let (a, b) = TOKEN.split_at(20);
    let line = |text: &[u8], width: usize| [&b"x".repeat(width - text.len())[..], text].concat();
    for (first, sign, second) in [
        // A line that is not full, a sign that does not end it, a line that ends without one, other bytes between.
        (line(a, 30), &b"=\n"[..], b.to_vec()),
        (line(a, 75), b"=\n\n", b.to_vec()),
        (line(a, 75), b"\n", b.to_vec()),
        (line(a, 75), b"= \n", b.to_vec()),
        (line(a, 90), b"=\n", b.to_vec()),
        (line(a, 75), b"=\n", [b"=zz", b].concat()),
        (line(a, 75), b"=\n", [b"y", b].concat()),
    ] {
        let text = [&first[..], sign, &second, b"\n"].concat();
        assert_eq!(
            found_in(&m, &[&text]),
            [],
            "{}",
            String::from_utf8_lossy(&text)
        );
    }
}

#[test]
fn what_is_kept_and_looked_at_is_bounded() {
    let m = matcher(&[TOKEN]);
    let mut streams = Streams::new();
    let key = StreamKey {
        pid: keytrail_model::Pid { tgid: 1, start: 2 },
        layer: Layer::Socket,
        id: 1,
        ends: Default::default(),
    };
    let line = [&b"a".repeat(75)[..], b"=\n"].concat();
    for i in 0..4000 {
        let chunk = Chunk::whole(1 + i, &line);
        let told = streams.on_payload(&m, key, chunk);
        assert_eq!(told.undecoded.cut, 0, "line {i}");
        assert!(streams.kept_bytes() < 16 * 1024, "{}", streams.kept_bytes());
    }
    // A long secret of nothing but escapes.
    let secret: Vec<u8> = noise(7, 1_700).iter().map(|b| b'a' + b % 26).collect();
    let escaped: Vec<u8> = [&b"="[..], &secret]
        .concat()
        .chunks(25)
        .flat_map(|line| {
            let all = line.iter().flat_map(|b| format!("={b:02X}").into_bytes());
            all.chain(*b"=\n").collect::<Vec<u8>>()
        })
        .collect();
    let long = matcher(&[&secret]);
    assert_eq!(
        found_in(&long, &[&escaped]),
        [("quoted_printable".to_owned(), 1)]
    );
    // Where every letter is an escape, their places are more than the text; a secret among them is found all the same.
    let mut streams = Streams::new();
    let mut found = 0;
    for i in 0..400 {
        let all = if i == 300 {
            TOKEN
        } else {
            &b"ab=cdefghijklmnopqrstuvwxyz012345678901234"[..]
        };
        let mut body: Vec<u8> = all
            .iter()
            .flat_map(|b| format!("={b:02X}").into_bytes())
            .collect();
        body.insert(60, b'\n');
        body.insert(60, b'=');
        body.extend_from_slice(b"=\n");
        let told = streams.on_payload(&m, key, Chunk::whole(5000 + i, &body));
        found += told.hits.len();
        assert!(streams.kept_bytes() < 26 * 1024, "{}", streams.kept_bytes());
    }
    assert_eq!(found, 1);
}
