//! The files of a release made of a small program, read by those who install them (dpkg, rpm, tar) and
//! by lintian.

use super::{archive::sha256, outputs, parts::Part, release::Release};
use crate::cmd;
use flate2::{Compression, read::GzDecoder};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// 2026-01-02 03:04:05 UTC
const EPOCH: u64 = 1_767_323_045;
const PAGE: &[u8] = b".TH keytrail 1\n.SH NAME\nkeytrail \\- a page\n";

fn release() -> Release {
    let part = |name: &str, own, needs: &[&str]| Part {
        name: name.to_owned(),
        version: "1.2.3".to_owned(),
        licence: "MIT/Apache-2.0".to_owned(),
        own,
        sha256: if own { String::new() } else { "ab".repeat(32) },
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
    };
    Release {
        version: "1.2.3".to_owned(),
        commit: "c0ffee".to_owned(),
        epoch: EPOCH,
        level: Compression::best(),
        program: b"#!/bin/sh\necho it runs\n".to_vec(),
        unit: b"[Service]\n".to_vec(),
        config: b"tier = \"auto\"\n".to_vec(),
        licence: b"the licence\n".to_vec(),
        man: vec![
            ("keytrail-agent.1".to_owned(), PAGE.to_vec()),
            ("keytrail.1".to_owned(), PAGE.to_vec()),
        ],
        bash: b"complete\n".to_vec(),
        zsh: b"#compdef keytrail\n".to_vec(),
        fish: b"complete -c keytrail\n".to_vec(),
        chart: vec![(
            "keytrail/Chart.yaml".to_owned(),
            b"name: keytrail\nversion: 1.2.3\nappVersion: \"1.2.3\"\n".to_vec(),
        )],
        parts: vec![
            part("keytrail", true, &["pkg:cargo/linked@1.2.3"]),
            part("linked", false, &[]),
        ],
    }
}

/// The release's files in a folder that goes with the value.
struct Made(PathBuf);

impl Made {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("keytrail-dist-{test}-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in outputs(&release()).unwrap() {
            fs::write(dir.join(name), bytes).unwrap();
        }
        Self(dir)
    }

    fn deb(&self) -> PathBuf {
        self.0.join("keytrail_1.2.3_amd64.deb")
    }

    fn rpm(&self) -> PathBuf {
        self.0.join("keytrail-1.2.3-1.x86_64.rpm")
    }

    fn oci(&self) -> BTreeMap<String, Vec<u8>> {
        untar(&fs::read(self.0.join("keytrail-1.2.3-oci.tar")).unwrap())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn untar(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), EPOCH);
        assert_eq!(entry.header().uid().unwrap(), 0);
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    files
}

fn said(program: &str, words: &[&str], file: &Path) -> String {
    cmd::output(
        Command::new(program)
            .args(words)
            .arg(file)
            .env("LC_ALL", "C"),
    )
    .unwrap()
}

/// `None`, and a word about it, where a reader is not installed.
fn reader(program: &str) -> Option<()> {
    let found = cmd::find(program);
    if found.is_none() {
        eprintln!("left out: {program} is not here");
    }
    found.map(|_| ())
}

#[test]
fn the_same_twice() {
    let (first, second) = (outputs(&release()).unwrap(), outputs(&release()).unwrap());
    assert_eq!(first.len(), 7);
    for ((name, one), (_, other)) in first.iter().zip(&second) {
        assert!(one == other, "{name} differs");
    }
    let mut other = release();
    other.program.push(b'\n');
    for ((name, one), (_, two)) in first.iter().zip(&outputs(&other).unwrap()) {
        let of_program = !name.ends_with(".tgz");
        assert_eq!(one != two, of_program, "{name}");
    }
}

#[test]
fn sums_are_right() {
    let made = Made::new("sums");
    let mut check = Command::new("sha256sum");
    let text = cmd::output(check.args(["--check", "SHA256SUMS"]).current_dir(&made.0)).unwrap();
    assert_eq!(text.matches(": OK").count(), 6, "{text}");
}

#[test]
fn dpkg_reads_the_package() {
    let Some(()) = reader("dpkg-deb") else { return };
    let made = Made::new("deb");
    let deb = made.deb();
    let fields = said("dpkg-deb", &["--field"], &deb);
    for field in ["Package: keytrail", "Version: 1.2.3", "Architecture: amd64"] {
        assert!(fields.lines().any(|line| line == field), "{fields}");
    }
    let list = said("dpkg-deb", &["--contents"], &deb);
    let row = |path: &str| {
        list.lines()
            .find(|line| {
                line.ends_with(&format!(" ./{path}")) || line.ends_with(&format!(" {path}"))
            })
            .unwrap_or_else(|| panic!("{path} is not in\n{list}"))
            .to_owned()
    };
    assert!(
        row("usr/bin/keytrail").starts_with("-rwxr-xr-x root/root"),
        "{list}"
    );
    for path in [
        "etc/keytrail/agent.toml",
        "usr/lib/systemd/system/keytrail.service",
        "usr/share/bash-completion/completions/keytrail",
        "usr/share/zsh/vendor-completions/_keytrail",
        "usr/share/fish/vendor_completions.d/keytrail.fish",
        "usr/share/man/man1/keytrail.1.gz",
        "usr/share/man/man1/keytrail-agent.1.gz",
        "usr/share/doc/keytrail/copyright",
    ] {
        let row = row(path);
        assert!(row.starts_with("-rw-r--r-- root/root"), "{row}");
        assert!(row.contains("2026-01-02"), "{row}");
    }

    let to = made.0.join("unpacked");
    cmd::run(
        Command::new("dpkg-deb")
            .arg("--raw-extract")
            .args([&deb, &to]),
    )
    .unwrap();
    let read = |path: &str| fs::read_to_string(to.join(path)).unwrap();
    assert_eq!(read("DEBIAN/conffiles"), "/etc/keytrail/agent.toml\n");
    assert_eq!(read("usr/bin/keytrail"), "#!/bin/sh\necho it runs\n");
    assert!(read("usr/share/doc/keytrail/copyright").contains(" linked 1.2.3: MIT/Apache-2.0\n"));
    // What dpkg --verify will compare, and all of it but the configuration.
    let sums = cmd::output(
        Command::new("md5sum")
            .args(["--check", "DEBIAN/md5sums"])
            .current_dir(&to),
    )
    .unwrap();
    assert!(
        !sums.contains("agent.toml") && sums.contains("usr/bin/keytrail: OK"),
        "{sums}"
    );
    for script in ["postinst", "prerm", "postrm"] {
        cmd::run(
            Command::new("sh")
                .arg("-n")
                .arg(to.join("DEBIAN").join(script)),
        )
        .unwrap();
    }
}

#[test]
fn lintian_finds_nothing() {
    let Some(()) = reader("lintian") else { return };
    let made = Made::new("lintian");
    let mut lintian = Command::new("lintian");
    // What it says of the program's own code is overridden, and not there in a script of two lines.
    let output = lintian
        .arg("--allow-root")
        .arg(made.deb())
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let grave = |line: &&str| line.starts_with("E:") || line.starts_with("W:");
    let found: Vec<&str> = found.lines().filter(grave).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn rpm_reads_the_package() {
    let Some(()) = reader("rpm") else { return };
    let made = Made::new("rpm");
    let rpm = made.rpm();
    said("rpm", &["--checksig", "--nosignature"], &rpm);
    let query = "%{name} %{version}-%{release} %{arch} %{license} %{buildtime} %{buildhost}";
    let text = said("rpm", &["-qp", "--qf", query], &rpm);
    assert_eq!(
        text,
        format!("keytrail 1.2.3-1 x86_64 Apache-2.0 {EPOCH} localhost")
    );
    let query =
        "[%{filenames} %{filemodes:perms} %{fileusername} %{filemtimes} %{fileflags:fflags}\n]";
    let text = said("rpm", &["-qp", "--qf", query], &rpm);
    let rows: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let expect = |path: &str, mode: &str, flags: &str| {
        assert_eq!(
            rows.get(path).map(|row| row.trim()),
            Some(format!("{mode} root {EPOCH} {flags}").trim()),
            "{path} in\n{text}"
        );
    };
    expect("/usr/bin/keytrail", "-rwxr-xr-x", "");
    expect("/etc/keytrail/agent.toml", "-rw-r--r--", "cn");
    expect("/usr/lib/systemd/system/keytrail.service", "-rw-r--r--", "");
    expect("/usr/share/licenses/keytrail/LICENSE", "-rw-r--r--", "l");
    expect("/usr/share/man/man1/keytrail.1.gz", "-rw-r--r--", "d");
    expect("/usr/share/zsh/site-functions/_keytrail", "-rw-r--r--", "");
    let scripts = said("rpm", &["-qp", "--scripts"], &rpm);
    for word in ["daemon-reload", "disable --now", "try-restart", "/bin/sh"] {
        assert!(scripts.contains(word), "{scripts}");
    }
}

#[test]
fn the_image_is_whole() {
    let made = Made::new("oci");
    let files = made.oci();
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
    // What a descriptor names is there, of that size and digest.
    let blob = |descriptor: &Value| -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let name = format!("blobs/{}", digest.replace(':', "/"));
        let bytes = files.get(&name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(digest, format!("sha256:{}", sha256(bytes)));
        bytes.clone()
    };
    assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let manifest = json(&blob(&json(&files["index.json"])["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/keytrail");
    assert_eq!(config["config"]["Cmd"][0], "agent");
    assert_eq!(config["created"], "2026-01-02T03:04:05Z");

    let mut layer = Vec::new();
    GzDecoder::new(&blob(&manifest["layers"][0])[..])
        .read_to_end(&mut layer)
        .unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", sha256(&layer))
    );
    let inside = untar(&layer);
    assert_eq!(inside["usr/bin/keytrail"], release().program);
    assert!(
        inside.contains_key("var/lib/keytrail/"),
        "{:?}",
        inside.keys()
    );

    let docker = json(&files["manifest.json"]);
    for name in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(files.contains_key(name.as_str().unwrap()), "{docker}");
    }
}

#[test]
fn the_chart_is_packed_below_its_name_and_of_the_same_version() {
    let made = Made::new("chart");
    let packed = fs::read(made.0.join("keytrail-1.2.3.tgz")).unwrap();
    let mut tar = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut tar).unwrap();
    let files = untar(&tar);
    assert!(files.contains_key("keytrail/Chart.yaml"), "{files:?}");
    let mut other = release();
    other.version = "1.2.4".to_owned();
    let refused = outputs(&other).unwrap_err().to_string();
    assert!(refused.contains("1.2.3"), "{refused}");
}

#[test]
fn the_bill_of_materials_names_every_part() {
    let made = Made::new("sbom");
    let text = fs::read(made.0.join("keytrail-1.2.3.cdx.json")).unwrap();
    let bom: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&bom["bomFormat"], &bom["specVersion"]),
        (&"CycloneDX".into(), &"1.6".into())
    );
    assert_eq!(
        bom["metadata"]["component"]["hashes"][0]["content"],
        sha256(&release().program)
    );
    let [linked] = &bom["components"].as_array().unwrap()[..] else {
        panic!("one component: {bom}")
    };
    assert_eq!(linked["purl"], "pkg:cargo/linked@1.2.3");
    assert_eq!(linked["licenses"][0]["expression"], "MIT OR Apache-2.0");
    assert_eq!(
        bom["dependencies"][0]["dependsOn"][0],
        "pkg:cargo/linked@1.2.3"
    );
}
