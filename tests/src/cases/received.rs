//! Credentials that a process got over TLS, whose answer is not seen: known from their first use on.

use super::{count, sent, written};
use crate::{
    agent::Agent,
    command::{Background, act},
    events::{Ask as _, Event, list},
    machine::{Scratch, patience, turn, wait_for},
    plant,
    server::{Sink, certificates, free_port},
};
use std::{fs, net::TcpStream};

/// Gives tokens that nobody else knows, and takes everything. HTTP/1.1 over TLS.
const SERVER: &str = "import base64, http.server, json, os, ssl, sys
class Service(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  def log_message(self, *_): pass
  def say(self, text):
    self.send_response(200); self.send_header('Content-Length', str(len(text)))
    self.end_headers(); self.wfile.write(text.encode())
  def do_GET(self): self.say('{}')
  def do_POST(self):
    self.rfile.read(int(self.headers.get('Content-Length', 0)))
    token = base64.urlsafe_b64encode(os.urandom(30)).decode()
    self.say(json.dumps({'access_token': token, 'token_type': 'Bearer', 'expires_in': 3600}))
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Service)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[2] + '/server.crt', sys.argv[2] + '/server.key')
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()";

/// As clients of OAuth 2.0 do: a secret for a token, the token for everything else. A request with a cookie and one against
/// forgery beside it. What it was given it tells another program as well.
const CLIENT: &str = "import json, os, ssl, subprocess, sys, urllib.parse, urllib.request
tls = ssl._create_unverified_context()
base = 'https://localhost:' + sys.argv[1]
def ask(path, body=None, **headers):
  request = urllib.request.Request(base + path, body, headers)
  return json.load(urllib.request.urlopen(request, context=tls))
form = {'grant_type': 'client_credentials', 'client_id': 'web', 'client_secret': os.environ['CLIENT_SECRET']}
token = ask('/oauth2/token', urllib.parse.urlencode(form).encode())['access_token']
noise = os.urandom(24).hex()
for _ in range(3):
  ask('/v1/me', **{'Authorization': 'Bearer ' + token, 'Cookie': 'session=' + noise, 'X-CSRF-Token': noise})
subprocess.run(['curl', '-s', '--data-binary', '@-', 'http://127.0.0.1:' + sys.argv[2] + '/loot'], input=token.encode())";

fn service(scratch: &Scratch, port: u16) -> Background {
    let dir = scratch.make("service");
    certificates(&dir);
    let serving = act("python3")
        .args(["-c", SERVER])
        .arg(port.to_string())
        .arg(&dir)
        .spawn();
    wait_for("the service", patience(20), || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    serving
}

/// A token of OAuth: known from its first use on, with what it was most likely got by; and where it goes from there.
pub fn an_access_token_is_followed() {
    let _turn = turn();
    let scratch = Scratch::new();
    let port = free_port();
    let _serving = service(&scratch, port);
    let sink = Sink::http();
    let agent = Agent::start(&scratch);
    let script = scratch.join("client.py");
    fs::write(&script, CLIENT).unwrap();
    let done = act("python3")
        .arg(&script)
        .arg(port.to_string())
        .arg(sink.port.to_string())
        .env("CLIENT_SECRET", plant::text(plant::BASE62, 40))
        .run()
        .ok();
    assert!(sink.has("POST /loot"));
    let observed =
        |e: &Event| e.is("credential_sent") && e.grade() == "observed" && e.in_tree(done.pid);
    agent.expect("the loot", done.pid, |e| {
        observed(e) && e.peer().1 == u32::from(sink.port)
    });
    agent.wait_idle();
    let mut sent = sent(&agent, done.pid);
    sent.retain(observed);
    let path = |e: &Event| e.request.as_ref().map_or("", |r| &r.path).to_owned();
    let at = |path_of: &str| -> Vec<Event> {
        sent.iter()
            .filter(|e| path(e) == path_of)
            .cloned()
            .collect()
    };
    let (asked, used, loot) = (at("/oauth2/token"), at("/v1/me"), at("/loot"));
    count(&asked, 1, "requests for a token");
    count(&used, 3, "uses of it");
    count(&loot, 1, "sends to somebody else");
    assert_eq!(sent.len(), 5, "{}", list(&sent));
    for event in &used {
        let text = event.brief();
        assert_eq!(event.credential_kind(), "http-bearer-token", "{text}");
        assert_eq!(event.fingerprint(), used[0].fingerprint(), "{text}");
        assert_eq!(
            (event.source_type(), event.channel()),
            ("payload", "tls"),
            "{text}"
        );
        assert_eq!(event.peer(), ("127.0.0.1", u32::from(port)), "{text}");
        let source = event.source.as_ref().unwrap();
        let parents = &source.likely_parents;
        assert_eq!(parents.len(), 1, "{text}");
        assert_eq!(parents[0].fingerprint, asked[0].fingerprint(), "{text}");
        assert_eq!(parents[0].path, "/oauth2/token", "{text}");
    }
    count(&written(&agent, done.pid), 1, "writes to the other's pipe");
    let text = loot[0].brief();
    assert_eq!(loot[0].fingerprint(), used[0].fingerprint(), "{text}");
    assert_eq!(loot[0].channel(), "tcp", "{text}");
    assert!(loot[0].executable().ends_with("/curl"), "{text}");
}
