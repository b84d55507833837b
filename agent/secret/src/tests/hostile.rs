//! All input is hostile: nothing panics, nothing grows without bound.

use crate::rules::{builtin, template};
use crate::scan::MAX_FINDINGS;
use crate::{Classifier, Finding, Origin};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

/// Every example of every rule, expanded once.
static EXAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    builtin::rules()
        .0
        .iter()
        .flat_map(|r| r.spec.positive.iter().chain(&r.spec.negative))
        .filter_map(|e| template::expand(e.text(), 11).ok())
        .map(String::into_bytes)
        .collect()
});

const PATHS: &[&str] = &[
    "",
    "/root/.aws/credentials",
    "/root/.kube/config",
    "/root/.docker/config.json",
    "/root/.netrc",
    "/root/.pgpass",
    "/etc/shadow",
    "/etc/krb5.keytab",
    "/tmp/krb5cc_0",
    "/root/.my.cnf",
    "/srv/a.p12",
    "/srv/a.jks",
    "/srv/x.tfstate",
    "/root/.mcp.json",
    "/root/.ssh/id_rsa",
    "/root/.config/gh/hosts.yml",
    "/run/credentials/a/b",
    "/srv/.env",
];

fn sane(text: &[u8], found: &[Finding]) {
    assert!(found.len() <= MAX_FINDINGS);
    for f in found {
        for place in f.places.iter().chain(f.parts.iter().map(|p| &p.span)) {
            assert!(
                place.start <= place.end && place.end <= text.len(),
                "{} {:?} of {}",
                f.rule,
                place,
                text.len()
            );
        }
        assert!((0.0..=1.0).contains(&f.confidence), "{}", f.rule);
        assert!(!f.places.is_empty());
        assert!(f.identifier.chars().count() <= 600, "{}", f.rule);
    }
}

fn both(text: &[u8], path: &str) {
    let origin = if path.is_empty() {
        Origin::Text
    } else {
        Origin::File { path }
    };
    sane(text, &CLASSIFIER.classify(text, origin));
    sane(
        text,
        &CLASSIFIER.classify(
            text,
            Origin::Env {
                name: "GITHUB_TOKEN",
            },
        ),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(text in proptest::collection::vec(any::<u8>(), 0..2048), path in 0..PATHS.len()) {
        both(&text, PATHS[path]);
    }

    #[test]
    fn mutated_examples(which in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), path in 0..PATHS.len()) {
        let mut text = which.get(EXAMPLES.as_slice()).clone();
        let n = cut.index(text.len() + 1);
        text.truncate(n);
        text.extend_from_slice(other.get(EXAMPLES.as_slice()).as_slice());
        for (at, byte) in changes {
            if !text.is_empty() {
                let i = at.index(text.len());
                text[i] = byte;
            }
        }
        both(&text, PATHS[path]);
    }
}

/// Texts made to be slow: each must stay near the cost of its length.
#[test]
fn no_text_of_a_mebibyte_takes_long() {
    let big = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let texts = [
        big("-----BEGIN RSA PRIVATE KEY-----\nMIIE"),
        big("password="),
        big("key "),
        big("://a:b@"),
        big("eyJ."),
        big("T3BlbkFJ"),
        big("curl -u "),
        big("{\"auths\":"),
        big("server=;"),
        big("AKIA"),
        big("aws_secret_access_key="),
        big("\"kty\":\"RSA\","),
        big("<server>"),
        big("kind: Secret\n---\n"),
        big("machine a login b "),
        big("a: &a [*a]\n"),
        big("[[[[["),
        big("_-_-token"),
        big("PuTTY-User-Key-File-3: x\n"),
        big("\\\"password\\\":"),
        big("-us1"),
        big("sig="),
        big("bearer "),
        big("LS0tLS1CRUdJTi"),
        big("https://x/hooks/"),
        big("jdbc:"),
        big("dsn sentry."),
        "a".repeat(1 << 20),
        "token".repeat(200_000) + "=x",
    ];
    for text in &texts {
        let start = Instant::now();
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
        sane(text.as_bytes(), &found);
        let took = start.elapsed();
        // A debug build on a busy machine; a quadratic scan would take minutes.
        assert!(
            took < Duration::from_secs(20),
            "{took:?} for {:?}...",
            &text[..24]
        );
    }
}

#[test]
fn findings_are_bounded() {
    let text: String = (0..6000)
        .map(|i| template::expand("ghp_{base62:30}{crc32_base62}\n", i).unwrap())
        .collect();
    assert_eq!(
        CLASSIFIER.classify(text.as_bytes(), Origin::Text).len(),
        MAX_FINDINGS
    );
}

#[test]
fn no_secret_in_debug_output() {
    let text = template::expand("DB_PASSWORD={base62:20}", 3).unwrap();
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::Text);
    assert_eq!(found.len(), 1);
    assert!(!format!("{found:?}").contains(&text[12..]));
}
