//! The inventory by a walk: what only the real programs' records show.

use crate::{
    command::act,
    machine::{Scratch, find, keytrail, turn},
    plant,
};
use std::fs;

const SPEC: &str = "\
Name: keytrail-sample
Version: 1
Release: 2
Summary: A file for a test
License: none
BuildArch: noarch
%description
A file for a test.
%install
mkdir -p %{buildroot}/etc/sample %{buildroot}/usr/lib/sample
touch %{buildroot}/etc/sample/shipped.env %{buildroot}/usr/lib/sample/shipped.txt
%files
/etc/sample/shipped.env
/usr/lib/sample/shipped.txt
";

/// Files that a package of rpm brought are said to be its own, their neighbours are not.
pub fn owners_by_rpm() {
    let _turn = turn();
    assert!(find("rpmbuild").is_some(), "rpmbuild: `cargo xtask setup`");
    let scratch = Scratch::new();
    let (root, build) = (scratch.make("root"), scratch.make("build"));
    let spec = build.join("sample.spec");
    fs::write(&spec, SPEC).unwrap();
    act("rpmbuild")
        .args(["--quiet", "-bb", "--define"])
        .arg(format!("_topdir {}", build.display()))
        .arg("--define")
        .arg(format!("_rpmdir {}", build.display()))
        .arg(&spec)
        .run()
        .ok();
    // A system: its own records answer for its files.
    fs::create_dir_all(root.join("etc/sample")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    act("rpm")
        .arg("--root")
        .arg(&root)
        .args(["--dbpath", "/usr/lib/sysimage/rpm", "--nodeps", "-i"])
        .arg(build.join("noarch/keytrail-sample-1-2.noarch.rpm"))
        .run()
        .ok();
    let files = [
        ("etc/sample/shipped.env", "keytrail-sample"),
        ("usr/lib/sample/shipped.txt", "keytrail-sample"),
        ("etc/sample/own.env", ""),
    ];
    for (name, _) in files {
        let text = format!("GITHUB_TOKEN={}\n", plant::github().value);
        fs::write(root.join(name), text).unwrap();
    }
    let text = act(keytrail())
        .args(["inventory", "--no-processes", "-o", "json", "--root"])
        .arg(&root)
        .arg("--state-dir")
        .arg(scratch.join("state"))
        .run()
        .ok()
        .stdout_text();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let places: Vec<&serde_json::Value> = document["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["places"].as_array().unwrap())
        .collect();
    for (name, package) in files {
        let place = places
            .iter()
            .find(|p| p["path"].as_str().is_some_and(|p| p.ends_with(name)))
            .unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        let said = place["package"].as_str().unwrap_or_default();
        assert_eq!(said, package, "{name}\n{text}");
    }
}
