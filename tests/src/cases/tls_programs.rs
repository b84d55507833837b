//! Each TLS stack by a program that people run, as it is shipped: what it sends is seen, and where to.
//!
//! [`ROWS`] is the table of `docs/COVERAGE.md`; a test holds one against the other.

use super::{goes_to, sends_tls::LOOPBACK, sent};
use crate::{
    agent::Agent,
    command::{Act, act, sh},
    events::{Ask as _, Event, list},
    machine::{Scratch, find, keytrail, turn},
    plant,
    server::{TlsServer, free_port},
};
use std::path::{Path, PathBuf};

/// A program and what is claimed of it.
pub struct Row {
    /// Of the test.
    pub name: &'static str,
    pub stack: &'static str,
    pub program: &'static str,
    /// How the place of the hook is proven.
    pub site: &'static str,
    /// The hook that sees it.
    pub hook: &'static str,
    /// How its destination is found.
    pub destination: &'static str,
}

const fn row(
    name: &'static str,
    stack: &'static str,
    program: &'static str,
    site: &'static str,
    hook: &'static str,
    destination: &'static str,
) -> Row {
    Row {
        name,
        stack,
        program,
        site,
        hook,
        destination,
    }
}

const TABLE: &str = "Go's table of functions";
const NAME: &str = "name";
const REFERENCES: &str = "references to its error messages";
const METHODS: &str = "tables of its ciphers' methods";
const GO: &str = "crypto/tls.(*Conn).Write";
const ENCRYPT: &str = "MessageEncrypter::encrypt";
const FD: &str = "connection_fd";
const NESTED: &str = "nested_send";
const NEXT: &str = "next_send";

pub const ROWS: &[Row] = &[
    row(
        "go_hey",
        "Go 1.19",
        "hey (Debian), linked with C",
        TABLE,
        GO,
        FD,
    ),
    row("go_gh", "Go 1.19", "gh (Debian)", TABLE, GO, FD),
    row(
        "go_rclone",
        "Go 1.19",
        "rclone (Debian), linked with C",
        TABLE,
        GO,
        FD,
    ),
    row(
        "go_restic",
        "Go 1.19",
        "restic (Debian), linked with C",
        TABLE,
        GO,
        FD,
    ),
    row(
        "go_kubectl",
        "Go 1.27",
        "kubectl 1.37 (PyPI), stripped",
        TABLE,
        GO,
        FD,
    ),
    row("go_plain", "Go 1.27", "a client of net/http", TABLE, GO, FD),
    row("go_stripped", "Go 1.27", "the same, -s -w", TABLE, GO, FD),
    row(
        "go_pie",
        "Go 1.27",
        "the same, -s -w, position-independent",
        TABLE,
        GO,
        FD,
    ),
    row(
        "openssl_wheel",
        "OpenSSL 3",
        "pycurl (PyPI), libssl in pycurl.libs",
        NAME,
        "SSL_write",
        NESTED,
    ),
    row(
        "openssl_static",
        "OpenSSL 3",
        "sentry-cli (npm), names kept",
        NAME,
        "SSL_write",
        NESTED,
    ),
    row(
        "openssl_stripped",
        "OpenSSL 3.6",
        "atuin (PyPI), static, stripped",
        REFERENCES,
        "ssl_write_internal",
        NESTED,
    ),
    row(
        "s2n_awscrt",
        "s2n",
        "awscrt (PyPI), inside its module",
        NAME,
        "s2n_send",
        NESTED,
    ),
    row(
        "nss_tstclnt",
        "NSS",
        "tstclnt (Debian)",
        NAME,
        "PR_",
        NESTED,
    ),
    row(
        "boringssl_bun",
        "BoringSSL",
        "bun (npm), stripped, no unwinder's table",
        REFERENCES,
        "SSL_write",
        NEXT,
    ),
    row(
        "boringssl_grpcio",
        "BoringSSL",
        "grpcio (PyPI), in its module, HTTP/2",
        REFERENCES,
        "SSL_write",
        NESTED,
    ),
    row(
        "boringssl_envoy",
        "BoringSSL",
        "envoy (PyPI), stripped, adds the token as a proxy",
        REFERENCES,
        "SSL_write",
        NESTED,
    ),
    row(
        "rustls_uv",
        "rustls 0.23",
        "uv (PyPI), aws-lc, stripped",
        METHODS,
        ENCRYPT,
        NEXT,
    ),
    row(
        "rustls_deno",
        "rustls 0.23",
        "deno (npm), aws-lc, stripped, no unwinder's table",
        METHODS,
        ENCRYPT,
        NEXT,
    ),
    row(
        "rustls_maturin",
        "rustls 0.23",
        "maturin (PyPI), ring, static",
        METHODS,
        ENCRYPT,
        NEXT,
    ),
];

fn programs() -> PathBuf {
    // target/debug/keytrail
    let keytrail = keytrail();
    let target = keytrail.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("programs")
}

/// A program that `cargo xtask setup test` installs.
pub(super) fn installed(path: &str) -> PathBuf {
    let file = programs().join(path);
    assert!(
        file.is_file(),
        "{} is not there: cargo xtask setup test",
        file.display()
    );
    file
}

/// Which run of the program is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The first one: it lies where programs are installed, or its library is named like one.
    First,
    /// A later one: it lies anywhere, and the first may be over before it is inspected, on a busy machine the second too.
    Later,
}

/// Runs a row: one request with a token leaves, and one event says so, with the right destination.
fn run(name: &str, judged: Run, what: impl Fn(&TlsServer, &Scratch) -> Act) {
    run_against(TlsServer::start, name, judged, what);
}

/// The same against another server.
fn run_against(
    serve: impl Fn(&Path) -> TlsServer,
    name: &str,
    judged: Run,
    what: impl Fn(&TlsServer, &Scratch) -> Act,
) {
    let row = ROWS.iter().find(|row| row.name == name).unwrap();
    let _turn = turn();
    let scratch = Scratch::new();
    let server = serve(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let go = |token: &str| {
        what(&server, &scratch)
            .env("GITHUB_TOKEN", token)
            .env("HOME", scratch.join("home"))
            .run()
    };
    for _ in 0..3 {
        if judged == Run::First {
            break;
        }
        let done = go(&plant::github().value);
        agent.wait_idle();
        // Seen or not, no destination is wrong.
        let before = sent(&agent, done.pid);
        for event in before.iter().filter(|e| e.channel() == "tls") {
            goes_to(event, LOOPBACK, server.port);
        }
        if before.iter().any(|e| e.grade() == "observed") {
            break;
        }
    }
    let token = plant::github();
    let done = go(&token.value);
    // What the program makes of the answer is its own affair.
    eprintln!("{}", done.stderr_text());
    // That it really happened, as far as the server's record tells: some are encoded, atuin's is in the body.
    server.got(match name {
        "go_restic" | "rustls_uv" | "rustls_maturin" => "Basic ",
        "openssl_stripped" => "POST /login",
        _ => &token.value,
    });
    agent.expect("a send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    let observed: Vec<&Event> = sent.iter().filter(|e| e.grade() == "observed").collect();
    assert!(!observed.is_empty(), "it was not seen:\n{}", list(&sent));
    for event in &observed {
        let evidence = event.evidence.as_ref().unwrap();
        assert!(evidence.hook.contains(row.hook), "{}", event.brief());
        assert_eq!(event.found_by(), row.destination, "{}", event.brief());
        goes_to(event, LOOPBACK, server.port);
    }
    // What a proxy answers on its own side is another matter.
    let blind: Vec<&Event> = sent
        .iter()
        .filter(|e| e.grade() != "observed" && e.channel() == "tls")
        .collect();
    assert!(blind.is_empty(), "seen and yet lineage:\n{}", list(&sent));
}

pub fn go_hey() {
    run("go_hey", Run::First, |server, _| {
        sh("hey -n 1 -c 1 -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"; :")
            .arg(server.url("/hey"))
    });
}

pub fn go_gh() {
    run("go_gh", Run::First, |server, scratch| {
        sh("GH_HOST=localhost:$1 GH_ENTERPRISE_TOKEN=$GITHUB_TOKEN SSL_CERT_FILE=$2 gh api /rate_limit; :")
            .arg(server.port.to_string())
            .arg(scratch.join("server/server.crt"))
    });
}

pub fn go_rclone() {
    run("go_rclone", Run::First, |server, _| {
        sh(
            "rclone --no-check-certificate --retries 1 --low-level-retries 1 --http-url \"$1\" \
            --http-headers \"Authorization,Bearer $GITHUB_TOKEN\" lsf :http: ; :",
        )
        .arg(server.url("/"))
    });
}

pub fn go_restic() {
    run("go_restic", Run::First, |server, scratch| {
        sh("RESTIC_PASSWORD=x timeout 10 restic --cacert \"$2\" -r \"rest:https://user:$GITHUB_TOKEN@localhost:$1/\" snapshots; :")
            .arg(server.port.to_string())
            .arg(scratch.join("server/server.crt"))
    });
}

pub fn go_kubectl() {
    let kubectl = installed("python/bin/kubectl");
    run("go_kubectl", Run::Later, move |server, _| {
        sh("\"$1\" --insecure-skip-tls-verify --server \"$2\" --token \"$GITHUB_TOKEN\" get --raw /pods; :")
            .arg(&kubectl)
            .arg(server.url(""))
    });
}

/// A client of net/http, built by today's Go.
const CLIENT: &str = r#"package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: transport}
	request, err := http.NewRequest("GET", os.Args[1], nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("GITHUB_TOKEN"))
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, response.Body)
	fmt.Println(response.Proto, response.Status)
}
"#;

/// Builds the client once, with these arguments to `go build`.
fn client(name: &str, args: &[&str]) -> PathBuf {
    let dir = programs().join("go");
    let built = dir.join(name);
    if built.is_file() {
        return built;
    }
    let root = installed("python/lib/python3.11/site-packages/go/bin/go");
    let root = root.ancestors().nth(2).unwrap().to_owned();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("go.mod"), "module client\n\ngo 1.21\n").unwrap();
    std::fs::write(dir.join("main.go"), CLIENT).unwrap();
    let done = act(root.join("bin/go"))
        .arg("-C")
        .arg(&dir)
        .arg("build")
        .args(args)
        .arg("-o")
        .arg(name)
        .env("GOROOT", &root)
        .env("GOCACHE", dir.join("cache"))
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env("HOME", &dir)
        .limit(600)
        .run();
    assert!(done.status.success(), "{}", done.stderr_text());
    built
}

fn own(name: &str, args: &[&str]) {
    let client = client(name, args);
    run(name, Run::Later, move |server, _| {
        act(&client).arg(server.url("/own"))
    });
}

pub fn go_plain() {
    own("go_plain", &[]);
}

pub fn go_stripped() {
    own("go_stripped", &["-ldflags", "-s -w"]);
}

pub fn go_pie() {
    own("go_pie", &["-buildmode=pie", "-ldflags", "-s -w"]);
}

pub fn openssl_wheel() {
    let python = installed("python/bin/python");
    run("openssl_wheel", Run::First, move |server, _| {
        let script = "import os, pycurl, sys
c = pycurl.Curl()
c.setopt(c.URL, sys.argv[1])
c.setopt(c.SSL_VERIFYPEER, 0)
c.setopt(c.SSL_VERIFYHOST, 0)
c.setopt(c.HTTP_VERSION, c.CURL_HTTP_VERSION_1_1)
c.setopt(c.HTTPHEADER, ['Authorization: Bearer ' + os.environ['GITHUB_TOKEN']])
c.perform()";
        act(&python).args(["-c", script]).arg(server.url("/wheel"))
    });
}

pub fn openssl_static() {
    let sentry = installed("npm/node_modules/@sentry/cli-linux-x64/bin/sentry-cli");
    run("openssl_static", Run::Later, move |server, _| {
        sh("printf '[http]\nverify_ssl=false\n' > \"$HOME/.sentryclirc\"; \"$1\" --url \"$2\" --auth-token \"$GITHUB_TOKEN\" info; :")
            .arg(&sentry)
            .arg(server.url(""))
    });
}

/// Registers an account, the token its password.
pub fn openssl_stripped() {
    let atuin = installed("python/bin/atuin");
    run("openssl_stripped", Run::Later, move |server, scratch| {
        sh("SSL_CERT_FILE=$3 ATUIN_SYNC_ADDRESS=$2 timeout 20 \"$1\" login -u user -p \"$GITHUB_TOKEN\" -k \"$4\"; :")
            .arg(&atuin)
            .arg(server.url(""))
            .arg(scratch.join("server/server.crt"))
            // A key, as its words.
            .arg(format!("{}art", "abandon ".repeat(23)))
    });
}

pub fn s2n_awscrt() {
    let python = installed("python/bin/python");
    run("s2n_awscrt", Run::Later, move |server, _| {
        let script = "import os, sys
from awscrt import io, http
group = io.EventLoopGroup(1)
bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
options = io.TlsContextOptions()
options.verify_peer = False
tls = io.ClientTlsContext(options).new_connection_options()
tls.set_server_name('localhost')
connection = http.HttpClientConnection.new('localhost', int(sys.argv[1]), bootstrap, tls_connection_options=tls).result(10)
headers = http.HttpHeaders([('host', 'localhost'), ('authorization', 'Bearer ' + os.environ['GITHUB_TOKEN'])])
stream = connection.request(http.HttpRequest('GET', '/s2n', headers))
stream.activate()
stream.completion_future.result(10)";
        act(&python)
            .args(["-c", script])
            .arg(server.port.to_string())
    });
}

pub fn nss_tstclnt() {
    assert!(
        find("tstclnt").is_some(),
        "no tstclnt: cargo xtask setup test"
    );
    run("nss_tstclnt", Run::First, |server, scratch| {
        sh("mkdir -p \"$2\" && certutil -N --empty-password -d \"sql:$2\" && \
            printf 'GET /nss HTTP/1.1\\r\\nHost: localhost\\r\\nAuthorization: Bearer %s\\r\\nConnection: close\\r\\n\\r\\n' \"$GITHUB_TOKEN\" | \
            timeout 10 tstclnt -h 127.0.0.1 -a localhost -p \"$1\" -o -d \"sql:$2\" -A /dev/stdin >/dev/null; :")
        .arg(server.port.to_string())
        .arg(scratch.join("nss"))
    });
}

pub fn boringssl_bun() {
    let bun = installed("npm/node_modules/@oven/bun-linux-x64/bin/bun");
    run("boringssl_bun", Run::Later, move |server, scratch| {
        let script = scratch.join("send.js");
        std::fs::write(
            &script,
            "await fetch(process.argv[2], {tls: {rejectUnauthorized: false}, \
             headers: {Authorization: 'Bearer ' + process.env.GITHUB_TOKEN}});",
        )
        .unwrap();
        act(&bun).arg(script).arg(server.url("/bun"))
    });
}

pub fn boringssl_grpcio() {
    let python = installed("python/bin/python");
    run_against(
        TlsServer::http2,
        "boringssl_grpcio",
        Run::Later,
        move |server, scratch| {
            // The answer is none of gRPC's.
            let script = "import grpc, os, sys
trusted = grpc.ssl_channel_credentials(open(sys.argv[2], 'rb').read())
channel = grpc.secure_channel('localhost:' + sys.argv[1], trusted)
try:
    channel.unary_unary('/keytrail.Test/Call')(b'x', timeout=10, metadata=[('authorization', 'Bearer ' + os.environ['GITHUB_TOKEN'])])
except grpc.RpcError as error:
    print(error.code())";
            act(&python)
                .args(["-c", script])
                .arg(server.port.to_string())
                .arg(scratch.join("server/server.crt"))
        },
    );
}

pub fn boringssl_envoy() {
    let envoy = installed("python/bin/envoy");
    run("boringssl_envoy", Run::Later, move |server, scratch| {
        let listener = free_port();
        let config = scratch.join("envoy.yaml");
        std::fs::write(
            &config,
            format!(
                r#"static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {listener}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add:
              - header: {{key: authorization, value: "Bearer %ENVIRONMENT(GITHUB_TOKEN)%"}}
              routes: [{{match: {{prefix: /}}, route: {{cluster: service}}}}]
  clusters:
  - name: service
    type: STATIC
    load_assignment:
      cluster_name: service
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}
"#,
                port = server.port
            ),
        )
        .unwrap();
        sh(
            "\"$1\" -c \"$2\" --concurrency 1 --use-dynamic-base-id --log-level error & \
            for n in $(seq 100); do \
                env -u GITHUB_TOKEN curl -sf -o /dev/null \"http://127.0.0.1:$3/\" && break; sleep 0.1; \
            done; kill $!; wait $!; :",
        )
        .arg(&envoy)
        .arg(config)
        .arg(listener.to_string())
    });
}

pub fn rustls_uv() {
    let uv = installed("python/bin/uv");
    let python = installed("python/bin/python");
    run("rustls_uv", Run::Later, move |server, _| {
        // The answer is no index of packages.
        sh("\"$1\" pip install --no-config --no-cache --python \"$2\" --target \"$HOME/packages\" \
            --allow-insecure-host localhost --index-url \"https://user:$GITHUB_TOKEN@localhost:$3/simple/\" nothing; :")
        .arg(&uv)
        .arg(&python)
        .arg(server.port.to_string())
    });
}

/// Deno, and how it takes a server whose certificate nobody knows.
pub(super) fn deno() -> Act {
    act(installed("npm/node_modules/@deno/linux-x64-glibc/deno"))
        .args(["run", "--allow-all", "--no-config", "--quiet"])
        .arg("--unsafely-ignore-certificate-errors")
}

pub fn rustls_deno() {
    installed("npm/node_modules/@deno/linux-x64-glibc/deno");
    run("rustls_deno", Run::Later, |server, scratch| {
        let script = scratch.join("send.js");
        std::fs::write(
            &script,
            "const headers = {Authorization: 'Bearer ' + Deno.env.get('GITHUB_TOKEN')};
             const answer = await fetch(Deno.args[0], {headers}); await answer.text();",
        )
        .unwrap();
        deno().arg(script).arg(server.url("/deno"))
    });
}

/// Uploads a package.
pub fn rustls_maturin() {
    let maturin = installed("python/bin/maturin");
    let python = installed("python/bin/python");
    run("rustls_maturin", Run::Later, move |server, scratch| {
        let wheel = scratch.join("nothing-1.0-py3-none-any.whl");
        let script = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    about = 'nothing-1.0.dist-info/'
    wheel.writestr(about + 'METADATA', 'Metadata-Version: 2.1\\nName: nothing\\nVersion: 1.0\\n')
    wheel.writestr(about + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(about + 'RECORD', '')";
        act(&python).args(["-c", script]).arg(&wheel).run().ok();
        sh(
            "MATURIN_CA_BUNDLE=$2 MATURIN_PYPI_TOKEN=$GITHUB_TOKEN timeout 20 \"$1\" upload \
            --non-interactive --repository-url \"$3\" \"$4\"; :",
        )
        .arg(&maturin)
        .arg(scratch.join("server/server.crt"))
        .arg(server.url("/legacy/"))
        .arg(wheel)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation claims what is tested, no more and no less.
    #[test]
    fn the_table_is_that_of_the_documentation() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COVERAGE.md");
        let text = std::fs::read_to_string(path).unwrap();
        let reported: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != "<!-- rows -->")
            .skip(1)
            .take_while(|line| *line != "<!-- rows -->")
            .filter(|line| line.starts_with("| ") && !line.starts_with("| stack"))
            .collect();
        let tested: Vec<String> = ROWS
            .iter()
            .map(|row| {
                format!(
                    "| {} | {} | {} | `{}` | `{}` | `{}` |",
                    row.stack, row.program, row.site, row.hook, row.destination, row.name
                )
            })
            .collect();
        assert_eq!(reported, tested);
    }
}
