//! What is said about a credential never holds the secret, whichever part of a notation repeats it.

use crate::rules::template::{Random, expand};
use crate::{Classifier, Finding, Origin};
use base64::Engine;
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Every byte percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Where a secret is repeated: `§` the secret as the password, `¶` a repetition of it in another form, `¤` the base64 of `¶:§`.
const NOTATIONS: &[(&str, &str)] = &[
    ("x.sh", "curl https://u:§@localhost:9/¶\n"),
    ("x.sh", "git clone https://¶:§@git.corp.net/a\n"),
    ("x.env", "A=postgresql://svc:§@¶.db/x\n"),
    ("x.env", "A=postgresql://svc:§@db/¶\n"),
    ("x.env", "A=postgresql://¶:§@db.corp.net/¶\n"),
    ("x.env", "A=mysql://¶:§@db.corp.net/x\n"),
    ("x.env", "A=redis://¶:§@cache:6379/0\n"),
    ("x.env", "A=amqp://¶:§@mq.corp.net/¶\n"),
    ("x.env", "A=mongodb://my-¶:§@mq.corp.net/¶-db\n"),
    ("x.env", "A=Server=¶;User Id=¶;Password=§;\n"),
    ("x.env", "A=host=¶ user=¶ password=§ dbname=¶\n"),
    ("x.sh", "curl -u ¶:§ https://a.corp.net\n"),
    ("x.txt", "Authorization: Basic ¤\n"),
    ("/root/.netrc", "machine ¶ login ¶ password §\n"),
    ("/root/.pgpass", "¶:5432:¶:¶:§\n"),
    (
        "/root/.docker/config.json",
        "{\"auths\":{\"¶\":{\"auth\":\"¤\"}}}",
    ),
    ("/etc/ppp/chap-secrets", "¶ ¶ § *\n"),
    ("/etc/rsyncd.secrets", "¶:§\n"),
    ("/root/.my.cnf", "[client]\nuser=¶\nhost=¶\npassword=§\n"),
    ("/root/.pypirc", "[¶]\nusername=¶\npassword=§\n"),
    ("x.env", "¶=§\n"),
    ("x.csv", "user,password\n¶,§\n"),
    (
        "secret.yaml",
        "kind: Secret\nmetadata:\n  name: ¶\nstringData:\n  password: §\n",
    ),
    (
        "terraform.tfstate",
        "{\"terraform_version\":\"1\",\"resources\":[{\"type\":\"¶\",\"name\":\"¶\",\"instances\":[{\"attributes\":{\"password\":\"§\"}}]}]}",
    ),
];

fn holds(shown: &str, secret: &str) -> bool {
    let shown = shown.to_ascii_lowercase();
    [secret.to_owned(), encoded(secret)]
        .iter()
        .any(|form| shown.contains(&form.to_ascii_lowercase()))
}

fn assert_silent(text: &str, finding: &Finding, secret: &str) {
    let said = [&finding.identifier, &finding.login]
        .into_iter()
        .chain(&finding.public);
    for word in said {
        // Of a finding of another value of the same text the secret may be the name.
        let own = finding.parts.iter().any(|part| {
            part.value.eq_ignore_ascii_case(secret.as_bytes())
                || part.value.eq_ignore_ascii_case(encoded(secret).as_bytes())
        });
        assert!(!own || !holds(word, secret), "{text}\n{finding:?}");
    }
}

#[test]
fn no_identifier_holds_its_secret() {
    let mut random = Random::new(4);
    let mut found = 0;
    for seed in 0..24u64 {
        let length = 6 + random.word() % 30;
        let secret = expand(&format!("{{alpha:1}}{{word:{length}}}{{digit:2}}"), seed).unwrap();
        let repetitions = [
            secret.clone(),
            secret.to_ascii_uppercase(),
            secret.to_ascii_lowercase(),
            encoded(&secret),
            encoded(&secret).to_ascii_lowercase(),
        ];
        for again in &repetitions {
            for (path, notation) in NOTATIONS {
                let text = notation
                    .replace('¤', &base64(&format!("{again}:{secret}")))
                    .replace('¶', again)
                    .replace('§', &secret);
                for finding in CLASSIFIER.classify(text.as_bytes(), Origin::File { path }) {
                    found += usize::from(!finding.parts.is_empty());
                    assert_silent(&text, &finding, &secret);
                }
            }
        }
    }
    // Most notations are found, so that the test is one.
    assert!(found > 24 * 5 * NOTATIONS.len() / 2, "{found}");
}

#[test]
fn cut_off_short_and_named_by_another_variable() {
    let long = expand("{base62:160}", 3).unwrap();
    let of = |text: &str, path: &str| {
        let found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
        assert_eq!(found.len(), 1, "{text} {found:?}");
        found[0].identifier.clone()
    };
    // What is shown of a name is cut off, and the beginning of a secret is one, too.
    let shown = of(
        &format!("A=redis://{long}:{long}@cache:6379/0\n"),
        "/srv/x.env",
    );
    assert_eq!(shown, "<redis-url>@cache:6379/0");
    // A short one is hidden as a word, and not where it is a piece of one.
    let shown = of("root.corp.net:5432:my_root:root:root\n", "/root/.pgpass");
    assert_eq!(shown, "<pgpass>@<pgpass>.corp.net:5432/my_root");

    let secret = expand("{base62:20}", 4).unwrap();
    let found = CLASSIFIER.classify_env([
        (&b"PGPASSWORD"[..], secret.as_bytes()),
        (b"PGUSER", secret.as_bytes()),
        (b"PGHOST", b"db"),
    ]);
    let (_, finding) = found.iter().find(|(name, _)| name == "PGPASSWORD").unwrap();
    assert_eq!(finding.login, "");
    assert!(
        finding.identifier.ends_with("> db") && !holds(&finding.identifier, &secret),
        "{finding:?}"
    );
}
