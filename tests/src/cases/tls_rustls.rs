//! rustls, whose ciphertext is sent by another call than the one that is seen.

use super::{goes_to, sends_tls::LOOPBACK, sent, tls_programs::deno};
use crate::{
    agent::Agent,
    events::{Ask as _, Event, list},
    machine::{Scratch, turn},
    plant::{self, Planted},
    server::TlsServer,
};
use std::path::PathBuf;

const SERVERS: usize = 4;
const ROUNDS: usize = 5;

/// Each secret to its own server, all at once, a round after another: of different lengths, then of one.
const SEND: &str = "const urls = Deno.args;
const send = async (i, path) => {
    const headers = {Authorization: 'Bearer ' + Deno.env.get('T' + i + '_GITHUB_TOKEN')};
    const answer = await fetch(urls[i] + path, {method: 'POST', headers, body: 'x'.repeat(40 * i)});
    await answer.text();
};
const all = path => Promise.all(urls.map((_, i) => send(i, path(i))));
for (let round = 0; round < ROUNDS; round++) await all(i => '/' + 'a'.repeat(3 + 2 * i));
await new Promise(done => setTimeout(done, 1000));
await Promise.all(urls.map((_, i) => fetch(urls[i] + '/same', {headers: {Authorization: 'Bearer ' + Deno.env.get('T' + i + '_GITHUB_TOKEN')}}).then(a => a.text())));";

/// Has deno inspected before it matters: it lies anywhere.
fn known(agent: &Agent, scratch: &Scratch, server: &TlsServer) {
    let script: PathBuf = scratch.join("known.js");
    std::fs::write(
        &script,
        "const headers = {Authorization: 'Bearer ' + Deno.env.get('GITHUB_TOKEN')};
         await (await fetch(Deno.args[0], {headers})).text();",
    )
    .unwrap();
    for _ in 0..6 {
        let done = deno()
            .arg(&script)
            .arg(server.url("/known"))
            .env("GITHUB_TOKEN", plant::github().value)
            .env("HOME", scratch.join("home"))
            .run()
            .ok();
        agent.wait_idle();
        if sent(agent, done.pid)
            .iter()
            .any(|e| e.grade() == "observed")
        {
            return;
        }
    }
    panic!("deno's TLS is not seen");
}

/// Four secrets to four servers at the same time: a destination is the right one or unknown, and known where lengths tell.
pub fn connections_are_never_swapped() {
    let _turn = turn();
    let scratch = Scratch::new();
    let servers: Vec<TlsServer> = (0..SERVERS)
        .map(|n| TlsServer::start(&scratch.join(&format!("server{n}"))))
        .collect();
    let agent = Agent::start(&scratch);
    known(&agent, &scratch, &servers[0]);
    let tokens: Vec<Planted> = (0..SERVERS).map(|_| plant::github()).collect();
    let script = scratch.join("send.js");
    std::fs::write(&script, SEND.replace("ROUNDS", &ROUNDS.to_string())).unwrap();
    let mut act = deno().arg(script).env("HOME", scratch.join("home"));
    for (n, (server, token)) in servers.iter().zip(&tokens).enumerate() {
        act = act
            .arg(server.url(""))
            .env(format!("T{n}_GITHUB_TOKEN"), &token.value);
    }
    let done = act.run().ok();
    for (server, token) in servers.iter().zip(&tokens) {
        server.got(&token.value);
    }
    agent.wait_idle();
    let events = agent.tree(done.pid);
    let sent = sent(&agent, done.pid);
    let (mut all, mut known) = (0, 0);
    for (n, server) in servers.iter().enumerate() {
        let exposed = events
            .iter()
            .find(|e| e.is("credential_exposed") && e.env_name() == format!("T{n}_GITHUB_TOKEN"))
            .unwrap();
        // Beside one whose socket is unknown, lineage names whatever its sockets are.
        let own = |e: &&Event| e.fingerprint() == exposed.fingerprint();
        for event in sent.iter().filter(own).filter(|e| e.grade() == "observed") {
            all += 1;
            if event.found_by() == "unknown" {
                assert_eq!(event.peer(), ("", 0), "{}", event.brief());
            } else {
                goes_to(event, LOOPBACK, server.port);
                known += 1;
            }
        }
    }
    println!("{known} of {all} destinations are known");
    assert_eq!(
        all,
        SERVERS * (ROUNDS + 1),
        "one request is one send:\n{}",
        list(&sent)
    );
    assert!(
        known >= SERVERS * ROUNDS / 2,
        "{known} of {all} destinations are known:\n{}",
        list(&sent)
    );
}

/// A holder that sends other bytes: it is inspected, and its secret was not there.
pub fn nothing_of_a_holder_in_it() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    known(&agent, &scratch, &server);
    let script = scratch.join("other.js");
    std::fs::write(
        &script,
        "const body = 'nothing of interest '.repeat(3000);
         await (await fetch(Deno.args[0], {method: 'POST', body})).text();",
    )
    .unwrap();
    let done = deno()
        .arg(script)
        .arg(server.url("/other"))
        .env("GITHUB_TOKEN", plant::github().value)
        .env("HOME", scratch.join("home"))
        .run()
        .ok();
    server.got("/other");
    agent.expect("lineage", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let own = agent.expect("its own token", done.pid, |e| {
        e.is("credential_exposed") && e.pid() == done.pid && e.env_name() == "GITHUB_TOKEN"
    });
    // The tokens of those that ran before may have come to it: this process reads what they print, and starts it.
    let mut sent: Vec<Event> = sent(&agent, done.pid);
    sent.retain(|e| e.fingerprint() == own.fingerprint());
    for event in &sent {
        assert_eq!(event.grade(), "lineage", "{}", event.brief());
        goes_to(event, LOOPBACK, server.port);
        assert!(
            event.evidence.as_ref().unwrap().payload_bytes > 60_000,
            "{}",
            event.brief()
        );
    }
    assert_eq!(sent.len(), 1, "{}", list(&sent));
}
