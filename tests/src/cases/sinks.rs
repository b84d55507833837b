//! Where events go besides the API: real receivers, that go away and come back.

use crate::{
    agent::{Agent, Setup},
    command::{Background, act, sh},
    events::{Ask as _, Event},
    machine::{Scratch, patience, turn, wait_for},
    plant, server, stream,
};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Speaks each way as its standard says, and is strict about it.
const RECEIVER: &str = include_str!("../server/receiver.py");

/// Checks lines against the schema of OCSF that they name.
const OCSF: &str = include_str!("../server/ocsf.py");

/// A receiver, its file, and how it is started.
pub(super) struct Receiver {
    args: Vec<String>,
    file: PathBuf,
    running: Option<Background>,
}

impl Receiver {
    pub fn new(scratch: &Scratch, way: &str, place: &str, more: &[&Path]) -> Receiver {
        let file = scratch.join(&format!("received-{way}"));
        fs::write(&file, "").unwrap();
        let mut args = vec![way.to_owned(), file.display().to_string(), place.to_owned()];
        args.extend(more.iter().map(|path| path.display().to_string()));
        Receiver {
            args,
            file,
            running: None,
        }
    }

    pub fn start(&mut self) {
        let python = act("/usr/bin/python3").arg("-c").arg(RECEIVER);
        self.running = Some(python.args(&self.args).limit(600).spawn());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.end();
        }
    }

    /// Whole lines so far.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        let bad: Vec<&String> = lines.iter().filter(|l| l.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{}: {bad:?}", self.args[0]);
        lines
    }
}

pub(super) fn free_port() -> String {
    server::free_port().to_string()
}

/// Epoch and number.
pub(super) type Id = (u64, u64);

pub(super) fn id(event: &Event) -> Id {
    event
        .id
        .as_ref()
        .map_or((0, 0), |id| (id.epoch, id.sequence))
}

fn of_json(lines: &[String]) -> Vec<Event> {
    let event =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    lines.iter().map(event).collect()
}

/// Ids of an agent's events in lines of any format: `AGENT:EPOCH:SEQUENCE` behind a key. A finding names the events that it
/// rests on as well, which came before it.
fn ids(lines: &[String], agent: &str) -> Vec<Id> {
    let marker = format!("{agent}:");
    lines
        .iter()
        .map(|line| {
            line.match_indices(&marker)
                .map(|(at, _)| {
                    let mut numbers = line[at + marker.len()..]
                        .split(|c: char| !c.is_ascii_digit())
                        .map(|n| n.parse().unwrap());
                    (numbers.next().unwrap(), numbers.next().unwrap())
                })
                .max()
                .unwrap_or_else(|| panic!("no id: {line}"))
        })
        .collect()
}

/// What the ledger holds, by a reader that is not ours.
fn ledger(agent: &Agent) -> Vec<Id> {
    let script = "import sqlite3,sys\nfor row in sqlite3.connect(f'file:{sys.argv[1]}?mode=ro',uri=True).execute('SELECT epoch, sequence FROM events ORDER BY epoch, sequence'): print(*row)";
    let done = act("/usr/bin/python3")
        .args(["-c", script])
        .arg(agent.dir().join("state/keytrail.db"))
        .run()
        .ok();
    done.stdout_text()
        .lines()
        .map(|line| {
            let (epoch, sequence) = line.split_once(' ').unwrap();
            (epoch.parse().unwrap(), sequence.parse().unwrap())
        })
        .collect()
}

/// The same up to one of them.
pub(super) fn held_upto(agent: &Agent, last: Id) -> Vec<Id> {
    let mut held = ledger(agent);
    held.retain(|id| *id <= last);
    held
}

/// Waits until a load has made more than `least` events, with a few that the ledger may lack; `before` were made under agents of
/// before.
pub(super) fn enough(agent: &Agent, before: usize, least: usize) {
    wait_for("the load to have made enough", patience(120), || {
        (before + agent.events().len() > least + 30).then_some(())
    });
}

/// Every id of `held` was received, the first time in order; what came twice came the same.
pub(super) fn whole(what: &str, held: &[Id], received: &[(Id, &str)]) {
    let mut first = Vec::new();
    let mut seen: HashMap<Id, &str> = HashMap::new();
    for (id, line) in received {
        match seen.insert(*id, line) {
            None => first.push(*id),
            Some(before) => assert_eq!(before, *line, "{what}: {id:?} came in two forms"),
        }
    }
    let known: BTreeSet<Id> = first.iter().copied().collect();
    let lost: Vec<&Id> = held.iter().filter(|id| !known.contains(id)).collect();
    assert!(lost.is_empty(), "{what}: lost {lost:?} of {}", held.len());
    assert!(first.is_sorted(), "{what}: out of order: {first:?}");
    println!(
        "{what}: {} events, {} deliveries",
        first.len(),
        received.len()
    );
}

fn zipped(ids: Vec<Id>, lines: &[String]) -> Vec<(Id, &str)> {
    ids.into_iter()
        .zip(lines.iter().map(String::as_str))
        .collect()
}

/// Each carrier and each format, on these ports.
fn every_way(scratch: &Scratch, [http, tcp, udp]: [&str; 3]) -> String {
    format!(
        r#"
[[sink]]
name = "file"
carrier = "file"
path = "{file}"
rotate_bytes = 8192
keep = 1000
[[sink]]
name = "hook"
carrier = "webhook"
format = "ocsf"
url = "http://localhost:{http}/x"
body = "array"
batch = 7
secret_file = "{key}"
headers_file = "{headers}"
[[sink]]
name = "tcp"
carrier = "syslog"
format = "cef"
address = "tcp:localhost:{tcp}"
[[sink]]
name = "udp"
carrier = "syslog"
format = "ecs"
address = "udp:127.0.0.1:{udp}"
[[sink]]
name = "unix"
carrier = "syslog"
format = "json"
address = "unix:{socket}"
kinds = ["credential_exposed"]
"#,
        file = scratch.join("events.jsonl").display(),
        key = scratch.join("hmac.key").display(),
        headers = scratch.join("headers").display(),
        socket = scratch.join("log.sock").display(),
    )
}

/// All lines of a file that was moved aside, in their order.
fn rotated(file: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let at = |n: u32| PathBuf::from(format!("{}.{n}", file.display()));
    let oldest = (1..).take_while(|n| at(*n).exists()).last().unwrap_or(0);
    for path in (1..=oldest).rev().map(at).chain([file.to_owned()]) {
        let text = fs::read_to_string(path).unwrap_or_default();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

/// Its own deliveries and files are nobody's use; its secret for the receiver is nowhere.
fn nobody_uses_what_it_delivers_by(agent: &Agent, secret: &str) {
    let printed = agent.events();
    let me = agent.pid();
    let mine = |e: &&Event| e.pid() == me && (e.is("credential_sent") || e.is("credential_read"));
    let mine: Vec<_> = printed.iter().filter(mine).map(Event::brief).collect();
    assert!(mine.is_empty(), "{mine:?}");
    assert!(!agent.log().contains(secret) && !agent.log().contains("only both ends"));
}

fn the_status_has_all(agent: &Agent, http: &str) {
    let status = stream::status(&agent.socket());
    assert_eq!(status.sinks.len(), 5);
    for sink in &status.sinks {
        assert_eq!((sink.error.as_str(), sink.left_out), ("", 0), "{sink:?}");
        assert!(sink.delivered >= 41 && sink.behind < 5, "{sink:?}");
    }
    let doctor = agent.client("doctor").run();
    let text = doctor.stdout_text();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains(&format!("hook webhook ocsf http://localhost:{http} ")),
        "{text}"
    );
}

/// Everything in the file holds by the schema.
fn of_ocsf(file: &Path) {
    let python = super::tls_programs::installed("python/bin/python3");
    let checked = act(python).args(["-c", OCSF]).arg(file).run().ok();
    println!(
        "OCSF, events of each class: {}",
        checked.stdout_text().trim()
    );
}

/// Waits until the receivers have this event, or a later one.
fn all_have(receivers: &[Receiver; 4], name: &str, last: Id) {
    let has = |found: &[Id]| found.iter().any(|id| *id >= last).then_some(());
    for receiver in &receivers[..3] {
        wait_for("a receiver to have all", patience(30), || {
            has(&ids(&receiver.lines(), name))
        });
    }
    wait_for(
        "the receiver of exposures to have all",
        patience(30),
        || {
            has(&of_json(&receivers[3].lines())
                .iter()
                .map(id)
                .collect::<Vec<_>>())
        },
    );
}

/// Each carrier, each format: the same events, in order, whole; the agent's deliveries are no uses.
pub fn every_way_delivers() {
    let _turn = turn();
    let scratch = Scratch::new();
    let key = scratch.join("hmac.key");
    fs::write(&key, "a key that only both ends have\n").unwrap();
    let headers = scratch.join("headers");
    let token = plant::github();
    fs::write(&headers, format!("Authorization: Bearer {}\n", token.value)).unwrap();
    let socket = scratch.join("log.sock");
    let (http, tcp, udp) = (free_port(), free_port(), free_port());
    let mut receivers = [
        Receiver::new(&scratch, "http", &http, &[&key]),
        Receiver::new(&scratch, "tcp", &tcp, &[]),
        Receiver::new(&scratch, "udp", &udp, &[]),
        Receiver::new(&scratch, "unix", &socket.display().to_string(), &[]),
    ];
    for receiver in &mut receivers {
        receiver.start();
    }
    wait_for("the socket of the receiver", patience(10), || {
        socket.exists().then_some(())
    });
    let file = scratch.join("events.jsonl");
    let agent = Setup::new(&scratch)
        .config(&every_way(&scratch, [&http, &tcp, &udp]))
        .start();
    for _ in 0..40 {
        sh("exit 0")
            .env("GITHUB_TOKEN", plant::github().value)
            .run()
            .ok();
    }
    let last = id(&agent.sentinel());
    let name = agent.events()[0].id.clone().unwrap().agent;
    let rotated = || rotated(&file);
    let has = |found: &[Id]| found.iter().any(|id| *id >= last).then_some(());
    wait_for("the file to have all", patience(20), || {
        has(&of_json(&rotated()).iter().map(id).collect::<Vec<_>>())
    });
    all_have(&receivers, &name, last);
    let held = held_upto(&agent, last);
    assert!(held.len() > 40, "{held:?}");
    let lines = rotated();
    assert!(
        PathBuf::from(format!("{}.1", file.display())).exists(),
        "it was never moved aside"
    );
    whole(
        "file",
        &held,
        &zipped(of_json(&lines).iter().map(id).collect(), &lines),
    );
    for receiver in &receivers[..3] {
        let lines = receiver.lines();
        whole(
            &receiver.args[0],
            &held,
            &zipped(ids(&lines, &name), &lines),
        );
    }
    let exposures = of_json(&receivers[3].lines());
    assert!(exposures.iter().all(|e| e.is("credential_exposed")));
    of_ocsf(&receivers[0].file);
    // What was printed is what was delivered.
    let printed = agent.events();
    for event in of_json(&lines) {
        let same = printed.iter().find(|e| e.id == event.id);
        assert_eq!(same, Some(&event));
    }
    nobody_uses_what_it_delivers_by(&agent, &token.value);
    the_status_has_all(&agent, &http);
    agent.stop();
}

/// Receivers that are killed and come back, and an agent that is killed ten times, under load: nothing that the ledger holds
/// is lost, order is kept, and what comes twice is the same.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn receivers_and_agents_come_and_go() {
    let _turn = turn();
    let scratch = Scratch::new();
    let key = scratch.join("hmac.key");
    fs::write(&key, "a key that only both ends have\n").unwrap();
    let (http, tcp) = (free_port(), free_port());
    let mut hook = Receiver::new(&scratch, "http", &http, &[&key]);
    let mut syslog = Receiver::new(&scratch, "tcp", &tcp, &[]);
    let file = scratch.join("events.jsonl");
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            r#"
[[sink]]
name = "file"
carrier = "file"
path = "{file}"
[[sink]]
name = "hook"
carrier = "webhook"
url = "http://127.0.0.1:{http}/"
secret_file = "{key}"
[[sink]]
name = "tcp"
carrier = "syslog"
address = "tcp:127.0.0.1:{tcp}"
"#,
            file = file.display(),
            key = key.display(),
        ))
        .start();
    // Nobody is there at first: after some seconds that is reported, once for each.
    let load = sh("while :; do GITHUB_TOKEN=$1 true; GITHUB_TOKEN=$1 sh -c :; sleep 0.02; done")
        .arg(plant::github().value)
        .limit(600)
        .spawn();
    let behind = |name: &str| format!("sink {name} fails: ");
    for name in ["hook", "tcp"] {
        agent.expect("the gap of a sink that fails", 0, |e| {
            e.reason() == "sink_behind" && e.gap.as_ref().unwrap().detail.starts_with(&behind(name))
        });
    }
    let doctor = agent.client("doctor").run();
    assert_eq!(doctor.code(), 1);
    let text = doctor.stdout_text();
    assert!(
        text.starts_with("NOT WELL:") && text.contains("the sink hook fails"),
        "{text}"
    );
    let mut count = 0;
    for round in 0..10 {
        match round % 3 {
            0 => {
                hook.start();
                syslog.start();
            }
            1 => {
                hook.kill();
                syslog.kill();
            }
            _ => {
                hook.start();
                syslog.start();
            }
        }
        std::thread::sleep(Duration::from_millis(700));
        if round % 3 == 2 {
            // Beside a running delivery.
            syslog.kill();
            syslog.start();
        }
        count += agent.events().len();
        agent = agent.kill().start();
        if round % 3 != 1 {
            hook.kill();
            syslog.kill();
        }
    }
    hook.start();
    syslog.start();
    enough(&agent, count, 200);
    drop(load);
    let last = id(&agent.sentinel());
    for receiver in [&hook, &syslog] {
        wait_for("a receiver to have all", patience(90), || {
            of_json(&receiver.lines())
                .iter()
                .any(|e| id(e) >= last)
                .then_some(())
        });
    }
    let held = held_upto(&agent, last);
    assert!(held.len() > 200, "{}", held.len());
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    whole(
        "file",
        &held,
        &zipped(of_json(&lines).iter().map(id).collect(), &lines),
    );
    for receiver in [&hook, &syslog] {
        let lines = receiver.lines();
        let ids = of_json(&lines).iter().map(id).collect();
        whole(&receiver.args[0], &held, &zipped(ids, &lines));
    }
    // An outage is reported once, not with every try.
    for name in ["hook", "tcp"] {
        let of = |e: &&Event| {
            e.reason() == "sink_behind" && e.gap.as_ref().unwrap().detail.starts_with(&behind(name))
        };
        let reported = of_json(&lines)
            .iter()
            .filter(of)
            .map(id)
            .collect::<BTreeSet<_>>();
        // One at the beginning; each of the agents of the ten rounds may have obtained one of its own.
        assert!((1..=11).contains(&reported.len()), "{reported:?}");
    }
    agent.stop();
}

/// A command runs once for each finding, also across a restart; it is a process like any other, and what it says is logged
/// without the credentials in it.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn a_response_runs_once_a_finding() {
    let _turn = turn();
    let scratch = Scratch::new();
    let out = scratch.join("responses");
    let home = scratch.make("home");
    let (_, credentials) = plant::aws_credentials(&home);
    let token = plant::github();
    let script = scratch.join("respond");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\ncat >> {out}\ncat {credentials} > /dev/null\necho began with {token} and $#\nenv | sed 's/^/env: /'\n",
            out = out.display(),
            credentials = credentials.display(),
            token = token.value,
        ),
    )
    .unwrap();
    let agent = Setup::new(&scratch)
        .config(&format!(
            r#"
[[response]]
name = "decoys"
rules = ["decoy-*"]
severity = "high"
command = ["/bin/sh", "{script}", "one argument"]
[[response]]
name = "never"
rules = ["no-such-rule"]
command = ["/bin/sh", "{script}"]
[[response]]
name = "broken"
rules = ["decoy-*"]
command = ["/nowhere/program"]
"#,
            script = script.display()
        ))
        .start();
    let path = agent.home().join("decoy/.netrc");
    agent
        .client("decoy")
        .args([
            Path::new("plant"),
            &path,
            Path::new("--state-dir"),
            &agent.dir().join("state"),
        ])
        .args(["--kind", "netrc"])
        .run()
        .ok();
    agent.sentinel();
    let done = sh("cat \"$1\" > /dev/null").arg(&path).run().ok();
    let finding = agent.expect("the finding", done.pid, |e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "decoy-touched")
    });
    let answered = || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        of_json(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    wait_for("the response", patience(20), || {
        (!answered().is_empty()).then_some(())
    });
    assert_eq!(answered(), std::slice::from_ref(&finding));
    // What it does is seen.
    let me = agent.pid();
    agent.expect("the read by the response", 0, |e| {
        e.is("credential_read")
            && e.path() == credentials.display().to_string()
            && e.process
                .as_ref()
                .unwrap()
                .ancestors
                .iter()
                .any(|a| a.pid == me)
    });
    wait_for("the response to be logged", patience(20), || {
        agent.log().contains("a response ran").then_some(())
    });
    let log = agent.log();
    assert!(!log.contains(&token.value), "{log}");
    assert!(
        log.contains("[redacted github-token]") && log.contains("and 1"),
        "{log}"
    );
    assert!(
        log.contains("env: PATH=") && !log.contains("env: HOME="),
        "{log}"
    );
    let status = stream::status(&agent.socket());
    let of = |name: &str| {
        status
            .sinks
            .iter()
            .find(|s| s.name == name)
            .unwrap()
            .clone()
    };
    assert_eq!((of("decoys").delivered, of("never").delivered), (1, 0));
    assert!(
        of("broken").error.contains("/nowhere/program"),
        "{:?}",
        of("broken")
    );
    let setup = agent.kill();
    let agent = setup.start();
    agent.wait_idle();
    assert_eq!(answered(), [finding], "it ran again");
    agent.stop();
}
