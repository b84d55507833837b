//! Credentials that are used and not sent: known by what they sign, and by what is shown of them.

use super::{WRITTEN, count, goes_to, sent, tls_programs::installed};
use crate::{
    agent::Agent,
    command::{Act, Background, act, sh},
    events::{Ask as _, Event, list},
    machine::{Scratch, find, kernel, patience, turn, wait_for},
    plant,
    server::{Sink, free_port},
};
use keytrail_model::IdentifiedBy;
use std::{fs, path::Path};

fn by(event: &Event) -> &'static str {
    IdentifiedBy::word_of(event.evidence.as_ref().map_or(0, |e| e.identified_by))
}

/// What is said to have been named, by what this way; of everything else nothing may be said that is more than lineage.
fn named(agent: &Agent, root: u32, word: &str) -> Vec<Event> {
    agent.expect(word, root, |e| {
        e.is("credential_sent")
            && e.in_tree(root)
            && by(e) == word
            && !WRITTEN.contains(&e.channel())
    });
    agent.wait_idle();
    let mut all = sent(agent, root);
    all.retain(|e| e.grade() == "identified");
    assert!(all.iter().all(|e| by(e) == word), "{}", list(&all));
    all
}

/// A request that AWS would take: signed by curl, and one whose signature is in its URL.
pub fn curl_signs_for_aws() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let key = plant::aws();
    let id = key.identifier.clone().unwrap();
    let agent = Agent::start(&scratch);
    for script in [
        "curl -s --aws-sigv4 aws:amz:eu-west-1:s3 -K - http://127.0.0.1:$1/reports/q3.csv <<END
user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"
END
:",
        "S=$(printf x | openssl dgst -sha256 -hmac \"$AWS_SECRET_ACCESS_KEY\" -hex | cut -d' ' -f2)
         curl -s \"http://127.0.0.1:$1/reports/q3.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=$AWS_ACCESS_KEY_ID%2F20260101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Signature=$S\"; :",
    ] {
        let done = sh(script)
            .arg(sink.port.to_string())
            .env("AWS_ACCESS_KEY_ID", &id)
            .env(key.name, &key.value)
            .run()
            .ok();
        let all = named(&agent, done.pid, "aws_signature");
        count(&all, 1, "signed requests");
        let event = &all[0];
        assert!(event.shows(&key), "{}", event.brief());
        assert_eq!(event.credential_kind(), "aws-access-key");
        assert!(event.executable().ends_with("/curl"), "{}", event.brief());
        let request = event.request.as_ref().unwrap();
        assert_eq!((&request.method[..], &request.path[..]), ("GET", "/reports/q3.csv"));
        goes_to(event, &["127.0.0.1"], sink.port);
    }
    assert!(sink.has(&format!("Credential={id}/")) && !sink.has(&key.value));
}

/// The library of Google asks for a token as every service account does: with a token that its key has signed.
pub fn google_auth_signs_an_assertion() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let file = scratch.make("srv").join("exporter.json");
    let planted = plant::service_account(&file);
    let agent = Agent::start(&scratch);
    let script = "import json, sys, urllib.request
from google.oauth2 import service_account
info = json.load(open(sys.argv[1]))
info['token_uri'] = 'http://127.0.0.1:' + sys.argv[2] + '/token'
held = service_account.Credentials.from_service_account_info(info, scopes=['x'])
class Answer:
    def __init__(self, got): self.status, self.headers, self.data = got.status, got.headers, got.read()
def ask(url, method='GET', body=None, headers=None, **_):
    return Answer(urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)))
try: held.refresh(ask)
except Exception as e: print(e)";
    let done = act(installed("python/bin/python3"))
        .args(["-c", script])
        .arg(&file)
        .arg(sink.port.to_string())
        .run()
        .ok();
    assert!(sink.has("assertion=eyJ"), "{}", done.stdout_text());
    let all = named(&agent, done.pid, "jwt_signature");
    count(&all, 1, "assertions");
    assert!(all[0].shows(&planted), "{}", all[0].brief());
    assert_eq!(Path::new(all[0].path()), file, "{}", all[0].brief());
    let request = all[0].request.as_ref().unwrap();
    assert_eq!((&request.method[..], &request.path[..]), ("POST", "/token"));
    goes_to(&all[0], &["127.0.0.1"], sink.port);
}

/// Makes a private key; no other file ever holds it.
fn key(file: &Path, args: &[&str]) {
    let made = act("openssl").args(args).run().ok();
    fs::write(file, made.stdout).unwrap();
}

/// As a GitHub App does: a JSON Web Token that names a number and is signed by a key, RSA or of a curve.
pub fn openssl_signs_a_token() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let place = scratch.make("srv");
    let other = place.join("other.pem");
    key(
        &other,
        &["ecparam", "-genkey", "-noout", "-name", "prime256v1"],
    );
    let agent = Agent::start(&scratch);
    // What openssl makes of a curve's signature is not what a token has: RFC 7518 wants two numbers side by side.
    let script = "b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
raw() { if [ $1 = ES256 ]; then openssl asn1parse -inform DER | sed -n 's/.*INTEGER *://p' | while read -r n; do printf '%064s' $n | tr ' ' 0 | tail -c 64; done | xxd -r -p; else cat; fi; }
cat \"$4\" >/dev/null
text=$(printf '{\"alg\":\"%s\",\"typ\":\"JWT\"}' $2 | b64).$(printf '{\"iss\":\"48151\",\"exp\":1795289040}' | b64)
token=$text.$(printf %s $text | openssl dgst -sha256 -sign \"$3\" -binary | raw $2 | b64)
curl -s -H \"Authorization: Bearer $token\" http://127.0.0.1:$1/app/installations; :";
    for (algorithm, args) in [
        ("RS256", &["genrsa", "2048"][..]),
        (
            "ES256",
            &["ecparam", "-genkey", "-noout", "-name", "prime256v1"],
        ),
    ] {
        let file = place.join(format!("{algorithm}.pem"));
        key(&file, args);
        let done = sh(script)
            .arg(sink.port.to_string())
            .arg(algorithm)
            .arg(&file)
            .arg(&other)
            .run()
            .ok();
        let all = named(&agent, done.pid, "jwt_signature");
        count(&all, 1, "tokens");
        let text = all[0].brief();
        let read = agent.expect("the key's own read", done.pid, |e| {
            e.is("credential_read") && e.in_tree(done.pid) && Path::new(e.path()) == file
        });
        // The one that signed it, and not the one that the shell has read as well.
        assert_eq!(all[0].fingerprint(), read.fingerprint(), "{text}");
        let path = &all[0].request.as_ref().unwrap().path;
        assert_eq!(path, "/app/installations", "{text}");
        goes_to(&all[0], &["127.0.0.1"], sink.port);
    }
}

/// A certificate with its key, in two files; neither is read by whoever makes them.
fn certificate(dir: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (certificate, key) = (
        dir.join(format!("{name}.crt")),
        dir.join(format!("{name}.key")),
    );
    act("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
        ])
        .args(["-subj", &format!("/CN={name}"), "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .limit(120)
        .run()
        .ok();
    (certificate, key)
}

/// A client shows its certificate: up to TLS 1.2 in clear. What the server shows of its own is no use of it.
pub fn openssl_shows_a_client_certificate() {
    let _turn = turn();
    let scratch = Scratch::new();
    let place = scratch.make("srv");
    let (server, server_key) = certificate(&place, "server.example.test");
    let (client, client_key) = certificate(&place, "client.example.test");
    let agent = Agent::start(&scratch);
    let port = free_port();
    let serving = act("openssl")
        .args(["s_server", "-quiet", "-Verify", "1", "-accept"])
        .arg(port.to_string())
        .arg("-cert")
        .arg(&server)
        .arg("-key")
        .arg(&server_key)
        .spawn();
    wait_for("the server", patience(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let connect = |version: &str| {
        sh("sleep 0.5 | openssl s_client -quiet $4 -connect 127.0.0.1:$1 -cert \"$2\" -key \"$3\"; :")
            .arg(port.to_string())
            .arg(&client)
            .arg(&client_key)
            .arg(version)
            .run()
            .ok()
    };
    let done = connect("-tls1_2");
    let all = named(&agent, done.pid, "client_certificate");
    count(&all, 1, "certificates");
    let text = all[0].brief();
    assert_eq!(Path::new(all[0].path()), client_key, "{text}");
    assert_eq!(
        (all[0].channel(), all[0].found_by()),
        ("tls", "socket"),
        "{text}"
    );
    goes_to(&all[0], &["127.0.0.1"], port);
    // TLS 1.3 hides it: nothing is claimed, and of the server nothing at all.
    let hidden = connect("-tls1_3");
    agent.wait_idle();
    let claimed = |root: u32| -> Vec<Event> {
        let mut all = sent(&agent, root);
        all.retain(|e| e.grade() != "lineage");
        all
    };
    count(&claimed(hidden.pid), 0, "claims about TLS 1.3");
    count(&claimed(serving.pid()), 0, "claims about the server");
}

fn agent_of_ssh(socket: &Path) -> Background {
    let serving = act("ssh-agent").args(["-D", "-a"]).arg(socket).spawn();
    wait_for("the agent", patience(20), || {
        std::os::unix::net::UnixStream::connect(socket).ok()
    });
    serving
}

/// A key of SSH whose signature its agent makes: who asked for it, by the public half.
pub fn ssh_agent_is_asked_to_sign() {
    let _turn = turn();
    if kernel() < (6, 3) || find("ssh-agent").is_none() {
        eprintln!("skipped: no ssh-agent, or no hook for Unix sockets");
        return;
    }
    let scratch = Scratch::new();
    let place = scratch.make("home");
    let (file, socket) = (place.join("deploy"), place.join("agent"));
    act("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "deploy@test", "-f"])
        .arg(&file)
        .run()
        .ok();
    let serving = agent_of_ssh(&socket);
    let run = |act: Act| {
        act.env("SSH_AUTH_SOCK", &socket)
            .env("HOME", &place)
            .run()
            .ok()
    };
    run(act("ssh-add").arg("-q").arg(&file));
    let agent = Agent::start(&scratch);
    let done = run(act("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "file", "-f"])
        .arg(&file)
        .stdin(&b"release 1.2"[..]));
    assert!(done.stdout_text().contains("BEGIN SSH SIGNATURE"));
    let all = named(&agent, done.pid, "public_key");
    let text = list(&all);
    assert!(!all.is_empty(), "{text}");
    for event in &all {
        assert_eq!(event.channel(), "unix", "{text}");
        assert!(event.identifier().contains("deploy@test"), "{text}");
        let to = event.destination.as_ref().unwrap();
        assert_eq!(to.peer.as_ref().unwrap().pid, serving.pid(), "{text}");
    }
    // It answers with the public halves of what it has: that is no use of them.
    count(&sent(&agent, serving.pid()), 0, "sends of the agent");
}

/// PostgreSQL asks for a proof of the password (SCRAM), which does not hold it.
pub fn psql_logs_in_by_scram() {
    let _turn = turn();
    let (Some(server), Some(initdb)) = (postgres("postgres"), postgres("initdb")) else {
        eprintln!("skipped: no PostgreSQL here");
        return;
    };
    let scratch = Scratch::new();
    let data = scratch.make("cluster");
    let as_nobody = |program: &Path| {
        act("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(program)
    };
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    as_nobody(&initdb)
        .args(["-U", "postgres", "--auth", "trust", "-D"])
        .arg(&data)
        .current_dir(&data)
        .limit(120)
        .run()
        .ok();
    let hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), hba).unwrap();
    let port = free_port();
    let _serving = as_nobody(&server)
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-p",
        ])
        .arg(port.to_string())
        .arg("-D")
        .arg(&data)
        .current_dir(&data)
        .spawn();
    let sql = |user: &str, text: &str| {
        act("psql")
            .args([
                "-qtAX",
                "-h",
                "127.0.0.1",
                "-U",
                user,
                "-d",
                "postgres",
                "-p",
            ])
            .arg(port.to_string())
            .args(["-c", text])
    };
    wait_for("PostgreSQL", patience(60), || {
        let up = sql("postgres", "select 1").run();
        up.status.success().then_some(())
    });
    let password = plant::typed_password().value;
    let made = format!("create role orders_rw login password '{password}'");
    sql("postgres", &made).run().ok();
    let agent = Agent::start(&scratch);
    let url = format!("postgres://orders_rw:{password}@127.0.0.1:{port}/postgres");
    let done = sh("psql -qtAX \"$DATABASE_URL\" -c 'select 7 * 6'")
        .env("DATABASE_URL", &url)
        .run()
        .ok();
    assert_eq!(done.stdout_text().trim(), "42");
    let all = named(&agent, done.pid, "scram_login");
    count(&all, 1, "logins");
    let text = all[0].brief();
    assert_eq!(all[0].credential_kind(), "postgresql-url", "{text}");
    assert!(all[0].identifier().starts_with("orders_rw@"), "{text}");
    goes_to(&all[0], &["127.0.0.1"], port);
    // Whoever logs in without a password proves none.
    let trusted = sql("postgres", "select 1")
        .env("DATABASE_URL", &url)
        .run()
        .ok();
    agent.wait_idle();
    let mut claimed = sent(&agent, trusted.pid);
    claimed.retain(|e| e.grade() != "lineage");
    count(&claimed, 0, "claims about a login without a password");
}

/// A program of a PostgreSQL that Debian has put aside by version.
fn postgres(name: &str) -> Option<std::path::PathBuf> {
    find(name).or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
            .find(|path| path.is_file())
    })
}
