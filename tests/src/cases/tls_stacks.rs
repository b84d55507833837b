//! TLS by other libraries than OpenSSL: what a holder sends is seen, or it is said that it cannot be.

use super::{goes_to, sends_tls::LOOPBACK, sent};
use crate::{
    agent::Agent,
    command::{Act, act, sh},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, find, turn},
    plant,
    server::{Sink, TlsServer},
    trace,
};
use std::path::Path;

/// The send is seen, or that it cannot be seen is said: nothing in between.
fn never_silent(agent: &Agent, root: u32, server: &TlsServer, token: &str) {
    let port = server.port;
    agent.expect("a send", root, |e| {
        e.is("credential_sent") && e.in_tree(root)
    });
    agent.wait_idle();
    let sent = sent(agent, root);
    for event in &sent {
        let (ip, to) = event.peer();
        // "Unknown" is honest; a wrong one is not.
        if event.found_by() == "unknown" {
            assert_eq!((ip, to), ("", 0), "{}", event.brief());
        } else {
            goes_to(event, LOOPBACK, port);
        }
    }
    let observed: Vec<&Event> = sent.iter().filter(|e| e.grade() == "observed").collect();
    if observed.is_empty() {
        assert!(
            sent.iter()
                .all(|e| e.grade() == "lineage" && !e.coverage.is_empty()),
            "a blind lineage event must say that it is blind:\n{}",
            list(&sent)
        );
        let gap = agent.expect("a gap that names the library", root, |e| {
            e.reason() == "library_not_covered"
                && (e.in_tree(root)
                    || sent
                        .iter()
                        .any(|s| e.gap.as_ref().unwrap().detail.contains(s.executable())))
        });
        assert!(
            !gap.gap.as_ref().unwrap().remedy.is_empty(),
            "{}",
            gap.brief()
        );
    } else {
        assert_eq!(
            observed.len(),
            sent.len(),
            "seen and yet lineage:\n{}",
            list(&sent)
        );
        // A program may ask more than it was told to: kubectl's dispatcher asks for the server's version first.
        let requests = server
            .log()
            .map_or(1, |log| log.lines().filter(|l| l.contains(token)).count());
        assert_eq!(
            observed.len(),
            requests,
            "one request is one send:\n{}",
            list(&sent)
        );
    }
}

/// Fails where a program is missing that `cargo xtask setup` installs.
pub(super) fn require(program: &str) {
    assert!(
        find(program).is_some(),
        "no {program} on this machine: cargo xtask setup test"
    );
}

fn by_another_library(what: impl FnOnce(&TlsServer) -> Act) {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let done = what(&server).env("GITHUB_TOKEN", &token.value).run();
    assert!(done.status.success(), "{}", done.stderr_text());
    server.got(&token.value);
    never_silent(&agent, done.pid, &server, &token.value);
}

/// wget of Debian, which uses GnuTLS.
pub fn gnutls_is_never_silent() {
    by_another_library(|server| {
        sh("wget -q -O - --no-check-certificate --header=\"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"; :")
            .arg(server.url("/wget"))
    });
}

/// Node, which has OpenSSL inside its executable (in a library, as Debian ships it) and writes to the socket later.
pub fn node_is_never_silent() {
    require("node");
    by_another_library(|server| {
        let script = "require('https').get(process.argv[1], \
            {rejectUnauthorized: false, headers: {Authorization: 'Bearer ' + process.env.GITHUB_TOKEN}}, \
            r => { r.resume(); r.on('end', () => process.exit(0)); })";
        act("node").args(["-e", script]).arg(server.url("/node"))
    });
}

/// A program of Go, which has TLS of its own, as Debian ships it: without symbols.
pub fn go_is_never_silent() {
    require("hey");
    by_another_library(|server| {
        // Its answer is a table of how long things took.
        sh("hey -n 1 -c 1 -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"; :")
            .arg(server.url("/go"))
    });
}

/// The same with a program that brings its symbols: kubectl, where there is one. It is not Debian's.
pub fn kubectl_is_never_silent() {
    let elsewhere = Path::new("/usr/lib/google-cloud-sdk/bin/kubectl");
    let kubectl = find("kubectl").or_else(|| elsewhere.is_file().then(|| elsewhere.to_owned()));
    let Some(kubectl) = kubectl else {
        eprintln!("left out: no kubectl on this machine, and no package of Debian brings it");
        return;
    };
    let scratch = Scratch::new();
    by_another_library(|server| {
        // The answer is not what kubectl expects: only what it sends matters.
        sh("\"$1\" --insecure-skip-tls-verify --server \"$2\" --token \"$GITHUB_TOKEN\" get --raw /pods; :")
            .arg(kubectl)
            .arg(server.url(""))
            .env("HOME", scratch.path())
    });
}

/// A client of Java's own TLS, as one file. `NAME`: of its class.
const JAVA: &str = "import java.net.*; import java.net.http.*; import javax.net.ssl.*; import java.security.cert.*;
public class NAME {
    public static void main(String[] a) throws Exception {
        TrustManager all = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] c, String s) {}
            public void checkServerTrusted(X509Certificate[] c, String s) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext tls = SSLContext.getInstance(\"TLS\");
        tls.init(null, new TrustManager[]{all}, null);
        HttpRequest request = HttpRequest.newBuilder(URI.create(a[0])).version(HttpClient.Version.HTTP_1_1)
            .header(\"Authorization\", \"Bearer \" + System.getenv(\"GITHUB_TOKEN\")).build();
        HttpClient.newBuilder().sslContext(tls).build().send(request, HttpResponse.BodyHandlers.ofString());
    }
}";

/// Java encrypts by itself: each program that does says so with each of its sends, the second one as well, and a gap does.
pub fn java_says_why() {
    if find("java").is_none() {
        eprintln!("left out: no java on this machine");
        return;
    }
    const WHY: &str = "JSSE";
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    for name in ["One", "Two"] {
        let file = scratch.join(&format!("{name}.java"));
        std::fs::write(&file, JAVA.replace("NAME", name)).unwrap();
        let token = plant::github();
        let done = act("java")
            .arg("-Djdk.internal.httpclient.disableHostnameVerification=true")
            .arg(&file)
            .arg(server.url(&format!("/{name}")))
            .env("GITHUB_TOKEN", &token.value)
            .env("HOME", scratch.path())
            .run()
            .ok();
        server.got(&token.value);
        never_silent(&agent, done.pid, &server, &token.value);
        for event in &sent(&agent, done.pid) {
            assert_eq!(event.grade(), "lineage", "{}", event.brief());
            goes_to(event, LOOPBACK, server.port);
            assert!(
                event.coverage.iter().any(|said| said.contains(WHY)),
                "{}",
                event.brief()
            );
        }
    }
    let gaps = of_kind(&agent.events(), "coverage_gap");
    let says = |what: &str| {
        gaps.iter().any(|e| {
            let detail = &e.gap.as_ref().unwrap().detail;
            e.reason() == "library_not_covered" && detail.contains(what) && detail.contains(WHY)
        })
    };
    assert!(says("libjvm.so"), "{}", list(&gaps));
    assert!(says("sends TLS"), "{}", list(&gaps));
}

/// Python's asyncio, which keeps the ciphertext in memory and sends it after the call.
pub fn asyncio_finds_its_socket() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let script = "import asyncio, os, ssl, sys
async def main():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection('localhost', int(sys.argv[1]), ssl=context)
    head = 'GET /asyncio HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n'
    writer.write((head + 'Authorization: Bearer ' + os.environ['GITHUB_TOKEN'] + '\\r\\n\\r\\n').encode())
    await writer.drain()
    await reader.read(16)
    writer.close()
asyncio.run(main())";
    let done = act("python3")
        .args(["-c", script])
        .arg(server.port.to_string())
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    server.got(&token.value);
    agent.expect("a send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    assert_eq!(sent.len(), 1, "one request is one send:\n{}", list(&sent));
    assert_eq!(sent[0].grade(), "observed", "{}", sent[0].brief());
    goes_to(&sent[0], LOOPBACK, server.port);
    assert_eq!(sent[0].found_by(), "next_send", "{}", sent[0].brief());
}

/// Two secrets to two servers at the same time, by one thread that sends its ciphertext when it likes: a destination
/// is the right one or unknown, and known whenever the lengths tell.
pub fn node_connections_are_never_swapped() {
    require("node");
    const ROUNDS: usize = 6;
    let _turn = turn();
    let scratch = Scratch::new();
    let servers = ["one", "two"].map(|name| TlsServer::start(&scratch.join(name)));
    let agent = Agent::start(&scratch);
    let tokens = [plant::github(), plant::github()];
    // Requests of two lengths, then of one.
    let script = "const https = require('https');
        const [one, two, rounds] = process.argv.slice(2);
        const send = (url, token) => new Promise((done, failed) => {
            const options = {method: 'POST', rejectUnauthorized: false, headers: {Authorization: 'Bearer ' + token}};
            const request = https.request(url, options, r => { r.resume(); r.on('end', done); });
            request.on('error', failed);
            request.end();
        });
        const both = (a, b) => Promise.all([send(one + a, process.env.A_GITHUB_TOKEN), send(two + b, process.env.B_GITHUB_TOKEN)]);
        (async () => {
            for (let i = 0; i < rounds; i++) await both('/a' + i, '/longer' + i);
            await new Promise(r => setTimeout(r, 1000));
            for (let i = 0; i < rounds; i++) await both('/same', '/same');
        })().catch(e => { console.error(e); process.exit(1); });";
    let file = scratch.join("send.js");
    std::fs::write(&file, script).unwrap();
    let done = act("node")
        .arg(file)
        .arg(servers[0].url(""))
        .arg(servers[1].url(""))
        .arg(ROUNDS.to_string())
        .env("A_GITHUB_TOKEN", &tokens[0].value)
        .env("B_GITHUB_TOKEN", &tokens[1].value)
        .run()
        .ok();
    agent.expect("a send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let events = agent.tree(done.pid);
    let sent = sent(&agent, done.pid);
    let mut known = 0;
    let mut all = 0;
    for (name, server) in ["A_GITHUB_TOKEN", "B_GITHUB_TOKEN"].iter().zip(&servers) {
        let exposed = events
            .iter()
            .find(|e| e.is("credential_exposed") && e.env_name() == *name)
            .unwrap();
        let mine: Vec<&Event> = sent
            .iter()
            .filter(|e| e.fingerprint() == exposed.fingerprint())
            .collect();
        for event in mine {
            assert_eq!(event.grade(), "observed", "{}", event.brief());
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
    assert_eq!(all, 4 * ROUNDS, "one request is one send:\n{}", list(&sent));
    assert!(
        known >= 2 * ROUNDS,
        "{known} of {all} destinations are known:\n{}",
        list(&sent)
    );
}

/// A traced command learns of the libraries it uses itself, not of what others on the machine do.
pub fn a_trace_names_its_own_libraries() {
    let _turn = turn();
    let scratch = Scratch::new();
    let named_like_nss = |program: &str, name: &str| {
        let dir = scratch.make(name);
        let file = dir.join("libssl3.so");
        std::fs::copy(find(program).unwrap(), &file).unwrap();
        file
    };
    let other = named_like_nss("sleep", "other");
    let own = named_like_nss("curl", "own");
    let _running = act(&other).arg("60").spawn();
    let sink = Sink::http();
    let act = trace::command(&scratch, &[])
        .arg(&own)
        .args(["-s", "-m", "5"])
        .arg(format!("http://127.0.0.1:{}/", sink.port))
        .env("GITHUB_TOKEN", plant::github().value);
    let traced = trace::run(&scratch, act);
    assert_eq!(traced.done.code(), 0, "{}", traced.done.stderr_text());
    let blind: Vec<String> = traced
        .events
        .iter()
        .filter(|e| e.reason() == "library_not_covered")
        .map(|e| e.gap.as_ref().unwrap().detail.clone())
        .collect();
    let of = |file: &Path| {
        let file = file.to_str().unwrap();
        blind.iter().any(|detail| detail.contains(file)) || traced.done.stderr_text().contains(file)
    };
    assert!(of(&own), "its own is not named: {blind:?}");
    assert!(!of(&other), "another's is named: {blind:?}");
}
