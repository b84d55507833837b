//! The arrows between crates are the ones docs/ARCHITECTURE.md draws, and no other; files of a crate go one way as well;
//! and what the page says where something is, is there.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's result")]

#[path = "structure/files.rs"]
mod files;

use files::{Crate, circles, without_own_parts};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

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

/// The kernel side's object is embedded by `sensor` alone. Every other stage is built and tested on a machine without the BPF
/// toolchain: nothing that it needs, for its tests either, leads there.
#[test]
fn only_the_sensor_needs_the_kernel_side() {
    let crates: Vec<String> = measured()
        .into_keys()
        .filter(|name| !["keytrail", "sensor"].contains(&name.as_str()))
        .map(|name| format!("keytrail-{name}"))
        .collect();
    assert!(crates.contains(&"keytrail-secret".to_owned()), "{crates:?}");
    let tree = |package: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges=all", "--prefix=none", "-p"])
            .arg(package)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{package}");
        String::from_utf8(output.stdout).unwrap()
    };
    for package in &crates {
        assert!(!tree(package).contains("keytrail-sensor"), "{package}");
    }
    assert!(tree("keytrail").contains("keytrail-sensor"));
    // Nor does any of them build something of its own that asks for it.
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(top).unwrap() {
        let script = entry.unwrap().path().join("build.rs");
        if script.exists() {
            assert_eq!(script, top.join("sensor/build.rs"));
        }
    }
}

/// The root files of our crates. Not that of the kernel side: its maps hold what its programs note, and are named by them.
fn roots() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let kernel_side = top.join("agent-ebpf/src");
    let mut roots = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && name != "target" && path != kernel_side {
                open.push(path);
            } else if ["lib.rs", "main.rs"].contains(&name) && dir.ends_with("src") {
                roots.push(path);
            }
        }
    }
    roots.sort();
    roots
}

/// A module may put its parts together, and they may use what it defines. But two of them do not need each other.
#[test]
fn files_of_a_crate_do_not_take_names_from_each_other_in_a_circle() {
    let roots = roots();
    assert!(roots.len() > 15, "{roots:?}");
    let mut found = Vec::new();
    for root in &roots {
        let arrows = without_own_parts(Crate::read(root).arrows());
        for circle in circles(&arrows) {
            found.push(format!("in {}:", root.display()));
            for file in &circle {
                for (from, names) in arrows[file]
                    .iter()
                    .filter(|(from, _)| circle.contains(*from))
                {
                    found.push(format!(
                        "  {} takes {names:?} from {}",
                        file.display(),
                        from.display()
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// A crate of the given files in a directory of its own.
fn made_up(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let arrows = without_own_parts(Crate::read(&dir.path().join("lib.rs")).arrows());
    let name = |file: &PathBuf| file.to_str().unwrap().to_owned();
    circles(&arrows)
        .iter()
        .map(|circle| circle.iter().map(name).collect())
        .collect()
}

#[test]
fn a_made_up_circle_is_found_however_it_is_written() {
    let root = "mod a;\nmod b;\npub use a::One;\n";
    let a = "pub struct One;\npub fn one() { crate::b::two() }\n";
    for b in [
        "use crate::a::One;\npub fn two() {}\n",
        "use super::{a::{self, One as Other}};\npub fn two() {}\n",
        // By what the root hands on.
        "use crate::One;\npub fn two() {}\n",
        "use super::*;\npub fn two() { let _ = super::One; }\n",
        // Without a `use`, in a macro, behind the name of a module.
        "pub fn two() { println!(\"{}\", crate::a::one()) }\n",
        "use super::a;\npub fn two() { a::one() }\n",
    ] {
        assert_eq!(
            made_up(&[("lib.rs", root), ("a.rs", a), ("b.rs", b)]),
            [["a.rs", "b.rs"]],
            "{b}"
        );
    }
    for b in [
        "pub fn two() {}\n",
        "// crate::a::One\npub fn two() { \"crate::a::one()\"; }\n",
        "pub fn two() {}\n#[cfg(test)]\nmod tests { use crate::a::One; }\n",
        // Another one's.
        "use std::a::One;\npub fn two() {}\n",
    ] {
        assert!(
            made_up(&[("lib.rs", root), ("a.rs", a), ("b.rs", b)]).is_empty(),
            "{b}"
        );
    }
}

#[test]
fn a_module_may_put_its_parts_together_and_they_may_not_need_each_other() {
    let root = "mod whole;\n";
    let whole = "mod one;\nmod two;\npub struct Part;\npub fn all() -> Part { one::make() }\n";
    let one = "use super::Part;\npub fn make() -> Part { super::two::make() }\n";
    let made = |two: &str| {
        made_up(&[
            ("lib.rs", root),
            ("whole/mod.rs", whole),
            ("whole/one.rs", one),
            ("whole/two.rs", two),
        ])
    };
    assert!(made("use super::Part;\npub fn make() -> Part { Part }\n").is_empty());
    assert_eq!(
        made("pub fn make() -> super::Part { super::one::make() }\n"),
        [["whole/one.rs", "whole/two.rs"]]
    );
}

/// A caller can only print a text. What it may want to tell apart, or to word itself, has a type.
#[test]
fn no_error_is_a_text() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let ours = |root: &&PathBuf| !root.starts_with(top.join("tests"));
    for root in roots().iter().filter(ours) {
        for (file, name) in Crate::read(root).textual() {
            let dir = root.parent().unwrap();
            found.push(format!("{}: {name}", dir.join(file).display()));
        }
    }
    assert!(
        found.is_empty(),
        "`Result<_, String>` stands in\n{}",
        found.join("\n")
    );
}

#[test]
fn a_text_for_an_error_is_found_however_it_is_written() {
    let textual = |code: &str| {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lib.rs");
        fs::write(&root, code).unwrap();
        !Crate::read(&root).textual().is_empty()
    };
    for code in [
        "pub fn a() -> Result<(), String> { Ok(()) }",
        "fn a(x: (u8, u8)) -> Result<Vec<(u8, u8)>, String> { todo!() }",
        "mod m { pub(super) async fn a() -> Result<u8, String,> { todo!() } }",
        "const unsafe fn a<F: Fn(u8) -> u8>(f: F) -> Option<Result<u8, String>> where F: Copy { None }",
        "pub struct A; impl A { fn a(&self) -> (u8, std::result::Result<u8, String>) { todo!() } }",
        "pub fn a(f: impl Fn() -> Result<u8, String>) {}",
        "pub fn a() -> u8 { Result::<u8, String>::Ok(1).unwrap() }",
        "pub fn a() -> u8 { let b: Result<u8, String> = Ok(1); 1 }",
        "struct A { a: Result<(), String> }",
    ] {
        assert!(textual(code), "{code}");
    }
    for code in [
        "pub fn a() -> Result<String, u8> { todo!() }",
        "pub fn a() -> std::io::Result<String> { todo!() }",
        "pub fn a() -> Result<BTreeMap<u8, String>, u8> { todo!() }",
        "pub fn a() -> Result<BTreeMap<u8, String>> { todo!() }",
        "// Result<u8, String>\npub fn a() { \"Result<u8, String>\"; }",
        "#[cfg(test)] pub fn a() -> Result<(), String> { Ok(()) }",
    ] {
        assert!(!textual(code), "{code}");
    }
}

/// What there is of a kind of record in the kernel's table: `Kind::NAME`, in code that is not for tests.
fn files_that_name(kind: &str) -> BTreeSet<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    let mut open = vec![top.join("agent"), top.join("agent-ebpf")];
    while let Some(path) = open.pop() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["tests", "target", "examples"].contains(&name) {
                open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        } else if name.ends_with(".rs") && !name.contains("tests") {
            let code = fs::read_to_string(&path).unwrap();
            let code = code.split("#[cfg(test)]\nmod ").next().unwrap();
            let names = format!("Kind::{kind}");
            if code.split(&names).skip(1).any(|rest| {
                !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
            }) {
                found.insert(path.strip_prefix(top).unwrap().to_owned());
            }
        }
    }
    found
}

/// A kernel signal is added in six places, those that the page names: its program on the kernel side, the record and its kind that
/// both sides share, its descriptor, its decoder, its self-test, its word. Everybody else asks `Kind` or the descriptor.
#[test]
fn a_kernel_signal_is_added_in_six_places() {
    let places = [
        "agent-ebpf/src",
        "agent-ebpf/abi/src",
        "agent/sensor/src/hooks.rs",
        "agent/sensor/src/self_test.rs",
        "agent/ingest/src",
    ];
    // The newest, and one that shares its record with another.
    for kind in ["ANSWER", "UDP_SEND", "UNIX_SEND"] {
        let files = files_that_name(kind);
        assert!(files.contains(Path::new("agent/sensor/src/hooks.rs")));
        let elsewhere: Vec<_> = files
            .iter()
            .filter(|file| !places.iter().any(|place| file.starts_with(place)))
            // What was passed over for want of a budget is counted by kind.
            .filter(|file| !file.ends_with("sensor/src/maps.rs"))
            .collect();
        assert!(elsewhere.is_empty(), "Kind::{kind}: {elsewhere:?}");
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(top.join("docs/ARCHITECTURE.md")).unwrap();
    let row = page
        .lines()
        .find(|line| line.starts_with("| kernel signal |"))
        .unwrap();
    let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    assert_eq!(named.len(), 6, "{named:?}");
    for place in places {
        assert!(named.iter().any(|path| path.starts_with(place)), "{place}");
    }
}

/// The table between the marks `<!-- places -->`: `| to add | go to |`, paths from the top.
#[test]
fn what_the_architecture_says_where_something_is_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(top.join("docs/ARCHITECTURE.md")).unwrap();
    let table = text.split("<!-- places -->").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let named: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    let asked = [
        "TLS stack",
        "rule",
        "kernel signal",
        "finding",
        "sink",
        "datagram sends",
        "pod names",
        "lineage edge",
        "configuration key",
        "command",
    ];
    for what in asked {
        assert!(named.contains(what), "nothing is said of: {what}");
    }
    for row in &rows {
        for path in row[1..]
            .iter()
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        {
            assert!(top.join(path).exists(), "{}: there is no {path}", row[0]);
        }
    }
}
