//! The arrows between crates are the ones docs/ARCHITECTURE.md draws, and no other.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's result")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::{fs, path::Path, process::Command};

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The table between the marks `<!-- arrows -->`: `| crate | what it holds | depends on |`.
fn documented() -> Arrows {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ARCHITECTURE.md");
    let text = fs::read_to_string(page).unwrap();
    let table = text.split("<!-- arrows -->").nth(1).unwrap();
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let name = names(cells[1]).into_iter().next().unwrap();
            (name, names(cells[3]))
        })
        .collect()
}

/// What the manifests say: normal dependencies of our own crates on our own crates.
fn measured() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"))
        .canonicalize()
        .unwrap();
    let mut arrows = Arrows::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        if !manifest.starts_with(&agent) {
            continue;
        }
        let targets = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter_map(|name| name.strip_prefix("keytrail-"))
            .map(str::to_owned)
            .collect();
        let name = package["name"].as_str().unwrap();
        let name = name.strip_prefix("keytrail-").unwrap_or(name);
        arrows.insert(name.to_owned(), targets);
    }
    arrows
}

#[test]
fn crates_depend_on_what_the_architecture_says() {
    let (documented, measured) = (documented(), measured());
    assert!(measured.len() > 5, "{measured:?}");
    for (name, targets) in &measured {
        if name == "keytrail" {
            continue;
        }
        assert_eq!(
            Some(targets),
            documented.get(name),
            "docs/ARCHITECTURE.md says otherwise of `{name}`"
        );
    }
    assert_eq!(
        documented.keys().collect::<Vec<_>>(),
        measured
            .keys()
            .filter(|name| *name != "keytrail")
            .collect::<Vec<_>>(),
        "docs/ARCHITECTURE.md does not have the crates there are"
    );
}

/// What a crate may never be linked to, whatever its neighbours bring.
#[test]
fn only_the_stages_that_need_them_know_the_loader_and_the_runtime() {
    for (package, forbidden) in [
        ("keytrail-secret", ["aya", "tokio", "tonic"].as_slice()),
        ("keytrail-payload", &["aya", "tokio", "tonic"]),
        ("keytrail-ingest", &["aya", "tokio"]),
        ("keytrail-model", &["prost", "tokio", "tonic"]),
        (
            "keytrail-core",
            &["aya", "prost", "rusqlite", "tokio", "tonic"],
        ),
        ("keytrail-sensor", &["prost", "rusqlite", "tokio", "tonic"]),
    ] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges=normal",
                "--prefix=none",
                "-p",
                package,
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(tree.starts_with(package), "{tree}");
        for name in forbidden {
            assert!(
                !tree
                    .lines()
                    .any(|line| line.split(' ').next() == Some(name)),
                "{package} is linked to {name}"
            );
        }
    }
}
