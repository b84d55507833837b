//! The real binary: plain words and the right exit status.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_export::{Address, BoundSocket, Hub, Server};
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
                    signal: (*s).to_owned(),
                    hook: "raw_tp:x".into(),
                    ..Default::default()
                })
                .collect(),
            libraries: vec![LibraryStatus {
                stack: "openssl".into(),
                covered: true,
                ..Default::default()
            }],
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
            kind: "credential_read".into(),
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
    assert!(lines[0].starts_with("TIME          WHO"), "{out}");
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
