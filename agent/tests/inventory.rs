//! `keytrail inventory` on planted trees with everything odd a host has in it, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Made anew in every run, so that no test leans on a value.
fn random(n: usize) -> String {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let mut x = now
        ^ (u64::from(std::process::id()) << 40)
        ^ SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
        | 1;
    let alphabet = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        char::from(alphabet[(x >> 20) as usize % alphabet.len()])
    };
    (0..n).map(|_| next()).collect()
}

fn gitlab() -> String {
    format!("glpat-{}", random(20))
}

fn anthropic() -> String {
    format!("sk-ant-api03-{}AA", random(93))
}

/// A tree, a state directory beside it, and every secret planted.
struct Host {
    dir: TempDir,
    secrets: Vec<String>,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        // A temporary directory is private; a host's root is not.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::set_permissions(dir.path().join("root"), Permissions::from_mode(0o755)).unwrap();
        Host {
            dir,
            secrets: Vec::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root().join(name.as_ref())
    }

    /// Writes `NAME=secret` in a file with this mode; the secret.
    fn plant(&mut self, name: impl AsRef<OsStr>, mode: u32) -> String {
        let secret = anthropic();
        self.plant_this(name, mode, &secret);
        secret
    }

    fn plant_this(&mut self, name: impl AsRef<OsStr>, mode: u32, secret: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("API_KEY={secret}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.secrets.push(secret.to_owned());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytrail"));
        command
            .arg("inventory")
            .args(args)
            .arg("--root")
            .arg(self.root());
        command
            .arg("--state-dir")
            .arg(self.dir.path().join("state"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs, and looks for every planted secret in all that came out and in the state.
    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let mut all = [output.stdout.clone(), output.stderr.clone()];
        let state: Vec<Vec<u8>> = fs::read_dir(self.dir.path().join("state"))
            .map(|d| d.map(|e| fs::read(e.unwrap().path()).unwrap()).collect())
            .unwrap_or_default();
        for secret in &self.secrets {
            // The middle of it, in case an end is part of the identifier.
            let needle = &secret.as_bytes()[secret.len() / 3..];
            for text in all.iter_mut().map(|t| &*t).chain(&state) {
                assert!(
                    !text.windows(needle.len()).any(|w| w == needle),
                    "a secret came out of {args:?}"
                );
            }
        }
        output
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["-o", "json"]].concat());
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn credentials(document: &Value) -> &[Value] {
    document["credentials"].as_array().unwrap()
}

/// The entries with a place whose path ends so.
fn at<'a>(document: &'a Value, end: &str) -> Vec<&'a Value> {
    let has = |c: &&Value| {
        let places = c["places"].as_array().unwrap();
        places
            .iter()
            .any(|p| p["path"].as_str().is_some_and(|p| p.ends_with(end)))
    };
    credentials(document).iter().filter(has).collect()
}

fn codes(entry: &Value) -> Vec<&str> {
    entry["exposures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["code"].as_str().unwrap())
        .collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn modes_owners_and_places() {
    let mut host = Host::new();
    host.plant("srv/open.env", 0o644);
    host.plant("srv/shut.env", 0o600);
    host.plant("hidden/open.env", 0o644);
    fs::set_permissions(host.path("hidden"), Permissions::from_mode(0o700)).unwrap();
    let thrice = gitlab();
    for name in ["a/1.env", "b/2.env", "c/3.env"] {
        host.plant_this(name, 0o600, &thrice);
    }
    host.plant("home/ann/.bash_history", 0o600);
    fs::create_dir_all(host.path("etc")).unwrap();
    fs::write(
        host.path("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nann:x:4242:4242::/home/ann:/bin/sh\n",
    )
    .unwrap();
    fs::create_dir_all(host.path("var/lib/dpkg/info")).unwrap();
    fs::write(host.path("var/lib/dpkg/info/demo.list"), "/srv/shut.env\n").unwrap();
    let document = host.json(&[]);

    let open = at(&document, "/srv/open.env");
    assert_eq!(open.len(), 1, "{document:#}");
    assert_eq!(open[0]["kind"], "anthropic-key");
    assert_eq!(codes(open[0]), ["world-readable"]);
    assert_eq!(open[0]["places"][0]["mode"], "0644");
    assert_eq!(
        open[0]["places"][0]["uid"],
        rustix::process::geteuid().as_raw()
    );
    assert!(open[0]["fingerprint"].as_str().unwrap().starts_with("kt1:"));
    let shut = at(&document, "/srv/shut.env");
    assert!(codes(shut[0]).is_empty());
    assert_eq!(shut[0]["places"][0]["package"], "demo");
    // Its mode is open, but nobody comes as far.
    assert!(codes(at(&document, "/hidden/open.env")[0]).is_empty());
    let many = at(&document, "/b/2.env");
    assert_eq!(many.len(), 1);
    assert_eq!(many[0]["places"].as_array().unwrap().len(), 3);
    assert_eq!(codes(many[0]), ["many-places"]);
    let history = at(&document, "/.bash_history");
    assert_eq!(
        codes(history[0]),
        ["in-home-of-other-user", "shell-history"]
    );
    assert_eq!(history[0]["places"][0]["home_of"], "ann");
    // The worst is first.
    assert_eq!(
        credentials(&document)[0]["fingerprint"],
        open[0]["fingerprint"]
    );
    assert_eq!(document["counts"]["files"], 9);
    assert_eq!(document["errors"]["unreadable"], 0);
    let table = String::from_utf8(host.run(&[]).stdout).unwrap();
    assert!(
        table.contains("world-readable") && table.contains("9 files in"),
        "{table}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of odd entries")]
fn odd_entries_are_neither_opened_nor_fatal() {
    let mut host = Host::new();
    let root = host.root();
    host.plant("deep/plain.env", 0o600);
    symlink("..", root.join("deep/up")).unwrap();
    symlink("self", root.join("self")).unwrap();
    symlink(host.path("deep/plain.env"), root.join("link.env")).unwrap();
    // SAFETY: a NUL-terminated path that lives across the call.
    assert_eq!(
        // SAFETY: the path is a C string that lives until the call returns.
        unsafe { libc::mkfifo(c(&root.join("fifo.env")).as_ptr(), 0o600) },
        0
    );
    let listener = UnixListener::bind(root.join("docker.sock")).unwrap();
    if is_root() {
        // SAFETY: as above; a device that would give NULs for ever.
        let made = unsafe {
            libc::mknod(
                c(&root.join("zero.env")).as_ptr(),
                libc::S_IFCHR | 0o600,
                libc::makedev(1, 5),
            )
        };
        assert_eq!(made, 0);
    }
    let odd = OsStr::from_bytes(b"na\xffme\x1b[31m\n.env");
    host.plant(odd, 0o600);
    host.plant("a\\b.env", 0o600);
    // A hard link is the same file.
    fs::hard_link(host.path("a\\b.env"), host.path("again.env")).unwrap();
    let sparse = File::create(root.join("sparse.env")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let mut large = File::create(root.join("large.log")).unwrap();
    let (head, tail) = (gitlab(), gitlab());
    writeln!(large, "token: {head}").unwrap();
    for _ in 0..9 {
        large
            .write_all("nothing to see here\n".repeat(50_000).as_bytes())
            .unwrap();
    }
    large
        .write_all("nothing to see here\n".repeat(60_000).as_bytes())
        .unwrap();
    writeln!(large, "token: {tail}").unwrap();
    host.secrets.extend([head, tail]);
    fs::create_dir(root.join("utf16")).unwrap();
    let wide = anthropic();
    let text: Vec<u8> = format!("\u{feff}API_KEY={wide}\r\n")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    fs::write(root.join("utf16/wide.ini"), text).unwrap();
    host.secrets.push(wide);

    let begun = Instant::now();
    let document = host.json(&[]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(at(&document, "/deep/plain.env").len(), 1);
    assert!(at(&document, "/link.env").is_empty() && at(&document, "up/deep/plain.env").is_empty());
    // Lossless and harmless: every byte is there, none is raw.
    assert_eq!(
        at(&document, "/na\\xffme\\x1b[31m\\x0a.env").len(),
        1,
        "{document:#}"
    );
    let hard = at(&document, "/again.env").len() + at(&document, "/a\\\\b.env").len();
    assert_eq!(hard, 1);
    assert_eq!(
        at(&document, "/large.log").len(),
        1,
        "the head is read, the rest is not"
    );
    assert_eq!(at(&document, "/large.log")[0]["places"][0]["sampled"], true);
    assert_eq!(document["counts"]["files_sampled"], 1);
    assert_eq!(at(&document, "/wide.ini").len(), 1);
    assert_eq!(document["counts"]["symlinks"], 3);
    assert_eq!(
        document["counts"]["special_files"],
        if is_root() { 2 } else { 1 }
    );
    let socket = at(&document, "/docker.sock");
    assert_eq!(
        (socket[0]["kind"].as_str(), socket[0]["privilege"].as_u64()),
        (Some("docker-socket"), Some(1))
    );
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody connected");
    let table = host.run(&[]).stdout;
    assert!(
        !table.contains(&0x1b)
            && String::from_utf8(table)
                .unwrap()
                .contains("larger than 8 MiB")
    );
}

#[test]
fn what_may_not_be_read_is_counted_and_named() {
    let mut host = Host::new();
    host.plant("mine.env", 0o644);
    host.plant("locked.env", 0o000);
    host.plant("shut/in.env", 0o644);
    fs::set_permissions(host.path("shut"), Permissions::from_mode(0o000)).unwrap();
    let run = |strict: &[&str]| {
        let mut command = host.command(&[&["-o", "json"], strict].concat());
        if is_root() {
            use std::os::unix::process::CommandExt as _;
            fs::create_dir_all(host.dir.path().join("state")).unwrap();
            std::os::unix::fs::chown(host.dir.path().join("state"), Some(65534), Some(65534))
                .unwrap();
            command.uid(65534).gid(65534);
        }
        command.output().unwrap()
    };
    let output = run(&[]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(at(&document, "/mine.env").len(), 1);
    assert_eq!(document["errors"]["unreadable"], 2);
    let paths: Vec<_> = document["errors"]["unreadable_paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["path"].as_str().unwrap())
        .collect();
    assert!(
        paths[0].ends_with("/locked.env") && paths[1].ends_with("/shut"),
        "{paths:?}"
    );
    assert_eq!(run(&["--strict"]).status.code(), Some(1));
    fs::set_permissions(host.path("shut"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_that_grows_all_the_time() {
    let mut host = Host::new();
    host.plant("calm.env", 0o600);
    // Several, and long ones, so that a write falls into the reading of one.
    let names: Vec<String> = (0..8).map(|n| format!("growing{n}.log")).collect();
    let mut files = Vec::new();
    for name in &names {
        let secret = anthropic();
        let path = host.path(name);
        fs::write(
            &path,
            format!("API_KEY={secret}\n{}", "x\n".repeat(500_000)),
        )
        .unwrap();
        host.secrets.push(secret);
        files.push(OpenOptions::new().append(true).open(path).unwrap());
    }
    // Nobody writes: nothing has changed.
    let document = host.json(&[]);
    assert_eq!(document["errors"]["changed_while_read"], 0);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                for file in &mut files {
                    file.write_all(b"more and more and more\n").unwrap();
                }
                // Shorter than one of them is read, and who has slept is next on a busy machine.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    });
    // On a busy machine the writer may stand still while a file is read: one look that meets it is enough.
    let met = (0..20).find_map(|_| {
        let document = host.json(&[]);
        for name in &names {
            assert_eq!(at(&document, &format!("/{name}")).len(), 1, "{name}");
        }
        assert_eq!(at(&document, "/calm.env").len(), 1);
        document["errors"]["changed_while_read"]
            .as_u64()
            .filter(|changed| *changed > 0)
    });
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(
        met.is_some_and(|changed| changed <= 8),
        "{met:?} of 8 files changed while they were read"
    );
}

#[test]
fn a_hundred_thousand_entries_in_bounded_memory() {
    let mut host = Host::new();
    fs::create_dir(host.path("many")).unwrap();
    for i in 0..100_000 {
        File::create(host.path(format!("many/{i:0>60}"))).unwrap();
    }
    host.plant("many/one.env", 0o600);
    let mut child = host.command(&["-o", "json"]).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|l| {
            l.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["counts"]["files"], 100_001);
    assert_eq!(at(&document, "/one.env").len(), 1);
    assert!(peak > 0 && peak < 128 * 1024, "{peak} KiB");
}

#[test]
fn a_path_longer_than_the_kernel_takes() {
    let host = Host::new();
    let name = "d".repeat(200);
    let mut fd = File::open(host.root()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&fd, name.as_str(), 0o700.into()).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        fd = rustix::fs::openat(&fd, name.as_str(), flags, rustix::fs::Mode::empty())
            .unwrap()
            .into();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let mut file: File = rustix::fs::openat(&fd, "deep.env", flags, 0o600.into())
        .unwrap()
        .into();
    writeln!(file, "API_KEY={}", anthropic()).unwrap();
    let document = host.json(&[]);
    assert_eq!(at(&document, "/deep.env").len(), 1);
}

#[test]
fn git_work_trees() {
    let mut host = Host::new();
    host.plant("app/tracked.env", 0o600);
    host.plant("app/waiting.env", 0o600);
    host.plant("app/.env", 0o600);
    fs::write(host.path("app/.gitignore"), ".env\n").unwrap();
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args(args)
            .current_dir(host.path("app"))
            .env("HOME", host.root())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "tracked.env"]);
    let password = random(24);
    git(&[
        "remote",
        "add",
        "origin",
        &format!("https://me:{password}@git.example.com/team/app.git"),
    ]);
    host.secrets.push(password);
    let document = host.json(&[]);
    let tracked = at(&document, "/tracked.env")[0];
    assert_eq!(codes(tracked), ["git-work-tree"]);
    assert_eq!(
        tracked["places"][0]["git"]["remote"],
        "git.example.com/team/app.git"
    );
    assert_eq!(tracked["places"][0]["git"]["tracked"], true);
    assert_eq!(codes(at(&document, "/waiting.env")[0]), ["git-work-tree"]);
    assert!(codes(at(&document, "/app/.env")[0]).is_empty());
}

/// A file that is named after what is in it, and one below a directory that is: the same place in each run, in all formats.
#[test]
fn named_after_what_is_in_it() {
    let mut host = Host::new();
    let secrets = [gitlab(), anthropic()];
    for secret in &secrets {
        host.plant_this(format!("tokens/{secret}.txt"), 0o600, secret);
        host.plant_this(format!("{secret}/copy-{secret}.env"), 0o644, secret);
    }
    let first = host.json(&[]);
    let of = at(&first, "].env");
    assert_eq!(of.len(), 2, "{first}");
    for entry in of {
        let label = format!(
            "[redacted {} {}]",
            entry["kind"].as_str().unwrap(),
            entry["fingerprint"].as_str().unwrap()
        );
        let paths: Vec<&str> = entry["places"]
            .as_array()
            .unwrap()
            .iter()
            .map(|place| place["path"].as_str().unwrap())
            .collect();
        assert_eq!(paths.len(), 2, "{paths:?}");
        let root = host.root().display().to_string();
        assert!(
            paths.contains(&&*format!("{root}/tokens/{label}.txt")),
            "{paths:?}"
        );
        assert!(
            paths.contains(&&*format!("{root}/{label}/copy-{label}.env")),
            "{paths:?}"
        );
    }
    let changes = host.json(&["diff", "--now"]);
    assert_eq!(changes["changes"].as_array().unwrap().len(), 0, "{changes}");
    for format in ["table", "wide", "yaml", "csv", "sarif", "cbom"] {
        let shown = host.run(&["-o", format]);
        assert!(shown.status.success(), "{format}");
    }
}

#[test]
fn what_changed() {
    let mut host = Host::new();
    host.plant("same.env", 0o600);
    host.plant("rotates.env", 0o600);
    host.plant("goes.env", 0o600);
    host.plant("moves.env", 0o600);
    host.plant("opens.env", 0o600);
    let none = host.run(&["diff"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no inventory"));
    let first = host.json(&[]);
    assert_eq!(credentials(&first).len(), 5);
    assert!(String::from_utf8_lossy(&host.run(&["diff"]).stderr).contains("only one inventory"));

    host.plant("rotates.env", 0o600);
    host.plant("comes.env", 0o600);
    fs::remove_file(host.path("goes.env")).unwrap();
    fs::rename(host.path("moves.env"), host.path("moved.env")).unwrap();
    fs::set_permissions(host.path("opens.env"), Permissions::from_mode(0o644)).unwrap();
    let changes = host.json(&["diff", "--now"]);
    let said: Vec<_> = changes["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| {
            let path = x["credential"]["places"][0]["path"].as_str().unwrap();
            format!(
                "{} {}",
                x["change"].as_str().unwrap(),
                path.rsplit('/').next().unwrap()
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "exposed opens.env",
            "added comes.env",
            "rotated rotates.env",
            "moved moved.env",
            "removed goes.env"
        ]
    );
    let rotated = &changes["changes"][2];
    assert_eq!(
        rotated["previous"]["fingerprint"],
        at(&first, "/rotates.env")[0]["fingerprint"]
    );
    // Both runs are stored: the same comparison again, and rotation is remembered in the next run.
    assert_eq!(host.json(&["diff"])["changes"], changes["changes"]);
    let third = host.json(&[]);
    let rotated = at(&third, "/rotates.env")[0];
    assert_eq!(
        rotated["previous"],
        at(&first, "/rotates.env")[0]["fingerprint"]
    );
    assert!(rotated["rotated"].is_string());
    assert_eq!(
        at(&third, "/same.env")[0]["first_seen"],
        at(&first, "/same.env")[0]["first_seen"]
    );
    assert_eq!(host.json(&["diff"])["changes"].as_array().unwrap().len(), 0);
    assert!(String::from_utf8_lossy(&host.run(&["diff"]).stdout).contains("Nothing changed"));
    let mode = |name: &str| {
        fs::metadata(host.dir.path().join("state").join(name))
            .unwrap()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("inventory.db"), mode("fingerprint.key")),
        (0o600, 0o600)
    );
}

#[test]
fn environments_arguments_and_agent_sockets_of_processes() {
    let mut host = Host::new();
    let (in_env, in_argv) = (anthropic(), gitlab());
    host.secrets.extend([in_env.clone(), in_argv.clone()]);
    host.plant_this("same.env", 0o600, &in_env);
    let socket = host.dir.path().join("agent.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut children: Vec<_> = (0..3)
        .map(|i| {
            let mut command = Command::new("/bin/sh");
            command
                .args([
                    "-c",
                    "read x",
                    if i == 0 { in_argv.as_str() } else { "plain" },
                ])
                .stdin(Stdio::piped());
            command
                .env_clear()
                .env("ANTHROPIC_API_KEY", &in_env)
                .env("SSH_AUTH_SOCK", &socket)
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let document = host.json(&["--processes"]);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let entry = at(&document, "/same.env")[0];
    assert!(codes(entry).contains(&"in-env"));
    let place = entry["places"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["type"] == "process")
        .unwrap();
    assert_eq!(
        (place["name"].as_str(), place["area"].as_str()),
        (Some("ANTHROPIC_API_KEY"), Some("env"))
    );
    assert_eq!(place["count"], 3);
    let pids: Vec<_> = children.iter().map(|c| Value::from(c.id())).collect();
    assert!(
        place["pids"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| pids.contains(p))
    );
    let argv = credentials(&document)
        .iter()
        .find(|c| c["kind"] == "gitlab-token" && codes(c).contains(&"in-argv"))
        .unwrap();
    assert_eq!(argv["places"][0]["name"], "3");
    let agent = at(&document, "/agent.sock");
    assert_eq!(
        (
            agent[0]["kind"].as_str(),
            agent[0]["places"][0]["count"].as_u64()
        ),
        (Some("ssh-agent-socket"), Some(3))
    );
    // Without processes, they are not "removed".
    host.json(&["--no-processes"]);
    let changes = host.json(&["diff", "--no-processes"]);
    assert_eq!(
        changes["changes"].as_array().unwrap().len(),
        0,
        "{changes:#}"
    );
}

#[test]
fn pseudo_file_systems_and_our_own_state_are_skipped_aloud() {
    let host = Host::new();
    let output = Command::new(env!("CARGO_BIN_EXE_keytrail"))
        .args([
            "inventory",
            "-o",
            "json",
            "--no-processes",
            "--root",
            "/proc",
            "--state-dir",
        ])
        .arg(host.dir.path().join("state"))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "asked for a pseudo file system"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("pseudo file system"));
    let output = host
        .command(&["--root", "/nonexistent/x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "--root twice");
    // The state lies below the root, with something in it that would be found.
    let state = host.path("var/lib/keytrail");
    fs::create_dir_all(state.join("deep")).unwrap();
    let secret = anthropic();
    for name in ["own.env", "deep/own.env", "../other.env"] {
        fs::write(state.join(name), format!("API_KEY={secret}\n")).unwrap();
    }
    let inventory = |state: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_keytrail"))
            .args(["inventory", "-o", "json", "--no-processes", "--root"])
            .arg(host.root())
            .arg("--state-dir")
            .arg(state)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let document = inventory(&state);
    let found = credentials(&document);
    assert_eq!(found.len(), 1, "{document:#}");
    let places = found[0]["places"].as_array().unwrap();
    assert_eq!(places.len(), 1, "{places:#?}");
    assert!(
        places[0]["path"]
            .as_str()
            .unwrap()
            .ends_with("/var/lib/other.env")
    );
    let skipped =
        |document: &Value, dir: &Path| {
            document["skipped"].as_array().unwrap().iter().any(|s| {
                s["path"] == dir.to_str().unwrap() && s["reason"] == "keytrail's own state"
            })
        };
    assert!(skipped(&document, &state), "{document:#}");
    // The state of another is a directory like any other.
    let elsewhere = host.dir.path().join("state");
    let document = inventory(&elsewhere);
    assert_eq!(
        credentials(&document)[0]["places"]
            .as_array()
            .unwrap()
            .len(),
        3,
        "{document:#}"
    );
    assert!(!skipped(&document, &state) && skipped(&document, &elsewhere));
}

/// The inventory sees a mount namespace of another process, and one file through an overlay and its layer only once.
#[test]
fn other_mount_namespaces() {
    if !is_root() {
        eprintln!("left out: needs root to mount");
        return;
    }
    let mut host = Host::new();
    let dir = host.root();
    for name in ["lower/etc", "upper", "work", "merged"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let (layered, private) = (anthropic(), gitlab());
    host.secrets.extend([layered.clone(), private.clone()]);
    fs::write(dir.join("upper/app.env"), format!("API_KEY={layered}\n")).unwrap();
    let script = "mount -t overlay overlay -o lowerdir=$D/lower,upperdir=$D/upper,workdir=$D/work $D/merged && \
        mount -t tmpfs tmpfs $D/merged/etc && echo \"token: $TOKEN\" > $D/merged/etc/private.env && unset TOKEN && \
        exec perl -e '$| = 1; chroot \"$ENV{D}/merged\" or die; chdir \"/\"; print \"ready\\n\"; <STDIN>'";
    let mut child = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .env("D", &dir)
        .env("TOKEN", &private)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let document = host.json(&["--containers"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let inside: Vec<_> = at(&document, "/etc/private.env");
    assert_eq!(inside.len(), 1, "{document:#}");
    assert_eq!(inside[0]["places"][0]["path"], "/etc/private.env");
    assert!(
        inside[0]["places"][0]["container"]
            .as_str()
            .unwrap()
            .starts_with("mnt:[")
    );
    // The layer's file and the container's are one file: one place, the one the container's user knows.
    let app = at(&document, "/app.env");
    assert_eq!(app.len(), 1);
    let places = app[0]["places"].as_array().unwrap();
    assert_eq!(
        (places.len(), places[0]["path"].as_str()),
        (1, Some("/app.env")),
        "{places:#?}"
    );
}

/// Files that came with a package are another's to answer for; where that cannot be determined, it is said.
#[test]
fn package_records_that_are_not_read_are_named() {
    let mut host = Host::new();
    host.plant("etc/open.env", 0o644);
    // With its own users the tree is a system, whose own records count.
    fs::write(host.path("etc/passwd"), "").unwrap();
    assert_eq!(
        host.json(&[])["errors"]["package_records_not_read"],
        serde_json::json!([])
    );
    let store = host.path("var/lib/rpm/Packages");
    fs::create_dir_all(store.parent().unwrap()).unwrap();
    fs::write(&store, "not empty").unwrap();
    let said = host.json(&[])["errors"]["package_records_not_read"].to_string();
    let shown = store.display().to_string();
    assert!(
        said.contains(&shown) && said.contains("Berkeley DB"),
        "{said}"
    );
    let table = host.run(&[]).stdout;
    let table = String::from_utf8_lossy(&table);
    assert!(
        table.contains("package records that are not read") && table.contains(&shown),
        "{table}"
    );
}

/// A file whose text is followed by nothing but zeroes is read, however long the zeroes are.
#[test]
fn sparse_files_are_inspected() {
    let mut host = Host::new();
    for (name, len) in [
        ("small.env", 5000),
        ("five.env", 5 << 20),
        ("nine.env", 9 << 20),
        ("fifty.log", 50 << 20),
    ] {
        host.plant(name, 0o644);
        let file = OpenOptions::new()
            .write(true)
            .open(host.path(name))
            .unwrap();
        file.set_len(len).unwrap();
    }
    // After the hole there is more.
    host.plant("late.log", 0o644);
    let late = anthropic();
    let mut file = OpenOptions::new()
        .append(true)
        .open(host.path("late.log"))
        .unwrap();
    file.set_len(3 << 20).unwrap();
    writeln!(file, "\nAPI_KEY={late}").unwrap();
    host.secrets.push(late);
    let document = host.json(&[]);
    for (name, sampled, want) in [
        ("/small.env", false, 1),
        ("/five.env", false, 1),
        ("/nine.env", true, 1),
        ("/fifty.log", true, 1),
        ("/late.log", false, 2),
    ] {
        let found = at(&document, name);
        assert_eq!(found.len(), want, "{name}: {document:#}");
        assert_eq!(found[0]["kind"], "anthropic-key");
        assert_eq!(found[0]["places"][0]["sampled"] == true, sampled, "{name}");
    }
    assert_eq!(document["counts"]["files_sampled"], 2);
}

/// Whoever else needs the disk comes first: the threads that walk are in the class of those who wait.
#[test]
fn the_walk_stands_back() {
    /// From linux/ioprio.h: `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_IDLE`.
    const WHO_PROCESS: i32 = 1;
    const IDLE: i64 = 3;
    let class = |tid: u32| {
        // SAFETY: ioprio_get takes two integers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, tid) >> 13 }
    };
    let host = Host::new();
    // Long enough to be seen on its way.
    for n in 0..64 {
        fs::write(
            host.path(format!("{n}.txt")),
            "name = value_of_no_interest\n".repeat(20_000),
        )
        .unwrap();
    }
    let mut child = host
        .command(&["-o", "json", "--threads", "2"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let walkers = || -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id()));
        tasks
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|task| {
                fs::read_to_string(task.path().join("comm"))
                    .is_ok_and(|name| name.starts_with("inventory-"))
            })
            .map(|task| task.file_name().to_str().unwrap().parse().unwrap())
            .collect()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut met = Vec::new();
    // Until both have begun, or all is over.
    while Instant::now() < deadline && fs::read_link(format!("/proc/{}/exe", child.id())).is_ok() {
        let now: Vec<i64> = walkers().into_iter().map(class).collect();
        if !now.is_empty() {
            met = now;
        }
        if met == [IDLE, IDLE] {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = class(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(met, [IDLE, IDLE]);
    // The thread that waits for them is as it was.
    assert_eq!(first, class(std::process::id()));
}
