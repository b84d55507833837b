//! A file that holds one word and is called a secret.

use crate::rules::template::Random;
use crate::{Classifier, Origin};
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn taken(path: &str, text: &str) -> bool {
    let found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
    found
        .iter()
        .any(|f| f.confidence >= 0.5 && !f.parts.is_empty())
}

/// Letters of both cases with two to four digits, and dashes.
fn password(random: &mut Random, length: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut below = |n: usize| (random.word() % n as u64) as usize;
    let mut out: Vec<u8> = (0..length).map(|_| LETTERS[below(LETTERS.len())]).collect();
    for (set, n) in [(&b"-_"[..], below(3)), (b"0123456789", 2 + below(3))] {
        for _ in 0..n {
            out[below(length)] = set[below(set.len())];
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn a_password_by_chance_is_one_whatever_letters_it_has() {
    let mut random = Random::new(19);
    for path in [
        "/run/secrets/token",
        "/var/lib/kubelet/pods/x/volumes/kubernetes.io~secret/db/password",
        "/mnt/app/api_key",
        "/srv/app/secret",
    ] {
        let missed: Vec<String> = (0..1000)
            .map(|_| password(&mut random, 19))
            .filter(|password| !taken(path, &format!("{password}\n")))
            .collect();
        assert!(missed.len() <= 8, "{path}: {missed:?}");
    }
}

#[test]
fn a_name_of_something_is_none() {
    // A password is what somebody chose: there a name with a number counts.
    for path in ["/run/secrets/token", "/srv/app/secret"] {
        for text in [
            "Production-Token-01",
            "ApiToken_v2-Prod",
            "CI-Runner-Token-42",
            "my-service-token-2",
            "Kubernetes-Admin-Role1",
            "registry.corp.net/Team/App1",
            "/run/secrets/Db2/Password",
            "2026-11-30T10-12-13Z",
            "sha256-Digest-Of-Key",
        ] {
            assert!(!taken(path, text), "{path} {text}");
        }
    }
}
