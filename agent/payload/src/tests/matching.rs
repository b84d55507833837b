//! What is found, and what must not be.

use super::*;
use proptest::prelude::*;

#[test]
fn tokens_where_programs_put_them() {
    let text = std::str::from_utf8(TOKEN).unwrap();
    let aws = std::str::from_utf8(AWS).unwrap();
    let m = matcher(&[TOKEN, AWS]);
    let token = |transform: &str| one(transform);
    let key = |transform: &str| vec![("1".to_owned(), transform.to_owned(), 1)];
    let basic = |user: &str| {
        format!(
            "Authorization: Basic {}\r\n",
            String::from_utf8(base64(format!("{user}:{text}").as_bytes())).unwrap()
        )
    };
    let cases = [
        (
            format!("GET / HTTP/1.1\r\nAuthorization: Bearer {text}\r\n\r\n"),
            token("raw"),
        ),
        (basic("u"), token("base64")),
        (basic("us"), token("base64")),
        (basic("x-access-token"), token("base64")),
        (format!("GET /?token={text}&x=1 HTTP/1.1\r\n"), token("raw")),
        (format!("{{\"token\":\"{text}\"}}"), token("raw")),
        (
            format!("--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\n{text}\r\n--b--\r\n"),
            token("raw"),
        ),
        (aws.to_owned(), key("raw")),
        (
            format!("secret={}", aws.replace('/', "%2F").replace('+', "%2B")),
            key("percent"),
        ),
        (
            format!("secret={}", aws.replace('/', "%2f").replace('+', "%2b")),
            key("percent"),
        ),
        (
            format!("{{\"k\":\"{}\"}}", aws.replace('/', "\\/")),
            key("json"),
        ),
        (
            format!("{{\"k\":\"{}\"}}", aws.replace('+', "\\u002B")),
            key("json"),
        ),
        (
            TOKEN.iter().map(|b| format!("{b:02x}")).collect(),
            token("hex"),
        ),
        (
            TOKEN.iter().map(|b| format!("{b:02X}")).collect(),
            token("hex"),
        ),
    ];
    for (payload, expected) in cases {
        assert_eq!(found(&m, &[payload.as_bytes()]), expected, "{payload}");
    }
}

#[test]
fn url_safe_and_wrapped_base64() {
    // 0xfb 0xff gives `+` and `/`: the alphabets differ.
    let secret = b"\xfb\xff\xfeX1y2Z3\xfb\xef\xbe-more-of-it";
    let m = matcher(&[secret]);
    let standard = base64(secret);
    let url: Vec<u8> = standard
        .iter()
        .map(|c| match c {
            b'+' => b'-',
            b'/' => b'_',
            c => *c,
        })
        .collect();
    assert_eq!(found(&m, &[&standard]), one("base64"));
    assert_eq!(found(&m, &[&url]), one("base64url"));

    let m = matcher(&[TOKEN]);
    for before in 0..90 {
        let text = base64(&[&noise(3, before)[..], TOKEN, b" and more"].concat());
        for gap in [&b"\n"[..], b"\r\n", b"\n      "] {
            assert_eq!(
                found(&m, &[&wrap(&text, 76, gap)]),
                one("base64"),
                "{before} bytes before, {gap:?}"
            );
            assert_eq!(
                found(&m, &[&wrap(&text, 64, gap)]),
                one("base64"),
                "{before} bytes before, {gap:?}"
            );
        }
    }
}

#[test]
fn keys_in_whatever_wrapping() {
    let key = pem(1200);
    let m = matcher(&[&key]);
    let text = String::from_utf8(key.clone()).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let json = text.replace('\n', "\\n");
    let cases = [
        (text.clone(), "raw"),
        (text.replace('\n', "\r\n"), "raw"),
        (text.replace('\n', "\n    "), "raw"),
        (text.replace('\n', " "), "raw"),
        (body.clone(), "raw"),
        (
            String::from_utf8(wrap(body.as_bytes(), 76, b"\n")).unwrap(),
            "raw",
        ),
        (format!("{{\"private_key\":\"{json}\"}}"), "json"),
        (
            format!("{{\"private_key\":\"{}\"}}", json.replace('/', "\\/")),
            "json",
        ),
        (
            format!(
                "\"{}\"",
                format!("{{\"private_key\":\"{json}\"}}")
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
            ),
            "json",
        ),
        (
            text.replace('+', "%2B")
                .replace('/', "%2F")
                .replace('=', "%3D")
                .replace('\n', "%0A"),
            "percent",
        ),
        (
            String::from_utf8(base64(
                format!("{{\"type\":\"x\",\"private_key\":\"{json}\"}}").as_bytes(),
            ))
            .unwrap(),
            "base64",
        ),
        (String::from_utf8(base64(&key)).unwrap(), "base64"),
        (
            String::from_utf8(wrap(&base64(&key), 76, b"\n")).unwrap(),
            "base64",
        ),
        (key.iter().map(|b| format!("{b:02x}")).collect(), "hex"),
    ];
    for (payload, transform) in cases {
        assert_eq!(
            found(&m, &[payload.as_bytes()]),
            one(transform),
            "{transform}: {payload}"
        );
    }
}

#[test]
fn public_parts_of_a_key_are_not_the_key() {
    let m = matcher(&[&pem(1200)]);
    assert_eq!(
        found(
            &m,
            &[b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"]
        ),
        []
    );
    assert_eq!(found(&m, &[&pem(1201)[..1000]]), []);
}

#[test]
fn occurrences_are_counted_by_transform() {
    let m = matcher(&[TOKEN]);
    let payload = [TOKEN, b"\n", TOKEN, b" ", &base64(TOKEN), TOKEN].concat();
    let expected = [
        ("0".to_owned(), "base64".to_owned(), 1),
        ("0".to_owned(), "raw".to_owned(), 3),
    ];
    assert_eq!(found(&m, &[&payload]), expected);
}

#[test]
fn identifiers_and_secrets_are_distinguished() {
    let mut m = matcher(&[AWS]);
    m.learn_identifier(credential("0"), "AKIAZ7Q2XW4M5N8P3RTV");
    let only = scan(
        &m,
        &[b"Credential=AKIAZ7Q2XW4M5N8P3RTV/20260101/eu-west-1/s3"],
    );
    assert_eq!(
        only.iter()
            .map(|h| (h.secret, h.occurrences))
            .collect::<Vec<_>>(),
        [(false, 1)]
    );
    let both = scan(&m, &[b"AKIAZ7Q2XW4M5N8P3RTV:", AWS]);
    assert_eq!(
        both.iter().map(|h| h.secret).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn parts_are_named_and_forgotten_together() {
    let mut m = Matcher::new(&KEY);
    m.learn(credential("0"), "secret_access_key", AWS);
    m.learn(credential("0"), "session_token", TOKEN);
    assert_eq!(
        m.learn(credential("0"), "session_token", TOKEN),
        Learned::Known
    );
    let payload = [AWS, b" ", TOKEN].concat();
    assert_eq!(
        scan(&m, &[&payload])
            .iter()
            .map(|h| &h.part[..])
            .collect::<Vec<_>>(),
        ["secret_access_key", "session_token"]
    );
    m.forget("kt1:other");
    assert_eq!(scan(&m, &[&payload]).len(), 2);
    m.forget("kt1:0");
    assert_eq!(scan(&m, &[&payload]), []);
    assert!(m.is_empty() && m.windows() == 0);
    m.learn(credential("1"), "", TOKEN);
    assert_eq!(
        found(&m, &[&payload]),
        [("1".to_owned(), "raw".to_owned(), 1)]
    );
}

#[test]
fn a_form_does_not_begin_in_the_middle_of_an_escape() {
    // The second spelling of each begins with another character than the secret.
    let cases: [(&[u8], &[u8], &[u8]); 3] = [
        (
            b"0Aaa+BcD-eFg7hIj",
            b" 0Aaa%2BBcD-eFg7hIj",
            b"%20Aaa%2BBcD-eFg7hIj",
        ),
        (
            b"nAaa\"BcD-eFg7hIj",
            br#"\\nAaa\"BcD-eFg7hIj"#,
            br#"\nAaa\"BcD-eFg7hIj"#,
        ),
        (
            b"9Aaa\"BcD-eFg7hIj",
            br#"u00e9Aaa\"BcD-eFg7hIj"#,
            br#"\u00e9Aaa\"BcD-eFg7hIj"#,
        ),
    ];
    for (secret, there, not_there) in &cases {
        let m = matcher(&[secret]);
        for cut in 0..not_there.len() {
            let (a, b) = not_there.split_at(cut);
            assert_eq!(
                found(&m, &[a, b]),
                [],
                "{}",
                String::from_utf8_lossy(not_there)
            );
        }
        for cut in 0..there.len() {
            let (a, b) = there.split_at(cut);
            assert_eq!(
                found(&m, &[a, b]).len(),
                1,
                "{}",
                String::from_utf8_lossy(there)
            );
        }
    }
}

#[test]
fn weak_secrets_are_refused() {
    let mut m = Matcher::new(&KEY);
    for weak in [
        "",
        "short1!",
        "password",
        "postgres",
        "aaaaaaaaaaaaaaaaaaaa",
        "abababababab",
        "20260101",
        "1735689600000",
    ] {
        assert_eq!(
            m.learn(credential(weak), "", weak.as_bytes()),
            Learned::TooWeak,
            "{weak}"
        );
    }
    assert_eq!(
        m.learn(credential("long"), "", &noise(1, 20_000)),
        Learned::TooLong
    );
    assert!(m.is_empty());
    for fine in [
        "hunter2Xy",
        "Tr0ub4dor",
        "correcthorsebattery",
        "4929-1138-7721-0043",
    ] {
        assert!(
            matches!(
                m.learn(credential(fine), "", fine.as_bytes()),
                Learned::New { .. }
            ),
            "{fine}"
        );
        assert_eq!(scan(&m, &[fine.as_bytes()]).len(), 1, "{fine}");
    }
}

#[test]
fn redaction_replaces_every_form() {
    let mut m = matcher(&[TOKEN]);
    m.learn_identifier(credential("0"), "AKIAZ7Q2XW4M5N8P3RTV");
    let text = [
        b"Bearer ",
        TOKEN,
        b" AKIAZ7Q2XW4M5N8P3RTV ",
        &base64(TOKEN),
        b" \xff",
        TOKEN,
        TOKEN,
    ]
    .concat();
    let redacted = m.redact(&text).unwrap();
    let label = "[redacted test-token kt1:0]";
    assert!(
        redacted.starts_with(&format!("Bearer {label} AKIAZ7Q2XW4M5N8P3RTV {label}")),
        "{redacted}"
    );
    assert!(
        redacted.ends_with(&format!(" \u{fffd}{label}{label}")),
        "{redacted}"
    );
    assert_eq!(m.redact(b"nothing here, nothing at all"), None);
}

fn secret() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 16..60),
        "[A-Za-z0-9+/_=-]{16,80}".prop_map(String::into_bytes),
        "[ -~]{14,40}".prop_map(String::into_bytes),
        "[a-z]{4}[0-9]{4}[!-/]{1,3}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every form, in the middle of other bytes; a form is what the encoders of others make of the secret.
    #[test]
    fn every_form_is_found(secret in secret(), before in 0usize..40, after in 0usize..40, seed: u64) {
        let mut m = Matcher::new(&KEY);
        prop_assume!(matches!(m.learn(credential("0"), "", &secret), Learned::New { .. }));
        let (before, after) = (noise(seed, before), noise(!seed, after));
        let encoded = [
            ("raw", [&before[..], &secret, &after].concat()),
            ("base64", base64(&[&before[..], &secret, &after].concat())),
            ("base64", base64(&[&before[..], &secret].concat())),
            ("hex", encode::hex(&[&before[..], &secret, &after].concat(), seed % 2 == 0).to_vec()),
        ];
        for (transform, payload) in encoded {
            let hits = found(&m, &[&payload]);
            prop_assert!(hits.iter().any(|(_, t, n)| t == transform && *n == 1), "{transform}: {hits:?}");
        }
        let json = serde_json::to_vec(&String::from_utf8_lossy(&secret)).unwrap();
        if std::str::from_utf8(&secret).is_ok() {
            prop_assert_eq!(found(&m, &[&json]).len(), 1);
        }
    }

    /// One changed bit anywhere in any form, and it is not that secret.
    #[test]
    fn near_misses_are_not_claimed(secret in secret(), at: prop::sample::Index, bit in 0u8..8) {
        let mut m = Matcher::new(&KEY);
        prop_assume!(matches!(m.learn(credential("0"), "", &secret), Learned::New { .. }));
        let mut other = secret.clone();
        let at = at.index(other.len());
        other[at] ^= 1 << bit;
        for seed in 0..3 {
            let payload = [&noise(seed, seed as usize)[..], &other, b"xyz"].concat();
            for payload in [payload.clone(), base64(&payload), encode::hex(&payload, false).to_vec(), encode::percent(&payload, b"-._~", false, true).to_vec()] {
                // `abc%` is in the percent-encoded `abc$`: then it is no miss.
                if memchr::memmem::find(&payload, &secret).is_none() {
                    prop_assert_eq!(found(&m, &[&payload]), []);
                }
            }
        }
    }

    /// All but the last or the first byte is not the secret.
    #[test]
    fn prefixes_and_suffixes_are_not_claimed(secret in secret()) {
        let mut m = Matcher::new(&KEY);
        prop_assume!(matches!(m.learn(credential("0"), "", &secret), Learned::New { .. }));
        for part in [&secret[1..], &secret[..secret.len() - 1]] {
            for payload in [part.to_vec(), base64(part), encode::hex(part, true).to_vec()] {
                prop_assert_eq!(found(&m, &[&payload]), []);
            }
        }
    }
}

#[test]
fn secrets_that_share_most_of_their_bytes_are_distinguished() {
    let variant = |n: u8| {
        let mut token = TOKEN.to_vec();
        token[4] = b'a' + n;
        token
    };
    let all: Vec<Vec<u8>> = (0..20).map(variant).collect();
    let m = matcher(&all.iter().map(|s| &s[..]).collect::<Vec<_>>());
    for (i, token) in all.iter().enumerate() {
        for payload in [token.clone(), base64(token)] {
            let hits = found(&m, &[&payload]);
            assert_eq!(hits.len(), 1);
            assert_eq!(hits[0].0, i.to_string());
        }
    }
    assert_eq!(found(&m, &[&variant(21)]), []);
}

#[test]
fn nothing_is_claimed_of_random_bytes() {
    let secrets: Vec<Vec<u8>> = (0..500).map(|i| noise(i + 1000, 24)).collect();
    let m = matcher(&secrets.iter().map(|s| &s[..]).collect::<Vec<_>>());
    for seed in 0..4 {
        let bytes = noise(seed, 256 * 1024);
        assert_eq!(scan(&m, &[&bytes, &base64(&bytes)]), []);
    }
}

#[test]
fn a_secret_of_few_hex_digits_is_found_in_hex() {
    let secret = b"pwws0332!";
    assert_eq!(
        found(&matcher(&[secret]), &[b"x=707777733033333221;"]),
        one("hex")
    );
}
