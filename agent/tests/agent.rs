//! The real agent with what a site gives it: its fingerprint key, its rules, its way of logging. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use keytrail_model::{EventKind, GapReason, Signal};
use keytrail_proto::v1;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The machine may be busy, and a debug build is slow.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> bool {
    let root =
        rustix::process::geteuid().is_root() && Path::new("/sys/kernel/btf/vmlinux").exists();
    if !root {
        eprintln!("skipped: an agent needs root and a kernel with BTF");
    }
    root
}

/// Letters and digits, anew in every run.
fn random(n: usize) -> String {
    let mut bytes = vec![0u8; n];
    SystemRandom::new().fill(&mut bytes).unwrap();
    let alphabet = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    bytes
        .iter()
        .map(|b| char::from(alphabet[usize::from(*b) % alphabet.len()]))
        .collect()
}

fn gitlab() -> String {
    format!("glpat-{}", random(20))
}

fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running agent with everything of its own, which logs as JSON and prints its events.
struct Agent {
    dir: TempDir,
    child: Child,
    events: Arc<Mutex<Vec<v1::Event>>>,
}

impl Agent {
    /// Starts one and waits until it serves.
    fn start(config: &str, args: &[&str]) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("agent.toml"),
            format!("rules_dir = \"/nonexistent\"\n{config}").as_bytes(),
        )
        .unwrap();
        Self::start_with(dir, args)
    }

    fn start_with(dir: TempDir, args: &[&str]) -> Agent {
        let at = |name: &str| dir.path().join(name);
        let mut listen = OsString::from("unix:");
        listen.push(at("sock"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_keytrail"))
            .args(["--log-format", "json", "agent", "--print", "-o", "json"])
            .arg("--config")
            .arg(at("agent.toml"))
            .arg("--listen")
            .arg(listen)
            .arg("--state-dir")
            .arg(at("state"))
            .args(args)
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let events: Arc<Mutex<Vec<v1::Event>>> = Arc::default();
        let output = BufReader::new(child.stdout.take().unwrap());
        let to = events.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                to.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap());
            }
        });
        let mut agent = Agent { dir, child, events };
        wait_for("the agent to serve", || {
            if let Some(status) = agent.child.try_wait().unwrap() {
                panic!("the agent ended with {status}: {}", agent.text());
            }
            agent.text().contains("serving events").then_some(())
        });
        agent
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Its log, of which every whole line has to be JSON.
    fn log(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        text[..whole]
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is not JSON: {e}"))
            })
            .collect()
    }

    /// The first event that is meant.
    fn expect(&self, what: &str, is: impl Fn(&v1::Event) -> bool) -> v1::Event {
        wait_for(what, || {
            self.events.lock().unwrap().iter().find(|e| is(e)).cloned()
        })
    }

    /// What the agent says of a credential in the environment of a program that begins now. Beside the other agents
    /// and tests of this machine the record of its exec may find no room; then that is reported, and it is begun again.
    fn exposed(&self, name: &str, value: &str) -> v1::Credential {
        for _ in 0..3 {
            let mut child = Command::new("/bin/true").env(name, value).spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            let seen = |e: &v1::Event| {
                let source = e.source.as_ref();
                e.kind == EventKind::CredentialExposed.number()
                    && e.process.as_ref().is_some_and(|p| p.pid == pid)
                    && source.is_some_and(|s| s.env_name == name)
            };
            let lost = |e: &v1::Event| {
                let gap = e.gap.as_ref();
                gap.is_some_and(|gap| gap.reason == GapReason::RecordsLost.number())
            };
            let begun = Instant::now();
            let found = wait_for("the exposure, or a loss", || {
                let events = self.events.lock().unwrap();
                let found = events.iter().find(|e| seen(e)).cloned();
                let given_up = begun.elapsed() > PATIENCE / 2 && events.iter().any(lost);
                (found.is_some() || given_up).then_some(found)
            });
            if let Some(found) = found {
                return found.credential.unwrap();
            }
        }
        panic!("three programs whose exec was lost");
    }

    fn gap(&self, reason: &str, says: &str) -> v1::Gap {
        self.expect(reason, |e| {
            e.gap.as_ref().is_some_and(|gap| {
                GapReason::word_of(gap.reason) == reason && gap.detail.contains(says)
            })
        })
        .gap
        .unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and a clean end.
    fn stop(mut self) -> Vec<Value> {
        self.signal(rustix::process::Signal::TERM);
        let status = wait_for("the agent's end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        // The summary for people comes last, and is no log line.
        let text = self.text();
        let log: Vec<_> = text.lines().take_while(|l| l.starts_with('{')).collect();
        log.iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `keytrail inventory` of a directory, as JSON, and what it said on stderr.
fn inventory(dir: &Path, state: &Path, args: &[&str]) -> (Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_keytrail"))
        .args(["inventory", "-o", "json", "--root"])
        .arg(dir)
        .arg("--state-dir")
        .arg(state)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    (serde_json::from_slice(&output.stdout).unwrap(), stderr)
}

fn key(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One fleet, one key: what is the same credential on two hosts has the same fingerprint, and has another one elsewhere.
#[test]
fn a_fleet_has_one_fingerprint_of_a_credential() {
    if !root() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let (ours, theirs) = (key(keys.path(), "ours"), key(keys.path(), "theirs"));
    let token = gitlab();
    let agents: Vec<_> = [Some(&ours), Some(&ours), Some(&theirs), None]
        .into_iter()
        .map(|key| {
            let config = key.map(|key| format!("fingerprint_key_file = \"{key}\"\n"));
            let agent = Agent::start(&config.unwrap_or_default(), &[]);
            let print = agent.exposed("GITLAB_TOKEN", &token).fingerprint;
            // A key of its own is made only where the fleet has none.
            let own = agent.dir.path().join("state/fingerprint.key");
            assert_eq!(own.exists(), key.is_none());
            agent.stop();
            print
        })
        .collect();
    assert!(agents[0].starts_with("kt1:"), "{agents:?}");
    assert_eq!(agents[0], agents[1]);
    assert!(agents[2] != agents[0] && agents[3] != agents[0] && agents[3] != agents[2]);

    // The inventory agrees with the agents.
    let host = tempfile::tempdir().unwrap();
    fs::write(
        host.path().join("app.env"),
        format!("GITLAB_TOKEN={token}\n"),
    )
    .unwrap();
    let states = tempfile::tempdir().unwrap();
    let of = |state: &str, args: &[&str]| {
        let (document, _) = inventory(host.path(), &states.path().join(state), args);
        let found = document["credentials"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{document:#}");
        found[0]["fingerprint"].as_str().unwrap().to_owned()
    };
    assert_eq!(of("a", &["--fingerprint-key-file", &ours]), agents[0]);
    assert_eq!(of("b", &["--fingerprint-key-file", &ours]), agents[0]);
    assert_eq!(of("c", &["--fingerprint-key-file", &theirs]), agents[2]);
    let own = of("d", &[]);
    assert!(!agents.contains(&own));
}

/// Writes a rule file with a bad rule and a good one; the bad one begins in its third line.
fn site_rules(dir: &Path) -> PathBuf {
    let rules = dir.join("rules.d");
    fs::create_dir(&rules).unwrap();
    fs::write(
        rules.join("site.toml"),
        "# Of this site.\n\n\
         [[rule]]\nname = 'broken-key'\nliterals = ['acme_']\nregex = 'acme_('\n\n\
         [[rule]]\nname = 'acme-key'\ndescription = 'Key of Acme'\nliterals = ['acme_']\n\
         regex = 'acme_[A-Za-z0-9]{32}'\nprivilege = 2\nconfidence = 0.95\n\
         positive = ['acme_{base62:32}', 'use acme_{base62:32} here', 'X=acme_{base62:32}']\n\
         negative = ['acme_', 'acme_{base62:8}', 'use acne_{base62:32} here']\n",
    )
    .unwrap();
    rules
}

/// The sentence about the bad rule: its file, its line, its name and what is wrong.
fn complains(text: &str, rules: &Path) -> bool {
    let place = format!(
        "{}:3: rule broken-key: `regex`: ",
        rules.join("site.toml").display()
    );
    text.find(&place)
        .is_some_and(|at| text.len() > at + place.len())
}

#[test]
fn a_bad_rule_of_the_site_is_named_and_the_good_one_counts() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rules = site_rules(dir.path());
    let secret = format!("acme_{}", random(32));
    fs::write(
        dir.path().join("agent.toml"),
        format!("rules_dir = \"{}\"\n", rules.display()),
    )
    .unwrap();
    let host = tempfile::tempdir().unwrap();
    fs::write(
        host.path().join("acme.conf"),
        format!("use {secret} here\n"),
    )
    .unwrap();
    let state = tempfile::tempdir().unwrap();
    let (document, stderr) = inventory(
        host.path(),
        state.path(),
        &["--rules-dir", rules.to_str().unwrap()],
    );
    assert!(complains(&stderr, &rules), "{stderr}");
    assert!(stderr.starts_with("keytrail: rule refused: "), "{stderr}");
    assert_eq!(document["credentials"][0]["kind"], "acme-key");
    assert_eq!(document["credentials"].as_array().unwrap().len(), 1);
    // Nothing is known of it without the site's rules.
    let (document, stderr) = inventory(host.path(), state.path(), &["--rules-dir", "/nonexistent"]);
    assert_eq!(stderr, "");
    assert_eq!(document["credentials"].as_array().unwrap().len(), 0);

    let agent = Agent::start_with(dir, &[]);
    let found = agent.exposed("ANY_NAME", &secret);
    assert_eq!(
        (found.kind.as_str(), found.rule.as_str()),
        ("acme-key", "acme-key")
    );
    assert_eq!((found.privilege, found.confidence), (2, 0.95));
    let log = agent.stop();
    let errors: Vec<_> = log.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{log:#?}");
    assert!(
        complains(errors[0]["message"].as_str().unwrap(), &rules),
        "{errors:#?}"
    );
}

/// Every line of the log is JSON, the kernel side's among them, where it was built to speak. Where it was not, that is
/// what is said.
#[test]
fn the_log_is_json_and_the_kernel_side_is_in_it() {
    if !root() {
        return;
    }
    let agent = Agent::start("", &["--kernel-log"]);
    agent.exposed("GITLAB_TOKEN", &gitlab());
    let silent = agent.log().iter().any(|line| {
        line["level"] == "WARN"
            && line["message"]
                == "no kernel debug log: the kernel side was built without its feature `log`"
            && line["error"].as_str().is_some_and(|e| !e.is_empty())
    });
    if silent {
        eprintln!("the kernel side of this build does not speak: its lines were not looked for");
    } else {
        wait_for("a line of the kernel side", || {
            agent.log().into_iter().find(|line| {
                let target = line["target"].as_str().unwrap_or_default();
                line["level"] == "DEBUG"
                    && target.starts_with("keytrail_ebpf")
                    && line["message"]
                        .as_str()
                        .is_some_and(|m| m.starts_with("exec by thread "))
            })
        });
    }
    let log = agent.stop();
    for line in &log {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(
                line[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {line}"
            );
        }
    }
    let serving = log
        .iter()
        .find(|line| {
            line["message"]
                .as_str()
                .unwrap()
                .starts_with("serving events")
        })
        .unwrap();
    assert_eq!(serving["level"], "INFO");
    assert!(serving["address"].as_str().unwrap().starts_with("unix:/"));

    // Nobody asked for it: neither lines nor a complaint.
    let agent = Agent::start("", &[]);
    agent.exposed("GITLAB_TOKEN", &gitlab());
    let log = agent.stop();
    assert!(
        log.iter().all(|line| {
            // The binary's own modules, or one of its crates: nobody else's.
            let target = line["target"].as_str().unwrap();
            (target.starts_with("keytrail::") || target.starts_with("keytrail_"))
                && !line["message"].as_str().unwrap().contains("kernel")
        }),
        "{log:#?}"
    );
}

/// Class of I/O of a thread, from linux/ioprio.h.
fn io_class(tid: i32) -> i64 {
    // SAFETY: ioprio_get takes two integers (IOPRIO_WHO_PROCESS and a thread) and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_ioprio_get, 1, tid) >> 13 }
}

/// What was not seen is reported in the stream: what ran before, and what was lost on which CPU while the agent stood still.
#[test]
fn what_was_lost_is_reported_for_each_cpu() {
    if !root() {
        return;
    }
    let agent = Agent::start("ring_bytes = 262144\n", &[]);
    let before = agent.gap("backfill", "processes ran before the agent");
    assert!(before.count > 0);
    assert_eq!(
        (Signal::word_of(before.signal), before.remedy.as_str()),
        ("exec", "start the agent early in the boot")
    );
    // Looking into files that were written waits for everybody else.
    wait_for("the thread in the background to stand back", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.child.id())).unwrap();
        tasks
            .filter_map(Result::ok)
            .find(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|c| c == "background\n")
            })
            .filter(|task| io_class(task.file_name().to_str().unwrap().parse().unwrap()) == 3)
    });
    let cpus = std::thread::available_parallelism().unwrap().get().min(4);
    let load = |cpu: usize| {
        let script = "n=0; while [ $n -lt 100 ]; do /bin/true; n=$((n+1)); done";
        Command::new("taskset")
            .args(["-c", &cpu.to_string(), "/bin/sh", "-c", script])
            .env("FILL", "x".repeat(8000))
            .status()
            .unwrap()
    };
    agent.signal(rustix::process::Signal::STOP);
    // The ring is full after the first; then every CPU loses all.
    assert!(load(0).success());
    for cpu in 0..cpus {
        assert!(load(cpu).success());
    }
    agent.signal(rustix::process::Signal::CONT);
    for cpu in 0..cpus {
        // On a busy host it may have lost a few at its start as well.
        let says = format!(" exec_chunk records of CPU {cpu} did not fit");
        let gap = agent
            .expect(&says, |e| {
                let gap = e.gap.as_ref();
                gap.is_some_and(|gap| {
                    gap.reason == GapReason::RecordsLost.number()
                        && gap.detail.contains(&says)
                        && gap.count >= 100
                })
            })
            .gap
            .unwrap();
        assert_eq!(gap.signal, Signal::ExecChunk.number());
        assert!(gap.remedy.contains("ring_bytes"), "{gap:?}");
        let (from, to) = (gap.from.unwrap(), gap.to.unwrap());
        assert!((from.seconds, from.nanos) < (to.seconds, to.nanos));
    }
    // It sees again.
    agent.exposed("GITLAB_TOKEN", &gitlab());
    agent.stop();
}
