//! What a process runs in, and what outlives its writer.

use super::*;

/// An exec of this executable with these arguments.
fn runs(tgid: u32, parent: u32, path: &str, argv: &[&str]) -> Observation {
    let Observation::Exec(mut seen) = exec(tgid, parent, u64::from(tgid) * SEC / 10, Vec::new())
    else {
        panic!("no exec");
    };
    seen.exe.path = path.to_owned();
    seen.argv = argv.iter().map(|a| (*a).to_owned()).collect();
    Observation::Exec(seen)
}

fn wrote(tgid: u32, path: &str) -> Observation {
    Observation::Persistence {
        at: Some(at(tgid, 9 * SEC)),
        boot_ns: 9 * SEC,
        file: FileFacts {
            path: path.to_owned(),
            ..FileFacts::default()
        },
        technique: "T1546".to_owned(),
        link: String::new(),
    }
}

fn contexts(event: &Event) -> Vec<String> {
    let process = event.process.as_ref().unwrap();
    let contexts = process.contexts.iter();
    contexts
        .map(|c| format!("{}:{} {}", c.kind, c.name, c.key))
        .collect()
}

#[test]
fn the_nearest_ancestor_of_each_kind_gives_the_context() {
    let events = run(&[
        start(),
        runs(1, 0, "/opt/runner/bin/Runner.Worker", &["Runner.Worker"]),
        runs(2, 1, "/usr/bin/node", &["node", "/usr/bin/npm", "install"]),
        runs(3, 2, "/usr/bin/dash", &["sh", "-c", "node p.js"]),
        runs(4, 3, "/usr/bin/node", &["node", "/usr/bin/npm", "install"]),
        runs(5, 4, "/usr/bin/node", &["node", "p.js"]),
        wrote(5, "/w/.git/hooks/pre-push"),
        // Who installs is not what the installation runs.
        wrote(2, "/w/.git/hooks/pre-push"),
    ]);
    let written = of(&events, "persistence_written");
    assert_eq!(
        contexts(written[0]),
        [
            "package_install:npm 01234567:4:40:1",
            "ci_job:github 01234567:1:10:1"
        ]
    );
    assert_eq!(contexts(written[1]), ["ci_job:github 01234567:1:10:1"]);
    let ancestors = &written[0].process.as_ref().unwrap().ancestors;
    let scripts: Vec<&str> = ancestors.iter().map(|a| a.script.as_str()).collect();
    assert_eq!(scripts, ["/usr/bin/npm", "-c", "/usr/bin/npm", ""]);
    assert_eq!(
        written[0].source.as_ref().unwrap().path,
        "/w/.git/hooks/pre-push"
    );
    assert_eq!(written[0].attack, ["T1546"]);
    assert!(written[0].credential.is_none());
}

#[test]
fn what_git_checks_out_is_not_written_by_it_but_for_hooks() {
    let events = run(&[
        start(),
        runs(2, 1, "/usr/bin/git", &["git", "clone", "x"]),
        wrote(2, "/w/.github/workflows/ci.yml"),
        wrote(2, "/w/.git/hooks/post-checkout"),
        Observation::Persistence {
            at: None,
            boot_ns: 9 * SEC,
            file: FileFacts::default(),
            technique: "T1546".to_owned(),
            link: "../x".to_owned(),
        },
    ]);
    let written = of(&events, "persistence_written");
    assert_eq!(written.len(), 2);
    assert_eq!(written[0].change, None);
    // Of a link, where it leads.
    let change = written[1].change.as_ref().unwrap();
    assert_eq!(
        (change.action, change.link.as_str()),
        (FileAction::Linked, "../x")
    );
    assert!(
        written[0]
            .source
            .as_ref()
            .unwrap()
            .path
            .ends_with("post-checkout")
    );
    assert!(written[1].process.is_none());
}

#[test]
fn on_whose_behalf_is_reported_with_the_process() {
    let actor = |path: &str, argv: &[&str]| {
        let events = run(&[
            start(),
            runs(1, 0, path, argv),
            runs(2, 1, "/usr/bin/tee", &["tee"]),
            wrote(2, "/root/.bashrc"),
        ]);
        of(&events, "persistence_written")[0]
            .process
            .as_ref()
            .unwrap()
            .actor
    };
    assert_eq!(actor("/usr/bin/bash", &["-bash"]), Some(Actor::Person));
    assert_eq!(actor("/usr/bin/bash", &["bash"]), None);
    assert_eq!(actor("/usr/sbin/cron", &["cron", "-f"]), Some(Actor::Job));
}
