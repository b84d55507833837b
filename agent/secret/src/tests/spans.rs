//! Where a credential begins and ends, what it is called and whose it is.

use crate::rules::template::expand;
use crate::{Classifier, Finding, Origin};
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

/// A text whose secret stands between « and », without these signs, and the secret.
fn marked(template: &str, seed: u64) -> (String, String) {
    let text = expand(template, seed).unwrap();
    let (before, rest) = text.split_once('«').unwrap();
    let (secret, after) = rest.split_once('»').unwrap();
    (format!("{before}{secret}{after}"), secret.to_owned())
}

/// What is found with the confidence that an inventory shows.
fn shown(text: &[u8], path: &str) -> Vec<Finding> {
    let mut found = CLASSIFIER.classify(text, Origin::File { path });
    found.retain(|f| !f.parts.is_empty() && f.confidence >= 0.5);
    found
}

/// Path, text, kind, identifier.
type Case = (&'static str, &'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    for &(path, template, kind, identifier) in cases {
        for seed in 1..4 {
            let (text, secret) = marked(template, seed);
            let found = shown(text.as_bytes(), path);
            assert_eq!(found.len(), 1, "{text}\n{found:?}");
            let found = &found[0];
            assert_eq!(
                (&text[found.span()], found.kind.as_str()),
                (secret.as_str(), kind),
                "{text}"
            );
            assert_eq!(found.identifier, identifier, "{text}");
        }
    }
}

#[test]
fn values_end_where_they_end() {
    check(&[
        (
            "/srv/settings.xml",
            "<a><adyenApiKey>«AQE{b64:70}-{b64:42}a-{base62:16}»</adyenApiKey></a>",
            "adyen-key",
            "",
        ),
        (
            "/srv/x.env",
            "LINKEDIN_CLIENT_SECRET=«WPL_AP1.{base62:16}.{b64:6}==»\n",
            "linkedin-key",
            "WPL_AP",
        ),
        (
            "/srv/x.py",
            "client_secret = \"«WPL_AP0.{base62:16}.{b64:6}==»\"\n",
            "linkedin-key",
            "WPL_AP",
        ),
    ]);
}

#[test]
fn kinds_are_their_issuers() {
    check(&[
        (
            "/srv/x.env",
            "ZHIPUAI_API_KEY=«{hex:32}.{base62:16}»\n",
            "zhipu-key",
            "",
        ),
        (
            "/srv/x.env",
            "GLM_API_KEY=«{hex:32}.{base62:16}»\n",
            "zhipu-key",
            "",
        ),
        (
            "/srv/x.env",
            "OLLAMA_API_KEY=«{hex:32}.{base62:24}»\n",
            "ollama-key",
            "",
        ),
        (
            "/srv/x.env",
            "BUILDKITE_AGENT_ACCESS_TOKEN=«bkaa_MTA.{base62:77}»\n",
            "buildkite-token",
            "bkaa_",
        ),
        (
            "/srv/x.yaml",
            "token: \"«bkct_{base62:50}»\"\n",
            "buildkite-token",
            "bkct_",
        ),
    ]);
}

#[test]
fn connection_strings_are_of_an_account() {
    check(&[
        (
            "/srv/a.txt",
            "Driver={{ODBC Driver 18 for SQL Server};Server=s1;UID=svc;PWD=«{base62:16}»;\n",
            "connection-string",
            "svc@s1",
        ),
        (
            "/srv/a.json",
            "{{\"Default\": \"Provider=SQLOLEDB;Data Source=db1;Initial Catalog=shop;User Id=app;Password=«{base62:16}»\"}",
            "connection-string",
            "app@db1/shop",
        ),
        (
            "/srv/a.sh",
            "psql \"host=db user=svc password=«{base62:16}» dbname=app\"\n",
            "libpq-connection",
            "svc@db/app",
        ),
        (
            "/srv/a.sh",
            "psql \"user=svc password=«{base62:16}» host=db\"\n",
            "libpq-connection",
            "svc@db",
        ),
    ]);
    // A log that tells a password: no connection to a database.
    let (text, _) = marked("INFO login user=alice password=«{base62:16}» ok\n", 1);
    let found = CLASSIFIER.classify(
        text.as_bytes(),
        Origin::File {
            path: "/srv/app.log",
        },
    );
    assert!(
        found.iter().all(|f| f.kind != "libpq-connection"),
        "{found:?}"
    );
}

#[test]
fn a_json_web_key_has_a_name() {
    check(&[
        (
            "/srv/jwks.json",
            "{{\"keys\": [{{\"kty\": \"EC\", \"crv\": \"P-256\", \"kid\": \"sig-2026\", \"x\": \"{b64url:43}\", \"d\": \"«{b64url:43}»\"}]}",
            "jwk-private-key",
            "sig-2026",
        ),
        (
            "/srv/jwks.json",
            "{{\"kty\": \"RSA\", \"n\": \"{b64url:342}\", \"e\": \"AQAB\", \"d\": \"«{b64url:342}»\", \"kid\": \"k 1\"}",
            "jwk-private-key",
            "k 1",
        ),
        (
            "/srv/jwks.json",
            "{{\"kty\": \"oct\", \"k\": \"«{b64url:43}»\"}",
            "jwk-private-key",
            "oct",
        ),
    ]);
}
