//! What the program is linked from: the crates of both sides as cargo resolved them, and the C library.

use super::agent::TARGET;
use crate::cmd;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// One component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Part {
    pub name: String,
    pub version: String,
    pub licence: String,
    /// Of this project, not of a registry.
    pub own: bool,
    /// Of the package as the registry gives it; empty for what is from no registry.
    pub sha256: String,
    /// References of what it needs itself.
    pub needs: Vec<String>,
}

impl Part {
    /// What names it within the document.
    pub fn reference(&self) -> String {
        reference(&self.name, &self.version, self.own)
    }
}

/// What names a part within the document.
pub fn reference(name: &str, version: &str, own: bool) -> String {
    if own {
        format!("{name}@{version}")
    } else if name == "glibc" {
        format!("pkg:generic/glibc@{version}")
    } else {
        format!("pkg:cargo/{name}@{version}")
    }
}

/// All parts, in order.
pub fn parts() -> Result<Vec<Part>> {
    let mut parts = BTreeSet::new();
    for (dir, target, root) in [
        ("", TARGET, "keytrail"),
        ("agent-ebpf", "bpfel-unknown-none", "keytrail-ebpf"),
    ] {
        let dir = cmd::root().join(dir);
        parts.extend(crates(&metadata(&dir, target)?, &sums(&dir)?, root)?);
    }
    let libc = cmd::output(cmd::clean("getconf").arg("GNU_LIBC_VERSION"))?;
    parts.insert(Part {
        name: "glibc".to_owned(),
        version: libc
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned(),
        licence: "LGPL-2.1-or-later".to_owned(),
        own: false,
        sha256: String::new(),
        needs: Vec::new(),
    });
    Ok(parts.into_iter().collect())
}

fn metadata(dir: &Path, target: &str) -> Result<Value> {
    let mut cargo = cmd::cargo();
    cargo
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            target,
        ])
        .arg("--manifest-path")
        .arg(dir.join("Cargo.toml"));
    Ok(serde_json::from_str(&cmd::output(&mut cargo)?)?)
}

/// Checksums of Cargo.lock by name and version.
fn sums(dir: &Path) -> Result<BTreeMap<(String, String), String>> {
    let path = dir.join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.split("[[package]]").filter_map(sum).collect())
}

fn sum(package: &str) -> Option<((String, String), String)> {
    let value = |key: &str| {
        package
            .lines()
            .find_map(|line| {
                line.strip_prefix(key)?
                    .strip_prefix(" = \"")?
                    .strip_suffix('"')
            })
            .map(str::to_owned)
    };
    Some(((value("name")?, value("version")?), value("checksum")?))
}

/// What `root` is linked from: dependencies of builds and of tests are not in the program.
fn crates(
    metadata: &Value,
    sums: &BTreeMap<(String, String), String>,
    root: &str,
) -> Result<Vec<Part>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let by_id = |values: Vec<Value>| -> BTreeMap<String, Value> {
        values
            .into_iter()
            .filter_map(|value| Some((value["id"].as_str()?.to_owned(), value)))
            .collect()
    };
    let packages = by_id(list(&metadata["packages"]));
    let nodes = by_id(list(&metadata["resolve"]["nodes"]));
    let (first, _) = packages
        .iter()
        .find(|(_, package)| package["name"] == root)
        .with_context(|| format!("no package {root}"))?;
    let name = |id: &str| -> Result<(String, String, bool)> {
        let package = packages
            .get(id)
            .with_context(|| format!("no package {id}"))?;
        let word = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        Ok((word("name"), word("version"), package["source"].is_null()))
    };
    let mut seen = BTreeSet::from([first.clone()]);
    let mut waiting = vec![first.clone()];
    let mut parts = Vec::new();
    while let Some(id) = waiting.pop() {
        let mut needs = BTreeSet::new();
        for dependency in list(&nodes.get(&id).unwrap_or(&Value::Null)["deps"]) {
            // A kind of null is an ordinary dependency.
            if !list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
            {
                continue;
            }
            let needed = dependency["pkg"].as_str().unwrap_or_default().to_owned();
            let (name, version, own) = name(&needed)?;
            needs.insert(reference(&name, &version, own));
            if seen.insert(needed.clone()) {
                waiting.push(needed);
            }
        }
        let (name, version, own) = name(&id)?;
        parts.push(Part {
            licence: packages[&id]["license"]
                .as_str()
                .unwrap_or("unknown")
                .to_owned(),
            sha256: sums
                .get(&(name.clone(), version.clone()))
                .cloned()
                .unwrap_or_default(),
            needs: needs.into_iter().collect(),
            name,
            version,
            own,
        });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_build_dependency_is_not_in_the_program() {
        let package = |name: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                package("keytrail", Value::Null),
                package("linked", json!("registry")),
                package("builds", json!("registry")),
                package("elsewhere", json!("registry")),
            ],
            "resolve": { "nodes": [
                { "id": "keytrail", "deps": [dep("linked", Value::Null), dep("builds", json!("build"))] },
                { "id": "linked", "deps": [] },
            ]},
        });
        let lock = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let sums = lock.split("[[package]]").filter_map(sum).collect();
        let parts = crates(&metadata, &sums, "keytrail").unwrap();
        let names: Vec<(&str, &str)> = parts
            .iter()
            .map(|part| (part.name.as_str(), part.sha256.as_str()))
            .collect();
        assert_eq!(names, [("keytrail", ""), ("linked", "abc")]);
        assert_eq!(parts[0].needs, ["pkg:cargo/linked@1.0.0"]);
    }
}
