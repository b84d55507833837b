use super::*;
use crate::facts::{CredentialFacts, DestinationFacts, ProcessFacts, SourceFacts};

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
            alone.known = Recent::new(MOST_FINDINGS, MOST_FINDING_BYTES);
            let fingerprint = case
                .event
                .credential
                .as_ref()
                .map_or_else(String::new, |c| c.fingerprint.clone());
            if let Some(found) = &case.found {
                alone.leaked(&found.rule, &fingerprint, found.time_ns);
            }
            if case.accepted {
                alone.apply(StageInput::Accept {
                    fingerprint: fingerprint.clone(),
                });
            }
            if case.decoy {
                alone.apply(StageInput::Decoys {
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

/// Names of what is covered are those of rules.
#[test]
fn what_is_covered_exists() {
    let (stage, _) = Stage::builtin();
    let names: BTreeSet<&str> = stage.rules().iter().map(|r| r.name.as_str()).collect();
    let covered: Vec<&String> = stage.rules().iter().flat_map(|r| &r.covers).collect();
    assert!(!covered.is_empty());
    for name in covered {
        assert!(names.contains(name.as_str()), "{name}");
    }
}

#[test]
fn one_event_makes_the_finding_that_says_most() {
    let read = |second: i64, kinds: &[&str]| {
        let context = |kind: &&str| crate::facts::ContextFacts {
            kind: (*kind).to_owned(),
            name: "x".into(),
            ..Default::default()
        };
        let mut event = sent(second, "/usr/bin/node", "");
        event.kind = "credential_read".into();
        event.channel = "file".into();
        event.destination = None;
        event.source = SourceFacts {
            kind: "file".into(),
            path: "/home/ada/.netrc".into(),
            ..Default::default()
        };
        let process = event.process.as_mut().unwrap();
        process.script = "/w/setup.js".into();
        process.contexts = kinds.iter().map(context).collect();
        event
    };
    fn rules(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|f| f.rule.as_str()).collect()
    }
    let (mut stage, _) = Stage::builtin();
    let first = stage.step(&read(1, &["agent_tool", "package_install"]));
    assert_eq!(rules(&first), ["agent-in-install"]);
    assert!(stage.leaks.get("kt1:aa").is_some());
    // What was covered was not reported, and is when it comes alone.
    let next = stage.step(&read(2, &["package_install"]));
    assert_eq!(rules(&next), ["package-install"]);
    // What the one only counts again is the first of another: where it went is said.
    let mut out = read(3, &["agent_tool", "package_install"]);
    out.kind = "credential_sent".into();
    out.channel = "tls".into();
    out.destination = sent(3, "", "evil.example").destination;
    let sent_on = stage.step(&out);
    assert!(
        rules(&sent_on).contains(&"package-install-sent"),
        "{:?}",
        rules(&sent_on)
    );
    // Where a site does not want the one, it gets the others.
    let (mut stage, _) = Stage::builtin();
    let hidden =
        "[[exclusion]]\nname = \"mine\"\nrules = [\"agent-in-install\"]\nwhen = \"true\"\n";
    stage.add("mine.toml", hidden).unwrap();
    let first = stage.step(&read(1, &["agent_tool", "package_install"]));
    assert_eq!(rules(&first), ["agent-tool", "package-install"]);
}

#[test]
fn rules_that_cover_each_other_are_refused() {
    let rule = |name: &str, covers: &str| {
        format!(
            "name = \"{name}\"\nseverity = \"low\"\ntitle = \"t\"\non = [\"credential_read\"]\nwhen = \"true\"\nseen = \"s\"\nremedy = \"r\"\ncovers = [\"{covers}\"]\n"
        )
    };
    let mut stage = Stage::default();
    stage.add("a.toml", &rule("a", "b")).unwrap();
    stage.add("b.toml", &rule("b", "c")).unwrap();
    let refused = stage.add("c.toml", &rule("c", "a")).unwrap_err();
    assert_eq!(refused.reason, "\"c\" covers what covers it");
    assert!(stage.add("d.toml", &rule("d", "d")).is_err());
    // Another one of the same name does no harm.
    stage.add("a.toml", &rule("a", "d")).unwrap();
    stage.add("c.toml", &rule("c", "a")).unwrap();
    assert_eq!(stage.rules().len(), 3);
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
    stage.apply(StageInput::Accept {
        fingerprint: "kt1:aa".into(),
    });
    stage
}

#[test]
fn the_same_again_is_counted_and_reported_again_after_a_day() {
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
fn what_is_reported_is_reported_again_from_a_recording() {
    let mut stage = accepted();
    let input = StageInput::Start {
        rules: vec![],
        baselines: copied(&stage),
        repeats: stage.take_repeated(),
        decoys: ["kt1:dd".to_owned()].into(),
    };
    let text = serde_json::to_string(&input).unwrap();
    assert_eq!(serde_json::from_str::<StageInput>(&text).unwrap(), input);
    let (mut again, _) = Stage::builtin();
    again.apply(input);
    let odd = sent(10, "/usr/bin/git", "evil.example");
    assert_eq!(again.step(&odd), stage.step(&odd));
}

fn read(second: i64, key: &str, kind: &str, path: &str) -> Facts {
    Facts {
        kind: "credential_read".into(),
        time_ns: second * 1_000_000_000,
        grade: "observed".into(),
        process: Some(ProcessFacts {
            key: key.into(),
            executable: "/opt/tool".into(),
            ..ProcessFacts::default()
        }),
        credential: Some(CredentialFacts {
            fingerprint: format!("kt1:{kind}"),
            kind: kind.into(),
            ..CredentialFacts::default()
        }),
        source: SourceFacts {
            kind: "file".into(),
            path: path.into(),
            mode: "0600".into(),
            ..SourceFacts::default()
        },
        ..Facts::default()
    }
}

/// Forty kinds are one harvest, and the same program run once more is another.
#[test]
fn a_harvest_is_reported_once_a_run() {
    let (mut stage, _) = Stage::builtin();
    let mut harvest = |second: i64, key: &str| -> usize {
        (0..40)
            .flat_map(|n| {
                let path = format!("/root/.tool{n}/credentials");
                stage.step(&read(second + n, key, &format!("kind-{n}"), &path))
            })
            .filter(|finding| finding.rule == "bulk-harvest")
            .count()
    };
    assert_eq!(harvest(1_000, "first"), 1);
    assert_eq!(harvest(2_000, "second"), 1);
    let counts: Vec<u64> = stage
        .take_repeated()
        .iter()
        .filter(|repeat| repeat.rule == "bulk-harvest")
        .map(|repeat| repeat.count)
        .collect();
    assert_eq!(counts, [37, 37]);
}

/// What a compiler reads of the project it builds is no harvest.
#[test]
fn sources_of_a_project_are_one_store() {
    let (mut stage, _) = Stage::builtin();
    for n in 0..10 {
        let path = format!("/home/a/project/src/part{n}.rs");
        let mut facts = read(1_000 + n, "rustc", &format!("kind-{n}"), &path);
        facts.process.as_mut().unwrap().cwd = "/home/a/project".into();
        let found = stage.step(&facts);
        assert!(found.iter().all(|f| f.rule != "bulk-harvest"), "{found:?}");
    }
}

/// Many secrets in one file that everybody may read are one finding, and stay one over a restart.
#[test]
fn an_open_file_is_reported_once() {
    let open = |second, kind: &str| {
        let mut facts = read(second, "k", kind, "/srv/shop/.env");
        facts.source.mode = "0644".into();
        facts.source.reach = "world".into();
        facts
    };
    let (mut stage, _) = Stage::builtin();
    let input = |stage: &mut Stage, second, kind: &str| {
        let found = stage.step(&open(second, kind));
        found.iter().filter(|f| f.rule == "world-readable").count()
    };
    assert_eq!(input(&mut stage, 1_000, "a"), 1);
    assert_eq!(input(&mut stage, 1_001, "b"), 0);
    let repeats = stage.take_repeated();
    let (mut next, _) = Stage::builtin();
    next.apply(StageInput::Start {
        rules: vec![],
        baselines: BTreeMap::new(),
        repeats,
        decoys: BTreeSet::new(),
    });
    assert_eq!(input(&mut next, 1_002, "c"), 0);
}

#[test]
fn an_event_gets_its_environment() {
    let (mut stage, _) = Stage::builtin();
    let site = |name: &str| {
        format!("[[environment]]\nname = '{name}'\nwhen = \"process.executable == '/bin/a'\"\n")
    };
    stage.step(&sent(1, "/bin/a", "x"));
    assert_eq!(stage.environment(), "");
    stage.add("site.toml", &site("production")).unwrap();
    stage.step(&sent(2, "/bin/a", "x"));
    assert_eq!(stage.environment(), "production");
    stage.step(&sent(3, "/bin/b", "x"));
    assert_eq!(stage.environment(), "");
    for name in ["", "a b", "a,b", "!a", "a:b"] {
        assert!(stage.add("site.toml", &site(name)).is_err(), "{name}");
    }
}

/// To compile a pattern costs a thousand times what it costs to match it.
#[test]
fn no_event_makes_a_rule_compile_a_pattern() {
    let (mut stage, _) = Stage::builtin();
    let compiled = stage.language.compiled();
    assert!(compiled > 0, "rules have patterns");
    for text in BUILTIN.iter().flat_map(|(file, text)| {
        let rule = Rule::parse(&Language::default(), file, text).unwrap();
        rule.tests
    }) {
        text.before.iter().chain([&text.event]).for_each(|event| {
            stage.step(event);
        });
    }
    assert_eq!(stage.language.compiled(), compiled);
}

fn copied(stage: &Stage) -> BTreeMap<String, Baseline> {
    let all = stage.baselines();
    all.map(|(of, baseline)| (of.clone(), baseline.clone()))
        .collect()
}

/// A read of one of the tokens of a file, by one of the copies of a program below a long path.
fn read_by_a_copy(token: usize, copy: usize) -> Facts {
    let mut facts = read(
        1_000 + copy as i64,
        "k",
        &format!("token{token}"),
        "/srv/tokens",
    );
    if let Some(process) = &mut facts.process {
        process.executable = format!("/srv/{}/cat{copy}", "d".repeat(4_000));
    }
    facts
}

/// A file of a thousand tokens that is read by hundreds of programs below a long path.
#[test]
fn what_is_usual_takes_no_more_memory_than_its_bound() {
    let mut stage = Stage::default();
    for copy in 0..64 {
        for token in 0..1_024 {
            stage.step(&read_by_a_copy(token, copy));
        }
    }
    let held = stage.baselines.bytes() + stage.about.bytes() + stage.known.bytes();
    assert!(held < MOST_USUAL_BYTES + MOST_ABOUT_BYTES, "{held}");
    // Whole, the paths alone would be 256 MiB.
    assert!(serde_json::to_string(&copied(&stage)).unwrap().len() < MOST_USUAL_BYTES);
}

#[test]
fn what_is_usual_for_the_credential_used_longest_ago_is_forgotten_first() {
    let mut stage = Stage {
        baselines: Recent::new(4, MOST_USUAL_BYTES),
        ..Stage::default()
    };
    stage.step(&read(1, "k", "learned", "/srv/a"));
    let fingerprint = "kt1:learned".to_owned();
    stage.apply(StageInput::Accept { fingerprint });
    assert_eq!(stage.take_changed().len(), 1);
    for n in 0..10 {
        stage.step(&read(10 + n, "k", &format!("other{n}"), "/srv/b"));
    }
    let left: Vec<&str> = stage.baselines().map(|(of, _)| of.as_str()).collect();
    assert_eq!(
        left,
        ["kt1:learned", "kt1:other7", "kt1:other8", "kt1:other9"]
    );
    let changed = stage.take_changed();
    let input: Vec<(&str, bool)> = changed
        .iter()
        .map(|(of, b)| (of.as_str(), b.is_some()))
        .collect();
    assert_eq!(
        input,
        [
            ("kt1:other7", true),
            ("kt1:other8", true),
            ("kt1:other9", true)
        ],
        "what was never kept need not be forgotten"
    );
    stage.step(&read(30, "k", "other10", "/srv/b"));
    let changed = stage.take_changed();
    let input: Vec<(&str, bool)> = changed
        .iter()
        .map(|(of, b)| (of.as_str(), b.is_some()))
        .collect();
    assert_eq!(input, [("kt1:other10", true), ("kt1:other7", false)]);
    assert_eq!(
        stage.dropped().take().collect::<Vec<_>>(),
        [(Bound::Usual, 8)]
    );
}

#[test]
fn what_changed_is_handed_out_in_pieces_and_all_of_it() {
    let mut stage = Stage::default();
    for n in 0..1_000 {
        stage.step(&read(n, "k", &format!("kind{n:03}"), "/srv/a"));
    }
    let mut pieces = Vec::new();
    while stage.has_changed() {
        pieces.push(stage.take_changed());
        // What changes all the time does not keep the others waiting.
        if pieces.len() < 4 {
            stage.step(&read(2_000, "k", "kind000", "/srv/a"));
        }
    }
    assert!(pieces.iter().all(|piece| piece.len() <= MOST_CHANGED));
    let all: BTreeSet<&String> = pieces.iter().flatten().map(|(of, _)| of).collect();
    assert_eq!((all.len(), pieces.len()), (1_000, 4));
    assert!(stage.take_changed().is_empty());
    // Large ones are fewer at once.
    for copy in 0..64 {
        for token in 0..256 {
            stage.step(&read_by_a_copy(token, copy));
        }
    }
    let piece = stage.take_changed();
    let bytes: usize = piece
        .iter()
        .flat_map(|(_, b)| b)
        .map(Remembered::bytes)
        .sum();
    assert!(bytes < 2 * MOST_CHANGED_BYTES, "{bytes}");
    assert!(stage.has_changed());
}

#[test]
fn what_could_not_be_kept_is_handed_out_again() {
    let mut stage = accepted();
    let odd = |second| sent(second, "/usr/bin/git", "evil.example");
    stage.step(&odd(10));
    stage.step(&odd(11));
    let changed = stage.take_changed();
    let of: Vec<String> = changed.iter().map(|(of, _)| of.clone()).collect();
    let repeated = stage.take_repeated();
    assert_eq!((of.len(), repeated[0].count), (1, 1), "{repeated:?}");
    assert_eq!((stage.changed(), stage.repeated()), (0, 0));
    // It is made again before what was handed out comes back.
    stage.step(&odd(12));
    stage.change_again(&of);
    stage.repeat_again(repeated);
    let again = stage.take_changed();
    assert_eq!((again.len(), &again[0].0), (1, &of[0]));
    assert_eq!(again[0].1.as_ref().unwrap().uses, 4);
    let again = stage.take_repeated();
    assert_eq!((again.len(), again[0].count), (1, 2), "{again:?}");
    assert_eq!(again[0].last_ns, 12_000_000_000);
    // What was forgotten meanwhile is reported as that.
    stage.apply(StageInput::Reset {
        fingerprint: of[0].clone(),
    });
    assert_eq!(stage.take_changed(), [(of[0].clone(), None)]);
    stage.change_again(&of);
    assert_eq!(stage.take_changed(), [(of[0].clone(), None)]);
}

#[test]
fn a_credential_with_too_many_values_is_reported_once() {
    let mut stage = Stage::default();
    for copy in 0..300 {
        stage.step(&read_by_a_copy(0, copy));
    }
    let input: Vec<(Bound, u64)> = stage.dropped().take().collect();
    assert_eq!(input, [(Bound::Values, 1)]);
}

/// Where a baseline of before is beyond the bounds, it is brought within them, and what goes is reported.
#[test]
fn what_was_learned_before_there_were_bounds_is_taken_in_within_them() {
    let path = |n: usize| format!("/srv/{}/cat{n}", "d".repeat(4_000));
    let mut large = Baseline {
        uses: 100,
        ..Baseline::default()
    };
    large.programs.values = (0..256).map(|n| (path(n), 1)).collect();
    let baselines = (0..200)
        .map(|n| (format!("kt1:{n}"), large.clone()))
        .collect();
    let mut stage = Stage::default();
    stage.apply(StageInput::Start {
        rules: vec![],
        baselines,
        repeats: vec![],
        decoys: BTreeSet::new(),
    });
    assert!(stage.baselines.bytes() <= MOST_USUAL_BYTES);
    assert_eq!(stage.baselines().count(), 200);
}

/// A read by a child of a script.
fn read_by_child(second: i64, key: &str, argv: &[&str], kind: &str) -> Facts {
    let path = format!("/home/ada/.{kind}");
    let mut facts = read(second, key, kind, &path);
    let process = facts.process.as_mut().unwrap();
    process.executable = format!("/usr/bin/{}", argv[0]);
    process.argv = argv.iter().map(|a| (*a).to_owned()).collect();
    process.ancestors = vec![crate::facts::AncestorFacts {
        key: "script".into(),
        executable: "/usr/bin/bash".into(),
        script: "/w/x.sh".into(),
        ..Default::default()
    }];
    facts
}

/// Whether a process did most of it or its siblings did, it is one run; and what follows on it adds to it.
#[test]
fn a_run_is_reported_once_by_whoever_did_most_of_it() {
    let (mut stage, _) = Stage::builtin();
    let mut input = Vec::new();
    let mut step = |facts: Facts| {
        let rules = stage.step(&facts).into_iter().map(|f| f.rule);
        input.extend(rules.filter(|rule| rule == "bulk-harvest" || rule == "searched"));
    };
    step(read_by_child(1_000, "a", &["cat", "x"], "aws"));
    for (n, kind) in ["npm", "netrc", "docker", "kube"].into_iter().enumerate() {
        step(read_by_child(1_001 + n as i64, "b", &["base64", "x"], kind));
    }
    // After a minute its own acts are all there are.
    for (n, kind) in ["pypi", "gem", "cargo"].into_iter().enumerate() {
        step(read_by_child(1_062 + n as i64, "b", &["base64", "x"], kind));
    }
    step(read_by_child(1_066, "c", &["cat", "x"], "vault"));
    assert_eq!(input, ["bulk-harvest"]);
}

#[test]
fn one_search_is_one_finding_and_what_is_read_after_it_none() {
    let (mut stage, _) = Stage::builtin();
    let mut input = Vec::new();
    let mut step = |facts: Facts| {
        let rules = stage.step(&facts).into_iter().map(|f| f.rule);
        input.extend(rules.filter(|rule| rule == "bulk-harvest" || rule == "searched"));
    };
    step(read_by_child(1_000, "a", &["cat", "x"], "first"));
    for n in 0..70 {
        let argv = ["grep", "-rn", "TODO", "/home/ada"];
        let kind = format!("kind{n}");
        step(read_by_child(1_001 + n, "b", &argv, &kind));
    }
    step(read_by_child(1_072, "c", &["cat", "x"], "kind69"));
    assert_eq!(input, ["searched"]);
}

/// A provider has many addresses; a thief has one elsewhere.
#[test]
fn a_name_within_its_network_is_reported_once() {
    let (mut stage, _) = Stage::builtin();
    let mut clear = |second, ip: &str| {
        let mut facts = sent(second, "/usr/bin/curl", "api.example");
        facts.channel = "tcp".into();
        facts.destination.as_mut().unwrap().ip = ip.into();
        let found = stage.step(&facts).into_iter();
        found
            .filter(|f| f.rule == "sent-in-clear")
            .map(|f| f.subject)
            .collect::<Vec<_>>()
    };
    assert_eq!(clear(1, "140.82.1.1"), ["api.example (140.82.1.1:443)"]);
    assert!(clear(2, "140.82.9.9").is_empty());
    assert_eq!(clear(3, "45.9.1.1"), ["api.example (45.9.1.1:443)"]);
}
