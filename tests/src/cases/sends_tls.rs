//! Credentials that leave inside TLS.

use super::{count, goes_to, sent};
use crate::{
    agent::Agent,
    command::{act, sh},
    events::{Ask as _, Event, EventKind, list, of_kind},
    machine::{Scratch, find, is_slow, patience, turn, wait_for},
    plant,
    server::TlsServer,
    stream::Reader,
};
use keytrail_proto::v1::Filter;
use std::{collections::BTreeMap, path::Path, time::Duration};

pub(super) const LOOPBACK: &[&str] = &["127.0.0.1", "::1"];

/// Fails unless the destination's names say where they come from, one of them this one.
fn named(event: &Event, name: &str) {
    let hosts = &event.destination.as_ref().unwrap().hosts;
    assert!(
        hosts
            .iter()
            .any(|h| { h.name == name && matches!(h.provenance.as_str(), "host_header" | "sni") }),
        "no {name} by Host header or SNI:\n  {}",
        event.brief()
    );
}

/// curl with a bearer token: exposed by the environment of sh, which curl inherits, and by the arguments of curl; sent
/// once.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn bearer_by_curl() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let exits = Reader::start(
        &agent.socket(),
        Some(Filter {
            kinds: vec![EventKind::ProcessExit.number()],
            ..Filter::default()
        }),
    );
    let token = plant::github();
    let done = sh("curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"")
        .arg(server.url("/bearer"))
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    server.got("/bearer");
    agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let events = agent.tree(done.pid);

    let exposed = of_kind(&events, "credential_exposed");
    let by = |shell: bool, source: &str| -> Vec<Event> {
        exposed
            .iter()
            .filter(|e| e.executable().ends_with("/curl") != shell && e.source_type() == source)
            .cloned()
            .collect()
    };
    count(&by(true, "env"), 1, "exposures by the shell's environment");
    // What a child only inherits is no news, but it is counted.
    count(&by(false, "env"), 0, "exposures by curl's environment");
    let inherited = |e: &Event| e.exit.as_ref().map_or(0, |exit| exit.inherited_exposures);
    wait_for("the count of inherited exposures", patience(5), || {
        let count = exits.events().iter().map(inherited).sum::<u64>();
        assert!(count <= 1, "{}", list(&exits.events()));
        (count == 1).then_some(())
    });
    count(&by(false, "argv"), 1, "exposures by curl's arguments");
    count(&by(true, "argv"), 0, "exposures by the shell's arguments");
    for event in &exposed {
        assert_eq!(event.credential_kind(), "github-token", "{}", event.brief());
        assert_eq!(event.grade(), "observed", "{}", event.brief());
        if event.source_type() == "env" {
            assert_eq!(event.env_name(), "GITHUB_TOKEN", "{}", event.brief());
        }
    }
    let argv = by(false, "argv").remove(0);
    let process = argv.process.as_ref().unwrap();
    let index = argv.source.as_ref().unwrap().argv_index as usize;
    let header = &process.argv[index];
    assert!(
        header.starts_with("Authorization: Bearer ")
            && header.contains("[redacted github-token kt1:"),
        "{header}"
    );
    for event in &events {
        let json = serde_json::to_string(event).unwrap();
        assert!(!json.contains(&token.value[4..]), "the token is in {json}");
    }

    let sent = sent(&agent, done.pid);
    count(&sent, 1, "sends");
    let event = &sent[0];
    let text = event.brief();
    assert_eq!(event.grade(), "observed", "{text}");
    assert_eq!(event.channel(), "tls", "{text}");
    assert_eq!(event.transform(), "raw", "{text}");
    assert_eq!(event.fingerprint(), exposed[0].fingerprint(), "{text}");
    assert!(event.executable().ends_with("/curl"), "{text}");
    assert!(matches!(event.source_type(), "env" | "argv"), "{text}");
    let evidence = event.evidence.as_ref().unwrap();
    assert_eq!(event.found_by(), "nested_send", "{text}");
    assert!(evidence.hook.contains("SSL_write"), "{text}");
    assert!(evidence.payload_bytes >= evidence.inspected_bytes, "{text}");
    assert!(evidence.inspected_bytes > 60, "{text}");
    goes_to(event, LOOPBACK, server.port);
    if let Some(log) = server.log() {
        let line = log
            .lines()
            .find(|l| l.contains("/bearer"))
            .unwrap()
            .to_owned();
        assert!(
            line.contains(&token.value),
            "the token never arrived: {line}"
        );
        assert!(line.starts_with(event.peer().0), "{line} and {text}");
        let hosts = &event.destination.as_ref().unwrap().hosts;
        assert!(
            hosts.iter().any(|h| h.provenance == "sni"),
            "no SNI: {text}"
        );
    }
    named(event, "localhost");

    // Nobody else is said to have sent it, the server least of all; it has it in its log, which is a pipe of this test.
    let all: Vec<Event> = agent
        .events()
        .into_iter()
        .filter(|e| e.is("credential_sent") && e.fingerprint() == event.fingerprint())
        .filter(|e| !super::WRITTEN.contains(&e.channel()))
        .collect();
    count(&all, 1, "sends of this token by anybody");
}

/// Two hundred curls in a row, half of which are over in less than 20 ms where the machine allows it: every one is
/// seen whole.
pub fn two_hundred_curls() {
    many_curls(200);
}

/// The same for a machine where each takes a second.
pub fn thirty_curls() {
    many_curls(30);
}

fn many_curls(number: usize) {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let token = plant::github();
    // The shell's own clock: a program that tells the time would live as long as what it times.
    let curls = |number: usize, header: &str| {
        let script = "i=0; while [ $i -lt $2 ]; do t=${EPOCHREALTIME/./}; \
             curl -skf -o /dev/null -H \"$3\" \"$1\" || exit 1; \
             echo $((${EPOCHREALTIME/./}-t)); i=$((i+1)); done";
        let done = act("bash")
            .args(["-c", script, "bash"])
            .arg(server.url("/many"))
            .arg(number.to_string())
            .arg(header)
            .limit(120)
            .run()
            .ok();
        let text = done.stdout_text();
        let mut lives: Vec<u64> = text.lines().map(|l| l.parse().unwrap()).collect();
        assert_eq!(lives.len(), number);
        lives.sort_unstable();
        (done.pid, Duration::from_micros(lives[number / 2]))
    };
    // What this machine allows: the same without a credential.
    let (_, control) = curls(20, "X-Nothing: here");
    let (shell, life) = curls(number, &format!("Authorization: Bearer {}", token.value));
    println!(
        "{number} curls, half of them live for less than {life:?}; without a credential {control:?}"
    );
    let short = Duration::from_millis(20);
    assert!(
        life < short || life < 3 * control,
        "half of the curls took more than {life:?}, those without a credential {control:?}"
    );
    agent.wait_idle();
    let sent = sent(&agent, shell);
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for event in &sent {
        assert_eq!(event.grade(), "observed", "{}", event.brief());
        assert_eq!(event.found_by(), "nested_send", "{}", event.brief());
        goes_to(event, LOOPBACK, server.port);
        *by.entry(event.process.as_ref().unwrap().key.clone())
            .or_default() += 1;
    }
    assert_eq!(
        by.len(),
        number,
        "{} of {number} curls were seen to send; gaps:\n{}",
        by.len(),
        list(&of_kind(&agent.events(), "coverage_gap"))
    );
    assert!(
        by.values().all(|n| *n == 1),
        "one request is one send: {by:?}"
    );
}

/// What python3 does with the file: read, and post it as it is or encoded.
const POST: &str = r"
import base64, http.client, ssl, sys
path, port, how = sys.argv[1:]
body = open(path, 'rb').read()
if how == 'base64':
    body = base64.b64encode(body)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
c = http.client.HTTPSConnection('localhost', int(port), context=context)
c.request('POST', '/import/' + how, body, {'Content-Type': 'application/octet-stream'})
print(c.getresponse().status)
";

fn posts_service_account(python: &Path) {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let file = scratch.make("home").join("exporter-key.json");
    let account = plant::service_account(&file);
    let agent = Agent::start(&scratch);
    for how in ["raw", "base64"] {
        let done = act(python)
            .args(["-c", POST])
            .arg(&file)
            .arg(server.port.to_string())
            .arg(how)
            .run()
            .ok();
        assert_eq!(done.stdout_text().trim(), "200");
        server.got(&format!("/import/{how}"));
        let read = agent.expect("the read", done.pid, |e| {
            e.is("credential_read") && e.in_tree(done.pid)
        });
        assert!(read.shows(&account), "{}", read.brief());
        agent.expect("the send", done.pid, |e| {
            e.is("credential_sent") && e.in_tree(done.pid)
        });
        agent.wait_idle();
        let sent = sent(&agent, done.pid);
        count(&sent, 1, "sends");
        let event = &sent[0];
        let text = event.brief();
        assert_eq!(event.grade(), "observed", "{text}");
        assert_eq!(event.channel(), "tls", "{text}");
        let named_right = match how {
            // The key's line breaks are escaped in the file.
            "raw" => matches!(event.transform(), "raw" | "json"),
            _ => event.transform().contains("base64"),
        };
        assert!(named_right, "posted {how}: {text}");
        assert_eq!(event.fingerprint(), read.fingerprint(), "{text}");
        assert_eq!(event.source_type(), "file", "{text}");
        assert_eq!(Path::new(event.path()), file, "{text}");
        let evidence = event.evidence.as_ref().unwrap();
        assert!(evidence.hook.contains("SSL_write_ex"), "{text}");
        assert_eq!(event.found_by(), "nested_send", "{text}");
        goes_to(event, LOOPBACK, server.port);
        named(event, "localhost");
    }
}

/// Debian's python3.
pub fn python_posts_a_service_account() {
    posts_service_account(Path::new("/usr/bin/python3"));
}

/// The first python3 on PATH of who runs the tests, where that is another one (pyenv, conda).
pub fn the_users_python_posts_a_service_account() {
    let Some(shim) = find("python3") else {
        panic!("no python3 on PATH");
    };
    // A shim is a shell script: the interpreter behind it says where it is.
    let out = std::process::Command::new(shim)
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let path = String::from_utf8(out.stdout).unwrap();
    posts_service_account(Path::new(path.trim()));
}

/// One process, two requests over one connection and a third over another: three sends, each to the right place.
pub fn connections_are_distinguished() {
    let _turn = turn();
    let scratch = Scratch::new();
    let one = TlsServer::start(&scratch.join("one"));
    let two = TlsServer::start(&scratch.join("two"));
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let script = r"
import http.client, os, ssl, sys
context = ssl._create_unverified_context()
first = http.client.HTTPSConnection('localhost', int(sys.argv[1]), context=context)
second = http.client.HTTPSConnection('localhost', int(sys.argv[2]), context=context)
first.connect(); second.connect()
token = {'Authorization': 'Bearer ' + os.environ['GITHUB_TOKEN']}
for c, headers in ((first, token), (second, {}), (second, token), (first, token)):
    c.request('GET', '/mixed', headers=headers)
    c.getresponse().read()
";
    let done = act("/usr/bin/python3")
        .args(["-c", script])
        .arg(one.port.to_string())
        .arg(two.port.to_string())
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    wait_for("three sends", patience(10), || {
        (sent(&agent, done.pid).len() >= 3).then_some(())
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    let ports: Vec<u16> = sent
        .iter()
        .map(|e| u16::try_from(e.peer().1).unwrap())
        .collect();
    assert_eq!(ports, [one.port, two.port, one.port], "\n{}", list(&sent));
    assert!(
        sent.iter().all(|e| e.grade() == "observed"),
        "\n{}",
        list(&sent)
    );
    if !is_slow() {
        let times: Vec<u64> = sent.iter().map(|e| e.boot_time_ns).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
