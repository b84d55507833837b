//! What a text may look like and still be one, and values that are none.

use crate::form::{Form, form};
use crate::rules::{builtin, template::expand};
use crate::{Classifier, Finding, Origin};
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn at(text: &[u8], path: &str) -> Vec<Finding> {
    let mut found = CLASSIFIER.classify(text, Origin::File { path });
    found.retain(|f| !f.parts.is_empty());
    found
}

fn kinds(text: &[u8], path: &str) -> Vec<String> {
    at(text, path).into_iter().map(|f| f.kind).collect()
}

#[test]
fn zeroes_in_a_text_hide_nothing() {
    let token = expand("ghp_{base62:30}{crc32_base62}", 4).unwrap();
    let secret = expand("{base62:24}", 5).unwrap();
    for text in [
        format!("# settings\n\0GITHUB_TOKEN={token}\n"),
        format!("# settings\npassword: {secret}\0\n"),
        format!(
            "# settings of it\napi_token = {secret}{}",
            "\0".repeat(4000)
        ),
        format!(
            "# settings of it\n{}api_token = {secret}\n",
            "\0".repeat(4000)
        ),
        format!("HOME=/root\0LANG=C.UTF-8\0DB_PASSWORD={secret}\0TERM=xterm\0"),
    ] {
        assert_eq!(form(text.as_bytes()), Form::Text, "{text:?}");
        let found = at(text.as_bytes(), "/srv/settings");
        assert_eq!(found.len(), 1, "{text:?} {found:?}");
        let value = &found[0].parts[0].value;
        assert!(value.as_slice() == token.as_bytes() || value.as_slice() == secret.as_bytes());
        assert_eq!(&text.as_bytes()[found[0].span()], value.as_slice());
    }
    let padded = format!(
        "[DEFAULT]\nhost = https://x\ntoken = {secret}\n{}",
        "\0".repeat(500)
    );
    assert_eq!(
        kinds(padded.as_bytes(), "/root/.databrickscfg"),
        ["databricks-token"]
    );
}

#[test]
fn colours_of_a_terminal_are_no_part_of_a_token() {
    let token = expand("ghp_{base62:30}{crc32_base62}", 4).unwrap();
    let secret = expand("{base62:24}", 5).unwrap();
    for colour in [
        "\x1b[31m",
        "\x1b[1;31m",
        "\x1b[38;5;196m",
        "\x1b[48;2;255;100;0;38;2;10;20;30m",
        "\x1b[0K",
        "\x1b(B",
        "\x1b(B\x1b[m",
        "\\033[0;32m",
        "\\e[1m",
        "\\u001b[33m",
        "\\x1b[33m",
    ] {
        let text = format!("token {colour}{token}{colour} is set\n");
        assert_eq!(
            kinds(text.as_bytes(), "/srv/a.log"),
            ["github-token"],
            "{text:?}"
        );
    }
    for colour in ["\x1b[31m", "\x1b[38;5;196m", "\x1b[1m\x1b[31m"] {
        for text in [
            format!("API_TOKEN={colour}{secret}\x1b[0m\n"),
            format!("{colour}API_TOKEN\x1b[0m={colour}{secret}\x1b[0m\n"),
            format!("api_token: {colour}\"{secret}\"\x1b[0m\n"),
        ] {
            let found = at(text.as_bytes(), "/srv/a.log");
            assert_eq!(found.len(), 1, "{text:?} {found:?}");
            assert_eq!(
                found[0].parts[0].value.as_slice(),
                secret.as_bytes(),
                "{text:?}"
            );
        }
    }
    // A word that ends with the letter of a colour is a word.
    let word = format!("x[31m{token}");
    assert!(kinds(word.as_bytes(), "/srv/a.log").is_empty());
}

#[test]
fn places_of_secrets_are_no_secrets() {
    const REFERENCES: &[&str] = &[
        "/run/secrets/api_token_production_0123456789abcdef",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "/etc/app/keys/0123456789abcdef0123456789abcdef.pem",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/api-AbCdEf",
        "arn:aws:ssm:us-east-1:123456789012:parameter/prod/api/token0123456789",
        "op://Engineering/prod-api-0123456789abcdef/credential",
        "projects/123456789012/secrets/api-token-0123456789abcdef/versions/latest",
        "ref+vault://secret/data/app0123456789abcdef#/token",
        "~/.config/app/token0123456789abcdef",
    ];
    let mut wrong = Vec::new();
    for rule in builtin::rules().0 {
        let names = rule
            .spec
            .env
            .iter()
            .map(|name| name.trim_end_matches('*').to_owned());
        let words = rule.spec.near.iter().flat_map(|word| {
            let word = word
                .trim_matches(|c: char| !c.is_ascii_alphanumeric())
                .to_uppercase();
            [format!("{word}_API_KEY"), format!("{word}_SECRET")]
        });
        for name in names
            .chain(words)
            .filter(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        {
            for value in REFERENCES {
                let text =
                    format!("{name}={value}\n{name}_FILE={value}\n{name}_ARN: \"{value}\"\n");
                let mut found = at(text.as_bytes(), "/srv/.env");
                found.extend(
                    CLASSIFIER
                        .classify_env([(name.as_bytes(), value.as_bytes())])
                        .into_iter()
                        .map(|(_, f)| f),
                );
                wrong.extend(
                    found
                        .iter()
                        .filter(|f| !f.parts.is_empty())
                        .map(|f| format!("{name}={value}: {}", f.rule)),
                );
            }
        }
    }
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{} taken:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[test]
fn a_variable_that_names_a_file_is_no_secret_whatever_stands_there() {
    let hex = expand("{hex:32}", 3).unwrap();
    for name in [
        "DATADOG_API_KEY_FILE",
        "datadog_api_key_path",
        "DATADOG_SECRET_ARN",
        "datadog.keyFile",
    ] {
        let text = format!("{name}={hex}\n");
        assert!(at(text.as_bytes(), "/srv/.env").is_empty(), "{text}");
    }
    assert!(!at(format!("DATADOG_API_KEY={hex}\n").as_bytes(), "/srv/.env").is_empty());
}

#[test]
fn quoted_values_of_a_netrc_are_whole() {
    for (text, value) in [
        (
            "machine h login u password \"two words 77\"\n",
            "two words 77",
        ),
        (
            "machine h\nlogin \"my user\"\npassword \"a \\\"b\\\" c9\"\n",
            "a \"b\" c9",
        ),
        (
            "machine h login u password \"tab\\there 1\"\n",
            "tab\there 1",
        ),
        ("machine h login u password ab\"cd12\n", "ab\"cd12"),
        ("machine h login u password plain-w0rd\n", "plain-w0rd"),
        (
            "default login u password \"x y z 1\" account a\n",
            "x y z 1",
        ),
    ] {
        let found = at(text.as_bytes(), "/root/.netrc");
        assert_eq!(found.len(), 1, "{text} {found:?}");
        assert_eq!(
            found[0].parts[0].value.as_slice(),
            value.as_bytes(),
            "{text}"
        );
    }
    // Not closed on its line: a word like any other.
    let found = at(
        b"machine h login u password \"open1234\nmachine g login u password other567\n",
        "/root/.netrc",
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn long_values_count() {
    for length in [599, 600, 601, 1500, 4096, 8000] {
        let value = expand(&format!("{{base62:{length}}}"), 7).unwrap();
        for (text, path) in [
            (format!("API_TOKEN={value}\n"), "/srv/.env"),
            (format!("api_token: \"{value}\"\n"), "/srv/a.yml"),
            (format!("{{\"client_secret\": \"{value}\"}}"), "/srv/a.json"),
        ] {
            let found = at(text.as_bytes(), path);
            assert_eq!(found.len(), 1, "{length} {path}");
            assert_eq!(found[0].parts[0].value.len(), length, "{path}");
        }
    }
}

#[test]
fn letters_alone_under_an_unmistakable_name() {
    for seed in 0..40 {
        for (template, name) in [
            ("{lower:32}", "API_TOKEN"),
            ("{upper:24}", "CLIENT_SECRET"),
            ("{alpha:20}", "api_secret"),
            ("{lower:40}", "SECRET_KEY"),
        ] {
            let value = expand(template, seed).unwrap();
            let text = format!("{name}={value}\n");
            let found = at(text.as_bytes(), "/srv/.env");
            let taken = found
                .iter()
                .any(|f| f.parts[0].value.as_slice() == value.as_bytes());
            // Chance makes a word now and then.
            assert!(
                taken || crate::checks::strength::worded(value.as_bytes()),
                "{text}"
            );
        }
    }
    for value in [
        "application",
        "mySecretConfigurationValue",
        "theQuickBrownFoxJumps",
        "authenticationtokenprovider",
        "donaudampfschifffahrt",
        "XMLHttpRequestFactory",
    ] {
        let text = format!("API_TOKEN={value}\n");
        assert!(at(text.as_bytes(), "/srv/.env").is_empty(), "{text}");
    }
}

#[test]
fn telnyx_keys_of_every_age() {
    for template in [
        "KEY018{HEX:29}_{base62:22}",
        "KEY018{HEX:29}",
        "KEY{HEX:32}_{b64url:22}",
        "KEY{hex:32}",
    ] {
        for seed in 0..5 {
            let value = expand(template, seed).unwrap();
            for text in [
                format!("TELNYX_API_KEY={value}\n"),
                format!("telnyx_api_key: '{value}'\n"),
            ] {
                let found = at(text.as_bytes(), "/srv/.env");
                assert_eq!(found.len(), 1, "{text} {found:?}");
                assert_eq!(
                    (found[0].kind.as_str(), found[0].parts[0].value.as_slice()),
                    ("telnyx-key", value.as_bytes())
                );
            }
        }
    }
}

#[test]
fn what_a_token_may_do_is_not_claimed() {
    let token = expand("ghp_{base62:30}{crc32_base62}", 4).unwrap();
    assert_eq!(at(token.as_bytes(), "/srv/a")[0].privilege, 3);
    let hash = expand("$6${base62:16}${base62:86}", 4).unwrap();
    let shadow = format!(
        "root:{hash}:1:0:99999:7:::\nann:{}:1:0:99999:7:::\n",
        hash.replace("$6$", "$5$")
    );
    let privileges: Vec<u8> = at(shadow.as_bytes(), "/etc/shadow")
        .iter()
        .map(|f| f.privilege)
        .collect();
    assert_eq!(privileges, [1, 3]);
}

#[test]
fn limits_are_reported() {
    let many: String = (0..6000)
        .map(|i| expand("ghp_{base62:30}{crc32_base62}\n", i).unwrap())
        .collect();
    let classified = CLASSIFIER.classify_bounded(many.as_bytes(), Origin::Text);
    assert_eq!(classified.findings.len(), crate::scan::MAX_FINDINGS);
    assert!(classified.limits.findings && classified.limits.any());
    assert!(!classified.limits.reason().is_empty());
    for (text, path) in [
        ("[".repeat(100_000), "/root/.kube/config"),
        (
            format!("a: {}\n", "b".repeat(2 << 20)),
            "/root/.kube/config",
        ),
        (
            format!(
                "a: &a [{}]\nb: [{}]\n",
                "0,".repeat(20_000),
                "*a,".repeat(2000)
            ),
            "/root/.kube/config",
        ),
    ] {
        let limits = CLASSIFIER
            .classify_bounded(text.as_bytes(), Origin::File { path })
            .limits;
        assert!(limits.document, "{limits:?} {:?}", &text[..20]);
    }
    let slow = "eyJ-".repeat(1 << 19);
    assert!(
        CLASSIFIER
            .classify_bounded(slow.as_bytes(), Origin::Text)
            .limits
            .work
    );
    let ordinary = include_str!("../scan/value.rs");
    assert!(
        !CLASSIFIER
            .classify_bounded(ordinary.as_bytes(), Origin::Text)
            .limits
            .any()
    );
}
