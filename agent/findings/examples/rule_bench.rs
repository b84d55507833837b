//! What the built-in rules cost an event, in processor time: `cargo run --release --example rule_bench`.
//!
//! One stage takes the same three events again and again: a token in the body of a request, a file with a secret that `tar`
//! reads among others, and one that an installation of packages reads. All their findings are known after the first round,
//! so that what is measured is the judging.

use keytrail_findings::facts::{
    ContextFacts, CredentialFacts, DestinationFacts, ProcessFacts, SourceFacts,
};
use keytrail_findings::{Facts, Stage};
use std::time::Instant;

const ROUNDS: u32 = 500;

fn event(kind: &str, credential: &str, program: &str, argv: &[&str], path: &str) -> Facts {
    Facts {
        time_ns: 1_000_000_000_000,
        kind: kind.into(),
        grade: "observed".into(),
        credential: Some(CredentialFacts {
            fingerprint: format!("kt1:{path}"),
            kind: credential.into(),
            ..Default::default()
        }),
        process: Some(ProcessFacts {
            key: program.into(),
            executable: program.into(),
            argv: argv.iter().map(|&a| a.into()).collect(),
            ..Default::default()
        }),
        source: SourceFacts {
            kind: "file".into(),
            path: path.into(),
            mode: "0600".into(),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn sent() -> Facts {
    Facts {
        channel: "tls".into(),
        in_body: true,
        request: "POST /repos/a/b/actions/secrets/X".into(),
        destination: Some(DestinationFacts {
            host: "api.example".into(),
            ip: "192.0.2.1".into(),
            port: 443,
            protocol: "tcp".into(),
            ..Default::default()
        }),
        ..event(
            "credential_sent",
            "github-token",
            "/usr/bin/python3.11",
            &["python3", "/srv/app/deploy.py"],
            "/srv/app/.env",
        )
    }
}

fn packed(n: usize) -> Facts {
    let kinds = ["github-token", "npm-token", "ssh-private-key", "netrc"];
    event(
        "credential_read",
        kinds[n % kinds.len()],
        "/usr/bin/tar",
        &["tar", "czf", "/backup/home.tar.gz", "/home", "/srv", "/etc"],
        &format!("/home/user{n}/.config/tool{n}/credentials"),
    )
}

fn installed() -> Facts {
    let mut facts = event(
        "credential_read",
        "npm-token",
        "/usr/bin/node",
        &["node", "install.js"],
        "/srv/app/.env",
    );
    if let Some(process) = &mut facts.process {
        process.script = "/srv/app/node_modules/esbuild/install.js".into();
        process.contexts = vec![ContextFacts {
            kind: "package_install".into(),
            name: "npm".into(),
            ..Default::default()
        }];
    }
    facts
}

fn measure(name: &str, stage: &mut Stage, events: &[Facts]) {
    let round = |stage: &mut Stage| events.iter().for_each(|e| drop(stage.step(e)));
    round(stage);
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| round(stage));
    let count = u128::from(ROUNDS) * events.len() as u128;
    println!("{name}: {} ns an event", start.elapsed().as_nanos() / count);
}

fn main() {
    let (mut stage, errors) = Stage::builtin();
    assert!(errors.is_empty(), "{errors:?}");
    measure("sent in a body", &mut stage, &[sent()]);
    let all: Vec<Facts> = (0..4).map(packed).collect();
    measure("read by tar", &mut stage, &all);
    measure("read by an installation", &mut stage, &[installed()]);
}
