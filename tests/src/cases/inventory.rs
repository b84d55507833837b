//! The inventory by a walk: what only the real programs' records show.

use crate::{
    command::{Act, act, sh},
    fuse::Fuse,
    machine::{Scratch, find, keytrail, patience, turn, wait_for},
    plant,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

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
    let document = document(walk(&scratch, &root).arg("--no-processes"));
    let places = places(&document);
    for (name, package) in files {
        let place = places
            .iter()
            .find(|p| p["path"].as_str().is_some_and(|p| p.ends_with(name)))
            .unwrap_or_else(|| panic!("{name} is not in\n{document:#}"));
        let said = place["package"].as_str().unwrap_or_default();
        assert_eq!(said, package, "{name}\n{document:#}");
    }
}

/// `keytrail inventory` below `root`.
fn walk(scratch: &Scratch, root: &Path) -> Act {
    act(keytrail())
        .arg("inventory")
        .arg("--root")
        .arg(root)
        .arg("--state-dir")
        .arg(scratch.join("state"))
}

/// What it says for programs.
fn document(act: Act) -> Value {
    let text = act.args(["-o", "json"]).run().ok().stdout_text();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// All places of all credentials.
fn places(document: &Value) -> Vec<&Value> {
    document["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["places"].as_array().unwrap())
        .collect()
}

/// A tree with a credential in a file of its own, and one on a file system that another program answers for.
struct Mounted {
    root: PathBuf,
    _fuse: Fuse,
}

impl Mounted {
    fn new(scratch: &Scratch, delay: Duration) -> Option<Self> {
        let root = scratch.make("root");
        let line = || format!("GITHUB_TOKEN={}\n", plant::github().value);
        fs::write(root.join("own.env"), line()).unwrap();
        let point = scratch.make("root/far");
        let fuse = Fuse::mount(&point, "remote.env", line().as_bytes(), delay);
        if fuse.is_none() {
            eprintln!("left out: this kernel has no FUSE");
        }
        Some(Self { root, _fuse: fuse? })
    }
}

/// A file system that another machine or program answers for is not walked, which is said; when it is asked for, it is.
pub fn network_file_systems() {
    let _turn = turn();
    let scratch = Scratch::new();
    let Some(tree) = Mounted::new(&scratch, Duration::ZERO) else {
        return;
    };
    let far = tree.root.join("far");
    let ends = |document: &Value, name: &str| {
        places(document)
            .iter()
            .filter(|p| p["path"].as_str().is_some_and(|p| p.ends_with(name)))
            .count()
    };
    let skipped = |document: &Value| -> Vec<String> {
        document["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .filter(|entry| entry.contains(far.to_str().unwrap()))
            .collect()
    };
    let without = document(walk(&scratch, &tree.root));
    assert_eq!(
        (ends(&without, "/own.env"), ends(&without, "/remote.env")),
        (1, 0)
    );
    let said = skipped(&without);
    assert_eq!(said.len(), 1, "{without:#}");
    assert!(
        said[0].contains("network or user-space file system")
            && said[0].contains("--all-filesystems"),
        "{said:?}"
    );
    // People are told, too.
    let table = walk(&scratch, &tree.root).run().ok().stdout_text();
    assert!(
        table.contains("not walked") && table.contains(far.to_str().unwrap()),
        "{table}"
    );

    let all = document(walk(&scratch, &tree.root).arg("--all-filesystems"));
    assert_eq!(
        (ends(&all, "/own.env"), ends(&all, "/remote.env")),
        (1, 1),
        "{all:#}"
    );
    assert!(skipped(&all).is_empty(), "{all:#}");
}

/// How far the walk is, on a terminal and only there.
pub fn progress_on_a_terminal() {
    let _turn = turn();
    let scratch = Scratch::new();
    // A file that is long in coming: nothing is shown of what is over at once.
    let Some(tree) = Mounted::new(&scratch, Duration::from_millis(1500)) else {
        return;
    };
    let asked = || {
        walk(&scratch, &tree.root)
            .args(["--all-filesystems", "-o", "json"])
            .env("TERM", "xterm")
    };
    let silent = asked().run().ok();
    assert_eq!(silent.stderr_text(), "");
    let script = format!(
        "{} inventory --root {} --state-dir {} --all-filesystems -o json >{}",
        keytrail().display(),
        tree.root.display(),
        scratch.join("state-2").display(),
        scratch.join("document").display()
    );
    // script(1) gives it a terminal, and us what is shown there.
    let shown = act("script")
        .args(["-qec", &script, "/dev/null"])
        .env("TERM", "xterm")
        .run()
        .ok()
        .stdout_text();
    let frames: Vec<&str> = shown
        .split('\r')
        .filter(|frame| frame.contains(" files and directories, "))
        .collect();
    assert!(frames.len() >= 3, "{shown:?}");
    // It counts: the root, its file, the mount and the file there.
    assert!(
        frames
            .iter()
            .any(|frame| frame.contains("4 files and directories")),
        "{shown:?}"
    );
    // In the end the line is gone, and the document was never mixed with it.
    let last = shown.rsplit('\r').next().unwrap();
    assert!(!last.contains("files and directories"), "{shown:?}");
    let text = fs::read_to_string(scratch.join("document")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(places(&document).len(), 2, "{document:#}");
}

/// What is older than the policy says so, and the policy is the user's.
pub fn older_than() {
    let _turn = turn();
    let scratch = Scratch::new();
    let root = scratch.make("root");
    let day = Duration::from_secs(86_400);
    for (name, days) in [("old.env", 100), ("new.env", 10)] {
        let file = fs::File::create(root.join(name)).unwrap();
        fs::write(
            root.join(name),
            format!("GITHUB_TOKEN={}\n", plant::github().value),
        )
        .unwrap();
        file.set_modified(SystemTime::now() - day * days).unwrap();
    }
    let old = |days: &[&str]| -> Vec<String> {
        let document = document(walk(&scratch, &root).args(days));
        let mut names: Vec<String> = document["credentials"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| {
                c["exposures"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|e| e["code"] == "older-than-policy")
            })
            .map(|c| c["places"][0]["path"].as_str().unwrap().to_owned())
            .map(|path| path.rsplit('/').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(old(&[]), ["old.env"]);
    assert_eq!(old(&["--older-than", "99"]), ["old.env"]);
    assert_eq!(old(&["--older-than", "101"]), Vec::<String>::new());
    assert_eq!(old(&["--older-than", "9"]), ["new.env", "old.env"]);
}

/// A cgroup of cgroup2 with what it is in, gone when dropped: the processes in it must be gone before.
pub(super) struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    pub(super) fn make(path: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let top = mounts
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
            })
            .next()
            .expect("no cgroup2 is mounted");
        let mut made = Vec::new();
        let mut dir = top;
        for part in path.split('/') {
            dir.push(part);
            if fs::create_dir(&dir).is_ok() {
                made.push(dir.clone());
            }
        }
        assert!(dir.is_dir(), "{} cannot be made", dir.display());
        Self(made)
    }

    pub(super) fn procs(&self) -> PathBuf {
        self.0.last().unwrap().join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // Who was killed in it leaves a moment later.
            for _ in 0..100 {
                if fs::remove_dir(dir).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Who holds a credential in its environment is named as its cgroup tells: unit, container, pod.
pub fn holders_by_their_cgroups() {
    let _turn = turn();
    let scratch = Scratch::new();
    let root = scratch.make("root");
    let hex = |count: usize| plant::text(b"0123456789abcdef", count);
    let (docker, inner) = (hex(64), hex(64));
    let uid = format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12));
    let pod = format!(
        "keytrail-kubepods.slice/kubepods-burstable-pod{}.slice/cri-containerd-{inner}.scope",
        uid.replace('-', "_")
    );
    let service = format!("keytrail-{}.service", hex(8));
    // Cgroup, and what it is to be taken for: unit, container, pod.
    let workloads = [
        (format!("keytrail-docker/{docker}"), "", docker.as_str(), ""),
        (pod, "", inner.as_str(), uid.as_str()),
        (
            format!("keytrail-system.slice/{service}"),
            service.as_str(),
            "",
            "",
        ),
        ("keytrail-plain".to_owned(), "", "", ""),
    ];
    let mut running = Vec::new();
    for (path, unit, container, pod) in &workloads {
        let cgroup = Cgroup::make(path);
        let name = format!("HOLDER_{}_GITHUB_TOKEN", running.len());
        let process = sh("echo $$ >\"$1\" && exec sleep 600")
            .arg(cgroup.procs())
            .env(&name, plant::github().value)
            .spawn();
        let comm = format!("/proc/{}/comm", process.pid());
        wait_for("the process in its cgroup", patience(5), || {
            (fs::read_to_string(&comm).unwrap() == "sleep\n").then_some(())
        });
        // The process is ended before its cgroup is removed.
        running.push((process, cgroup, name, [*unit, *container, *pod]));
    }
    let document = document(walk(&scratch, &root).arg("--processes"));
    let places = places(&document);
    for (process, _, name, expected) in &running {
        let place = places
            .iter()
            .find(|p| p["type"] == "process" && p["name"] == name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in\n{document:#}"));
        assert_eq!(
            place["pids"],
            serde_json::json!([process.pid()]),
            "{place:#}"
        );
        let said = ["unit", "container", "pod"].map(|key| place[key].as_str().unwrap_or_default());
        assert_eq!(said, *expected, "{place:#}");
    }
}
