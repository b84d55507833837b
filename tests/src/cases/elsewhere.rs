//! Where it runs: asked from another host, watched by Prometheus and a kubelet, in a cluster.

use super::inventory::Cgroup;
use crate::{
    agent::{Agent, Setup},
    command::{Background, act, sh},
    events::{Ask as _, Event, list, parse_lines},
    machine::{Scratch, keytrail, patience, turn, wait_for},
    plant,
    server::free_port,
};
use fake_kubelet::{Kubelet, PodText};
use keytrail_proto::v1::{GetStatusResponse, Process};
use std::{fs, path::Path};

#[path = "../../../agent/cluster/tests/fake/kubelet.rs"]
#[allow(dead_code, reason = "the tests of the watch use the rest")]
mod fake_kubelet;

/// The API server of a cluster as far as the agent asks it: a list without pods, and a pod once the file `late` is there.
/// There is no real one to be had here.
const API: &str = r#"
import http.server, json, os, ssl, sys, time
directory, port, uid, container = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
token = open(directory + "/account/token").read()
pod = {"metadata": {"name": "api-7f9c8d-abcde", "namespace": "payments", "uid": uid, "resourceVersion": "9",
  "labels": {"app": "api", "pod-template-hash": "7f9c8d"},
  "ownerReferences": [{"kind": "ReplicaSet", "name": "api-7f9c8d", "controller": True}]},
  "spec": {"serviceAccountName": "api", "nodeName": "n1", "containers": [{"env": [{"name": "K", "value": "of-the-" "specification"}]}]},
  "status": {"containerStatuses": [{"name": "app", "image": "registry/api:1", "containerID": "containerd://" + container,
    "imageID": "registry/api@sha256:" + "cd" * 32}]}}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        allowed = self.headers["Authorization"] == "Bearer " + token
        asked = self.path.startswith("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&")
        if not (allowed and asked):
            return self.send_error(403)
        if "&watch=1" not in self.path:
            body = json.dumps({"metadata": {"resourceVersion": "7"}, "items": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not os.path.exists(directory + "/late"):
            time.sleep(0.02)
        line = json.dumps({"type": "ADDED", "object": pod}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()
        time.sleep(600)
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory + "/server.crt", directory + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
open(directory + "/listening", "w").close()
server.serve_forever()
"#;

/// An authority (`ca`), and what it signs: `server` for this host, `client` with the identity spiffe://test/reader.
fn certificates(dir: &Path) {
    const MAKE: &str = r#"
        set -e
        cd "$1"
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        openssl req -x509 $new -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
        sign() {
            openssl req $new -subj /CN=$1 -keyout $1.key -out $1.csr
            printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >$1.ext
            openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.crt
        }
        sign server DNS:localhost,IP:127.0.0.1
        sign client URI:spiffe://test/reader
    "#;
    sh(MAKE).arg(dir).run().ok();
}

fn get(port: u16, path: &str) -> String {
    let url = format!("http://127.0.0.1:{port}{path}");
    act("curl")
        .args(["-s", "-m", "20", &url])
        .run()
        .stdout_text()
}

fn process(event: &Event) -> &Process {
    event.process.as_ref().unwrap()
}

/// `keytrail watch` elsewhere gets what happens here, and who has no certificate gets nothing; metrics count the same.
pub fn asked_from_another_host() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("tls");
    certificates(&dir);
    let (tls, metrics) = (free_port(), free_port());
    let agent = Setup::new(&scratch)
        .config(&format!(
            "[tcp]\nlisten = \"127.0.0.1:{tls}\"\ncertificate_file = \"{dir}/server.crt\"\nkey_file = \"{dir}/server.key\"\n\
             client_ca_file = \"{dir}/ca.crt\"\nread = [\"spiffe://test/reader\"]\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"",
            dir = dir.display()
        ))
        .start();
    wait_for("the agent to be ready", patience(30), || {
        (get(metrics, "/readyz") == "ok\n").then_some(())
    });
    assert_eq!(get(metrics, "/healthz"), "ok\n");
    let token = plant::github();
    let holder = act("true").env("GITHUB_TOKEN", &token.value).run().ok();
    let reported = agent.expect("the exposure", holder.pid, |e| {
        e.is("credential_exposed") && e.pid() == holder.pid
    });
    let watch = |with: &[&str]| {
        act(keytrail())
            .args(["watch", "--no-follow", "-o", "json", "--address"])
            .arg(format!("https://localhost:{tls}"))
            .args(with.iter().map(|name| match name.starts_with("--") {
                true => (*name).to_owned(),
                false => dir.join(name).display().to_string(),
            }))
            .run()
    };
    let seen = watch(&[
        "--tls-ca",
        "ca.crt",
        "--tls-cert",
        "client.crt",
        "--tls-key",
        "client.key",
    ])
    .ok();
    let seen = parse_lines(&seen.stdout_text());
    assert!(seen.iter().any(|e| e.id == reported.id), "{}", list(&seen));
    // The agent's own certificate is good, and has none of the names.
    let other = watch(&[
        "--tls-ca",
        "ca.crt",
        "--tls-cert",
        "server.crt",
        "--tls-key",
        "server.key",
    ]);
    assert!(!other.status.success() && other.stdout_text().is_empty());
    assert!(
        other.stderr_text().contains("tcp.read"),
        "{}",
        other.stderr_text()
    );
    let counted = wait_for("the count of events", patience(30), || {
        let text = get(metrics, "/metrics");
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("keytrail_events_total{kind=\"credential_exposed\"} "))?;
        line.parse::<u64>().ok().filter(|&n| n > 0)
    });
    assert!(counted >= 1);
    // Serving others is nobody's use of the agent's key.
    let me = agent.pid();
    let mine: Vec<_> = agent
        .events()
        .into_iter()
        .filter(|e| e.pid() == me && e.credential.is_some())
        .collect();
    assert!(mine.is_empty(), "{}", list(&mine));
}

/// A pod of a cluster, and who says what it is called.
struct Called {
    uid: String,
    container: String,
    /// What may be printed and kept nowhere.
    secrets: Vec<String>,
    /// How the agent is told where to ask.
    config: String,
    launch: Vec<String>,
    /// What `doctor` says of who serves.
    source: &'static str,
}

fn hex(count: usize) -> String {
    plant::text(b"0123456789abcdef", count)
}

impl Called {
    fn new(source: &'static str) -> Self {
        Self {
            uid: format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12)),
            container: hex(64),
            secrets: vec!["of-the-specification".to_owned()],
            config: String::new(),
            launch: Vec::new(),
            source,
        }
    }

    /// A name comes late, by `tell`, and then stands in what happens: joined by the ids in the cgroup alone. The secrets are
    /// nowhere, and the recording gives the same events.
    #[expect(clippy::too_many_lines, reason = "one story, in its order")]
    fn check(&self, scratch: &Scratch, report: impl FnOnce(&Agent)) {
        let (uid, container) = (&self.uid, &self.container);
        let recording = scratch.join("recording");
        let launch: Vec<_> = self.launch.iter().map(String::as_str).collect();
        let agent = Setup::new(scratch)
            .config(&self.config)
            .arg("--record")
            .arg(&recording)
            .launch(&launch);
        agent.ready();
        let cgroup = Cgroup::make(&format!("keytrail-kubepods/pod{uid}/{container}"));
        let run = |name: &str| {
            // The shell begins outside, and has nothing there.
            let done = sh("echo $$ >\"$1\" && read -r key && export \"$2=$key\" && exec sleep 0.5")
                .arg(cgroup.procs())
                .arg(name)
                .stdin(plant::github().value + "\n")
                .run()
                .ok();
            agent.expect("the exposure in the pod", done.pid, |e| {
                e.is("credential_exposed") && e.env_name() == name && process(e).pod == *uid
            })
        };
        let before = run("EARLY_GITHUB_TOKEN");
        assert_eq!(process(&before).workload, None);
        report(&agent);
        let late = agent.expect("the name", 0, |e| e.is("workload_named"));
        let names = late.workload.clone().unwrap();
        assert_eq!((&names.pod_uid, &names.container_id), (uid, container));
        assert_eq!(
            [
                &names.namespace,
                &names.pod,
                &names.container,
                &names.owner_kind,
                &names.owner,
                &names.service_account,
                &names.node
            ],
            [
                "payments",
                "api-7f9c8d-abcde",
                "app",
                "Deployment",
                "api",
                "api",
                "n1"
            ]
        );
        assert_eq!(names.image_digest, format!("sha256:{}", "cd".repeat(32)));
        let after = run("LATER_GITHUB_TOKEN");
        assert_eq!(process(&after).workload.as_ref(), Some(&names));
        // The holder on the host beside it has no such name.
        assert_eq!(process(&agent.sentinel()).workload, None);
        let doctor = agent.client("doctor").args(["-o", "json"]).run();
        let status: GetStatusResponse = serde_json::from_str(&doctor.stdout_text()).unwrap();
        let serves: Vec<_> = status.name_sources.iter().filter(|s| s.serves).collect();
        assert!(
            serves.len() == 1 && serves[0].source == self.source,
            "{:?}",
            status.name_sources
        );
        let me = agent.pid();
        agent.stop();
        let events = agent.events();
        let mine: Vec<_> = events
            .iter()
            .filter(|e| e.pid() == me && e.credential.is_some())
            .cloned()
            .collect();
        assert!(mine.is_empty(), "{}", list(&mine));
        // Nor is it anybody's use what the agent asked for, whatever is in the answer.
        let answered: Vec<_> = events
            .iter()
            .filter(|e| e.pid() == std::process::id())
            .filter(|e| e.is("credential_sent") || e.is("credential_taken"))
            .cloned()
            .collect();
        assert!(answered.is_empty(), "{}", list(&answered));
        let printed = String::from_utf8(agent.printed()).unwrap();
        for secret in &self.secrets {
            assert!(!printed.contains(secret), "it is printed");
            sh("! grep -rqaF -- \"$1\" \"$2\" \"$3\"")
                .arg(secret)
                .arg(scratch.join("agent"))
                .arg(&recording)
                .run()
                .ok();
        }
        let replayed = act(keytrail())
            .args(["replay", "-o", "json"])
            .arg(&recording)
            .run()
            .ok();
        let mut replayed = parse_lines(&replayed.stdout_text());
        // Nobody asked the agent for these.
        replayed.retain(|e| !e.is("process_start") && !e.is("process_exit"));
        assert_eq!(list(&replayed), list(&events));
        let of = |events: &[Event]| {
            events
                .iter()
                .filter(|e| e.workload.is_some())
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&replayed), of(&events));
    }
}

/// By the API server, where the kubelet has no socket.
pub fn pods_have_names() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("cluster");
    certificates(&dir);
    let account = scratch.make("cluster/account");
    let token = format!(
        "eyJhbGciOiJSUzI1NiJ9.{}.{}",
        plant::text(b"abcdefghij", 90),
        plant::text(b"klmnopqrst", 90)
    );
    fs::write(account.join("token"), &token).unwrap();
    fs::copy(dir.join("ca.crt"), account.join("ca.crt")).unwrap();
    let port = free_port();
    let mut called = Called::new("api_server");
    let _api: Background = act("python3")
        .args(["-c", API])
        .arg(&dir)
        .args([
            port.to_string(),
            called.uid.clone(),
            called.container.clone(),
        ])
        .spawn();
    wait_for("the API server", patience(20), || {
        dir.join("listening").exists().then_some(())
    });
    called.secrets.push(token[22..].to_owned());
    called.secrets.push(token);
    called.config = format!("[kubernetes]\naccount_dir = {account:?}");
    called.launch = vec![
        "env".to_owned(),
        "KUBERNETES_SERVICE_HOST=127.0.0.1".to_owned(),
        format!("KUBERNETES_SERVICE_PORT={port}"),
        "NODE_NAME=n1".to_owned(),
    ];
    called.check(&scratch, |_| fs::write(dir.join("late"), "").unwrap());
}

/// By the kubelet, whose socket comes when the agent runs already, on a node that the agent is no pod of.
pub fn pods_have_names_by_the_kubelet() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("kubelet/pods-api");
    let socket = dir.join("pods-api.sock");
    let mut called = Called::new("kubelet");
    called.config = format!("[kubernetes]\npods_socket = {socket:?}");
    let mut kubelet = None;
    called.check(&scratch, |agent| {
        // This program, who is the kubelet, holds what is in the specification.
        let me = std::process::id();
        let (credential, file) = plant::aws_credentials(agent.home());
        std::thread::sleep(patience(1));
        fs::read(file).unwrap();
        agent.expect("the read by the kubelet", me, |e| {
            e.is("credential_read") && e.pid() == me
        });
        let pod = PodText {
            uid: &called.uid,
            namespace: "payments",
            name: "api-7f9c8d-abcde",
            container: &called.container,
            image: "registry/api:1",
            image_id: &format!("registry/api@sha256:{}", "cd".repeat(32)),
            secret: &format!("of-the-specification {}", credential.value),
        }
        .encoded();
        let beginning = vec![
            fake_kubelet::Event {
                kind: fake_kubelet::ADDED,
                pod,
            },
            fake_kubelet::Event {
                kind: fake_kubelet::INITIAL_SYNC_COMPLETE,
                pod: Vec::new(),
            },
        ];
        kubelet = Some(Kubelet::start(&socket, move |_| Ok(beginning.clone())));
    });
    assert!(kubelet.is_some_and(|kubelet| !kubelet.asked().is_empty()));
}

/// The chart renders, holds against the schemas of several versions of Kubernetes, and refuses what cannot work.
pub fn the_chart_holds() {
    let python = super::tls_programs::installed("python/bin/python3");
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/check.py");
    let checked = act(python).arg(check).run().ok();
    println!("{}", checked.stdout_text().trim());
}
