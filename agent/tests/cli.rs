//! The real binary: plain words and the right exit status.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_export::{Address, BoundSocket, Hub, Server};
use keytrail_model::{EventKind, Signal, TlsStack};
use keytrail_proto::v1::{Event, GetStatusResponse, LibraryStatus, Process, SignalStatus};
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NOBODY: u32 = 65534;

fn keytrail(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytrail"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    said(keytrail(args).output().unwrap())
}

fn said(output: Output) -> (i32, String, String) {
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Whether this test runs as root: dropping privileges needs it.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A server fed by the test, as an agent would be.
struct Agent {
    runtime: Runtime,
    dir: TempDir,
    hub: Arc<Hub>,
    server: Option<Server>,
}

impl Agent {
    fn start() -> Agent {
        Agent::start_seeing(&[])
    }

    /// An agent that has hooks for these signals.
    fn start_seeing(signals: &[&str]) -> Agent {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let address: Address = format!("unix:{}/k.sock", dir.path().display())
            .parse()
            .unwrap();
        let hub = Hub::new();
        let status = GetStatusResponse {
            signals: signals
                .iter()
                .map(|s| SignalStatus {
                    signal: Signal::of_word(s).unwrap().number(),
                    hook: "raw_tp:x".into(),
                    ..Default::default()
                })
                .collect(),
            libraries: vec![LibraryStatus {
                stack: TlsStack::OpenSsl.number(),
                covered: true,
                ..Default::default()
            }],
            node: Some(keytrail_proto::v1::NodeStatus {
                started: Some(now()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let source = Arc::new(move || status.clone());
        let server = Server::start(
            runtime.handle(),
            BoundSocket::bind(&address).unwrap(),
            hub.clone(),
            source,
        )
        .unwrap();
        Agent {
            runtime,
            dir,
            hub,
            server: Some(server),
        }
    }

    fn address(&self) -> String {
        format!("unix:{}/k.sock", self.dir.path().display())
    }

    fn wait_for_reader(&self) {
        let start = Instant::now();
        while self.hub.readers() == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "nobody subscribed"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn publish(&self, n: u32) {
        self.hub.publish(Arc::new(Event {
            kind: EventKind::CredentialRead.number(),
            // Two hours ago.
            time: Some(pbjson_types::Timestamp {
                seconds: now().seconds - 7_200,
                nanos: 0,
            }),
            process: Some(Process {
                pid: n,
                comm: "c\x1b[31mat".into(),
                ..Default::default()
            }),
            ..Default::default()
        }));
    }

    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}

#[test]
fn watch_without_an_agent_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/none.sock", dir.path().display());
    let (code, out, err) = run(&["watch", "--address", &address]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert_eq!(
        err,
        format!(
            "keytrail: no agent is listening on {address}: start one with `keytrail agent` (or `systemctl start keytrail`)\n"
        )
    );
    // The same for the socket of an agent that was killed.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("none.sock")).unwrap());
    assert_eq!(run(&["watch", "--address", &address]).0, 3);
    assert_eq!(run(&["watch", "--address", "tcp:1.2.3.4:5"]).0, 2);
}

#[test]
fn watch_says_when_the_socket_is_not_for_us() {
    assert!(is_root(), "this test drops root to become somebody else");
    let agent = Agent::start();
    let bin = copied_binary(agent.dir.path());
    let mut command = Command::new(bin);
    command
        .args(["watch", "--address", &agent.address()])
        .uid(NOBODY)
        .gid(NOBODY);
    let (code, _, err) = said(command.output().unwrap());
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("permission denied on unix:"), "{err}");
}

/// The build directory may not be reachable for other users.
fn copied_binary(dir: &Path) -> std::path::PathBuf {
    let bin = dir.join("keytrail");
    // By another process: a child that another test forks meanwhile would hold our descriptor of the copy, and what is
    // open for writing cannot be executed (ETXTBSY).
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_keytrail"))
        .arg(&bin)
        .status();
    assert!(copied.unwrap().success());
    std::fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn watch_prints_and_ends_after_the_count() {
    let agent = Agent::start();
    let child = keytrail(&["watch", "--address", &agent.address(), "--count", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    agent.wait_for_reader();
    (1..=3).for_each(|n| agent.publish(n));
    let (code, out, err) = said(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(
        lines[0].starts_with("TIME                      WHO"),
        "{out}"
    );
    assert!(lines[2].contains("c\\u{1b}[31mat[2]"), "{out}");
    assert!(!out.contains('\x1b'));
    assert_eq!(
        err,
        "-- 2 events, 0 credentials, 0 lost; coverage: openssl yes\n"
    );
}

#[test]
fn watch_json_is_one_event_a_line_and_nothing_else() {
    let mut agent = Agent::start();
    let child = keytrail(&[
        "watch",
        "--address",
        &agent.address(),
        "-o",
        "json",
        "--pid",
        "2,3",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    agent.wait_for_reader();
    (1..=3).for_each(|n| agent.publish(n));
    agent.stop();
    let (code, out, err) = said(child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (0, "keytrail: the agent stopped\n"));
    let pids: Vec<_> = out
        .lines()
        .map(|l| {
            serde_json::from_str::<Event>(l)
                .unwrap()
                .process
                .unwrap_or_default()
                .pid
        })
        .collect();
    assert_eq!(pids, [2, 3]);
}

#[test]
fn watch_ends_quietly_when_nobody_reads() {
    let agent = Agent::start();
    let mut child = keytrail(&["watch", "--address", &agent.address()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    agent.wait_for_reader();
    agent.publish(1);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let start = Instant::now();
    let status = loop {
        agent.publish(2);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "watch does not notice that its reader is gone"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut err = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_broken_connection_is_not_a_clean_end() {
    // Something that answers the connection and then dies.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || drop(listener.accept()));
    let (code, _, err) = run(&["watch", "--address", &format!("unix:{}", path.display())]);
    thread.join().unwrap();
    assert_eq!(code, 1, "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused() {
    assert!(is_root(), "an agent needs root");
    let agent = Agent::start();
    let state = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&[
        "agent",
        "--listen",
        &agent.address(),
        "--state-dir",
        state.path().to_str().unwrap(),
    ]);
    assert_eq!(code, 4, "{err}");
    assert!(
        err.contains(&format!(
            "an agent is already listening on {}",
            agent.address()
        )),
        "{err}"
    );
}

#[test]
fn without_root_one_sentence_says_what_is_missing() {
    assert!(is_root(), "this test drops root to become somebody else");
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let bin = copied_binary(dir.path());
    for args in [
        &["agent"][..],
        &["trace", "--", "true"],
        &["demo"],
        &["doctor", "--address", "unix:/nonexistent"],
    ] {
        let mut command = Command::new(&bin);
        command.args(args).uid(NOBODY).gid(NOBODY);
        let (code, _, err) = said(command.output().unwrap());
        assert_eq!(code, 5, "{args:?}: {err}");
        assert!(
            err.contains("uid 65534") && err.contains("CAP_BPF"),
            "{args:?}: {err}"
        );
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    }
}

#[test]
fn doctor_is_content_only_when_every_signal_of_the_mission_has_a_hook() {
    let all = [
        "exec",
        "fork",
        "exit",
        "file_open",
        "file_read",
        "connect",
        "tcp_send",
        "tls_write",
    ];
    let agent = Agent::start_seeing(&all);
    let (code, out, err) = run(&["doctor", "--address", &agent.address()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.lines().next(), Some("All is well."));
    for word in [
        "kernel",
        "lockdown",
        "BTF",
        "memlock",
        "perf_event_paranoid",
        "cgroup2",
        "tls_write",
        "openssl",
    ] {
        assert!(out.contains(word), "{word} is not in {out}");
    }
    let agent = Agent::start_seeing(&all[..7]);
    let (code, out, err) = run(&["doctor", "-o", "json", "--address", &agent.address()]);
    assert_eq!(
        (code, err.as_str()),
        (1, "keytrail: no hook for tls_write\n")
    );
    let status: GetStatusResponse = serde_json::from_str(&out).unwrap();
    assert_eq!((status.signals.len(), status.libraries.len()), (7, 1));
    let (code, out, _) = run(&["doctor", "--address", &agent.address()]);
    assert_eq!(
        (code, out.lines().next()),
        (1, Some("NOT WELL: no hook for tls_write."))
    );
}

#[test]
fn trace_of_what_is_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["trace", "--", "no-such-command-here"]);
    assert_eq!((code, out.as_str()), (127, ""));
    assert_eq!(err, "keytrail: no-such-command-here: command not found\n");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    let (code, _, err) = run(&["trace", "--", plain.to_str().unwrap()]);
    assert_eq!(code, 126);
    assert!(err.contains("cannot execute: Permission denied"), "{err}");
    assert_eq!(run(&["trace", "--", dir.path().to_str().unwrap()]).0, 126);
    assert_eq!(run(&["trace"]).0, 2);
}

#[test]
fn a_bad_configuration_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "# mine\nlisen = \"unix:/x\"\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, _, err) = run(&["agent", "--config", file]);
    assert_eq!(code, 2);
    assert_eq!(
        err,
        format!("keytrail: {file}:2: unknown key `lisen` (did you mean `listen`?)\n")
    );
    assert_eq!(run(&["agent", "--config", "/nonexistent"]).0, 2);
    assert_eq!(run(&["--log-level", "loud", "watch"]).0, 2);
}

#[test]
fn help_documents_exit_statuses_and_version_is_printed() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("3 no agent to talk to"), "{out}");
    assert_eq!(
        run(&["version"]),
        (
            0,
            format!("keytrail {}\n", env!("CARGO_PKG_VERSION")),
            String::new()
        )
    );
    assert_eq!(run(&["frobnicate"]).0, 2);
}

#[test]
fn classify_of_what_cannot_be_read_does_not_say_that_nothing_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "nothing here\n").unwrap();
    let plain = plain.to_str().unwrap();
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let (code, out, err) = run(&["classify", missing]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_eq!(
        err,
        format!("keytrail classify: {missing}: No such file or directory (os error 2)\n")
    );
    let (code, out, _) = run(&["classify", plain, missing]);
    assert_eq!(
        (code, out.as_str()),
        (1, "no credentials found in what could be read\n")
    );
    assert_eq!(run(&["classify", plain]).1, "no credentials found\n");
}

#[test]
fn wrong_usage_of_trace_is_not_a_missing_command() {
    for args in [
        &["trace", "--evets", "x", "true"][..],
        &["trace", "-x", "--", "true"],
        &["trace", "--output", "xml", "--", "true"],
        &["trace"],
        &["trace", "--"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
    let (_, help, _) = run(&["trace", "--help"]);
    assert!(help.contains("status 2"), "{help}");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        for word in ["inventory", "trace", "min-confidence"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["completions", "cmd"]).0, 2);
    let checked = Command::new("bash")
        .args(["-n", "/dev/stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .and_then(|mut bash| {
            use std::io::Write as _;
            let text = run(&["completions", "bash"]).1;
            bash.stdin.take().unwrap().write_all(text.as_bytes())?;
            bash.wait()
        });
    assert!(checked.unwrap().success());
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, 0);
    assert!(page.contains(".TH keytrail 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(run(&["man", "--dir", pages.to_str().unwrap()]).0, 0);
    for name in [
        "keytrail.1",
        "keytrail-watch.1",
        "keytrail-inventory-diff.1",
    ] {
        assert!(pages.join(name).exists(), "{name}");
    }
}

#[test]
fn the_environment_names_the_agent() {
    let agent = Agent::start();
    let mut watch = keytrail(&["watch", "-n", "1"]);
    let child = watch
        .env("KEYTRAIL_ADDRESS", agent.address())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    agent.wait_for_reader();
    agent.publish(1);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    // An option goes before it.
    let (code, _, err) = said(
        keytrail(&["watch", "--address", "unix:/nonexistent"])
            .env("KEYTRAIL_ADDRESS", agent.address())
            .output()
            .unwrap(),
    );
    assert_eq!(code, 3, "{err}");
    let (code, ..) = said(
        keytrail(&["watch"])
            .env("KEYTRAIL_ADDRESS", "tcp:1")
            .output()
            .unwrap(),
    );
    assert_eq!(code, 2);
}

/// A terminal of 80 by 24: what is written to it, and a way to press keys.
struct Terminal {
    master: std::fs::File,
    slave: Option<std::fs::File>,
}

impl Terminal {
    fn new(columns: u16) -> Terminal {
        use std::os::fd::FromRawFd as _;
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: both numbers are ours to write to, and `size` is whole.
        let opened = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &size,
            )
        };
        assert_eq!(opened, 0);
        // SAFETY: two fresh descriptors that nobody else owns.
        let (master, slave) = unsafe {
            (
                std::fs::File::from_raw_fd(master),
                std::fs::File::from_raw_fd(slave),
            )
        };
        Terminal {
            master,
            slave: Some(slave),
        }
    }

    /// Runs a command on it.
    fn run(&mut self, command: &mut Command) -> std::process::Child {
        let slave = self.slave.take().unwrap();
        let child = command
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .env("TERM", "xterm")
            .spawn()
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        child
    }

    /// Reads until the text is there; gives all that was read.
    fn until(&mut self, text: &str) -> String {
        let start = Instant::now();
        let mut all = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            // The end of the last writer is an error on Linux.
            let n = self.master.read(&mut buffer).unwrap_or(0);
            all.extend_from_slice(&buffer[..n]);
            let seen = String::from_utf8_lossy(&all).into_owned();
            if seen.contains(text) || (n == 0 && text.is_empty()) {
                return seen;
            }
            assert!(
                n > 0 && start.elapsed() < Duration::from_secs(20),
                "no {text:?} in {seen:?}"
            );
        }
    }
}

#[test]
fn top_shows_what_comes_and_gives_the_terminal_back() {
    use std::io::Write as _;
    let agent = Agent::start();
    let mut terminal = Terminal::new(80);
    let mut command = keytrail(&["top", "--address", &agent.address()]);
    let mut child = terminal.run(command.env("NO_COLOR", "1"));
    agent.wait_for_reader();
    agent.hub.publish(Arc::new(Event {
        credential: Some(keytrail_proto::v1::Credential {
            kind: "aws-access-key".into(),
            fingerprint: "kt1:9c1e00112233445566778899aabbcca2".into(),
            ..Default::default()
        }),
        process: Some(Process {
            pid: 2_128_212,
            comm: "python3.11".into(),
            key: "b:1:1:1".into(),
            ..Default::default()
        }),
        ..Default::default()
    }));
    let seen = terminal.until("python3.11[2128212]");
    assert!(seen.contains("\x1b[?1049h"), "another screen: {seen:?}");
    for colour in ["\x1b[31m", "\x1b[33m", "\x1b[38;5;"] {
        assert!(!seen.contains(colour), "{seen:?}");
    }
    terminal.master.write_all(b"q").unwrap();
    let rest = terminal.until("");
    assert!(
        rest.contains("\x1b[?1049l"),
        "the screen of before: {rest:?}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Into a pipe it does not write screens.
    assert_eq!(run(&["top", "--address", &agent.address()]).0, 2);
}

#[test]
fn times_are_local_and_say_so() {
    let agent = Agent::start();
    let event = Arc::new(Event {
        time: Some(pbjson_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 482_000_000,
        }),
        ..read_event()
    });
    agent.hub.publish(event);
    let ask = |format: &str| {
        let mut command = keytrail(&[
            "watch",
            "--address",
            &agent.address(),
            "--no-follow",
            "-o",
            format,
        ]);
        let (code, out, err) = said(command.env("TZ", "CET-1").output().unwrap());
        assert_eq!(code, 0, "{err}");
        out
    };
    // In a file each line stands for itself; for programs it is always UTC.
    assert!(
        ask("table").contains("2023-11-14T23:13:20.482+01:00  "),
        "{}",
        ask("table")
    );
    assert!(
        ask("csv").contains("\n2023-11-14T22:13:20.482Z,"),
        "{}",
        ask("csv")
    );
    assert!(ask("json").contains("\"2023-11-14T22:13:20.482Z\""));
    assert!(
        ask("yaml").starts_with("---\n") && ask("yaml").contains("pid: 42"),
        "{}",
        ask("yaml")
    );
    // On a terminal the day and the zone stand above.
    let mut terminal = Terminal::new(80);
    let mut command = keytrail(&["watch", "--address", &agent.address(), "--no-follow"]);
    let mut child = terminal.run(command.env("TZ", "CET-1"));
    let seen = terminal.until("-- 1 event");
    assert!(seen.contains("-- 2023-11-14, CET (UTC+01:00)"), "{seen}");
    assert!(
        seen.contains("\n\x1b[2m23:13:20\x1b[0m  ") || seen.contains("23:13:20  "),
        "{seen}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn read_event() -> Event {
    Event {
        kind: keytrail_model::EventKind::CredentialRead.number(),
        process: Some(Process {
            pid: 42,
            comm: "cat".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn watch_ends_when_it_is_asked_to() {
    let agent = Agent::start();
    agent.publish(1);
    agent.publish(2);
    let ask = |more: &[&str]| {
        let mut args = vec!["watch", "-o", "json", "--address"];
        let address = agent.address();
        args.push(&address);
        args.extend(more);
        let (code, out, err) = run(&args);
        assert_eq!(code, 0, "{err}");
        out.lines().count()
    };
    assert_eq!(ask(&["--no-follow"]), 2);
    assert_eq!(ask(&["--no-follow", "--last", "1"]), 1);
    assert_eq!(ask(&["--no-follow", "--pid", "!1"]), 1);
    assert_eq!(ask(&["--no-follow", "--kind", "!read"]), 0);
    assert_eq!(ask(&["--no-follow", "--process", "!c*"]), 0);
    assert_eq!(ask(&["--since", "all", "--until", "1h"]), 2);
    let start = Instant::now();
    let soon = std::time::SystemTime::now() + Duration::from_secs(2);
    let soon = soon
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let soon = Command::new("date")
        .args(["-u", "+%FT%TZ", "-d", &format!("@{soon}")])
        .output()
        .unwrap();
    let soon = String::from_utf8(soon.stdout).unwrap();
    assert_eq!(ask(&["--until", soon.trim()]), 0);
    assert!(start.elapsed() < Duration::from_secs(10));
    let address = agent.address();
    let args = [
        "watch",
        "--address",
        &address,
        "--since",
        "1h",
        "--until",
        "2h",
    ];
    assert_eq!(run(&args).0, 2);
}

#[test]
fn watch_says_since_when_anything_is_remembered() {
    let agent = Agent::start();
    let ask = |since: &str| {
        let (_, out, err) = run(&[
            "watch",
            "--no-follow",
            "--since",
            since,
            "--address",
            &agent.address(),
        ]);
        (out, err)
    };
    let (out, err) = ask("1h");
    assert!(
        out.contains("replay_limited") && out.contains("memory begins"),
        "{out}"
    );
    assert!(!err.contains("remembered"), "{err}");
    assert_eq!(ask("0s").0.lines().count(), 1, "headings only");
    assert!(
        ask("all").1.starts_with("-- remembered since 2"),
        "{}",
        ask("all").1
    );
}

fn now() -> pbjson_types::Timestamp {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    pbjson_types::Timestamp {
        seconds: now.as_secs().cast_signed(),
        nanos: 0,
    }
}
