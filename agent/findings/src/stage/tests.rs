use super::*;
use crate::facts::{CredentialFacts, DestinationFacts, ProcessFacts};

/// Every built-in rule compiles, has a test that fires and one that does not, and passes them.
#[test]
fn the_rules_pass_their_own_tests() {
    let (stage, errors) = Stage::builtin();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(stage.rules().len(), BUILTIN.len());
    let mut failed = Vec::new();
    for (file, text) in BUILTIN {
        let rule = Rule::parse(&Language::default(), file, text).unwrap();
        for wanted in [true, false] {
            if !rule.tests.iter().any(|case| case.fires == wanted) {
                failed.push(format!("{file}: no test with fires = {wanted}"));
            }
        }
        for case in &rule.tests {
            let mut alone = Stage::default();
            alone.add(file, text).unwrap();
            if !case.site.is_empty() {
                alone.add("site.toml", &case.site).unwrap();
            }
            for event in &case.before {
                alone.step(event);
            }
            // What they made before does not count.
            alone.known.clear();
            let fingerprint = case
                .event
                .credential
                .as_ref()
                .map_or_else(String::new, |c| c.fingerprint.clone());
            if let Some(found) = &case.found {
                alone.leaked(&found.rule, &fingerprint, found.time_ns);
            }
            if case.accepted {
                alone.tell(Told::Accept {
                    fingerprint: fingerprint.clone(),
                });
            }
            if case.decoy {
                alone.tell(Told::Decoys {
                    decoys: [fingerprint].into(),
                });
            }
            let findings = alone.step(&case.event);
            if findings.len() != usize::from(case.fires) {
                failed.push(format!("{file}: {}: {findings:?}", case.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn sent(second: i64, program: &str, host: &str) -> Facts {
    Facts {
        time_ns: second * 1_000_000_000,
        kind: "credential_sent".into(),
        grade: "observed".into(),
        channel: "tls".into(),
        credential: Some(CredentialFacts {
            fingerprint: "kt1:aa".into(),
            kind: "github-token".into(),
            ..Default::default()
        }),
        process: Some(ProcessFacts {
            executable: program.into(),
            ..Default::default()
        }),
        destination: Some(DestinationFacts {
            host: host.into(),
            ip: "192.0.2.1".into(),
            port: 443,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn accepted() -> Stage {
    let (mut stage, _) = Stage::builtin();
    stage.step(&sent(1, "/usr/bin/git", "github.com"));
    stage.tell(Told::Accept {
        fingerprint: "kt1:aa".into(),
    });
    stage
}

#[test]
fn the_same_again_is_counted_and_told_again_after_a_day() {
    let mut stage = accepted();
    let odd = |second| sent(second, "/usr/bin/git", "evil.example");
    assert_eq!(stage.step(&odd(10))[0].rule, "wrong-place");
    for second in 11..=15 {
        assert!(stage.step(&odd(second)).is_empty());
    }
    let repeated = stage.take_repeated();
    assert_eq!((repeated.len(), repeated[0].count), (1, 5), "{repeated:?}");
    assert!(stage.take_repeated().is_empty());
    let later = stage.step(&odd(15 + 2 * 86_400));
    let rules: Vec<&str> = later.iter().map(|f| f.rule.as_str()).collect();
    assert_eq!(rules, ["not-rotated", "wrong-place"]);
    let elsewhere = sent(20, "/usr/bin/git", "other.example");
    assert_eq!(
        stage.step(&elsewhere).len(),
        1,
        "another place is another finding"
    );
}

#[test]
fn exclusions_hide_and_count() {
    let mut stage = accepted();
    stage
        .add(
            "mine.toml",
            "[[exclusion]]\nname = \"mirror\"\nrules = [\"wrong-place\"]\nwhen = \"destination.host == 'mirror.example'\"\n",
        )
        .unwrap();
    assert!(
        stage
            .step(&sent(10, "/usr/bin/git", "mirror.example"))
            .is_empty()
    );
    assert_eq!(
        stage.step(&sent(11, "/usr/bin/git", "evil.example")).len(),
        1
    );
    assert_eq!(stage.excluded().collect::<Vec<_>>(), [("mirror", 1)]);
}

#[test]
fn what_is_wrong_with_a_rule_is_said() {
    let mut stage = Stage::default();
    let rule = |when: &str, seen: &str| {
        format!(
            "name = \"x\"\nseverity = \"low\"\ntitle = \"t\"\non = [\"credential_sent\"]\nwhen = \"{when}\"\nseen = \"{seen}\"\nremedy = \"r\"\n"
        )
    };
    for (when, seen) in [
        ("process.executible == 'x'", ""),
        ("1 + 1", ""),
        ("(", ""),
        ("true", "{process.executible}"),
    ] {
        let error = stage.add("x.toml", &rule(when, seen)).unwrap_err();
        assert!(error.to_string().starts_with("x.toml: "), "{error}");
    }
    stage
        .add("x.toml", &rule("true", "{process.name}"))
        .unwrap();
    // One of the same name takes its place.
    stage.add("y.toml", &rule("false", "")).unwrap();
    assert_eq!(stage.rules().len(), 1);
    assert!(stage.step(&sent(1, "/bin/a", "b")).is_empty());
}

#[test]
fn what_is_told_is_told_again_from_a_recording() {
    let mut stage = accepted();
    let told = Told::Start {
        rules: vec![],
        baselines: stage.baselines().clone(),
        repeats: stage.take_repeated(),
        decoys: ["kt1:dd".to_owned()].into(),
    };
    let text = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told);
    let (mut again, _) = Stage::builtin();
    again.tell(told);
    let odd = sent(10, "/usr/bin/git", "evil.example");
    assert_eq!(again.step(&odd), stage.step(&odd));
}
