//! Every rule's own examples, with fresh values.

use crate::rules::{Example, Rule, builtin, template};
use crate::tests_support::classify_example;
use crate::{Classifier, Finding, Origin};

fn about(rule: &Rule, f: &Finding) -> bool {
    // A rule that only names places has no kind of its own.
    f.rule == rule.spec.name || f.kind == rule.spec.kind || rule.spec.structure == "assign"
}

fn place(example: &Example) -> String {
    match example {
        Example::Placed { path, env, .. } => format!("{path}{env}"),
        Example::Text(_) => String::new(),
    }
}

#[test]
fn built_in_rules_load_without_error() {
    let (rules, errors) = builtin::rules();
    assert!(
        errors.is_empty(),
        "{}",
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    );
    let mut names: Vec<_> = rules.iter().map(|r| r.spec.name.clone()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "rule names are unique");
}

#[test]
fn every_example_of_every_rule() {
    let classifier = Classifier::builtin();
    let mut bad = Vec::new();
    for rule in builtin::rules().0 {
        for seed in [1u64, 77, 4242] {
            for (positive, list) in [(true, &rule.spec.positive), (false, &rule.spec.negative)] {
                for (i, example) in list.iter().enumerate() {
                    let text = template::expand(example.text(), seed + i as u64).unwrap();
                    let found = classify_example(&classifier, example, &text);
                    let hit = if positive {
                        found.iter().any(|f| about(&rule, f))
                    } else {
                        found.iter().any(|f| f.rule == rule.spec.name)
                    };
                    if hit != positive {
                        let others: Vec<_> = found
                            .iter()
                            .map(|f| format!("{} {}", f.rule, f.confidence))
                            .collect();
                        bad.push(format!(
                            "{} {} seed {seed}: {:?} [{}] -> {others:?}",
                            rule.spec.name,
                            if positive { "+" } else { "-" },
                            &text[..text.floor_char_boundary(160)],
                            place(example)
                        ));
                    }
                }
            }
        }
    }
    bad.dedup_by(|a, b| a.split(" seed").next() == b.split(" seed").next());
    assert!(
        bad.is_empty(),
        "{} examples fail:\n{}",
        bad.len(),
        bad.join("\n")
    );
}

/// Nothing that is printed or stored may hold a piece of a secret.
#[test]
fn no_identifier_holds_a_piece_of_its_secret() {
    let classifier = Classifier::builtin();
    for rule in builtin::rules().0 {
        for (i, example) in rule.spec.positive.iter().enumerate() {
            let text = template::expand(example.text(), 5 + i as u64).unwrap();
            for f in classify_example(&classifier, example, &text) {
                let spec = classifier
                    .rule_named(&f.rule)
                    .map(|r| classifier.rule(r).spec.clone())
                    .unwrap_or_default();
                let value = f
                    .parts
                    .first()
                    .map(|p| p.value.to_vec())
                    .unwrap_or_default();
                // Tokens that carry public ids in clear (team, bot, application) show those.
                let shows = matches!(
                    spec.identifier.as_str(),
                    "dash-digits" | "github-app" | "json-claims" | "jwt"
                ) || spec.regex.contains("(?P<id>");
                let mark = spec
                    .literals
                    .iter()
                    .map(String::len)
                    .filter(|n| *n <= value.len())
                    .max()
                    .unwrap_or(0);
                if shows
                    || value.len() < 16
                    || spec.structure == "pem"
                    || !spec.regex.is_empty() && value.starts_with(b"-----")
                {
                    continue;
                }
                for said in f.public.iter().chain([&f.identifier]) {
                    let piece = value[mark.min(value.len())..]
                        .windows(5)
                        .find(|w| said.as_bytes().windows(5).any(|s| s == *w));
                    assert!(
                        piece.is_none(),
                        "{}: identifier {said:?} holds a piece of the secret",
                        f.rule
                    );
                }
            }
        }
    }
}

/// A key of another kind beside a pair of AWS does not take the place of the secret, in whatever order they stand.
#[test]
fn another_key_is_not_the_secret_of_a_key_id() {
    let classifier = Classifier::builtin();
    let lines = template::expand(
        "DJANGO_SECRET_KEY={b64:40}\nAWS_ACCESS_KEY_ID=AKIA{base32:16}\nAWS_SECRET_ACCESS_KEY={b64:40}",
        7,
    )
    .unwrap();
    let mut lines: Vec<&str> = lines.lines().collect();
    let secret = lines[2].split_once('=').unwrap().1.to_owned();
    for _ in 0..3 {
        lines.rotate_left(1);
        for text in [lines.join("\n"), format!("[default]\n{}", lines.join("\n"))] {
            let found = classifier.classify(text.as_bytes(), Origin::File { path: "/srv/.env" });
            let pair = found.iter().find(|f| f.kind == "aws-access-key").unwrap();
            assert_eq!(*pair.parts[0].value, secret.as_bytes(), "{text}");
        }
    }
}
