//! What an agent remembers: was it used, by what, where to; across restarts too.

use crate::{
    agent::{Agent, Setup},
    command::{Done, sh},
    events::{Ask as _, Event, now_ns, wall_ns},
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::TlsServer,
    stream::Reader,
};
use keytrail_proto::v1::StreamEventsRequest;
use std::{
    collections::BTreeSet,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Exit statuses of `used`.
const YES: i32 = 0;
const NO: i32 = 1;
const UNKNOWN: i32 = 6;

fn used(agent: &Agent, credential: &str, args: &[&str]) -> Done {
    agent.client("used").arg(credential).args(args).run()
}

/// A token sent by curl: the event, and the token itself.
fn send(agent: &Agent, server: &TlsServer) -> (Event, plant::Planted) {
    let token = plant::github();
    let done = sh("curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"")
        .arg(server.url("/used"))
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    let sent = agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid) && e.grade() == "observed"
    });
    (sent, token)
}

/// Yes with program and place; by the secret itself too; never yes for what was not.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn used_says_yes_and_never_without_a_use() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let (sent, token) = send(&agent, &server);
    let fingerprint = sent.fingerprint().to_owned();

    let done = used(&agent, &fingerprint, &["--since", "10m"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.code(), YES, "{text}{}", done.stderr_text());
    assert!(text.starts_with("YES"), "{text}");
    assert!(
        text.contains("/curl") && text.contains("localhost"),
        "{text}"
    );
    assert!(!text.contains(&token.value), "the token is shown");
    for (args, status) in [
        (["--by", "curl"], YES),
        (["--to-host", "localhost"], YES),
        (["--act", "sent"], YES),
    ] {
        let done = used(&agent, &fingerprint, &args);
        assert_eq!(done.code(), status, "{args:?}: {}", done.stderr_text());
    }
    for args in [["--by", "wget"], ["--to-host", "other.example"]] {
        let done = used(&agent, &fingerprint, &args);
        assert!(
            matches!(done.code(), NO | UNKNOWN),
            "{args:?}: {}",
            done.code()
        );
    }

    // The secret itself, by standard input: with the agent's key, and with no other.
    let by_secret = |state: &std::path::Path| {
        agent
            .client("used")
            .arg("--secret-stdin")
            .arg("--state-dir")
            .arg(state)
            .stdin(format!("{}\n", token.value))
            .run()
    };
    let done = by_secret(&agent.dir().join("state"));
    assert_eq!(done.code(), YES, "{}", done.stderr_text());
    let other = scratch.make("other");
    fs::write(other.join("fingerprint.key"), "ab".repeat(32)).unwrap();
    sh("chmod 600 \"$1\"")
        .arg(other.join("fingerprint.key"))
        .run()
        .ok();
    let done = by_secret(&other);
    assert_eq!(
        done.code(),
        7,
        "another key is no answer: {}",
        done.stderr_text()
    );
    assert!(
        done.stderr_text().contains("not the key"),
        "{}",
        done.stderr_text()
    );

    // The lists know it, with the hash of the program.
    let curl = fs::canonicalize(crate::machine::find("curl").unwrap()).unwrap();
    let sum = sh("sha256sum \"$1\"").arg(&curl).run().ok();
    let hash = String::from_utf8_lossy(&sum.stdout)[..64].to_owned();
    wait_for("the hash of curl", patience(20), || {
        let done = agent
            .client("uses")
            .args(["--credential", &fingerprint, "-o", "json"])
            .run();
        String::from_utf8_lossy(&done.stdout)
            .contains(&hash)
            .then_some(())
    });
    let list = agent.client("credentials").args(["-o", "csv"]).run();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|l| l.contains(&fingerprint)), "{list}");
    // One document an object, of the same fields.
    let count = |shape: &str, sign: &str| {
        let done = agent.client("credentials").args(["-o", shape]).run();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains(&fingerprint), "{text}");
        text.lines().filter(|l| l.starts_with(sign)).count()
    };
    assert_eq!(count("yaml", "---"), count("json", "{"));
    let graph = agent
        .client("graph")
        .args(["-o", "html", "--credential", &fingerprint])
        .run();
    let page = String::from_utf8_lossy(&graph.stdout).into_owned();
    assert!(
        page.contains("<svg") && page.contains("localhost"),
        "{page}"
    );
    let passport = agent.client("credential").arg(&fingerprint).run();
    let text = String::from_utf8_lossy(&passport.stdout).into_owned();
    assert!(
        text.contains("env:GITHUB_TOKEN") && text.contains("curl"),
        "{text}"
    );
}

/// What was written while the agent runs and nobody read: no read, and who holds it is nobody.
pub fn what_nobody_used_is_not_used() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::npm();
    // Where reads are watched from the beginning.
    let file = agent.home().join(".npmrc");
    fs::write(
        &file,
        format!("//registry.npmjs.org/:_authToken={}\n", token.value),
    )
    .unwrap();
    let created = agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && e.path() == file.to_str().unwrap()
    });
    let fingerprint = created.fingerprint().to_owned();
    let done = used(
        &agent,
        &fingerprint,
        &["--since", "1h", "--act", "held,read"],
    );
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    // An hour ago there was no agent.
    assert_eq!(done.code(), UNKNOWN, "{text}");
    assert!(
        text.contains("no_agent") && text.contains("no agent ran"),
        "{text}"
    );
    // From when it was made on everything was seen: unless this machine made something unseen, which then is named.
    sleep(Duration::from_secs(1));
    let done = used(
        &agent,
        &fingerprint,
        &["--since", "1s", "--act", "held,read"],
    );
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.code() == NO && text.starts_with("NO")
            || done.code() == UNKNOWN && text.contains("What could hide a use:"),
        "{}: {text}",
        done.code()
    );
    println!("{text}");
    sh("cat \"$1\" > /dev/null").arg(&file).run().ok();
    let text = wait_for("the read to be known", patience(20), || {
        let done = used(&agent, &fingerprint, &["--since", "1m"]);
        (done.code() == YES).then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    });
    assert!(text.contains("/cat"), "{text}");
}

fn number(event: &Event) -> (u64, u64) {
    let id = event.id.as_ref();
    id.map_or((0, 0), |id| (id.epoch, id.sequence))
}

/// Fails unless each event after `first` that a client had is there, or may be missing: an event waits 250 ms for the disk and
/// goes out without it then, and when the agent dies before it is written, the next one tells a gap that begins before it.
fn kept_or_covered(had: &[Event], first: &Event, there: &[Event]) {
    let kept: BTreeSet<_> = there.iter().map(number).collect();
    let down: Vec<&Event> = there
        .iter()
        .chain(had)
        .filter(|e| e.reason() == "agent_down")
        .collect();
    let mut covered = 0;
    for event in had.iter().filter(|e| number(e) > number(first)) {
        if kept.contains(&number(event)) {
            continue;
        }
        let happened = wall_ns(event.time.as_ref().expect("every event has a time"));
        let next = down
            .iter()
            .filter(|gap| number(gap).0 == number(event).0 + 1);
        let begins = next
            .filter_map(|gap| gap.gap.as_ref()?.from.as_ref())
            .map(wall_ns)
            .min();
        assert!(
            begins.is_some_and(|from| from <= happened),
            "lost, at {happened}, and the gap after it begins at {begins:?}:\n{}",
            event.brief()
        );
        covered += 1;
    }
    println!(
        "{covered} events were given before a slow disk had them, and the next gap covers them"
    );
}

/// SIGKILL at once after a client has an event: it is there afterwards (or said not to be, where the disk is slow), and a stream goes on behind it.
pub fn what_a_client_has_survives_a_kill() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Setup::new(&scratch).start();
    let before = agent.sentinel();
    let (sent, _) = send(&agent, &server);
    // Everything it printed, a client had.
    let had: Vec<Event> = agent.events();
    let setup = agent.kill();
    sleep(Duration::from_millis(1200));
    let agent = setup.start();
    let after = StreamEventsRequest {
        after: before.id.clone(),
        ..StreamEventsRequest::default()
    };
    let reader = Reader::ask(&agent.socket(), after);
    let sentinel = agent.sentinel();
    wait_for("the stream to reach the present", patience(20), || {
        reader
            .events()
            .iter()
            .any(|e| e.id == sentinel.id)
            .then_some(())
    });
    let resumed = reader.events();
    kept_or_covered(&had, &before, &resumed);
    let numbers: Vec<_> = resumed.iter().map(number).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "doubled or out of order: {numbers:?}"
    );
    assert_eq!(reader.missed(), 0);

    let done = used(&agent, sent.fingerprint(), &["--since", "10m"]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let is_kept = resumed.iter().any(|e| e.id == sent.id);
    // What the disk was too slow for is not known, and that is the answer.
    let expected = if is_kept { YES } else { UNKNOWN };
    assert_eq!(done.code(), expected, "{text}");
    let coverage = agent.client("coverage").run();
    let text = String::from_utf8_lossy(&coverage.stdout).into_owned();
    assert!(
        text.contains("killed or crashed") && text.contains("no_agent"),
        "{text}"
    );
}

/// Killed again and again under load, at any moment: what a client had is there afterwards, once, findings too; and what was
/// answered about a baseline holds.
pub fn killed_again_and_again() {
    // KEYTRAIL_TEST_KILLS=200 takes six minutes, too long for every run.
    let asked: Option<u32> = std::env::var("KEYTRAIL_TEST_KILLS")
        .ok()
        .map(|text| text.parse().unwrap());
    let wanted = asked.unwrap_or(12);
    let limit = asked.map_or(patience(45), |kills| Duration::from_secs(5) * kills);
    let _turn = turn();
    let scratch = Scratch::new();
    let mut agent = Setup::new(&scratch).start();
    let decoy = agent.home().join("decoy/.netrc");
    let state = agent.dir().join("state");
    let planting = agent.client("decoy").arg("plant").arg(&decoy);
    planting
        .args(["--kind", "netrc"])
        .arg("--state-dir")
        .arg(&state)
        .run()
        .ok();
    let (_, file) = plant::aws_credentials(agent.home());
    let load = sh("while :; do cat \"$1\" \"$2\"; sleep 0.01; done")
        .arg(&file)
        .arg(&decoy)
        .spawn();
    let read = agent.expect("a read of the load", load.pid(), |e| {
        e.is("credential_read") && e.path() == file.to_str().unwrap()
    });
    let first = agent.events()[0].clone();
    let started = Instant::now();
    let mut had: Vec<Event> = Vec::new();
    let mut kills = 0;
    while kills < wanted && started.elapsed() < limit {
        // Some moment within the first second: the clock's last digits are chance enough.
        sleep(Duration::from_millis(100 + now_ns() / 1000 % 900));
        if kills == wanted / 2 {
            let accept = agent
                .client("baseline")
                .args(["accept", read.fingerprint()]);
            accept.run().ok();
        }
        had.extend(agent.events());
        agent = agent.kill().start();
        kills += 1;
    }
    drop(load);
    println!(
        "{kills} kills, {} events had, in {:?}",
        had.len(),
        started.elapsed()
    );
    let sentinel = agent.sentinel();
    let reader = Reader::ask(
        &agent.socket(),
        StreamEventsRequest {
            after: first.id.clone(),
            ..StreamEventsRequest::default()
        },
    );
    wait_for("the stream to reach the present", patience(20), || {
        let there = reader.events().iter().any(|e| e.id == sentinel.id);
        there.then_some(())
    });
    let resumed = reader.events();
    let numbers: Vec<_> = resumed.iter().map(number).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "doubled or out of order"
    );
    kept_or_covered(&had, &first, &resumed);
    assert!(had.iter().any(|e| e.is("finding")), "no finding was had");
    let list = agent
        .client("baseline")
        .args(["list", "-o", "json"])
        .run()
        .ok();
    let text = list.stdout_text();
    let line = text.lines().find(|l| l.contains(read.fingerprint()));
    let line = line.unwrap_or_else(|| panic!("the baseline is lost:\n{text}"));
    assert!(line.contains("\"accepted\":true"), "{line}");
}

/// A decoy that is read is a finding of the highest severity, within a second; a copy that is no decoy is none.
pub fn a_decoy_that_is_read_is_a_finding() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let path = agent.home().join("decoy/.netrc");
    let decoy = |action: &str, what: &std::path::Path| {
        agent
            .client("decoy")
            .arg(action)
            .arg(what)
            .arg("--state-dir")
            .arg(agent.dir().join("state"))
    };
    decoy("plant", &path).args(["--kind", "netrc"]).run().ok();
    let again = decoy("plant", &path).args(["--kind", "netrc"]).run();
    assert_eq!(again.code(), 1, "over another file");
    agent.sentinel();
    let before = now_ns();
    let done = sh("cat \"$1\" > /dev/null").arg(&path).run().ok();
    let finding = agent.expect("the finding", done.pid, |e| {
        e.is("finding")
            && e.finding
                .as_ref()
                .is_some_and(|f| f.rule == "decoy-touched")
    });
    let took = now_ns().saturating_sub(before);
    println!("found after {} ms", took / 1_000_000);
    let about = finding.finding.clone().unwrap();
    assert_eq!(about.severity, "critical", "{about:?}");
    assert!(about.seen.contains("cat"), "{about:?}");
    assert_eq!(about.events.len(), 1, "{about:?}");
    let list = agent.client("findings").args(["-o", "json"]).run();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("decoy-touched"), "{list}");
    decoy("remove", &path).run().ok();
    assert!(!path.exists(), "the decoy is left behind");
}
