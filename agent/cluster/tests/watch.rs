//! The watch against a server that speaks the published protocol over TLS, well and badly. There is no API server to be had
//! here: what it answers is written down as the documentation has it.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_cluster::{Cluster, PodUpdate, Sources, Watch};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.secret-of-the-account";

type Tls = StreamOwned<ServerConnection, TcpStream>;

struct Api {
    dir: TempDir,
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0_u32, |bits, &b| bits << 8 | u32::from(b));
        for n in 0..4 {
            let digit = match n <= chunk.len() {
                true => DIGITS[(bits >> (18 - 6 * n) & 63) as usize],
                false => b'=',
            };
            text.push(char::from(digit));
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// The head of a request; `None` when the client is gone.
fn head(stream: &mut Tls) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

impl Api {
    /// `answer` gets the path of each request and how many came before it, and writes what it wants.
    fn start(answer: impl Fn(usize, &str, &mut Tls) + Send + Sync + 'static) -> Api {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), pem("CERTIFICATE", cert.der())).unwrap();
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::default());
        let (config, answer) = (Arc::new(config), Arc::new(answer));
        let (noted, ended): (_, Arc<AtomicBool>) = (requests.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (config, answer, noted) = (config.clone(), answer.clone(), noted.clone());
                let stream = stream.unwrap();
                std::thread::spawn(move || {
                    let tls = ServerConnection::new(config).unwrap();
                    let mut stream = StreamOwned::new(tls, stream);
                    let Some(head) = head(&mut stream) else {
                        return;
                    };
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    let n = {
                        let mut noted: std::sync::MutexGuard<'_, Vec<String>> =
                            noted.lock().unwrap();
                        noted.push(head);
                        noted.len() - 1
                    };
                    answer(n, &path, &mut stream);
                });
            }
        });
        Api {
            dir,
            port,
            requests,
            stop,
        }
    }

    fn watch(&self) -> (Watch, Receiver<PodUpdate>) {
        let cluster = Cluster {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            node: "node-1".to_owned(),
            account: self.dir.path().to_owned(),
        };
        let (sender, received) = channel();
        let sources = Sources {
            kubelet: None,
            server: Some(Ok(cluster)),
            ..Sources::default()
        };
        let watch = Watch::start(sources, move |what| {
            let _ = sender.send(what);
        });
        (watch.unwrap(), received)
    }

    fn heads(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

fn whole(stream: &mut Tls, head: &str, body: &str) {
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.flush();
}

fn begin(stream: &mut Tls) {
    let _ = write!(stream, "{OK}Transfer-Encoding: chunked\r\n\r\n");
    let _ = stream.flush();
}

fn chunk(stream: &mut Tls, bytes: &str) -> bool {
    write!(stream, "{:x}\r\n{bytes}\r\n", bytes.len()).is_ok() && stream.flush().is_ok()
}

fn uid(n: u32) -> String {
    format!("{n:08x}-1111-2222-3333-444455556666")
}

fn pod(n: u32, name: &str, version: u32) -> String {
    format!(
        r#"{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","uid":"{}","resourceVersion":"{version}"}},"spec":{{"nodeName":"node-1","containers":[{{"env":[{{"name":"K","value":"hunter2"}}]}}]}},"status":{{"containerStatuses":[{{"name":"app","image":"i","imageID":"","containerID":"containerd://{n:064x}"}}]}}}}"#,
        uid(n),
    )
}

fn list(pods: &[String], version: u32, next: &str) -> String {
    format!(
        r#"{{"kind":"PodList","metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":[{}]}}"#,
        pods.join(",")
    )
}

fn change(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

/// What was reported, in short; troubles and lacks of room by their first word.
fn next(received: &Receiver<PodUpdate>) -> String {
    match received
        .recv_timeout(PATIENCE)
        .expect("nothing was reported")
    {
        PodUpdate::Pod(names) => {
            assert!(!format!("{names:?}").contains("hunter2"));
            format!("pod {} {}", &names.uid[..8], names.name)
        }
        PodUpdate::Gone(uid) => format!("gone {}", &uid[..8]),
        PodUpdate::Trouble(why) => format!("trouble {why}"),
        PodUpdate::NoRoom(count) => format!("no room {count}"),
        PodUpdate::Unreadable => "unreadable".to_owned(),
    }
}

fn all(received: &Receiver<PodUpdate>, expected: &[&str]) {
    for line in expected {
        let got = next(received);
        assert!(got.starts_with(line), "{got:?} instead of {line:?}");
    }
}

fn is_watch(path: &str) -> bool {
    path.contains("&watch=1")
}

/// Keeps a connection open until the client goes.
fn hold(stream: &mut Tls) {
    let _ = stream.read(&mut [0]);
}

#[test]
fn pods_come_change_and_go() {
    let api =
        Api::start(
            |_, path, stream| match (is_watch(path), path.contains("continue=a%26b")) {
                (false, false) => whole(stream, OK, &list(&[pod(1, "one", 5)], 7, "a&b")),
                (false, true) => whole(stream, OK, &list(&[pod(2, "two", 6)], 7, "")),
                (true, _) => {
                    begin(stream);
                    let text = [
                        change("ADDED", &pod(3, "three", 8)),
                        change("MODIFIED", &pod(3, "three", 9)),
                        "\n".to_owned(),
                        change("MODIFIED", &pod(1, "uno", 10)),
                        change("SOMETHING_NEW", &pod(4, "four", 11)),
                        change(
                            "BOOKMARK",
                            r#"{"kind":"Pod","metadata":{"resourceVersion":"12"}}"#,
                        ),
                        change("DELETED", &pod(2, "two", 13)),
                        change("DELETED", &pod(9, "never seen", 14)),
                    ]
                    .concat();
                    // In pieces that have nothing to do with the lines.
                    for piece in text.as_bytes().chunks(37) {
                        chunk(stream, std::str::from_utf8(piece).unwrap());
                    }
                    hold(stream);
                }
            },
        );
    let (watch, received) = api.watch();
    all(
        &received,
        &[
            "pod 00000001 one",
            "pod 00000002 two",
            "pod 00000003 three",
            "pod 00000001 uno",
            "gone 00000002",
        ],
    );
    let heads = api.heads();
    assert!(
        heads[0]
            .starts_with("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&limit=50 HTTP/1.1")
    );
    assert!(heads[2].contains("&watch=1&allowWatchBookmarks=true"));
    assert!(heads[2].contains("&resourceVersion=7 "));
    for head in &heads {
        assert!(
            head.contains(&format!("authorization: Bearer {TOKEN}\r\n")),
            "{head}"
        );
    }
    // It ends although the server says nothing.
    let began = Instant::now();
    drop(watch);
    assert!(began.elapsed() < PATIENCE / 2);
}

/// The server ends each watch after a while: the next goes on from the last version, bookmarks included, and nothing is reported
/// twice. After 410 everything is asked for anew, and what has gone meanwhile is reported.
#[test]
fn watches_end_and_go_on() {
    let api = Api::start(|n, path, stream| match n {
        0 => whole(
            stream,
            OK,
            &list(&[pod(1, "one", 5), pod(2, "two", 5)], 7, ""),
        ),
        1 => {
            begin(stream);
            chunk(
                stream,
                &change("BOOKMARK", r#"{"metadata":{"resourceVersion":"70"}}"#),
            );
            chunk(stream, "");
        }
        2 => {
            assert!(path.contains("resourceVersion=70"), "{path}");
            begin(stream);
            let status = r#"{"kind":"Status","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}"#;
            chunk(stream, &change("ERROR", status));
            hold(stream);
        }
        3 => whole(
            stream,
            OK,
            &list(&[pod(2, "two", 80), pod(3, "three", 81)], 82, ""),
        ),
        4 => whole(stream, "HTTP/1.1 410 Gone\r\n", "{}"),
        5 => whole(stream, OK, &list(&[pod(3, "three", 90)], 92, "")),
        _ => {
            begin(stream);
            hold(stream);
        }
    });
    let (_watch, received) = api.watch();
    all(
        &received,
        &[
            "pod 00000001 one",
            "pod 00000002 two",
            "pod 00000003 three",
            "gone 00000001",
            "gone 00000002",
        ],
    );
    assert!(received.try_recv().is_err());
}

/// Nothing that a server does holds up the agent or fills its memory; once it is well again, names come.
#[test]
fn bad_servers_are_reported_once_and_tried_again() {
    let api = Api::start(|n, path, stream| match n {
        0 => whole(
            stream,
            "HTTP/1.1 403 Forbidden\r\n",
            r#"{"message":"hunter2"}"#,
        ),
        1 => whole(stream, OK, "this is no list"),
        2 => {
            let _ = stream.write_all(&[0xff; 200_000]);
        }
        3 => whole(stream, OK, &list(&[pod(1, "one", 5)], 7, "")),
        4 => {
            begin(stream);
            chunk(stream, "{\"type\":\"ADDED\",\"object\":7}\n");
            hold(stream);
        }
        _ if is_watch(path) => {
            begin(stream);
            hold(stream);
        }
        _ => whole(stream, OK, &list(&[pod(2, "two", 9)], 9, "")),
    });
    let (_watch, received) = api.watch();
    let first = next(&received);
    assert!(
        first.starts_with("trouble") && first.contains("403"),
        "{first}"
    );
    assert!(
        !first.contains("hunter2") && !first.contains("secret"),
        "{first}"
    );
    // The other two are the same outage.
    all(
        &received,
        &[
            "pod 00000001 one",
            "trouble",
            "pod 00000002 two",
            "gone 00000001",
        ],
    );
}

#[test]
fn what_is_too_large_is_not_read() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let noted = written.clone();
    let api = Api::start(move |n, path, stream| match n {
        0 => {
            // A page without an end.
            begin(stream);
            let block = " ".repeat(1 << 20);
            let count = (0..64).take_while(|_| chunk(stream, &block)).count();
            noted.lock().unwrap().push(count);
        }
        1 => {
            let labels = (0..500).fold(String::new(), |mut text, n| {
                let _ = write!(text, "\"l{n}\":\"{}\",", "v".repeat(60));
                text
            });
            let one = pod(1, "one", 5).replace(
                "\"name\":\"one\"",
                &format!("\"labels\":{{{labels}\"z\":\"z\"}},\"name\":\"one\""),
            );
            whole(stream, OK, &list(&[one], 7, ""));
        }
        2 => {
            // A line without an end.
            begin(stream);
            let block = "x".repeat(1 << 20);
            let count = (0..64).take_while(|_| chunk(stream, &block)).count();
            noted.lock().unwrap().push(count);
        }
        // More pods than a node has.
        3 => {
            let pods: Vec<_> = (0..2_500).map(|n| pod(n, "p", 5)).collect();
            whole(stream, OK, &list(&pods, 9, ""));
        }
        _ if is_watch(path) => {
            begin(stream);
            chunk(stream, &change("ADDED", &pod(77_777, "late", 10)));
            hold(stream);
        }
        _ => {}
    });
    let (_watch, received) = api.watch();
    all(&received, &["trouble", "pod 00000001 one", "trouble"]);
    let mut pods = 0;
    let lacking = loop {
        match next(&received) {
            line if line.starts_with("pod") => pods += 1,
            line => break line,
        }
    };
    // One of them is the one that is known already.
    assert!((1_999..=2_000).contains(&pods), "{pods}");
    assert_eq!(lacking, "no room 500");
    all(&received, &["no room 1"]);
    let written = written.lock().unwrap();
    assert!(written.iter().all(|&blocks| blocks < 40), "{written:?}");
}

/// Neither a server that says nothing nor one with another certificate gets the token for nothing, and the end is quick.
#[test]
fn a_server_that_is_not_the_clusters_gets_no_token() {
    let real = Api::start(|_, _, _| {});
    let other = Api::start(|_, _, _| {});
    let certificate = other.dir.path().join("ca.crt");
    std::fs::copy(&certificate, real.dir.path().join("ca.crt")).unwrap();
    let (watch, received) = real.watch();
    let why = next(&received);
    assert!(
        why.starts_with("trouble the API server cannot be reached"),
        "{why}"
    );
    assert!(real.heads().is_empty());
    drop(watch);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dead = other;
    dead.port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let (watch, _reported) = dead.watch();
    drop(watch);
    assert!(began.elapsed() < PATIENCE / 2);
}

/// A token is read for each request: the kubelet replaces it.
#[test]
fn a_new_token_is_used() {
    let api = Api::start(|_, path, stream| match is_watch(path) {
        false => whole(stream, OK, &list(&[pod(1, "one", 5)], 7, "")),
        true => {
            begin(stream);
            chunk(stream, "");
        }
    });
    let (_watch, received) = api.watch();
    all(&received, &["pod 00000001 one"]);
    std::fs::write(api.dir.path().join("token"), "renewed").unwrap();
    let end = Instant::now() + PATIENCE;
    while !api
        .heads()
        .iter()
        .any(|head| head.contains("Bearer renewed\r\n"))
    {
        assert!(Instant::now() < end, "the old token is still used");
        std::thread::sleep(Duration::from_millis(20));
    }
}
