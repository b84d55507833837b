use super::*;

fn texts(secret: &[u8]) -> Vec<(String, String)> {
    forms(secret, |_| 0)
        .iter()
        .map(|f| {
            (
                f.transform.word().to_owned(),
                String::from_utf8_lossy(&f.text).into_owned(),
            )
        })
        .collect()
}

fn has(secret: &[u8], transform: &str, text: &str) {
    let all = texts(secret);
    assert!(
        all.contains(&(transform.to_owned(), text.to_owned())),
        "{transform} {text} not in {all:?}"
    );
}

#[test]
fn a_plain_token_has_few_forms() {
    let names: Vec<_> = forms(TOKEN, |_| 0)
        .iter()
        .map(|f| f.transform.word())
        .collect();
    assert_eq!(names[0], "raw");
    assert_eq!(names.iter().filter(|n| **n == "base64").count(), 3);
    assert_eq!(names.iter().filter(|n| **n == "hex").count(), 1);
    assert!(!names.contains(&"json"), "{names:?}");
    // Only the underscore is encoded by the strictest encoders.
    assert_eq!(names.iter().filter(|n| **n == "percent").count(), 2);
}

#[test]
fn known_spellings_are_among_the_forms() {
    has(b"a/b+c=d e-secret", "percent", "a%2Fb%2Bc%3Dd%20e-secret");
    has(b"a/b+c=d e-secret", "percent", "a%2fb%2bc%3dd%20e-secret");
    has(b"a/b+c=d e-secret", "percent", "a/b%2Bc%3Dd%20e-secret");
    has(b"a/b+c=d e-secret", "percent", "a%2Fb%2Bc%3Dd%20e%2Dsecret");
    has(b"a/b+c=d e-secret", "percent", "a%2Fb%2Bc%3Dd+e-secret");
    has(b"a/b\"c\\d\ne<f", "json", r#"a/b\"c\\d\ne<f"#);
    has(b"a/b\"c\\d\ne<f", "json", r#"a\/b\"c\\d\ne<f"#);
    has(b"a/b\"c\\d\ne<f", "json", r#"a/b\"c\\d\ne\u003cf"#);
    has(b"a+b/c+secret", "json", r"a\u002Bb/c\u002Bsecret");
    has(
        "päss😀word".as_bytes(),
        "json",
        r"p\u00e4ss\ud83d\ude00word",
    );
    has(b"\x01\x1fabc", "hex", "011f616263");
    has(
        b"a/b+c=d e-secret",
        "percent",
        "a%252Fb%252Bc%253Dd%2520e-secret",
    );
    has(b"ab\"c\\d-secret", "json", r#"ab\\\"c\\\\d-secret"#);
    has(b"ab\"c\\d-secret", "json", r#"ab\\\\\\\"c\\\\\\\\d-secret"#);
}

#[test]
fn a_form_around_a_simpler_one_is_left_out() {
    // `\"quoted-first` holds `"quoted-first` and would be counted twice.
    let json: Vec<_> = texts(b"\"quoted-first")
        .into_iter()
        .filter(|(name, _)| name == "json")
        .map(|(_, t)| t)
        .collect();
    assert_eq!(json, ["\\u0022quoted-first"]);
}

#[test]
fn equal_forms_are_there_once() {
    for secret in [TOKEN, AWS, PASSWORD, b"abcabcabcabc", &pem(1200)] {
        let all = forms(secret, |_| 0);
        for (i, a) in all.iter().enumerate() {
            assert!(
                all[..i]
                    .iter()
                    .all(|b| a.text != b.text || a.head != b.head || a.tail != b.tail)
            );
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    assert!(!format!("{:?}", forms(TOKEN, |_| 0)).contains("w7Rk"));
    let mut tail = StreamTail::new();
    matcher(&[TOKEN]).scan(&mut tail, TOKEN, &mut Hits::new());
    assert!(!format!("{tail:?}").contains("w7Rk"));
}
